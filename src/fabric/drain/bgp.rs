//! BGP: the route-maps of `render frr` that make an uplink every router's last choice (graceful shutdown, RFC 8326), and
//! the shutdown of the neighbour behind it.

use anyhow::{Result, ensure};

use super::Commands;
use crate::config::{Config, Uplink};
use crate::fabric::answers::bgp::Neighbours;
use crate::fabric::render::bgp::{DRAIN, SERVICE};
use crate::fabric::running_config::Running;

/// A neighbour whose route-map does not exist is told nothing at all, and one with an operator's own would lose it.
///
/// # Errors
/// A route-map is missing, or the neighbour has another than the rendered ones.
pub fn check_maps(uplink: &Uplink, running: &Running, neighbours: &Neighbours) -> Result<()> {
    for map in DRAIN.iter().chain(&SERVICE) {
        ensure!(
            running.starting(&format!("route-map {map} ")).next().is_some(),
            "FRR has no route-map {map}, which drains and restores an uplink: configure FRR as `tap32 render frr` prints it"
        );
    }
    let maps = neighbours.of(uplink).map(|neighbour| neighbour.maps()).unwrap_or_default();
    for (map, way, ours) in [(maps[0], "in", [SERVICE[0], DRAIN[0]]), (maps[1], "out", [SERVICE[1], DRAIN[1]])] {
        let map = map.unwrap_or("none");
        ensure!(
            ours.contains(&map),
            "neighbor {} has route-map {map} {way}, which {} would replace: configure FRR as `tap32 render frr` prints it, \
             or drain this uplink by hand",
            uplink.peer,
            ours[0]
        );
    }
    Ok(())
}

pub fn announce(config: &Config, uplink: &Uplink) -> Result<Commands> {
    maps(config, uplink, DRAIN)
}

pub fn take_back(config: &Config, uplink: &Uplink) -> Result<Commands> {
    let mut commands = maps(config, uplink, SERVICE)?;
    // A session that stands must be asked again for what the other maps let through; one that is down needs nothing.
    commands.extend(["end".to_owned(), format!("clear bgp ipv4 unicast {} soft", uplink.peer)]);
    Ok(commands)
}

pub fn shut(config: &Config, uplink: &Uplink) -> Result<Commands> {
    inside(config, vec![format!("neighbor {} shutdown", uplink.peer)])
}

pub fn open(config: &Config, uplink: &Uplink) -> Result<Commands> {
    inside(config, vec![format!("no neighbor {} shutdown", uplink.peer)])
}

fn maps(config: &Config, uplink: &Uplink, [inbound, outbound]: [&str; 2]) -> Result<Commands> {
    let peer = uplink.peer;
    inside(
        config,
        vec![
            "address-family ipv4 unicast".to_owned(),
            format!("neighbor {peer} route-map {inbound} in"),
            format!("neighbor {peer} route-map {outbound} out"),
        ],
    )
}

fn inside(config: &Config, lines: Commands) -> Result<Commands> {
    let head = ["configure terminal".to_owned(), format!("router bgp {}", config.own_as()?)];
    Ok(head.into_iter().chain(lines).collect())
}
