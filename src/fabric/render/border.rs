//! The border of an MDU, towards the backbone: one aggregate for the MDU's own guests, and single routes only for claims
//! and for guests that are away from their MDU. What the border has towards its own hosts is `switch`'s.
//!
//! The policy is data, and FRR and NX-OS get it in their own words. The lab has no NX-OS: nobody has run that form.

use std::fmt::Write as _;

use anyhow::Result;
use ipnet::Ipv4Net;

use super::bgp::{CLAIM_PREFERENCE, LAST_CHOICE};
use super::switch::Form;
use super::{EVERY, bgp, every_frr, host_routes, nxos};
use crate::config::{Backbone, Config, Mdu, is_interface_name};

/// Marks what came from the backbone, for the borders of this MDU. The AS number is private (RFC 6996).
const FROM_BACKBONE: &str = "65132:1";

/// # Errors
/// The fabric's protocol is not BGP; `[mdu]` or a key of it is missing, or every `[[backbone]]`, or a `peer-as`.
pub fn render(config: &Config, form: Option<Form>) -> Result<String> {
    let mdu = config.mdu()?;
    let links = config.backbones()?;
    let mut text = String::new();
    for form in form.map_or_else(|| vec![Form::Nxos, Form::Frr], |form| vec![form]) {
        text += "! the MDU's border, towards the backbone\n";
        text += &match form {
            Form::Nxos => nxos(config, mdu, links)?,
            Form::Frr => frr(config, mdu, links)?,
        };
    }
    Ok(text)
}

/// One entry of a route-map.
struct Entry {
    /// A line for the operator; empty where the entry says enough.
    why: &'static str,
    map: &'static str,
    /// `permit` or `deny`, and the number.
    at: &'static str,
    lines: Vec<String>,
}

/// Whether a route-map's next entry is tried too: FRR says `on-match next`, NX-OS names the number.
const NEXT: &str = "on-match next";
const NEXT_NXOS: &str = "continue 10";

fn policy(mdu: &Mdu) -> Vec<Entry> {
    const IN: &str = "TAP32-BACKBONE-IN";
    const OUT: &str = "TAP32-BACKBONE-OUT";
    let community = |list: &str| format!("match community {list}");
    let prefixes = |list: &str| format!("match ip address prefix-list {list}");
    let entry = |why, map, at, lines: &[String]| Entry { why, map, at, lines: lines.to_vec() };
    let mut entries = vec![
        entry(
            "What comes from the backbone is marked, and judged as everywhere.",
            IN,
            "permit 5",
            &[format!("set community {FROM_BACKBONE} additive"), NEXT.to_owned()],
        ),
        entry("", IN, "permit 10", &[community("TAP32-DRAIN"), format!("set local-preference {LAST_CHOICE}")]),
        entry("", IN, "permit 20", &[community("TAP32-CLAIM"), format!("set local-preference {CLAIM_PREFERENCE}")]),
        entry("", IN, "permit 30", &[]),
        entry(
            "An MDU is no way from one part of the backbone to another.",
            OUT,
            "deny 5",
            &[community("TAP32-BACKBONE")],
        ),
        entry(
            "A claim crosses, whosever the guest is: else its old host would not yield.",
            OUT,
            "permit 10",
            &[community("TAP32-CLAIM"), prefixes("TAP32-GUESTS")],
        ),
        entry("This MDU's own guests are in the aggregate.", OUT, "deny 20", &[prefixes("TAP32-MDU-GUESTS")]),
        entry("", OUT, "permit 30", &[prefixes("TAP32-MDU")]),
        entry("Guests of other MDUs that run here.", OUT, "permit 40", &[prefixes("TAP32-GUESTS")]),
    ];
    if !mdu.hosts.is_empty() {
        let why = "The hosts' loopbacks, which migrations from other MDUs connect to.";
        entries.push(entry(why, OUT, "permit 50", &[prefixes("TAP32-MDU-HOSTS")]));
    }
    entries
}

/// The prefix lists: ranges as they are, and the single addresses in them.
fn lists(mdu: &Mdu) -> String {
    let exact = |name: &str, ranges: &[Ipv4Net]| -> String {
        let line =
            |(i, range): (usize, &Ipv4Net)| format!("ip prefix-list {name} seq {} permit {range}\n", 5 * (i + 1));
        ranges.iter().enumerate().map(line).collect()
    };
    exact("TAP32-MDU", &mdu.aggregate)
        + &host_routes("TAP32-MDU-GUESTS", &mdu.aggregate)
        + &host_routes("TAP32-GUESTS", &mdu.guests)
        + &exact("TAP32-MDU-HOSTS", &mdu.hosts)
}

