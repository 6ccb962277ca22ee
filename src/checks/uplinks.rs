//! Each uplink as FRR has it: the protocol runs on it, its neighbour is up, and BFD watches it with the configured timers.

use super::row::Row;
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

/// Judges one uplink under the name of the check. An error is why it cannot.
type Judge<'a> = fn(&Checks<'a>, &Uplink, String) -> Result<Row, String>;

impl<'a> Checks<'a> {
    fn uplink(&self, uplink: &Uplink) -> Vec<Row> {
        let judges: [(&str, Judge<'a>); 3] = match self.config.fabric.protocol {
            FabricProtocol::Ospf => [("OSPF", Self::ospf), ("neighbour", Self::ospf_neighbour), ("BFD", Self::bfd)],
            FabricProtocol::Bgp => {
                [("neighbour", Self::bgp_neighbour), ("BGP policy", Self::bgp_policy), ("BFD", Self::bfd)]
            }
        };
        let row = |(what, judge): (&str, Judge<'a>)| {
            let check = format!("{} {what}", uplink.name);
            judge(self, uplink, check.clone()).unwrap_or_else(|why| Row::not_checked(check, why))
        };
        judges.map(row).into()
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

    /// OSPF runs there, is not passive, and has what both ends must have alike.
    fn ospf(&self, uplink: &Uplink, check: String) -> Result<Row, String> {
        let lines = self.all_of(uplink);
        let interfaces = self.answers.get(&ospf::INTERFACES)?;
        if interfaces.of(uplink).is_none() {
            return Ok(Row::fail(check, "OSPF does not run on this interface", self.running.complete(&lines)));
        }
        if interfaces.is_drained(uplink) {
            let top = format!("interface {}", uplink.name);
            let fix = enter([&Line::new(&[&top], "no ip ospf passive")]);
            return Ok(Row::fail(check, format!("passive: {DRAINED}"), Some(fix)));
        }
        let keys = ["ip ospf network", "ip ospf hello-interval", "ip ospf dead-interval"];
        let line = |key| lines.iter().find(|line| line.text.starts_with(key));
        let Some(differs) = keys.into_iter().find_map(|key| self.running.differs(line(key)?, key)) else {
            return Ok(Row::ok(check, "as `tap32 render frr` prints it"));
        };
        if self.answers.get(&ospf::NEIGHBOURS)?.state(uplink) != "Full" {
            return Ok(Row::fail(check, differs, self.running.complete(&lines)));
        }
        // Changed at one of two ends that agree, it would end what works.
        let seen = format!(
            "{differs}, but the neighbour is Full: run `tap32 uplink drain {}`, then change both ends, the switch as \
             `tap32 render switch` prints it",
            uplink.name
        );
        Ok(Row::warn(check, seen, None))
    }

    fn ospf_neighbour(&self, uplink: &Uplink, check: String) -> Result<Row, String> {
        let neighbours = self.answers.get(&ospf::NEIGHBOURS)?;
        let (peer, state) = (uplink.peer, neighbours.state(uplink));
        Ok(match state {
            "Full" => Row::ok(check, format!("{peer} is Full")),
            "none" => Row::fail(check, format!("{peer} is silent: {}", switch(uplink)), None),
            _ if state.starts_with("Ex") => {
                Row::fail(check, format!("{peer} is {state}: do both ends have the same MTU?"), None)
            }
            _ => Row::fail(check, format!("{peer} is {state}"), None),
        })
    }

    fn bgp_neighbour(&self, uplink: &Uplink, check: String) -> Result<Row, String> {
        let peer = uplink.peer;
        let neighbours = self.answers.get(&bgp::NEIGHBOURS)?;
        let Some(found) = neighbours.of(uplink) else {
            // The policy that a neighbour names is entered with it.
            let profile = self.wanted.under("bfd").cloned();
            let lines: Vec<Line> = profile.chain(self.policy()).chain(self.all_of(uplink)).collect();
            return Ok(Row::fail(check, format!("bgpd has no neighbour {peer}"), self.running.complete(&lines)));
        };
        Ok(match found.state.as_str() {
            _ if found.is_shut_down => {
                let top = self.all_of(uplink).into_iter().take(1);
                let open = top.map(|line| Line { text: format!("no neighbor {peer} shutdown"), ..line });
                let fix = enter(&open.collect::<Vec<_>>());
                Row::fail(check, format!("{peer} is shut down: {DRAINED}"), Some(fix))
            }
            "Established" => Row::ok(check, format!("{peer} is Established")),
            state => Row::fail(check, format!("{peer} is {state}: {}", switch(uplink)), None),
        })
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
    fn bgp_policy(&self, uplink: &Uplink, check: String) -> Result<Row, String> {
        let maps = format!("neighbor {} route-map ", uplink.peer);
        let named: Vec<Line> = self.all_of(uplink).into_iter().filter(|line| line.text.starts_with(&maps)).collect();
        let lines: Vec<Line> = self.policy().chain(named.iter().cloned()).collect();
        let Some(missing) = lines.iter().find(|line| !self.running.has(line)) else {
            return Ok(Row::ok(check, "as `tap32 render frr` prints it"));
        };
        let soft = format!("clear bgp ipv4 unicast {} soft", uplink.peer);
        let fix = self.running.complete(&lines).map(|enter| format!("{enter} -c end -c '{soft}'"));
        if named.iter().all(|line| self.running.has(line)) {
            return Ok(Row::warn(check, format!("lacks {}", missing.shown()), fix));
        }
        let there: Vec<&str> = self.running.starting(&maps).map(|line| &line.text[maps.len()..]).collect();
        let seen = match &there[..] {
            [] => "no route-map: this host would not yield to a claim".to_owned(),
            _ if self.answers.get(&bgp::NEIGHBOURS)?.is_drained(uplink) => DRAINED.to_owned(),
            some => format!("route-map {} instead of those that `tap32 render frr` prints", some.join(", ")),
        };
        Ok(Row::fail(check, seen, fix))
    }

    fn bfd(&self, uplink: &Uplink, check: String) -> Result<Row, String> {
        let sessions = self.answers.get(&bfd::SESSIONS)?;
        let Some(session) = sessions.of(uplink) else {
            let seen = format!("no session with {}: a silent link is noticed seconds later", uplink.peer);
            return Ok(Row::fail(check, seen, self.bfd_fix(uplink)));
        };
        let Bfd { interval_ms, multiplier } = self.config.fabric.bfd;
        let timers = |receive: u32, transmit: u32, multiplier: u8| format!("{receive}/{transmit} ms x {multiplier}");
        let there = timers(session.receive_interval, session.transmit_interval, session.detect_multiplier);
        let right = timers(interval_ms, interval_ms, multiplier);
        let status = &session.status;
        if there != right {
            let seen = format!("{status}, {there} instead of {right}");
            return Ok(Row::fail(check, seen, self.bfd_fix(uplink)));
        }
        if status != "up" {
            let why = session.remote_diagnostic.as_deref().filter(|why| *why != "ok");
            let why = why.map_or_else(String::new, |why| format!("; the other end says: {why}"));
            return Ok(Row::fail(check, format!("{status}{why}"), None));
        }
        Ok(Row::ok(check, format!("up, {there}")))
    }

    /// The profile, and the lines by which the uplink uses it.
    fn bfd_fix(&self, uplink: &Uplink) -> Option<String> {
        let uses = self.all_of(uplink).into_iter().filter(|line| line.text.contains(" bfd"));
        let profile = self.wanted.under("bfd").filter(|line| line.under.len() > 1).cloned();
        self.running.complete(&profile.chain(uses).collect::<Vec<_>>())
    }
}

const DRAINED: &str = "drained by `tap32 uplink drain`, or by hand";

fn switch(uplink: &Uplink) -> String {
    format!("configure the switch as `tap32 render switch` prints it for {}", uplink.name)
}
