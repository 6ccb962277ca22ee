//! Netlink's spelling of our values: messages from `plan`'s, `snapshot`'s values from messages.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use nix::errno::Errno;
use rtnetlink::packet_core::{DefaultNla, Nla, NlasIterator, Parseable};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoBridgePort, InfoKind, InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Denied;
use crate::plan::HostRoute;
use crate::snapshot::{Bridge, Link, Route};

/// NLMSGERR_ATTR_MSG (linux/netlink.h): the kernel's sentence on an error.
const EXTACK_MESSAGE: u16 = 1;

/// A negative error code and what follows it in the message: with NETLINK_CAP_ACK the header of the
/// request (only on errors, not on the end of a dump), then attributes.
pub fn denied(code: i32, rest: &[u8]) -> Denied {
    const REQUEST_HEADER: usize = 16;
    let sentence = |attributes: &[u8]| {
        NlasIterator::new(attributes)
            .flatten()
            .find(|nla| nla.kind() == EXTACK_MESSAGE)
            .and_then(|nla| DefaultNla::parse(&nla).ok())
            .map(|nla| {
                let mut value = vec![0; nla.value_len()];
                nla.emit_value(&mut value);
                String::from_utf8_lossy(&value).trim_end_matches('\0').to_owned()
            })
    };
    let text = rest.get(REQUEST_HEADER..).and_then(sentence).or_else(|| sentence(rest)).unwrap_or_default();
    Denied { errno: Errno::from_raw(-code), text }
}

/// A question for one interface, without its counters.
pub fn get_link() -> LinkMessage {
    let mut get = LinkMessage::default();
    get.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    get
}

pub fn get_link_named(name: &str) -> LinkMessage {
    let mut get = get_link();
    get.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get
}

/// Which route the kernel takes to `address` (`ip route get fibmatch ADDRESS`).
pub fn get_route(address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut get = RouteMessage::default();
    get.header.address_family = AddressFamily::Inet;
    get.header.destination_prefix_length = 32;
    get.header.flags = RouteFlags::FibMatch;
    get.header.kind = RouteType::Unspec;
    get.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    RouteNetlinkMessage::GetRoute(get)
}

/// Which port a bridge's table names for `mac` (`bridge fdb get MAC br BR`).
pub fn get_port(bridge: u32, mac: MacAddr6) -> RouteNetlinkMessage {
    let mut get = NeighbourMessage::default();
    get.header.family = AddressFamily::Bridge;
    get.header.kind = RouteType::Unspec;
    get.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()));
    get.attributes.push(NeighbourAttribute::Controller(bridge));
    RouteNetlinkMessage::GetNeighbour(get)
}

pub fn as_link(answer: RouteNetlinkMessage) -> Option<LinkMessage> {
    if let RouteNetlinkMessage::NewLink(link) = answer { Some(link) } else { None }
}

pub fn as_route(answer: RouteNetlinkMessage) -> Option<RouteMessage> {
    if let RouteNetlinkMessage::NewRoute(route) = answer { Some(route) } else { None }
}

/// Index of the port in an answer to `get_port`.
pub fn as_port(answer: RouteNetlinkMessage) -> Option<u32> {
    if let RouteNetlinkMessage::NewNeighbour(entry) = answer { Some(entry.header.ifindex) } else { None }
}

pub fn set_link(
    index: u32,
    mac_and_mtu: Option<(MacAddr6, u32)>,
    master: Option<u32>,
    up: Option<bool>,
) -> LinkMessage {
    let mut set = LinkMessage::default();
    set.header.index = index;
    if let Some((mac, mtu)) = mac_and_mtu {
        set.attributes.push(LinkAttribute::Address(mac.as_bytes().to_vec()));
        set.attributes.push(LinkAttribute::Mtu(mtu));
    }
    if let Some(master) = master {
        set.attributes.push(LinkAttribute::Controller(master));
    }
    if let Some(up) = up {
        set.header.change_mask = LinkFlags::Up;
        set.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    }
    set
}

/// Port flags go in a message of their own, after the interface has become a port.
pub fn set_isolated(index: u32, on: bool) -> LinkMessage {
    let mut set = LinkMessage::default();
    set.header.index = index;
    set.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(on)])),
    ]));
    set
}

/// Adding, looking up and deleting all send this one message, so that they mean the same route.
pub fn route(route: &HostRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(route.address)));
    message.attributes.push(RouteAttribute::Oif(route.bridge_index));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message
}

pub fn link_of(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        kind: String::new(),
        mac: MacAddr6::nil(),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        isolated: false,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::Address(octets) => {
                link.mac = <[u8; 6]>::try_from(octets.as_slice()).map(MacAddr6::from).unwrap_or_default();
            }
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        // TUN and TAP are one kind; only a TAP has an Ethernet header (tun.c, tun_net_init).
                        LinkInfo::Kind(InfoKind::Tun) if message.header.link_layer_type == LinkLayerType::Ether => {
                            link.kind = "tap".to_owned();
                        }
                        LinkInfo::Kind(kind) => link.kind = kind.to_string(),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.isolated = port.contains(&InfoBridgePort::Isolated(true));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// `None` for what is not a bridge.
pub fn bridge_of(message: &LinkMessage, addresses: Vec<Ipv4Net>) -> Option<Bridge> {
    let link = link_of(message);
    if link.kind != "bridge" {
        return None;
    }
    let inet = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::AfSpecUnspec(families) => families.iter().find_map(|family| match family {
            AfSpecUnspec::Inet(inet) => inet.iter().find_map(|item| match item {
                AfSpecInet::DevConf(conf) => Some(conf),
                _ => None,
            }),
            _ => None,
        }),
        _ => None,
    });
    Some(Bridge {
        name: link.name,
        index: link.index,
        mtu: link.mtu,
        up: link.up,
        proxy_arp_pvlan: inet.is_some_and(|conf| conf.proxy_arp_pvlan != 0),
        addresses,
    })
}

/// An address with its prefix length, host bits kept. IFA_LOCAL is the host's own (if_addr.h).
pub fn net_of(message: &AddressMessage) -> Option<Ipv4Net> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Ipv4Net::new(*address, message.header.prefix_len).ok(),
        _ => None,
    })
}

/// A /32 unicast route of the main table; `None` for any other.
pub fn route_of(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast
        || header.destination_prefix_length != 32
        || header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut address = None;
    let (mut dev, mut metric, mut gateways) = (None, 0, Vec::new());
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => address = Some(*to),
            RouteAttribute::Oif(index) => dev = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => gateways.push(*gateway),
            RouteAttribute::MultiPath(hops) => {
                gateways.extend(hops.iter().flat_map(|hop| &hop.attributes).filter_map(|attribute| match attribute {
                    RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    Some(Route { address: address?, protocol: header.protocol.into(), metric, dev, gateways })
}
