//! The host as configured: its bridges, uplinks, loopback and sysctls, and the changes that it lacks. Pure. `setup`
//! makes the changes, doctor shows them.
//!
//! tap32 sets up a bridge only if the configuration has its `gateway`: another program makes the others.

pub(crate) mod dnsmasq;
pub(crate) mod ifupdown;
pub(crate) mod netplan;
pub(crate) mod networkd;
pub(crate) mod on_link;
pub(crate) mod sysctl;

use std::collections::BTreeMap;
use std::fmt;

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::Deserialize;

use crate::addr;
use crate::config::{BridgeConfig, Config, file};
use crate::guest::link::Other;
use crate::guest::policy;
use crate::guest::refusal::{self, Refusal};
use sysctl::Sysctl;

/// One change of the host, with the interface's name, because an earlier change may make the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A bridge, with its MAC.
    MakeBridge(String, MacAddr6),
    /// A bridge's MAC.
    SetMac(String, MacAddr6),
    /// No spanning tree protocol on a bridge.
    StopStp(String),
    /// A bridge's MTU in octets.
    SetMtu(String, u32),
    /// One more address, host bits kept.
    AddAddress(String, Ipv4Net),
    /// One address less.
    DelAddress(String, Ipv4Net),
    /// The interface up.
    Up(String),
    /// The switch on its value.
    Sysctl(Sysctl),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::MakeBridge(name, mac) => write!(f, "ip link add {name} address {} type bridge", addr::show(*mac)),
            Self::SetMac(name, mac) => write!(f, "ip link set dev {name} address {}", addr::show(*mac)),
            Self::StopStp(name) => write!(f, "ip link set dev {name} type bridge stp_state 0"),
            Self::SetMtu(name, mtu) => write!(f, "ip link set dev {name} mtu {mtu}"),
            Self::AddAddress(name, address) => write!(f, "ip addr add {address} dev {name}"),
            Self::DelAddress(name, address) => f.write_str(&on_link::delete(address, name)),
            Self::Up(name) => write!(f, "ip link set dev {name} up"),
            Self::Sysctl(sysctl) => write!(f, "sysctl -w {}={}", sysctl.name(), sysctl.value),
        }
    }
}

impl Change {
    /// The interface that it changes; `None` for a sysctl.
    pub(crate) fn interface(&self) -> Option<&str> {
        match self {
            Self::MakeBridge(name, _) | Self::SetMac(name, _) | Self::SetMtu(name, _) => Some(name),
            Self::AddAddress(name, _) | Self::DelAddress(name, _) | Self::StopStp(name) | Self::Up(name) => Some(name),
            Self::Sysctl(_) => None,
        }
    }
}

/// What exists of what the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seen {
    #[serde(rename = "interface")]
    pub(crate) interfaces: Vec<Interface>,
    /// Values by path; a switch that does not exist has none.
    pub(crate) sysctls: BTreeMap<String, u32>,
    /// Whether the kernel has no IPv6, and so none of its switches.
    pub(crate) without_ipv6: bool,
    /// The network managers of interfaces, also of those that do not exist yet.
    #[serde(rename = "owner")]
    pub(crate) owners: Vec<Owner>,
}

