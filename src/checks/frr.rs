//! FRR as a whole: whether it runs, which daemons, its version's hazards, its timers. `uplinks` has each uplink,
//! `announce` what is announced, `guests` what became of each guest.

use super::facts::Facts;
use super::row::{Row, Verdict};
use super::{announced, uplinks};
use crate::config::{Config, FabricProtocol};
use crate::fabric::answers::{Answers, DAEMONS, RUNNING, VERSION, Version};
use crate::fabric::render;
use crate::fabric::running_config::{Running, enter};

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let Some(answers) = &facts.frr else { return vec![absent(config)] };
    let version = match answers.get(&VERSION) {
        Ok(version) => version,
        Err(error) => return vec![silent(config, facts, &error)],
    };
    let mut rows = vec![Row::ok("FRR", &version.0)];
    rows.extend(hazards(config, facts, &version));
    if config.uplinks.is_empty() {
        rows.push(Row::warn(
            "FRR uplinks",
            "none is configured, so nothing more is checked: [[uplink]] names them",
            None,
        ));
        return rows;
    }
    let daemons = daemons(config, facts, answers);
    let all_run = daemons.iter().all(|row| row.verdict == Verdict::Ok);
    rows.extend(daemons);
    let configurations = if all_run { configurations(config, answers) } else { Err("a daemon is missing".into()) };
    let (running, wanted) = match configurations {
        Ok(both) => both,
        Err(error) => {
            rows.push(Row::warn("FRR's configuration and neighbours", format!("not checked: {error}"), None));
            return rows;
        }
    };
    rows.extend(uplinks::rows(config, answers, &running, &wanted));
    if config.fabric.protocol == FabricProtocol::Ospf {
        rows.extend(timers(&running, &wanted));
    }
    rows.extend(announced::rows(config, &running, &wanted));
    rows
}

/// What FRR has, and what `render frr` would have it be.
fn configurations(config: &Config, answers: &Answers) -> Result<(Running, Running), String> {
    let running = answers.get(&RUNNING)?;
    let wanted = render::frr::render(config).map_err(|error| format!("{error:#}"))?;
    Ok((running, Running::parse(&wanted)))
}

fn absent(config: &Config) -> Row {
    if config.uplinks.is_empty() {
        return Row::ok("FRR", "not here, and no uplink is configured");
    }
    let fix = "apt-get install -y frr".to_owned();
    Row::fail("FRR", "not here (there is no vtysh), so nobody is told of the guests", Some(fix))
}

fn silent(config: &Config, facts: &Facts, error: &str) -> Row {
    if !facts.root {
        return Row::warn("FRR", format!("not checked: vtysh takes root or the group frrvty ({error})"), None);
    }
    let start = if facts.systemd { "systemctl restart frr" } else { "service frr restart" };
    let verdict = if config.uplinks.is_empty() { Row::warn } else { Row::fail };
    verdict("FRR".to_owned(), format!("does not run: {error}"), Some(start.to_owned()))
}

/// What FACTS.md knows of versions: FRR >= 10.3 holds a route through a bridge without carrier inactive, 10.7 drops
/// kernel routes on an interface without IPv4.
fn hazards(config: &Config, facts: &Facts, version: &Version) -> Vec<Row> {
    let check = |bridge: &str| format!("FRR's version and {bridge}");
    let Some(number) = version.number() else {
        return vec![Row::warn("FRR's version", "not checked: `show version` names none", None)];
    };
    let judge = |bridge: &crate::config::BridgeConfig| {
        let found = facts.host.interfaces.iter().find(|interface| interface.name == bridge.name)?;
        let has_guests = facts.snapshot.bridge(&bridge.name).is_some_and(|bridge| {
            facts.snapshot.owned_routes(config.protocol).any(|route| route.dev == Some(bridge.index))
        });
        Some(if number >= (10, 7) && found.addresses.is_empty() {
            let fix =
                bridge.gateway.map(|gateway| format!("ip addr add {gateway} dev {}", crate::text::quote(&bridge.name)));
            Row::fail(check(&bridge.name), "from 10.7 on zebra drops kernel routes on an interface without IPv4", fix)
        } else if number >= (10, 3) && !found.carrier && has_guests {
            let seen = "from 10.3 on zebra holds routes through a bridge without carrier inactive, and it has none";
            Row::fail(check(&bridge.name), seen, None)
        } else {
            Row::ok(check(&bridge.name), "no hazard known")
        })
    };
    config.bridges.iter().filter_map(judge).collect()
}

fn daemons(config: &Config, facts: &Facts, answers: &Answers) -> Vec<Row> {
    let running = match answers.get(&DAEMONS) {
        Ok(daemons) => daemons,
        Err(error) => return vec![Row::warn("FRR daemons", format!("not checked: {error}"), None)],
    };
    let routing = match config.fabric.protocol {
        FabricProtocol::Ospf => "ospfd",
        FabricProtocol::Bgp => "bgpd",
    };
    let row = |name: &str| {
        if running.has(name) {
            return Row::ok(format!("FRR {name}"), "runs");
        }
        let restart = if facts.systemd { "systemctl restart frr" } else { "service frr restart" };
        // zebra has no line of its own: it always runs.
        let fix = format!("sed -i 's/^{name}=.*/{name}=yes/' /etc/frr/daemons && {restart}");
        Row::fail(format!("FRR {name}"), "does not run", Some(fix))
    };
    ["zebra", routing, "bfdd"].map(row).into()
}

/// The timers of `router ospf`, each as `render frr` has it.
fn timers(running: &Running, wanted: &Running) -> Vec<Row> {
    let row = |(key, why): (&str, &str)| {
        let check = format!("OSPF {key}");
        let line = wanted.starting(key).next()?;
        Some(match running.differs(line, key) {
            None => Row::ok(check, &line.text),
            Some(differs) => Row::fail(check, format!("{differs}: {why}"), Some(enter([line]))),
        })
    };
    let timers = [
        ("timers throttle spf", "a failed uplink is noticed later"),
        ("timers throttle lsa all", "an address that comes back waits up to 5 s"),
        ("timers lsa min-arrival", "a neighbour's news that comes fast is thrown away"),
    ];
    timers.into_iter().filter_map(row).collect()
}
