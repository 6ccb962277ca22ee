//! What was read from the kernel, as plain values: the input of `policy`, `plan` and `status`.
//!
//! `up` and `down` fill a small one by name, `status` a whole one from dumps; the code that decides
//! cannot tell them apart. Interface names never decide anything: indices do, names are for people.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::link::{Bridge, Link};
use super::neighbour::Entry;
use super::route::{MAIN_TABLE, Route};
use crate::addr::{GuestMac, MacPrefix};

/// What a scope has of the kernel (kernel/snapshot.rs); a golden case writes one as TOML.
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
    /// Permanent neighbour entries: those of the guests in this snapshot whose taps have been looked at closer.
    #[serde(rename = "neighbour")]
    pub neighbours: Vec<Entry>,
    /// Claimers that are alive, of the guests in this snapshot.
    #[serde(rename = "arrival")]
    pub arrivals: Vec<Arrival>,
    /// Guests' addresses that the kernel drops or keeps, by a route that no question shows, and what it is.
    pub barred: BTreeMap<Ipv4Addr, String>,
    /// IPv4 addresses of the host itself.
    pub own_addresses: Vec<Ipv4Addr>,
    /// Network and broadcast addresses of subnets that are on link at the host's interfaces.
    pub subnet_ends: Vec<Ipv4Addr>,
    /// Names of other interfaces that a message may have to mention, by index (text: TOML has no other key).
    pub names: BTreeMap<String, String>,
}

/// A claimer that waits for a guest, or for its claim to settle.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    pub(crate) address: Ipv4Addr,
    /// Its process; `None` where that is in another pid namespace, or about to be started.
    pub pid: Option<i32>,
    /// The guest's first frame has come: its claimer says so, or its bridge has learned its MAC on its tap's port, which is
    /// only looked up for a guest without a route.
    #[serde(default)]
    pub has_come: bool,
}

impl Arrival {
    /// Of a guest whose first frame may not have come.
    pub fn of(address: Ipv4Addr, pid: Option<i32>) -> Self {
        Self { address, pid, has_come: false }
    }
}

impl Snapshot {
    /// Marks the taps whose MAC somebody has changed into that of another guest's tap: their guard names a guest without
    /// tap, for which a claimer waits, or another tap has that MAC too.
    pub fn mark_changed_macs(&mut self, prefix: MacPrefix) {
        let mut taps = BTreeMap::<GuestMac, usize>::new();
        let of_mac =
            |link: &Link| GuestMac::from_tap_mac(link.mac, prefix).filter(|_| link.is_tap() && !link.is_idle());
        for guest in self.links.iter().filter_map(of_mac) {
            *taps.entry(guest).or_default() += 1;
        }
        for link in &mut self.links {
            let is_twice = of_mac(link).is_some_and(|guest| taps[&guest] > 1);
            if !is_twice && self.arrivals.is_empty() {
                link.has_mac_of_another = false;
                continue;
            }
            let of_guard = link.guard.guest(prefix).filter(|guest| Some(*guest) != of_mac(link));
            let is_awaited = |guest: &GuestMac| {
                !taps.contains_key(guest) && self.arrivals.iter().any(|arrival| arrival.address == guest.address())
            };
            link.has_mac_of_another = of_guard.is_some_and(|guest| is_twice || is_awaited(&guest));
        }
    }

    pub(crate) fn bridge(&self, name: &str) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| bridge.name == name)
    }

    pub(crate) fn bridge_at(&self, index: Option<u32>) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| Some(bridge.index) == index)
    }

    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The first tap on a managed bridge that carries `guest`, leaving out the one named `except` and those that are idle.
    pub fn carrier(&self, guest: GuestMac, prefix: MacPrefix, except: Option<&str>) -> Option<&Link> {
        self.links.iter().find(|link| {
            Some(link.name.as_str()) != except
                && self.bridge_at(link.master).is_some()
                && !link.is_idle()
                && link.guest(prefix) == Some(guest)
        })
    }

    /// Owned routes: our protocol number, in the main table, through a managed bridge.
    pub fn owned_routes(&self, protocol: u8) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| self.owns(route, protocol))
    }

    /// tap32's permanent neighbour entries on managed bridges, each with its bridge.
    pub(crate) fn owned_neighbours(&self, protocol: u8) -> impl Iterator<Item = (&Entry, &Bridge)> {
        let owned = self.neighbours.iter().filter(move |entry| entry.protocol == protocol);
        owned.filter_map(|entry| Some((entry, self.bridge_at(Some(entry.dev))?)))
    }

    pub(crate) fn owns(&self, route: &Route, protocol: u8) -> bool {
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
