//! Whether guests' routes can be announced: `redistribute kernel`, its route-map, and summaries that hide /32s. What
//! FRR announces of each guest is in `guests`.

use ipnet::Ipv4Net;

use super::row::Row;
use crate::config::{Config, FabricProtocol};
use crate::fabric::running_config::{Line, Running, enter};

/// The route-map that `render frr` prints, and how its prefix lists begin.
const OURS: &str = "TAP32-GUESTS";
const LISTS: &str = "ip prefix-list TAP32-";

pub fn rows(config: &Config, running: &Running, wanted: &Running) -> Vec<Row> {
    let router = match config.fabric.protocol {
        FabricProtocol::Ospf => "router ospf",
        FabricProtocol::Bgp => "router bgp",
    };
    let mut rows = redistribution(router, running, wanted);
    rows.extend(summaries(config, router, running));
    rows
}

fn redistribution(router: &str, running: &Running, wanted: &Running) -> Vec<Row> {
    let check = "FRR redistribute kernel";
    let fix = || make_as_rendered(running, wanted);
    let Some(found) = running.under(router).find(|line| line.text.starts_with("redistribute kernel")) else {
        return vec![Row::fail(check, "missing, so no guest is announced").fix(fix())];
    };
    let text = &found.text;
    let Some(map) = text.split_whitespace().skip_while(|word| *word != "route-map").nth(1) else {
        let seen = "without a route-map: every route of the kernel is announced, also a default route";
        return vec![Row::warn(check, seen).fix(fix())];
    };
    if running.starting(&format!("route-map {map} ")).next().is_none() {
        return vec![Row::fail(check, format!("`{text}`, and there is no route-map {map}")).fix(fix())];
    }
    if map != OURS {
        let seen = format!("not checked: {map} is your own route-map; each guest's row shows whether it is announced");
        return vec![Row::warn(check, seen)];
    }
    let check_map = format!("FRR route-map {OURS}");
    let wrong = match (differences(wanted, running).first(), differences(running, wanted).first()) {
        (None, None) => return vec![Row::ok(check, text), Row::ok(check_map, "as `tap32 render frr` prints it")],
        (Some(missing), _) => format!("lacks {}", missing.shown()),
        (None, Some(surplus)) => format!("has {}, which `tap32 render frr` does not print", surplus.shown()),
    };
    vec![Row::ok(check, text), Row::fail(check_map, wrong).fix(fix())]
}

/// Lines of tap32's route-map and its prefix lists that are in one configuration and not in the other.
fn differences(one: &Running, other: &Running) -> Vec<Line> {
    let map = format!("route-map {OURS} ");
    let is_ours = |line: &&Line| line.top().starts_with(LISTS) || line.top().starts_with(&map);
    one.0.iter().filter(is_ours).filter(|line| !other.has(line)).cloned().collect()
}

/// The shell line that makes the route-map and `redistribute kernel` what `render frr` prints. FRR never lacks the map.
fn make_as_rendered(running: &Running, wanted: &Running) -> String {
    let missing = differences(wanted, running);
    let surplus = differences(running, wanted);
    let replaced = |line: &Line| missing.iter().any(|new| number(new) == number(line));
    let (tops, inside): (Vec<_>, Vec<_>) = surplus.iter().partition(|line| line.under.is_empty());
    // The lines of an entry are deleted with it.
    let inside = inside.into_iter().filter(|line| wanted.has(&Line::new(&[], &line.under[0])));
    let tops = tops.into_iter().filter(|line| !replaced(line));
    let redistribute = wanted.starting("redistribute kernel").filter(|line| !running.has(line));
    let mut lines: Vec<Line> = inside.map(Line::no).collect();
    lines.extend(missing.iter().cloned());
    lines.extend(tops.map(Line::no));
    lines.extend(redistribute.cloned());
    enter(&lines)
}

/// Name and number of an entry at the top; a new one with both takes the old one's place.
fn number(line: &Line) -> Option<(&str, &str)> {
    match line.text.split_whitespace().collect::<Vec<_>>()[..] {
        ["ip", "prefix-list", name, "seq", number, ..] | ["route-map", name, _, number] => Some((name, number)),
        _ => None,
    }
}

/// A summary over guests hides every /32 that it covers.
fn summaries(config: &Config, router: &str, running: &Running) -> Vec<Row> {
    let check = "FRR summaries";
    let guests: Vec<Ipv4Net> = config.bridges.iter().flat_map(|bridge| bridge.guest_prefixes(&[])).collect();
    let hides = |line: &&Line| {
        let (["summary-address", prefix, ..] | ["aggregate-address", prefix, .., "summary-only"]) =
            line.text.split_whitespace().collect::<Vec<_>>()[..]
        else {
            return false;
        };
        let is_over = |prefix: Ipv4Net| guests.iter().any(|net| net.contains(&prefix) || prefix.contains(net));
        prefix.parse().is_ok_and(is_over)
    };
    let row = |found: &Line| {
        let seen = format!("`{}` hides the /32s of the guests that it covers", found.text);
        Row::fail(check, seen).fix(enter([&found.no()]))
    };
    let rows: Vec<Row> = running.under(router).filter(hides).map(row).collect();
    if rows.is_empty() { vec![Row::ok(check, "none covers a guest")] } else { rows }
}
