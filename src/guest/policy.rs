//! What tap32 refuses, before anything is touched, and the sentence that says how to mend it.
//!
//! Pure. `view` calls it for one tap or for all, also for `status`, which says why a tap has no route.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use macaddr::MacAddr6;

use crate::addr::{self, GuestMac};
use crate::config::{BridgeConfig, Config};
use crate::guest::link::{Bridge, Link};
use crate::guest::snapshot::Snapshot;

/// Why a tap does not get a route. `Display` is one sentence for a person, without the tap's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    NoInterface { tap: String },
    NotATap { tap: String, kind: String },
    NoMac { tap: String, parent: String },
    MacDrawn { tap: String, mac: MacAddr6 },
    MacPrefix { mac: MacAddr6, config: String, hint: String },
    NoBridge { bridge: String },
    BridgeDown { bridge: String },
    Unmanaged { bridge: String, ours: String },
    WhichBridge { address: Ipv4Addr, bridges: String },
    ForeignPort { tap: String, master: String },
    CarriesAnother { tap: String, address: Ipv4Addr },
    Reserved { address: Ipv4Addr, what: &'static str },
    Outside { guest: GuestMac, bridge: String, prefixes: Vec<Ipv4Net> },
    Special { address: Ipv4Addr, bridge: String, what: &'static str },
    HostsOwn { address: Ipv4Addr },
    Taken { guest: GuestMac, by: String },
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NoInterface { tap } => {
                write!(f, "there is no interface {tap}: `ip link show type tun` lists the taps")
            }
            Self::NotATap { tap, kind } if kind.is_empty() => {
                write!(
                    f,
                    "{tap} is a physical interface or the loopback, not a tap: only taps are attached and detached"
                )
            }
            Self::NotATap { tap, kind } => {
                write!(f, "{tap} is an interface of kind {kind}, not a tap: only taps are attached and detached")
            }
            Self::NoMac { tap, parent } => write!(
                f,
                "no guest MAC for {tap}: {parent}; give it with --mac, or with mac= on the NIC of the QEMU that \
                 calls this script, or let libvirt's hook give it, or set the tap's own: \
                 ip link set dev {tap} address fe:42:AA:BB:CC:DD"
            ),
            Self::MacDrawn { tap, mac } => write!(
                f,
                "the kernel drew {tap}'s MAC {} at random, so it names no guest, though it looks like it: \
                 `tap32 up {tap} --mac 02:42:AA:BB:CC:DD` says whose it is",
                addr::show(*mac)
            ),
            Self::MacPrefix { mac, config, hint } => write!(
                f,
                "{} is not a guest MAC of the form {config}:AA:BB:CC:DD, so it names no address{hint}",
                addr::show(*mac)
            ),
            Self::NoBridge { bridge } => write!(
                f,
                "bridge {bridge} does not exist: with its gateway = under [[bridge]] in /etc/tap32.toml `tap32 setup` \
                 makes it; or name there the bridge that this host has"
            ),
            Self::BridgeDown { bridge } => {
                write!(f, "bridge {bridge} is down, so no route can go through it: `ip link set dev {bridge} up`")
            }
            Self::Unmanaged { bridge, ours } => write!(
                f,
                "bridge {bridge} is not ours to use, {ours} is: to allow it, write into /etc/tap32.toml a [[bridge]] \
                 table for each of them, with name = \"{bridge}\" below that line for this one"
            ),
            Self::WhichBridge { address, bridges } => write!(
                f,
                "{address} fits none or several of the bridges {bridges}: name one with --bridge, or give each its \
                 own prefixes = [...] in /etc/tap32.toml"
            ),
            Self::ForeignPort { tap, master } => write!(
                f,
                "{tap} is a port of {master} already: take it off with `ip link set dev {tap} nomaster`, or leave it"
            ),
            Self::CarriesAnother { tap, address } => {
                write!(f, "{tap} carries {address} already: `tap32 down {tap}` first")
            }
            Self::Reserved { address, what } => write!(f, "{address} is {what}, which no guest can have"),
            Self::Outside { guest, bridge, prefixes } => {
                let address = guest.address();
                let allowed = list(prefixes);
                let mut wanted: Vec<String> = prefixes.iter().map(|p| format!("\"{p}\"")).collect();
                wanted.push(format!("\"{address}/32\""));
                if allowed.is_empty() {
                    return write!(
                        f,
                        "bridge {bridge} has no IPv4 address, so no guest has a gateway: give it the gateway's with `ip \
                         addr add ADDRESS/LENGTH dev {bridge}`, or write it as gateway = under [[bridge]] in \
                         /etc/tap32.toml and run `tap32 setup`"
                    );
                }
                write!(
                    f,
                    "{address} (guest MAC {guest}) is outside the prefixes of bridge {bridge}, which has {allowed}; to \
                     allow it, write under [[bridge]] name = \"{bridge}\" in /etc/tap32.toml: prefixes = [{}]",
                    wanted.join(", ")
                )
            }
            Self::Special { address, bridge, what } => {
                write!(f, "{address} is the {what} address of bridge {bridge}: give the guest another MAC")
            }
            Self::HostsOwn { address } => {
                write!(f, "{address} is an address of this host itself: give the guest another MAC")
            }
            Self::Taken { guest, by } => write!(
                f,
                "{} (guest MAC {guest}) is carried by {by} already: two guests have one MAC, give one of them another",
                guest.address()
            ),
        }
    }
}

