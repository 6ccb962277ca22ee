//! From what is wanted and what is there to the steps that are missing. Pure: no tokio, no rtnetlink, no
//! files, no processes. A step is a value that prints as the command a person would type for it.

use std::collections::BTreeMap;
use std::fmt;

use macaddr::MacAddr6;

use crate::addr::{self, GuestMac};
use crate::config::{BridgeConfig, CLAIM_METRIC, Config};
use crate::guest::guard::{self, Guard, HANDLE, PREFERENCE, Program};
use crate::guest::link::{Bridge, Device, Link};
use crate::guest::neighbour::Neighbour;
use crate::guest::policy;
use crate::guest::refusal::Refusal;
use crate::guest::route::{HostRoute, Route};
use crate::guest::snapshot::{Arrival, Snapshot};
use crate::guest::view::View;

/// What a verb asks for.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// The tap attached to `bridge`, or to the one that its guest belongs to, and the guest routed.
    #[allow(missing_docs, reason = "the names say it")]
    Up { tap: &'a str, guest: GuestMac, bridge: Option<&'a str> },
    /// The tap detached and its guest's routes gone. libvirt knows only the guest, `down` by hand the tap.
    #[allow(missing_docs, reason = "the names say it")]
    Down { tap: Option<&'a str>, guest: Option<GuestMac> },
    /// Every tap on a managed bridge routed, and no owned route without a tap or with a dead claimer.
    Everything,
}

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tap MAC, MTU, bridge and IFF_UP in one request. What it found undoes it.
    Attach(Port, Was),
    /// Changes nothing: fails unless the bridge's FDB names this tap for its tap MAC. Of two `up` for one guest at the
    /// same moment, only the first to attach passes.
    Confirm(Port),
    /// The MAC of a bridge into its own FDB, which has lost it.
    OwnEntry(Device, MacAddr6),
    /// Room for the guard on the tap's ingress, where there is none.
    Clsact(Device),
    /// The guard on the tap, in the place of the one that is there, if any.
    Guard(Device, Program, Option<Program>),
    /// What the bridge has learned behind a port before its guard came, also of a neighbour's MAC.
    Forget(Device),
    /// The guard that is there off the tap, and with `true` the clsact that holds nothing else.
    Unguard(Device, Program, bool),
    /// Whether the port is isolated from the bridge's other isolated ports.
    Isolate(Device, bool),
    /// The guest's permanent neighbour entry, in the place of what the kernel may have learned.
    AddNeighbour(Neighbour),
    /// One that is too much.
    DelNeighbour(Neighbour),
    /// A route that is missing.
    AddRoute(HostRoute),
    /// A guest that is behind another managed bridge now: its new route and its old one. The kernel tells routes apart by
    /// prefix and metric, not by interface (fib_find_alias), so the new one can only take the old one's place.
    MoveRoute(HostRoute, HostRoute),
    /// A route that is too much.
    DelRoute(HostRoute),
    /// The tap off its bridge, and down.
    Detach(Device),
    /// Ends the claimer of a guest that goes.
    Dismiss(Arrival),
}

/// A tap as a guest's port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    pub(crate) tap: Device,
    pub(crate) bridge: Device,
    /// The tap MAC.
    pub(crate) mac: MacAddr6,
    pub(crate) mtu: u32,
}

