//! Each uplink as FRR has it: the protocol runs on it, its neighbour is up, BFD watches it with the configured timers.

use super::row::Row;
use crate::config::{Bfd, Config, FabricProtocol, Uplink};
use crate::fabric::answers::{Answers, bfd, bgp, ospf};
use crate::fabric::running_config::{Line, Running, enter};

pub fn rows(config: &Config, answers: &Answers, running: &Running, wanted: &Running) -> Vec<Row> {
    let checks = |uplink| Checks { config, answers, running, wanted, uplink }.rows();
    config.uplinks.iter().flat_map(checks).collect()
}

/// The checks of one uplink.
struct Checks<'a> {
    config: &'a Config,
    answers: &'a Answers,
    running: &'a Running,
    /// What `tap32 render frr` prints.
    wanted: &'a Running,
    uplink: &'a Uplink,
}

/// Judges under the name of the check. An error is why it cannot.
type Judge<'a> = fn(&Checks<'a>, String) -> Result<Row, String>;

const DRAINED: &str = "drained by `tap32 uplink drain`, or by hand";
const AS_RENDERED: &str = "as `tap32 render frr` prints it";

impl<'a> Checks<'a> {
    fn rows(&self) -> [Row; 3] {
        let judges: [(&str, Judge<'a>); 3] = match self.config.fabric.protocol {
            FabricProtocol::Ospf => [("OSPF", Self::ospf), ("neighbour", Self::ospf_neighbour), ("BFD", Self::bfd)],
            FabricProtocol::Bgp => {
                [("neighbour", Self::bgp_neighbour), ("BGP policy", Self::bgp_policy), ("BFD", Self::bfd)]
            }
        };
        judges.map(|(what, judge)| {
            let check = format!("{} {what}", self.uplink.name);
            judge(self, check.clone()).unwrap_or_else(|why| Row::not_checked(check, why))
        })
    }

    /// Every line of `render frr` about the uplink.
    fn lines(&self) -> Vec<Line> {
        match self.config.fabric.protocol {
            FabricProtocol::Ospf => {
                let top = format!("interface {}", self.uplink.name);
                self.wanted.under(&top).filter(|line| line.top() == top).cloned().collect()
            }
            FabricProtocol::Bgp => self.wanted.starting(&format!("neighbor {} ", self.uplink.peer)).cloned().collect(),
        }
    }

    /// OSPF runs there, is not passive, and has what both ends must have alike.
    fn ospf(&self, check: String) -> Result<Row, String> {
        let (uplink, lines) = (self.uplink, self.lines());
        let interfaces = self.answers.get(&ospf::INTERFACES)?;
        if interfaces.of(uplink).is_none() {
            return Ok(Row::fail(check, "OSPF does not run on this interface").fix(self.running.complete(&lines)));
        }
        if interfaces.is_drained(uplink) {
            let line = Line::new(&[&format!("interface {}", uplink.name)], "no ip ospf passive");
            return Ok(Row::fail(check, format!("passive: {DRAINED}")).fix(enter([&line])));
        }
        let keys = ["ip ospf network", "ip ospf hello-interval", "ip ospf dead-interval"];
        let line = |key| lines.iter().find(|line| line.text.starts_with(key));
        let Some(differs) = keys.into_iter().find_map(|key| self.running.differs(line(key)?, key)) else {
            return Ok(Row::ok(check, AS_RENDERED));
        };
        if self.answers.get(&ospf::NEIGHBOURS)?.state(uplink) != "Full" {
            return Ok(Row::fail(check, differs).fix(self.running.complete(&lines)));
        }
        // The two ends agree: a change of one would end the adjacency.
        let seen = format!(
            "{differs}, but the neighbour is Full: run `tap32 uplink drain {}`, then change both ends, the switch as \
             `tap32 render switch` prints it",
            uplink.name
        );
        Ok(Row::warn(check, seen))
    }

    fn ospf_neighbour(&self, check: String) -> Result<Row, String> {
        let neighbours = self.answers.get(&ospf::NEIGHBOURS)?;
        let (peer, state) = (self.uplink.peer, neighbours.state(self.uplink));
        Ok(match state {
            "Full" => Row::ok(check, format!("{peer} is Full")),
            "none" => Row::fail(check, format!("{peer} is silent: {}", self.switch())),
            _ if state.starts_with("Ex") => {
                Row::fail(check, format!("{peer} is {state}: do both ends have the same MTU?"))
            }
            _ => Row::fail(check, format!("{peer} is {state}")),
        })
    }

    fn bgp_neighbour(&self, check: String) -> Result<Row, String> {
        let peer = self.uplink.peer;
        let neighbours = self.answers.get(&bgp::NEIGHBOURS)?;
        let Some(found) = neighbours.of(self.uplink) else {
            // The policy that a neighbour names is entered with it.
            let profile = self.wanted.under("bfd").cloned();
            let lines: Vec<Line> = profile.chain(self.policy()).chain(self.lines()).collect();
            return Ok(Row::fail(check, format!("bgpd has no neighbour {peer}")).fix(self.running.complete(&lines)));
        };
        Ok(match found.state.as_str() {
            _ if found.is_shut_down => {
                let open = |line: Line| enter([&Line { text: format!("no neighbor {peer} shutdown"), ..line }]);
                let fix = self.lines().into_iter().next().map(open);
                Row::fail(check, format!("{peer} is shut down: {DRAINED}")).fix(fix)
            }
            "Established" => Row::ok(check, format!("{peer} is Established")),
            state => Row::fail(check, format!("{peer} is {state}: {}", self.switch())),
        })
    }

    /// The lists and route-maps of the fabric's policy.
    fn policy(&self) -> impl Iterator<Item = Line> {
        let is_policy = |line: &&Line| ["bgp ", "route-map "].iter().any(|head| line.top().starts_with(head));
        self.wanted.0.iter().filter(is_policy).cloned()
    }

    /// The neighbour has the route-maps by which a claim wins and a settled route yields, and not those of a drain.
    fn bgp_policy(&self, check: String) -> Result<Row, String> {
        let maps = format!("neighbor {} route-map ", self.uplink.peer);
        let named: Vec<Line> = self.wanted.starting(&maps).cloned().collect();
        let lines: Vec<Line> = self.policy().chain(named.iter().cloned()).collect();
        let Some(missing) = lines.iter().find(|line| !self.running.has(line)) else {
            return Ok(Row::ok(check, AS_RENDERED));
        };
        let soft = format!("clear bgp ipv4 unicast {} soft", self.uplink.peer);
        let fix = self.running.complete(&lines).map(|enter| format!("{enter} -c end -c '{soft}'"));
        if named.iter().all(|line| self.running.has(line)) {
            return Ok(Row::warn(check, format!("lacks {}", missing.shown())).fix(fix));
        }
        let there: Vec<&str> = self.running.starting(&maps).map(|line| &line.text[maps.len()..]).collect();
        let seen = match &there[..] {
            [] => "no route-map: this host would not yield to a claim".to_owned(),
            _ if self.answers.get(&bgp::NEIGHBOURS)?.is_drained(self.uplink) => DRAINED.to_owned(),
            some => format!("route-map {} instead of those that `tap32 render frr` prints", some.join(", ")),
        };
        Ok(Row::fail(check, seen).fix(fix))
    }

    fn bfd(&self, check: String) -> Result<Row, String> {
        // The profile, and the lines by which the uplink uses it.
        let profile = self.wanted.under("bfd").filter(|line| line.under.len() > 1).cloned();
        let uses = self.lines().into_iter().filter(|line| line.text.contains(" bfd"));
        let fix = || self.running.complete(&profile.chain(uses).collect::<Vec<_>>());
        let sessions = self.answers.get(&bfd::SESSIONS)?;
        let Some(session) = sessions.of(self.uplink) else {
            let seen = format!("no session with {}: a silent link is noticed seconds later", self.uplink.peer);
            return Ok(Row::fail(check, seen).fix(fix()));
        };
        let Bfd { interval_ms, multiplier } = self.config.fabric.bfd;
        let timers = |receive: u32, transmit: u32, multiplier: u8| format!("{receive}/{transmit} ms x {multiplier}");
        let there = timers(session.receive_interval, session.transmit_interval, session.detect_multiplier);
        let right = timers(interval_ms, interval_ms, multiplier);
        let status = &session.status;
        if there != right {
            return Ok(Row::fail(check, format!("{status}, {there} instead of {right}")).fix(fix()));
        }
        if status != "up" {
            let why = session.remote_diagnostic.as_deref().filter(|why| *why != "ok");
            let why = why.map_or_else(String::new, |why| format!("; the other end says: {why}"));
            return Ok(Row::fail(check, format!("{status}{why}")));
        }
        Ok(Row::ok(check, format!("up, {there}")))
    }

    fn switch(&self) -> String {
        format!("configure the switch as `tap32 render switch` prints it for {}", self.uplink.name)
    }
}
