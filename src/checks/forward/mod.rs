//! Whether the firewall lets guests' packets pass: the base chains at the forward hook, of nftables and of both
//! iptables. Each of them has to accept a packet, so each is a row.

mod fix;
mod iptables;
mod model;
mod nft;
mod passage;
mod shares;
mod words;

use super::facts::{Facts, Firewall};
use super::row::Row;
use crate::config::Config;
use fix::Fix;
use model::Table;
use passage::{Guests, Passage, WAYS, Way};

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let (tables, mut rows) = tables(&facts.firewall);
    let guests: Vec<_> = config.bridges.iter().map(|bridge| Guests::of(config, facts, bridge)).collect();
    for table in &tables {
        rows.extend(table.forward.keys().map(|chain| row(&facts.firewall, table, chain, &guests)));
    }
    if rows.is_empty() {
        rows.push(Row::ok("forward chains", "none"));
    }
    rows
}

/// All tables, and a row for what could not be read.
fn tables(firewall: &Firewall) -> (Vec<Table>, Vec<Row>) {
    let mut unread = Vec::new();
    let mut read = |of: &str, tables: Result<Vec<Table>, String>| {
        tables.unwrap_or_else(|why| {
            unread.push(Row::not_checked(format!("forward chains of {of}"), why));
            Vec::new()
        })
    };
    let words = words::words(&firewall.nft_words);
    let nft = firewall.nft.clone().map(|json| json.and_then(|json| nft::tables(&json, &words)));
    let mut tables = read("nftables", nft.unwrap_or_else(|| Ok(Vec::new())));
    for saved in &firewall.iptables {
        // iptables reads no rule that nft alone can make; nft has read them all.
        if !saved.legacy && saved.text.is_err() && matches!(firewall.nft, Some(Ok(_))) {
            continue;
        }
        let (of, family) = if saved.legacy { ("iptables-legacy", "iptables-legacy") } else { ("iptables", "ip") };
        let text = saved.text.clone().map(|text| iptables::tables(family, &saved.program, &text));
        for own in read(of, text) {
            match tables.iter_mut().find(|table| (&table.family, &table.name) == (&own.family, &own.name)) {
                Some(table) => nft::complete(table, own),
                None => tables.push(own),
            }
        }
    }
    (tables, unread)
}

/// What does not pass, of one bridge.
struct Finding<'a> {
    bridge: &'a str,
    way: Way,
    passage: Passage,
    /// Whether connections that conntrack knows pass.
    known_pass: bool,
}

impl Finding<'_> {
    /// A rule that keeps a bridge's guests from each other may be meant so.
    fn fails(&self) -> bool {
        matches!(&self.passage, Passage::Blocked(place) if self.way != Way::Between || !place.is_meant)
    }
}

fn findings<'a>(table: &Table, chain: &str, guests: &'a [Guests]) -> Vec<Finding<'a>> {
    let mut findings = Vec::new();
    for of in guests {
        for way in WAYS {
            let known = of.passage(table, chain, way, "established");
            let known_pass = matches!(known, Passage::Passes);
            let passage = [of.passage(table, chain, way, "new"), known].into_iter().max_by_key(Passage::rank);
            let passage = passage.filter(|passage| !matches!(passage, Passage::Passes));
            findings.extend(passage.map(|passage| Finding { bridge: of.bridge, way, passage, known_pass }));
        }
    }
    findings
}

