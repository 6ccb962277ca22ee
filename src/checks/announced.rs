//! Whether a guest's route would be announced: `redistribute kernel`, its filter, and what hides /32s.

use ipnet::Ipv4Net;

use super::facts::Facts;
use super::row::Row;
use crate::config::{BridgeConfig, Config, FabricProtocol};
use crate::fabric::running_config::{Guest, Line, Passage, Running, enter, passage};

/// The route-map that `render frr` writes.
const OURS: &str = "TAP32-GUESTS";
const LISTS: &str = "ip prefix-list TAP32-";

pub fn rows(config: &Config, facts: &Facts, running: &Running, wanted: &Running) -> Vec<Row> {
    let checks = Checks { config, facts, running, wanted };
    let mut rows = checks.redistribution();
    rows.extend(checks.summaries());
    rows
}

struct Checks<'a> {
    config: &'a Config,
    facts: &'a Facts,
    running: &'a Running,
    /// What `tap32 render frr` prints.
    wanted: &'a Running,
}

impl Checks<'_> {
    fn router(&self) -> &'static str {
        match self.config.fabric.protocol {
            FabricProtocol::Ospf => "router ospf",
            FabricProtocol::Bgp => "router bgp",
        }
    }

    fn redistribution(&self) -> Vec<Row> {
        let check = "FRR redistribute kernel";
        let found = self.running.under(self.router()).find(|line| line.text.starts_with("redistribute kernel"));
        let Some(found) = found else {
            return vec![Row::fail(check, "missing: no guest is announced", Some(self.mend()))];
        };
        let mut words = found.text.split_whitespace().skip_while(|word| *word != "route-map");
        let Some(map) = words.nth(1) else {
            let seen = "without a route-map: whatever the kernel has is announced, a default route too";
            return vec![Row::warn(check, seen, Some(self.mend()))];
        };
        let mut rows = vec![Row::ok(check, found.text.clone())];
        for bridge in &self.config.bridges {
            rows.extend(self.prefixes(bridge).iter().map(|prefix| self.passes(map, bridge, prefix)));
        }
        rows
    }

    /// What guests of a bridge may have: as configured, else the bridge's own subnets.
    fn prefixes(&self, bridge: &BridgeConfig) -> Vec<Ipv4Net> {
        if !bridge.prefixes.is_empty() {
            return bridge.prefixes.clone();
        }
        if let Some(gateway) = bridge.gateway {
            return vec![gateway.trunc()];
        }
        let found = self.facts.snapshot.bridge(&bridge.name);
        found.map_or_else(Vec::new, |found| found.addresses.iter().map(Ipv4Net::trunc).collect())
    }

    /// A guest that could be there is sent through the filter.
    fn passes(&self, map: &str, bridge: &BridgeConfig, prefix: &Ipv4Net) -> Row {
        let check = format!("FRR announces guests in {prefix}");
        let gateway = bridge.gateway.map(|gateway| gateway.addr());
        let address = prefix.hosts().find(|address| Some(*address) != gateway).unwrap_or(prefix.addr());
        let guest = Guest { address, bridge: &bridge.name, metric: self.config.settled_metric() & 0x00ff_ffff };
        let lost =
            |why: String, mend| Row::fail(&check, format!("{address} does not pass route-map {map}: {why}"), mend);
        match passage(self.running, map, &guest) {
            Passage::Passes => Row::ok(check, format!("{address} passes route-map {map}")),
            Passage::Unknown(line) => Row::warn(check, format!("not checked: `{line}` is beyond this check"), None),
            // Somebody's own, and meant for something.
            Passage::Denied(entry) if map != OURS => lost(format!("`{entry}`"), None),
            Passage::Denied(entry) => lost(format!("`{entry}`"), Some(self.mend())),
            Passage::Unmatched => lost("nothing in it is for it".into(), Some(self.mend())),
        }
    }

    /// Makes our filter and `redistribute kernel` what `render frr` prints, without ever being without one.
    fn mend(&self) -> String {
        let ours = |all: &Running, other: &Running| -> Vec<Line> {
            all.0.iter().filter(|line| is_ours(line) && !other.has(line)).cloned().collect()
        };
        let missing = ours(self.wanted, self.running);
        let surplus = ours(self.running, self.wanted);
        let replaced = |line: &Line| missing.iter().any(|new| number(new) == number(line));
        let (tops, inside): (Vec<_>, Vec<_>) = surplus.iter().partition(|line| line.under.is_empty());
        // What stands in an entry that goes, or is replaced, goes with it.
        let inside = inside.into_iter().filter(|line| self.wanted.has(&Line::new(&[], &line.under[0])));
        let tops = tops.into_iter().filter(|line| !replaced(line));
        let redistribute = self.wanted.starting("redistribute kernel").filter(|line| !self.running.has(line));
        let mut lines: Vec<Line> = inside.map(Line::no).collect();
        lines.extend(missing.iter().cloned());
        lines.extend(tops.map(Line::no));
        lines.extend(redistribute.cloned());
        enter(&lines)
    }

    /// A summary over guests hides every /32 that it covers.
    fn summaries(&self) -> Vec<Row> {
        let check = "FRR summaries";
        let guests: Vec<Ipv4Net> = self.config.bridges.iter().flat_map(|bridge| self.prefixes(bridge)).collect();
        let hides = |line: &&Line| {
            let words: Vec<&str> = line.text.split_whitespace().collect();
            let prefix = match words[..] {
                ["summary-address", prefix, ..] => prefix,
                ["aggregate-address", prefix, .., "summary-only"] => prefix,
                _ => return false,
            };
            let prefix: Option<Ipv4Net> = prefix.parse().ok();
            prefix.is_some_and(|prefix| guests.iter().any(|guests| guests.contains(&prefix) || prefix.contains(guests)))
        };
        let row = |found: &Line| {
            let seen = format!("`{}` hides the guests' /32s that it covers", found.text);
            let mend = enter([&found.no()]);
            Row::fail(check, seen, Some(mend))
        };
        let rows: Vec<Row> = self.running.under(self.router()).filter(hides).map(row).collect();
        if rows.is_empty() { vec![Row::ok(check, "none over guests")] } else { rows }
    }
}

/// A line of the lists and the route-map that `render frr` writes for guests.
fn is_ours(line: &Line) -> bool {
    let top = line.under.first().unwrap_or(&line.text);
    top.starts_with(LISTS) || top.starts_with(&format!("route-map {OURS} "))
}

/// Name and number of an entry at the top; a new one with both takes the old one's place.
fn number(line: &Line) -> Option<(&str, &str)> {
    match line.text.split_whitespace().collect::<Vec<_>>()[..] {
        ["ip", "prefix-list", name, "seq", number, ..] | ["route-map", name, _, number] => Some((name, number)),
        _ => None,
    }
}
