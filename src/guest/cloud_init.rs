//! The network-config of a guest, version 2, as cloud-init's NoCloud reads it: what DHCP would say, for a guest that asks
//! nobody.

use std::fmt::Write;

use anyhow::{Result, ensure};

use super::configured;
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config};

/// For a guest with these NICs. The first has the default route: with two of the same metric a guest would send from one
/// address through both, and the guard drops what comes from the other NIC's address.
///
/// # Errors
/// No bridge of the configuration has an address to give, or its bridge has no gateway.
pub fn render(config: &Config, nics: &[GuestMac]) -> Result<String> {
    let mut text = String::from(
        "# network-config of cloud-init's NoCloud, by `tap32 render cloud-init`\nversion: 2\nethernets:\n",
    );
    for (number, nic) in nics.iter().enumerate() {
        ensure!(!nics[..number].contains(nic), "{} is there twice: each NIC has its own address", nic.address());
        let bridge = configured::bridge_of(config, nic.address())?;
        nic_of(&mut text, number, *nic, bridge)?;
    }
    Ok(text)
}

/// `set-name` is for those of cloud-init's renderers that write the interface's name and not its MAC, such as the one for
/// ifupdown (cloudinit/net/network_state.py, handle_ethernets).
fn nic_of(text: &mut String, number: usize, nic: GuestMac, bridge: &BridgeConfig) -> Result<()> {
    let subnet = bridge.subnet_of_guest(nic.address())?;
    let address = nic.address();
    let mut line = |line: String| writeln!(text, "{line}");
    line(format!("  eth{number}:"))?;
    line(format!("    match: {{macaddress: \"{nic}\"}}"))?;
    line(format!("    set-name: eth{number}"))?;
    line(format!("    addresses: [{address}/{}]", subnet.length))?;
    if number == 0 {
        let on_link = if subnet.has_gateway { "" } else { ", on-link: true" };
        line(format!("    routes: [{{to: 0.0.0.0/0, via: {}{on_link}}}]", subnet.gateway))?;
    }
    if let Some(mtu) = bridge.mtu {
        line(format!("    mtu: {mtu}"))?;
    }
    // Not a domain alone, which cloud-init calls an invalid command (network_state.py, handle_nameserver).
    if !bridge.dns.is_empty() {
        let servers: Vec<_> = bridge.dns.iter().map(ToString::to_string).collect();
        let search = bridge.domain.as_ref().map(|domain| format!(", search: [\"{domain}\"]")).unwrap_or_default();
        line(format!("    nameservers: {{addresses: [{}]{search}}}", servers.join(", ")))?;
    }
    Ok(())
}
