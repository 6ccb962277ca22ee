//! What a host should look like after any operations: pure, and written from the manual, not from tap32's code.
//!
//! What nobody promises, or nobody can know, it leaves open, and each place says so:
//! - `Tap::doubled`: the neighbour entry of a guest that two taps have may come back only when `watch` looks at everything;
//! - `Model::lingering`: the neighbour entry of a guest that goes while `watch` is at work on it may stay until then;
//! - `Arrival::doubtful`: nobody brings a claim back that was deleted, and a claimer gives up when its tap's own MAC leaves
//!   the bridge's FDB for a moment;
//! - `Tap::put_back`: the operations stay below the number at which `watch` takes another program for a stubborn one;
//! - `Tap::moving`: nothing is done to a tap that may be put back just now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

pub use crate::arrival::Arrival;

/// The managed bridges. The gateway of the first has its subnet on link, so that packets to a guest without route still
/// arrive; that of the second is a /32, and they do not.
pub const BRIDGES: [&str; 2] = ["br-l2", "br-m1"];
pub const GATEWAYS: [&str; 2] = ["10.0.0.1/24", "10.1.0.1/32"];

pub const CLAIM: u64 = 10;
/// From a claim to its end, as configured.
pub const SETTLE: Duration = Duration::from_secs(2);
/// How long a tap that nobody told tap32 of is left to its hook, which guards it, and how often `watch` looks for dead
/// claimers.
pub const LEFT: Duration = Duration::from_millis(1_000);
/// How late something may be that happens at a time of its own and not behind an operation.
pub const LATE: Duration = Duration::from_millis(500);

/// After so many batches a tap is not young any more, and an arrival is over. A batch takes 0.1 to 0.3 s.
const YOUNG: usize = 10;
const ARRIVAL: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Guest {
    pub bridge: usize,
    pub last: u8,
}

impl Guest {
    pub fn address(self) -> String {
        format!("10.{}.0.{}", self.bridge, self.last)
    }

    pub fn mac(self) -> String {
        format!("02:42:0a:{:02x}:00:{:02x}", self.bridge, self.last)
    }

    pub fn tap_mac(self) -> String {
        self.mac().replacen("02", "fe", 1)
    }
}

/// Since when, and for how many batches.
#[derive(Debug, Clone, Copy)]
pub struct Young {
    came: Instant,
    age: usize,
}

impl Young {
    pub fn since(came: Instant) -> Self {
        Self { came, age: 0 }
    }

    pub fn end(self) -> Instant {
        self.came + LEFT + LATE
    }
}

#[derive(Debug, Clone)]
pub struct Tap {
    pub id: usize,
    pub name: String,
    /// Whose it is: the guest that has it open, or will have.
    pub owner: Guest,
    pub persistent: bool,
    pub queues: bool,
    /// How many of its queues a guest has open.
    pub open: usize,
    pub ever_open: bool,
    pub up: bool,
    /// The bridge of which it is a port.
    pub bridge: Option<usize>,
    /// The one of which it was a port until that was deleted: it comes back to it while a guest runs behind it.
    pub was: Option<usize>,
    /// `watch` is about to put it back to its bridge: nothing else is done with it until the batch is over.
    pub moving: bool,
    /// How often it was put back, which `watch` does not do for ever.
    pub put_back: usize,
    /// Somebody has overwritten its MAC, and `watch` had no reason yet to set it back.
    pub overwritten: bool,
    /// Somebody has taken its guard in this batch: nothing but `watch`'s memory says whose it is without its MAC.
    pub stripped: bool,
    /// The bridge's FDB has lost its MAC, which `watch` brings back with its guest.
    pub unlisted: bool,
    /// The guest that its MAC names; `None` for a MAC of another form.
    pub guest: Option<Guest>,
    /// When it came to a bridge without tap32's help: its guard is left to its hook for a second.
    pub young: Option<Young>,
    /// `watch` has seen it as it is.
    pub known: bool,
    /// The clsact that a guard needs is there: to add one takes the tap's queues away for a moment (qdisc_graft), and costs
    /// its guest up to four packets of 2,000 a second (measured).
    pub has_room: bool,
    /// One of two with one guest when neighbour entries went: only one of them is looked at.
    pub doubled: bool,
    /// In this batch nothing happens to it by which its guest could lose a packet.
    pub alone: bool,
}

