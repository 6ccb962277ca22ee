//! One uplink in BGP's words: the route maps of `render frr` that make it everybody's last choice (graceful shutdown,
//! RFC 8326), and the shutdown of the neighbour behind it.

use anyhow::{Context, Result, ensure};

use crate::config::{Config, Uplink};
use crate::fabric::render::own_as;
use crate::fabric::vtysh;
use crate::verbs::uplink::{NO_VTYSH, Session, ask};

/// The route maps of `render frr`, in and out: in service, and while it is drained.
const SERVICE: [&str; 2] = ["TAP32-IN", "TAP32-OUT"];
const DRAIN: [&str; 2] = ["TAP32-DRAIN-IN", "TAP32-DRAIN-OUT"];

/// One session for each of the uplinks, in their order.
pub fn look(uplinks: &[Uplink]) -> Result<Vec<Session>> {
    let neighbours = ask("show bgp neighbors json")?;
    let session = |uplink: &Uplink| {
        let found = &neighbours[uplink.peer.to_string()];
        let out = &found["addressFamilyInfo"]["ipv4Unicast"]["routeMapForOutgoingAdvertisements"];
        Session {
            neighbour: found["bgpState"].as_str().unwrap_or("none").to_owned(),
            drained: found["adminShutDown"] == true || *out == DRAIN[1],
        }
    };
    Ok(uplinks.iter().map(session).collect())
}

/// A neighbour with a route map that does not exist is told nothing at all, and one with somebody's own would lose it.
///
/// # Errors
/// FRR's configuration is not the rendered one.
pub fn check_maps(uplink: &Uplink) -> Result<()> {
    for map in DRAIN.iter().chain(&SERVICE) {
        let answer = vtysh::vtysh(&[&format!("show route-map {map}")])?.context(NO_VTYSH)?;
        ensure!(
            answer.contains("Action:"),
            "FRR has no route-map {map}, by which an uplink is drained: `tap32 render frr` prints the configuration \
             that has it"
        );
    }
    let neighbours = ask("show bgp neighbors json")?;
    let policy = &neighbours[uplink.peer.to_string()]["addressFamilyInfo"]["ipv4Unicast"];
    for (key, way, ours) in [
        ("routeMapForIncomingAdvertisements", "in", [SERVICE[0], DRAIN[0]]),
        ("routeMapForOutgoingAdvertisements", "out", [SERVICE[1], DRAIN[1]]),
    ] {
        let map = policy[key].as_str().unwrap_or("none");
        ensure!(
            ours.contains(&map),
            "neighbor {0} has for its route-map {way} {map}, not {1}, which this would put in its place: `tap32 render frr` \
             prints the configuration by which uplinks are drained, or drain it by your own",
            uplink.peer,
            ours[0]
        );
    }
    Ok(())
}

pub fn announce(config: &Config, uplink: &Uplink) -> Result<Vec<String>> {
    maps(config, uplink, DRAIN)
}

pub fn take_back(config: &Config, uplink: &Uplink) -> Result<Vec<String>> {
    let mut commands = maps(config, uplink, SERVICE)?;
    // A session that stands must be asked again for what the other maps let through; one that is down needs nothing.
    commands.extend(["end".to_owned(), format!("clear bgp ipv4 unicast {} soft", uplink.peer)]);
    Ok(commands)
}

pub fn shut(config: &Config, uplink: &Uplink) -> Result<Vec<String>> {
    inside(config, vec![format!("neighbor {} shutdown", uplink.peer)])
}

pub fn open(config: &Config, uplink: &Uplink) -> Result<Vec<String>> {
    inside(config, vec![format!("no neighbor {} shutdown", uplink.peer)])
}

fn maps(config: &Config, uplink: &Uplink, [inbound, outbound]: [&str; 2]) -> Result<Vec<String>> {
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

fn inside(config: &Config, lines: Vec<String>) -> Result<Vec<String>> {
    let mut commands = vec!["configure terminal".to_owned(), format!("router bgp {}", own_as(config)?)];
    commands.extend(lines);
    Ok(commands)
}
