//! systemd-networkd's files for the bridges, the uplinks and the loopback (systemd.netdev(5), systemd.network(5)). It
//! cannot set all the switches, which `render sysctl` prints.

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;

use crate::addr;
use crate::config::{Config, nothing_described};

/// # Errors
/// The configuration describes nothing.
pub fn render(config: &Config) -> Result<String> {
    ensure!(config.describes_host(), nothing_described());
    let mut text = String::from(
        "# Without this networkd deletes the routes of FRR and tap32 when it starts (networkd.conf(5)).
# /etc/systemd/networkd.conf.d/60-tap32.conf
[Network]
ManageForeignRoutes=no
ManageForeignRoutingPolicyRules=no
",
    );
    for (bridge, gateway) in config.described_bridges() {
        let name = &bridge.name;
        let mac = addr::show(bridge.wanted_mac(config.mac_prefix, gateway));
        let mtu = bridge.mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
        text.push_str(&format!(
            "
# /etc/systemd/network/60-{name}.netdev
[NetDev]
Name={name}
Kind=bridge
MACAddress={mac}
{mtu}
[Bridge]
STP=no
"
        ));
        // A bridge without guests has no carrier, and needs its gateway's address too. No guest is the host's router.
        text.push_str(&network(name, gateway, "IPv6AcceptRA=no\nConfigureWithoutCarrier=yes\n"));
    }
    text.extend(config.routed_interfaces().map(|(name, address)| network(name, address, "")));
    Ok(text)
}

/// systemd's words for yes and no (parse_boolean, src/basic/parse-util.c); `None` for any other.
pub fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

/// Keys and values of a section of an ini file.
pub fn entries<'a>(text: &'a str, section: &str) -> Vec<(&'a str, &'a str)> {
    let mut inside = false;
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            inside = name.strip_suffix(']') == Some(section);
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside && !line.starts_with(['#', ';'])) {
            entries.push((key.trim(), value.trim()));
        }
    }
    entries
}

/// Without KeepConfiguration= networkd takes the address away when it starts, and adds it some 30 ms later: OSPF loses its
/// neighbour, and the kernel deletes each route through a bridge that loses its last address (measured, systemd 252).
fn network(name: &str, address: Ipv4Net, more: &str) -> String {
    format!(
        "
# /etc/systemd/network/60-{name}.network
[Match]
Name={name}

[Network]
Address={address}
LinkLocalAddressing=no
KeepConfiguration=static
{more}"
    )
}
