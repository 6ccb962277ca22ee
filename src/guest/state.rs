//! The state of each tap and its guest's route, and of each owned route without a tap.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::guard::Guard;
use super::link::{Bridge, Link};
use super::refusal::Refusal;
use super::route::{HostRoute, Route};
use super::snapshot::{Arrival, Snapshot};
use super::view::View;
use crate::addr::{self, GuestMac};
use crate::config::{CLAIM_METRIC, Config};
use crate::text::{plural, quote};

/// What `status --json` prints; the field names are a contract.
#[derive(Debug, Serialize)]
pub struct Status {
    pub(crate) taps: Vec<TapRow>,
    pub(crate) orphans: Vec<OrphanRow>,
}

/// One tap on a managed bridge.
#[derive(Debug, Serialize)]
pub(crate) struct TapRow {
    pub tap: String,
    #[serde(skip)]
    pub index: u32,
    pub guest_mac: Option<GuestMac>,
    pub address: Option<Ipv4Addr>,
    /// `None` of a running guest's tap that is on no bridge.
    pub bridge: Option<String>,
    pub isolated: bool,
    /// Whether the guard is there that lets through this guest's frames only.
    pub guarded: bool,
    /// The configuration wants a guard, and it is not there.
    #[serde(skip)]
    pub unguarded: bool,
    pub route: RouteState,
    /// The next hop of another host's route to the address.
    pub next_hop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The kind of cause that `why` tells: the same of taps whose sentences differ in names and addresses only.
    #[serde(skip)]
    pub kind: Option<&'static str>,
    /// Whether the guest may have a route: the policy allows it, and the tap is in service.
    #[serde(skip)]
    pub is_admitted: bool,
    #[serde(skip)]
    pub up: bool,
}

/// An owned route that no tap accounts for: FRR announces an address that no guest has.
#[derive(Debug, Serialize)]
pub(crate) struct OrphanRow {
    pub address: Ipv4Addr,
    pub bridge: String,
    pub route: RouteState,
    pub metric: u32,
}

/// The state of a guest's route. tap32(8) explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    /// The guest's route is the kernel's best.
    Settled,
    /// As settled, and the claim of a guest that has just arrived stands before it.
    Claimed,
    /// The guest still runs on another host: a claimer waits here for its first frame, and until then it has no route.
    Arriving,
    /// Somebody had the tap open and nobody has now: it carries no guest, and has no route.
    Idle,
    /// The guest has no route.
    Missing,
    /// Another route to the address wins.
    Shadowed,
    /// The policy does not allow the route.
    Refused,
}

impl RouteState {
    /// Every state, in the order of the counts.
    pub const ALL: [Self; 7] =
        [Self::Settled, Self::Claimed, Self::Arriving, Self::Shadowed, Self::Missing, Self::Refused, Self::Idle];

    /// The word that `status` prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Claimed => "claimed",
            Self::Arriving => "arriving",
            Self::Idle => "idle",
            Self::Missing => "missing",
            Self::Shadowed => "shadowed",
            Self::Refused => "refused",
        }
    }
}

impl Status {
    /// Judges a whole snapshot.
    pub fn of(config: &Config, snapshot: &Snapshot) -> Self {
        let view = View::new(config, snapshot);
        let taps: Vec<TapRow> = snapshot.links.iter().filter_map(|link| TapRow::of(&view, link)).collect();
        let admitted = taps.iter().filter(|tap| tap.is_admitted).filter_map(|tap| tap.address);
        let orphans = view.orphans(&admitted.collect()).map(|route| OrphanRow::of(snapshot, route)).collect();
        Self { taps, orphans }
    }

    /// The number of taps in each state.
    pub(crate) fn by_state(&self) -> [(RouteState, usize); 7] {
        RouteState::ALL.map(|state| (state, self.taps.iter().filter(|tap| tap.route == state).count()))
    }

    /// The taps without the guard that the configuration wants.
    pub(crate) fn unguarded(&self) -> impl Iterator<Item = &TapRow> {
        self.taps.iter().filter(|tap| tap.unguarded)
    }

