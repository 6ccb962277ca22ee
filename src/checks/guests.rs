//! Each guest on its way into the fabric: the kernel's route, zebra's choice, what FRR announces.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::facts::Facts;
use super::row::{Row, Verdict};
use crate::config::{Config, FabricProtocol};
use crate::fabric::answers::{Answers, VERSION, bgp, ospf, zebra};
use crate::fabric::vtysh::command_line;
use crate::guest::link::Link;
use crate::guest::route::HostRoute;
use crate::guest::state::{OrphanRow, RouteState, Status, TapRow};
use crate::guest::view::View;
use crate::text::quote;

/// Whom OSPF's flooding reaches (RFC 2328, AllSPFRouters).
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);

/// `announces`: every check of FRR is ok, so that none explains why a guest is not announced.
pub fn rows(config: &Config, facts: &Facts, announces: bool) -> Vec<Row> {
    let status = Status::of(config, &facts.snapshot);
    let frr = facts.frr.as_ref().filter(|answers| !config.uplinks.is_empty() && answers.get(&VERSION).is_ok());
    let frr = frr.map(|answers| (answers.get(&zebra::KERNEL_ROUTES), announced(config, answers)));
    let mut rows = Vec::new();
    for tap in &status.taps {
        rows.push(kernel(facts, tap));
        rows.extend(isolation(config, facts, tap));
        let address = tap.address.filter(|_| matches!(tap.route, RouteState::Settled | RouteState::Claimed));
        if let (Some((routes, announced)), Some(address)) = (&frr, address) {
            let again = again(config, facts, tap, address);
            let zebra = zebra(routes, address, &again);
            let is_explained = !announces || zebra.verdict != Verdict::Ok;
            rows.extend([zebra, fabric(announced, address, again.filter(|_| !is_explained))]);
        }
    }
    rows.extend(facts.taps_alone.iter().filter_map(|tap| alone(config, facts, tap)));
    rows.extend(status.orphans.iter().map(|route| orphan(facts, route)));
    rows
}

fn name(tap: &TapRow) -> String {
    tap.address.map_or_else(|| format!("tap {}", tap.tap), |address| format!("guest {address}"))
}

fn reconcile(facts: &Facts) -> String {
    format!("{} reconcile", facts.tap32)
}

fn kernel(facts: &Facts, tap: &TapRow) -> Row {
    let check = format!("{} route", name(tap));
    match tap.route {
        RouteState::Settled => Row::ok(check, "settled"),
        RouteState::Claimed => Row::ok(check, "claimed: the guest has just arrived"),
        RouteState::Arriving => Row::ok(check, "arriving: the guest still runs on another host"),
        RouteState::Idle => Row::ok(check, format!("idle: nobody has {} open", tap.tap)),
        RouteState::Missing if !tap.up => Row::warn(check, format!("none: somebody set {} down", tap.tap))
            .fix(format!("ip link set dev {} up", quote(&tap.tap))),
        RouteState::Missing => {
            Row::fail(check, format!("missing, although {} has the guest", tap.tap)).fix(reconcile(facts))
        }
        RouteState::Refused => Row::fail(check, format!("refused: {}", tap.why.as_deref().unwrap_or("?"))),
        RouteState::Shadowed => Row::fail(check, format!("shadowed: {}", tap.shadowed_by())),
    }
}

/// `reconcile` isolates a port if its bridge lets isolated guests reach each other.
fn isolation(config: &Config, facts: &Facts, tap: &TapRow) -> Option<Row> {
    // tap32 changes nothing about a tap that it refuses, and isolates the others when they come into service.
    if !tap.is_admitted {
        return None;
    }
    let answers = facts.snapshot.bridge(tap.bridge.as_deref()?)?.proxy_arp_pvlan;
    let wanted = config.bridge(tap.bridge.as_deref()?)?.isolate && answers;
    let check = format!("{} isolation", name(tap));
    Some(if wanted && !tap.isolated {
        let seen = format!("{} is not isolated: its neighbours lose the guest for a minute when it migrates", tap.tap);
        Row::fail(check, seen).fix(reconcile(facts))
    } else if tap.isolated && !answers {
        let why = "the bridge does not answer ARP for its neighbours, so the guest cannot reach them";
        Row::fail(check, format!("{} is isolated, but {why}", tap.tap))
            .fix(format!("bridge link set dev {} isolated off", quote(&tap.tap)))
    } else {
        Row::ok(check, if tap.isolated { "isolated" } else { "not wanted" })
    })
}