/// What `Attach` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Was {
    pub(crate) attached: bool,
    pub(crate) mac: MacAddr6,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Attach(Port { tap, bridge, mac, mtu }, _) => {
                write!(f, "ip link set dev {tap} address {} mtu {mtu} master {bridge} up", addr::show(*mac))
            }
            Self::Confirm(Port { bridge, mac, .. }) => write!(f, "bridge fdb get {} br {bridge}", addr::show(*mac)),
            Self::OwnEntry(bridge, mac) => write!(f, "bridge fdb add {} dev {bridge} self local", addr::show(*mac)),
            Self::Clsact(tap) => write!(f, "tc qdisc add dev {tap} clsact"),
            Self::Guard(tap, program, was) => {
                let verb = if was.is_some() { "replace" } else { "add" };
                write!(
                    f,
                    "tc filter {verb} dev {tap} ingress pref {PREFERENCE} handle {HANDLE} protocol all bpf da bytecode "
                )?;
                // The program is for a shell, not for people.
                if f.alternate() { write!(f, "'{},..'", program.0.len()) } else { write!(f, "'{program}'") }
            }
            Self::Forget(tap) => write!(f, "ip link set dev {tap} type bridge_slave fdb_flush"),
            Self::Unguard(tap, _, true) => write!(f, "tc qdisc del dev {tap} clsact"),
            Self::Unguard(tap, _, false) => {
                write!(f, "tc filter del dev {tap} ingress pref {PREFERENCE} handle {HANDLE} protocol all bpf")
            }
            Self::Isolate(tap, on) => {
                write!(f, "bridge link set dev {tap} isolated {}", if *on { "on" } else { "off" })
            }
            Self::AddNeighbour(neighbour) => write!(f, "ip neigh replace {neighbour}"),
            Self::DelNeighbour(Neighbour { address, bridge, .. }) => write!(f, "ip neigh del {address} dev {bridge}"),
            Self::AddRoute(route) => write!(f, "ip route add {route}"),
            Self::MoveRoute(route, _) => write!(f, "ip route replace {route}"),
            Self::DelRoute(route) => write!(f, "ip route del {route}"),
            Self::Detach(tap) => write!(f, "ip link set dev {tap} nomaster down"),
            Self::Dismiss(Arrival { pid: Some(pid), .. }) => write!(f, "kill {pid}"),
            Self::Dismiss(Arrival { address, pid: None, .. }) => {
                write!(f, "# end the claimer of {address}, which runs in another pid namespace")
            }
        }
    }
}

/// The steps from `snapshot` to what is `wanted`, in the order to take them; none if nothing is missing.
///
/// # Errors
/// What is wanted is against the policy; nothing may be touched then.
pub fn plan(config: &Config, wanted: &Wanted, snapshot: &Snapshot) -> Result<Vec<Step>, Refusal> {
    let view = View::new(config, snapshot);
    match *wanted {
        Wanted::Up { tap, guest, bridge } => {
            let link = policy::tap(snapshot, tap)?;
            let (wanted, bridge) = view.admit(link, guest, bridge)?;
            // The guard before the tap joins the bridge, which learns from the first frame.
            let steps = guard(wanted, link, guest).into_iter().chain(own_entry(bridge));
            let steps = steps.chain(up(&view, wanted, bridge, link, guest));
            // The guest that the tap carried before somebody closed it.
            let before = link.guest(config.mac_prefix).filter(|before| *before != guest && link.master.is_some());
            Ok(steps.chain(before.into_iter().flat_map(|before| withdraw(config, before, snapshot))).collect())
        }
        Wanted::Down { tap, guest } => down(config, tap, guest, snapshot),
        Wanted::Everything => Ok(everything(&view)),
    }
}

fn up(view: &View, wanted: &BridgeConfig, bridge: &Bridge, link: &Link, guest: GuestMac) -> Vec<Step> {
    let mac = guest.tap_mac();
    let mut steps = Vec::new();
    let attached = link.master == Some(bridge.index);
    // A bridge whose MTU nobody set takes that of its smallest port (br_mtu_auto_adjust): one small tap must not pull
    // down the others for good.
    let mtu = wanted.mtu.unwrap_or(if attached { link.mtu.max(bridge.mtu) } else { bridge.mtu });
    // Setting a tap's MAC, even the same one, brings it back into the FDB (br_fdb_changeaddr).
    if !attached || link.mac != mac || link.mtu != mtu || !link.up || bridge.flushed || link.unlisted {
        let port = Port { tap: link.device(), bridge: bridge.device(), mac, mtu };
        let was = Was { attached, mac: link.mac, mtu: link.mtu, up: link.up };
        steps.extend(corpses(view, link, guest));
        steps.extend([Step::Attach(port.clone(), was), Step::Confirm(port)]);
    }
    // Without proxy_arp_pvlan an isolated guest cannot reach the others on this bridge (arp.c, arp_fwd_pvlan).
    if wanted.isolate && link.isolated != bridge.proxy_arp_pvlan {
        steps.push(Step::Isolate(link.device(), bridge.proxy_arp_pvlan));
    }
    if link.guard != Guard::NotAsked && !view.has_neighbour(guest.address(), bridge) {
        steps.push(Step::AddNeighbour(Neighbour::of(view.config, guest, bridge)));
    }
    steps.extend(routes(view, guest, bridge, attached));
    steps
}

