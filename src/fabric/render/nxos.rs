//! The access switch's port in NX-OS's words, from the article's own listing and Cisco's command references
//! (Nexus 3548 and 5500, Unicast Routing). The lab has no such switch: nobody has tried these texts.

use anyhow::Result;

use super::bgp::{CLAIM, CLAIM_PREFERENCE, DETOUR, LAST_CHOICE};
use super::ospf::{DEAD, HELLO};
use super::{EVERY, PATHS, SwitchPort, THIS};
use crate::config::{Bfd, FabricProtocol};

pub fn snippet(port: &SwitchPort) -> Result<String> {
    match port.config.fabric.protocol {
        FabricProtocol::Ospf => Ok(with_ospf(port)),
        FabricProtocol::Bgp => with_bgp(port),
    }
}

/// GRACEFUL_SHUTDOWN (RFC 8326) as a number, which every NX-OS takes.
const GRACEFUL_SHUTDOWN: &str = "65535:0";

fn interface(port: &SwitchPort, more: &str) -> String {
    routed_port(port.name, &port.host, &port.address(), &port.config.fabric.bfd, more)
}

/// A port with an address. `no bfd echo`, because FRR's bfdd sends no echo packets by default.
pub fn routed_port(name: &str, description: &str, address: &str, bfd: &Bfd, more: &str) -> String {
    let Bfd { interval_ms, multiplier } = bfd;
    format!(
        "interface {name}
  description {description}
  no switchport
  ip address {address}
  no ip redirects
  bfd interval {interval_ms} min_rx {interval_ms} multiplier {multiplier}
  no bfd echo
{more}  no shutdown
"
    )
}

fn router_id(port: &SwitchPort) -> String {
    port.uplink.switch_router_id.map(|id| format!("  router-id {id}\n")).unwrap_or_default()
}

/// NX-OS takes no LSA timer below 10 ms and no SPF timer below 1.
fn with_ospf(port: &SwitchPort) -> String {
    let area = port.config.fabric.area;
    let link = format!(
        "  ip router ospf 1 area {area}
  ip ospf network point-to-point
  ip ospf hello-interval {HELLO}
  ip ospf dead-interval {DEAD}
  no ip ospf passive-interface
"
    );
    format!(
        "{EVERY}feature ospf
feature bfd
router ospf 1
  bfd
  maximum-paths {PATHS}
  timers throttle spf 1 50 1000
  timers throttle lsa 0 50 50
  timers lsa-arrival 10
{THIS}router ospf 1
{id}  passive-interface default
{interface}",
        id = router_id(port),
        interface = interface(port, &link)
    )
}

/// What every router of the fabric has with BGP.
pub fn every_bgp() -> String {
    format!(
        "{EVERY}feature bgp
feature bfd
ip community-list standard TAP32-DRAIN permit {GRACEFUL_SHUTDOWN}
ip community-list standard TAP32-CLAIM permit {CLAIM}
route-map TAP32-IN permit 10
  match community TAP32-DRAIN
  set local-preference {LAST_CHOICE}
route-map TAP32-IN permit 20
  match community TAP32-CLAIM
  set local-preference {CLAIM_PREFERENCE}
route-map TAP32-IN permit 30
"
    )
}

fn with_bgp(port: &SwitchPort) -> Result<String> {
    let uplink = port.uplink;
    Ok(format!(
        "{every}{THIS}{interface}{routes}ip as-path access-list TAP32-BELOW permit \"{DETOUR}_{host_as}$\"
route-map TAP32-IN permit 15
  match as-path TAP32-BELOW
  set local-preference {LAST_CHOICE}
router bgp {switch_as}
{id}  bestpath as-path multipath-relax
  address-family ipv4 unicast
    maximum-paths {PATHS}
  neighbor {peer}
    remote-as {host_as}
    description {host}
    bfd
    timers 1 3
    address-family ipv4 unicast
      send-community
      prefix-list {list} in
      route-map TAP32-IN in
",
        every = every_bgp(),
        interface = interface(port, ""),
        id = router_id(port),
        routes = port.host_routes()?,
        switch_as = uplink.peer_as()?,
        peer = uplink.address.addr(),
        host_as = port.config.own_as()?,
        host = port.host,
        list = port.list,
    ))
}
