//! Which packets the host forwards for the guests of a bridge, and whether a chain lets them pass.

use ipnet::Ipv4Net;

use super::model::{Packets, Place, Table, fate};
use crate::checks::facts::Facts;
use crate::config::{BridgeConfig, Config};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    To,
    From,
    /// From one guest to another of the same bridge, whose ports are isolated.
    Between,
}

pub const WAYS: [Way; 3] = [Way::To, Way::From, Way::Between];

impl Way {
    pub fn name(self) -> &'static str {
        match self {
            Self::To => "to",
            Self::From => "from",
            Self::Between => "between",
        }
    }
}

/// The guests of a bridge, and where their packets come from and go to.
pub struct Guests<'a> {
    pub bridge: &'a str,
    prefixes: Vec<Ipv4Net>,
    /// The bridge's own addresses.
    host: Vec<u32>,
    /// Interfaces; empty if nobody knows any.
    others: Vec<&'a str>,
    /// Whether each of the interfaces is meant for guests' packets.
    is_told: bool,
    /// Whether the host forwards packets from one guest to another: it routes them, or br_netfilter passes frames on.
    has_between: bool,
}

impl<'a> Guests<'a> {
    pub fn of(config: &'a Config, facts: &'a Facts, wanted: &'a BridgeConfig) -> Self {
        let bridge = wanted.name.as_str();
        let found = facts.host.interfaces.iter().find(|interface| interface.name == bridge);
        let addresses = found.map(|found| &found.addresses[..]).unwrap_or_default();
        let prefixes = wanted.guest_prefixes(addresses);
        let host = addresses.iter().map(|address| u32::from(address.addr())).collect();
        let has_between = wanted.isolate || facts.machine.bridge_nf_call_iptables == Some(1);
        let told: Vec<_> = config.uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
        let is_told = !told.is_empty();
        let guessed = || facts.firewall.interfaces.iter().map(String::as_str).collect();
        Self { bridge, prefixes, host, others: if is_told { told } else { guessed() }, is_told, has_between }
    }

    /// What a chain does to connections in such a state: by the worst interface, or, where tap32 only guesses which
    /// interfaces carry guests' packets, by the best.
    pub fn passage(&self, table: &Table, chain: &str, way: Way, state: &'static str) -> Passage {
        let others: Vec<_> = match (way, &self.others[..]) {
            (Way::Between, _) if !self.has_between => return Passage::Passes,
            (Way::Between, _) => vec![Some(self.bridge)],
            (_, []) => vec![None],
            (_, others) => others.iter().copied().map(Some).collect(),
        };
        let all = others.into_iter().map(|other| self.by(table, chain, way, other, state));
        let passage = if self.is_told { all.max_by_key(Passage::rank) } else { all.min_by_key(Passage::rank) };
        passage.unwrap_or(Passage::Passes)
    }

    fn by(&self, table: &Table, chain: &str, way: Way, other: Option<&str>, state: &'static str) -> Passage {
        let (own, anywhere) = (Some(self.bridge), Some(&self.prefixes[..]).filter(|prefixes| !prefixes.is_empty()));
        let (incoming, source) = if way == Way::To { (other, None) } else { (own, anywhere) };
        let (outgoing, destination) = if way == Way::From { (other, None) } else { (own, anywhere) };
        let of = |protocol| {
            let (bridge, host) = (self.bridge, &self.host[..]);
            let packets = Packets { incoming, outgoing, bridge, source, destination, host, protocol, state };
            Passage::of(table, chain, &packets)
        };
        use Passage::{Blocked, Partly, Passes, Unclear};
        match [of("tcp"), of("udp"), of("icmp")] {
            [Blocked(place), Blocked(_), _] => Blocked(place),
            [Blocked(place) | Partly(place), Blocked(_) | Partly(_), _] => Partly(place),
            all => all.iter().find_map(Passage::place).map_or(Passes, |place| Unclear(place.clone())),
        }
    }
}

/// What a chain does to packets of a kind.
#[derive(Debug, Clone)]
pub enum Passage {
    Passes,
    /// Some packets are dropped, or tap32 cannot tell.
    Unclear(Place),
    /// Few pass.
    Partly(Place),
    Blocked(Place),
}

impl Passage {
    fn of(table: &Table, chain: &str, packets: &Packets) -> Self {
        let most = fate(table, chain, packets, false);
        match most.dropped {
            Some(place) if !most.accepted && most.asked.is_none() => {
                let few = fate(table, chain, packets, true);
                if few.accepted || few.asked.is_some() { Self::Partly(place) } else { Self::Blocked(place) }
            }
            dropped => most.perhaps.or(most.asked).or(dropped).map_or(Self::Passes, Self::Unclear),
        }
    }

    pub fn rank(&self) -> u8 {
        match self {
            Self::Passes => 0,
            Self::Unclear(_) => 1,
            Self::Partly(_) => 2,
            Self::Blocked(_) => 3,
        }
    }

    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Passes => None,
            Self::Unclear(place) | Self::Partly(place) | Self::Blocked(place) => Some(place),
        }
    }
}
