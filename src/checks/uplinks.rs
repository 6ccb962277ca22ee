//! Each uplink in FRR's eyes: spoken over, its neighbour there, watched by BFD with the configured timers.

use serde_json::Value;

use super::row::{Row, Verdict};
use crate::config::{Bfd, Config, FabricProtocol, Uplink};
use crate::fabric::answers::{Answers, BFD, BGP, OSPF_INTERFACES, OSPF_NEIGHBOURS};
use crate::fabric::running_config::{Line, Running, enter};

pub fn rows(config: &Config, answers: &Answers, running: &Running, wanted: &Running) -> Vec<Row> {
    let checks = Checks { config, answers, running, wanted };
    config.uplinks.iter().flat_map(|uplink| checks.uplink(uplink)).collect()
}

struct Checks<'a> {
    config: &'a Config,
    answers: &'a Answers,
    running: &'a Running,
    /// What `tap32 render frr` prints.
    wanted: &'a Running,
}

impl Checks<'_> {
    fn uplink(&self, uplink: &Uplink) -> Vec<Row> {
        match self.config.fabric.protocol {
            FabricProtocol::Ospf => vec![self.ospf(uplink), self.ospf_neighbour(uplink), self.bfd(uplink)],
            FabricProtocol::Bgp => vec![self.bgp_neighbour(uplink), self.bgp_policy(uplink), self.bfd(uplink)],
        }
    }

    /// Everything that the configuration says of one uplink.
    fn all_of(&self, uplink: &Uplink) -> Vec<Line> {
        match self.config.fabric.protocol {
            FabricProtocol::Ospf => {
                let top = format!("interface {}", uplink.name);
                self.wanted.under(&top).filter(|line| line.under[0] == top).cloned().collect()
            }
            FabricProtocol::Bgp => {
                let words = format!("neighbor {} ", uplink.peer);
                self.wanted.starting(&words).cloned().collect()
            }
        }
    }

    /// OSPF is on, as on a link between two, with hello and dead intervals as rendered, and speaks.
    fn ospf(&self, uplink: &Uplink) -> Row {
        let check = format!("{} OSPF", uplink.name);
        let answer = match self.answers.json(OSPF_INTERFACES) {
            Ok(answer) => answer,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let found = &answer["interfaces"][&uplink.name];
        let mut lines = self.all_of(uplink);
        if found["ospfEnabled"] != true {
            return Row::fail(check, "is not spoken here", self.running.complete(&lines));
        }
        if found["timerPassiveIface"] == true {
            let top = format!("interface {}", uplink.name);
            let seen = "passive: drained, or somebody's mistake";
            return Row::fail(check, seen, Some(enter([&Line::new(&[&top], "no ip ospf passive")])));
        }
        let interval = |words: &str| {
            let line = lines.iter().find(|line| line.text.starts_with(words))?;
            line.text.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let (hello, dead) = (interval("ip ospf hello-interval"), interval("ip ospf dead-interval"));
        let (has_hello, has_dead) = (found["timerMsecs"].as_u64().map(|ms| ms / 1000), found["timerDeadSecs"].as_u64());
        if (has_hello, has_dead) != (hello, dead) {
            let shown = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
            let seen = format!(
                "hello {} s and dead {} s instead of {} and {}, which both ends must have",
                shown(has_hello),
                shown(has_dead),
                shown(hello),
                shown(dead)
            );
            return self.at_both_ends(Row::fail(check, seen, self.running.complete(&lines)), uplink);
        }
        if found["networkType"] != "POINTOPOINT" {
            lines.retain(|line| line.text.starts_with("ip ospf network"));
            let seen = format!("network type {}: electing a designated router takes seconds", found["networkType"]);
            return self.at_both_ends(Row::warn(check, seen, self.running.complete(&lines)), uplink);
        }
        Row::ok(check, "point-to-point")
    }

    /// What both ends must have: changed at one of two that agree, it would end what works.
    fn at_both_ends(&self, row: Row, uplink: &Uplink) -> Row {
        if self.ospf_neighbour(uplink).verdict != Verdict::Ok {
            return row;
        }
        let seen = format!(
            "{}; its neighbour is Full: `tap32 uplink drain {}`, then change both ends, the switch's as `tap32 render \
             switch` has it",
            row.seen, uplink.name
        );
        Row { seen, mend: None, ..row }
    }

    fn ospf_neighbour(&self, uplink: &Uplink) -> Row {
        let check = format!("{} neighbour", uplink.name);
        let answer = match self.answers.json(OSPF_NEIGHBOURS) {
            Ok(answer) => answer,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let routers = answer["neighbors"].as_object().into_iter().flat_map(|routers| routers.values());
        let mut neighbours = routers.filter_map(Value::as_array).flatten();
        let over = format!("{}:", uplink.name);
        let peer = uplink.peer.to_string();
        let is_it = |neighbour: &&Value| {
            neighbour["ifaceName"].as_str().is_some_and(|name| name.starts_with(&over))
                && (neighbour["ifaceAddress"] == *peer || neighbour["address"] == *peer)
        };
        let Some(neighbour) = neighbours.find(is_it) else {
            let seen =
                format!("{peer} says nothing; what `tap32 render switch` prints for {} belongs there", uplink.name);
            return Row::fail(check, seen, None);
        };
        // `state` until FRR 8.3, `nbrState` since.
        let state = neighbour["nbrState"].as_str().or(neighbour["state"].as_str()).unwrap_or("unknown");
        let seen = format!("{peer} is {state}");
        if state.starts_with("Full") {
            return Row::ok(check, seen);
        }
        let hint = if state.starts_with("Ex") { ": do both ends have one MTU?" } else { "" };
        Row::fail(check, seen + hint, None)
    }

    fn bgp_neighbour(&self, uplink: &Uplink) -> Row {
        let check = format!("{} neighbour", uplink.name);
        let answer = match self.answers.json(BGP) {
            Ok(answer) => answer,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let peer = uplink.peer.to_string();
        let Some(state) = answer["peers"][&peer]["state"].as_str() else {
            return Row::fail(check, format!("{peer} is no neighbour of bgpd's"), self.bgp_mend(uplink));
        };
        let seen = format!("{peer} is {state}");
        match state {
            "Established" => Row::ok(check, seen),
            // "Idle (Admin)"
            _ if state.contains("Admin") => {
                let shut = self
                    .all_of(uplink)
                    .into_iter()
                    .take(1)
                    .map(|line| Line { text: format!("no neighbor {peer} shutdown"), ..line });
                Row::fail(check, seen, Some(enter(&shut.collect::<Vec<_>>())))
            }
            _ => {
                let seen = format!("{seen}; what `tap32 render switch` prints for {} belongs there", uplink.name);
                Row::fail(check, seen, None)
            }
        }
    }

    /// The policy that a neighbour names is entered with it.
    fn bgp_mend(&self, uplink: &Uplink) -> Option<String> {
        let profile = self.wanted.under("bfd").cloned();
        let lines: Vec<Line> = profile.chain(self.policy()).chain(self.all_of(uplink)).collect();
        self.running.complete(&lines)
    }

    /// The lists and route-maps of the fabric's policy.
    fn policy(&self) -> impl Iterator<Item = Line> {
        let lines = self.wanted.0.iter().filter(|line| {
            let top = line.under.first().unwrap_or(&line.text);
            ["bgp ", "route-map "].iter().any(|head| top.starts_with(head))
        });
        lines.cloned()
    }

    /// The neighbour has the route-maps by which a claim wins and a settled route yields, and not those of a drain.
    fn bgp_policy(&self, uplink: &Uplink) -> Row {
        let check = format!("{} BGP policy", uplink.name);
        let maps = format!("neighbor {} route-map ", uplink.peer);
        let named: Vec<Line> = self.all_of(uplink).into_iter().filter(|line| line.text.starts_with(&maps)).collect();
        let lines: Vec<Line> = self.policy().chain(named.iter().cloned()).collect();
        let Some(missing) = lines.iter().find(|line| !self.running.has(line)) else {
            return Row::ok(check, "as rendered");
        };
        let soft = format!("clear bgp ipv4 unicast {} soft", uplink.peer);
        let mend = self.running.complete(&lines).map(|enter| format!("{enter} -c end -c '{soft}'"));
        let there: Vec<&str> = self.running.starting(&maps).map(|line| &line.text[maps.len()..]).collect();
        if named.iter().all(|line| self.running.has(line)) {
            return Row::warn(check, format!("lacks `{}`, which `tap32 render frr` has", missing.text), mend);
        }
        let seen = match &there[..] {
            [] => "no route-map: no host would yield to a claim".to_owned(),
            some if some.iter().any(|map| map.starts_with("TAP32-DRAIN")) => "drained, or being drained".to_owned(),
            some => format!("route-map {} instead of the rendered ones", some.join(", ")),
        };
        Row::fail(check, seen, mend)
    }

    fn bfd(&self, uplink: &Uplink) -> Row {
        let check = format!("{} BFD", uplink.name);
        let answer = match self.answers.json(BFD) {
            Ok(answer) => answer,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let peer = uplink.peer.to_string();
        let sessions = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(session) = sessions.iter().find(|session| session["peer"] == *peer) else {
            let seen = format!("no session with {peer}: a silent link is noticed by the dead interval only");
            return Row::fail(check, seen, self.bfd_mend(uplink));
        };
        let Bfd { interval_ms, multiplier } = self.config.fabric.bfd;
        let right = [u64::from(interval_ms), u64::from(interval_ms), u64::from(multiplier)];
        let keys = ["receive-interval", "transmit-interval", "detect-multiplier"];
        let there = keys.map(|key| session[key].as_u64().unwrap_or_default());
        let status = session["status"].as_str().unwrap_or("unknown");
        if there != right {
            let shown = |[receive, transmit, multiplier]: [u64; 3]| format!("{receive}/{transmit} ms x {multiplier}");
            let seen = format!("{status}, {} instead of {}", shown(there), shown(right));
            return Row::fail(check, seen, self.bfd_mend(uplink));
        }
        if session["status"] != "up" {
            let why = session["remote-diagnostic"].as_str().filter(|why| *why != "ok");
            let why = why.map_or_else(String::new, |why| format!(": {why} at the other end"));
            return Row::fail(check, format!("{status}{why}"), None);
        }
        Row::ok(check, format!("up, {interval_ms} ms x {multiplier}"))
    }

    /// The profile, and the lines by which the uplink uses it.
    fn bfd_mend(&self, uplink: &Uplink) -> Option<String> {
        let uses = self.all_of(uplink).into_iter().filter(|line| line.text.contains(" bfd"));
        let profile = self.wanted.under("bfd").filter(|line| line.under.len() > 1).cloned();
        self.running.complete(&profile.chain(uses).collect::<Vec<_>>())
    }
}
