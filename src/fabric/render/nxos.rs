//! The access switch's port in NX-OS's words, from the article's own listing and Cisco's command references
//! (Nexus 3548 and 5500, Unicast Routing). The lab has no such switch: nobody has run these texts.

use anyhow::Result;

use super::switch_port::{EVERY, SwitchPort, THIS};
use super::{PATHS, bgp, ospf};
use crate::config::{Bfd, FabricProtocol};

pub fn snippet(port: &SwitchPort) -> Result<String> {
    match port.config.fabric.protocol {
        FabricProtocol::Ospf => Ok(with_ospf(port)),
        FabricProtocol::Bgp => with_bgp(port),
    }
}

/// The port. FRR's bfdd sends no echo packets unless it is told to.
fn interface(port: &SwitchPort, more: &str) -> String {
    let SwitchPort { config, uplink, name, host } = port;
    let Bfd { interval_ms, multiplier } = config.fabric.bfd;
    format!(
        "interface {name}
  description {host}
  no switchport
  ip address {}/{}
  no ip redirects
  bfd interval {interval_ms} min_rx {interval_ms} multiplier {multiplier}
  no bfd echo
{more}  no shutdown
",
        uplink.peer,
        uplink.address.prefix_len()
    )
}

/// NX-OS takes no LSA timer below 10 ms and no SPF timer below 1.
fn with_ospf(port: &SwitchPort) -> String {
    let area = port.config.fabric.area;
    let id = port.uplink.switch_router_id.map(|id| format!("  router-id {id}\n")).unwrap_or_default();
    let link = format!(
        "  ip router ospf 1 area {area}
  ip ospf network point-to-point
  ip ospf hello-interval {}
  ip ospf dead-interval {}
  no ip ospf passive-interface
",
        ospf::HELLO,
        ospf::DEAD
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
{}",
        interface(port, &link)
    )
}

fn with_bgp(port: &SwitchPort) -> Result<String> {
    let uplink = port.uplink;
    let id = uplink.switch_router_id.map(|id| format!("  router-id {id}\n")).unwrap_or_default();
    let mut policy = format!(
        "ip community-list standard TAP32-DRAIN permit {}\nip community-list standard TAP32-CLAIM permit {}\n",
        bgp::GRACEFUL_SHUTDOWN,
        bgp::CLAIM
    );
    for (i, (list, preference)) in bgp::PREFERENCES.iter().enumerate() {
        let number = 10 * (i + 1);
        policy.push_str(&format!(
            "route-map TAP32-IN permit {number}\n  match community {list}\n  set local-preference {preference}\n"
        ));
    }
    Ok(format!(
        "{EVERY}feature bgp
feature bfd
{policy}route-map TAP32-IN permit 30
{THIS}{interface}{routes}ip as-path access-list TAP32-BELOW permit \"{detour}_{host_as}$\"
route-map TAP32-IN permit 15
  match as-path TAP32-BELOW
  set local-preference {preference}
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
        interface = interface(port, ""),
        routes = port.host_routes()?,
        detour = bgp::DETOUR,
        preference = bgp::DETOUR_PREFERENCE,
        switch_as = uplink.peer_as()?,
        peer = uplink.address.addr(),
        host_as = port.config.own_as()?,
        host = port.host,
        list = port.list()?,
    ))
}
