//! The snapshot of the whole host, by dumps.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Result;
use macaddr::MacAddr6;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::RouteProtocol;

use super::read::{NOWHERE, as_own_port, as_route, mac_was_set};
use super::snapshot::{Detail, bar};
use super::{Kernel, answer, encode, fdb};
use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::guard::Guard;
use crate::guest::link::Link;
use crate::guest::route::Route;
use crate::guest::snapshot::Snapshot;
use crate::machine::claimers;

impl Kernel {
    /// The whole host: all taps on the managed bridges and all owned routes. Routes are read before links: the
    /// other way round a tap that comes up in between would have a route and no link.
    pub(super) fn host(&self, config: &Config, detail: Detail<'_>) -> Result<Snapshot> {
        let mut get = encode::list_routes();
        get.header.protocol = RouteProtocol::from(config.protocol);
        let routes = self.list("list routes", RouteNetlinkMessage::GetRoute(get))?;
        let addresses = self.addresses(0)?;
        let mut snapshot = self.bridges_and_tap(config, None)?;
        snapshot.own_addresses.extend(addresses.iter().map(|(_, net)| net.addr()));
        // A /31 has no ends (RFC 3021), and a /32 is only itself.
        let subnets = addresses.iter().map(|(_, net)| net).filter(|net| net.prefix_len() < 31);
        snapshot.subnet_ends = subnets.flat_map(|net| [net.network(), net.broadcast()]).collect();
        let flushed = self.flushed(&snapshot.bridges)?;
        for (bridge, flushed) in snapshot.bridges.iter_mut().zip(flushed) {
            bridge.flushed = flushed;
            bridge.addresses.extend(addresses.iter().filter(|(index, _)| *index == bridge.index).map(|(_, net)| *net));
        }
        snapshot.routes.extend(routes.into_iter().filter_map(as_route).filter_map(|route| route.host_route));
        let (taps, others) = self.ports_on(config, &snapshot, detail)?;
        snapshot.links = taps;
        for bridge in &mut snapshot.bridges {
            let on_it = others.iter().filter(|port| port.master == Some(bridge.index));
            bridge.other_ports = on_it.map(Link::other).collect();
        }
        let mut asked: Vec<&mut Link> = snapshot.links.iter_mut().filter(|tap| detail.has(tap.index)).collect();
        // The kernel keeps interfaces in 256 chains by index (dev_index_hash), and finds one faster in a chain that it has
        // just looked through.
        asked.sort_unstable_by_key(|tap| tap.index % 256);
        self.add_guards(&mut asked)?;
        let listed = if matches!(detail, Detail::All) { fdb::own_macs(&snapshot.bridges) } else { BTreeSet::new() };
        let is_doubtful = |tap: &&mut &mut Link| !listed.contains(&(tap.master, tap.mac.into_array()));
        let mut doubtful: Vec<_> = asked.iter_mut().filter(is_doubtful).collect();
        let question = |tap: &&mut &mut Link| encode::get_port(tap.master.unwrap_or_default(), tap.mac);
        let ports = self.request("look up the taps' MACs in the bridges' FDBs", &doubtful, question, NOWHERE)?;
        for (tap, port) in doubtful.iter_mut().zip(ports) {
            tap.unlisted = port.and_then(as_own_port).is_none();
        }
        // Not one that `down` has taken off its bridge since the list of ports, or `up` given to another guest.
        let unlisted: Vec<u32> = asked.iter().filter(|tap| tap.unlisted).map(|tap| tap.index).collect();
        let now = self.links_at(&unlisted)?;
        asked.iter_mut().for_each(|tap| tap.unlisted &= now.iter().any(|now| now.is_as_before(tap)));
        snapshot.arrivals = claimers::all_live(&claimed_or_unrouted(config, &snapshot))?;
        snapshot.mark_changed_macs(config.mac_prefix);
        self.add_first_frames(config, &mut snapshot)?;
        snapshot.neighbours = match detail {
            Detail::All => self.neighbours()?,
            Detail::Of(_) => self.neighbours_of(&guests_in_doubt(config, &snapshot), &snapshot.bridges)?,
        };
        Ok(snapshot)
    }

    /// The taps that are ports of the managed bridges, by index, and the ports that are no taps.
    fn ports_on(&self, config: &Config, snapshot: &Snapshot, detail: Detail<'_>) -> Result<(Vec<Link>, Vec<Link>)> {
        // Of this family a port takes a quarter of the octets and a third of the time, but its kind is not told.
        let mut ports = self.ports()?;
        ports.retain(|port| snapshot.bridge_at(port.master).is_some());
        // A port whose guest has a route or isolation of ours has been looked at before it got them. Of one that nobody has
        // open the list does not say whether somebody had.
        let routed: BTreeSet<_> = snapshot.owned_routes(config.protocol).map(|route| route.address).collect();
        let is_known = |port: &Link| {
            let guest = GuestMac::from_tap_mac(port.mac, config.mac_prefix);
            let has_ours = guest.is_some_and(|guest| port.isolated || routed.contains(&guest.address()));
            has_ours && (port.carrier || !port.up || !detail.has(port.index))
        };
        let missed = self.missed_ports(config, snapshot, &ports)?;
        let (mut taps, new): (Vec<Link>, Vec<Link>) = ports.into_iter().partition(is_known);
        for tap in &mut taps {
            "tap".clone_into(&mut tap.kind);
        }
        let indices: Vec<_> = new.iter().map(|port| port.index).chain(missed).collect();
        let on_ours = self.links_at(&indices)?.into_iter().filter(|link| snapshot.bridge_at(link.master).is_some());
        let (mut new, others): (Vec<Link>, Vec<Link>) = on_ours.partition(Link::is_tap);
        mark_drawn(new.iter_mut().filter(|link| link.guest(config.mac_prefix).is_some()));
        taps.append(&mut new);
        taps.sort_by_key(|link| link.index);
        Ok((taps, others))
    }

