//! One port of an access switch, with the host behind it: what both forms of a switch's configuration are written from.

use anyhow::{Context, Result};

use super::{guest_prefixes, host_routes, router_id};
use crate::config::{Config, Uplink};

/// The language of a switch's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Nxos,
    Frr,
}

/// The lines above what every router of the fabric needs, and above what only this switch needs.
pub const EVERY: &str = "! on every router of the fabric\n";
pub const THIS: &str = "! on this switch\n";

/// One host as its switch sees it.
pub struct SwitchPort<'a> {
    pub config: &'a Config,
    pub uplink: &'a Uplink,
    /// The switch's name for the port.
    pub name: &'a str,
    /// The host and its uplink, for the port's description.
    pub host: String,
}

impl<'a> SwitchPort<'a> {
    pub fn new(config: &'a Config, uplink: &'a Uplink) -> Result<Self> {
        let name = uplink.switch_port.as_deref().with_context(|| {
            format!(
                "switch-port is missing at uplink {0}: write under [[uplink]] name = \"{0}\" in /etc/tap32.toml the \
                 switch's name of the port, such as switch-port = \"Ethernet1/4\"",
                uplink.name
            )
        })?;
        Ok(Self { config, uplink, name, host: format!("{} {}", router_id(config)?, uplink.name) })
    }

    /// The name of the prefix list of what the switch accepts from the host.
    pub fn list(&self) -> Result<String> {
        Ok(format!("TAP32-{}", router_id(self.config)?))
    }

    /// That list: the host's loopback and its guests. The switch ignores anything else that a host announces.
    pub fn host_routes(&self) -> Result<String> {
        let mut prefixes = vec![router_id(self.config)?.into()];
        for bridge in &self.config.bridges {
            prefixes.extend(guest_prefixes(bridge)?);
        }
        Ok(host_routes(&self.list()?, &prefixes))
    }
}
