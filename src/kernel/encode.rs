//! tap32's requests as netlink messages, and the kernel's refusals.

use std::net::Ipv4Addr;

use macaddr::MacAddr6;
use nix::errno::Errno;
use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkProtoInfoBridge};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Denied;
use super::decode::IFLA_BRPORT_ISOLATED;
use super::decode::octets::{attribute, text};
use crate::guest::route::HostRoute;

/// NLMSGERR_ATTR_MSG (linux/netlink.h): the kernel's sentence on an error.
const EXTACK_MESSAGE: u16 = 1;

/// `rest` follows the negative error code in the message: with NETLINK_CAP_ACK the header of the request (not at the
/// end of a dump), then attributes.
pub fn denied(code: i32, rest: &[u8]) -> Denied {
    const REQUEST_HEADER: usize = 16;
    let sentence = |rest| attribute(rest, EXTACK_MESSAGE).map(text);
    let text = rest.get(REQUEST_HEADER..).and_then(sentence).or_else(|| sentence(rest)).unwrap_or_default();
    Denied { errno: Errno::from_raw(-code), text }
}

/// Asks for one interface, without its counters.
pub fn get_link() -> LinkMessage {
    let mut get = LinkMessage::default();
    get.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    get
}

pub fn get_link_at(index: u32) -> LinkMessage {
    let mut get = get_link();
    get.header.index = index;
    get
}

pub fn get_link_named(name: &str) -> LinkMessage {
    let mut get = get_link();
    get.attributes.push(LinkAttribute::IfName(name.to_owned()));
    get
}

/// Asks for the route that the kernel takes to `address` (`ip route get fibmatch ADDRESS`). Without the second flag the
/// kernel calls every table the main one (inet_rtm_getroute).
pub fn get_route(address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut get = RouteMessage::default();
    get.header.address_family = AddressFamily::Inet;
    get.header.destination_prefix_length = 32;
    get.header.flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
    get.header.kind = RouteType::Unspec;
    get.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
    RouteNetlinkMessage::GetRoute(get)
}

/// Asks for routes of the main table.
pub fn list_routes() -> RouteMessage {
    let mut get = RouteMessage::default();
    get.header.address_family = AddressFamily::Inet;
    get.header.table = RouteHeader::RT_TABLE_MAIN;
    get.header.kind = RouteType::Unspec;
    get
}

/// Asks for the port of `mac` in a bridge's FDB (`bridge fdb get MAC br BR`).
pub fn get_port(bridge: u32, mac: MacAddr6) -> RouteNetlinkMessage {
    let mut get = NeighbourMessage::default();
    get.header.family = AddressFamily::Bridge;
    get.header.kind = RouteType::Unspec;
    get.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()));
    get.attributes.push(NeighbourAttribute::Controller(bridge));
    RouteNetlinkMessage::GetNeighbour(get)
}

/// The bridge's own MAC into its FDB (`bridge fdb add MAC dev BR self local`).
pub fn add_own_entry(bridge: u32, mac: MacAddr6) -> RouteNetlinkMessage {
    let mut new = NeighbourMessage::default();
    new.header.family = AddressFamily::Bridge;
    new.header.ifindex = bridge;
    new.header.state = NeighbourState::Permanent;
    new.header.flags = NeighbourFlags::Own;
    new.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()));
    RouteNetlinkMessage::NewNeighbour(new)
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

/// A message of its own, because the kernel takes port flags only after the interface has become a port.
pub fn set_isolated(index: u32, on: bool) -> RouteNetlinkMessage {
    set_port(index, DefaultNla::new(IFLA_BRPORT_ISOLATED, vec![on.into()]))
}

/// Takes what the bridge has learned behind a port out of its FDB. The port's own MAC and what somebody added stay
/// (br_setport: br_fdb_delete_by_port).
pub fn forget_learned(index: u32) -> RouteNetlinkMessage {
    const IFLA_BRPORT_FLUSH: u16 = 24;
    set_port(index, DefaultNla::new(IFLA_BRPORT_FLUSH, Vec::new()))
}

/// As `bridge link set` sets a flag. As part of the interface (`ip link set TAP type bridge_slave`) the kernel goes through
/// all IPv6 routes of the host for it (do_setlink: netif_state_change, rt6_sync_up), 0.35 ms beside 4,000 taps (measured).
fn set_port(index: u32, what: DefaultNla) -> RouteNetlinkMessage {
    let mut set = LinkMessage::default();
    set.header.interface_family = AddressFamily::Bridge;
    set.header.index = index;
    set.attributes.push(LinkAttribute::ProtoInfoBridge(vec![LinkProtoInfoBridge::Other(what)]));
    RouteNetlinkMessage::SetLink(set)
}

/// The one message for adding, looking up and deleting, so that all three mean the same route.
pub fn route(route: &HostRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(route.address)));
    message.attributes.push(RouteAttribute::Oif(route.bridge.index));
    message.attributes.push(RouteAttribute::Priority(route.metric));
    message
}
