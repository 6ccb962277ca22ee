//! OSPF in FRR's words: what hosts and switches have alike. Both ends of a link must have the same hello and dead
//! intervals (RFC 2328, 10.5).

use std::net::Ipv4Addr;

use super::PATHS;

/// Seconds between hellos, and seconds without one until the neighbour counts as gone. BFD notices sooner.
pub const HELLO: u8 = 1;
pub const DEAD: u8 = 4;

/// Seconds until an LSA that a neighbour has not acknowledged is sent again. A restarted ospfd begins to send while its
/// neighbour still drops updates (ospf_ls_upd() in ospfd/ospf_packet.c, below Exchange); with the default of 5 some of a
/// host's guests have no route until then (measured). FRR acknowledges after up to 1 s (v_ls_ack in
/// ospfd/ospf_interface.c), so with 1 an update may be sent twice although nothing was lost.
pub const RETRANSMIT: u8 = 2;

/// The lines of one end of a link, inside `interface`.
pub fn link(area: Ipv4Addr) -> String {
    format!(
        " ip ospf area {area}
 ip ospf network point-to-point
 ip ospf hello-interval {HELLO}
 ip ospf dead-interval {DEAD}
 ip ospf retransmit-interval {RETRANSMIT}
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
