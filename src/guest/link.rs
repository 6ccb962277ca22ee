//! Interfaces as the kernel has them: a managed bridge, and what is or may become a port of one.

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::Deserialize;

use crate::addr::{self, GuestMac, MacPrefix};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub up: bool,
    pub proxy_arp_pvlan: bool,
    /// The bridge's own addresses, host bits kept: `10.0.0.1/24`.
    pub addresses: Vec<Ipv4Net>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// IFLA_INFO_KIND, or `tap` for a `tun` device with an Ethernet header; empty for physical ones.
    pub kind: String,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// The kernel drew the MAC at random, so that it names nobody. Looked up only where there is neither route nor isolation.
    #[serde(default)]
    pub mac_drawn: bool,
    pub mtu: u32,
    pub up: bool,
    /// Index of the bridge (or bond, or VRF) that it is a port of.
    pub master: Option<u32>,
    #[serde(default)]
    pub isolated: bool,
}

impl Link {
    pub fn is_tap(&self) -> bool {
        self.kind == "tap"
    }

    /// The guest that the MAC names, in a tap's form or in the guest's own, whatever may be done with it.
    pub fn named_guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.guest(prefix).or_else(|| GuestMac::new(self.mac, prefix))
    }

    /// The guest that this tap carries, as its tap MAC says.
    pub fn guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.is_tap().then(|| GuestMac::from_tap_mac(self.mac, prefix)).flatten()
    }
}
