//! `[fabric]` and `[[uplink]]`: how the host is part of the fabric. A method stands for each key that a rendered text
//! needs: its error says what to write.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use ipnet::Ipv4Net;
use serde::Deserialize;

use super::{BridgeConfig, Config, file};

/// The fabric's routing protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FabricProtocol {
    #[default]
    Ospf,
    Bgp,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fabric {
    pub protocol: FabricProtocol,
    /// The host's AS number.
    pub r#as: Option<u32>,
    /// The loopback's address.
    pub router_id: Option<Ipv4Addr>,
    /// The OSPF area.
    pub area: Ipv4Addr,
    pub bfd: Bfd,
}

impl Default for Fabric {
    fn default() -> Self {
        let (protocol, bfd) = (FabricProtocol::default(), Bfd::default());
        Self { protocol, r#as: None, router_id: None, area: Ipv4Addr::UNSPECIFIED, bfd }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bfd {
    /// Milliseconds between two packets, both ways.
    pub interval_ms: u32,
    /// A neighbour is gone after this many missing packets.
    pub multiplier: u8,
}

impl Default for Bfd {
    fn default() -> Self {
        Self { interval_ms: 50, multiplier: 4 }
    }
}

/// A link to a switch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Uplink {
    /// The interface.
    pub name: String,
    /// The host's end: a /30 or a /31.
    pub address: Ipv4Net,
    /// The switch's end.
    pub peer: Ipv4Addr,
    /// The switch's AS number.
    pub peer_as: Option<u32>,
    /// The switch's own name of the port.
    pub switch_port: Option<String>,
    pub switch_router_id: Option<Ipv4Addr>,
}

impl Config {
    /// The host's loopback address and its name in the fabric.
    pub(crate) fn router_id(&self) -> Result<Ipv4Addr> {
        let missing = || missing("router-id", "", "[fabric]", "the host's loopback address", "\"10.47.176.132\"");
        self.fabric.router_id.with_context(missing)
    }

    /// The host's AS number.
    pub(crate) fn own_as(&self) -> Result<u32> {
        self.fabric.r#as.with_context(|| missing("as", "", "[fabric]", "the host's AS number", "65101"))
    }

    /// The uplinks, of which there must be one.
    pub(crate) fn uplinks(&self) -> Result<&[Uplink]> {
        ensure!(
            !self.uplinks.is_empty(),
            "there is no uplink: write in {} one [[uplink]] for each, with name, address and peer",
            file()
        );
        Ok(&self.uplinks)
    }

    /// The uplinks and the loopback, each with its configured address.
    pub(crate) fn routed_interfaces(&self) -> impl Iterator<Item = (&str, Ipv4Net)> {
        let uplinks = self.uplinks.iter().map(|uplink| (uplink.name.as_str(), uplink.address));
        uplinks.chain(self.fabric.router_id.map(|router_id| ("lo", router_id.into())))
    }
}

impl Uplink {
    /// The AS number of the uplink's switch.
    pub(crate) fn peer_as(&self) -> Result<u32> {
        self.peer_as.with_context(|| self.missing("peer-as", "the switch's AS number", "65001"))
    }

    /// The switch's own name of the port.
    pub(crate) fn switch_port(&self) -> Result<&str> {
        let missing = || self.missing("switch-port", "the switch's name of the port", "\"Ethernet1/4\"");
        self.switch_port.as_deref().with_context(missing)
    }

    fn missing(&self, key: &str, what: &str, example: &str) -> String {
        let Self { name, .. } = self;
        missing(key, &format!(" at uplink {name}"), &format!("[[uplink]] name = \"{name}\""), what, example)
    }
}

/// The error for a key that a table lacks. `at` says of which link it is.
pub(super) fn missing(key: &str, at: &str, table: &str, what: &str, example: &str) -> String {
    format!("{key} is missing{at}: write under {table} in {} {what}, such as {key} = {example}", file())
}

impl BridgeConfig {
    /// The prefixes of the bridge's guests, which the configuration must name.
    pub(crate) fn configured_prefixes(&self) -> Result<Vec<Ipv4Net>> {
        let prefixes = self.guest_prefixes(&[]);
        ensure!(
            !prefixes.is_empty(),
            "bridge {0} has neither gateway nor prefixes: write under [[bridge]] name = \"{0}\" in {1} its gateway, such \
             as gateway = \"10.0.0.1/24\"",
            self.name,
            file()
        );
        Ok(prefixes)
    }
}
