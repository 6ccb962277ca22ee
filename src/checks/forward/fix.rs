//! The command that lets guests' packets pass a chain, in the way of the program that made the chain.

use super::super::facts::Firewall;
use super::model::{Action, End, Match, Rule, Table};
use crate::text::quote;

/// A command, and the table as it is afterwards.
pub struct Fix {
    pub command: String,
    /// What else to do so that the change lasts; empty where the program keeps it.
    pub keep: &'static str,
    pub table: Table,
}

/// The commands that could do it, the best first: where a program has a place for other rules, that place.
pub fn candidates(firewall: &Firewall, table: &Table, chain: &str, bridges: &[&str]) -> Vec<Fix> {
    let has = |name: &str| table.chains.contains_key(name);
    let mut found = Vec::new();
    if table.chains.keys().any(|name| is_zones(name)) {
        found.push(firewalld(table, chain, bridges));
    }
    // An inactive ufw takes a rule, and leaves its chains as they are.
    if has("ufw-user-forward") && !firewall.is_ufw_off {
        let allow = |bridge: &&str| format!("ufw route allow in on {0} && ufw route allow out on {0}", quote(bridge));
        let at = table.chains["ufw-user-forward"].len();
        let command = bridges.iter().map(allow).collect::<Vec<_>>().join(" && ");
        found.push(Fix { command, keep: "", table: with(table, "ufw-user-forward", at, bridges) });
    }
    if has("DOCKER-USER") {
        let keep =
            "; Docker does not keep the rules of DOCKER-USER over a restart of the host: let a unit add them again";
        found.push(insert(table, "DOCKER-USER", bridges, keep));
    }
    let keep = if program(table, chain).is_some() {
        "; add the rules where the others of this chain come from too, or the next load undoes the fix"
    } else {
        "; add the rules to the file of this ruleset too (/etc/nftables.conf), or the next load undoes the fix"
    };
    found.push(insert(table, chain, bridges, keep));
    found
}

/// The same table with rules that accept what comes from the bridges and what goes to them.
fn with(table: &Table, chain: &str, at: usize, bridges: &[&str]) -> Table {
    let accept = |end: End, bridge: &str| Rule {
        matches: vec![Match::Interface(end, bridge.to_owned())],
        action: Action::Accept,
        text: String::new(),
        partly_shown: None,
    };
    let mut table = table.clone();
    let rules = bridges.iter().flat_map(|bridge| [accept(End::From, bridge), accept(End::To, bridge)]);
    table.chains.entry(chain.to_owned()).or_default().splice(at..at, rules);
    table
}

/// The iptables that can change a chain.
fn program<'a>(table: &'a Table, chain: &str) -> Option<&'a str> {
    table.iptables.as_ref().filter(|(_, chains)| chains.contains(chain)).map(|(program, _)| program.as_str())
}

fn insert(table: &Table, chain: &str, bridges: &[&str], keep: &'static str) -> Fix {
    let mut commands = Vec::new();
    let program = program(table, chain);
    for bridge in bridges {
        match program {
            Some(program) => {
                let of = if table.name == "filter" { String::new() } else { format!(" -t {}", table.name) };
                let bridge = quote(bridge);
                commands.extend(["-i", "-o"].map(|end| format!("{program}{of} -I {chain} {end} {bridge} -j ACCEPT")));
            }
            None => {
                let (family, name) = (&table.family, &table.name);
                let rule = |key: &str| {
                    let rule = format!("insert rule {family} {name} {chain} {key} \"{bridge}\" accept");
                    format!("nft {}", quote(&rule))
                };
                commands.extend(["iifname", "oifname"].map(rule));
            }
        }
    }
    Fix { command: commands.join(" && "), keep, table: with(table, chain, 0, bridges) }
}

/// firewalld's chains that choose a zone: `filter_FORWARD_POLICIES` in 2.3, `filter_FORWARD_ZONES` in 1.3, until 0.9
/// `filter_FORWARD_IN_ZONES` and `filter_FORWARD_OUT_ZONES`; without `filter_` if it uses iptables.
fn is_zones(chain: &str) -> bool {
    let chain = chain.strip_prefix("filter_").unwrap_or(chain);
    ["FORWARD_POLICIES", "FORWARD_ZONES", "FORWARD_IN_ZONES", "FORWARD_OUT_ZONES"].contains(&chain)
}

/// A zone for the bridges, and since 0.9 policies (firewalld.policies(5)): a zone says what may reach the host, and
/// policies what may pass through it. Until then a zone that lets guests pass lets them reach the host too.
fn firewalld(table: &Table, chain: &str, bridges: &[&str]) -> Fix {
    let has_policies = !table.chains.keys().any(|name| is_zones(name) && name.ends_with("_OUT_ZONES"));
    let tool = "firewall-cmd -q --permanent";
    let mut commands = Vec::new();
    let mut zones = Vec::new();
    for bridge in bridges {
        let zone = zone(table, bridge).filter(|_| has_policies);
        let new = if has_policies { "tap32" } else { "trusted" };
        if zone.is_none() {
            commands.push(format!("{tool} --zone={new} --change-interface={}", quote(bridge)));
        }
        let zone = zone.unwrap_or(new).to_owned();
        if !zones.contains(&zone) {
            zones.push(zone);
        }
    }
    let mut first = String::new();
    if has_policies {
        if zones.iter().any(|zone| zone == "tap32") {
            first.push_str(&format!("{tool} --new-zone=tap32; "));
        }
        first.push_str(&format!("{tool} --new-policy=tap32-to; {tool} --new-policy=tap32-from; "));
        let add =
            |policy: &str, end: &str, zone: &str| format!("{tool} --policy=tap32-{policy} --add-{end}-zone={zone}");
        commands.extend([add("to", "ingress", "ANY"), add("from", "egress", "ANY")]);
        for zone in zones {
            commands.extend([add("to", "egress", &quote(&zone)), add("from", "ingress", &quote(&zone))]);
        }
        commands.extend(["to", "from"].map(|policy| format!("{tool} --policy=tap32-{policy} --set-target=ACCEPT")));
    }
    commands.push("firewall-cmd -q --reload".to_owned());
    let jumps = |rule: &Rule| matches!(&rule.action, Action::Jump(to) | Action::Goto(to) if is_zones(to));
    let at = table.chains[chain].iter().position(jumps).unwrap_or_default();
    let keep = if has_policies { "" } else { "; the zone trusted opens the host itself to the guests as well" };
    Fix { command: first + &commands.join(" && "), keep, table: with(table, chain, at, bridges) }
}

/// The zone to which the interface was given: `iifname "br-l2" goto filter_FWD_internal`, in firewalld 2.3 `jump`.
fn zone<'a>(table: &'a Table, bridge: &str) -> Option<&'a str> {
    let chains = table.chains.iter().filter(|(name, _)| is_zones(name));
    chains.flat_map(|(_, rules)| rules).find_map(|rule| match &rule.action {
        Action::Goto(to) | Action::Jump(to) if rule.matches.iter().any(|one| one.is_from(bridge)) => {
            to.split_once("FWD_").map(|(_, zone)| zone)
        }
        _ => None,
    })
}
