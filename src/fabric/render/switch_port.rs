//! One port of an access switch, with the host behind it: what both forms of a switch's configuration are written from.

use anyhow::{Context, Result};

use super::{guest_prefixes, host_routes, router_id};
use crate::config::{Config, Uplink};

/// The line before what every router of the fabric needs, and before what only this switch needs.
pub const EVERY: &str = "! on every router of the fabric\n";
pub const THIS: &str = "! on this switch\n";

/// One host as its switch sees it.
pub struct SwitchPort<'a> {
    pub config: &'a Config,
    pub uplink: &'a Uplink,
    /// The switch's own name of the port.
    pub name: &'a str,
    /// The port's description.
    pub host: String,
    /// The name of the prefix list of what the switch takes from the host.
    pub list: String,
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
        let id = router_id(config)?;
        Ok(Self { config, uplink, name, host: format!("{id} {}", uplink.name), list: format!("TAP32-{id}") })
    }

    /// The switch's address on the link, with its length.
    pub fn address(&self) -> String {
        format!("{}/{}", self.uplink.peer, self.uplink.address.prefix_len())
    }

    /// The prefix list: the host's loopback and its guests. The switch drops everything else that the host announces.
    pub fn host_routes(&self) -> Result<String> {
        let mut prefixes = vec![router_id(self.config)?.into()];
        for bridge in &self.config.bridges {
            prefixes.extend(guest_prefixes(bridge)?);
        }
        Ok(host_routes(&self.list, &prefixes))
    }
}