impl Seen {
    /// Whether the switch is one of IPv6, which the kernel or the interface does not have.
    pub(crate) fn lacks_ipv6(&self, wanted: &Sysctl) -> bool {
        /// The kernel takes IPv6 from an interface with a smaller MTU (addrconf_notify, IPV6_MIN_MTU).
        const LEAST_MTU: u32 = 1280;
        let is_too_small = |name| self.interfaces.iter().any(|found| found.name == name && found.mtu < LEAST_MTU);
        wanted.is_of_ipv6() && (self.without_ipv6 || wanted.interface().is_some_and(is_too_small))
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interface {
    pub name: String,
    /// IFLA_INFO_KIND; empty for a physical interface and the loopback.
    #[serde(default)]
    pub kind: String,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// Whether the MAC was set. A bridge takes the MAC of a port until then.
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
    /// The VRF, or whatever else it is a port of.
    #[serde(default)]
    pub master: Option<Other>,
    /// A bridge's ports that are no taps.
    #[serde(default, rename = "other_port")]
    pub other_ports: Vec<Other>,
}

impl Interface {
    /// Whether the configuration has it as a bridge and it is not one.
    pub fn is_no_bridge(&self, config: &Config) -> bool {
        self.kind != "bridge" && config.bridge(&self.name).is_some()
    }
}

/// A network manager and an interface that it manages.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    pub interface: String,
    pub manager: Manager,
    /// Its file for the interface.
    pub file: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(clippy::enum_variant_names, reason = "NetworkManager is a program's name")]
pub(crate) enum Manager {
    #[serde(rename = "systemd-networkd")]
    Networkd,
    NetworkManager,
    #[serde(rename = "ifupdown")]
    Ifupdown,
    /// Which makes files for networkd or profiles for NetworkManager.
    #[serde(rename = "netplan")]
    Netplan,
}

impl Owner {
    /// netplan's own files are read before all others, and it writes them again from /etc/netplan (netplan-generate(8)).
    pub fn manager(&self) -> Manager {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        let is_made = name.starts_with("10-netplan-") || name.starts_with("netplan-");
        if is_made || self.file.starts_with("/etc/netplan/") { Manager::Netplan } else { self.manager }
    }
}

impl Manager {
    pub fn name(self) -> &'static str {
        match self {
            Self::Networkd => "systemd-networkd",
            Self::NetworkManager => "NetworkManager",
            Self::Ifupdown => "ifupdown",
            Self::Netplan => "netplan",
        }
    }

    /// How to configure an interface there as here. No fix takes a bridge down: its guests' taps would be off it.
    fn fix(self, config: &Config, interface: &str) -> String {
        match self {
            Self::Networkd => {
                "write what `tap32 render networkd` prints for it to /etc/systemd/network and run `networkctl \
                               reload`"
                    .into()
            }
            Self::NetworkManager => format!(
                "give it to tap32 with `nmcli device set {interface} managed no` (to keep that, unmanaged-devices= in \
                 /etc/NetworkManager/conf.d), or configure the same there"
            ),
            Self::Ifupdown => {
                "replace its stanza by what `tap32 render ifupdown` prints, which counts from the next boot, and run \
                               until then what setup did not run"
                    .into()
            }
            Self::Netplan => format!(
                "set `{}` in /etc/netplan and run `netplan apply`; what `tap32 render sysctl` prints stays in \
                 /etc/sysctl.d",
                netplan::keys(config, interface)
            ),
        }
    }
}

/// What `setup` has to do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Why no change may be made.
    pub refusal: Option<Refusal>,
    /// In the order in which to make them.
    pub changes: Vec<Change>,
    /// What tap32 must not change: one sentence each, with the fix.
    pub problems: Vec<String>,
}

/// The changes from `seen` to the configuration. They add addresses, and change a MAC or MTU only if the configuration
/// names one (or the bridge's MAC was never set). What they may remove is in `on_link`.
pub fn plan(config: &Config, seen: &Seen) -> Plan {
    let mut plan = Plan { refusal: Refusal::all(&refusals(config, seen)), ..Plan::default() };
    for (bridge, address) in config.described_bridges() {
        plan.interface(config, seen, &bridge.name, of_bridge(config, bridge, address, seen));
        let found = seen.interfaces.iter().find(|found| found.name == bridge.name);
        plan.problems.extend(found.and_then(|found| on_link::foreign(bridge, &found.addresses)));
    }
    for (name, address) in config.routed_interfaces() {
        plan.interface(config, seen, name, of_uplink(name, address, seen));
    }
    plan.sysctls(config, seen);
    plan
}

