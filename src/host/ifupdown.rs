//! ifupdown's stanzas for the bridges, the uplinks and the loopback (interfaces(5)). They call `ip`, because
//! bridge_ports and bridge_hw need bridge-utils and mean other things to ifupdown2. `accept_ra` is a word of inet6 stanzas
//! only, so that one stands in `render sysctl` alone.

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;

use crate::addr;
use crate::config::{Config, nothing_described};

/// # Errors
/// The configuration describes nothing.
pub fn render(config: &Config) -> Result<String> {
    ensure!(config.describes_host(), nothing_described());
    let mut text = String::from("# /etc/network/interfaces.d/tap32, by `tap32 render ifupdown`\n");
    for (bridge, gateway) in config.described_bridges() {
        let name = &bridge.name;
        let mac = addr::show(bridge.wanted_mac(config.mac_prefix, gateway));
        let mtu = bridge.mtu.map(|mtu| format!("    mtu {mtu}\n")).unwrap_or_default();
        let make = format!("ip link show dev {name} >/dev/null 2>&1 || ip link add {name} address {mac} type bridge");
        text.push_str(&stanza(name, gateway, &format!("    pre-up {make}\n{mtu}")));
    }
    text.extend(config.routed_interfaces().map(|(name, address)| stanza(name, address, "")));
    Ok(text)
}

fn stanza(name: &str, address: Ipv4Net, more: &str) -> String {
    format!("\nauto {name}\niface {name} inet static\n    address {address}\n{more}")
}
