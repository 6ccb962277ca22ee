//! netplan's keys for the bridges, the uplinks and the loopback (netplan(5)). netplan(5) has no key for the switches that
//! `render sysctl` prints.

use std::fmt::Write;

use crate::addr;
use crate::config::Config;

/// What stands below `network:` for an interface, in one line of YAML; without values where tap32 does not describe it.
/// `critical` is networkd's KeepConfiguration=, for the reason that `networkd` has.
pub fn keys(config: &Config, interface: &str) -> String {
    let described = config.described_bridges().find(|(bridge, _)| bridge.name == interface);
    if let Some((bridge, gateway)) = described {
        let mac = addr::show(bridge.wanted_mac(config.mac_prefix, gateway));
        let mtu = bridge.mtu.map(|mtu| format!(", mtu: {mtu}")).unwrap_or_default();
        return format!(
            "bridges: {{{interface}: {{macaddress: \"{mac}\", addresses: [{gateway}]{mtu}, parameters: {{stp: false}}, \
             link-local: [], accept-ra: false, critical: true}}}}"
        );
    }
    let addresses = config.routed_interfaces().filter(|(name, _)| *name == interface).map(|(_, address)| address);
    let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
    format!("ethernets: {{{interface}: {{addresses: [{}], critical: true}}}}", addresses.join(", "))
}

/// What `render networkd` says first on a host where netplan has `files`.
pub fn note(config: &Config, files: &[String]) -> String {
    let bridges = config.described_bridges().map(|(bridge, _)| bridge.name.as_str());
    let names = bridges.chain(config.routed_interfaces().map(|(name, _)| name));
    let mut text = format!(
        "# This host has {}.
# networkd reads the files that netplan makes of it, /run/systemd/network/10-netplan-*, before those below. For an
# interface that netplan knows, set these keys there in place of its files here, and run `netplan apply`. What
# `tap32 render sysctl` prints stays in /etc/sysctl.d.
",
        files.join(", ")
    );
    for name in names {
        let _ = writeln!(text, "#   {}", keys(config, name));
    }
    text
}
