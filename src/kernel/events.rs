//! What the kernel tells without being asked: interfaces, addresses and routes that come, change and go, and MACs
//! that bridges learn and forget.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use macaddr::MacAddr6;
use nix::libc::{ENOBUFS, NLMSG_NOOP};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkBuffer;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use socket2::{SockFilter, SockRef};

use super::decode::{self, Object};
use super::event_filter;
use super::socket::LARGEST;
use crate::guest::route::MAIN_TABLE;

/// A hint to look again; what is true the kernel must be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A bridge has this MAC on this port now: learned from a frame, or a port's own.
    Port { mac: MacAddr6, port: u32 },
    /// A bridge has this MAC no more.
    NoPort { mac: MacAddr6 },
    /// This interface came, changed or went.
    Link(u32),
    /// An address of the host itself came or went.
    Address,
    /// A filter or qdisc of this interface came, changed or went; a guard perhaps.
    Filter { tap: u32, guard: bool },
    /// The `ingress` of this interface came or went, in whose place tap32 puts a clsact: libvirt sets a NIC's <bandwidth>.
    Ingress(u32),
    /// A neighbour entry of this address went that somebody had marked with a protocol.
    NoNeighbour(Ipv4Addr),
    /// A /32 came, changed or went.
    Route { address: Ipv4Addr, protocol: u8 },
    /// Somebody with CAP_NET_ADMIN asks this process to give up (`machine::claimers`).
    Dismissed,
    /// Events were lost: everything may have changed.
    Lost,
}

/// Octets. An event takes some 1 to 4 KiB of them, and a buffer that is empty none.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket of its own, apart from the one for requests.
pub struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// Received, and not yet told.
    pending: VecDeque<Event>,
    /// The socket's port, to which a dismissal goes.
    pub port: u32,
}

impl Events {
    /// Interfaces, addresses, routes, filters, and MACs of their own that bridges lose: all that can cut off a guest or
    /// leave it without guard. `own` is the port of the socket by which the caller itself changes things.
    pub fn of_host(own: u32) -> Result<Self> {
        use MulticastGroup::{Ipv4Ifaddr, Ipv4Route, Link, Neigh, Tc};
        Self::open(&[Link, Ipv4Ifaddr, Ipv4Route, Tc, Neigh], &event_filter::of_host(own))
    }

    /// What bridges learn and forget of these guests and their taps, whose own MAC is in a bridge's table as long as they
    /// are its ports (br_fdb_add_local, br_fdb_delete_by_port). What others do wakes nobody.
    pub fn of_guests(addresses: &[Ipv4Addr]) -> Result<Self> {
        Self::open(&[MulticastGroup::Neigh], &event_filter::of_guests(addresses))
    }

    /// Listens from now on. Needs a tokio runtime.
    fn open(groups: &[MulticastGroup], filter: &[SockFilter]) -> Result<Self> {
        let mut events = TokioSocket::new(NETLINK_ROUTE).context("cannot open a netlink socket for events")?;
        let socket = events.socket_mut();
        // A burst of guests makes thousands of events during a pass.
        let forced = setsockopt(socket, RcvBufForce, &RECEIVE_BUFFER);
        // In an unprivileged container root may not force it (sock_setsockopt), and gets rmem_max.
        forced.or_else(|_| setsockopt(socket, RcvBuf, &RECEIVE_BUFFER)).context("netlink socket option SO_RCVBUF")?;
        SockRef::from(&*socket).attach_filter(filter).context("cannot filter netlink events")?;
        let groups = groups.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.bind(&SocketAddr::new(0, groups)).context("cannot listen to netlink events")?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address).context("port of the netlink socket")?;
        let (buffer, pending) = (Vec::with_capacity(LARGEST), VecDeque::new());
        Ok(Self { socket: events, buffer, pending, port: address.port_number() })
    }

    /// The next event that says something. A socket that died is told as `Lost`, again and again.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return event;
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(()) => self.take_in(),
                Err(error) => {
                    // First of all, for the caller may stop to wait.
                    self.pending.push_back(Event::Lost);
                    if error.raw_os_error() == Some(ENOBUFS) {
                        self.read_to_the_end();
                    } else {
                        // Not a busy loop: the caller's own limits still run.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    fn take_in(&mut self) {
        self.pending.extend(decode::messages(&self.buffer).filter_map(|message| event_of(&message)));
    }

    /// After an overrun the kernel drops what comes, and does not say so again, until all that it has is read
    /// (netlink_overrun, netlink_rcv_wake).
    fn read_to_the_end(&mut self) {
        self.buffer.clear();
        while self.socket.socket_ref().recv(&mut self.buffer, 0).is_ok() {
            self.take_in();
            self.buffer.clear();
        }
    }
}

fn event_of(message: &NetlinkBuffer<&[u8]>) -> Option<Event> {
    if i32::from(message.message_type()) == NLMSG_NOOP {
        return Some(Event::Dismissed);
    }
    match decode::object(message) {
        Object::Link(found) => Some(Event::Link(found.link.index)),
        Object::Port { mac, index, .. } => Some(Event::Port { mac, port: index }),
        Object::NoPort { mac } => Some(Event::NoPort { mac }),
        Object::Address(..) => Some(Event::Address),
        Object::Route(route) => {
            let route = route.host_route.filter(|route| route.table == MAIN_TABLE)?;
            Some(Event::Route { address: route.address, protocol: route.protocol })
        }
        Object::TrafficControl(found) if found.kind == "ingress" => Some(Event::Ingress(found.index)),
        Object::TrafficControl(found) => Some(Event::Filter { tap: found.index, guard: found.guard.is_some() }),
        Object::NoNeighbour(address) => Some(Event::NoNeighbour(address)),
        Object::Neighbour(_) | Object::Other => None,
    }
}
