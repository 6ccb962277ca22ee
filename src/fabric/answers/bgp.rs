//! BGP's neighbours and what FRR announces to each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Question;
use crate::config::Uplink;
use crate::fabric::render::bgp::DRAIN;

pub const NEIGHBOURS: Question<Neighbours> = Question::json("show bgp neighbors json");

/// What is announced to one neighbour.
pub fn advertised(peer: Ipv4Addr) -> Question<Advertised> {
    Question::about(format!("show bgp ipv4 unicast neighbors {peer} advertised-routes json"))
}

/// By address; `{}` without `router bgp`.
#[derive(Deserialize)]
pub struct Neighbours(BTreeMap<String, Neighbour>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Neighbour {
    /// `Established`, `Active`, `Idle`.
    #[serde(rename = "bgpState")]
    pub state: String,
    /// FRR prints the key only where it is so.
    #[serde(default, rename = "adminShutDown")]
    pub is_shut_down: bool,
    #[serde(default)]
    address_family_info: Families,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Families {
    ipv4_unicast: Policy,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Policy {
    #[serde(rename = "routeMapForIncomingAdvertisements")]
    inbound: Option<String>,
    #[serde(rename = "routeMapForOutgoingAdvertisements")]
    outbound: Option<String>,
}

impl Neighbour {
    /// The route-maps in and out.
    pub fn maps(&self) -> [Option<&str>; 2] {
        let Policy { inbound, outbound } = &self.address_family_info.ipv4_unicast;
        [inbound.as_deref(), outbound.as_deref()]
    }
}

impl Neighbours {
    pub fn of(&self, uplink: &Uplink) -> Option<&Neighbour> {
        self.0.get(&uplink.peer.to_string())
    }

    /// FRR's word for the session's state; `none` where bgpd has no such neighbour.
    pub fn state(&self, uplink: &Uplink) -> &str {
        self.of(uplink).map_or("none", |neighbour| neighbour.state.as_str())
    }

    /// Whether the neighbour is shut down or has a route-map of a drain; one of the two, if the drain was interrupted.
    pub fn is_drained(&self, uplink: &Uplink) -> bool {
        let has_map = |found: &Neighbour| found.maps().into_iter().flatten().any(|map| DRAIN.contains(&map));
        self.of(uplink).is_some_and(|found| found.is_shut_down || has_map(found))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Advertised {
    /// By prefix.
    advertised_routes: BTreeMap<String, IgnoredAny>,
}

impl Advertised {
    /// The single addresses that are announced.
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.advertised_routes.keys().filter_map(|prefix| prefix.strip_suffix("/32")?.parse().ok()).collect()
    }
}
