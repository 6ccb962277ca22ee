//! Reading the kernel: by name and by exact question for one tap, by dumps for the whole host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Kernel, absent, errno, message};
use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::plan::HostRoute;
use crate::snapshot::{Link, Route, Snapshot};

impl Kernel {
    /// The managed bridges and the interface named `tap`: a snapshot without routes.
    ///
    /// # Errors
    /// The kernel does not answer. That something does not exist is not an error.
    pub async fn look(&self, config: &Config, tap: Option<&str>) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        for wanted in &config.bridges {
            if let Some(found) = self.link_named(&wanted.name).await? {
                let link = message::link_of(&found);
                if link.kind == "bridge" {
                    let addresses = self.addresses(link.index).await?.into_iter().map(|(_, net)| net).collect();
                    snapshot.bridges.push(message::bridge_of(&found, link, addresses));
                }
            }
        }
        if let Some(tap) = tap {
            snapshot.links.extend(self.link_named(tap).await?.as_ref().map(message::link_of));
        }
        let master = snapshot.links.first().and_then(|link| link.master);
        if let Some(index) = master.filter(|index| snapshot.bridge_at(Some(*index)).is_none())
            && let Some(foreign) = self.link_at(index).await?
        {
            snapshot.names.insert(index.to_string(), foreign.name);
        }
        Ok(snapshot)
    }

    /// Adds to a snapshot of `look` what there is of one guest, by questions whose cost does not grow with
    /// the host: its tap MAC in the bridges' tables, and the routes to its address.
    pub async fn look_for(&self, config: &Config, guest: GuestMac, snapshot: &mut Snapshot) -> Result<()> {
        for bridge in snapshot.bridges.clone() {
            if let Some(port) = self.port_of(bridge.index, guest.tap_mac()).await?
                && snapshot.links.iter().all(|link| link.index != port)
                && let Some(first) = self.link_at(port).await?
            {
                snapshot.links.insert(0, first);
            }
            let settled = HostRoute::settled(config, guest.address(), &bridge);
            let claim = HostRoute { metric: CLAIM_METRIC, ..settled.clone() };
            for route in [settled, claim] {
                if self.has(&route).await? {
                    snapshot.routes.push(Route {
                        address: route.address,
                        protocol: route.protocol,
                        metric: route.metric,
                        dev: Some(route.bridge_index),
                        gateways: Vec::new(),
                    });
                }
            }
        }
        if let Some(best) = self.route_to(guest.address()).await? {
            if best.header.kind == RouteType::Local {
                snapshot.own_addresses.push(guest.address());
            }
            let best = message::route_of(&best).filter(|best| !snapshot.routes.contains(best));
            snapshot.routes.extend(best);
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
        let routes = self.dump("list routes", RouteNetlinkMessage::GetRoute(get)).await?;
        let addresses = self.addresses(0).await?;
        let links = self.dump("list interfaces", RouteNetlinkMessage::GetLink(message::get_link())).await?;

        let mut snapshot =
            Snapshot { own_addresses: addresses.iter().map(|(_, net)| net.addr()).collect(), ..Snapshot::default() };
        for answer in &routes {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                snapshot.routes.extend(message::route_of(route));
            }
        }
        for answer in &links {
            let RouteNetlinkMessage::NewLink(found) = answer else { continue };
            let link = message::link_of(found);
            if link.kind == "bridge" && config.bridge(&link.name).is_some() {
                let own = addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, net)| *net).collect();
                snapshot.bridges.push(message::bridge_of(found, link, own));
            } else if link.is_tap() {
                snapshot.links.push(link);
            }
        }
        let bridges: BTreeSet<_> = snapshot.bridges.iter().map(|bridge| Some(bridge.index)).collect();
        snapshot.links.retain(|link| bridges.contains(&link.master));
        snapshot.links.sort_by_key(|link| link.index);
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

    /// The port that a bridge's table names for `mac` (`bridge fdb get MAC br BR`).
    pub(super) async fn port_of(&self, bridge: u32, mac: MacAddr6) -> Result<Option<u32>> {
        let mut get = NeighbourMessage::default();
        get.header.family = AddressFamily::Bridge;
        get.header.kind = RouteType::Unspec;
        get.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.as_bytes().to_vec()));
        get.attributes.push(NeighbourAttribute::Controller(bridge));
        let answer = self.ask("look up a MAC in the bridge's table", RouteNetlinkMessage::GetNeighbour(get)).await;
        Ok(match absent(answer, &[Errno::ENOENT, Errno::ENODEV])?.flatten() {
            Some(RouteNetlinkMessage::NewNeighbour(entry)) => Some(entry.header.ifindex),
            _ => None,
        })
    }

    pub(super) async fn link_at(&self, index: u32) -> Result<Option<Link>> {
        let mut get = message::get_link();
        get.header.index = index;
        Ok(self.one_link(&format!("look up interface {index}"), get).await?.as_ref().map(message::link_of))
    }

    async fn link_named(&self, name: &str) -> Result<Option<LinkMessage>> {
        let mut get = message::get_link();
        get.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(&format!("look up interface {name}"), get).await
    }

    async fn one_link(&self, what: &str, get: LinkMessage) -> Result<Option<LinkMessage>> {
        let answer = self.ask(what, RouteNetlinkMessage::GetLink(get)).await;
        Ok(match absent(answer, &[Errno::ENODEV])?.flatten() {
            Some(RouteNetlinkMessage::NewLink(link)) => Some(link),
            _ => None,
        })
    }

    /// The route that the kernel takes to `address` (`ip route get fibmatch`).
    async fn route_to(&self, address: Ipv4Addr) -> Result<Option<RouteMessage>> {
        let mut get = RouteMessage::default();
        get.header.address_family = AddressFamily::Inet;
        get.header.destination_prefix_length = 32;
        get.header.flags = RouteFlags::FibMatch;
        get.header.kind = RouteType::Unspec;
        get.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(address)));
        let answer = self.ask(&format!("look up the route to {address}"), RouteNetlinkMessage::GetRoute(get)).await;
        // No route, and routes of the types unreachable, prohibit and blackhole (fib_props).
        let nowhere = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];
        Ok(match absent(answer, &nowhere)?.flatten() {
            Some(RouteNetlinkMessage::NewRoute(route)) => Some(route),
            _ => None,
        })
    }

    /// Whether exactly this route is in the table. A "new route" request without NLM_F_CREATE changes nothing:
    /// it ends with EEXIST on an exact match and with ENOENT else (fib_table_insert), at any size of the table.
    pub(super) async fn has(&self, route: &HostRoute) -> Result<bool> {
        let probe = RouteNetlinkMessage::NewRoute(message::route(route));
        match self.change(&format!("look up {route}"), probe, 0).await {
            Err(error) if errno(&error) == Some(Errno::EEXIST) => Ok(true),
            // A bridge that is down, or gone by now, has no routes.
            Err(error) if matches!(errno(&error), Some(Errno::ENOENT | Errno::ENETDOWN | Errno::ENODEV)) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => bail!("the kernel took a look-up of {route} for a change"),
        }
    }

    /// IPv4 addresses with the index of their interface: of the interface `index`, or of all with 0.
    async fn addresses(&self, index: u32) -> Result<Vec<(u32, Ipv4Net)>> {
        let mut get = AddressMessage::default();
        get.header.family = AddressFamily::Inet;
        get.header.index = index;
        let answer = self.dump("list addresses", RouteNetlinkMessage::GetAddress(get)).await;
        let mut found = Vec::new();
        for answer in absent(answer, &[Errno::ENODEV])?.into_iter().flatten() {
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
