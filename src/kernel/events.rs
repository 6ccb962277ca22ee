//! What the kernel tells without being asked: interfaces, addresses and routes that come, change and go, and MACs
//! that bridges learn.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use futures_util::{Stream, StreamExt};
use macaddr::MacAddr6;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::proto::Connection;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr};

use super::decode::{Message, Object};
use crate::guest::route::MAIN_TABLE;

/// A hint to look again; what is true the kernel must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A bridge learned this MAC, or saw it on another port: this one.
    Neighbour { mac: MacAddr6, port: u32 },
    /// This interface came, changed or went.
    Link(u32),
    /// An address of the host itself came or went.
    Address,
    /// A /32 came, changed or went.
    Route { address: Ipv4Addr, protocol: u8 },
    /// Events were lost: everything may have changed.
    Lost,
}

/// What to listen to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventGroups {
    /// Interfaces and what bridges learn: a guest that arrives.
    Arrivals,
    /// Interfaces, addresses and routes: all that can make a route wrong.
    Host,
}

/// A socket of its own, apart from the one for requests.
pub struct Events {
    messages: Box<dyn Stream<Item = NetlinkMessage<Message>> + Unpin>,
    /// Port of the socket whose doings are no news.
    own: Option<u32>,
}

impl Events {
    /// Listens from now on; `own` is the port of the socket by which the caller itself changes things.
    pub fn open(about: EventGroups, own: Option<u32>) -> Result<Self> {
        let groups: &[MulticastGroup] = match about {
            EventGroups::Arrivals => &[MulticastGroup::Link, MulticastGroup::Neigh],
            EventGroups::Host => &[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route],
        };
        let (mut connection, _, messages) =
            rtnetlink::proto::new_connection(NETLINK_ROUTE).context("cannot open a netlink socket for events")?;
        let connection_of: &mut Connection<Message> = &mut connection;
        let socket = connection_of.socket_mut().socket_mut();
        // A burst of guests makes thousands of events while we are not scheduled.
        socket.set_rx_buf_sz(1 << 20).context("netlink receive buffer")?;
        let groups = groups.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.bind(&SocketAddr::new(0, groups)).context("cannot listen to netlink events")?;
        tokio::spawn(connection);
        Ok(Self { messages: Box::new(messages.map(|(message, _)| message)), own })
    }

    /// The next event that says something. A socket that died is told as `Lost`, again and again.
    pub async fn next(&mut self) -> Event {
        loop {
            let Some(message) = self.messages.next().await else {
                // Not a busy loop: the caller's own limits still run.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                return Event::Lost;
            };
            match message.payload {
                NetlinkPayload::InnerMessage(_) if Some(message.header.port_number) == self.own => {}
                NetlinkPayload::InnerMessage(Message::Answer(object)) => {
                    if let Some(event) = event_of(object) {
                        return event;
                    }
                }
                NetlinkPayload::Overrun(_) => return Event::Lost,
                _ => {}
            }
        }
    }
}

fn event_of(object: Object) -> Option<Event> {
    match object {
        Object::Link(found) => Some(Event::Link(found.link.index)),
        Object::Port { mac, index } => Some(Event::Neighbour { mac, port: index }),
        Object::Address(..) => Some(Event::Address),
        Object::Route(route) => {
            let route = route.host_route.filter(|route| route.table == MAIN_TABLE)?;
            Some(Event::Route { address: route.address, protocol: route.protocol })
        }
        Object::Other => None,
    }
}
