//! What tap32 refuses. `refusal` has the sentences.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use macaddr::MacAddr6;

use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config};
use crate::guest::link::{Bridge, Link, Other};
use crate::guest::refusal::{self, Refusal};
use crate::guest::snapshot::Snapshot;

/// The interface of this name, which must be a tap.
pub(crate) fn tap<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Link, Refusal> {
    must_be_tap(snapshot.link(name).ok_or_else(|| refusal::no_interface(name))?)
}

pub(crate) fn must_be_tap(link: &Link) -> Result<&Link, Refusal> {
    if link.is_tap() { Ok(link) } else { Err(refusal::not_a_tap(&link.name, &link.kind)) }
}

/// The guest MAC `mac`.
///
/// # Errors
/// It does not begin with the configured prefix.
pub fn guest_mac(config: &Config, mac: MacAddr6) -> Result<GuestMac, Refusal> {
    GuestMac::new(mac, config.mac_prefix).ok_or_else(|| refusal::mac_prefix(mac, config.mac_prefix))
}

/// The managed bridge for a guest: `asked`, else the one of which the tap is a port, else the only one, else the one whose
/// prefixes contain the address.
pub(crate) fn bridge_for<'a>(
    config: &'a Config,
    snapshot: &'a Snapshot,
    link: Option<&Link>,
    asked: Option<&str>,
    guest: GuestMac,
) -> Result<(&'a BridgeConfig, &'a Bridge), Refusal> {
    let present = link.and_then(|link| link.master).map(|index| snapshot.name_of(index));
    let name = match (asked, &present) {
        (Some(asked), _) => asked.to_owned(),
        (None, Some(present)) if config.bridge(present).is_some() => present.clone(),
        _ => default_bridge(config, snapshot, guest)?,
    };
    let wanted = config.bridge(&name).ok_or_else(|| refusal::unmanaged(&name, &bridge_names(config)))?;
    let bridge = snapshot.bridge(&name).ok_or_else(|| refusal::no_bridge(&name))?;
    if let Some(master) = &bridge.master {
        return Err(refusal::bridge_is_port(&name, master));
    }
    match (link, present) {
        (Some(link), Some(master)) if master != name => Err(refusal::foreign_port(&link.name, &master)),
        _ => Ok((wanted, bridge)),
    }
}

fn default_bridge(config: &Config, snapshot: &Snapshot, guest: GuestMac) -> Result<String, Refusal> {
    if let [only] = &config.bridges[..] {
        return Ok(only.name.clone());
    }
    let has_address = |wanted: &&BridgeConfig, bridge: &Bridge| {
        wanted.guest_prefixes(&bridge.addresses).iter().any(|prefix| prefix.contains(&guest.address()))
    };
    let mut fitting = config
        .bridges
        .iter()
        .filter(|wanted| snapshot.bridge(&wanted.name).is_some_and(|bridge| has_address(wanted, bridge)));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.name.clone()),
        (Some(_), Some(_)) => Err(refusal::which_bridge(guest.address(), "several", &bridge_names(config))),
        (None, _) => Err(refusal::which_bridge(guest.address(), "none", &bridge_names(config))),
    }
}

pub(super) fn bridge_names(config: &Config) -> String {
    config.bridges.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Refuses an address that no guest may have behind `bridge`.
pub(crate) fn check_address(
    config: &BridgeConfig,
    bridge: &Bridge,
    guest: GuestMac,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    let address = guest.address();
    if let Some(what) = reserved(address) {
        return Err(refusal::reserved(address, what));
    }
    let special = |what| Err(refusal::special(address, &bridge.name, what));
    if bridge.addresses.iter().chain(&config.gateway).any(|net| net.addr() == address) {
        return special("gateway");
    }
    if snapshot.own_addresses.contains(&address) {
        return Err(refusal::hosts_own(address));
    }
    let prefixes = config.guest_prefixes(&bridge.addresses);
    if !prefixes.iter().any(|prefix| prefix.contains(&address)) {
        return Err(refusal::outside(guest, &bridge.name, &prefixes));
    }
    // The ends of a prefix are ordinary addresses unless an interface is on link there: only then the kernel has a
    // broadcast route, and takes it before any route of ours (fib_add_ifaddr, table local). Where only the guests have the
    // gateway's subnet on link, their kernels have that route, and none of them would reach such a guest.
    let mut subnets = bridge.addresses.iter().chain(&config.gateway);
    if let Some(what) = subnets.find_map(|subnet| end_of(subnet, address)) {
        return special(what);
    }
    if snapshot.subnet_ends.contains(&address) {
        return Err(refusal::end_of_subnet(address));
    }
    if bridge.mac == guest.mac() {
        return Err(refusal::bridges_own_mac(guest, &bridge.name));
    }
    Ok(())
}

/// A bridge with ports that are no taps, unless the configuration says that they are meant to be there.
pub(crate) fn check_ports(config: &BridgeConfig, others: &[Other]) -> Result<(), Refusal> {
    if config.other_ports || others.is_empty() { Ok(()) } else { Err(refusal::other_ports(&config.name, others)) }
}

/// Each managed bridge with such ports, and the sentence about them.
pub(crate) fn other_ports(config: &Config, snapshot: &Snapshot) -> impl Iterator<Item = (String, String)> {
    let present = config.bridges.iter().filter_map(|wanted| Some((wanted, snapshot.bridge(&wanted.name)?)));
    present.filter_map(|(wanted, bridge)| {
        let refusal = check_ports(wanted, &bridge.other_ports).err()?;
        Some((wanted.name.clone(), refusal.to_string()))
    })
}

/// Which end of `subnet` the address is. A /31 has none (RFC 3021), and a /32 is only itself.
fn end_of(subnet: &Ipv4Net, address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if subnet.prefix_len() >= 31 => None,
        address if address == subnet.network() => Some("network"),
        address if address == subnet.broadcast() => Some("broadcast"),
        _ => None,
    }
}

/// Addresses that no guest can have on any network (RFC 6890).
pub(super) fn reserved(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets()[0] {
        0 => Some("in 0.0.0.0/8 (\"this network\")"),
        127 => Some("a loopback address"),
        224..=239 => Some("a multicast address"),
        240.. => Some("in 240.0.0.0/4 (reserved)"),
        _ => None,
    }
}