fn row(firewall: &Firewall, table: &Table, chain: &str, guests: &[Guests]) -> Row {
    let check = format!("forward chain {} {} {chain}", table.family, table.name);
    let found = findings(table, chain, guests);
    let Some(worst) = found.iter().max_by_key(|finding| (finding.fails(), finding.passage.rank())) else {
        return conntrack(firewall, table, chain, guests, check);
    };
    let fails = worst.fails();
    let like: Vec<_> = found
        .iter()
        .filter(|finding| (finding.fails(), finding.passage.rank()) == (fails, worst.passage.rank()))
        .collect();
    let mut bridges: Vec<&str> = found.iter().map(|finding| finding.bridge).collect();
    bridges.dedup();
    let place = worst.passage.place().map_or("", |place| place.text.as_str());
    let whose = whose(&like);
    let fix = fix(firewall, table, chain, guests, &bridges);
    let what = if like.iter().all(|finding| finding.known_pass) { "new connections" } else { "packets" };
    let unknown = if what == "packets" {
        ""
    } else {
        "; conntrack does not know the connections of a guest that has just arrived, and takes them for new"
    };
    let keep = fix.keep;
    let row = match &worst.passage {
        Passage::Blocked(_) if fails => Row::fail(check, format!("{place} drops {what} {whose}{unknown}{keep}")),
        Passage::Blocked(_) => {
            Row::warn(check, format!("{place} drops {what} {whose}; if that is not meant, run the fix{keep}"))
        }
        Passage::Partly(_) => Row::warn(
            check,
            format!("{place} drops most {what} {whose}{unknown}; if that is not meant, run the fix{keep}"),
        ),
        _ => Row::warn(
            check,
            format!(
                "{place} may drop {what} {whose}; tap32 cannot tell which; if that is not meant, run the fix{unknown}{keep}"
            ),
        ),
    };
    row.fix(fix.command)
}

/// "to, from and between guests of br-l2"
fn whose(findings: &[&Finding]) -> String {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    for finding in findings {
        match all.iter_mut().find(|(bridge, _)| *bridge == finding.bridge) {
            Some((_, ways)) => ways.push(finding.way.name()),
            None => all.push((finding.bridge, vec![finding.way.name()])),
        }
    }
    let one = |(bridge, ways): (&str, Vec<&str>)| format!("{} guests of {bridge}", listed(&ways));
    all.into_iter().map(one).collect::<Vec<_>>().join(" and ")
}

fn listed(words: &[&str]) -> String {
    match words {
        [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        _ => words.concat(),
    }
}

/// The first command after which all of the bridges' packets pass, and all that conntrack calls invalid too.
fn fix(firewall: &Firewall, table: &Table, chain: &str, guests: &[Guests], bridges: &[&str]) -> Fix {
    let mut candidates = fix::candidates(firewall, table, chain, bridges);
    let works = candidates.iter().position(|fix| findings(&fix.table, chain, guests).is_empty());
    let mut fix = candidates.swap_remove(works.unwrap_or(candidates.len() - 1));
    if let Some((_, command)) = invalid(firewall, &fix.table, chain, guests) {
        fix.command = format!("{} && {command}", fix.command);
    }
    fix
}

/// Why the chain drops packets of guests that conntrack calls invalid, and the command that makes them valid.
///
/// conntrack takes up a TCP connection whose beginning it has not seen, without a look at its window, only if
/// nf_conntrack_tcp_loose is set; one that it knows is invalid beyond its window, unless nf_conntrack_tcp_be_liberal is
/// set (nf_conntrack_proto_tcp.c: tcp_new, tcp_in_window). Measured: after 20 MB that went another way, each packet of
/// the connection is invalid, and with the switch none.
fn invalid(firewall: &Firewall, table: &Table, chain: &str, guests: &[Guests]) -> Option<(&'static str, String)> {
    let is_dropped = |of: &Guests| WAYS.iter().any(|way| of.passage(table, chain, *way, "invalid").rank() > 0);
    if !guests.iter().any(is_dropped) {
        return None;
    }
    let set = |name: &str| format!("sysctl -w net.netfilter.nf_conntrack_tcp_{name}=1");
    match (firewall.tcp_loose, firewall.tcp_be_liberal) {
        (Some(0), liberal) => {
            let liberal = if liberal == Some(1) { String::new() } else { format!(" && {}", set("be_liberal")) };
            Some(("each TCP connection of a guest that has just arrived", set("loose") + &liberal))
        }
        (_, Some(0)) => Some(("a TCP connection that comes back with its guest", set("be_liberal"))),
        _ => None,
    }
}

/// All passes but what conntrack calls invalid.
fn conntrack(firewall: &Firewall, table: &Table, chain: &str, guests: &[Guests], check: String) -> Row {
    match invalid(firewall, table, chain, guests) {
        Some((what, command)) => {
            let seen = format!(
                "drops what `ct state` calls invalid: that is {what}, for this host has not seen all its packets; keep \
                 the switch in /etc/sysctl.d"
            );
            Row::warn(check, seen).fix(command)
        }
        None => Row::ok(check, "lets guests' packets pass"),
    }
}
