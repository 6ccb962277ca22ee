//! OSPF's neighbours, interfaces and what this host announces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::Question;
use crate::config::Uplink;

pub const NEIGHBOURS: Question<Neighbours> = Question::json("show ip ospf neighbor json");
pub const INTERFACES: Question<Interfaces> = Question::json("show ip ospf interface json");
pub const LSAS: Question<Lsas> = Question::json("show ip ospf database external self-originate json");

/// Age of an LSA that is being withdrawn (RFC 2328, MaxAge), in seconds.
const MAX_AGE: u32 = 3600;

/// The outer key came with FRR 4.0 (FRRouting/frr#1723).
#[derive(Deserialize)]
#[serde(untagged)]
enum Keyed<T> {
    WithKey {
        #[serde(alias = "neighbors")]
        interfaces: BTreeMap<String, T>,
    },
    Without(BTreeMap<String, T>),
}

impl<T> Keyed<T> {
    fn inside(&self) -> &BTreeMap<String, T> {
        let (Self::WithKey { interfaces: inside } | Self::Without(inside)) = self;
        inside
    }
}

/// By router-id; one router can be a neighbour on several interfaces.
#[derive(Deserialize)]
pub struct Neighbours(Keyed<Vec<Neighbour>>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Neighbour {
    /// `eth0:10.47.175.10`: the interface and this host's address on it.
    iface_name: String,
    iface_address: Option<String>,
    /// `ifaceAddress` before 8.3 (FRRouting/frr#10837); gone in 9.0.
    address: Option<String>,
    /// `Full/DR`, `Full/-`, `ExStart/-`.
    nbr_state: Option<String>,
    /// `nbrState` before 8.3; gone in 9.0.
    state: Option<String>,
}

impl Neighbours {
    /// FRR's word for how far the uplink's peer has come, without its role: `Full`, `ExStart`; `none` where the peer is
    /// silent, whoever else is heard on the interface.
    pub fn state(&self, uplink: &Uplink) -> &str {
        let peer = uplink.peer.to_string();
        let is_peer = |neighbour: &&Neighbour| {
            let address = neighbour.iface_address.as_ref().or(neighbour.address.as_ref());
            neighbour.iface_name.split(':').next() == Some(&uplink.name) && address == Some(&peer)
        };
        let found = self.0.inside().values().flatten().find(is_peer);
        let state = found.and_then(|neighbour| neighbour.nbr_state.as_deref().or(neighbour.state.as_deref()));
        state.and_then(|state| state.split('/').next()).unwrap_or("none")
    }
}

/// By name.
#[derive(Deserialize)]
pub struct Interfaces(Keyed<Interface>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    pub ospf_enabled: bool,
    /// FRR prints the key only where it is so.
    #[serde(default, rename = "timerPassiveIface")]
    pub is_passive: bool,
}

impl Interfaces {
    /// The uplink's interface, if OSPF runs on it.
    pub fn of(&self, uplink: &Uplink) -> Option<&Interface> {
        self.0.inside().get(&uplink.name).filter(|interface| interface.ospf_enabled)
    }

    /// Whether the interface is passive: OSPF announces it as a stub, and no router's SPF uses the link.
    pub fn is_drained(&self, uplink: &Uplink) -> bool {
        self.of(uplink).is_some_and(|interface| interface.is_passive)
    }
}

/// This host's external LSAs: a map by address in 8.4, a list from 9.0 on (f54232d0b2), `{}` without `router ospf`.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Lsas {
    List {
        #[serde(rename = "asExternalLinkStates")]
        lsas: Vec<Lsa>,
    },
    Map {
        #[serde(rename = "AS External Link States")]
        lsas: BTreeMap<String, Lsa>,
    },
    None(Nothing),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lsa {
    lsa_age: u32,
    link_state_id: Ipv4Addr,
    network_mask: u8,
}

impl Lsas {
    /// The single addresses that are announced, without those being withdrawn.
    pub fn addresses(&self) -> BTreeSet<Ipv4Addr> {
        let lsas: Vec<&Lsa> = match self {
            Self::List { lsas } => lsas.iter().collect(),
            Self::Map { lsas } => lsas.values().collect(),
            Self::None(_) => Vec::new(),
        };
        let is_announced = |lsa: &&Lsa| lsa.network_mask == 32 && lsa.lsa_age < MAX_AGE;
        lsas.into_iter().filter(is_announced).map(|lsa| lsa.link_state_id).collect()
    }
}
