//! What an uplink carries: routes that lead over it, packets that came by it.

use anyhow::Result;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Kernel;
use super::answer::Object;

/// rtm_protocol of what the kernel adds by itself, such as an interface's own subnet.
const RTPROT_KERNEL: u8 = 2;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Routes of the main table over the interface, its own subnets left out.
    pub routes: usize,
    /// Packets received since it came up.
    pub received: u64,
}

impl Kernel {
    /// Nothing over an interface that does not exist.
    pub async fn traffic_over(&self, name: &str) -> Result<Traffic> {
        // With its counters, which the other questions leave out.
        let mut get = LinkMessage::default();
        get.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let Some(found) = self.links(vec![get]).await?.into_iter().flatten().next() else {
            return Ok(Traffic::default());
        };
        let mut get = RouteMessage::default();
        get.header.address_family = AddressFamily::Inet;
        get.header.table = RouteHeader::RT_TABLE_MAIN;
        get.header.kind = RouteType::Unspec;
        get.attributes.push(RouteAttribute::Oif(found.link.index));
        let routes = self.list("list the routes over an uplink", RouteNetlinkMessage::GetRoute(get)).await?;
        let is_learned = |object: &&Object| matches!(object, Object::Route(route) if route.protocol != RTPROT_KERNEL);
        Ok(Traffic { routes: routes.iter().filter(is_learned).count(), received: found.received })
    }
}
