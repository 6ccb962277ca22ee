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

use super::{Kernel, message, unless};
use crate::addr::GuestMac;
use crate::arrival;
use crate::config::{CLAIM_METRIC, Config};
use crate::plan::HostRoute;
use crate::snapshot::{Link, Snapshot};

/// Refusals that mean "there is none": no such interface, no such entry in a bridge's table, no route, and
/// the routes of the types unreachable, prohibit and blackhole (fib_props).
const NOWHERE: &[Errno] =
    &[Errno::ENODEV, Errno::ENOENT, Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];

impl Kernel {
    /// The managed bridges and the interface named `tap`: a snapshot without routes.
    ///
    /// # Errors
    /// The kernel does not answer. That something does not exist is not an error.
    pub async fn look(&self, config: &Config, tap: Option<&str>) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let names = config.bridges.iter().map(|bridge| bridge.name.as_str()).chain(tap);
        let mut found = self.links(names.map(message::get_link_named).collect()).await?;
        if tap.is_some() {
            snapshot.links.extend(found.pop().flatten().as_ref().map(message::link_of));
        }
        snapshot.bridges.extend(found.iter().flatten().filter_map(|link| message::bridge_of(link, Vec::new())));
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

    /// Adds to a snapshot of `look` what there is of one guest, by questions whose cost does not grow with
    /// the host: the route to its address, and its tap MAC in the bridges' tables.
    pub async fn look_for(&self, config: &Config, guest: GuestMac, snapshot: &mut Snapshot) -> Result<()> {
        let mut questions = vec![message::get_route(guest.address())];
        questions.extend(snapshot.bridges.iter().map(|bridge| message::get_port(bridge.index, guest.tap_mac())));
        let mut answers = self.ask("look up the guest", questions, NOWHERE).await?.into_iter();
        let best = answers.next().flatten().and_then(message::as_route);
        if best.as_ref().is_some_and(|best| best.header.kind == RouteType::Local) {
            snapshot.own_addresses.push(guest.address());
        }
        let best = best.as_ref().and_then(message::route_of).filter(|best| best.address == guest.address());
        snapshot.routes.extend(best.clone());
        for port in answers.flatten().filter_map(message::as_port) {
            if snapshot.links.iter().all(|link| link.index != port)
                && let Some(first) = self.link_at(port).await?
            {
                snapshot.links.insert(0, first);
            }
        }
        for bridge in &snapshot.bridges {
            // Only a /32 with a better metric can hide one of ours.
            let settled = HostRoute::settled(config, guest.address(), bridge);
            for route in [settled, HostRoute::claim(config, guest.address(), bridge)] {
                if best.as_ref().is_some_and(|best| best.metric < route.metric) && self.has(&route).await? {
                    snapshot.routes.push(route.into());
                }
            }
        }
        Ok(())
    }

