//! Each uplink in FRR's eyes: spoken over, its neighbour there, watched by BFD with the configured timers.

use super::row::{Row, Verdict};
use crate::config::{Bfd, Config, FabricProtocol, Uplink};
use crate::fabric::answers::{Answers, bfd, bgp, ospf};
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
        let interfaces = match self.answers.get(&ospf::INTERFACES) {
            Ok(interfaces) => interfaces,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let lines = self.all_of(uplink);
        let Some(found) = interfaces.of(uplink) else {
            return Row::fail(check, "is not spoken here", self.running.complete(&lines));
        };
        if found.is_passive {
            let top = format!("interface {}", uplink.name);
            let seen = "passive: drained, or somebody's mistake";
            return Row::fail(check, seen, Some(enter([&Line::new(&[&top], "no ip ospf passive")])));
        }
        // Both ends must have these alike.
        let keys = ["ip ospf network", "ip ospf hello-interval", "ip ospf dead-interval"];
        let line = |key| lines.iter().find(|line| line.text.starts_with(key));
        let differs = keys.into_iter().find_map(|key| self.running.differs(line(key)?, key));
        let Some(differs) = differs else { return Row::ok(check, "point-to-point") };
        if self.ospf_neighbour(uplink).verdict != Verdict::Ok {
            return Row::fail(check, differs, self.running.complete(&lines));
        }
        // Changed at one of two ends that agree, it would end what works.
        let seen = format!(
            "{differs}; its neighbour is Full: `tap32 uplink drain {}`, then change both ends, the switch's as `tap32 render \
             switch` has it",
            uplink.name
        );
        Row::warn(check, seen, None)
    }

    fn ospf_neighbour(&self, uplink: &Uplink) -> Row {
        let check = format!("{} neighbour", uplink.name);
        let neighbours = match self.answers.get(&ospf::NEIGHBOURS) {
            Ok(neighbours) => neighbours,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let (peer, state) = (uplink.peer, neighbours.state(uplink));
        let seen = format!("{peer} is {state}");
        match state {
            "Full" => return Row::ok(check, seen),
            "none" => {
                let seen =
                    format!("{peer} says nothing; what `tap32 render switch` prints for {} belongs there", uplink.name);
                return Row::fail(check, seen, None);
            }
            _ => {}
        }
        let hint = if state.starts_with("Ex") { ": do both ends have one MTU?" } else { "" };
        Row::fail(check, seen + hint, None)
    }

    fn bgp_neighbour(&self, uplink: &Uplink) -> Row {
        let check = format!("{} neighbour", uplink.name);
        let neighbours = match self.answers.get(&bgp::NEIGHBOURS) {
            Ok(neighbours) => neighbours,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let peer = uplink.peer;
        let Some(found) = neighbours.of(uplink) else {
            return Row::fail(check, format!("{peer} is no neighbour of bgpd's"), self.bgp_fix(uplink));
        };
        let seen = format!("{peer} is {}", found.state);
        if found.is_shut_down {
            let top = self.all_of(uplink).into_iter().take(1);
            let open = top.map(|line| Line { text: format!("no neighbor {peer} shutdown"), ..line });
            return Row::fail(check, seen + " (Admin)", Some(enter(&open.collect::<Vec<_>>())));
        }
        if found.state == "Established" {
            return Row::ok(check, seen);
        }
        let seen = format!("{seen}; what `tap32 render switch` prints for {} belongs there", uplink.name);
        Row::fail(check, seen, None)
    }

    /// The policy that a neighbour names is entered with it.
    fn bgp_fix(&self, uplink: &Uplink) -> Option<String> {
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
        let fix = self.running.complete(&lines).map(|enter| format!("{enter} -c end -c '{soft}'"));
        let is_drained = self.answers.get(&bgp::NEIGHBOURS).is_ok_and(|neighbours| neighbours.is_drained(uplink));
        let there: Vec<&str> = self.running.starting(&maps).map(|line| &line.text[maps.len()..]).collect();
        if named.iter().all(|line| self.running.has(line)) {
            return Row::warn(check, format!("lacks `{}`, which `tap32 render frr` has", missing.text), fix);
        }
        let seen = match &there[..] {
            [] => "no route-map: no host would yield to a claim".to_owned(),
            _ if is_drained => "drained, or being drained".to_owned(),
            some => format!("route-map {} instead of the rendered ones", some.join(", ")),
        };
        Row::fail(check, seen, fix)
    }

    fn bfd(&self, uplink: &Uplink) -> Row {
        let check = format!("{} BFD", uplink.name);
        let sessions = match self.answers.get(&bfd::SESSIONS) {
            Ok(sessions) => sessions,
            Err(error) => return Row::warn(check, format!("not checked: {error}"), None),
        };
        let Some(session) = sessions.of(uplink) else {
            let peer = uplink.peer;
            let seen = format!("no session with {peer}: a silent link is noticed by the dead interval only");
            return Row::fail(check, seen, self.bfd_fix(uplink));
        };
        let Bfd { interval_ms, multiplier } = self.config.fabric.bfd;
        let right = (Some(interval_ms), Some(interval_ms), Some(multiplier));
        let there = (session.receive_interval, session.transmit_interval, session.detect_multiplier);
        let status = &session.status;
        if there != right {
            let shown = |(receive, transmit, multiplier): (Option<u32>, Option<u32>, Option<u8>)| {
                let (receive, transmit) = (receive.unwrap_or_default(), transmit.unwrap_or_default());
                format!("{receive}/{transmit} ms x {}", multiplier.unwrap_or_default())
            };
            let seen = format!("{status}, {} instead of {}", shown(there), shown(right));
            return Row::fail(check, seen, self.bfd_fix(uplink));
        }
        if status != "up" {
            let why = session.remote_diagnostic.as_deref().filter(|why| *why != "ok");
            let why = why.map_or_else(String::new, |why| format!(": {why} at the other end"));
            return Row::fail(check, format!("{status}{why}"), None);
        }
        Row::ok(check, format!("up, {interval_ms} ms x {multiplier}"))
    }

    /// The profile, and the lines by which the uplink uses it.
    fn bfd_fix(&self, uplink: &Uplink) -> Option<String> {
        let uses = self.all_of(uplink).into_iter().filter(|line| line.text.contains(" bfd"));
        let profile = self.wanted.under("bfd").filter(|line| line.under.len() > 1).cloned();
        self.running.complete(&profile.chain(uses).collect::<Vec<_>>())
    }
}
