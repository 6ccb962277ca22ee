//! A snapshot with its configuration: which tap carries which guest, which route wins, and which tap is admitted. Built
//! once, it answers in constant time for each of thousands of taps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::addr::{self, GuestMac};
use crate::config::{BridgeConfig, Config};
use crate::guest::link::{Bridge, Link};
use crate::guest::neighbour::{Entry, Neighbour};
use crate::guest::policy;
use crate::guest::refusal::{self, Refusal};
use crate::guest::route::{HostRoute, MAIN_TABLE, Route};
use crate::guest::snapshot::{Arrival, Snapshot};

pub struct View<'a> {
    pub config: &'a Config,
    pub snapshot: &'a Snapshot,
    /// The first tap that carries each guest, though it be down.
    carriers: BTreeMap<GuestMac, &'a Link>,
    routes: BTreeMap<Ipv4Addr, Vec<&'a Route>>,
    /// Addresses in tap MACs, also in those with another prefix, each with the index of the tap's bridge. Not of taps
    /// behind which no guest can be.
    carried: BTreeSet<(Ipv4Addr, Option<u32>)>,
    /// Addresses with a permanent neighbour entry, each with the index of its interface.
    neighbours: BTreeSet<(Ipv4Addr, u32)>,
}

impl<'a> View<'a> {
    pub fn new(config: &'a Config, snapshot: &'a Snapshot) -> Self {
        let mut view = Self {
            config,
            snapshot,
            carriers: BTreeMap::new(),
            routes: BTreeMap::new(),
            carried: BTreeSet::new(),
            neighbours: BTreeSet::new(),
        };
        for link in snapshot.links.iter().filter(|link| snapshot.bridge_at(link.master).is_some()) {
            if let Some(guest) = link.guest(config.mac_prefix).filter(|_| !link.is_idle()) {
                view.carriers.entry(guest).or_insert(link);
            }
        }
        for link in snapshot.links.iter().filter(|link| link.is_in_service()) {
            // One that is away for a moment keeps its route meanwhile.
            let was_on = || {
                let name = link.was_on.as_deref().filter(|_| !link.lost)?;
                snapshot.bridge(name).map(|bridge| bridge.index)
            };
            if let Some(guest) = link.guest(config.mac_prefix).filter(|_| link.lost) {
                view.carriers.entry(guest).or_insert(link);
            }
            let Some(bridge) = link.master.or_else(was_on) else { continue };
            let of_guest = || link.guest(config.mac_prefix).map(GuestMac::address);
            let address = addr::address_of_tap_mac(link.mac).or_else(of_guest);
            view.carried.extend(address.map(|address| (address, Some(bridge))));
        }
        // One of tap32's with another MAC is missing: to add it again sets it right.
        let is_right = |entry: &&Entry| {
            entry.protocol != config.protocol
                || entry.mac == GuestMac::from_address(entry.address, config.mac_prefix).mac()
        };
        view.neighbours.extend(snapshot.neighbours.iter().filter(is_right).map(|entry| (entry.address, entry.dev)));
        for route in &snapshot.routes {
            view.routes.entry(route.address).or_default().push(route);
        }
        view
    }

    /// All routes to a guest, in no order.
    pub fn routes_to(&self, address: Ipv4Addr) -> &[&'a Route] {
        self.routes.get(&address).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, route: &HostRoute) -> bool {
        self.routes_to(route.address).iter().any(|there| route.is(there))
    }

