//! Decodes from the kernel's answers and events what tap32 reads.
//!
//! The crate's own decoding makes some hundred allocations and 6 KiB of an interface: a dump of 4,000 then takes half
//! of a pass, and more memory than `watch` may have. The numbers are from linux/rtnetlink.h, if_link.h and neighbour.h.

pub mod octets;
pub mod traffic_control;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use rtnetlink::packet_core::NetlinkBuffer;

use self::octets::{attribute, attributes, ipv4, mac, number, text};
use self::traffic_control::TrafficControl;
use crate::guest::link::{Bridge, Link};
use crate::guest::neighbour::Entry;
use crate::guest::route::Route;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;

const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_BROADCAST: u8 = 3;
const RTPROT_KERNEL: u8 = 2;
/// A port's flag, asked for and set.
pub const IFLA_BRPORT_ISOLATED: u16 = 33;
/// Place of proxy_arp_pvlan in IFLA_INET_CONF (IPV4_DEVCONF_PROXY_ARP_PVLAN - 1, linux/ip.h).
const PROXY_ARP_PVLAN: usize = 24;

#[derive(Debug, Clone)]
pub enum Object {
    Link(LinkObject),
    Route(RouteObject),
    /// An interface's index and one of its addresses, host bits kept.
    Address(u32, Ipv4Net),
    /// An entry of a bridge's FDB.
    Port {
        index: u32,
        mac: MacAddr6,
        /// The MAC is the port's own, and not one that somebody behind it sent.
        own: bool,
    },
    /// A MAC that a bridge's table has no more.
    NoPort {
        mac: MacAddr6,
    },
    /// A permanent entry of the neighbour table.
    Neighbour(Entry),
    /// One that is gone.
    NoNeighbour(Ipv4Addr),
    /// A filter or a qdisc.
    TrafficControl(TrafficControl),
    Other,
}

#[derive(Debug, Clone)]
pub struct LinkObject {
    pub link: Link,
    pub proxy_arp_pvlan: bool,
    /// Whether a bridge runs the spanning tree protocol.
    pub stp: bool,
    /// Packets received; 0 if the question left out the counters.
    pub received: u64,
}

impl LinkObject {
    /// `None` if it is not a bridge.
    pub fn bridge(&self, addresses: Vec<Ipv4Net>) -> Option<Bridge> {
        let Link { kind, name, index, mac, mtu, up, .. } = &self.link;
        (kind == "bridge").then(|| Bridge {
            name: name.clone(),
            index: *index,
            mtu: *mtu,
            up: *up,
            proxy_arp_pvlan: self.proxy_arp_pvlan,
            mac: *mac,
            flushed: false,
            addresses,
            master: None,
            other_ports: Vec::new(),
        })
    }
}

#[derive(Debug, Clone)]
pub struct RouteObject {
    /// Whether it is the route of a host's own address.
    pub local: bool,
    /// Whether it is the route of a subnet's broadcast address.
    pub broadcast: bool,
    /// The first address of the subnet that is on link at an interface's own address.
    pub network: Option<Ipv4Addr>,
    /// rtm_protocol.
    pub protocol: u8,
    /// `None` if it is not a /32 unicast route.
    pub host_route: Option<Route>,
}

/// The messages of a datagram from the kernel, up to a broken one.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        // At the end: what a message lacks the crate says in a text, which takes as long as the rest.
        let message = (!datagram.is_empty()).then(|| NetlinkBuffer::new_checked(datagram).ok())??;
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
        Some(message)
    })
}

/// What a message says that is neither an error nor the end of a dump.
pub fn object(message: &NetlinkBuffer<&[u8]>) -> Object {
    let payload = message.payload();
    let object = match message.message_type() {
        RTM_NEWLINK | RTM_DELLINK => link(payload).map(Object::Link),
        RTM_NEWROUTE | RTM_DELROUTE => route(payload).map(Object::Route),
        RTM_NEWADDR | RTM_DELADDR => address(payload),
        RTM_NEWNEIGH => neighbour(payload, true),
        RTM_DELNEIGH => neighbour(payload, false).map(gone),
        RTM_NEWQDISC | RTM_DELQDISC | RTM_NEWTFILTER | RTM_DELTFILTER => {
            traffic_control::decode(payload).map(Object::TrafficControl)
        }
        _ => None,
    };
    object.unwrap_or(Object::Other)
}