    /// The whole host: all taps on the managed bridges, all owned routes, and with `winners` the route that
    /// the kernel takes to each guest where it is not ours. Routes are read before links: the other way round
    /// a tap that comes up in between would have a route and no link.
    pub async fn look_at_all(&self, config: &Config, winners: bool) -> Result<Snapshot> {
        let mut get = RouteMessage::default();
        get.header.address_family = AddressFamily::Inet;
        get.header.table = RouteHeader::RT_TABLE_MAIN;
        get.header.protocol = RouteProtocol::from(config.protocol);
        get.header.kind = RouteType::Unspec;
        let routes = self.list("list routes", RouteNetlinkMessage::GetRoute(get)).await?;
        let addresses = self.addresses(0).await?;
        let links = self.list("list interfaces", RouteNetlinkMessage::GetLink(message::get_link())).await?;

        let mut snapshot =
            Snapshot { own_addresses: addresses.iter().map(|(_, net)| net.addr()).collect(), ..Snapshot::default() };
        for route in routes.into_iter().filter_map(message::as_route) {
            snapshot.routes.extend(message::route_of(&route));
        }
        for found in links.into_iter().filter_map(message::as_link) {
            let link = message::link_of(&found);
            if link.is_tap() {
                snapshot.links.push(link);
            } else if config.bridge(&link.name).is_some() {
                let own = addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, net)| *net).collect();
                snapshot.bridges.extend(message::bridge_of(&found, own));
            }
        }
        let bridges: BTreeSet<_> = snapshot.bridges.iter().map(|bridge| Some(bridge.index)).collect();
        snapshot.links.retain(|link| bridges.contains(&link.master));
        snapshot.links.sort_by_key(|link| link.index);
        let claimed = snapshot.owned_routes(config.protocol).filter(|route| route.metric == CLAIM_METRIC);
        snapshot.arrivals = claimed.filter_map(|route| arrival::live(route.address)).collect();
        if winners {
            let guests: Vec<_> = snapshot.links.iter().filter_map(|link| link.guest(config.mac_prefix)).collect();
            for guest in guests {
                let best = self.route_to(guest.address()).await?.and_then(|best| message::route_of(&best));
                let best = best.filter(|best| best.protocol != config.protocol && !snapshot.routes.contains(best));
                snapshot.routes.extend(best);
            }
        }
        Ok(snapshot)
    }

    /// The port that a bridge's table names for `mac`.
    pub async fn port_of(&self, bridge: u32, mac: MacAddr6) -> Result<Option<u32>> {
        let question = vec![message::get_port(bridge, mac)];
        let answers = self.ask("look up a MAC in the bridge's table", question, NOWHERE).await?;
        Ok(answers.into_iter().flatten().find_map(message::as_port))
    }

    pub async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        let mut get = message::get_link();
        get.header.index = index;
        Ok(self.links(vec![get]).await?.into_iter().flatten().next().as_ref().map(message::link_of))
    }

    pub(super) async fn links(&self, questions: Vec<LinkMessage>) -> Result<Vec<Option<LinkMessage>>> {
        let questions = questions.into_iter().map(RouteNetlinkMessage::GetLink).collect();
        let answers = self.ask("look up interfaces", questions, NOWHERE).await?;
        Ok(answers.into_iter().map(|answer| answer.and_then(message::as_link)).collect())
    }

    async fn route_to(&self, address: Ipv4Addr) -> Result<Option<RouteMessage>> {
        let answers = self.ask("look up a route", vec![message::get_route(address)], NOWHERE).await?;
        Ok(answers.into_iter().flatten().find_map(message::as_route))
    }

    /// Whether exactly this route is in the table. A "new route" request without NLM_F_CREATE changes nothing:
    /// it ends with EEXIST on an exact match and with ENOENT else (fib_table_insert), at any size of the table.
    pub(super) async fn has(&self, route: &HostRoute) -> Result<bool> {
        let what = format!("look up {route}");
        let probe = RouteNetlinkMessage::NewRoute(message::route(route));
        match self.change(&what, probe, 0).await? {
            Err(denied) if denied.errno == Errno::EEXIST => Ok(true),
            // A bridge that is down, or gone by now, has no routes.
            Err(denied) if matches!(denied.errno, Errno::ENOENT | Errno::ENETDOWN | Errno::ENODEV) => Ok(false),
            Err(denied) => Err(anyhow::Error::new(denied).context(what)),
            Ok(()) => bail!("{what}: the kernel took it for a change"),
        }
    }

    async fn list(&self, what: &str, get: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        Ok(unless(&[], what, self.dump(what, get).await?)?.unwrap_or_default())
    }

    /// IPv4 addresses with the index of their interface: of the interface `index`, or of all with 0.
    pub(super) async fn addresses(&self, index: u32) -> Result<Vec<(u32, Ipv4Net)>> {
        let mut get = AddressMessage::default();
        get.header.family = AddressFamily::Inet;
        get.header.index = index;
        let what = "list addresses";
        let answer = self.dump(what, RouteNetlinkMessage::GetAddress(get)).await?;
        let mut found = Vec::new();
        for answer in unless(&[Errno::ENODEV], what, answer)?.into_iter().flatten() {
            if let RouteNetlinkMessage::NewAddress(address) = answer {
                found.extend(message::net_of(&address).map(|net| (address.header.index, net)));
            }
        }
        Ok(found)
    }
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
