//! Each guest on its way into the fabric: the kernel's route, zebra's choice, what is announced.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::facts::Facts;
use super::row::Row;
use crate::config::{Config, FabricProtocol};
use crate::fabric::answers::{Answers, VERSION, bgp, ospf, zebra};
use crate::guest::link::Link;
use crate::guest::route::HostRoute;
use crate::guest::state::{OrphanRow, RouteState, Status, TapRow};
use crate::guest::view::View;
use crate::text::quote;

/// Whom OSPF's flooding reaches (RFC 2328, AllSPFRouters).
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 5);

/// With `announces` nothing is wrong with FRR that would explain why a guest is not announced.
pub fn rows(config: &Config, facts: &Facts, announces: bool) -> Vec<Row> {
    let status = Status::of(config, &facts.snapshot);
    let fabric = facts.frr.as_ref().filter(|answers| !config.uplinks.is_empty() && answers.get(&VERSION).is_ok());
    let told = fabric.map(|answers| Told::read(config, answers));
    let mut rows = Vec::new();
    for tap in &status.taps {
        rows.push(kernel(facts, tap));
        if let Some(isolation) = isolation(config, facts, tap) {
            rows.push(isolation);
        }
        if let (Some(told), Some(address), RouteState::Settled | RouteState::Claimed) = (&told, tap.address, tap.route)
        {
            let again = again(config, facts, tap, address);
            rows.push(told.zebra(address, &again));
            rows.push(told.fabric(address, again.filter(|_| announces)));
        }
    }
    rows.extend(facts.taps_alone.iter().filter_map(|tap| alone(config, facts, tap)));
    rows.extend(status.orphans.iter().map(|orphan| self::orphan(facts, orphan)));
    rows
}

fn name(tap: &TapRow) -> String {
    tap.address.map_or_else(|| format!("tap {}", tap.tap), |address| format!("guest {address}"))
}

fn reconcile(facts: &Facts) -> Option<String> {
    Some(format!("{} reconcile", facts.tap32))
}

fn kernel(facts: &Facts, tap: &TapRow) -> Row {
    let check = format!("{} route", name(tap));
    match tap.route {
        RouteState::Settled => Row::ok(check, "settled"),
        RouteState::Claimed => Row::ok(check, "claimed: the guest has just arrived"),
        RouteState::Missing => Row::fail(check, format!("missing, though {} carries it", tap.tap), reconcile(facts)),
        RouteState::Refused => Row::fail(check, format!("refused: {}", tap.why.as_deref().unwrap_or("?")), None),
        RouteState::Shadowed => {
            let by = tap.next_hop.as_ref().map(|hop| format!("{hop} has it: another host announces the address"));
            Row::fail(check, format!("shadowed: {}", by.or(tap.why.clone()).unwrap_or_default()), None)
        }
    }
}

/// `reconcile` isolates where the bridge lets isolated guests reach each other.
fn isolation(config: &Config, facts: &Facts, tap: &TapRow) -> Option<Row> {
    // Of a tap that is refused nothing is ours to change.
    if tap.route == RouteState::Refused {
        return None;
    }
    let answers = facts.snapshot.bridge(&tap.bridge)?.proxy_arp_pvlan;
    let wanted = config.bridge(&tap.bridge)?.isolate && answers;
    let check = format!("{} isolation", name(tap));
    Some(if wanted && !tap.isolated {
        let seen = format!("{} is not isolated: its neighbours lose it for a minute when it migrates", tap.tap);
        Row::fail(check, seen, reconcile(facts))
    } else if tap.isolated && !answers {
        let seen = format!(
            "{} is isolated, and the bridge does not answer for its neighbours: they are out of reach",
            tap.tap
        );
        Row::fail(check, seen, Some(format!("bridge link set dev {} isolated off", quote(&tap.tap))))
    } else {
        Row::ok(check, if tap.isolated { "isolated" } else { "not wanted" })
    })
}

/// A tap with a guest of a managed bridge that is on no bridge: it was deleted under the guest, and made anew. One
/// that is down is not in use.
fn alone(config: &Config, facts: &Facts, tap: &Link) -> Option<Row> {
    let guest = tap.guest(config.mac_prefix).filter(|_| tap.up && !tap.mac_drawn)?;
    View::new(config, &facts.snapshot).admit(tap, guest, None).ok()?;
    let seen = format!("{} carries it and is on no bridge: the guest is cut off", tap.name);
    let fix = format!("{} up {} --mac {guest}", facts.tap32, quote(&tap.name));
    Some(Row::fail(format!("guest {} tap", guest.address()), seen, Some(fix)))
}