fn list(prefixes: &[Ipv4Net]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The interface of this name, which must be a tap.
pub fn tap<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Link, Refusal> {
    must_be_tap(snapshot.link(name).ok_or_else(|| Refusal::NoInterface { tap: name.to_owned() })?)
}

pub fn must_be_tap(link: &Link) -> Result<&Link, Refusal> {
    if link.is_tap() {
        return Ok(link);
    }
    Err(Refusal::NotATap { tap: link.name.clone(), kind: link.kind.clone() })
}

/// Takes any MAC for a guest's, or says why not.
pub fn guest_mac(config: &Config, mac: MacAddr6) -> Result<GuestMac, Refusal> {
    GuestMac::new(mac, config.mac_prefix).ok_or_else(|| {
        let hint = match GuestMac::from_tap_mac(mac, config.mac_prefix) {
            Some(guest) => format!(": it is the tap's own MAC, the guest's is {guest}"),
            None if mac.as_bytes()[..3] == [0x52, 0x54, 0x00] => {
                ": it is one that QEMU or libvirt made up; `tap32 encode 10.0.0.10` prints the MAC of that address"
                    .to_owned()
            }
            None => {
                ": give the guest the one that `tap32 encode ADDRESS` prints, or change mac-prefix in /etc/tap32.toml"
                    .to_owned()
            }
        };
        Refusal::MacPrefix { mac, config: config.mac_prefix.to_string(), hint }
    })
}

/// The managed bridge for a guest: the one asked for, else the one the tap is on, else the only one,
/// else the one whose prefixes hold the address.
pub fn bridge_for<'a>(
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
    let wanted =
        config.bridge(&name).ok_or_else(|| Refusal::Unmanaged { bridge: name.clone(), ours: bridge_names(config) })?;
    let bridge = snapshot.bridge(&name).ok_or_else(|| Refusal::NoBridge { bridge: name.clone() })?;
    match (link, present) {
        (Some(link), Some(master)) if master != name => Err(Refusal::ForeignPort { tap: link.name.clone(), master }),
        _ => Ok((wanted, bridge)),
    }
}

fn default_bridge(config: &Config, snapshot: &Snapshot, guest: GuestMac) -> Result<String, Refusal> {
    if let [only] = &config.bridges[..] {
        return Ok(only.name.clone());
    }
    let mut fitting = config.bridges.iter().filter(|wanted| {
        snapshot
            .bridge(&wanted.name)
            .is_some_and(|bridge| wanted.guest_prefixes(&bridge.addresses).iter().any(|p| p.contains(&guest.address())))
    });
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one.name.clone()),
        _ => Err(Refusal::WhichBridge { address: guest.address(), bridges: bridge_names(config) }),
    }
}

fn bridge_names(config: &Config) -> String {
    config.bridges.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Whether `guest` may have its address behind `bridge`.
pub fn check_address(
    config: &BridgeConfig,
    bridge: &Bridge,
    guest: GuestMac,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    let address = guest.address();
    if let Some(what) = reserved(address) {
        return Err(Refusal::Reserved { address, what });
    }
    let special = |what| Err(Refusal::Special { address, bridge: bridge.name.clone(), what });
    if bridge.addresses.iter().chain(&config.gateway).any(|net| net.addr() == address) {
        return special("gateway");
    }
    if snapshot.own_addresses.contains(&address) {
        return Err(Refusal::HostsOwn { address });
    }
    let prefixes = config.guest_prefixes(&bridge.addresses);
    let Some(prefix) = prefixes.iter().find(|prefix| prefix.contains(&address)) else {
        return Err(Refusal::Outside { guest, bridge: bridge.name.clone(), prefixes });
    };
    // A prefix inside an on-link subnet is a range of it, and its ends are ordinary addresses.
    let subnet = bridge.addresses.iter().chain(&config.gateway).find(|net| net.contains(&address)).unwrap_or(prefix);
    // A /31 has neither (RFC 3021), and a /32 is only itself.
    if subnet.prefix_len() < 31 {
        if subnet.network() == address {
            return special("network");
        }
        if subnet.broadcast() == address {
            return special("broadcast");
        }
    }
    Ok(())
}

/// Addresses that no guest can have on any network (RFC 6890).
fn reserved(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets()[0] {
        0 => Some("in 0.0.0.0/8 (\"this network\")"),
        127 => Some("a loopback address"),
        224..=239 => Some("a multicast address"),
        240.. => Some("in 240.0.0.0/4 (reserved)"),
        _ => None,
    }
}
