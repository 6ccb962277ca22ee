//! The host itself: bridges, uplinks, the loopback. Looks at them by name and makes the changes of `host::plan`.

use anyhow::{Context, Result};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

use super::decode::LinkObject;
use super::read::{as_link, mac_was_set};
use super::{Kernel, encode, proc_sys};
use crate::guest::link::Link;
use crate::host::{Change, Interface};

impl Kernel {
    /// The interfaces of these names that exist, with their indices.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn look_at_host(&self, names: &[&str]) -> Result<Vec<(u32, Interface)>> {
        let questions = names.iter().map(|name| encode::get_link_named(name)).collect();
        let mut found = Vec::new();
        for LinkObject { link, stp, carrier, .. } in self.links(questions).await?.into_iter().flatten() {
            let addresses = self.addresses(link.index).await?.into_iter().map(|(_, net)| net).collect();
            // Where the mounted sysfs shows another namespace nobody can tell: taken for set.
            let pinned = mac_was_set(&link) != Some(false);
            let interface = Interface {
                name: link.name,
                kind: link.kind,
                mac: link.mac,
                pinned,
                stp,
                mtu: link.mtu,
                up: link.up,
                carrier,
                addresses,
            };
            found.push((link.index, interface));
        }
        Ok(found)
    }

    /// How many ports a bridge has, of whatever kind.
    pub async fn ports_of(&self, bridge: u32) -> Result<usize> {
        let mut get = LinkMessage::default();
        get.header.interface_family = AddressFamily::Bridge;
        let all = self.list("list the bridges' ports", RouteNetlinkMessage::GetLink(get)).await?;
        // A bridge is in this list too, as its own master's port.
        let is_port = |link: &Link| link.master == Some(bridge) && link.index != bridge;
        Ok(all.into_iter().filter_map(as_link).filter(|found| is_port(&found.link)).count())
    }

    /// Taps that are nobody's port.
    pub async fn taps_alone(&self) -> Result<Vec<Link>> {
        let all = self.list("list interfaces", RouteNetlinkMessage::GetLink(encode::get_link())).await?;
        let links = all.into_iter().filter_map(as_link).map(|found| found.link);
        Ok(links.filter(|link| link.is_tap() && link.master.is_none()).collect())
    }

    /// Makes one change of the host itself. Nothing takes it back.
    ///
    /// # Errors
    /// The kernel refuses it, or its interface does not exist.
    pub async fn set_up(&self, change: &Change) -> Result<()> {
        match change {
            Change::MakeBridge { bridge, mac } => {
                let mut new = LinkMessage::default();
                new.attributes = vec![
                    LinkAttribute::IfName(bridge.clone()),
                    LinkAttribute::Address(mac.as_bytes().to_vec()),
                    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
                ];
                let new = RouteNetlinkMessage::NewLink(new);
                Ok(self.change("make the bridge", new, NLM_F_CREATE | NLM_F_EXCL).await??)
            }
            Change::SetMac { bridge, mac } => {
                self.set_named(bridge, vec![LinkAttribute::Address(mac.as_bytes().to_vec())]).await
            }
            Change::StopStp { bridge } => {
                let off = InfoData::Bridge(vec![InfoBridge::StpState(BridgeStpState::Disabled)]);
                let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(off)];
                self.set_named(bridge, vec![LinkAttribute::LinkInfo(info)]).await
            }
            Change::SetMtu { bridge, mtu } => self.set_named(bridge, vec![LinkAttribute::Mtu(*mtu)]).await,
            Change::Up { interface } => {
                let up = encode::set_link(self.index_of(interface).await?, None, None, Some(true));
                Ok(self.change("set the interface up", RouteNetlinkMessage::SetLink(up), 0).await??)
            }
            Change::AddAddress { interface, address } => {
                let mut new = AddressMessage::default();
                new.header.family = AddressFamily::Inet;
                new.header.prefix_len = address.prefix_len();
                new.header.index = self.index_of(interface).await?;
                // Both, as `ip addr add` does: IFA_LOCAL is the address, IFA_ADDRESS the peer or the same (if_addr.h).
                let address = IpAddr::V4(address.addr());
                new.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
                let new = RouteNetlinkMessage::NewAddress(new);
                Ok(self.change("add the address", new, NLM_F_CREATE | NLM_F_EXCL).await??)
            }
            Change::Sysctl(wanted) => proc_sys::write(wanted),
        }
    }

    async fn set_named(&self, name: &str, attributes: Vec<LinkAttribute>) -> Result<()> {
        let mut set = LinkMessage::default();
        set.attributes = attributes;
        set.header.index = self.index_of(name).await?;
        // "New" without NLM_F_CREATE changes what is there; SETLINK takes no link data (rtnl_setlink).
        Ok(self.change("set the bridge", RouteNetlinkMessage::NewLink(set), 0).await??)
    }

    async fn index_of(&self, name: &str) -> Result<u32> {
        let found = self.links(vec![encode::get_link_named(name)]).await?.into_iter().flatten().next();
        found.map(|found| found.link.index).with_context(|| format!("there is no interface {name}"))
    }
}
