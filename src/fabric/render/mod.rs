//! What `tap32 render` prints for FRR, the access switches and the borders: a file a target, and here what several share.
//!
//! Pure. vtysh reads every text for FRR in `tests/golden/render`, and the lab's routers run those texts.

pub mod bgp;
pub mod border;
pub mod frr;
mod nxos;
mod ospf;
pub mod switch;

use anyhow::Result;
use ipnet::Ipv4Net;

use crate::config::{Bfd, Config, Uplink};

/// How many equal paths a router uses: the uplinks of any host, with room.
const PATHS: u8 = 8;

/// The entries of a prefix list that lets the single addresses of `prefixes` pass, and nothing shorter.
fn host_routes(name: &str, prefixes: &[Ipv4Net]) -> String {
    let entries = prefixes.iter().enumerate().map(|(i, prefix)| {
        // "len < ge" is what FRR and NX-OS ask for.
        let ge = if prefix.prefix_len() == 32 { "" } else { " ge 32" };
        format!("ip prefix-list {name} seq {} permit {prefix}{ge}\n", 5 * (i + 1))
    });
    entries.collect()
}

/// What every FRR has with either protocol: BFD's timers, as a profile that the interfaces or neighbours name, and two
/// lines for zebra. Its queue waits 10 ms by default for more work (measured from a claim in a host's kernel to the
/// core's route, with OSPF: 22 to 37 ms with the wait, 1 to 4 ms without).
///
/// No nexthop objects: when a carrier is lost the kernel removes a member from a group, and zebra 8.4, which keeps a
/// group for 180 s, does not add it again. zebra then shows a route with two next hops where the kernel has one (seen
/// with BGP, after each loss of carrier).
fn every_frr(bfd: &Bfd) -> String {
    let Bfd { interval_ms, multiplier } = bfd;
    format!(
        "zebra work-queue 0
no zebra nexthop kernel enable
bfd
 profile tap32
  detect-multiplier {multiplier}
  receive-interval {interval_ms}
  transmit-interval {interval_ms}
 exit
exit
"
    )
}

/// The line before what every router of the fabric needs, and before what only this switch needs.
const EVERY: &str = "! on every router of the fabric\n";
const THIS: &str = "! on this switch\n";

/// One host as its switch sees it.
struct SwitchPort<'a> {
    config: &'a Config,
    uplink: &'a Uplink,
    /// The switch's own name of the port.
    name: &'a str,
    /// The port's description.
    host: String,
    /// The name of the prefix list of what the switch takes from the host.
    list: String,
}

impl<'a> SwitchPort<'a> {
    fn new(config: &'a Config, uplink: &'a Uplink) -> Result<Self> {
        let (name, id) = (uplink.switch_port()?, config.router_id()?);
        Ok(Self { config, uplink, name, host: format!("{id} {}", uplink.name), list: format!("TAP32-{id}") })
    }

    /// The switch's address on the link, with its length.
    fn address(&self) -> String {
        format!("{}/{}", self.uplink.peer, self.uplink.address.prefix_len())
    }

    /// The prefix list: the host's loopback and its guests. The switch drops everything else that the host announces.
    fn host_routes(&self) -> Result<String> {
        let mut prefixes = vec![self.config.router_id()?.into()];
        for bridge in &self.config.bridges {
            prefixes.extend(bridge.configured_prefixes()?);
        }
        Ok(host_routes(&self.list, &prefixes))
    }
}
