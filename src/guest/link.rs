//! Interfaces as the kernel has them.

use std::fmt::{self, Display};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::Deserialize;

use super::guard::Guard;
use crate::addr::{self, GuestMac, MacPrefix};
use crate::text::quote;

/// An interface as a step needs it: the index for the kernel, the name for people and their shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&quote(&self.name))
    }
}

/// A managed bridge.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub up: bool,
    pub proxy_arp_pvlan: bool,
    #[serde(default, deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// Its FDB has lost the bridge's own MAC, so that no frame to the gateway arrives, and with it those of its ports:
    /// `bridge fdb flush` deletes all.
    #[serde(default)]
    pub flushed: bool,
    /// The bridge's own addresses, host bits kept: `10.0.0.1/24`.
    pub addresses: Vec<Ipv4Net>,
}

/// An interface that is, or may become, a port of a managed bridge.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// IFLA_INFO_KIND, or `tap` for a `tun` device with an Ethernet header; empty for a physical interface.
    pub kind: String,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// The kernel chose the MAC at random, so it does not identify a guest. Only looked up for a tap without route and
    /// isolation.
    #[serde(default)]
    pub mac_drawn: bool,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge, bond or VRF of which it is a port.
    pub master: Option<u32>,
    #[serde(default)]
    pub isolated: bool,
    #[serde(default)]
    pub guard: Guard,
    /// Nothing but the guard is on the tap's clsact. Only looked up for `down`.
    #[serde(default)]
    pub only_guard: bool,
}

impl Bridge {
    pub(crate) fn device(&self) -> Device {
        Device { name: self.name.clone(), index: self.index }
    }
}

impl Link {
    pub(crate) fn device(&self) -> Device {
        Device { name: self.name.clone(), index: self.index }
    }

    pub fn is_tap(&self) -> bool {
        self.kind == "tap"
    }

    /// The guest that the MAC identifies, as a tap MAC or as a guest MAC.
    pub fn named_guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.guest(prefix).or_else(|| GuestMac::new(self.mac, prefix))
    }

    /// Whether the tap lets through only frames of the guest that it carries.
    pub fn is_guarded(&self, prefix: MacPrefix) -> bool {
        self.guest(prefix).is_some_and(|guest| self.is_guarded_for(guest))
    }

    /// The same of this guest.
    pub fn is_guarded_for(&self, guest: GuestMac) -> bool {
        matches!(&self.guard, Guard::Is(found) if found.is_of(guest))
    }

    /// The guest that this tap carries: the one of its tap MAC.
    pub fn guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.is_tap().then(|| GuestMac::from_tap_mac(self.mac, prefix)).flatten()
    }
}
