//! Snapshots: for one tap and guest by name and by exact questions, for the whole host by dumps. One call each, so that
//! nobody can plan from half of one.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Result;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteProtocol;

use super::read::{NOWHERE, as_own_port, as_route, mac_was_set};
use super::{Kernel, answer, encode};
use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::guard::Guard;
use crate::guest::link::{Bridge, Link};
use crate::guest::route::{HostRoute, Route};
use crate::guest::snapshot::Snapshot;
use crate::machine::claimers;

/// What a snapshot is for, which says what is in it.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// To judge and route one guest: the tap, where there is one already, the bridges with their addresses, and what
    /// there is of `guest`, or where that is `None` of the guest that the tap's own MAC names.
    Up { tap: Option<&'a str>, guest: Option<GuestMac> },
    /// To take away what is left of `guest` and of the guest that the tap's own MAC names: also owned routes that the
    /// kernel does not take, and claimers. Nothing is judged, so the bridges are without addresses.
    Down { tap: Option<&'a str>, guest: Option<GuestMac> },
    /// To explain one tap: all that `Up` and `Down` have of it, but claimers.
    Explain { tap: &'a str },
    /// All taps on the managed bridges and all owned routes; with `foreign` also the routes of others that win.
    Host { foreign: bool, guards: Guards<'a> },
}

/// Of which taps a snapshot of the host has the guards.
#[derive(Debug, Clone, Copy)]
pub enum Guards<'a> {
    /// Of every tap: a question each, and so a third of the time of all the others.
    All,
    /// Of the interfaces with these indices.
    Of(&'a BTreeSet<u32>),
}

impl Kernel {
    /// Reads what `scope` says.
    ///
    /// # Errors
    /// The kernel does not answer. That something does not exist is not an error.
    pub async fn snapshot(&self, config: &Config, scope: Scope<'_>) -> Result<Snapshot> {
        match scope {
            Scope::Up { tap, guest } => {
                let mut snapshot = self.bridges_and_tap(config, tap).await?;
                let own = snapshot.links.first().and_then(|link| link.named_guest(config.mac_prefix));
                self.add_what_there_is(config, guest.or(own), &mut snapshot, false).await?;
                Ok(snapshot)
            }
            Scope::Down { tap, guest } => {
                let mut snapshot = self.bridges_and_tap(config, tap).await?;
                if let Some(tap) = snapshot.links.first_mut() {
                    tap.guard = self.guards(&[tap.index]).await?.swap_remove(0);
                    tap.only_guard = matches!(tap.guard, Guard::Is(_)) && self.has_only_guard(tap.index).await?;
                }
                let own = snapshot.links.first().and_then(|link| link.guest(config.mac_prefix));
                for guest in guest.into_iter().chain(own.filter(|own| Some(*own) != guest)) {
                    self.add_guest(config, guest, &mut snapshot, true).await?;
                    // A claimer that has not claimed yet goes by itself with the tap that it has in sight.
                    let has_claim = snapshot.owned_routes(config.protocol).any(|route| is_claim(route, guest));
                    if has_claim || snapshot.carrier(guest, config.mac_prefix, None).is_none() {
                        snapshot.arrivals.extend(claimers::live(guest.address())?);
                    }
                }
                Ok(snapshot)
            }
            Scope::Explain { tap } => {
                let mut snapshot = self.bridges_and_tap(config, Some(tap)).await?;
                let guest = snapshot.links.first().and_then(|link| link.guest(config.mac_prefix));
                self.add_what_there_is(config, guest, &mut snapshot, true).await?;
                if guest.is_some() {
                    self.add_name(snapshot.routes.first().and_then(|best| best.dev), &mut snapshot).await?;
                }
                Ok(snapshot)
            }
            Scope::Host { foreign, guards } => {
                let mut snapshot = self.host(config, guards).await?;
                if foreign {
                    self.add_foreign_routes(config, &mut snapshot).await?;
                }
                Ok(snapshot)
            }
        }
    }

    /// The managed bridges that exist, without their addresses.
    pub async fn bridges(&self, config: &Config) -> Result<Vec<Bridge>> {
        Ok(self.bridges_and_tap(config, None).await?.bridges)
    }

    /// The managed bridges, and the interface named `tap` with the name of what it is a port of.
    async fn bridges_and_tap(&self, config: &Config, tap: Option<&str>) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let names = config.bridges.iter().map(|bridge| bridge.name.as_str()).chain(tap);
        let mut found = self.links(names.map(encode::get_link_named).collect()).await?;
        if tap.is_some() {
            snapshot.links.extend(found.pop().flatten().map(|found| found.link));
        }
        snapshot.bridges.extend(found.iter().flatten().filter_map(|found| found.bridge(Vec::new())));
        let master = snapshot.links.first().and_then(|link| link.master);
        self.add_name(master, &mut snapshot).await?;
        Ok(snapshot)
    }

    /// Adds the bridges' subnets, the tap's guard and what there is of the guest. All is asked at once: each time that
    /// tap32 waits for the kernel costs a hundredth of the whole hook.
    async fn add_what_there_is(
        &self,
        config: &Config,
        guest: Option<GuestMac>,
        snapshot: &mut Snapshot,
        hidden: bool,
    ) -> Result<()> {
        let bridges = snapshot.bridges.clone();
        let tap: Vec<u32> = snapshot.links.first().map(|tap| tap.index).into_iter().collect();
        let of_guest = async {
            match guest {
                Some(guest) => self.add_guest(config, guest, snapshot, hidden).await,
                None => Ok(()),
            }
        };
        let (subnets, flushed, guards, result) =
            tokio::join!(self.subnets(&bridges), self.flushed(&bridges), self.guards(&tap), of_guest);
        result?;
        for ((bridge, subnets), flushed) in snapshot.bridges.iter_mut().zip(subnets?).zip(flushed?) {
            bridge.addresses = subnets;
            bridge.flushed = flushed;
        }
        for (tap, guard) in tap.iter().zip(guards?) {
            snapshot.links.iter_mut().filter(|link| link.index == *tap).for_each(|link| link.guard = guard.clone());
        }
        Ok(())
    }

    async fn subnets(&self, bridges: &[Bridge]) -> Result<Vec<Vec<Ipv4Net>>> {
        let mut subnets = Vec::new();
        for bridge in bridges {
            subnets.push(self.addresses(bridge.index).await?.into_iter().map(|(_, net)| net).collect());
        }
        Ok(subnets)
    }

    /// Which of these bridges miss their own MAC in their FDB.
    async fn flushed(&self, bridges: &[Bridge]) -> Result<Vec<bool>> {
        let questions = bridges.iter().map(|bridge| encode::get_port(bridge.index, bridge.mac)).collect();
        let answers = self.request("look up the bridges' own MACs", questions, NOWHERE).await?;
        Ok(answers.into_iter().map(|answer| answer.and_then(as_own_port).is_none()).collect())
    }

    /// The name of an interface that a message may have to mention.
    async fn add_name(&self, index: Option<u32>, snapshot: &mut Snapshot) -> Result<()> {
        let unknown = index.filter(|index| snapshot.bridge_at(Some(*index)).is_none());
        if let Some(index) = unknown.filter(|index| !snapshot.names.contains_key(&index.to_string()))
            && let Some(link) = self.link_at(index).await?
        {
            snapshot.names.insert(index.to_string(), link.name);
        }
        Ok(())
    }

    /// Adds what there is of one guest, by questions whose number does not grow with the host: the route to its
    /// address, and its tap MAC in the bridges' FDBs; with `hidden` also owned routes that the kernel does not take.
    async fn add_guest(&self, config: &Config, guest: GuestMac, snapshot: &mut Snapshot, hidden: bool) -> Result<()> {
        let mut questions = vec![encode::get_route(guest.address())];
        questions.extend(snapshot.bridges.iter().map(|bridge| encode::get_port(bridge.index, guest.tap_mac())));
        const WHAT: &str = "look up the guest";
        let mut outcomes = self.request_each(WHAT, questions).await?.into_iter();
        let first = outcomes.next().unwrap_or_else(|| Ok(Vec::new()));
        let bars = first.as_ref().err().and_then(|denied| bar(denied.errno));
        let best = answer(first, WHAT, NOWHERE)?.and_then(as_route);
        if best.as_ref().is_some_and(|best| best.local) {
            snapshot.own_addresses.push(guest.address());
        }
        let best = best.and_then(|best| best.host_route).filter(|best| best.address == guest.address());
        snapshot.routes.extend(best.clone());
        for outcome in outcomes {
            let Some(port) = answer(outcome, WHAT, NOWHERE)?.and_then(as_own_port) else { continue };
            if snapshot.links.iter().all(|link| link.index != port)
                && let Some(first) = self.link_at(port).await?
            {
                snapshot.links.insert(0, first);
            }
        }
        // A rule, or ignore_routes_with_linkdown after a bridge's last guest, leads past a route of ours. Only who deletes
        // must know: who adds is told that it is there.
        let leads_past = hidden && !best.as_ref().is_some_and(|best| snapshot.owns(best, config.protocol));
        let mut behind = Vec::new();
        for bridge in &snapshot.bridges {
            let settled = HostRoute::settled(config, guest.address(), bridge);
            for route in [settled, HostRoute::claim(config, guest.address(), bridge)] {
                // Of /32s only one with a better metric can hide it.
                let is_behind = best.as_ref().is_some_and(|best| best.metric < route.metric);
                if (leads_past || is_behind) && self.route_exists(&route).await? {
                    behind.push(route.into());
                }
            }
        }
        if let Some(what) = bars.filter(|_| !behind.is_empty()) {
            snapshot.barred.insert(guest.address(), what.to_owned());
        }
        snapshot.routes.extend(behind);
        Ok(())
    }

    /// The whole host: all taps on the managed bridges and all owned routes. Routes are read before links: the
    /// other way round a tap that comes up in between would have a route and no link.
    async fn host(&self, config: &Config, guards: Guards<'_>) -> Result<Snapshot> {
        let mut get = encode::list_routes();
        get.header.protocol = RouteProtocol::from(config.protocol);
        let routes = self.list("list routes", RouteNetlinkMessage::GetRoute(get)).await?;
        let addresses = self.addresses(0).await?;
        let mut snapshot = self.bridges_and_tap(config, None).await?;
        snapshot.own_addresses.extend(addresses.iter().map(|(_, net)| net.addr()));
        let flushed = self.flushed(&snapshot.bridges).await?;
        for (bridge, flushed) in snapshot.bridges.iter_mut().zip(flushed) {
            bridge.flushed = flushed;
            bridge.addresses.extend(addresses.iter().filter(|(index, _)| *index == bridge.index).map(|(_, net)| *net));
        }
        snapshot.routes.extend(routes.into_iter().filter_map(as_route).filter_map(|route| route.host_route));
        let claimed = snapshot.owned_routes(config.protocol).filter(|route| route.metric == CLAIM_METRIC);
        snapshot.arrivals = claimers::live_among(&claimed.map(|route| route.address).collect())?;
        snapshot.links = self.taps_on(config, &snapshot).await?;
        let is_asked = |tap: &&mut Link| match guards {
            Guards::All => true,
            Guards::Of(taps) => taps.contains(&tap.index),
        };
        let mut asked: Vec<&mut Link> = snapshot.links.iter_mut().filter(is_asked).collect();
        let found = self.guards(&asked.iter().map(|tap| tap.index).collect::<Vec<_>>()).await?;
        for (tap, guard) in asked.iter_mut().zip(found) {
            tap.guard = guard;
        }
        Ok(snapshot)
    }

    /// The taps that are ports of the managed bridges, by index.
    async fn taps_on(&self, config: &Config, snapshot: &Snapshot) -> Result<Vec<Link>> {
        // Of this family a port takes a quarter of the octets and a third of the time, but its kind is not told.
        let mut ports = self.ports().await?;
        ports.retain(|port| snapshot.bridge_at(port.master).is_some());
        // A port whose guest has a route or isolation of ours has been looked at before it got them.
        let routed: BTreeSet<_> = snapshot.owned_routes(config.protocol).map(|route| route.address).collect();
        let is_known = |port: &Link| {
            let guest = GuestMac::from_tap_mac(port.mac, config.mac_prefix);
            guest.is_some_and(|guest| port.isolated || routed.contains(&guest.address()))
        };
        let missed = self.missed_ports(config, snapshot, &ports).await?;
        let (mut taps, new): (Vec<Link>, Vec<Link>) = ports.into_iter().partition(is_known);
        for tap in &mut taps {
            "tap".clone_into(&mut tap.kind);
        }
        let questions = new.iter().map(|port| port.index).chain(missed).map(encode::get_link_at).collect();
        let answers = self.links(questions).await?.into_iter().flatten().map(|found| found.link);
        let mut new: Vec<Link> =
            answers.filter(|link| link.is_tap() && snapshot.bridge_at(link.master).is_some()).collect();
        mark_drawn(new.iter_mut().filter(|link| link.guest(config.mac_prefix).is_some()));
        taps.append(&mut new);
        taps.sort_by_key(|link| link.index);
        Ok(taps)
    }

    /// Ports that the dump left out and that carry a guest with a route of ours. The kernel goes on by position where
    /// its last buffer was full, so that a port which goes meanwhile hides another, and says nothing of it
    /// (rtnl_bridge_getlink sets no cb->seq). What would cost a living guest its route is asked for exactly.
    async fn missed_ports(&self, config: &Config, snapshot: &Snapshot, ports: &[Link]) -> Result<Vec<u32>> {
        let seen: BTreeSet<_> = ports.iter().map(|port| (port.master, port.mac.into_array())).collect();
        let questions = snapshot.owned_routes(config.protocol).filter_map(|route| {
            let mac = GuestMac::from_address(route.address, config.mac_prefix).tap_mac();
            let bridge = snapshot.bridge_at(route.dev)?;
            (!seen.contains(&(route.dev, mac.into_array()))).then(|| encode::get_port(bridge.index, mac))
        });
        let answers = self.request("look up guests' ports", questions.collect(), NOWHERE).await?;
        let found: BTreeSet<u32> = answers.into_iter().flatten().filter_map(as_own_port).collect();
        Ok(found.into_iter().filter(|index| ports.iter().all(|port| port.index != *index)).collect())
    }

    /// Adds to a snapshot of the host the routes of others that win: what the kernel takes to each guest where that is no
    /// owned route.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn add_foreign_routes(&self, config: &Config, snapshot: &mut Snapshot) -> Result<()> {
        let guests = snapshot.links.iter().filter_map(|link| link.guest(config.mac_prefix)).map(GuestMac::address);
        let guests: Vec<Ipv4Addr> = guests.collect();
        let questions = guests.iter().map(|address| encode::get_route(*address)).collect();
        const WHAT: &str = "look up the guests' routes";
        let outcomes = self.request_each(WHAT, questions).await?;
        let routed: BTreeSet<_> = snapshot.owned_routes(config.protocol).map(|route| route.address).collect();
        for (address, outcome) in guests.iter().zip(outcomes) {
            let bars = outcome.as_ref().err().and_then(|denied| bar(denied.errno));
            let best = answer(outcome, WHAT, NOWHERE)?.and_then(as_route);
            let bars = bars.or_else(|| best.as_ref().filter(|best| best.local).map(|_| "a local route"));
            if let Some(what) = bars.filter(|_| routed.contains(address)) {
                snapshot.barred.insert(*address, what.to_owned());
            }
            let best = best.and_then(|best| best.host_route);
            let is_foreign = |best: &Route| best.address == *address && !snapshot.owns(best, config.protocol);
            let Some(best) = best.filter(is_foreign) else { continue };
            self.add_name(best.dev, snapshot).await?;
            snapshot.routes.push(best);
        }
        Ok(())
    }
}

/// What kind of route the kernel takes to an address that it refuses to look up so (fib_props). Which, it does not say;
/// where a /32 of ours is there, something wins over it.
fn bar(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EINVAL => Some("a blackhole route"),
        Errno::EHOSTUNREACH => Some("an unreachable route"),
        Errno::EACCES => Some("a prohibit route"),
        _ => None,
    }
}

/// Marks the taps whose MAC the kernel drew: two of `mac_was_set`'s three questions are asked of the first only,
/// for each costs a tenth of what adding a route does, and a host may have thousands.
fn mark_drawn<'a>(links: impl Iterator<Item = &'a mut Link>) {
    let mut links = links.peekable();
    if links.peek().is_none_or(|first| mac_was_set(first).is_none()) {
        return;
    }
    for link in links {
        // Where /sys/class/net/ leads for a tap; without the detour it takes half the time.
        let file = std::fs::File::open(format!("/sys/devices/virtual/net/{}/addr_assign_type", link.name));
        let mut value = [0; 1];
        let length = file.and_then(|mut file| std::io::Read::read(&mut file, &mut value));
        link.mac_drawn = length.is_ok() && value != *b"3";
    }
}

fn is_claim(route: &Route, guest: GuestMac) -> bool {
    route.metric == CLAIM_METRIC && route.address == guest.address()
}
