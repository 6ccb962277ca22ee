//! How the host looks, by `ip`, `tc` and `bridge`, and the first difference from what the model expects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::common::{guard, string};
use crate::model::{Expected, Guest, Port, Route};
use crate::stage::Stage;

pub struct Seen {
    /// tap32's routes.
    routes: BTreeSet<Route>,
    /// Destinations of the fabric's routes.
    elsewhere: BTreeSet<String>,
    /// Taps by name, each with its guard's program where it was asked for.
    taps: BTreeMap<String, Value>,
    neighbours: BTreeSet<(String, String)>,
    guards: BTreeMap<String, String>,
}

fn list(text: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    all.as_array().cloned().unwrap_or_default()
}

impl Seen {
    pub fn now(stage: &mut Stage) -> Self {
        let (_, said) =
            stage.shell("ip -j route show table main; ip -j -d link show; ip -j neigh show nud permanent; echo");
        let mut lines = said.lines();
        let mut next = || list(lines.next().unwrap());
        let (routes, links, neighbours) = (next(), next(), next());
        let mut seen = Self {
            routes: BTreeSet::new(),
            elsewhere: BTreeSet::new(),
            taps: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            guards: BTreeMap::new(),
        };
        for route in routes {
            let destination = string(&route["dst"]);
            if route["protocol"] == "132" || route["protocol"] == "tap32" {
                let metric = route["metric"].as_u64().unwrap_or(0);
                seen.routes.insert((destination, string(&route["dev"]), metric));
            } else if route["protocol"] == "ospf" {
                seen.elsewhere.insert(destination);
            }
        }
        for link in links.into_iter().filter(|link| link["linkinfo"]["info_kind"] == "tun") {
            seen.taps.insert(string(&link["ifname"]), link);
        }
        for entry in neighbours.iter().filter(|entry| entry["protocol"] == "132" || entry["protocol"] == "tap32") {
            seen.neighbours.insert((string(&entry["dst"]), string(&entry["dev"])));
        }
        seen
    }

    /// Adds the programs of the guards of these taps.
    fn ask_guards<'a>(&mut self, stage: &mut Stage, taps: impl Iterator<Item = &'a String>) {
        let taps: Vec<&String> = taps.collect();
        let questions: String = taps.iter().map(|tap| format!("filter show dev {tap} ingress\\n")).collect();
        let (_, said) = stage.shell(&format!("printf '{questions}' | tc -j -force -batch -; echo"));
        let answers = said.lines().filter(|line| line.starts_with('['));
        for (tap, answer) in taps.into_iter().zip(answers) {
            self.guards.insert(tap.clone(), guard::typed(&list(answer)));
        }
    }

    fn port(&self, name: &str, like: &Port) -> Option<Port> {
        let link = self.taps.get(name)?;
        let is_up = link["flags"].as_array().unwrap().contains(&"UP".into());
        let master = link["master"].as_str();
        let bridge = crate::model::BRIDGES.into_iter().find(|bridge| Some(*bridge) == master);
        let isolated = link["linkinfo"]["info_slave_data"]["isolated"] == true;
        let guard = like.guard.map(|wanted| {
            let program = &self.guards[name];
            let is_right = |guest: &Guest| *program == guard::program(&guest.mac());
            match wanted {
                None if !program.is_empty() => Some(Guest { bridge: 9, last: 9 }),
                Some(guest) if !is_right(&guest) => None,
                wanted => wanted,
            }
        });
        Some(Port {
            bridge,
            up: is_up,
            mac: like.mac.as_ref().map(|_| string(&link["address"])),
            isolated: like.isolated.map(|_| isolated),
            guard,
        })
    }
}

/// The first thing that is not as it should be.
pub fn difference(expected: &Expected, stage: &mut Stage) -> Option<String> {
    let mut seen = Seen::now(stage);
    let (wanted, there) = (&expected.routes, &seen.routes);
    if let Some(missing) = wanted.difference(there).next() {
        return Some(format!("no route {missing:?}"));
    }
    if let Some(extra) = there.iter().find(|route| !wanted.contains(*route) && !expected.perhaps.contains(*route)) {
        return Some(format!("a route too much: {extra:?}"));
    }
    if expected.elsewhere != seen.elsewhere {
        return Some(format!("the fabric's routes are {:?}, not {:?}", seen.elsewhere, expected.elsewhere));
    }
    if let Some(tap) = seen.taps.keys().find(|tap| !expected.ports.contains_key(*tap)) {
        return Some(format!("a tap too much: {tap}"));
    }
    if let Some(missing) = expected.neighbours.difference(&seen.neighbours).next() {
        return Some(format!("no neighbour entry {missing:?}"));
    }
    let is_allowed = |entry: &&(String, String)| {
        !expected.neighbours.contains(*entry) && !expected.perhaps_neighbours.contains(*entry)
    };
    if let Some(extra) = seen.neighbours.iter().find(is_allowed) {
        return Some(format!("a neighbour entry too much: {extra:?}"));
    }
    let guarded = expected.ports.iter().filter(|(name, port)| port.guard.is_some() && seen.taps.contains_key(*name));
    let guarded: Vec<String> = guarded.map(|(name, _)| name.clone()).collect();
    seen.ask_guards(stage, guarded.iter());
    expected.ports.iter().find_map(|(name, wanted)| {
        let port = seen.port(name, wanted);
        (port.as_ref() != Some(wanted)).then(|| format!("{name} is {port:?}, not {wanted:?}"))
    })
}