/// The routes that a guest lacks. One that is arriving has none before its first frame: behind an aggregate its old host's
/// route is not heard here, so that a settled one would not yield, and take its packets for as long as its memory is
/// copied (measured: 3 s of 3 s).
fn routes(view: &View, guest: GuestMac, bridge: &Bridge, attached: bool) -> Vec<Step> {
    if let Some(arrival) = view.arrival(guest.address()) {
        return if arrival.has_come { arrived(view, guest, bridge) } else { Vec::new() };
    }
    let settled = HostRoute::settled(view.config, guest.address(), bridge);
    // Of a tap that is only now attached also where it is there: the `down` of the guest's old tap may be about to
    // delete it. That one asks for the new tap after it has (`up_down::restore_route_of_new_tap`), so that one of the
    // two sees the other.
    let is_missing = !attached || !view.has(&settled);
    is_missing.then(|| settle(view, settled)).into_iter().collect()
}

/// The claim first: an LSA of the settled route would hold up the claim's (MinLSInterval, 5 s, RFC 2328).
pub fn arrived(view: &View, guest: GuestMac, bridge: &Bridge) -> Vec<Step> {
    let claim = HostRoute::claim(view.config, guest.address(), bridge);
    vec![Step::AddRoute(claim), settle(view, HostRoute::settled(view.config, guest.address(), bridge))]
}

fn settle(view: &View, settled: HostRoute) -> Step {
    match elsewhere(view, &settled) {
        Some(from) => Step::MoveRoute(settled, from),
        None => Step::AddRoute(settled),
    }
}

/// The guest's idle taps off their bridge, whose FDB would go on naming them for the tap MAC.
fn corpses<'a>(view: &'a View, link: &'a Link, guest: GuestMac) -> impl Iterator<Item = Step> + use<'a> {
    let others = view.snapshot.links.iter().filter(|other| other.index != link.index && other.is_idle());
    let on_bridges = others.filter(|other| view.snapshot.bridge_at(other.master).is_some());
    on_bridges.filter(move |other| other.guest(view.config.mac_prefix) == Some(guest)).map(|o| Step::Detach(o.device()))
}

fn own_entry(bridge: &Bridge) -> Option<Step> {
    (bridge.flushed && bridge.master.is_none()).then(|| Step::OwnEntry(bridge.device(), bridge.mac))
}

/// The steps to the guard that the configuration wants. The program is only made where it is needed: after an event a pass
/// asks for few guards, and with those of 4,000 others it took 10 to 22 % more (measured).
fn guard(wanted: &BridgeConfig, link: &Link, guest: GuestMac) -> Vec<Step> {
    let tap = link.device();
    let mut steps = match &link.guard {
        Guard::None if wanted.guard => vec![Step::Clsact(tap.clone()), Step::Guard(tap, guard::program(guest), None)],
        Guard::Room if wanted.guard => vec![Step::Guard(tap, guard::program(guest), None)],
        Guard::NotAsked | Guard::None | Guard::Room => Vec::new(),
        there if !wanted.guard => {
            there.program().map(|program| Step::Unguard(tap, program, false)).into_iter().collect()
        }
        Guard::Of(_) if link.is_guarded_for(guest) => Vec::new(),
        there => vec![Step::Guard(tap, guard::program(guest), there.program())],
    };
    if link.master.is_some() && matches!(steps.last(), Some(Step::Guard(..))) {
        steps.push(Step::Forget(link.device()));
    }
    steps
}

/// The same route of ours, but through another managed bridge.
fn elsewhere(view: &View, route: &HostRoute) -> Option<HostRoute> {
    let snapshot = view.snapshot;
    let mut there = view.routes_to(route.address).iter().filter(|there| snapshot.owns(there, route.protocol));
    let there = there.find(|there| there.metric == route.metric && there.dev != Some(route.bridge.index))?;
    Some(HostRoute::owned(there, snapshot.bridge_at(there.dev)?))
}

