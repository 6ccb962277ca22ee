//! FRR as a whole: whether it runs, its version's hazards, its daemons and OSPF's timers. `uplinks` has each uplink,
//! `announced` what FRR may announce, `guests` each guest.

use super::facts::Facts;
use super::row::{Row, Verdict};
use super::{announced, uplinks};
use crate::config::{BridgeConfig, Config, FabricProtocol};
use crate::fabric::answers::{Answers, DAEMONS, RUNNING, VERSION, version_number};
use crate::fabric::render;
use crate::fabric::running_config::{Line, Running, enter};
use crate::text::quote;

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let Some(answers) = &facts.frr else { return vec![absent(config)] };
    let version = match answers.get(&VERSION) {
        Ok(version) => version,
        Err(error) => return vec![silent(config, facts, &error)],
    };
    let mut rows = hazards(config, facts, answers, &version);
    rows.insert(0, Row::ok("FRR", &version));
    if config.uplinks.is_empty() {
        rows.push(Row::not_checked("FRR uplinks", "the configuration has no [[uplink]]"));
        return rows;
    }
    let daemons = daemons(config, facts, answers, &version);
    let all_run = daemons.iter().all(|row| row.verdict == Verdict::Ok);
    rows.extend(daemons);
    let configurations = if all_run { configurations(config, answers) } else { Err("a daemon is missing".into()) };
    match configurations {
        Ok((running, wanted)) => {
            rows.extend(uplinks::rows(config, answers, &running, &wanted));
            if config.fabric.protocol == FabricProtocol::Ospf {
                rows.extend(timers(&running, &wanted));
            }
            rows.extend(announced::rows(config, &running, &wanted));
        }
        Err(error) => rows.push(Row::not_checked("FRR's configuration and neighbours", error)),
    }
    rows
}

/// What FRR has, and what `render frr` prints.
fn configurations(config: &Config, answers: &Answers) -> Result<(Running, Running), String> {
    let running = answers.get(&RUNNING)?;
    let wanted = render::frr::render(config).map_err(|error| format!("{error:#}"))?;
    Ok((running, Running::parse(&wanted)))
}

fn absent(config: &Config) -> Row {
    if config.uplinks.is_empty() {
        return Row::ok("FRR", "not installed, and no uplink is configured");
    }
    Row::fail("FRR", "not installed (no vtysh), so no guest is announced").fix("apt-get install -y frr".to_owned())
}

fn silent(config: &Config, facts: &Facts, error: &str) -> Row {
    if !facts.root {
        return Row::not_checked("FRR", error);
    }
    let verdict = if config.uplinks.is_empty() { Row::warn } else { Row::fail };
    verdict("FRR", format!("does not run: {error}")).fix(facts.restart("frr"))
}

/// What a version does to guests' routes: from 10.3 on zebra takes a kernel route only while its interface has carrier or
/// `no link-detect` (FRR commit b9538fe481), from 10.7 on only while it has an IPv4 address (506c9aa487).
fn hazards(config: &Config, facts: &Facts, answers: &Answers, version: &str) -> Vec<Row> {
    let Some(number) = version_number(version) else {
        return vec![Row::not_checked("FRR's version", "`show version` names none")];
    };
    let running = answers.get(&RUNNING).ok();
    let judge = |bridge: &BridgeConfig| {
        let name = &bridge.name;
        let detects = Line::new(&[&format!("interface {name}")], "no link-detect");
        let check = format!("FRR's version and {name}");
        let found = facts.host.interfaces.iter().find(|interface| interface.name == *name)?;
        let mut routes = facts.snapshot.owned_routes(config.protocol);
        let index = facts.snapshot.bridge(name).map(|bridge| bridge.index);
        let has_guests = index.is_some() && routes.any(|route| route.dev == index);
        Some(if number >= (10, 7) && found.addresses.is_empty() {
            let fix = bridge.address().map(|address| format!("ip addr add {address} dev {}", quote(name)));
            Row::fail(check, "this version drops routes through an interface without an IPv4 address").fix(fix)
        } else if number >= (10, 3) && running.as_ref().is_none_or(|running| !running.has(&detects)) {
            let ignores = "this version ignores routes through a bridge without carrier";
            let (verdict, seen): (fn(_, _) -> Row, _) = match found.carrier || !has_guests {
                true => (Row::warn, format!("{ignores}, which {name} lacks while no guest runs")),
                false => (Row::fail, format!("{ignores}, and {name} has none")),
            };
            verdict(check, seen).fix(enter([&detects]))
        } else {
            Row::ok(check, "no hazard known")
        })
    };
    config.bridges.iter().filter_map(judge).collect()
}

/// From 10.0 on zebra has its interfaces, prefix lists and route-maps of mgmtd (FRR commit 3900813298): while mgmtd is dead
/// vtysh takes such a line, exits with 0, and changes nothing.
fn daemons(config: &Config, facts: &Facts, answers: &Answers, version: &str) -> Vec<Row> {
    let running = match answers.get(&DAEMONS) {
        Ok(daemons) => daemons,
        Err(error) => return vec![Row::not_checked("FRR daemons", error)],
    };
    let routing = match config.fabric.protocol {
        FabricProtocol::Ospf => "ospfd",
        FabricProtocol::Bgp => "bgpd",
    };
    let row = |name: &str| {
        let check = format!("FRR {name}");
        if running.iter().any(|daemon| daemon == name) {
            return Row::ok(check, "runs");
        }
        let restart = facts.restart("frr");
        // These two have no line of their own: FRR always starts them.
        let fix = match name {
            "zebra" | "mgmtd" => restart,
            _ => format!("sed -i 's/^{name}=.*/{name}=yes/' /etc/frr/daemons && {restart}"),
        };
        Row::fail(check, "does not run").fix(fix)
    };
    let mgmtd = version_number(version).is_some_and(|number| number >= (10, 0)).then_some("mgmtd");
    mgmtd.into_iter().chain(["zebra", routing, "bfdd"]).map(row).collect()
}

/// The timers of `router ospf`, each as `render frr` has it.
fn timers(running: &Running, wanted: &Running) -> Vec<Row> {
    let row = |(key, why): (&str, &str)| {
        let check = format!("OSPF {key}");
        let line = wanted.starting(key).next()?;
        Some(match running.differs(line, key) {
            None => Row::ok(check, &line.text),
            Some(differs) => Row::fail(check, format!("{differs}: {why}")).fix(enter([line])),
        })
    };
    let timers = [
        ("timers throttle spf", "a failed uplink is noticed later"),
        ("timers throttle lsa all", "an address that comes back waits up to 5 s"),
        ("timers lsa min-arrival", "updates that follow each other fast are thrown away"),
    ];
    timers.into_iter().filter_map(row).collect()
}