/// struct ifinfomsg. With family AF_BRIDGE it is a port without its kind.
fn link(bytes: &[u8]) -> Option<LinkObject> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;
    const IFLA_MASTER: u16 = 10;
    const IFLA_PROTINFO: u16 = 12;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_CARRIER: u16 = 33;
    const IFLA_CARRIER_UP_COUNT: u16 = 47;
    const IFLA_STATS64: u16 = 23;
    const IFLA_AF_SPEC: u16 = 26;

    let header = bytes.get(..16)?;
    let family = i32::from(header[0]);
    let flags = number(&header[8..12])?;
    let mut proxy_arp_pvlan = false;
    let mut stp = false;
    let mut received = 0;
    let (up, carrier) = (flags & IFF_UP != 0, flags & IFF_LOWER_UP != 0);
    let mut link = Link { index: number(&header[4..8])?, up, carrier, ..Link::default() };
    for (kind, value) in attributes(&bytes[16..]) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = mac(value).unwrap_or_default(),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_MASTER => link.master = number(value),
            IFLA_PROTINFO if family == nix::libc::AF_BRIDGE => link.isolated = isolated(value),
            IFLA_LINKINFO => {
                kind_and_port(value, u16::from_ne_bytes([header[2], header[3]]), &mut link);
                stp = link.kind == "bridge" && has_stp(value);
            }
            IFLA_CARRIER => link.carrier = value.first() == Some(&1),
            IFLA_CARRIER_UP_COUNT => link.openings = number(value)?,
            // struct rtnl_link_stats64 begins with rx_packets.
            IFLA_STATS64 => received = value.first_chunk().map_or(0, |first| u64::from_ne_bytes(*first)),
            IFLA_AF_SPEC if family == nix::libc::AF_UNSPEC => proxy_arp_pvlan = has_proxy_arp_pvlan(value),
            _ => {}
        }
    }
    Some(LinkObject { link, proxy_arp_pvlan, stp, received })
}

fn kind_and_port(bytes: &[u8], hardware: u16, link: &mut Link) {
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_SLAVE_KIND: u16 = 4;
    const IFLA_INFO_SLAVE_DATA: u16 = 5;
    let mut of_bridge = false;
    for (kind, value) in attributes(bytes) {
        match kind {
            // TUN and TAP are one kind; only a TAP has an Ethernet header (tun.c, tun_net_init).
            IFLA_INFO_KIND if value.starts_with(b"tun") && hardware == ARPHRD_ETHER => link.kind = "tap".to_owned(),
            IFLA_INFO_KIND => link.kind = text(value),
            IFLA_INFO_SLAVE_KIND => of_bridge = value.starts_with(b"bridge"),
            IFLA_INFO_SLAVE_DATA if of_bridge => link.isolated = isolated(value),
            _ => {}
        }
    }
}

fn has_stp(info: &[u8]) -> bool {
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_BR_STP_STATE: u16 = 5;
    let state = attribute(info, IFLA_INFO_DATA).and_then(|data| attribute(data, IFLA_BR_STP_STATE));
    state.and_then(number).is_some_and(|state| state != 0)
}

fn isolated(bytes: &[u8]) -> bool {
    attribute(bytes, IFLA_BRPORT_ISOLATED).is_some_and(|value| value.first() == Some(&1))
}

fn has_proxy_arp_pvlan(bytes: &[u8]) -> bool {
    const AF_INET: u16 = nix::libc::AF_INET as u16;
    const IFLA_INET_CONF: u16 = 1;
    let conf = attribute(bytes, AF_INET).and_then(|inet| attribute(inet, IFLA_INET_CONF));
    conf.and_then(|conf| number(conf.get(PROXY_ARP_PVLAN * 4..)?)).is_some_and(|on| on != 0)
}

