//! The `<interface>` element to put under `<devices>` of a domain's XML.

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;

use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config, file};

/// # Errors
/// No bridge of the configuration has the address to give.
pub fn render(config: &Config, guest: GuestMac) -> Result<String> {
    let address = guest.address();
    let gives = |bridge: &&BridgeConfig| bridge.guest_prefixes(&[]).iter().any(|prefix| prefix.contains(&address));
    // Only the host knows the prefixes of a bridge that the configuration gives none.
    let may_give = |bridge: &&BridgeConfig| bridge.guest_prefixes(&[]).is_empty();
    let mut bridges = config.bridges.iter();
    let bridge = bridges.clone().find(gives).or_else(|| bridges.find(may_give)).with_context(|| {
        format!(
            "{address} is outside the prefixes of every bridge: to allow it, write under its [[bridge]] in {} prefixes = \
             [...] with its present prefixes and \"{address}/32\"",
            file()
        )
    })?;
    let has_end = |net: &Ipv4Net| [net.network(), net.broadcast()].contains(&address) && net.prefix_len() < 31;
    // Of a bridge's subnet also where only the guests have it on link: to them its ends are no guest's (policy.rs).
    let gateways = config.bridges.iter().filter_map(|bridge| Some((bridge.name.as_str(), bridge.gateway?)));
    let mut subnets = gateways.chain(config.routed_interfaces());
    if let Some((name, net)) = subnets.find(|(_, net)| has_end(net)) {
        let net = net.trunc();
        bail!("{address} is the network or broadcast address of {net}, the subnet of {name}: choose another address");
    }
    let is_gateway = bridge.gateway.is_some_and(|gateway| gateway.addr() == address);
    ensure!(!is_gateway, "{address} is the gateway address of bridge {}: give the guest another address", bridge.name);
    let bridge = &bridge.name;
    Ok(format!(
        "<interface type='bridge'>\n  \
         <mac address='{guest}'/>\n  <source bridge='{bridge}'/>\n  \
         <model type='virtio'/>\n</interface>\n"
    ))
}
