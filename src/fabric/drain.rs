//! How one uplink leaves the fabric and comes back: vtysh commands as values.
//!
//! OSPF: a passive interface is announced as a stub. Every router's SPF then leaves the link out, while the link goes
//! on carrying what still comes (measured: 0 of 9,600 packets lost). BGP: the route-maps of `render frr` make the
//! uplink every router's last choice (graceful shutdown, RFC 8326), then the neighbour is shut down.

use anyhow::{Result, ensure};

use crate::config::{Config, FabricProtocol, Uplink};
use crate::fabric::answers::bgp::{Neighbour, Neighbours};
use crate::fabric::render::bgp::{DRAIN, SERVICE};
use crate::fabric::running_config::Running;

/// Takes an uplink out of the fabric, one call of vtysh a step. The last ends the session with the neighbour. An error
/// is that the configuration lacks `as`.
pub fn drain(config: &Config, uplink: &Uplink) -> Result<Vec<Vec<String>>> {
    if config.fabric.protocol == FabricProtocol::Ospf {
        return Ok(vec![ospf(uplink, "ip ospf passive")]);
    }
    // The other routers move away while the uplink still carries (RFC 8326).
    let shutdown = format!("neighbor {} shutdown", uplink.peer);
    Ok(vec![bgp_maps(config, uplink, DRAIN)?, bgp(config, [shutdown])?])
}

/// Brings it back, from wherever a drain ended. Errors as [`drain`].
pub fn restore(config: &Config, uplink: &Uplink) -> Result<Vec<Vec<String>>> {
    let peer = uplink.peer;
    if config.fabric.protocol == FabricProtocol::Ospf {
        return Ok(vec![ospf(uplink, "no ip ospf passive")]);
    }
    // While the session is down the maps take effect at once; on one that stands they wait for a refresh, which the
    // switch does not always answer while it is sending its table (seen with FRR 8.4).
    let mut maps = bgp_maps(config, uplink, SERVICE)?;
    maps.extend(["end".to_owned(), format!("clear bgp ipv4 unicast {peer} soft")]);
    Ok(vec![maps, bgp(config, [format!("no neighbor {peer} shutdown")])?])
}

/// Refuses to drain with BGP where FRR lacks a route-map, since a neighbour without it gets no route at all, and where
/// the neighbour has an operator's own, which a restore would not bring back.
pub fn check_bgp_maps(uplink: &Uplink, running: &Running, neighbours: &Neighbours) -> Result<()> {
    for map in DRAIN.iter().chain(&SERVICE) {
        ensure!(
            running.starting(&format!("route-map {map} ")).next().is_some(),
            "FRR has no route-map {map}, which drains and restores an uplink: configure FRR as `tap32 render frr` \
             prints it"
        );
    }
    let maps = neighbours.of(uplink).map(Neighbour::maps).unwrap_or_default();
    for (i, way) in ["in", "out"].into_iter().enumerate() {
        let map = maps[i].unwrap_or("none");
        ensure!(
            [SERVICE[i], DRAIN[i]].contains(&map),
            "neighbor {} has route-map {map} {way}, which {} would replace: configure FRR as `tap32 render frr` prints \
             it, or drain this uplink by hand",
            uplink.peer,
            SERVICE[i]
        );
    }
    Ok(())
}

fn ospf(uplink: &Uplink, line: &str) -> Vec<String> {
    vec!["configure terminal".to_owned(), format!("interface {}", uplink.name), line.to_owned()]
}

fn bgp_maps(config: &Config, uplink: &Uplink, [inbound, outbound]: [&str; 2]) -> Result<Vec<String>> {
    let map = |name, way| format!("neighbor {} route-map {name} {way}", uplink.peer);
    bgp(config, ["address-family ipv4 unicast".to_owned(), map(inbound, "in"), map(outbound, "out")])
}

fn bgp<const N: usize>(config: &Config, lines: [String; N]) -> Result<Vec<String>> {
    let head = ["configure terminal".to_owned(), format!("router bgp {}", config.own_as()?)];
    Ok(head.into_iter().chain(lines).collect())
}