fn down(
    config: &Config,
    tap: Option<&str>,
    guest: Option<GuestMac>,
    snapshot: &Snapshot,
) -> Result<Vec<Step>, Refusal> {
    let link = tap.and_then(|tap| snapshot.link(tap)).map(policy::must_be_tap).transpose()?;
    // The tap's own guest too, where --mac names another: once detached, nothing would say whose route it was.
    let mut guests: Vec<GuestMac> = guest.into_iter().chain(link.and_then(|l| l.guest(config.mac_prefix))).collect();
    guests.dedup();
    let mut steps = Vec::new();
    // First: a `watch` that sees the tap attached and its route gone would bring the route back.
    if let Some(link) = link.filter(|link| snapshot.bridge_at(link.master).is_some()) {
        steps.push(Step::Detach(link.device()));
    }
    if let Some((link, program)) = link.and_then(|link| Some((link, link.guard.program()?))) {
        steps.push(Step::Unguard(link.device(), program, link.only_guard));
    }
    for guest in guests {
        // A second guest with a taken MAC was refused; its end must not take the first one's route along.
        if snapshot.carrier(guest, config.mac_prefix, tap).is_some() {
            continue;
        }
        steps.extend(withdraw(config, guest, snapshot));
    }
    Ok(steps)
}

/// What there is of a guest, but its tap.
fn withdraw(config: &Config, guest: GuestMac, snapshot: &Snapshot) -> Vec<Step> {
    // The claimer first, or it could claim once more after its claim is deleted.
    let claimers = snapshot.arrivals.iter().filter(|arrival| arrival.address == guest.address());
    let mut steps: Vec<Step> = claimers.cloned().map(Step::Dismiss).collect();
    let routes = snapshot.owned_routes(config.protocol).filter(|route| route.address == guest.address());
    steps.extend(routes.filter_map(|route| {
        let bridge = snapshot.bridge_at(route.dev)?;
        Some(Step::DelRoute(HostRoute::owned(route, bridge)))
    }));
    let neighbours = snapshot.owned_neighbours(config.protocol).filter(|(entry, _)| entry.address == guest.address());
    steps.extend(neighbours.map(|(_, bridge)| Step::DelNeighbour(Neighbour::of(config, guest, bridge))));
    steps
}

/// First what is missing, then what is too much: an address that changes its metric is never without a route,
/// which would cost it up to OSPF's MinLSInterval, 5 s (RFC 2328). A tap that the policy refuses is left as it is, and
/// one that somebody set down stays down.
fn everything(view: &View) -> Vec<Step> {
    let View { config, snapshot, .. } = view;
    let mut steps: Vec<Step> = snapshot.bridges.iter().filter_map(own_entry).collect();
    let mut guards = Vec::new();
    let mut settled = BTreeMap::new();
    for link in &snapshot.links {
        let Some(guest) = link.guest(config.mac_prefix).filter(|_| link.master.is_some() || link.lost) else {
            continue;
        };
        let Ok((wanted, bridge)) = view.admit(link, guest, link.was_on.as_deref()) else { continue };
        if link.lost {
            // Here too the guard comes before the bridge.
            steps.extend(guard(wanted, link, guest));
        } else {
            guards.extend(guard(wanted, link, guest));
        }
        if link.is_in_service() {
            steps.extend(up(view, wanted, bridge, link, guest));
            settled.insert(guest.address(), HostRoute::settled(config, guest.address(), bridge));
        }
    }
    let admitted = settled.keys().copied().collect();
    let is_claimed = |route: &Route| snapshot.arrivals.iter().any(|arrival| arrival.address == route.address);
    // A route with the metric of the settled one is that one, or has been moved above.
    let is_right = |route: &Route, settled: &HostRoute| {
        settled.metric == route.metric || (route.metric == CLAIM_METRIC && is_claimed(route))
    };
    let strays = snapshot.owned_routes(config.protocol);
    let strays = strays.filter(|route| settled.get(&route.address).is_some_and(|settled| !is_right(route, settled)));
    let surplus = view.orphans(&admitted).chain(strays);
    steps.extend(
        surplus.filter_map(|route| Some(Step::DelRoute(HostRoute::owned(route, snapshot.bridge_at(route.dev)?)))),
    );
    let is_settled =
        |entry: &Neighbour| settled.get(&entry.address).is_some_and(|settled| settled.bridge == entry.bridge);
    steps.extend(view.orphaned_neighbours().filter(|entry| !is_settled(entry)).map(Step::DelNeighbour));
    // Last: each takes 0.1 ms and more (measured), and no route should wait for those of hundreds of other guests.
    steps.extend(guards);
    steps
}
