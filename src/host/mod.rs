//! The host as configured: its bridges, uplinks, loopback and sysctls, what of it is there, and the changes in
//! between. Pure; `setup` makes the changes, `render` prints the same sysctls, `doctor` compares the same lists.
//!
//! A bridge is set up only where its `gateway` is configured: without one it is somebody else's, whom the
//! configuration merely tells guests from. What is not configured is left as it is.

pub mod ifupdown;
pub mod networkd;
pub mod sysctl;
pub mod sysctl_d;

use std::collections::BTreeMap;
use std::fmt;

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::Deserialize;

use crate::addr;
use crate::config::{BridgeConfig, Config};
use sysctl::Sysctl;

/// One change of the host, by name: what a later one needs may not be there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    MakeBridge { bridge: String, mac: MacAddr6 },
    SetMac { bridge: String, mac: MacAddr6 },
    StopStp { bridge: String },
    SetMtu { bridge: String, mtu: u32 },
    AddAddress { interface: String, address: Ipv4Net },
    Up { interface: String },
    Sysctl(Sysctl),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::MakeBridge { bridge, mac } => {
                write!(f, "ip link add {bridge} address {} type bridge", addr::show(*mac))
            }
            Self::SetMac { bridge, mac } => write!(f, "ip link set dev {bridge} address {}", addr::show(*mac)),
            Self::StopStp { bridge } => write!(f, "ip link set dev {bridge} type bridge stp_state 0"),
            Self::SetMtu { bridge, mtu } => write!(f, "ip link set dev {bridge} mtu {mtu}"),
            Self::AddAddress { interface, address } => write!(f, "ip addr add {address} dev {interface}"),
            Self::Up { interface } => write!(f, "ip link set dev {interface} up"),
            Self::Sysctl(sysctl) => write!(f, "sysctl -w {}={}", sysctl.name(), sysctl.value),
        }
    }
}

/// What is there, of what the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seen {
    #[serde(rename = "interface")]
    pub interfaces: Vec<Interface>,
    /// Values by path; a switch that does not exist has none.
    pub sysctls: BTreeMap<String, u32>,
    /// Who configures an interface, there or still to come, where it is not us.
    #[serde(rename = "owner")]
    pub owners: Vec<Owner>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    pub name: String,
    /// IFLA_INFO_KIND; empty for physical ones and the loopback.
    #[serde(default)]
    pub kind: String,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// Whether somebody set the MAC: a bridge's own follows its ports until then.
    #[serde(default)]
    pub pinned: bool,
    #[serde(default)]
    pub stp: bool,
    pub mtu: u32,
    pub up: bool,
    #[serde(default)]
    pub carrier: bool,
    #[serde(default)]
    pub addresses: Vec<Ipv4Net>,
}

impl Interface {
    /// Whether it is configured as a bridge and is something else.
    pub fn is_no_bridge(&self, config: &Config) -> bool {
        self.kind != "bridge" && config.bridge(&self.name).is_some()
    }
}

/// A network manager that has an interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    pub interface: String,
    pub manager: Manager,
    /// The file that says so.
    pub file: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Manager {
    #[serde(rename = "systemd-networkd")]
    Networkd,
    NetworkManager,
    #[serde(rename = "ifupdown")]
    Ifupdown,
}

impl Manager {
    pub fn name(self) -> &'static str {
        match self {
            Self::Networkd => "systemd-networkd",
            Self::NetworkManager => "NetworkManager",
            Self::Ifupdown => "ifupdown",
        }
    }

    /// How to give an interface there what is configured here.
    fn fix(self, interface: &str) -> String {
        match self {
            Self::Networkd => "write what `tap32 render networkd` prints for it to /etc/systemd/network and run \
                               `networkctl reload`"
                .into(),
            Self::NetworkManager => format!(
                "give it to tap32 with `nmcli device set {interface} managed no` (to keep that, unmanaged-devices= in \
                 /etc/NetworkManager/conf.d), or configure the same there"
            ),
            Self::Ifupdown => {
                format!(
                    "replace its stanza by what `tap32 render ifupdown` prints, and run `ifdown {interface}; ifup {interface}`"
                )
            }
        }
    }
}

/// What to change, and what is wrong and not tap32's to change: one sentence each, with the fix.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub problems: Vec<String>,
}

