//! What was read from the kernel, as plain values: the input of `policy`, `plan` and `status`.
//!
//! `up` and `down` fill a small one by name, `status` a whole one from dumps; the code that decides
//! cannot tell them apart. Interface names never decide anything: indices do, names are for people.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::{Deserialize, Deserializer};

use crate::addr::{self, GuestMac, MacPrefix};

/// RT_TABLE_MAIN (linux/rtnetlink.h), from which FRR's zebra learns our routes.
pub const MAIN_TABLE: u32 = 254;

fn main_table() -> u32 {
    MAIN_TABLE
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshot {
    /// The managed bridges that exist.
    #[serde(rename = "bridge")]
    pub bridges: Vec<Bridge>,
    /// Interfaces that are, or were asked to become, ports of them. Of two taps with one guest the first counts.
    #[serde(rename = "link")]
    pub links: Vec<Link>,
    /// /32 routes: every owned one, and those that win over an owned one.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
    /// Claimers that are alive, of the guests in this snapshot.
    #[serde(rename = "arrival")]
    pub arrivals: Vec<Arrival>,
    /// Guests' addresses that the kernel drops or keeps, by a route that no question shows, and what it is.
    pub barred: BTreeMap<Ipv4Addr, String>,
    /// IPv4 addresses of the host itself.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Names of other interfaces that a message may have to mention, by index (text: TOML has no other key).
    pub names: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub up: bool,
    pub proxy_arp_pvlan: bool,
    /// The bridge's own addresses, host bits kept: `10.0.0.1/24`.
    pub addresses: Vec<Ipv4Net>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// IFLA_INFO_KIND, or `tap` for a `tun` device with an Ethernet header; empty for physical ones.
    pub kind: String,
    #[serde(deserialize_with = "mac")]
    pub mac: MacAddr6,
    /// The kernel drew the MAC at random, so that it names nobody. Looked up only where there is neither route nor isolation.
    #[serde(default)]
    pub mac_drawn: bool,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge (or bond, or VRF) that it is a port of.
    pub master: Option<u32>,
    #[serde(default)]
    pub isolated: bool,
}

impl Link {
    pub fn is_tap(&self) -> bool {
        self.kind == "tap"
    }

    /// The guest that this tap carries, as its tap MAC says.
    pub fn guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.is_tap().then(|| GuestMac::from_tap_mac(self.mac, prefix)).flatten()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub address: Ipv4Addr,
    /// Another than the main one where an `ip rule` leads there.
    #[serde(default = "main_table")]
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    /// Index of the outgoing interface; `None` for routes with several.
    pub dev: Option<u32>,
    /// Next hops, empty for a route on link.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

/// A claimer that waits for a guest, or for its claim to settle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    pub address: Ipv4Addr,
    pub pid: i32,
}

impl Route {
    /// The next hops, for people: one, or several with commas.
    pub fn next_hop(&self) -> String {
        self.gateways.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// What `ip route` needs besides to find it: nothing for the main table.
    pub fn in_table(&self) -> String {
        if self.table == MAIN_TABLE { String::new() } else { format!(" table {}", self.table) }
    }
}

impl Snapshot {
    pub fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    pub fn bridge_at(&self, index: Option<u32>) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| Some(bridge.index) == index)
    }

    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The first tap on a managed bridge that carries `guest`, leaving out the one named `except`.
    pub fn carrier(&self, guest: GuestMac, prefix: MacPrefix, except: Option<&str>) -> Option<&Link> {
        self.links.iter().find(|link| {
            Some(link.name.as_str()) != except
                && self.bridge_at(link.master).is_some()
                && link.guest(prefix) == Some(guest)
        })
    }

    /// Owned routes: our protocol number, in the main table, through a managed bridge.
    pub fn owned_routes(&self, protocol: u8) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| self.owns(route, protocol))
    }

    pub fn owns(&self, route: &Route, protocol: u8) -> bool {
        route.protocol == protocol && route.table == MAIN_TABLE && self.bridge_at(route.dev).is_some()
    }

    /// The fabric's /32 to `address`, if another host announces it: one with a next hop.
    pub fn elsewhere(&self, address: Ipv4Addr) -> Option<&Route> {
        self.routes.iter().find(|route| route.address == address && !route.gateways.is_empty())
    }

    /// Name of an interface for a message.
    pub fn name_of(&self, index: u32) -> String {
        let bridge = self.bridge_at(Some(index)).map(|bridge| bridge.name.clone());
        bridge.or_else(|| self.names.get(&index.to_string()).cloned()).unwrap_or_else(|| format!("interface {index}"))
    }
}

fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacAddr6, D::Error> {
    let text = String::deserialize(deserializer)?;
    addr::parse_mac(&text).map_err(serde::de::Error::custom)
}
