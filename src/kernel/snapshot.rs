//! Snapshots: for one tap and guest by name and by exact questions, for the whole host by dumps (`whole_host`). One call
//! each, so that nobody can plan from half of one.

use std::collections::BTreeSet;

use anyhow::Result;
use nix::errno::Errno;

use super::decode::{Object, RouteObject};
use super::neighbour;
use super::read::{NOWHERE, as_own_port, as_route};
use super::{Kernel, answer, encode};
use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::guard::Guard;
use crate::guest::link::Bridge;
use crate::guest::route::HostRoute;
use crate::guest::snapshot::Snapshot;
use crate::machine::claimers;

/// What a snapshot is for, which says what is in it.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    /// To judge and route one guest: the tap, where there is one already, the bridges with their addresses, and what
    /// there is of `guest`, or where that is `None` of the guest that the tap's own MAC names, with its claimer.
    Up { tap: Option<&'a str>, guest: Option<GuestMac> },
    /// To take away what is left of `guest` and of the guest that the tap's own MAC names: also owned routes that the
    /// kernel does not take, and claimers. Nothing is judged, so the bridges are without addresses.
    Down { tap: Option<&'a str>, guest: Option<GuestMac> },
    /// To explain one tap: all that `Up` and `Down` have of it.
    Explain { tap: &'a str },
    /// All taps on the managed bridges and all owned routes; with `foreign` also the routes of others that win.
    Host { foreign: bool, detail: Detail<'a> },
}

/// Of which taps a snapshot of the host has the guard, whether somebody has ever opened them, and whether their guests have
/// a permanent neighbour entry.
#[derive(Debug, Clone, Copy)]
pub enum Detail<'a> {
    /// Of every tap: a question each, by which a pass over 4,000 takes 1.7 times as long (measured).
    All,
    /// Of the interfaces with these indices.
    Of(&'a BTreeSet<u32>),
}

impl Detail<'_> {
    pub(super) fn has(self, index: u32) -> bool {
        match self {
            Self::All => true,
            Self::Of(taps) => taps.contains(&index),
        }
    }
}

impl Kernel {
    /// Reads what `scope` says.
    ///
    /// # Errors
    /// The kernel does not answer. That something does not exist is not an error.
    pub fn snapshot(&self, config: &Config, scope: Scope<'_>) -> Result<Snapshot> {
        match scope {
            Scope::Up { tap, guest } => {
                let mut snapshot = self.bridges_and_tap(config, tap)?;
                let own = snapshot.links.first().and_then(|link| link.named_guest(config.mac_prefix));
                self.add_what_there_is(config, guest.or(own), &mut snapshot, false)?;
                self.add_first_frames(config, &mut snapshot)?;
                // What the tap leaves behind when it changes hands.
                let before = snapshot.links.iter().find(|link| Some(link.name.as_str()) == tap);
                let before = before.filter(|link| link.may_have_changed_hands() && link.master.is_some());
                let before = before.and_then(|link| link.guest(config.mac_prefix));
                if let Some(before) = before.filter(|before| guest.is_some_and(|guest| guest != *before)) {
                    self.add_guest(config, before, &mut snapshot, true)?;
                    snapshot.arrivals.extend(claimers::live(before.address())?);
                }
                Ok(snapshot)
            }
            Scope::Down { tap, guest } => {
                let mut snapshot = self.bridges_and_tap(config, tap)?;
                if let Some(tap) = snapshot.links.first_mut() {
                    tap.guard = self.guards(&[tap.index])?.swap_remove(0);
                    tap.only_guard =
                        matches!(tap.guard, Guard::Of(_) | Guard::Other(_)) && self.has_only_guard(tap.index)?;
                }
                let own = snapshot.links.first().and_then(|link| link.guest(config.mac_prefix));
                for guest in guest.into_iter().chain(own.filter(|own| Some(*own) != guest)) {
                    self.add_guest(config, guest, &mut snapshot, true)?;
                    // A guest with its settled route alone has no claimer any more, and `down` should not list all sockets.
                    let routes =
                        snapshot.owned_routes(config.protocol).filter(|route| route.address == guest.address());
                    let metrics: Vec<u32> = routes.map(|route| route.metric).collect();
                    let is_settled = !metrics.is_empty() && !metrics.contains(&CLAIM_METRIC);
                    if !is_settled || snapshot.carrier(guest, config.mac_prefix, None).is_none() {
                        snapshot.arrivals.extend(claimers::live(guest.address())?);
                    }
                }
                Ok(snapshot)
            }
            Scope::Explain { tap } => {
                let mut snapshot = self.bridges_and_tap(config, Some(tap))?;
                let guest = snapshot.links.first().and_then(|link| link.guest(config.mac_prefix));
                self.add_what_there_is(config, guest, &mut snapshot, true)?;
                self.add_first_frames(config, &mut snapshot)?;
                if guest.is_some() {
                    self.add_name(snapshot.routes.first().and_then(|best| best.dev), &mut snapshot)?;
                }
                Ok(snapshot)
            }
            Scope::Host { foreign, detail } => {
                let mut snapshot = self.host(config, detail)?;
                if foreign {
                    self.add_foreign_routes(config, &mut snapshot)?;
                }
                Ok(snapshot)
            }
        }
    }

    /// The managed bridges that exist, without their addresses.
    pub fn bridges(&self, config: &Config) -> Result<Vec<Bridge>> {
        Ok(self.bridges_and_tap(config, None)?.bridges)
    }

    /// The managed bridges, and the interface named `tap` with the name of what it is a port of.
    pub(super) fn bridges_and_tap(&self, config: &Config, tap: Option<&str>) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let names: Vec<_> = config.bridges.iter().map(|bridge| bridge.name.as_str()).chain(tap).collect();
        let mut found = self.links(&names, |name| encode::get_link_named(name))?;
        if tap.is_some() {
            snapshot.links.extend(found.pop().flatten().map(|found| found.link));
        }
        for found in found.into_iter().flatten() {
            let Some(mut bridge) = found.bridge(Vec::new()) else { continue };
            bridge.master = self.other_at(found.link.master)?;
            snapshot.bridges.push(bridge);
        }
        let master = snapshot.links.first().and_then(|link| link.master);
        self.add_name(master, &mut snapshot)?;
        Ok(snapshot)
    }

    /// Adds the bridges' subnets, the tap's guard, and what there is of the guest with its claimer.
    fn add_what_there_is(
        &self,
        config: &Config,
        guest: Option<GuestMac>,
        snapshot: &mut Snapshot,
        hidden: bool,
    ) -> Result<()> {
        if let Some(guest) = guest {
            snapshot.arrivals.extend(claimers::live(guest.address())?);
        }
        // Of a guest that arrives it must be known whether it has a route, also where another host's wins.
        let hidden = hidden || !snapshot.arrivals.is_empty();
        let flushed = self.flushed(&snapshot.bridges)?;
        for (bridge, flushed) in snapshot.bridges.iter_mut().zip(flushed) {
            bridge.addresses = self.addresses(bridge.index)?.into_iter().map(|(_, net)| net).collect();
            bridge.flushed = flushed;
        }
        if let Some(tap) = snapshot.links.first_mut() {
            tap.guard = self.guards(&[tap.index])?.swap_remove(0);
        }
        guest.map_or(Ok(()), |guest| self.add_guest(config, guest, snapshot, hidden))
    }

    /// Marks the claimers of the guests without route whose first frame has come.
    pub(super) fn add_first_frames(&self, config: &Config, snapshot: &mut Snapshot) -> Result<()> {
        let routed: BTreeSet<_> = snapshot.owned_routes(config.protocol).map(|route| route.address).collect();
        let unknown =
            snapshot.arrivals.iter().filter(|arrival| !arrival.has_come && !routed.contains(&arrival.address));
        let guests = unknown.map(|arrival| GuestMac::from_address(arrival.address, config.mac_prefix));
        let taps = guests.filter_map(|guest| Some((guest, snapshot.carrier(guest, config.mac_prefix, None)?)));
        let taps: Vec<_> = taps.map(|(guest, tap)| (guest, tap.index, tap.master.unwrap_or_default())).collect();
        let question = |(guest, _, bridge): &(GuestMac, _, _)| encode::get_port(*bridge, guest.mac());
        let answers = self.request("look for first frames in the bridges' FDBs", &taps, question, NOWHERE)?;
        for ((guest, tap, _), answer) in taps.into_iter().zip(answers) {
            let has_come = matches!(answer, Some(Object::Port { index, .. }) if index == tap);
            for arrival in snapshot.arrivals.iter_mut().filter(|arrival| arrival.address == guest.address()) {
                arrival.has_come = has_come;
            }
        }
        Ok(())
    }

    /// Which of these bridges miss their own MAC in their FDB.
    pub(super) fn flushed(&self, bridges: &[Bridge]) -> Result<Vec<bool>> {
        let question = |bridge: &Bridge| encode::get_port(bridge.index, bridge.mac);
        let answers = self.request("look up the bridges' own MACs", bridges, question, NOWHERE)?;
        let is_missing = |answer: Option<Object>| answer.and_then(as_own_port).is_none();
        // A bridge whose MAC nobody has set has none after its last port left (br_stp_recalculate_bridge_id).
        Ok(bridges.iter().zip(answers).map(|(bridge, answer)| !bridge.mac.is_nil() && is_missing(answer)).collect())
    }

    /// The name of an interface that a message may have to mention.
    pub(super) fn add_name(&self, index: Option<u32>, snapshot: &mut Snapshot) -> Result<()> {
        let unknown = index.filter(|index| snapshot.bridge_at(Some(*index)).is_none());
        if let Some(index) = unknown.filter(|index| !snapshot.names.contains_key(&index.to_string()))
            && let Some(link) = self.link_at(index)?
        {
            snapshot.names.insert(index.to_string(), link.name);
        }
        Ok(())
    }

    /// Adds what there is of one guest, by questions whose number does not grow with the host: the route to its
    /// address, its tap MAC in the bridges' FDBs, and its neighbour entries; with `hidden` also owned routes that the
    /// kernel does not take.
    fn add_guest(&self, config: &Config, guest: GuestMac, snapshot: &mut Snapshot, hidden: bool) -> Result<()> {
        let mut questions = vec![encode::get_route(guest.address())];
        questions.extend(snapshot.bridges.iter().map(|bridge| encode::get_port(bridge.index, guest.tap_mac())));
        questions.extend(snapshot.bridges.iter().map(|bridge| neighbour::get(guest.address(), bridge.index)));
        const WHAT: &str = "look up the guest";
        let mut outcomes = self.request_each(WHAT, &questions, Clone::clone, Ok)?.into_iter();
        let first = outcomes.next().unwrap_or_else(|| Ok(Vec::new()));
        let bars = first.as_ref().err().and_then(|denied| bar(denied.errno));
        let best = answer(first, WHAT, NOWHERE)?.and_then(as_route);
        if best.as_ref().is_some_and(|best| best.local) {
            snapshot.own_addresses.push(guest.address());
        }
        let is_end = |best: &RouteObject| best.broadcast || best.network == Some(guest.address());
        snapshot.subnet_ends.extend(best.as_ref().filter(|best| is_end(best)).map(|_| guest.address()));
        let best = best.and_then(|best| best.host_route).filter(|best| best.address == guest.address());
        snapshot.routes.extend(best.clone());
        for outcome in outcomes {
            let port = match answer(outcome, WHAT, NOWHERE)? {
                Some(Object::Neighbour(entry)) => {
                    snapshot.neighbours.push(entry);
                    continue;
                }
                Some(Object::Port { index, own: true, .. }) => index,
                _ => continue,
            };
            if snapshot.links.iter().all(|link| link.index != port)
                && let Some(first) = self.link_at(port)?
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
                if (leads_past || is_behind) && self.route_exists(&route)? {
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
}

/// What kind of route the kernel takes to an address that it refuses to look up so (fib_props). Which, it does not say;
/// where a /32 of ours is there, something wins over it.
pub fn bar(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::EINVAL => Some("a blackhole route"),
        Errno::EHOSTUNREACH => Some("an unreachable route"),
        Errno::EACCES => Some("a prohibit route"),
        _ => None,
    }
}