/// From what is seen to what is configured. Nothing that somebody else set up is taken away: addresses are only
/// added, a MAC, an MTU only changed where the configuration names one (or a bridge has no MAC of its own yet).
pub fn plan(config: &Config, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    for (bridge, gateway) in config.described_bridges() {
        plan.interface(seen, &bridge.name, of_bridge(config, bridge, gateway, seen));
    }
    for (name, address) in config.routed_interfaces() {
        plan.interface(seen, name, of_uplink(name, address, seen));
    }
    plan.sysctls(config, seen);
    plan
}

impl Plan {
    /// Takes an interface's changes, unless a network manager has it.
    fn interface(&mut self, seen: &Seen, name: &str, changes: Result<Vec<Change>, String>) {
        let owner = seen.owners.iter().find(|owner| owner.interface == name);
        match (changes, owner) {
            (Ok(changes), None) => self.changes.extend(changes),
            (Ok(changes), Some(_)) if changes.is_empty() => {}
            (Err(problem), None) => self.problems.push(problem),
            (changes, Some(Owner { manager, file, .. })) => {
                let left: Vec<_> = changes.iter().flatten().map(|change| format!("`{change}`")).collect();
                let left = if left.is_empty() {
                    "it does not exist".into()
                } else {
                    format!("setup did not run {}", left.join(", "))
                };
                self.problems.push(format!(
                    "{name} is managed by {} ({file}) and not as configured ({left}): {}",
                    manager.name(),
                    manager.fix(name)
                ));
            }
        }
    }

    fn sysctls(&mut self, config: &Config, seen: &Seen) {
        // Not of what has a bridge's name and is none: it is somebody else's.
        let there = |name: &str| seen.interfaces.iter().any(|found| found.name == name && !found.is_no_bridge(config));
        let made: Vec<String> = self.changes.iter().filter_map(Change::makes).map(str::to_owned).collect();
        let mut all_forwards = false;
        for wanted in sysctl::wanted(config) {
            let interface = wanted.interface();
            if interface.is_some_and(|name| !there(name) && !made.iter().any(|made| made == name))
                || seen.sysctls.get(&wanted.path) == Some(&wanted.value)
                // Writing all.forwarding sets every interface's (devinet.c, inet_forward_change).
                || (all_forwards && wanted.path.ends_with("/forwarding"))
            {
                continue;
            }
            all_forwards |= wanted.path == "net/ipv4/conf/all/forwarding";
            self.changes.push(Change::Sysctl(wanted));
        }
    }
}

impl Change {
    fn makes(&self) -> Option<&str> {
        if let Self::MakeBridge { bridge, .. } = self { Some(bridge) } else { None }
    }
}

fn of_bridge(config: &Config, wanted: &BridgeConfig, gateway: Ipv4Net, seen: &Seen) -> Result<Vec<Change>, String> {
    let bridge = wanted.name.clone();
    let mac = wanted.wanted_mac(config.mac_prefix, gateway);
    let mut changes = Vec::new();
    let found = seen.interfaces.iter().find(|interface| interface.name == bridge);
    match found {
        Some(found) if found.is_no_bridge(config) => {
            return Err(format!(
                "{bridge} exists and is not a bridge: name another under [[bridge]] in /etc/tap32.toml"
            ));
        }
        Some(found) => {
            if !found.pinned || (wanted.mac.is_some() && found.mac != mac) {
                changes.push(Change::SetMac { bridge: bridge.clone(), mac });
            }
            if found.stp {
                changes.push(Change::StopStp { bridge: bridge.clone() });
            }
        }
        None => changes.push(Change::MakeBridge { bridge: bridge.clone(), mac }),
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| found.is_none_or(|found| found.mtu != *mtu)) {
        changes.push(Change::SetMtu { bridge: bridge.clone(), mtu });
    }
    changes.extend(addressed(bridge, gateway, found));
    Ok(changes)
}

fn of_uplink(name: &str, address: Ipv4Net, seen: &Seen) -> Result<Vec<Change>, String> {
    match seen.interfaces.iter().find(|interface| interface.name == name) {
        Some(found) => Ok(addressed(name.to_owned(), address, Some(found))),
        None => Err(format!(
            "there is no interface {name}: `ip link` lists the interfaces; name the right one under [[uplink]] in \
             /etc/tap32.toml"
        )),
    }
}

fn addressed(interface: String, address: Ipv4Net, found: Option<&Interface>) -> Vec<Change> {
    let mut changes = Vec::new();
    if !found.is_some_and(|found| found.addresses.contains(&address)) {
        changes.push(Change::AddAddress { interface: interface.clone(), address });
    }
    if !found.is_some_and(|found| found.up) {
        changes.push(Change::Up { interface });
    }
    changes
}