    /// A sentence for each tap whose guest's route loses to another.
    pub(crate) fn shadowed(&self) -> impl Iterator<Item = String> {
        let shadowed = self.taps.iter().filter(|row| row.route == RouteState::Shadowed);
        shadowed.map(|row| format!("{} is shadowed: {}", row.tap, row.shadowed_by()))
    }

    /// A sentence for each tap that gets no route.
    pub(crate) fn refused(&self) -> impl Iterator<Item = String> {
        let refused = self.taps.iter().filter(|row| row.route == RouteState::Refused);
        refused.map(|row| format!("{} is refused: {}", row.tap, row.why.as_deref().unwrap_or_default()))
    }

    /// `3 taps, 2 settled, 1 missing`
    pub(crate) fn count(&self) -> String {
        let mut parts = vec![plural(self.taps.len(), "tap")];
        let states = self.by_state().into_iter().filter(|(_, number)| *number > 0);
        parts.extend(states.map(|(state, number)| format!("{number} {}", state.name())));
        let unguarded = self.unguarded().count();
        if unguarded > 0 {
            parts.push(format!("{unguarded} unguarded"));
        }
        if !self.orphans.is_empty() {
            parts.push(plural(self.orphans.len(), "orphan"));
        }
        parts.join(", ")
    }
}

/// A sentence for each managed bridge that does not exist.
pub(crate) fn absent_bridges(config: &Config, snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let absent = config.bridges.iter().filter(|wanted| snapshot.bridge(&wanted.name).is_none());
    absent.map(|wanted| format!("bridge {} does not exist", wanted.name))
}

impl TapRow {
    /// Judges one tap that is a port of a managed bridge, or a running guest's that is on no bridge. `None` of another.
    pub fn of(view: &View, link: &Link) -> Option<Self> {
        let config = view.config;
        let guest = link.guest(config.mac_prefix);
        let Some(bridge) = view.snapshot.bridge_at(link.master) else {
            return guest.filter(|_| link.master.is_none()).map(|guest| Self::of_no_bridge(view, link, guest));
        };
        let refusal = match guest {
            Some(guest) => view.admit(link, guest, None).err().map(Refusal::told),
            None => Some(("foreign MAC", foreign_mac(config, link))),
        };
        let address = guest.map(GuestMac::address);
        let best = address.and_then(|address| view.foreign_best_route(address));
        let barred = address.and_then(|address| barred(view.snapshot, address));
        let has = |route: fn(&Config, Ipv4Addr, &Bridge) -> HostRoute| {
            address.is_some_and(|address| view.has(&route(config, address, bridge)))
        };
        let route = match refusal {
            _ if link.is_idle() && guest.is_some() => RouteState::Idle,
            Some(_) => RouteState::Refused,
            None if !link.up => RouteState::Missing,
            None if address.is_some_and(|address| view.is_arriving(address)) => RouteState::Arriving,
            None if best.is_some() || barred.is_some() => RouteState::Shadowed,
            None if has(HostRoute::claim) => RouteState::Claimed,
            None if has(HostRoute::settled) => RouteState::Settled,
            None => RouteState::Missing,
        };
        let guarded = link.is_guarded(config.mac_prefix);
        let on_link = best.filter(|route| route.gateways.is_empty()).map(|route| foreign(view.snapshot, route));
        let down = (!link.up).then(|| set_down(link));
        let awaited = address.and_then(|address| view.arrival(address)).filter(|_| route == RouteState::Arriving);
        let is_admitted = refusal.is_none() && link.is_in_service();
        let cause = refusal
            .filter(|_| route == RouteState::Refused)
            .or(down.map(|why| ("down", why)))
            .or(awaited.map(|arrival| ("awaited", waits(view.snapshot, arrival))))
            .or(on_link.map(|why| ("on link", why)))
            .or(barred.map(|why| ("barred", why)));
        let (kind, why) = cause.unzip();
        Some(Self {
            is_admitted,
            up: link.up,
            tap: link.name.clone(),
            index: link.index,
            guest_mac: guest,
            address,
            bridge: Some(bridge.name.clone()),
            isolated: link.isolated,
            guarded,
            unguarded: link.guard != Guard::NotAsked && !guarded && config.wants_guard(&bridge.name),
            route,
            next_hop: best.filter(|route| !route.gateways.is_empty()).map(Route::next_hop),
            why,
            kind,
        })
    }