/// struct rtmsg.
fn route(bytes: &[u8]) -> Option<RouteObject> {
    const RTA_DST: u16 = 1;
    const RTA_OIF: u16 = 4;
    const RTA_PRIORITY: u16 = 6;
    const RTA_MULTIPATH: u16 = 9;
    const RTA_TABLE: u16 = 15;

    let header = bytes.get(..12)?;
    let [_, length, _, _, table, protocol, _, kind] = header[..8] else { return None };
    let mut found = RouteObject {
        local: kind == RTN_LOCAL,
        broadcast: kind == RTN_BROADCAST,
        network: None,
        protocol,
        host_route: None,
    };
    if kind != RTN_UNICAST || length != 32 {
        // A /31 has no network address (RFC 3021).
        if kind == RTN_UNICAST && protocol == RTPROT_KERNEL && length < 31 {
            found.network = attribute(&bytes[12..], RTA_DST).and_then(ipv4);
        }
        return Some(found);
    }
    let (address, table) = (Ipv4Addr::UNSPECIFIED, u32::from(table));
    let mut route = Route { address, table, protocol, metric: 0, dev: None, gateways: Vec::new() };
    for (kind, value) in attributes(&bytes[12..]) {
        match kind {
            RTA_DST => route.address = ipv4(value)?,
            RTA_OIF => route.dev = number(value),
            RTA_PRIORITY => route.metric = number(value)?,
            // The header has no room for a table above 255.
            RTA_TABLE => route.table = number(value)?,
            RTA_MULTIPATH => route.gateways.extend(next_hops(value)),
            _ => route.gateways.extend(gateway(kind, value)),
        }
    }
    found.host_route = Some(route);
    Some(found)
}

/// A next hop: RTA_GATEWAY, or for another family (BGP between unnumbered ends) RTA_VIA, a struct rtvia.
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    const RTA_GATEWAY: u16 = 5;
    const RTA_VIA: u16 = 18;
    match kind {
        RTA_GATEWAY => ipv4(value).map(IpAddr::from),
        RTA_VIA => <[u8; 16]>::try_from(value.get(2..)?).ok().map(IpAddr::from),
        _ => None,
    }
}

/// An array of struct rtnexthop, each before its attributes.
fn next_hops(mut bytes: &[u8]) -> Vec<IpAddr> {
    const HEADER: usize = 8;
    let mut found = Vec::new();
    while let Some(length) = bytes.get(..2).map(|length| usize::from(u16::from_ne_bytes([length[0], length[1]]))) {
        let Some(hop) = bytes.get(HEADER..length) else { break };
        found.extend(attributes(hop).filter_map(|(kind, value)| gateway(kind, value)));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// struct ifaddrmsg. IFA_LOCAL is the host's own address (if_addr.h).
fn address(bytes: &[u8]) -> Option<Object> {
    const IFA_LOCAL: u16 = 2;
    let header = bytes.get(..8)?;
    let local = attribute(&bytes[8..], IFA_LOCAL).and_then(ipv4)?;
    Some(Object::Address(number(&header[4..8])?, Ipv4Net::new(local, header[1]).ok()?))
}

/// struct ndmsg: an entry of a bridge's FDB, or a permanent one of the neighbour table. A bridge marks the MACs of its
/// ports as permanent (br_fdb_add_local). An entry of the table that goes is told as failed, whatever it was
/// (neigh_delete).
fn neighbour(bytes: &[u8], is_there: bool) -> Option<Object> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NDA_PROTOCOL: u16 = 12;
    const NUD_PERMANENT: u16 = 0x80;
    let (header, attributes) = bytes.split_first_chunk::<12>()?;
    let index = number(&header[4..8])?;
    let permanent = u16::from_ne_bytes([header[8], header[9]]) & NUD_PERMANENT != 0;
    match i32::from(header[0]) {
        nix::libc::AF_BRIDGE => {
            let mac = attribute(attributes, NDA_LLADDR).and_then(mac)?;
            Some(Object::Port { index, mac, own: permanent })
        }
        nix::libc::AF_INET if permanent || !is_there => {
            let address = attribute(attributes, NDA_DST).and_then(ipv4)?;
            let mac = attribute(attributes, NDA_LLADDR).and_then(mac).unwrap_or_default();
            let protocol = attribute(attributes, NDA_PROTOCOL).and_then(|value| value.first().copied());
            Some(Object::Neighbour(Entry { address, mac, dev: index, protocol: protocol.unwrap_or_default() }))
        }
        _ => None,
    }
}

fn gone(object: Object) -> Object {
    match object {
        Object::Port { mac, .. } => Object::NoPort { mac },
        Object::Neighbour(entry) => Object::NoNeighbour(entry.address),
        other => other,
    }
}
