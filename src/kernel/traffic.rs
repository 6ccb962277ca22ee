//! What an uplink carries.

use std::ops::RangeInclusive;

use anyhow::Result;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::RouteAttribute;

use super::decode::Object;
use super::{Kernel, encode};

/// rtm_protocols of the routes that zebra's daemons learned (rt_netlink.h). No drain moves a static route, nor one that
/// a person or DHCP added.
const LEARNED: RangeInclusive<u8> = 186..=198;
const RTPROT_ZSTATIC: u8 = 196;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Routes of the main table over the interface that a routing protocol learned.
    pub routes: usize,
    /// Packets received since it came up.
    pub received: u64,
}

impl Kernel {
    /// The traffic over an interface; none if it does not exist.
    pub fn traffic_over(&self, name: &str) -> Result<Traffic> {
        // `encode::get_link_named` leaves out the counters.
        let get = |name: &&str| {
            let mut get = LinkMessage::default();
            get.attributes.push(LinkAttribute::IfName((*name).to_owned()));
            get
        };
        let Some(found) = self.links(&[name], get)?.into_iter().flatten().next() else {
            return Ok(Traffic::default());
        };
        let mut get = encode::list_routes();
        get.attributes.push(RouteAttribute::Oif(found.link.index));
        let routes = self.list("list the routes over an uplink", RouteNetlinkMessage::GetRoute(get))?;
        let is_learned = |object: &&Object| match object {
            Object::Route(route) => LEARNED.contains(&route.protocol) && route.protocol != RTPROT_ZSTATIC,
            _ => false,
        };
        Ok(Traffic { routes: routes.iter().filter(is_learned).count(), received: found.received })
    }
}