    fn of_no_bridge(view: &View, link: &Link, guest: GuestMac) -> Self {
        let up = format!("`tap32 up {} --mac {guest}` puts it back", quote(&link.name));
        let admitted = view.admit(link, guest, link.was_on.as_deref());
        let (kind, then) = admitted.map_or_else(Refusal::told, |_| ("on no bridge", up));
        let state = if link.up { "" } else { "down and " };
        Self {
            tap: link.name.clone(),
            index: link.index,
            guest_mac: Some(guest),
            address: Some(guest.address()),
            bridge: None,
            isolated: false,
            guarded: link.is_guarded(view.config.mac_prefix),
            unguarded: false,
            route: RouteState::Missing,
            next_hop: None,
            why: Some(format!("the tap is {state}on no bridge, so the guest is cut off: {then}")),
            kind: Some(kind),
            is_admitted: false,
            up: link.up,
        }
    }

    /// Whether packets do not reach the guest.
    pub fn is_wrong(&self) -> bool {
        matches!(self.route, RouteState::Missing | RouteState::Shadowed | RouteState::Refused)
    }

    /// What wins over the route of a shadowed tap's guest.
    pub fn shadowed_by(&self) -> String {
        match (&self.next_hop, &self.why) {
            (Some(next_hop), _) => format!("another host announces the address: the route through {next_hop} wins"),
            (None, why) => why.clone().unwrap_or_default(),
        }
    }
}

impl OrphanRow {
    fn of(snapshot: &Snapshot, route: &Route) -> Self {
        Self {
            address: route.address,
            bridge: route.dev.map(|index| snapshot.name_of(index)).unwrap_or_default(),
            route: if route.metric == CLAIM_METRIC { RouteState::Claimed } else { RouteState::Settled },
            metric: route.metric,
        }
    }
}

fn set_down(link: &Link) -> String {
    format!("somebody set the tap down: `ip link set dev {} up` gives the guest its route back", quote(&link.name))
}

fn waits(snapshot: &Snapshot, arrival: &Arrival) -> String {
    let (claimer, end) = match arrival.pid {
        Some(pid) => (format!("process {pid}"), format!("`kill -KILL {pid}`")),
        None => ("a process in another pid namespace".to_owned(), "its end".to_owned()),
    };
    // One claimer waits for all NICs of a domain.
    let of_it = snapshot.arrivals.iter().filter(|other| other.pid == arrival.pid);
    let others = match of_it.count() {
        1 if arrival.pid.is_some() => "",
        _ => ", and end the wait for its domain's other NICs too",
    };
    format!(
        "{claimer} waits for the guest's first frame, and until then the guest runs on its old host; if it runs here \
         already and sends nothing, {end} and `tap32 reconcile` give it its route{others}"
    )
}

fn barred(snapshot: &Snapshot, address: Ipv4Addr) -> Option<String> {
    let what = snapshot.barred.get(&address)?;
    Some(format!("{what} takes the packets for {address}: `ip route show table all {address}` and `ip rule` show it"))
}

/// A route on link that is not tap32's and wins.
fn foreign(snapshot: &Snapshot, route: &Route) -> String {
    let dev = route.dev.map_or_else(|| "several interfaces".to_owned(), |dev| quote(&snapshot.name_of(dev)));
    format!(
        "{0}/32 dev {dev} proto {1} metric {2}{3} is not tap32's and wins: if nothing needs it, run `ip route del {0}/32 \
         dev {dev} proto {1} metric {2}{3}`",
        route.address,
        route.protocol,
        route.metric,
        route.in_table()
    )
}

fn foreign_mac(config: &Config, link: &Link) -> String {
    // libvirt keeps the last five octets, so the tap shows which prefix the guest's MAC lacks.
    match GuestMac::new(link.mac, config.mac_prefix) {
        Some(guest) => format!("the tap has the guest's own MAC: `tap32 up {} --mac {guest}` fixes it", link.name),
        None => format!(
            "tap MAC {} does not identify a guest, as it is not of the form {}: give the guest the MAC that `tap32 encode \
             ADDRESS` prints, or take the tap off with `ip link set dev {} nomaster`",
            addr::show(link.mac),
            config.mac_prefix.tap_form(),
            quote(&link.name)
        ),
    }
}
