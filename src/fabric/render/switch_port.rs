//! One port of an access switch, with the host behind it: what both forms of a switch's configuration are written from.

use anyhow::Result;

use super::host_routes;
use crate::config::{Config, Uplink};

/// In whose words a switch is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Nxos,
    Frr,
}

/// The line between what every router of the fabric needs and what only this switch does.
pub const EVERY: &str = "! on every router of the fabric\n";
pub const THIS: &str = "! on this switch\n";

/// One host as its switch sees it.
pub struct SwitchPort<'a> {
    pub config: &'a Config,
    pub uplink: &'a Uplink,
    /// The switch's own name of the port.
    pub name: &'a str,
    /// Who hangs there, for the port's description.
    pub host: String,
}

impl<'a> SwitchPort<'a> {
    pub fn new(config: &'a Config, uplink: &'a Uplink) -> Result<Self> {
        let name = uplink.switch_port()?;
        Ok(Self { config, uplink, name, host: format!("{} {}", config.router_id()?, uplink.name) })
    }

    /// The name of the prefix list of what the switch takes from the host.
    pub fn list(&self) -> Result<String> {
        Ok(format!("TAP32-{}", self.config.router_id()?))
    }

    /// That list: its loopback and its guests. A host that announces anything else is not believed.
    pub fn host_routes(&self) -> Result<String> {
        let mut prefixes = vec![self.config.router_id()?.into()];
        for bridge in &self.config.bridges {
            prefixes.extend(bridge.configured_prefixes()?);
        }
        Ok(host_routes(&self.list()?, &prefixes))
    }
}
