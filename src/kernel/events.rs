//! What the kernel tells without being asked: interfaces that come, change and go, and MACs that bridges learn.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use macaddr::MacAddr6;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;

/// A hint to look again; what is true the kernel must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A bridge learned this MAC, or saw it on another port.
    Neighbour(MacAddr6),
    /// This interface came, changed or went.
    Link(u32),
    /// Events were lost: everything may have changed.
    Lost,
}

/// A socket of its own, apart from the one for requests.
pub struct Events {
    messages: Box<dyn futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Unpin>,
}

impl Events {
    pub fn open() -> Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Neigh];
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).context("cannot open a netlink socket for events")?;
        // A burst of guests makes thousands of events while we are not scheduled.
        connection.socket_mut().socket_mut().set_rx_buf_sz(1 << 20).context("netlink receive buffer")?;
        tokio::spawn(connection);
        Ok(Self { messages: Box::new(messages.map(|(message, _)| message)) })
    }

    /// The next event that says something. A socket that died is told as `Lost`, again and again.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.messages.next().await.map(|message| message.payload) {
                Some(NetlinkPayload::InnerMessage(message)) => {
                    if let Some(event) = event_of(&message) {
                        return event;
                    }
                }
                Some(NetlinkPayload::Overrun(_)) => return Event::Lost,
                Some(_) => {}
                None => {
                    // Not a busy loop: the caller's own limits still run.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    return Event::Lost;
                }
            }
        }
    }
}

fn event_of(message: &RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => Some(Event::Link(link.header.index)),
        RouteNetlinkMessage::NewNeighbour(entry) => learned(entry).map(Event::Neighbour),
        _ => None,
    }
}

fn learned(entry: &NeighbourMessage) -> Option<MacAddr6> {
    if entry.header.family != AddressFamily::Bridge {
        return None;
    }
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(octets) => <[u8; 6]>::try_from(octets.as_slice()).ok().map(MacAddr6::from),
        _ => None,
    })
}
