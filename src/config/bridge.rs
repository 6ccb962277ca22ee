//! `[[bridge]]`: one managed bridge, and which addresses its guests may have.

use anyhow::Result;
use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::{Deserialize, Deserializer};

use super::{DEFAULT_BRIDGE, check};
use crate::addr::{self, GuestMac, MacPrefix};

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BridgeConfig {
    #[serde(default = "default_bridge")]
    pub name: String,
    #[serde(default, deserialize_with = "gateway")]
    pub gateway: Option<Ipv4Net>,
    #[serde(default, deserialize_with = "addr::deserialize_mac")]
    pub mac: Option<MacAddr6>,
    /// In octets; `None` leaves it to the kernel.
    pub mtu: Option<u32>,
    /// Empty: the bridge's own on-link subnets.
    #[serde(default, deserialize_with = "subnets")]
    pub prefixes: Vec<Ipv4Net>,
    #[serde(default = "yes")]
    pub isolate: bool,
}

impl BridgeConfig {
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), gateway: None, mac: None, mtu: None, prefixes: Vec::new(), isolate: true }
    }

    /// The MAC that the bridge is to have: as configured, else the one that names its gateway, as a guest's MAC names
    /// the guest. It is the same on every host of the subnet without being written down, and no guest can have it.
    pub fn wanted_mac(&self, prefix: MacPrefix, gateway: Ipv4Net) -> MacAddr6 {
        self.mac.unwrap_or_else(|| GuestMac::from_address(gateway.addr(), prefix).mac())
    }

    /// Where the bridge's guests have their addresses: in the configured prefixes; else in the configured gateway's
    /// subnet; else in the subnets of the bridge's own addresses, `on_bridge`. Everybody who must know asks here.
    pub fn guest_prefixes(&self, on_bridge: &[Ipv4Net]) -> Vec<Ipv4Net> {
        let said = match (&self.prefixes[..], &self.gateway) {
            ([], Some(gateway)) => std::slice::from_ref(gateway),
            ([], None) => on_bridge,
            (prefixes, _) => prefixes,
        };
        said.iter().map(Ipv4Net::trunc).collect()
    }
}

fn yes() -> bool {
    true
}

fn default_bridge() -> String {
    DEFAULT_BRIDGE.to_owned()
}

fn read_subnet(text: &str) -> Result<Ipv4Net> {
    text.parse().map_err(|_| anyhow::anyhow!("{text:?} is not an IPv4 subnet such as \"10.0.0.0/24\""))
}

fn gateway<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || {
        let form = "the address of a gateway with the length of its subnet, such as \"10.0.0.1/24\"";
        serde::de::Error::custom(format!("{text:?} is not {form}"))
    };
    let gateway: Ipv4Net = text.parse().map_err(|_| wrong())?;
    let ends = [gateway.network(), gateway.broadcast()];
    if gateway.prefix_len() < 31 && ends.contains(&gateway.addr()) || !check::is_unicast(gateway.addr()) {
        return Err(wrong());
    }
    Ok(Some(gateway))
}

fn subnets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| read_subnet(text)).collect::<Result<_>>().map_err(serde::de::Error::custom)
}
