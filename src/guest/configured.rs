//! The bridge of a guest by the configuration alone, for text that is written before the guest is anywhere. `policy` asks
//! the host too.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;

use super::{policy, refusal};
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config, file};

/// The bridge that has the address to give.
///
/// # Errors
/// No bridge has, or no guest may have it.
pub fn bridge_of(config: &Config, address: Ipv4Addr) -> Result<&BridgeConfig> {
    let bridge = bridge_on_any_host(config, address)?;
    check_ends(config.routed_interfaces(), address)?;
    Ok(bridge)
}

/// The same without what only this host has: its uplinks and its loopback address.
///
/// # Errors
/// As [`bridge_of`].
pub fn bridge_on_any_host(config: &Config, address: Ipv4Addr) -> Result<&BridgeConfig> {
    let bridge = only_bridge(config, address)?;
    if let Some(what) = policy::reserved(address) {
        bail!(refusal::reserved(address, what));
    }
    // Of a bridge's subnet also where only the guests have it on link: to them its ends are no guest's (policy.rs).
    let gateways = || config.bridges.iter().filter_map(|bridge| Some((bridge.name.as_str(), bridge.gateway?)));
    check_ends(gateways(), address)?;
    if let Some((name, _)) = gateways().find(|(_, gateway)| gateway.addr() == address) {
        bail!("{address} is the gateway address of bridge {name}: give the guest another address");
    }
    let guest = GuestMac::from_address(address, config.mac_prefix);
    ensure!(bridge.mac != Some(guest.mac()), refusal::bridges_own_mac(guest, &bridge.name));
    Ok(bridge)
}

/// The bridge whose prefixes hold the address, be it one that a guest may have or not.
///
/// # Errors
/// None has, or several have.
pub fn only_bridge(config: &Config, address: Ipv4Addr) -> Result<&BridgeConfig> {
    let gives = |bridge: &&BridgeConfig| bridge.guest_prefixes(&[]).iter().any(|prefix| prefix.contains(&address));
    // Only the host knows the prefixes of a bridge that the configuration gives none.
    let may_give = |bridge: &&BridgeConfig| bridge.guest_prefixes(&[]).is_empty();
    let mut giving = config.bridges.iter().filter(gives);
    let found = giving.next().or_else(|| config.bridges.iter().find(may_give));
    ensure!(giving.next().is_none(), refusal::bridges_of(address, "several", &policy::bridge_names(config)));
    found.with_context(|| {
        format!(
            "{address} is outside the prefixes of every bridge: to allow it, write under its [[bridge]] in {} prefixes = \
             [...] with its present prefixes and \"{address}/32\"",
            file()
        )
    })
}

/// Refuses the ends of these interfaces' subnets.
fn check_ends<'a>(mut subnets: impl Iterator<Item = (&'a str, Ipv4Net)>, address: Ipv4Addr) -> Result<()> {
    let has_end = |net: &Ipv4Net| [net.network(), net.broadcast()].contains(&address) && net.prefix_len() < 31;
    if let Some((name, net)) = subnets.find(|(_, net)| has_end(net)) {
        let net = net.trunc();
        bail!("{address} is the network or broadcast address of {net}, the subnet of {name}: choose another address");
    }
    Ok(())
}
