//! What `tap32 render` prints for FRR and for the access switches.
//!
//! Pure: one function a target, from the configuration to a text. `tests/golden/render` holds what each prints,
//! vtysh reads every text for FRR there, and the lab's routers run those texts. Here is what several targets share.

pub mod bgp;
pub mod frr;
mod nxos;
mod ospf;
pub mod switch;
pub mod switch_port;

use ipnet::Ipv4Net;

use crate::config::Bfd;

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

/// What every FRR has with either protocol: BFD's timers, as a profile that the interfaces or neighbours name, and
/// zebra at work at once. Its queue waits 10 ms by default, for a batch that may come: measured from a claim in a
/// host's kernel to the core's route, with OSPF 22 to 37 ms with the wait and 1 to 4 ms without.
///
/// Without nexthop objects: where a carrier is lost the kernel takes a member out of a group, and zebra 8.4, which
/// keeps a group for 180 s, does not put it back when it uses the group again: it says that a route has two ways, the
/// kernel has one (seen with BGP, after each loss of carrier).
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
