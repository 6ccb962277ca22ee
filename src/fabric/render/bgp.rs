//! BGP in FRR's words: one AS a node, and the policy with which a claim wins and a settled route yields.
//!
//! BGP prefers a router's own redistributed path over all received ones, so a settled host would not yield. A claim
//! therefore carries a community, and every router gives it a higher local preference than the 100 of its own path. The
//! claim wins everywhere; the old host's zebra takes the received route (distance 20 < 240) and withdraws its own.

use std::net::Ipv4Addr;

use super::PATHS;

/// Marks a claim. Every router of the fabric must know it; the AS number is private (RFC 6996).
pub const CLAIM: &str = "65132:32";

/// A host's route-maps at an uplink, in and out: in service, and while it is drained.
pub const SERVICE: [&str; 2] = ["TAP32-IN", "TAP32-OUT"];
pub const DRAIN: [&str; 2] = ["TAP32-DRAIN-IN", "TAP32-DRAIN-OUT"];

/// Local preferences of what comes in: a path that is being shut down is the last choice (RFC 8326, 4.2), even if it is
/// a claim; a claim wins over a router's own path, which has 100.
pub const LAST_CHOICE: u32 = 0;
pub const CLAIM_PREFERENCE: u32 = 200;

/// Begins the regular expression of an AS path with more than its last AS.
pub const DETOUR: &str = "[0-9]";

/// What every router of the fabric has: the inbound policy.
pub fn policy() -> String {
    format!(
        "bgp community-list standard TAP32-DRAIN seq 5 permit graceful-shutdown
bgp community-list standard TAP32-CLAIM seq 5 permit {CLAIM}
route-map TAP32-IN permit 10
 match community TAP32-DRAIN
 set local-preference {LAST_CHOICE}
exit
route-map TAP32-IN permit 20
 match community TAP32-CLAIM
 set local-preference {CLAIM_PREFERENCE}
exit
route-map TAP32-IN permit 30
exit
"
    )
}

/// What a switch has for a host below it: a detour to the host by another switch counts as little as a drained link, so
/// the shorter path wins. Else the switch takes the detour as soon as the host's own path becomes worse, at the end of
/// a claim or at a drain, before the core has heard of it: the switch sends the host's packets up and the core sends
/// them down again (measured: 100 ms at the end of a claim, 28 ms at a drain).
pub fn below(host: u32) -> String {
    format!(
        "bgp as-path access-list TAP32-BELOW permit {DETOUR}_{host}$
route-map TAP32-IN permit 15
 match as-path TAP32-BELOW
 set local-preference {LAST_CHOICE}
exit
"
    )
}

/// The head of `router bgp`.
pub fn router(number: u32, router_id: Option<Ipv4Addr>) -> String {
    let id = router_id.map(|id| format!(" bgp router-id {id}\n")).unwrap_or_default();
    format!("router bgp {number}\n{id} bgp bestpath as-path multipath-relax\n timers bgp 1 3\n")
}

/// One neighbour, before the address family. An update is sent at once, because it may be a claim.
pub fn neighbor(peer: Ipv4Addr, number: u32, description: &str) -> String {
    format!(
        " neighbor {peer} remote-as {number}
 neighbor {peer} description {description}
 neighbor {peer} bfd profile tap32
 neighbor {peer} advertisement-interval 0
 neighbor {peer} timers connect 1
"
    )
}

/// The address family, with a router's own lines in it, and the end of `router bgp`.
pub fn family(lines: &str) -> String {
    format!(" address-family ipv4 unicast\n{lines}  maximum-paths {PATHS}\n exit-address-family\nexit\n")
}
