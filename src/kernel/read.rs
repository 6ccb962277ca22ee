//! Reading the kernel: by name and by exact question for one tap, by dumps for the whole host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage, RouteProtocol, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::{LinkObject, Object, RouteObject};
use super::{Kernel, answer, encode, unless};
use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::link::Link;
use crate::guest::route::{HostRoute, Route};
use crate::guest::snapshot::Snapshot;
use crate::verbs::arrival;

/// Refusals that mean "there is none": no such interface, no such entry in a bridge's table, no route, and
/// the routes of the types unreachable, prohibit and blackhole (fib_props).
const NOWHERE: &[Errno] =
    &[Errno::ENODEV, Errno::ENOENT, Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];

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

impl Kernel {
    /// The managed bridges and the interface named `tap`: a snapshot without routes.
    ///
    /// # Errors
    /// The kernel does not answer. That something does not exist is not an error.
    pub async fn look(&self, config: &Config, tap: Option<&str>) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let names = config.bridges.iter().map(|bridge| bridge.name.as_str()).chain(tap);
        let mut found = self.links(names.map(encode::get_link_named).collect()).await?;
        if tap.is_some() {
            snapshot.links.extend(found.pop().flatten().map(|found| found.link));
        }
        snapshot.bridges.extend(found.iter().flatten().filter_map(|found| found.bridge(Vec::new())));
        let master = snapshot.links.first().and_then(|link| link.master);
        if let Some(index) = master.filter(|index| snapshot.bridge_at(Some(*index)).is_none())
            && let Some(foreign) = self.link_at(index).await?
        {
            snapshot.names.insert(index.to_string(), foreign.name);
        }
        Ok(snapshot)
    }

    /// Adds the bridges' own addresses to a snapshot of `look`.
    pub async fn look_at_subnets(&self, snapshot: &mut Snapshot) -> Result<()> {
        for bridge in &mut snapshot.bridges {
            bridge.addresses = self.addresses(bridge.index).await?.into_iter().map(|(_, net)| net).collect();
        }
        Ok(())
    }

    /// Adds to a snapshot of `look` what there is of one guest, by questions whose number does not grow with
    /// the host: the route to its address, and its tap MAC in the bridges' tables; with `to_delete` also routes of
    /// ours that the kernel does not take.
    pub async fn look_for(
        &self,
        config: &Config,
        guest: GuestMac,
        snapshot: &mut Snapshot,
        to_delete: bool,
    ) -> Result<()> {
        let mut questions = vec![encode::get_route(guest.address())];
        questions.extend(snapshot.bridges.iter().map(|bridge| encode::get_port(bridge.index, guest.tap_mac())));
        const WHAT: &str = "look up the guest";
        let mut outcomes = self.ask_each(WHAT, questions).await?.into_iter();
        let first = outcomes.next().unwrap_or_else(|| Ok(Vec::new()));
        let bars = first.as_ref().err().and_then(|denied| bar(denied.errno));
        let best = answer(first, WHAT, NOWHERE)?.and_then(as_route);
        if best.as_ref().is_some_and(|best| best.local) {
            snapshot.own_addresses.push(guest.address());
        }
        let best = best.and_then(|best| best.host_route).filter(|best| best.address == guest.address());
        snapshot.routes.extend(best.clone());
        for outcome in outcomes {
            let Some(port) = answer(outcome, WHAT, NOWHERE)?.and_then(as_port) else { continue };
            if snapshot.links.iter().all(|link| link.index != port)
                && let Some(first) = self.link_at(port).await?
            {
                snapshot.links.insert(0, first);
            }
        }
        // A rule, or ignore_routes_with_linkdown after a bridge's last guest, leads past a route of ours. Only who deletes
        // must know: who adds is told that it is there.
        let leads_past = to_delete && !best.as_ref().is_some_and(|best| snapshot.owns(best, config.protocol));
        let mut hidden = Vec::new();
        for bridge in &snapshot.bridges {
            let settled = HostRoute::settled(config, guest.address(), bridge);
            for route in [settled, HostRoute::claim(config, guest.address(), bridge)] {
                // Of /32s only one with a better metric can hide it.
                let is_behind = best.as_ref().is_some_and(|best| best.metric < route.metric);
                if (leads_past || is_behind) && self.has(&route).await? {
                    hidden.push(route.into());
                }
            }
        }
        if let Some(what) = bars.filter(|_| !hidden.is_empty()) {
            snapshot.barred.insert(guest.address(), what.to_owned());
        }
        snapshot.routes.extend(hidden);
        Ok(())
    }

    /// The whole host: all taps on the managed bridges and all owned routes. Routes are read before links: the
    /// other way round a tap that comes up in between would have a route and no link.
    pub async fn look_at_all(&self, config: &Config) -> Result<Snapshot> {
        let mut get = RouteMessage::default();
        get.header.address_family = AddressFamily::Inet;
        get.header.table = RouteHeader::RT_TABLE_MAIN;
        get.header.protocol = RouteProtocol::from(config.protocol);
        get.header.kind = RouteType::Unspec;
        let routes = self.list("list routes", RouteNetlinkMessage::GetRoute(get)).await?;
        let addresses = self.addresses(0).await?;
        let mut snapshot = self.look(config, None).await?;
        snapshot.own_addresses.extend(addresses.iter().map(|(_, net)| net.addr()));
        for bridge in &mut snapshot.bridges {
            bridge.addresses.extend(addresses.iter().filter(|(index, _)| *index == bridge.index).map(|(_, net)| *net));
        }
        snapshot.routes.extend(routes.into_iter().filter_map(as_route).filter_map(|route| route.host_route));
        let claimed = snapshot.owned_routes(config.protocol).filter(|route| route.metric == CLAIM_METRIC);
        snapshot.arrivals = claimed.filter_map(|route| arrival::live(route.address)).collect();
        snapshot.links = self.taps_on(config, &snapshot).await?;
        Ok(snapshot)
    }

    /// The taps that are ports of the managed bridges, by index.
    async fn taps_on(&self, config: &Config, snapshot: &Snapshot) -> Result<Vec<Link>> {
        // Of this family a port takes a quarter of the octets and a third of the time, but its kind is not told.
        let mut get = LinkMessage::default();
        get.header.interface_family = AddressFamily::Bridge;
        let all = self.list("list the bridges' ports", RouteNetlinkMessage::GetLink(get)).await?;
        let mut ports: Vec<Link> = all.into_iter().filter_map(as_link).map(|found| found.link).collect();
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
        let answers = self.ask("look up guests' ports", questions.collect(), NOWHERE).await?;
        let found: BTreeSet<u32> = answers.into_iter().flatten().filter_map(as_port).collect();
        Ok(found.into_iter().filter(|index| ports.iter().all(|port| port.index != *index)).collect())
    }

    /// Adds to a snapshot of `look_at_all` the routes that win over ours: what the kernel takes to each guest
    /// where that is no route of ours.
    pub async fn look_for_winners(&self, config: &Config, snapshot: &mut Snapshot) -> Result<()> {
        let guests = snapshot.links.iter().filter_map(|link| link.guest(config.mac_prefix)).map(GuestMac::address);
        let guests: Vec<Ipv4Addr> = guests.collect();
        let questions = guests.iter().map(|address| encode::get_route(*address)).collect();
        const WHAT: &str = "look up the guests' routes";
        let outcomes = self.ask_each(WHAT, questions).await?;
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
            if let Some(index) = best.dev.filter(|index| !snapshot.names.contains_key(&index.to_string()))
                && let Some(link) = self.link_at(index).await?
            {
                snapshot.names.insert(index.to_string(), link.name);
            }
            snapshot.routes.push(best);
        }
        Ok(())
    }

    /// The port that a bridge's table names for `mac`.
    pub async fn port_of(&self, bridge: u32, mac: MacAddr6) -> Result<Option<u32>> {
        let question = vec![encode::get_port(bridge, mac)];
        let answers = self.ask("look up a MAC in the bridge's table", question, NOWHERE).await?;
        Ok(answers.into_iter().flatten().find_map(as_port))
    }

    pub async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        Ok(self.links(vec![encode::get_link_at(index)]).await?.into_iter().flatten().next().map(|found| found.link))
    }

    pub(super) async fn links(&self, questions: Vec<LinkMessage>) -> Result<Vec<Option<LinkObject>>> {
        let questions = questions.into_iter().map(RouteNetlinkMessage::GetLink).collect();
        let answers = self.ask("look up interfaces", questions, NOWHERE).await?;
        Ok(answers.into_iter().map(|answer| answer.and_then(as_link)).collect())
    }

    /// Whether exactly this route is in the table. A "new route" request without NLM_F_CREATE changes nothing:
    /// it ends with EEXIST on an exact match and with ENOENT else (fib_table_insert), at any size of the table.
    pub(super) async fn has(&self, route: &HostRoute) -> Result<bool> {
        let what = format!("look up {route}");
        let probe = RouteNetlinkMessage::NewRoute(encode::route(route));
        match self.change(&what, probe, 0).await? {
            Err(denied) if denied.errno == Errno::EEXIST => Ok(true),
            // A bridge that is down, or gone by now, has no routes.
            Err(denied) if matches!(denied.errno, Errno::ENOENT | Errno::ENETDOWN | Errno::ENODEV) => Ok(false),
            Err(denied) => Err(anyhow::Error::new(denied).context(what)),
            Ok(()) => bail!("{what}: the kernel took it for a change"),
        }
    }

    pub(super) async fn list(&self, what: &str, get: RouteNetlinkMessage) -> Result<Vec<Object>> {
        // ENOENT: a namespace in which no route was ever added has no table yet.
        Ok(unless(&[Errno::ENOENT], what, self.dump(what, get).await?)?.unwrap_or_default())
    }

    /// IPv4 addresses with the index of their interface: of the interface `index`, or of all with 0.
    pub(super) async fn addresses(&self, index: u32) -> Result<Vec<(u32, Ipv4Net)>> {
        let mut get = AddressMessage::default();
        get.header.family = AddressFamily::Inet;
        get.header.index = index;
        let what = "list addresses";
        let answer = self.dump(what, RouteNetlinkMessage::GetAddress(get)).await?;
        let found = unless(&[Errno::ENODEV], what, answer)?.into_iter().flatten();
        Ok(found
            .filter_map(|object| if let Object::Address(index, net) = object { Some((index, net)) } else { None })
            .collect())
    }
}

pub fn as_link(object: Object) -> Option<LinkObject> {
    if let Object::Link(link) = object { Some(link) } else { None }
}

fn as_route(object: Object) -> Option<RouteObject> {
    if let Object::Route(route) = object { Some(route) } else { None }
}

/// Index of the port in an answer to `get_port`.
fn as_port(object: Object) -> Option<u32> {
    if let Object::Port { index, .. } = object { Some(index) } else { None }
}

/// Whether somebody set the MAC of an interface, as opposed to the kernel having drawn it at random:
/// addr_assign_type 3, NET_ADDR_SET (linux/netdevice.h), which only sysfs tells. `None` where the sysfs that
/// is mounted shows another network namespace, so that nobody can tell.
pub fn mac_was_set(link: &Link) -> Option<bool> {
    let read = |file: &str| std::fs::read_to_string(format!("/sys/class/net/{}/{file}", link.name)).ok();
    if read("ifindex")?.trim() != link.index.to_string() || read("address")?.trim() != crate::addr::show(link.mac) {
        return None;
    }
    Some(read("addr_assign_type")?.trim() == "3")
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