fn orphan(facts: &Facts, orphan: &OrphanRow) -> Row {
    let check = format!("route {}", orphan.address);
    Row::fail(check, format!("through {}, and no tap carries it", orphan.bridge), reconcile(facts))
}

/// The shell line that sends zebra a guest's route once more. Not `replace`: with the same route the kernel changes
/// nothing and tells nobody (fib_table_insert; measured, zebra 8.4 learns nothing from it). The guest is announced by
/// nobody meanwhile, so that the moment without a route loses nothing more.
fn again(config: &Config, facts: &Facts, tap: &TapRow, address: Ipv4Addr) -> Option<String> {
    let bridge = facts.snapshot.bridge(&tap.bridge)?;
    let route = if tap.route == RouteState::Claimed {
        HostRoute::claim(config, address, bridge)
    } else {
        HostRoute::settled(config, address, bridge)
    };
    let route = route.to_string();
    let route = route.split_whitespace().map(quote).collect::<Vec<_>>().join(" ");
    Some(format!("ip route del {route} && ip route add {route}"))
}

/// What zebra and the fabric have of guests.
struct Told {
    zebra: Result<zebra::Routes, String>,
    /// What we announce to whom: with OSPF to all alike, with BGP to each neighbour that is there.
    announced: Result<Vec<(Ipv4Addr, BTreeSet<Ipv4Addr>)>, String>,
}

impl Told {
    fn read(config: &Config, answers: &Answers) -> Self {
        let announced = match config.fabric.protocol {
            FabricProtocol::Ospf => answers.get(&ospf::LSAS).map(|lsas| vec![(ALL_ROUTERS, lsas.addresses())]),
            FabricProtocol::Bgp => advertised(config, answers),
        };
        Self { zebra: answers.get(&zebra::KERNEL_ROUTES), announced }
    }

    fn zebra(&self, address: Ipv4Addr, again: &Option<String>) -> Row {
        let check = format!("guest {address} zebra");
        let routes = match &self.zebra {
            Ok(routes) => routes,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let entries = routes.to(address);
        if entries.iter().any(|entry| entry.selected) {
            return Row::ok(check, "the kernel's route is chosen");
        }
        if entries.is_empty() {
            return Row::fail(check, "zebra does not know the kernel's route", again.clone());
        }
        Row::fail(check, format!("zebra prefers another: `vtysh -c 'show ip route {address}/32'`"), None)
    }

    /// `again` is what fixes it where nothing else does.
    fn fabric(&self, address: Ipv4Addr, again: Option<String>) -> Row {
        let check = format!("guest {address} announced");
        let announced = match &self.announced {
            Ok(announced) => announced,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let missing = announced.iter().filter(|(_, told)| !told.contains(&address)).map(|(neighbour, _)| neighbour);
        let missing: Vec<String> = missing.map(ToString::to_string).collect();
        if missing.is_empty() {
            return Row::ok(check, "yes");
        }
        if missing.len() == announced.len() {
            let cause = if again.is_none() { "; FRR's own faults come first" } else { "" };
            return Row::fail(check, format!("no: the fabric does not know where it is{cause}"), again);
        }
        // Made anew the route would go for those who have it.
        let fix = missing.iter().fold("vtysh".to_owned(), |line, neighbour| {
            format!("{line} -c 'clear bgp ipv4 unicast {neighbour} soft out'")
        });
        Row::fail(check, format!("not to {}", missing.join(", ")), Some(fix))
    }
}

/// What each neighbour is told that is there; one that is not has a row of its own.
fn advertised(config: &Config, answers: &Answers) -> Result<Vec<(Ipv4Addr, BTreeSet<Ipv4Addr>)>, String> {
    let neighbours = answers.get(&bgp::NEIGHBOURS)?;
    let there = config.uplinks.iter().filter(|uplink| neighbours.state(uplink) == "Established");
    let told = |peer: Ipv4Addr| Ok((peer, answers.get(&bgp::advertised(peer))?.addresses()));
    let announced: Vec<_> = there.map(|uplink| told(uplink.peer)).collect::<Result<_, String>>()?;
    if announced.is_empty() { Err("no neighbour is there".into()) } else { Ok(announced) }
}
