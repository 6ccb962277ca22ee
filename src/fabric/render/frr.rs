//! `/etc/frr/frr.conf` of the host. It does not hold the interfaces' addresses: `tap32 setup` adds them (or
//! systemd-networkd, or ifupdown), so that the host can be reached while FRR is being changed.

use anyhow::Result;

use super::{bgp, every_frr, host_routes, ospf};
use crate::config::{BridgeConfig, CLAIM_METRIC, Config, FabricProtocol, Uplink};

/// # Errors
/// No router-id, no uplinks, a bridge without subnet; with BGP no `as` or no `peer-as`.
pub fn render(config: &Config) -> Result<String> {
    let (daemons, protocol, body) = match config.fabric.protocol {
        FabricProtocol::Ospf => ("ospfd=yes", "ospf", ospf_body(config)?),
        FabricProtocol::Bgp => ("bgpd=yes", "bgp", bgp_body(config)?),
    };
    Ok(format!(
        "! /etc/frr/frr.conf, by `tap32 render frr`
! /etc/frr/daemons: zebra=yes {daemons} bfdd=yes
frr defaults datacenter
!
{every}!
! Guests' routes, and nothing else that the kernel has.
{guests}!
{links}! The host's own connections come from its loopback address, so that they outlive an uplink.
route-map TAP32-SOURCE permit 10
 set src {router_id}
exit
ip protocol {protocol} route-map TAP32-SOURCE
!
{body}",
        every = every_frr(&config.fabric.bfd),
        guests = guests(config)?,
        links = bridges(config),
        router_id = config.router_id()?,
    ))
}

/// A prefix list for each bridge, and the route-map for `redistribute kernel`: /32s in the bridge's prefixes, through
/// the bridge. `match tag` does not help: zebra takes at most a realm for a kernel route's tag (zebra/rt_netlink.c).
fn guests(config: &Config) -> Result<String> {
    let mut lists = String::new();
    let mut entries = Vec::new();
    for bridge in &config.bridges {
        let list = format!("TAP32-{}", bridge.name);
        lists.push_str(&host_routes(&list, &bridge.configured_prefixes()?));
        let matches = format!(" match interface {}\n match ip address prefix-list {list}\n", bridge.name);
        match config.fabric.protocol {
            FabricProtocol::Ospf => entries.push(matches),
            FabricProtocol::Bgp => {
                // With another weight a router's own path wins over a claim before the local preference is compared;
                // with the metric that zebra hands on from the kernel two hosts' paths differ.
                let neutral = " set metric 0\n set weight 0\n";
                let claim = bgp::CLAIM;
                entries.push(format!("{matches} match metric {CLAIM_METRIC}\n set community {claim}\n{neutral}"));
                entries.push(matches + neutral);
            }
        }
    }
    let entries = entries.iter().zip(1..);
    let map = entries.map(|(lines, i)| format!("route-map TAP32-GUESTS permit {i}0\n{lines}exit\n"));
    Ok(lists + &map.collect::<String>())
}

/// A guest can be there before its bridge has carrier, and FRR from 10.3 on takes no kernel route through an interface that
/// is not operative: FRR commit b9538fe481, if_is_operative().
fn bridges(config: &Config) -> String {
    let bridge = |bridge: &BridgeConfig| format!("interface {}\n no link-detect\nexit\n!\n", bridge.name);
    format!(
        "! A bridge without carrier keeps its guests' routes.\n{}",
        config.bridges.iter().map(bridge).collect::<String>()
    )
}

fn description(uplink: &Uplink) -> String {
    uplink.switch_port.clone().unwrap_or_else(|| uplink.peer.to_string())
}

fn ospf_body(config: &Config) -> Result<String> {
    let area = config.fabric.area;
    let link = ospf::link(area);
    let interface =
        |uplink: &Uplink| format!("interface {}\n description {}\n{link}exit\n!\n", uplink.name, description(uplink));
    let interfaces: String = config.uplinks()?.iter().map(interface).collect();
    // max-metric: other nodes' traffic crosses a host only where there is no other way (RFC 6987).
    let router = ospf::router(&format!(
        " ospf router-id {}\n max-metric router-lsa administrative\n redistribute kernel route-map TAP32-GUESTS\n",
        config.router_id()?
    ));
    Ok(format!("{interfaces}interface lo\n ip ospf area {area}\nexit\n!\n{router}"))
}

fn bgp_body(config: &Config) -> Result<String> {
    let router_id = config.router_id()?;
    let mut neighbors = String::new();
    let mut family = format!("  network {router_id}/32\n  redistribute kernel route-map TAP32-GUESTS\n");
    for uplink in config.uplinks()? {
        let peer = uplink.peer;
        let description = format!("{} {}", uplink.name, description(uplink));
        neighbors += &bgp::neighbor(peer, uplink.peer_as()?, &description);
        family += &format!("  neighbor {peer} route-map TAP32-IN in\n  neighbor {peer} route-map TAP32-OUT out\n");
    }
    Ok(format!(
        "{policy}!
! Only what begins here goes out: a host is never transit.
bgp as-path access-list TAP32-OWN seq 5 permit ^$
route-map TAP32-OUT permit 10
 match as-path TAP32-OWN
exit
! In their place at an uplink that is being drained (RFC 8326).
route-map TAP32-DRAIN-IN permit 10
 set local-preference 0
exit
route-map TAP32-DRAIN-OUT permit 10
 match as-path TAP32-OWN
 set community graceful-shutdown additive
exit
!
{router}{neighbors}{family}",
        policy = bgp::policy(),
        router = bgp::router(config.own_as()?, Some(router_id)),
        family = bgp::family(&family),
    ))
}
