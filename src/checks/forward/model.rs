//! A firewall's rules as far as they matter to guests, and what they do to packets. The names are those of nftables;
//! iptables' tables fit too.
//!
//! doctor sends no packet. It asks what the rules do to a kind of packets, such as "TCP from eth0 to a guest of br-l2,
//! of a connection that begins". A condition that only some packets of the kind meet (a port, an address of the
//! Internet) does not decide for the kind.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

/// Of a kind of packets, which part meets a condition. Of two conditions both are met by the lesser part, one of them
/// by the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    None,
    /// Those of one port, one address of the Internet: not what people mean by "packets to guests".
    Few,
    /// Nobody knows: those of some guests, those of a time, a condition that cannot be read.
    Unknown,
    /// All but those of one port, one address.
    Most,
    All,
}

impl Share {
    fn opposite(self) -> Self {
        match self {
            Self::None => Self::All,
            Self::Few => Self::Most,
            Self::Unknown => Self::Unknown,
            Self::Most => Self::Few,
            Self::All => Self::None,
        }
    }
}

/// A kind of packets, as the host forwards them.
#[derive(Debug, Clone, Copy)]
pub struct Packets<'a> {
    /// The interfaces by which they come and go; `None` where nobody knows.
    pub incoming: Option<&'a str>,
    pub outgoing: Option<&'a str>,
    /// The managed bridge that is one of the two, or both.
    pub bridge: &'a str,
    /// Where they come from and go to; `None` for anywhere.
    pub source: Option<&'a [Ipv4Net]>,
    pub destination: Option<&'a [Ipv4Net]>,
    /// The bridge's own addresses, which no guest has.
    pub host: &'a [u32],
    /// `tcp`, `udp`, `icmp`
    pub protocol: &'static str,
    /// As `ct state` has it: `new`, `established`, `invalid`.
    pub state: &'static str,
}

/// Which end of a packet's way a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    From,
    To,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Match {
    /// The interface of this name, or of a name that begins as the pattern does before its `*`.
    Interface(End, String),
    /// The interface's IFLA_INFO_KIND.
    InterfaceKind(End, String),
    /// An address of this range, ends included.
    Address(End, u32, u32),
    State(String),
    Protocol(String),
    Always(Share),
    Not(Box<Match>),
    Both(Vec<Match>),
    Either(Vec<Match>),
}

impl Match {
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    fn share(&self, packets: &Packets) -> Share {
        let decide = |is: bool| if is { Share::All } else { Share::None };
        match self {
            Self::Interface(end, pattern) => match end.interface(packets) {
                None => Share::Unknown,
                Some(name) => decide(match pattern.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning),
                    None => name == pattern,
                }),
            },
            Self::InterfaceKind(end, kind) => match end.interface(packets) {
                Some(name) if name == packets.bridge => decide(kind == "bridge"),
                _ => Share::Unknown,
            },
            Self::Address(end, first, last) => match end.addresses(packets) {
                Some(_) if first == last && packets.host.contains(first) => Share::None,
                Some(prefixes) => within(prefixes, *first, *last),
                None if (*first, *last) == (0, u32::MAX) => Share::All,
                // Half of all addresses.
                None if last.saturating_sub(*first) >= u32::MAX / 2 => Share::Unknown,
                None => Share::Few,
            },
            Self::State(state) => decide(state == packets.state),
            Self::Protocol(protocol) => decide(protocol == packets.protocol),
            Self::Always(share) => *share,
            Self::Not(inner) => inner.share(packets).opposite(),
            Self::Both(all) => all.iter().map(|one| one.share(packets)).min().unwrap_or(Share::All),
            Self::Either(all) => all.iter().map(|one| one.share(packets)).max().unwrap_or(Share::None),
        }
    }

    /// Whether it, or a part of it, is about an interface.
    pub fn is_of_interface(&self) -> bool {
        match self {
            Self::Interface(..) | Self::InterfaceKind(..) => true,
            Self::Not(inner) => inner.is_of_interface(),
            Self::Both(all) | Self::Either(all) => all.iter().any(Self::is_of_interface),
            _ => false,
        }
    }

    /// Whether it, or a part of it, demands that packets come from this interface.
    pub fn is_from(&self, name: &str) -> bool {
        match self {
            Self::Interface(End::From, pattern) => name == pattern,
            Self::Both(all) | Self::Either(all) => all.iter().any(|one| one.is_from(name)),
            _ => false,
        }
    }
}

impl End {
    fn interface<'a>(self, packets: &Packets<'a>) -> Option<&'a str> {
        if self == Self::From { packets.incoming } else { packets.outgoing }
    }

    fn addresses<'a>(self, packets: &Packets<'a>) -> Option<&'a [Ipv4Net]> {
        if self == Self::From { packets.source } else { packets.destination }
    }
}

