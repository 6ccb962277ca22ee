//! The access switches: one snippet an uplink, in FRR's form here, in NX-OS's in `nxos`.

use anyhow::{Result, ensure};

use super::switch_port::{EVERY, Form, SwitchPort, THIS};
use super::{bgp, every_frr, nxos, ospf};
use crate::config::{Config, FabricProtocol, Uplink};

/// # Errors
/// What `frr` needs is missing, or the uplink's `switch-port`; or there is no uplink of that name.
pub fn render(config: &Config, form: Option<Form>, only: Option<&str>) -> Result<String> {
    let chosen = |uplink: &&Uplink| only.is_none_or(|only| uplink.name == only);
    let uplinks: Vec<_> = config.uplinks()?.iter().filter(chosen).collect();
    ensure!(!uplinks.is_empty(), "there is no [[uplink]] name = \"{}\" in /etc/tap32.toml", only.unwrap_or_default());
    let forms = form.map_or_else(|| vec![Form::Nxos, Form::Frr], |form| vec![form]);
    let mut text = String::new();
    for form in forms {
        for uplink in &uplinks {
            let port = SwitchPort::new(config, uplink)?;
            text.push_str(&format!("! the switch at uplink {}, port {}\n", uplink.name, port.name));
            text.push_str(&match form {
                Form::Nxos => format!("! NX-OS\n{}", nxos::snippet(&port)?),
                Form::Frr => format!("! FRR\n{}", snippet(&port)?),
            });
        }
    }
    Ok(text)
}

fn snippet(port: &SwitchPort) -> Result<String> {
    let SwitchPort { config, uplink, name, host } = port;
    let interface = |more: &str| {
        let address = format!("{}/{}", uplink.peer, uplink.address.prefix_len());
        format!("interface {name}\n description {host}\n ip address {address}\n{more}exit\n")
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
            let router = bgp::router(uplink.peer_as()?, uplink.switch_router_id);
            let neighbor = bgp::neighbor(peer, config.own_as()?, host);
            let family = bgp::family(&format!(
                "  neighbor {peer} prefix-list {} in\n  neighbor {peer} route-map TAP32-IN in\n  \
                 neighbor {peer} route-map TAP32-ALL out\n",
                port.list()?
            ));
            let (policy, routes, interface) = (bgp::policy(), port.host_routes()?, interface(""));
            let below = bgp::below(config.own_as()?);
            Ok(format!(
                "{EVERY}{every}{policy}route-map TAP32-ALL permit 10\nexit\n{THIS}{interface}{routes}{below}{router}{neighbor}{family}"
            ))
        }
    }
}
