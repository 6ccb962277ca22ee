//! OSPF in FRR's words: what hosts and switches have alike. Both ends of a link must have the same hello and dead
//! intervals (RFC 2328, 10.5).

use std::net::Ipv4Addr;

use super::PATHS;

/// Seconds between hellos, and seconds without one until the neighbour counts as gone. BFD notices sooner.
pub const HELLO: u8 = 1;
pub const DEAD: u8 = 4;

/// The lines of one end of a link, inside `interface`.
pub fn link(area: Ipv4Addr) -> String {
    format!(
        " ip ospf area {area}
 ip ospf network point-to-point
 ip ospf hello-interval {HELLO}
 ip ospf dead-interval {DEAD}
 ip ospf bfd
 ip ospf bfd profile tap32
"
    )
}

/// What every router has, and its own lines. Without the LSA timers an address that is withdrawn and announced again
/// waits for MinLSInterval, up to 5 s (measured: 3.5 s without a route, none with them).
pub fn router(own: &str) -> String {
    format!(
        "router ospf
 maximum-paths {PATHS}
 timers throttle spf 0 50 1000
 timers throttle lsa all 0
 timers lsa min-arrival 0
{own}exit
"
    )
}