impl Plan {
    /// Takes an interface's changes; if a network manager manages the interface, a problem in their place.
    fn interface(&mut self, config: &Config, seen: &Seen, name: &str, changes: Result<Vec<Change>, String>) {
        let owner = seen.owners.iter().find(|owner| owner.interface == name);
        match (changes, owner) {
            (Ok(changes), None) => self.changes.extend(changes),
            (Ok(changes), Some(_)) if changes.is_empty() => {}
            (Err(problem), None) => self.problems.push(problem),
            (changes, Some(owner)) => {
                let left = changes.map_or("it does not exist".into(), |changes| {
                    let left: Vec<_> = changes.iter().map(|change| format!("`{change}`")).collect();
                    format!("setup did not run {}", left.join(", "))
                });
                let (manager, file) = (owner.manager(), &owner.file);
                let (manager, fix) = (manager.name(), manager.fix(config, name));
                self.problems
                    .push(format!("{name} is managed by {manager} ({file}) and not as configured ({left}): {fix}"));
            }
        }
    }

    fn sysctls(&mut self, config: &Config, seen: &Seen) {
        let exists = |name: &str| seen.interfaces.iter().any(|found| found.name == name && !found.is_no_bridge(config));
        let is_made = |change: &Change, name: &str| matches!(change, Change::MakeBridge(made, _) if made == name);
        let mut all_forwards = false;
        for wanted in sysctl::wanted(config) {
            let interface = wanted.interface();
            if interface.is_some_and(|name| !exists(name) && !self.changes.iter().any(|change| is_made(change, name)))
                || seen.sysctls.get(&wanted.path) == Some(&wanted.value)
                || seen.lacks_ipv6(&wanted)
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

/// Of every managed bridge, also of those that another program makes: their guests are tap32's.
fn refusals(config: &Config, seen: &Seen) -> Vec<Refusal> {
    let bridges = config.bridges.iter().filter_map(|wanted| {
        let found = seen.interfaces.iter().find(|interface| interface.name == wanted.name);
        Some((wanted, found.filter(|found| !found.is_no_bridge(config))?))
    });
    let refusals = bridges.flat_map(|(wanted, found)| {
        let master = found.master.as_ref().map(|master| refusal::bridge_is_port(&found.name, master));
        master.into_iter().chain(policy::check_ports(wanted, &found.other_ports).err())
    });
    refusals.collect()
}

fn of_bridge(config: &Config, wanted: &BridgeConfig, address: Ipv4Net, seen: &Seen) -> Result<Vec<Change>, String> {
    let name = &wanted.name;
    let mac = wanted.wanted_mac(config.mac_prefix, address);
    let mut changes = Vec::new();
    let found = seen.interfaces.iter().find(|interface| interface.name == *name);
    match found {
        Some(found) if found.is_no_bridge(config) => {
            return Err(format!("{name} exists and is not a bridge: name another under [[bridge]] in {}", file()));
        }
        Some(found) => {
            if !found.pinned || (wanted.mac.is_some() && found.mac != mac) {
                changes.push(Change::SetMac(name.clone(), mac));
            }
            if found.stp {
                changes.push(Change::StopStp(name.clone()));
            }
        }
        None => changes.push(Change::MakeBridge(name.clone(), mac)),
    }
    if let Some(mtu) = wanted.mtu.filter(|mtu| found.is_none_or(|found| found.mtu != *mtu)) {
        changes.push(Change::SetMtu(name.clone(), mtu));
    }
    changes.extend(addressed(name, address, found));
    // After the new address: the kernel deletes each route through a bridge that loses its last one (fib_disable_ip).
    if let Some(gateway) = found.and_then(|found| on_link::own(wanted, &found.addresses)) {
        changes.push(Change::DelAddress(name.clone(), gateway));
    }
    Ok(changes)
}

fn of_uplink(name: &str, address: Ipv4Net, seen: &Seen) -> Result<Vec<Change>, String> {
    match seen.interfaces.iter().find(|interface| interface.name == name) {
        Some(found) => Ok(addressed(name, address, Some(found))),
        None => Err(format!(
            "there is no interface {name}: `ip link` lists the interfaces; name the right one under [[uplink]] in {}",
            file()
        )),
    }
}

fn addressed(name: &str, address: Ipv4Net, found: Option<&Interface>) -> Vec<Change> {
    let mut changes = Vec::new();
    if !found.is_some_and(|found| found.addresses.contains(&address)) {
        changes.push(Change::AddAddress(name.to_owned(), address));
    }
    if !found.is_some_and(|found| found.up) {
        changes.push(Change::Up(name.to_owned()));
    }
    changes
}
