//! Routes to one address, as the kernel has them and as tap32 wants them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::Deserialize;

use super::link::{Bridge, Device};
use crate::config::{CLAIM_METRIC, Config};

/// RT_TABLE_MAIN (linux/rtnetlink.h), which FRR's zebra reads.
pub const MAIN_TABLE: u32 = 254;

fn main_table() -> u32 {
    MAIN_TABLE
}

/// A /32 of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub address: Ipv4Addr,
    /// Not the main one if an `ip rule` leads to another.
    #[serde(default = "main_table")]
    pub table: u32,
    pub protocol: u8,
    pub metric: u32,
    /// Index of the outgoing interface; `None` if there are several.
    pub dev: Option<u32>,
    /// Next hops; empty for a route on link.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

impl Route {
    /// The next hops, for people: one, or several with commas.
    pub fn next_hop(&self) -> String {
        self.gateways.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    /// The words with which `ip route` finds it in its table.
    pub fn in_table(&self) -> String {
        if self.table == MAIN_TABLE { String::new() } else { format!(" table {}", self.table) }
    }
}

/// A guest's /32 through a bridge, on link, in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    pub address: Ipv4Addr,
    pub(crate) bridge: Device,
    pub protocol: u8,
    pub metric: u32,
}

impl HostRoute {
    fn through(bridge: &Bridge, address: Ipv4Addr, protocol: u8, metric: u32) -> Self {
        Self { address, bridge: bridge.device(), protocol, metric }
    }

    pub fn settled(config: &Config, address: Ipv4Addr, bridge: &Bridge) -> Self {
        Self::through(bridge, address, config.protocol, config.settled_metric())
    }

    /// "The guest runs here now": beside the settled route, and before it.
    pub fn claim(config: &Config, address: Ipv4Addr, bridge: &Bridge) -> Self {
        Self::through(bridge, address, config.protocol, CLAIM_METRIC)
    }

    /// An owned route of the kernel.
    pub fn owned(route: &Route, bridge: &Bridge) -> Self {
        Self::through(bridge, route.address, route.protocol, route.metric)
    }

    /// Whether the kernel's `route` is this one.
    pub fn is(&self, route: &Route) -> bool {
        route.address == self.address
            && route.table == MAIN_TABLE
            && route.dev == Some(self.bridge.index)
            && route.protocol == self.protocol
            && route.metric == self.metric
    }
}

impl From<HostRoute> for Route {
    fn from(route: HostRoute) -> Self {
        Self {
            address: route.address,
            table: MAIN_TABLE,
            protocol: route.protocol,
            metric: route.metric,
            dev: Some(route.bridge.index),
            gateways: Vec::new(),
        }
    }
}

impl fmt::Display for HostRoute {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { address, bridge, protocol, metric, .. } = self;
        write!(f, "{address}/32 dev {bridge} proto {protocol} scope link metric {metric}")
    }
}
