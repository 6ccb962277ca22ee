//! The access switches' side: one snippet an uplink, in FRR's form here, in NX-OS's in `nxos`.

use anyhow::{Context, Result, ensure};

use super::{Form, bgp, every_frr, guest_prefixes, host_routes, nxos, ospf, own_as, peer_as, router_id, uplinks};
use crate::config::{Config, FabricProtocol, Uplink};

/// The line between what every router of the fabric needs and what only this switch does.
pub const EVERY: &str = "! on every router of the fabric\n";
pub const THIS: &str = "! on this switch\n";

/// One host as its switch sees it.
pub struct Side<'a> {
    pub config: &'a Config,
    pub uplink: &'a Uplink,
    /// The switch's own name of the port.
    pub port: &'a str,
    /// Who hangs there, for the port's description.
    pub host: String,
}

/// # Errors
/// What `frr` needs is missing, or the uplink's `switch-port`; or there is no uplink of that name.
pub fn render(config: &Config, form: Option<Form>, only: Option<&str>) -> Result<String> {
    let chosen = |uplink: &&Uplink| only.is_none_or(|only| uplink.name == only);
    let uplinks: Vec<_> = uplinks(config)?.iter().filter(chosen).collect();
    ensure!(!uplinks.is_empty(), "there is no [[uplink]] name = \"{}\" in /etc/tap32.toml", only.unwrap_or_default());
    let forms = form.map_or_else(|| vec![Form::Nxos, Form::Frr], |form| vec![form]);
    let mut text = String::new();
    for form in forms {
        for uplink in &uplinks {
            let side = Side::new(config, uplink)?;
            text.push_str(&format!("! the switch at uplink {}, port {}\n", uplink.name, side.port));
            text.push_str(&match form {
                Form::Nxos => format!("! NX-OS\n{}", nxos::snippet(&side)?),
                Form::Frr => format!("! FRR\n{}", snippet(&side)?),
            });
        }
    }
    Ok(text)
}

impl<'a> Side<'a> {
    fn new(config: &'a Config, uplink: &'a Uplink) -> Result<Self> {
        let port = uplink.switch_port.as_deref().with_context(|| {
            format!(
                "switch-port is missing at uplink {0}: write under [[uplink]] name = \"{0}\" in /etc/tap32.toml the \
                 switch's name of the port, such as switch-port = \"Ethernet1/4\"",
                uplink.name
            )
        })?;
        Ok(Self { config, uplink, port, host: format!("{} {}", router_id(config)?, uplink.name) })
    }

    /// The name of the prefix list of what the switch takes from the host.
    pub fn list(&self) -> Result<String> {
        Ok(format!("TAP32-{}", router_id(self.config)?))
    }

    /// That list: its loopback and its guests. A host that announces anything else is not believed.
    pub fn host_routes(&self) -> Result<String> {
        let mut prefixes = vec![router_id(self.config)?.into()];
        for bridge in &self.config.bridges {
            prefixes.extend(guest_prefixes(bridge)?);
        }
        Ok(host_routes(&self.list()?, &prefixes))
    }
}

fn snippet(side: &Side) -> Result<String> {
    let Side { config, uplink, port, host } = side;
    let interface = |more: &str| {
        let address = format!("{}/{}", uplink.peer, uplink.address.prefix_len());
        format!("interface {port}\n description {host}\n ip address {address}\n{more}exit\n")
    };
    let every = every_frr(&config.fabric.bfd);
    match config.fabric.protocol {
        FabricProtocol::Ospf => {
            let id = uplink.switch_router_id.map(|id| format!("router ospf\n ospf router-id {id}\nexit\n"));
            let common = ospf::router(&"");
            let own = interface(&ospf::link(config.fabric.area)) + &id.unwrap_or_default();
            Ok(format!("{EVERY}{every}{common}{THIS}{own}"))
        }
        FabricProtocol::Bgp => {
            let peer = uplink.address.addr();
            let router = bgp::router(peer_as(uplink)?, uplink.switch_router_id);
            let neighbor = bgp::neighbor(peer, own_as(config)?, host);
            let family = bgp::family(&format!(
                "  neighbor {peer} prefix-list {} in\n  neighbor {peer} route-map TAP32-IN in\n  \
                 neighbor {peer} route-map TAP32-ALL out\n",
                side.list()?
            ));
            let (policy, routes, port) = (bgp::policy(), side.host_routes()?, interface(""));
            let below = bgp::below(own_as(config)?);
            Ok(format!(
                "{EVERY}{every}{policy}route-map TAP32-ALL permit 10\nexit\n{THIS}{port}{routes}{below}{router}{neighbor}{family}"
            ))
        }
    }
}
