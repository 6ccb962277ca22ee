//! Single questions to the kernel. `snapshot` puts them together.

use anyhow::{Result, bail};
use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use nix::errno::Errno;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::{LinkObject, Object, RouteObject};
use super::{Kernel, encode, unless};
use crate::guest::link::{Link, Other};
use crate::guest::route::HostRoute;

/// Refusals that mean "there is none": no such interface, no such entry in a bridge's FDB, no route, and routes of the
/// types unreachable, prohibit and blackhole (fib_props).
pub const NOWHERE: &[Errno] =
    &[Errno::ENODEV, Errno::ENOENT, Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL];

impl Kernel {
    /// The port behind which a bridge has learned `mac`, or whose own it is.
    pub fn port_of(&self, bridge: u32, mac: MacAddr6) -> Result<Option<u32>> {
        let index = |found| if let Object::Port { index, .. } = found { Some(index) } else { None };
        Ok(self.fdb_entry(bridge, mac)?.and_then(index))
    }

    /// The port whose own MAC is `mac`. Any guest without a guard can send frames with another's tap MAC.
    pub fn port_with(&self, bridge: u32, mac: MacAddr6) -> Result<Option<u32>> {
        Ok(self.fdb_entry(bridge, mac)?.and_then(as_own_port))
    }

    fn fdb_entry(&self, bridge: u32, mac: MacAddr6) -> Result<Option<Object>> {
        let question = |mac: &MacAddr6| encode::get_port(bridge, *mac);
        Ok(self.request("look up a MAC in the bridge's FDB", &[mac], question, NOWHERE)?.pop().flatten())
    }

    pub fn link_at(&self, index: u32) -> Result<Option<Link>> {
        Ok(self.links_at(&[index])?.pop())
    }

    /// Those of these interfaces that exist.
    pub fn links_at(&self, indices: &[u32]) -> Result<Vec<Link>> {
        Ok(self
            .links(indices, |index| encode::get_link_at(*index))?
            .into_iter()
            .flatten()
            .map(|found| found.link)
            .collect())
    }

    /// What a bridge is a port of.
    pub(super) fn other_at(&self, index: Option<u32>) -> Result<Option<Other>> {
        let Some(index) = index else { return Ok(None) };
        Ok(self.link_at(index)?.map(|link| link.other()))
    }

    /// The ports of all bridges, without their kinds.
    pub(super) fn ports(&self) -> Result<Vec<Link>> {
        let mut get = LinkMessage::default();
        get.header.interface_family = AddressFamily::Bridge;
        let all = self.list("list the bridges' ports", RouteNetlinkMessage::GetLink(get))?;
        // The list has each bridge too, as its own port.
        let links = all.into_iter().filter_map(as_link).map(|found| found.link);
        Ok(links.filter(|link| link.master != Some(link.index)).collect())
    }

    pub(super) fn links<Q: Sync>(
        &self,
        about: &[Q],
        get: impl Fn(&Q) -> LinkMessage + Sync,
    ) -> Result<Vec<Option<LinkObject>>> {
        let question = |about: &Q| RouteNetlinkMessage::GetLink(get(about));
        let answers = self.request("look up interfaces", about, question, NOWHERE)?;
        Ok(answers.into_iter().map(|answer| answer.and_then(as_link)).collect())
    }

    /// Whether exactly this route exists. A "new route" request without NLM_F_CREATE changes nothing: it ends with
    /// EEXIST on an exact match and else with ENOENT (fib_table_insert), at any size of the table.
    pub(super) fn route_exists(&self, route: &HostRoute) -> Result<bool> {
        let what = format!("look up {route}");
        let probe = RouteNetlinkMessage::NewRoute(encode::route(route));
        match self.change(&what, probe, 0)? {
            Err(denied) if denied.errno == Errno::EEXIST => Ok(true),
            // A bridge that is down or gone has no routes.
            Err(denied) if matches!(denied.errno, Errno::ENOENT | Errno::ENETDOWN | Errno::ENODEV) => Ok(false),
            Err(denied) => Err(anyhow::Error::new(denied).context(what)),
            Ok(()) => bail!("{what}: the kernel changed the route instead"),
        }
    }

    pub(super) fn list(&self, what: &str, get: RouteNetlinkMessage) -> Result<Vec<Object>> {
        // ENOENT: a namespace has no table until its first route.
        Ok(unless(&[Errno::ENOENT], what, self.dump(what, get)?)?.unwrap_or_default())
    }

    /// The IPv4 addresses of the interface `index`, or of all with 0, each with its interface's index.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<(u32, Ipv4Net)>> {
        let mut get = AddressMessage::default();
        get.header.family = AddressFamily::Inet;
        get.header.index = index;
        let what = "list addresses";
        let answer = self.dump(what, RouteNetlinkMessage::GetAddress(get))?;
        let found = unless(&[Errno::ENODEV], what, answer)?.into_iter().flatten();
        let address = |object| if let Object::Address(index, net) = object { Some((index, net)) } else { None };
        Ok(found.filter_map(address).collect())
    }
}

pub fn as_link(object: Object) -> Option<LinkObject> {
    if let Object::Link(link) = object { Some(link) } else { None }
}

pub fn as_route(object: Object) -> Option<RouteObject> {
    if let Object::Route(route) = object { Some(route) } else { None }
}

/// The index of the port in an answer to `get_port`, if the MAC is its own.
pub fn as_own_port(object: Object) -> Option<u32> {
    if let Object::Port { index, own: true, .. } = object { Some(index) } else { None }
}

/// Whether an interface's MAC was set, and not chosen at random by the kernel: addr_assign_type 3, NET_ADDR_SET
/// (linux/netdevice.h), which only sysfs shows. `None` if the mounted sysfs shows another network namespace.
pub fn mac_was_set(link: &Link) -> Option<bool> {
    sysfs_shows(&link.name, link.index, link.mac)
        .then(|| sysfs(&link.name, "addr_assign_type"))?
        .map(|kind| kind == "3")
}

/// Whether the mounted sysfs shows this interface, and not that of another network namespace.
pub(super) fn sysfs_shows(name: &str, index: u32, mac: MacAddr6) -> bool {
    sysfs(name, "ifindex").is_some_and(|shown| shown == index.to_string())
        && sysfs(name, "address").is_some_and(|shown| shown == crate::addr::show(mac))
}

fn sysfs(name: &str, file: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/{file}")).ok()?;
    Some(text.trim().to_owned())
}
