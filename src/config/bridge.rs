//! `[[bridge]]`: one managed bridge, and which addresses its guests may have.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::{Deserialize, Deserializer};

use super::{check, file};
use crate::addr::{self, GuestMac, MacPrefix};

/// One `[[bridge]]` table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BridgeConfig {
    /// The interface.
    pub name: String,
    /// The guests' gateway with the length of their subnet, host bits kept.
    #[serde(deserialize_with = "gateway")]
    pub(crate) gateway: Option<Ipv4Net>,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub(crate) mac: Option<MacAddr6>,
    /// In octets; `None` leaves it to the kernel.
    pub(crate) mtu: Option<u32>,
    /// Empty: as [`BridgeConfig::guest_prefixes`] says.
    #[serde(deserialize_with = "subnets")]
    pub(crate) prefixes: Vec<Ipv4Net>,
    pub(crate) isolate: bool,
    /// Whether each guest's tap gets a guard.
    pub(crate) guard: bool,
    /// Whether the gateway's subnet is on link at the bridge: the host's only way to it then leads there.
    pub(crate) on_link: bool,
    /// Whether ports that are no taps are meant to be there.
    pub(crate) other_ports: bool,
    /// The name servers that guests are told.
    pub(crate) dns: Vec<Ipv4Addr>,
    /// The domain in which guests look up names without a dot.
    pub(crate) domain: Option<String>,
}

/// How a guest sees the network from its address.
pub(crate) struct GuestSubnet {
    pub gateway: Ipv4Addr,
    /// Of what the guest has on link.
    pub length: u8,
    /// Whether the gateway is in there.
    pub has_gateway: bool,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            name: "br-l2".into(),
            gateway: None,
            mac: None,
            mtu: None,
            prefixes: Vec::new(),
            isolate: true,
            guard: true,
            on_link: true,
            other_ports: false,
            dns: Vec::new(),
            domain: None,
        }
    }
}

impl BridgeConfig {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// The MAC that `setup` gives the bridge: the configured one, else the one that carries the gateway's address. All
    /// hosts of a subnet then have the same, and no guest can have it.
    pub(crate) fn wanted_mac(&self, prefix: MacPrefix, gateway: Ipv4Net) -> MacAddr6 {
        self.mac.unwrap_or_else(|| GuestMac::from_address(gateway.addr(), prefix).mac())
    }

    /// The address that the bridge has where `setup` makes it: the gateway with its subnet, or alone.
    pub(crate) fn address(&self) -> Option<Ipv4Net> {
        self.gateway.map(|gateway| if self.on_link { gateway } else { gateway.addr().into() })
    }

    /// The prefixes of the bridge's guests: the configured ones, else the subnet of the configured gateway, else the
    /// subnets of `on_bridge`, the bridge's own addresses.
    pub(crate) fn guest_prefixes(&self, on_bridge: &[Ipv4Net]) -> Vec<Ipv4Net> {
        let said = match (&self.prefixes[..], &self.gateway) {
            ([], Some(gateway)) => std::slice::from_ref(gateway),
            ([], None) => on_bridge,
            (prefixes, _) => prefixes,
        };
        said.iter().map(Ipv4Net::trunc).collect()
    }

    /// How the guest of this address sees the network: with the gateway's subnet on link; outside of that, with nothing.
    ///
    /// # Errors
    /// Another program gives the bridge its address, so that the configuration does not name the gateway.
    pub(crate) fn subnet_of_guest(&self, address: Ipv4Addr) -> Result<GuestSubnet> {
        let net = self.gateway.with_context(|| {
            format!(
                "bridge {0} has no gateway: write under [[bridge]] name = \"{0}\" in {1} its gateway, such as gateway = \
                 \"10.0.0.1/24\"",
                self.name,
                file()
            )
        })?;
        let has_gateway = net.contains(&address);
        let length = if has_gateway { net.prefix_len() } else { 32 };
        Ok(GuestSubnet { gateway: net.addr(), length, has_gateway })
    }
}

fn gateway<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ipv4Net>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_gateway = |net: &Ipv4Net| {
        let is_end = net.addr() == net.network() || net.addr() == net.broadcast();
        check::is_unicast(net.addr()) && net.prefix_len() >= 8 && (net.prefix_len() >= 31 || !is_end)
    };
    let gateway = text.parse().ok().filter(is_gateway);
    let form = "the address of a gateway with the length of its subnet, such as \"10.0.0.1/24\"";
    gateway.map(Some).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not {form}")))
}

/// For `#[serde(deserialize_with)]`: subnets, host bits kept.
pub(super) fn subnets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    let wrong = |text: &String| format!("{text:?} is not an IPv4 subnet such as \"10.0.0.0/24\"");
    let read = |text: String| text.parse().map_err(|_| serde::de::Error::custom(wrong(&text)));
    Vec::deserialize(deserializer)?.into_iter().map(read).collect()
}