impl Tap {
    /// Somebody had it open, and nobody has: it carries no guest.
    pub fn is_idle(&self) -> bool {
        self.up && self.ever_open && self.open == 0
    }

    /// A guest runs behind it.
    pub fn runs(&self) -> bool {
        self.up && self.open > 0
    }
}

/// A host. An operation changes it, and `expected` says what is to be seen of it.
pub struct Model {
    pub exists: [bool; 2],
    pub up: [bool; 2],
    /// In the order in which they were made, which is that of their indices.
    pub taps: Vec<Tap>,
    pub arrivals: BTreeMap<Guest, Arrival>,
    /// Guests that the fabric has a route to: they run on another host.
    pub elsewhere: BTreeSet<Guest>,
    /// Guests whose claimer may be about to go: nothing is done with them until the batch is over.
    pub resting: BTreeSet<Guest>,
    pub distance: u64,
    pub guard: bool,
    /// The distance has changed in this batch.
    pub moved: bool,
    /// Guests whose neighbour entry `watch` may have left, or added, when they went: it looks for those that have a route.
    pub lingering: BTreeSet<Guest>,
    /// The bridge that operations of this batch may break.
    pub storm: Option<usize>,
    /// How many taps there have been.
    pub count: usize,
}

/// A route as `ip route` shows it: destination, interface, metric.
pub type Route = (String, String, u64);

/// What is seen of one tap; `None` is not judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub bridge: Option<&'static str>,
    pub up: bool,
    pub mac: Option<String>,
    pub isolated: Option<bool>,
    /// The guest of the guard; `Some(None)` without one.
    pub guard: Option<Option<Guest>>,
}

pub struct Expected {
    pub routes: BTreeSet<Route>,
    pub perhaps: BTreeSet<Route>,
    pub elsewhere: BTreeSet<String>,
    pub ports: BTreeMap<String, Port>,
    /// Permanent neighbour entries that must be there, and those that may: address and interface.
    pub neighbours: BTreeSet<(String, String)>,
    pub perhaps_neighbours: BTreeSet<(String, String)>,
}

impl Model {
    pub fn new() -> Self {
        Self {
            exists: [true; 2],
            up: [true; 2],
            taps: Vec::new(),
            arrivals: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            resting: BTreeSet::new(),
            distance: 240,
            guard: true,
            moved: false,
            lingering: BTreeSet::new(),
            storm: None,
            count: 0,
        }
    }

    pub fn metric(&self) -> u64 {
        (self.distance << 24) | 100
    }

    /// The tap that carries the guest: the first on its bridge.
    pub fn carrier(&self, guest: Guest) -> Option<&Tap> {
        let is_its = |tap: &Tap| tap.guest == Some(guest) && tap.bridge == Some(guest.bridge) && !tap.is_idle();
        self.taps.iter().find(|tap| is_its(tap))
    }

    /// Whether the tap's guest is routed here.
    pub fn is_routed(&self, tap: &Tap) -> bool {
        tap.up
            && tap.guest.is_some_and(|guest| {
                self.up[guest.bridge] && self.carrier(guest).is_some_and(|carrier| carrier.id == tap.id)
            })
    }

    pub fn has_duplicate(&self, tap: &Tap) -> bool {
        self.taps.iter().any(|other| other.id != tap.id && other.guest.is_some() && other.guest == tap.guest)
    }

    /// The tap is no carrier any more: its guest's claimer goes with it.
    pub fn leave(&mut self, guest: Option<Guest>) {
        if let Some(guest) = guest
            && self.arrivals.contains_key(&guest)
            && self.carrier(guest).is_none()
        {
            self.arrivals.remove(&guest);
            self.resting.insert(guest);
        }
    }

    /// What the kernel or `watch` deletes takes a claim along, which nobody brings back.
    pub fn doubt_claims(&mut self, is_hit: impl Fn(Guest) -> bool) {
        let hit = self.arrivals.iter_mut().filter(|(guest, _)| is_hit(**guest));
        hit.for_each(|(_, arrival)| arrival.doubtful |= arrival.claimed.is_some());
    }

    /// What takes a tap's own MAC off the bridge's FDB for a moment a claimer may take for the end of its tap.
    pub fn doubt_claimers(&mut self, is_hit: impl Fn(Guest) -> bool) {
        let hit = self.arrivals.iter_mut().filter(|(guest, _)| is_hit(**guest));
        hit.for_each(|(_, arrival)| arrival.doubtful = true);
    }