    /// Ports that the dump left out and that carry a guest with a route of ours. The kernel goes on by position where
    /// its last buffer was full, so that a port which goes meanwhile hides another, and says nothing of it
    /// (rtnl_bridge_getlink sets no cb->seq). What would cost a living guest its route is asked for exactly.
    fn missed_ports(&self, config: &Config, snapshot: &Snapshot, ports: &[Link]) -> Result<Vec<u32>> {
        let seen: BTreeSet<_> = ports.iter().map(|port| (port.master, port.mac.into_array())).collect();
        let places = snapshot.owned_routes(config.protocol).filter_map(|route| {
            let mac = GuestMac::from_address(route.address, config.mac_prefix).tap_mac();
            let bridge = snapshot.bridge_at(route.dev)?;
            (!seen.contains(&(route.dev, mac.into_array()))).then_some((bridge.index, mac))
        });
        let question = |(bridge, mac): &(u32, MacAddr6)| encode::get_port(*bridge, *mac);
        let answers = self.request("look up guests' ports", &places.collect::<Vec<_>>(), question, NOWHERE)?;
        let found: BTreeSet<u32> = answers.into_iter().flatten().filter_map(as_own_port).collect();
        Ok(found.into_iter().filter(|index| ports.iter().all(|port| port.index != *index)).collect())
    }

    pub fn add_guards(&self, taps: &mut [&mut Link]) -> Result<()> {
        let guards = self.guards(&taps.iter().map(|tap| tap.index).collect::<Vec<_>>())?;
        taps.iter_mut().zip(guards).for_each(|(tap, guard)| tap.guard = guard);
        Ok(())
    }

    /// Adds to a snapshot of the host the running guests' taps that are on no bridge, because somebody took them off or
    /// deleted it. One with its guest's guard is lost: `up` puts the guard on, and `down` takes it away with the bridge.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn add_lost_taps(&self, config: &Config, snapshot: &mut Snapshot) -> Result<()> {
        // While interfaces come and go all the time the kernel gives no whole list, and the rest must not wait for one.
        let Ok(mut taps) = self.taps_alone(1) else { return Ok(()) };
        taps.retain(|tap| tap.carrier);
        self.add_guards(&mut taps.iter_mut().collect::<Vec<_>>())?;
        for tap in &mut taps {
            tap.lost = tap.up && tap.is_guarded(config.mac_prefix);
        }
        // One that is down is another program's matter, unless it has a guard, which `down` takes away.
        let is_shown =
            |tap: &Link| tap.guest(config.mac_prefix).is_some() && (tap.up || tap.is_guarded(config.mac_prefix));
        taps.retain(is_shown);
        mark_drawn(taps.iter_mut().filter(|tap| !tap.is_guarded(config.mac_prefix)));
        snapshot.links.extend(taps.into_iter().filter(|tap| !tap.mac_drawn));
        Ok(())
    }

    /// Adds to a snapshot of the host the routes of others that win: what the kernel takes to each guest where that is no
    /// owned route.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn add_foreign_routes(&self, config: &Config, snapshot: &mut Snapshot) -> Result<()> {
        let guests = snapshot.links.iter().filter_map(|link| link.guest(config.mac_prefix)).map(GuestMac::address);
        let guests: Vec<Ipv4Addr> = guests.collect();
        const WHAT: &str = "look up the guests' routes";
        let outcomes = self.request_each(WHAT, &guests, |address| encode::get_route(*address), Ok)?;
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
            self.add_name(best.dev, snapshot)?;
            snapshot.routes.push(best);
        }
        Ok(())
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

/// The guests whose routes are right only with a claimer, or without one.
fn claimed_or_unrouted(config: &Config, snapshot: &Snapshot) -> BTreeSet<Ipv4Addr> {
    let routes = || snapshot.owned_routes(config.protocol);
    let routed: BTreeSet<_> = routes().map(|route| route.address).collect();
    let claimed = routes().filter(|route| route.metric == CLAIM_METRIC).map(|route| route.address);
    // Of a tap whose MAC somebody has changed the guard tells the guest.
    let prefix = config.mac_prefix;
    let of_tap = |link: &Link| link.guest(prefix).into_iter().chain(link.guard.guest(prefix)).map(GuestMac::address);
    let guests = snapshot.links.iter().flat_map(of_tap);
    claimed.chain(guests.filter(|guest| !routed.contains(guest))).collect()
}

/// The guests whose taps were looked at closer, and those that have a route and no tap.
fn guests_in_doubt(config: &Config, snapshot: &Snapshot) -> BTreeSet<Ipv4Addr> {
    let mut doubtful: BTreeSet<_> = snapshot.owned_routes(config.protocol).map(|route| route.address).collect();
    for tap in &snapshot.links {
        let Some(guest) = tap.guest(config.mac_prefix) else { continue };
        if tap.guard == Guard::NotAsked {
            doubtful.remove(&guest.address());
        } else {
            doubtful.insert(guest.address());
        }
    }
    doubtful
}