/// Which part of the prefixes' hosts lies in a range.
fn within(prefixes: &[Ipv4Net], first: u32, last: u32) -> Share {
    let hosts = |prefix: &Ipv4Net| {
        let ends = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
        if prefix.prefix_len() < 31 { (ends.0 + 1, ends.1 - 1) } else { ends }
    };
    let all: Vec<_> = prefixes.iter().map(hosts).collect();
    match () {
        () if all.iter().all(|(from, to)| first <= *from && *to <= last) => Share::All,
        () if all.iter().all(|(from, to)| *to < first || last < *from) => Share::None,
        () => Share::Unknown,
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Accept,
    /// Drop or reject.
    Drop,
    /// Another program decides, or a target that is not known here.
    Ask,
    Jump(String),
    Goto(String),
    Return,
    /// Counts, logs, marks.
    Nothing,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub matches: Vec<Match>,
    pub action: Action,
    /// How a person finds it.
    pub text: String,
    /// Its number in the chain where iptables knows more of it than nft shows.
    pub partly_shown: Option<usize>,
}

/// A table, `filter` of the family `ip` for example.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// `ip`, `inet`; `iptables-legacy` for those that nft does not show.
    pub family: String,
    pub name: String,
    /// iptables' program for it, and the chains that this program knows; `None` for a table of nftables' own.
    pub iptables: Option<(String, BTreeSet<String>)>,
    pub chains: BTreeMap<String, Vec<Rule>>,
    /// How many rules each chain has; one with a verdict map is more than one in `chains`, one without effect none.
    pub lengths: BTreeMap<String, usize>,
    /// The base chains at the forward hook, and whether their policy is to drop.
    pub forward: BTreeMap<String, bool>,
}

/// What may become of packets.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    pub accepted: bool,
    /// The first rule by which another program decides.
    pub asked: Option<Place>,
    /// The first rule that drops under a condition that is not judged.
    pub perhaps: Option<Place>,
    pub dropped: Option<Place>,
}

/// What drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub text: String,
    /// Whether the rule is about an interface, and so is meant for some guests and not for others.
    pub is_meant: bool,
}

impl Fate {
    fn join(&mut self, other: Self) {
        self.accepted |= other.accepted;
        self.asked = self.asked.take().or(other.asked);
        self.perhaps = self.perhaps.take().or(other.perhaps);
        self.dropped = self.dropped.take().or(other.dropped);
    }

    /// The same if nobody knows whether packets come there.
    fn doubted(self) -> Self {
        Self { perhaps: self.perhaps.or(self.dropped), dropped: None, ..self }
    }
}

/// What a base chain does to packets of a kind: to most of them, or with `few` to any of them.
pub fn fate(table: &Table, chain: &str, packets: &Packets, few: bool) -> Fate {
    let mut walk = Walk { table, packets, few, seen: BTreeMap::new() };
    let (mut fate, falls) = walk.chain(chain);
    if falls && table.forward.get(chain) == Some(&true) {
        fate.join(Fate { dropped: Some(Place { text: "its policy".into(), is_meant: false }), ..Fate::default() });
    } else if falls {
        fate.accepted = true;
    }
    fate
}

struct Walk<'a> {
    table: &'a Table,
    packets: &'a Packets<'a>,
    few: bool,
    /// What each chain does, and whether packets come back from it.
    seen: BTreeMap<&'a str, (Fate, bool)>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &'a str) -> (Fate, bool) {
        if let Some(known) = self.seen.get(name) {
            return known.clone();
        }
        // The kernel takes no circle (nf_tables_check_loops); this answer would end one.
        self.seen.insert(name, (Fate::default(), true));
        let (mut fate, mut alive, mut returns) = (Fate::default(), true, false);
        for rule in self.table.chains.get(name).into_iter().flatten() {
            let share = rule.matches.iter().map(|one| one.share(self.packets)).min().unwrap_or(Share::All);
            let (hits, misses) = match share {
                Share::None => (false, true),
                Share::Few => (self.few, true),
                Share::Unknown => (true, true),
                Share::Most => (true, self.few),
                Share::All => (true, false),
            };
            let mut goes_on = misses;
            if hits {
                let place = || {
                    let is_meant = rule.matches.iter().any(Match::is_of_interface);
                    Some(Place { text: rule.text.clone(), is_meant })
                };
                let mut own = Fate::default();
                match &rule.action {
                    Action::Accept => own.accepted = true,
                    Action::Ask => own.asked = place(),
                    Action::Drop => own.dropped = place(),
                    Action::Return => returns = true,
                    Action::Nothing => goes_on = true,
                    Action::Jump(to) => {
                        let falls;
                        (own, falls) = self.chain(to);
                        goes_on |= falls;
                    }
                    Action::Goto(to) => {
                        let falls;
                        (own, falls) = self.chain(to);
                        returns |= falls;
                    }
                }
                fate.join(if share == Share::Unknown { own.doubted() } else { own });
            }
            alive = goes_on;
            if !alive {
                break;
            }
        }
        let answer = (fate, alive || returns);
        self.seen.insert(name, answer.clone());
        answer
    }
}
