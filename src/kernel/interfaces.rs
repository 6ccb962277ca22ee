//! Bridges, uplinks and the loopback: looks at them by name, and makes the changes of `host::plan`.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::decode::LinkObject;
use super::read::{as_link, mac_was_set};
use super::{Kernel, encode, proc_sys, unless};
use crate::guest::link::Link;
use crate::host::{Change, Interface};

impl Kernel {
    /// The interfaces of these names that exist, with their indices.
    pub fn look_at_host(&self, names: &[&str]) -> Result<Vec<(u32, Interface)>> {
        let mut found = Vec::new();
        for LinkObject { link, stp, .. } in
            self.links(names, |name| encode::get_link_named(name))?.into_iter().flatten()
        {
            let addresses = self.addresses(link.index)?.into_iter().map(|(_, net)| net).collect();
            let ports = if link.kind == "bridge" { self.ports_of(link.index)? } else { Vec::new() };
            let other_ports = ports.iter().filter(|port| !port.is_tap()).map(Link::other).collect();
            let master = self.other_at(link.master)?;
            // If the mounted sysfs shows another namespace: taken for set.
            let pinned = mac_was_set(&link) != Some(false);
            let Link { name, index, kind, mac, mtu, up, .. } = link;
            let carrier = up && link.carrier;
            let interface =
                Interface { name, kind, mac, pinned, stp, mtu, up, carrier, addresses, master, other_ports };
            found.push((index, interface));
        }
        Ok(found)
    }

    /// A bridge's ports, of whatever kind.
    pub fn ports_of(&self, bridge: u32) -> Result<Vec<Link>> {
        let mut get = encode::get_link();
        get.attributes.push(LinkAttribute::Controller(bridge));
        let ports = self.list("list the bridge's ports", RouteNetlinkMessage::GetLink(get))?;
        let links = ports.into_iter().filter_map(as_link).map(|found| found.link);
        Ok(links.filter(|link| link.master == Some(bridge)).collect())
    }

    /// Taps that are not a port of any bridge; an error if interfaces come and go during each of so many tries.
    pub fn taps_alone(&self, tries: u32) -> Result<Vec<Link>> {
        let what = "list interfaces";
        let all = self.dump_within(tries, what, RouteNetlinkMessage::GetLink(encode::get_link()))?;
        let links = unless(&[], what, all)?.unwrap_or_default().into_iter().filter_map(as_link).map(|found| found.link);
        Ok(links.filter(|link| link.is_tap() && link.master.is_none()).collect())
    }

    /// Makes one change, which nothing takes back.
    pub fn set_up(&self, change: &Change) -> Result<()> {
        match change {
            Change::MakeBridge(name, mac) => {
                let mut new = LinkMessage::default();
                new.attributes = vec![
                    LinkAttribute::IfName(name.clone()),
                    LinkAttribute::Address(mac.as_bytes().to_vec()),
                    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
                ];
                let new = RouteNetlinkMessage::NewLink(new);
                Ok(self.change("make the bridge", new, NLM_F_CREATE | NLM_F_EXCL)??)
            }
            Change::SetMac(name, mac) => self.set(name, LinkAttribute::Address(mac.as_bytes().to_vec())),
            Change::StopStp(name) => {
                let off = InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)]);
                let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(off)];
                self.set(name, LinkAttribute::LinkInfo(info))
            }
            Change::SetMtu(name, mtu) => self.set(name, LinkAttribute::Mtu(*mtu)),
            Change::Up(name) => {
                let up = encode::set_link(self.index_of(name)?, None, None, Some(true));
                Ok(self.change("set the interface up", RouteNetlinkMessage::SetLink(up), 0)??)
            }
            Change::AddAddress(name, address) => {
                let new = RouteNetlinkMessage::NewAddress(message_of(self.index_of(name)?, *address));
                Ok(self.change("add the address", new, NLM_F_CREATE | NLM_F_EXCL)??)
            }
            Change::DelAddress(name, address) => {
                let index = self.index_of(name)?;
                // The address that was to take its place may have failed.
                let has_others = self.addresses(index)?.iter().any(|(_, net)| net != address);
                ensure!(has_others, "it is the last address of {name}, without which the kernel deletes its routes");
                let del = RouteNetlinkMessage::DelAddress(message_of(index, *address));
                Ok(self.change("delete the address", del, 0)??)
            }
            Change::Sysctl(wanted) => proc_sys::write(wanted),
        }
    }

    fn set(&self, name: &str, attribute: LinkAttribute) -> Result<()> {
        let mut set = LinkMessage::default();
        set.attributes.push(attribute);
        set.header.index = self.index_of(name)?;
        // "New" without NLM_F_CREATE changes what is there; SETLINK takes no link data (rtnl_setlink).
        Ok(self.change("set the bridge", RouteNetlinkMessage::NewLink(set), 0)??)
    }

    fn index_of(&self, name: &str) -> Result<u32> {
        let found = self.links(&[name], |name| encode::get_link_named(name))?.into_iter().flatten().next();
        found.map(|found| found.link.index).with_context(|| format!("there is no interface {name}"))
    }
}

/// An interface's address. Both attributes, as `ip addr add` does: IFA_LOCAL is the address, IFA_ADDRESS the peer or the
/// same (if_addr.h).
fn message_of(index: u32, net: Ipv4Net) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = net.prefix_len();
    message.header.index = index;
    let address = IpAddr::V4(net.addr());
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}