/// A tap that is up and on no bridge, with a guest of a managed one: the bridge was deleted and made anew.
fn alone(config: &Config, facts: &Facts, tap: &Link) -> Option<Row> {
    let guest = tap.guest(config.mac_prefix).filter(|_| tap.up && !tap.mac_drawn)?;
    View::new(config, &facts.snapshot).admit(tap, guest, None).ok()?;
    let seen = format!("{} is on no bridge, so the guest is cut off", tap.name);
    let fix = format!("{} up {} --mac {guest}", facts.tap32, quote(&tap.name));
    Some(Row::fail(format!("guest {} tap", guest.address()), seen).fix(fix))
}

fn orphan(facts: &Facts, orphan: &OrphanRow) -> Row {
    let seen = format!("through {}, but no tap carries this guest", orphan.bridge);
    Row::fail(format!("route {}", orphan.address), seen).fix(reconcile(facts))
}

/// The shell line that sends zebra a guest's route once more. With `replace` the kernel would send no notification
/// (fib_table_insert; measured with zebra 8.4). FRR does not announce the guest, so the gap costs nothing.
fn again(config: &Config, facts: &Facts, tap: &TapRow, address: Ipv4Addr) -> Option<String> {
    let bridge = facts.snapshot.bridge(tap.bridge.as_deref()?)?;
    let route = if tap.route == RouteState::Claimed { HostRoute::claim } else { HostRoute::settled };
    let route = route(config, address, bridge).to_string();
    let route = route.split_whitespace().map(quote).collect::<Vec<_>>().join(" ");
    Some(format!("ip route del {route} && ip route add {route}"))
}

/// Whether zebra has the kernel's route and prefers it. An error is why zebra's routes are not known.
fn zebra(routes: &Result<zebra::Routes, String>, address: Ipv4Addr, again: &Option<String>) -> Row {
    let check = format!("guest {address} zebra");
    match routes.as_ref().map(|routes| routes.to(address)) {
        Err(why) => Row::not_checked(check, why),
        Ok([]) => Row::fail(check, "zebra does not have the kernel's route").fix(again.clone()),
        Ok(routes) if routes.iter().any(|route| route.selected) => Row::ok(check, "the kernel's route is selected"),
        Ok(_) => {
            let seen = format!("zebra prefers another route: `vtysh -c 'show ip route {address}/32'` shows it");
            Row::fail(check, seen)
        }
    }
}

/// The guests that FRR announces to each neighbour whose session is up; with OSPF all routers get the same.
type Announced = Result<Vec<(Ipv4Addr, BTreeSet<Ipv4Addr>)>, String>;

fn announced(config: &Config, answers: &Answers) -> Announced {
    if config.fabric.protocol == FabricProtocol::Ospf {
        return Ok(vec![(ALL_ROUTERS, answers.get(&ospf::LSAS)?.addresses())]);
    }
    let neighbours = answers.get(&bgp::NEIGHBOURS)?;
    let up = config.uplinks.iter().filter(|uplink| neighbours.state(uplink) == "Established");
    let announced = up.map(|uplink| Ok((uplink.peer, answers.get(&bgp::advertised(uplink.peer))?.addresses())));
    let announced: Vec<_> = announced.collect::<Result<_, String>>()?;
    if announced.is_empty() { Err("no neighbour is Established".into()) } else { Ok(announced) }
}

/// Whether FRR announces a guest to all. `again` is the fix; `None` if another check explains why FRR does not.
fn fabric(announced: &Announced, address: Ipv4Addr, again: Option<String>) -> Row {
    let check = format!("guest {address} announced");
    let neighbours = match announced {
        Ok(neighbours) => neighbours,
        Err(why) => return Row::not_checked(check, why),
    };
    let missing = neighbours.iter().filter(|(_, guests)| !guests.contains(&address));
    let missing: Vec<String> = missing.map(|(neighbour, _)| neighbour.to_string()).collect();
    if missing.is_empty() {
        return Row::ok(check, "yes");
    }
    if missing.len() == neighbours.len() {
        let cause = if again.is_none() { "; fix FRR's other faults first" } else { "" };
        return Row::fail(check, format!("no: the fabric does not know where the guest is{cause}")).fix(again);
    }
    // `again` would withdraw the route from the neighbours that have it.
    let clear: Vec<_> = missing.iter().map(|peer| format!("clear bgp ipv4 unicast {peer} soft out")).collect();
    Row::fail(check, format!("not to {}", missing.join(", "))).fix(command_line(&clear))
}
