//! A guest's entry in the kernel's neighbour table. The address is the MAC, so no ARP reply knows better.
//!
//! A permanent one does not count for gc_thresh3 (neigh_alloc), which is for the whole machine and 1,024 by default: with
//! 2,000 guests that are spoken to once a second half of the packets are lost without it, and while a guest sends to unused
//! addresses of a /16, each new guest's first packets (measured).

use std::fmt;
use std::net::Ipv4Addr;

use macaddr::MacAddr6;
use serde::Deserialize;

use super::link::{Bridge, Device};
use crate::addr::{self, GuestMac};
use crate::config::Config;

/// A permanent entry as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub address: Ipv4Addr,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// Index of its interface.
    pub dev: u32,
    /// NDA_PROTOCOL: by it tap32 knows its own. 0 if who added the entry named none.
    #[serde(default)]
    pub protocol: u8,
}

/// The entry that a guest behind a bridge should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub address: Ipv4Addr,
    pub(crate) mac: MacAddr6,
    pub(crate) bridge: Device,
    pub protocol: u8,
}

impl Neighbour {
    pub fn of(config: &Config, guest: GuestMac, bridge: &Bridge) -> Self {
        Self { address: guest.address(), mac: guest.mac(), bridge: bridge.device(), protocol: config.protocol }
    }
}

/// As `ip neigh replace` takes it.
impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { address, mac, bridge, protocol } = self;
        write!(f, "{address} lladdr {} dev {bridge} nud permanent protocol {protocol}", addr::show(*mac))
    }
}