/// What an operator must know who changes these lines.
///
/// `summary-only` suppresses every path of a more specific prefix towards all neighbours, also one heard from the
/// backbone ("to all neighbors", FRR's doc/user/bgp.rst; aggr_suppress_path in bgp_route.c), and the `unsuppress-map` that
/// undoes it replaces the route-map out. An aggregate is kept up by any more specific route (bgp_aggregate_route).
const AGGREGATES: &str = "\
! Do not add summary-only: the hosts here would not hear that a guest of theirs has moved to another MDU.
! Where an MDU has two borders, link them inside it: any more specific route keeps an aggregate up, also that of a guest
! that is away, so that a border which has lost its MDU still attracts its packets and drops them.
";

fn frr(config: &Config, mdu: &Mdu, links: &[Backbone]) -> Result<String> {
    let mut text = format!("! FRR\n{EVERY}{}{}! on this border\n", every_frr(&config.fabric.bfd), bgp::policy());
    for Backbone { address, peer, port, .. } in links {
        text += &match port {
            // FRR reads no name with a space, and Linux has none with a slash.
            Some(port) if is_interface_name(port) => {
                format!("interface {port}\n description backbone {peer}\n ip address {address}\nexit\n")
            }
            _ => format!("! The interface towards {peer} has {address}.\n"),
        };
    }
    text += &lists(mdu);
    text += &format!("bgp community-list standard TAP32-BACKBONE seq 5 permit {FROM_BACKBONE}\n");
    for Entry { why, map, at, lines } in policy(mdu) {
        text += &comment(why);
        text += &format!("route-map {map} {at}\n{}exit\n", indented(" ", &lines));
    }
    text += AGGREGATES;
    text += &bgp::router(mdu.own_as()?, None);
    let mut family = aggregates("  ", mdu);
    for link in links {
        let peer = link.peer;
        text += &bgp::neighbor(peer, link.peer_as()?, "backbone");
        family += &format!("  neighbor {peer} route-map TAP32-BACKBONE-IN in\n");
        family += &format!("  neighbor {peer} route-map TAP32-BACKBONE-OUT out\n");
    }
    Ok(text + &bgp::family(&family))
}

fn nxos(config: &Config, mdu: &Mdu, links: &[Backbone]) -> Result<String> {
    let every = nxos::every_bgp();
    let mut text = format!("! NX-OS. Nobody has run this text on a switch yet.\n{every}! on this border\n");
    for Backbone { address, peer, port, .. } in links {
        text += &match port {
            Some(port) => {
                let description = format!("backbone {peer}");
                nxos::routed_port(port, &description, &address.to_string(), &config.fabric.bfd, "")
            }
            None => format!("! The interface towards {peer} has {address}, and no bfd echo.\n"),
        };
    }
    text += &lists(mdu);
    text += &format!("ip community-list standard TAP32-BACKBONE permit {FROM_BACKBONE}\n");
    for Entry { why, map, at, lines } in policy(mdu) {
        let lines: Vec<_> = lines.iter().map(|line| line.replace(NEXT, NEXT_NXOS)).collect();
        text += &comment(why);
        text += &format!("route-map {map} {at}\n{}", indented("  ", &lines));
    }
    text += AGGREGATES;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "router bgp {}\n  bestpath as-path multipath-relax\n  address-family ipv4 unicast\n    maximum-paths {}\n{}",
        mdu.own_as()?,
        super::PATHS,
        aggregates("    ", mdu).trim_end_matches('\n')
    );
    for link in links {
        text += &format!(
            "  neighbor {}
    remote-as {}
    description backbone
    bfd
    timers 1 3
    address-family ipv4 unicast
      send-community
      route-map TAP32-BACKBONE-IN in
      route-map TAP32-BACKBONE-OUT out
",
            link.peer,
            link.peer_as()?
        );
    }
    Ok(text)
}

fn comment(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("! {text}\n") }
}

fn indented(by: &str, lines: &[String]) -> String {
    lines.iter().map(|line| format!("{by}{line}\n")).collect()
}

/// The border takes in what has no longer route, and drops it (zapi_route_set_blackhole in FRR's bgp_zebra.c).
fn aggregates(indent: &str, mdu: &Mdu) -> String {
    let ranges = mdu.aggregate.iter().chain(&mdu.hosts);
    ranges.map(|range| format!("{indent}aggregate-address {range}\n")).collect()
}
