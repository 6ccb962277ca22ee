//! Permanent entries of the kernel's neighbour table (ARP) on the managed bridges.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Result;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Kernel;
use super::decode::Object;
use super::read::NOWHERE;
use crate::guest::link::Bridge;
use crate::guest::neighbour::{Entry, Neighbour};

/// Adds it, or takes the place of what the kernel has learned.
pub fn set(neighbour: &Neighbour) -> RouteNetlinkMessage {
    let mut new = entry(neighbour.address, neighbour.bridge.index);
    new.header.state = NeighbourState::Permanent;
    new.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.as_bytes().to_vec()));
    new.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::from(neighbour.protocol)));
    RouteNetlinkMessage::NewNeighbour(new)
}

pub fn delete(neighbour: &Neighbour) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelNeighbour(entry(neighbour.address, neighbour.bridge.index))
}

/// Asks for the entry of an address (`ip neigh get ADDRESS dev BRIDGE`).
pub fn get(address: Ipv4Addr, bridge: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(entry(address, bridge))
}

fn entry(address: Ipv4Addr, bridge: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = bridge;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    message
}

impl Kernel {
    /// Adds the permanent entries of these addresses on each managed bridge.
    pub(super) fn neighbours_of(&self, addresses: &BTreeSet<Ipv4Addr>, bridges: &[Bridge]) -> Result<Vec<Entry>> {
        let places = bridges.iter().flat_map(|bridge| addresses.iter().map(|address| (*address, bridge.index)));
        let question = |(address, bridge): &(Ipv4Addr, u32)| get(*address, *bridge);
        const WHAT: &str = "look up the guests' neighbour entries";
        let answers = self.request(WHAT, &places.collect::<Vec<_>>(), question, NOWHERE)?;
        Ok(answers.into_iter().flatten().filter_map(as_entry).collect())
    }

    /// The permanent entries of every interface.
    pub(super) fn neighbours(&self) -> Result<Vec<Entry>> {
        let mut get = NeighbourMessage::default();
        get.header.family = AddressFamily::Inet;
        let all = self.list("list neighbours", RouteNetlinkMessage::GetNeighbour(get))?;
        Ok(all.into_iter().filter_map(as_entry).collect())
    }
}

fn as_entry(object: Object) -> Option<Entry> {
    if let Object::Neighbour(entry) = object { Some(entry) } else { None }
}
