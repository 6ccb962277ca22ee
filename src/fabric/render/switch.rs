//! The access switches: one snippet an uplink, in FRR's form here, in NX-OS's in `nxos`.

use anyhow::{Result, ensure};
use ipnet::Ipv4Net;

use super::{EVERY, SwitchPort, THIS, bgp, every_frr, nxos, ospf};
use crate::config::{Config, FabricProtocol, Uplink, file};

/// In whose words a switch is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Cisco NX-OS.
    Nxos,
    /// FRR.
    Frr,
}

/// # Errors
/// What `frr` needs is missing, or the uplink's `switch-port`; or there is no uplink of that name.
pub fn render(config: &Config, form: Option<Form>, only: Option<&str>) -> Result<String> {
    let chosen = |uplink: &&Uplink| only.is_none_or(|only| uplink.name == only);
    let uplinks: Vec<_> = config.uplinks()?.iter().filter(chosen).collect();
    ensure!(!uplinks.is_empty(), "there is no [[uplink]] name = \"{}\" in {}", only.unwrap_or_default(), file());
    let room = room(config)?;
    let mut text = String::new();
    for form in form.map_or_else(|| vec![Form::Nxos, Form::Frr], |form| vec![form]) {
        for uplink in &uplinks {
            let port = SwitchPort::new(config, uplink)?;
            text += &format!("! the switch at uplink {}, port {}\n", uplink.name, port.name);
            text += &match form {
                Form::Nxos => format!("! NX-OS\n{room}{}", nxos::snippet(&port)?),
                Form::Frr => format!("! FRR\n{room}{}", snippet(&port)?),
            };
        }
    }
    Ok(text)
}

/// Host routes that a switch takes without another table profile: the smallest profile of a QFX5100 has 16 K (Juniper's
/// page on its Unified Forwarding Table), and so has the smallest of an X670-G2 (Extreme's data sheet).
const HOST_ROUTES: u64 = 16 * 1024;

/// How many host routes the guests can come to: those of the MDU in its switches, else those of this host's bridges.
fn room(config: &Config) -> Result<String> {
    let mut prefixes = Vec::new();
    match &config.mdu {
        Some(mdu) => prefixes.clone_from(&mdu.aggregate),
        None => {
            for bridge in &config.bridges {
                prefixes.extend(bridge.configured_prefixes()?);
            }
        }
    }
    let addresses: u64 = Ipv4Net::aggregate(&prefixes).iter().map(|prefix| 1 << (32 - prefix.prefix_len())).sum();
    let names: Vec<_> = prefixes.iter().map(Ipv4Net::to_string).collect();
    let most = format!("! Each guest is a host route in the switch: at most {addresses} from {}", names.join(", "));
    Ok(if addresses <= HOST_ROUTES {
        format!("{most}.\n")
    } else {
        format!(
            "{most}.\n! From {HOST_ROUTES} guests on look up the switch's host table first, and its profile (NX-OS: \
             `system routing max-mode host`).\n"
        )
    })
}

fn snippet(port: &SwitchPort) -> Result<String> {
    let SwitchPort { config, uplink, name, host, list } = port;
    let every = every_frr(&config.fabric.bfd);
    let interface = format!("interface {name}\n description {host}\n ip address {}\n", port.address());
    match config.fabric.protocol {
        FabricProtocol::Ospf => {
            let common = ospf::router("");
            let link = ospf::link(config.fabric.area);
            let id = uplink.switch_router_id.map(|id| format!("router ospf\n ospf router-id {id}\nexit\n"));
            let id = id.unwrap_or_default();
            Ok(format!("{EVERY}{every}{common}{THIS}{interface}{link}exit\n{id}"))
        }
        FabricProtocol::Bgp => {
            let peer = uplink.address.addr();
            let host_as = config.own_as()?;
            Ok(format!(
                "{EVERY}{every}{policy}route-map TAP32-ALL permit 10
exit
{THIS}{interface}exit
{routes}{below}{router}{neighbor}{family}",
                policy = bgp::policy(),
                routes = port.host_routes()?,
                below = bgp::below(host_as),
                router = bgp::router(uplink.peer_as()?, uplink.switch_router_id),
                neighbor = bgp::neighbor(peer, host_as, host),
                family = bgp::family(&format!(
                    "  neighbor {peer} prefix-list {list} in
  neighbor {peer} route-map TAP32-IN in
  neighbor {peer} route-map TAP32-ALL out
"
                )),
            ))
        }
    }
}