    /// A running guest's tap that is on no bridge comes back to the one of which it was a port.
    pub fn come_back(&mut self) {
        let up = self.up;
        for tap in self.taps.iter_mut().filter(|tap| tap.runs()) {
            if let Some(bridge) = tap.was.take_if(|bridge| up[*bridge]) {
                (tap.bridge, tap.moving) = (Some(bridge), true);
                tap.put_back += 1;
            }
        }
    }

    /// `watch` looks at everything: what it is known to oversee else is right now, but on a bridge that is down.
    pub fn look(&mut self) {
        let up = self.up;
        let seen = self.taps.iter_mut().filter(|tap| tap.bridge.is_none_or(|bridge| up[bridge]));
        seen.for_each(|tap| tap.doubled = false);
        self.lingering.clear();
    }

    /// `watch` starts: a tap without guard may have a hook that is at work on it.
    pub fn restart(&mut self, now: Instant) {
        let guard = self.guard;
        let unguarded = self.taps.iter_mut().filter(|tap| !guard || tap.young.is_some());
        unguarded.for_each(|tap| tap.young = Some(Young::since(now)));
    }

    /// A batch is over. What time alone changes is forgotten after so many batches that it has changed, for what is done
    /// next must depend on the seed only; returns until when that may not be true yet.
    pub fn age(&mut self) -> Option<Instant> {
        let mut ends = Vec::new();
        for tap in &mut self.taps {
            if let Some(young) = tap.young.as_mut() {
                young.age += 1;
                ends.extend(tap.young.take_if(|young| young.age > YOUNG).map(Young::end));
            }
        }
        for arrival in self.arrivals.values_mut().filter(|arrival| arrival.end().is_some()) {
            arrival.age += 1;
        }
        let old = self.arrivals.values().filter(|arrival| arrival.age > ARRIVAL);
        ends.extend(old.filter_map(Arrival::end));
        self.arrivals.retain(|_, arrival| arrival.age <= ARRIVAL);
        ends.into_iter().max()
    }

    pub fn expected(&self, now: Instant) -> Expected {
        let mut expected = Expected {
            routes: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            elsewhere: self.elsewhere.iter().map(|guest| guest.address()).collect(),
            ports: BTreeMap::new(),
            neighbours: BTreeSet::new(),
            perhaps_neighbours: BTreeSet::new(),
        };
        for tap in &self.taps {
            let routed = self.is_routed(tap);
            let is_young = tap.young.is_some_and(|young| now < young.end());
            let guard = (routed && !is_young && !tap.doubled).then(|| tap.guest.filter(|_| self.guard));
            let port = Port {
                bridge: tap.bridge.map(|bridge| BRIDGES[bridge]),
                up: tap.up,
                mac: tap.guest.filter(|_| !tap.overwritten || routed).map(Guest::tap_mac),
                // One that carries no guest of ours is not touched, and one that did may be either.
                isolated: if routed { Some(true) } else { tap.guest.is_none().then_some(false) },
                guard,
            };
            expected.ports.insert(tap.name.clone(), port);
            let Some(guest) = tap.guest else { continue };
            let neighbour = (guest.address(), BRIDGES[guest.bridge].to_owned());
            if routed {
                let route = (guest.address(), BRIDGES[guest.bridge].to_owned(), self.metric());
                match self.arrivals.get(&guest).map_or(Some(true), |arrival| arrival.is_routed(now)) {
                    Some(true) => expected.routes.insert(route),
                    Some(false) => false,
                    None => expected.perhaps.insert(route),
                };
            }
            if routed && !is_young && !tap.doubled {
                expected.neighbours.insert(neighbour);
            } else if tap.bridge.is_some() {
                expected.perhaps_neighbours.insert(neighbour);
            }
        }
        let entry = |guest: &Guest| (guest.address(), BRIDGES[guest.bridge].to_owned());
        expected.perhaps_neighbours.extend(self.lingering.iter().map(entry));
        for (guest, arrival) in &self.arrivals {
            let Some(claimed) = arrival.claimed else { continue };
            let route = (guest.address(), BRIDGES[guest.bridge].to_owned(), CLAIM);
            let is_sure = !arrival.doubtful && arrival.killed.is_none() && now < claimed + SETTLE;
            if is_sure && self.up[guest.bridge] {
                expected.routes.insert(route);
            } else if arrival.end().is_none_or(|end| now < end) {
                expected.perhaps.insert(route);
            }
        }
        expected
    }
}