    /// The route that the kernel takes to a guest: the one with the lowest metric. A snapshot has a route of another
    /// table only if the kernel takes it.
    pub fn best(&self, address: Ipv4Addr) -> Option<&'a Route> {
        let routes = self.routes_to(address).iter();
        routes.min_by_key(|route| (route.table == MAIN_TABLE, route.metric)).copied()
    }

    /// The best route, unless tap32 owns it, or it leads to the same bridges from another table.
    pub fn foreign_best_route(&self, address: Ipv4Addr) -> Option<&'a Route> {
        let leads_there = |best: &Route| {
            best.table != MAIN_TABLE && best.gateways.is_empty() && self.snapshot.bridge_at(best.dev).is_some()
        };
        self.best(address).filter(|best| !self.snapshot.owns(best, self.config.protocol) && !leads_there(best))
    }

    /// Owned routes that no tap accounts for: no tap with the address is admitted, and none on the route's bridge has
    /// the address in its MAC. A refused tap keeps its route, also one whose MAC has another prefix, so that a mistake
    /// in the configuration does not cut off running guests.
    pub fn orphans(&self, admitted: &BTreeSet<Ipv4Addr>) -> impl Iterator<Item = &'a Route> {
        let owned = self.snapshot.owned_routes(self.config.protocol);
        owned.filter(|route| !admitted.contains(&route.address) && !self.carried.contains(&(route.address, route.dev)))
    }

    /// The claimer that waits for a guest which has no route of tap32's yet.
    pub fn arrival(&self, address: Ipv4Addr) -> Option<&'a Arrival> {
        let is_ours = |route: &&Route| self.snapshot.owns(route, self.config.protocol);
        let mut arrivals = self.snapshot.arrivals.iter();
        arrivals.find(|arrival| arrival.address == address && !self.routes_to(address).iter().any(is_ours))
    }

    /// Whether its first frame is yet to come: until then it runs on another host.
    pub fn is_arriving(&self, address: Ipv4Addr) -> bool {
        self.arrival(address).is_some_and(|arrival| !arrival.has_come)
    }

    /// Whether anybody has added the permanent neighbour entry of a guest.
    pub fn has_neighbour(&self, address: Ipv4Addr, bridge: &Bridge) -> bool {
        self.neighbours.contains(&(address, bridge.index))
    }

    /// tap32's neighbour entries on bridges where no tap has their address in its MAC.
    pub fn orphaned_neighbours(&self) -> impl Iterator<Item = Neighbour> {
        let owned = self.snapshot.owned_neighbours(self.config.protocol);
        let orphans = owned.filter(|(entry, _)| !self.carried.contains(&(entry.address, Some(entry.dev))));
        orphans.map(|(entry, bridge)| {
            Neighbour::of(self.config, GuestMac::from_address(entry.address, self.config.mac_prefix), bridge)
        })
    }

    /// The policy for one tap: the bridge for its guest, or the refusal.
    pub fn admit(
        &self,
        link: &Link,
        guest: GuestMac,
        asked: Option<&str>,
    ) -> Result<(&'a BridgeConfig, &'a Bridge), Refusal> {
        policy::must_be_tap(link)?;
        if link.mac_drawn {
            return Err(refusal::mac_drawn(&link.name, link.mac, self.config.mac_prefix));
        }
        let (wanted, bridge) = policy::bridge_for(self.config, self.snapshot, Some(link), asked, guest)?;
        self.admit_guest(wanted, bridge, guest, Some(link))?;
        match link.guest(self.config.mac_prefix) {
            Some(present) if present != guest && link.master.is_some() && !link.may_have_changed_hands() => {
                Err(refusal::carries_another(&link.name, present.address()))
            }
            _ => Ok((wanted, bridge)),
        }
    }

    /// The part of the policy that needs no tap, for libvirt's `prepare`.
    pub fn admit_guest(
        &self,
        wanted: &BridgeConfig,
        bridge: &Bridge,
        guest: GuestMac,
        link: Option<&Link>,
    ) -> Result<(), Refusal> {
        policy::check_address(wanted, bridge, guest, self.snapshot)?;
        match self.carriers.get(&guest) {
            Some(first) if Some(first.index) != link.map(|link| link.index) => Err(refusal::taken(guest, &first.name)),
            _ if !bridge.up => Err(refusal::bridge_down(&bridge.name)),
            _ => Ok(()),
        }
    }
}
