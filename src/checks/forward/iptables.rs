//! What iptables-save(8) prints, read as tables. Both iptables print the same; nft's JSON does not show what iptables'
//! extensions match (nft prints "xt").

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::model::{Action, End, Match, Rule, Share, Table};
use super::shares;

/// The tables that have a FORWARD chain.
const FORWARDING: [&str; 3] = ["filter", "mangle", "security"];

/// Extensions that return to the next rule (iptables-extensions(8)).
pub const GO_ON: [&str; 26] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "NOTRACK",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
];

/// The tables that `program` made, of its `iptables-save`.
pub fn tables(family: &str, program: &str, saved: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in saved.lines() {
        let mut words = words(line).into_iter();
        let first = words.next().unwrap_or_default();
        if let Some(name) = first.strip_prefix('*') {
            let iptables = Some((program.to_owned(), BTreeSet::new()));
            tables.push(Table { family: family.into(), name: name.into(), iptables, ..Table::default() });
        }
        let Some(table) = tables.last_mut() else { continue };
        if let Some(chain) = first.strip_prefix(':') {
            table.chains.entry(chain.to_owned()).or_default();
            if let Some((_, chains)) = &mut table.iptables {
                chains.insert(chain.to_owned());
            }
            if chain == "FORWARD" {
                table.forward.insert(chain.to_owned(), words.next().as_deref() == Some("DROP"));
            }
        } else if first == "-A"
            && let Some(chain) = words.next()
        {
            let rule = rule(&words.collect::<Vec<_>>(), line);
            table.chains.entry(chain).or_default().push(rule);
        }
    }
    tables.retain(|table| FORWARDING.contains(&table.name.as_str()));
    tables
}

/// A line in words, as iptables-save quotes them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), None::<String>, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn rule(words: &[String], line: &str) -> Rule {
    let mut rule = Rule { matches: Vec::new(), action: Action::Nothing, text: format!("`{line}`"), partly_shown: None };
    let mut words = words.iter().map(String::as_str).peekable();
    let mut is_negated = false;
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        let found = match word {
            "!" => {
                is_negated = true;
                continue;
            }
            "-j" => {
                rule.action = target(value());
                break;
            }
            "-g" => {
                rule.action = Action::Goto(value().to_owned());
                break;
            }
            // The extension's own options follow. `--dir` is the direction of `--pol`.
            "-m" | "--comment" | "--dir" => {
                value();
                continue;
            }
            "-f" => Match::Always(Share::Few),
            "-i" => Match::Interface(End::From, interface(value())),
            "-o" => Match::Interface(End::To, interface(value())),
            "-s" => addresses(End::From, value()),
            "-d" => addresses(End::To, value()),
            "--src-range" => range(End::From, value()),
            "--dst-range" => range(End::To, value()),
            "-p" => protocol(value()),
            "--ctstate" | "--state" => {
                Match::Either(value().split(',').map(|state| Match::State(state.to_lowercase())).collect())
            }
            // Guests have addresses of their own, and need no translation.
            "--ctstatus" => Match::Always(if value().ends_with("NAT") { Share::None } else { Share::Unknown }),
            // A packet has the mark 0 unless a rule sets another.
            "--mark" => Match::Always(if is_zero(value()) { Share::All } else { Share::None }),
            // Guests' packets are routed (xt_physdev.c: not bridged then).
            "--physdev-is-bridged" => Match::Always(Share::None),
            "--pol" => Match::Always(if value() == "none" { Share::Most } else { Share::Few }),
            "--pkt-type" => Match::Always(shares::address_type(value())),
            "--src-type" | "--dst-type" => {
                Match::Either(value().split(',').map(|name| Match::Always(shares::address_type(name))).collect())
            }
            "--tcp-flags" => {
                let (mask, flags) = (value(), value());
                let bits = |list: &str| list.split(',').filter_map(shares::tcp_flag).fold(0, |all, bit| all | bit);
                Match::Always(shares::tcp_flags(bits(mask), bits(flags)))
            }
            "--sport" | "--dport" | "--sports" | "--dports" | "--ports" => ports(value()),
            "--icmp-type" => Match::Always(if value() == "any" { Share::All } else { Share::Few }),
            // A list of addresses to drop is one of others' addresses; of a list to accept nobody knows.
            "--match-set" => {
                value();
                Match::Always(if is_negated { Share::Unknown } else { Share::Few })
            }
            option if option.starts_with('-') => {
                while words.peek().is_some_and(|next| !next.starts_with('-') && *next != "!") {
                    words.next();
                }
                Match::Always(Share::Unknown)
            }
            _ => continue,
        };
        rule.matches.push(if is_negated { found.negated() } else { found });
        is_negated = false;
    }
    rule
}

fn target(name: &str) -> Action {
    match name {
        "ACCEPT" => Action::Accept,
        "DROP" | "REJECT" | "TARPIT" => Action::Drop,
        "RETURN" => Action::Return,
        "QUEUE" | "NFQUEUE" | "SYNPROXY" => Action::Ask,
        name if GO_ON.contains(&name) => Action::Nothing,
        chain => Action::Jump(chain.to_owned()),
    }
}

/// `br+` is what nft calls `br*`.
fn interface(pattern: &str) -> String {
    pattern.strip_suffix('+').map_or_else(|| pattern.to_owned(), |beginning| format!("{beginning}*"))
}

fn is_zero(mark: &str) -> bool {
    matches!(mark.split('/').next(), Some("0x0" | "0"))
}

/// `22`, `1:1023`, `80,443`
fn ports(list: &str) -> Match {
    let one = |text: &str| {
        let (first, last) = text.split_once(':').unwrap_or((text, text));
        let share = first.parse().ok().zip(last.parse().ok()).map(|(first, last)| shares::ports(first, last));
        Match::Always(share.unwrap_or(Share::Few))
    };
    Match::Either(list.split(',').map(one).collect())
}

fn protocol(name: &str) -> Match {
    match name {
        "all" => Match::Always(Share::All),
        "tcp" | "udp" | "icmp" => Match::Protocol(name.to_owned()),
        _ => Match::Always(Share::None),
    }
}

fn addresses(end: End, list: &str) -> Match {
    let one = |text: &str| {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address = address.parse::<Ipv4Addr>().map(u32::from);
        // Either a length or a mask, which need not be a prefix's.
        let mask = match (length.parse::<u32>(), length.parse::<Ipv4Addr>()) {
            (Ok(length @ 0..=32), _) => Ok(u32::MAX.checked_shl(32 - length).unwrap_or(0)),
            (_, mask) => mask.map(u32::from),
        };
        match (address, mask) {
            (Ok(address), Ok(mask)) => Match::Address(end, address & mask, address | !mask),
            _ => Match::Always(Share::Few),
        }
    };
    Match::Either(list.split(',').map(one).collect())
}

fn range(end: End, text: &str) -> Match {
    let parsed = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let range = |(first, last): (Ipv4Addr, Ipv4Addr)| Match::Address(end, first.into(), last.into());
    parsed.map_or(Match::Always(Share::Few), range)
}
