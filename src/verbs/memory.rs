//! What `watch` remembers of taps from one pass to the next: of a tap that somebody takes off its bridge, or whose MAC
//! somebody changes, the kernel does not keep what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::Instant;

use crate::addr::GuestMac;
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::guard::Guard;
use crate::guest::link::Link;
use crate::guest::plan::{Port, Step};
use crate::guest::snapshot::Snapshot;
use crate::kernel::Detail;

/// How long a tap that comes is left to its hook, which guards it. libvirt makes a tap, sets its <bandwidth> and then
/// calls the hook, 0.2 s later; a guest does not start if there is a qdisc on the tap before libvirt's own. `virsh
/// domiftune` takes that qdisc from a running guest and makes it anew; where that fails the guest has no limit any more.
const LEFT_TO_HOOK: Duration = Duration::from_secs(1);

/// How long a guard that has just gone is left alone. Its own event may say that libvirt took it away with its qdisc, and
/// reaches watch after watch has looked: a pass for an earlier event of the same `tc` or `virsh` may see the guard gone.
const LET_EVENTS_COME: Duration = Duration::from_millis(10);

/// How long a tap may be on no bridge. Who moves it to another takes it off the first, and puts it on the second some
/// milliseconds later (`virsh update-device`); between them it must not be put back.
const AWAY: Duration = Duration::from_millis(100);

/// How much longer than `settle` a claim may stay before its claimer counts as stuck.
const OVERDUE: Duration = Duration::from_secs(5);

/// So often within [`STRIFE`] a tap is put back. Then another program is at work that will go on.
const PATIENCE: usize = 5;

const STRIFE: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// One pass only: nothing was seen before it, and nothing comes after.
    #[default]
    Once,
    Starts,
    Runs,
}

/// Of taps by their indices.
#[derive(Default)]
pub struct Memory {
    phase: Phase,
    /// All taps on managed bridges.
    taps: BTreeSet<u32>,
    /// The taps that carry guests.
    carriers: BTreeMap<u32, Carrier>,
    /// The tap of each guest that is here.
    guests: BTreeMap<Ipv4Addr, u32>,
    /// How often the taps were opened that nobody has open. An event tells of each opening.
    openings: BTreeMap<u32, u32>,
    /// Names of managed bridges, also of those that went.
    bridges: BTreeMap<u32, String>,
    /// Until when taps without guard are left to their hooks or to libvirt; `None` for one that a hook has guarded.
    left: BTreeMap<u32, Option<Instant>>,
    /// When the last pass over everything began.
    began: Option<Instant>,
    /// When each claim was first seen.
    claims: BTreeMap<Ipv4Addr, Instant>,
    /// When each tap was put back.
    put_back: BTreeMap<u32, (Port, Vec<Instant>)>,
}

struct Carrier {
    guest: GuestMac,
    /// `None` of one that was never seen on its bridge.
    bridge: Option<u32>,
    /// It had its guard. `down` takes that away with the bridge, and others do not.
    guarded: bool,
    /// Since when it is on no bridge.
    away: Option<Instant>,
}

impl Memory {
    /// For `watch`, which may start while libvirt is at work on a tap.
    pub fn of_watch() -> Self {
        Self { phase: Phase::Starts, ..Self::default() }
    }

    /// A pass begins. One over everything acts upon all that is due.
    pub fn begins(&mut self, detail: Detail<'_>) {
        if matches!(detail, Detail::All) {
            self.began = Some(Instant::now());
        }
    }

    /// Whether a pass must look for lost taps itself.
    pub fn is_empty(&self) -> bool {
        self.phase != Phase::Runs
    }

    pub fn has_tap(&self, index: u32) -> bool {
        self.taps.contains(&index)
    }

    /// The tap of a guest that is here.
    pub fn tap_of(&self, address: Ipv4Addr) -> Option<u32> {
        self.guests.get(&address).copied()
    }

    /// An interface came, or something happened to it.
    pub fn comes(&mut self, index: u32) {
        if !self.has_tap(index) {
            self.left.entry(index).or_insert_with(|| Some(Instant::now() + LEFT_TO_HOOK));
        }
    }

    /// libvirt is at work on the tap.
    pub fn leave_to_hook(&mut self, index: u32) {
        self.left.insert(index, Some(Instant::now() + LEFT_TO_HOOK));
    }

    /// A hook has guarded a tap that comes.
    pub fn guarded_by_hook(&mut self, index: u32) {
        self.left.insert(index, None);
    }

    /// Whether a guard that is missing is to stay so for now: it is another that puts it on, or it has only just gone.
    pub fn leaves(&mut self, index: u32) -> bool {
        let had_guard = self.carriers.get(&index).is_some_and(|carrier| carrier.guarded);
        if had_guard && self.phase == Phase::Runs {
            self.left.entry(index).or_insert_with(|| Some(Instant::now() + LET_EVENTS_COME));
        }
        let is_early = |until: &Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        self.phase == Phase::Starts || self.left.get(&index).is_some_and(is_early)
    }

    /// The interfaces that a snapshot of the host does not have as taps on its bridges, though they carried guests, or
    /// something has happened to them.
    pub fn missed(&self, snapshot: &Snapshot, detail: Detail<'_>) -> Vec<u32> {
        let there: BTreeSet<u32> = snapshot.links.iter().map(|link| link.index).collect();
        let touched = if let Detail::Of(touched) = detail { touched } else { &BTreeSet::new() };
        let asked: BTreeSet<u32> = self.carriers.keys().chain(touched).copied().collect();
        asked.difference(&there).copied().collect()
    }

    /// Adds to a snapshot what is known of its taps, and of the missed ones, as they are now, those that somebody took off
    /// their bridge, and those that are back since the snapshot. One that was never seen on its bridge is known by its
    /// guard. Forgets those that somebody has set down too, or given to another bridge.
    pub fn recall(&mut self, config: &Config, snapshot: &mut Snapshot, missed: Vec<u32>, found: Vec<Link>) {
        let is_ours = |link: &Link| link.master.is_none() || snapshot.bridge_at(link.master).is_some();
        let found: Vec<Link> = found.into_iter().filter(|link| link.is_tap() && link.up && is_ours(link)).collect();
        for index in missed.into_iter().filter(|index| found.iter().all(|link| link.index != *index)) {
            self.carriers.remove(&index);
        }
        for link in found {
            if link.master.is_some() {
                snapshot.links.push(link);
                continue;
            }
            if let Some(guest) = link.guest(config.mac_prefix).filter(|_| link.is_guarded(config.mac_prefix)) {
                self.carriers.entry(link.index).or_insert(Carrier { guest, bridge: None, guarded: true, away: None });
            }
            let Some(carrier) = self.carriers.get_mut(&link.index) else { continue };
            let bridge = carrier.bridge.and_then(|bridge| self.bridges.get(&bridge)).cloned();
            let wants_guard = bridge.as_ref().is_some_and(|name| config.wants_guard(name));
            if carrier.guarded && wants_guard && matches!(link.guard, Guard::None | Guard::Room) {
                self.carriers.remove(&link.index);
                continue;
            }
            let away = carrier.away.get_or_insert_with(Instant::now).elapsed();
            let is_left = self.is_in_strife(link.index);
            let lost = !is_left && link.carrier && away >= AWAY;
            snapshot.links.push(Link { lost, was_on: bridge.filter(|_| !is_left), ..link });
        }
        for link in &mut snapshot.links {
            link.remembered = self.carriers.get(&link.index).map(|carrier| carrier.guest.mac());
            link.openings = link.openings.max(self.openings.get(&link.index).copied().unwrap_or_default());
        }
    }

    /// Takes the claimers out of a snapshot that do not end their claims, so that these are taken back as those of dead
    /// ones are: somebody may have stopped one (SIGSTOP, a frozen cgroup).
    pub fn leave_out_stuck_claimers(&mut self, config: &Config, snapshot: &mut Snapshot) {
        let claims = snapshot.owned_routes(config.protocol).filter(|route| route.metric == CLAIM_METRIC);
        let seen = |address| (address, self.claims.get(&address).copied().unwrap_or_else(Instant::now));
        self.claims = claims.map(|route| seen(route.address)).collect();
        let limit = config.migration.settle + OVERDUE;
        let is_overdue = |address| self.claims.get(&address).is_some_and(|since| since.elapsed() > limit);
        snapshot.arrivals.retain(|arrival| !is_overdue(arrival.address));
    }

    /// Whether another program changes the tap as often as it is put back.
    pub fn is_in_strife(&self, index: u32) -> bool {
        self.put_back.get(&index).is_some_and(|(_, times)| is_strife(times))
    }

    /// A sentence for each tap that another program keeps taking away.
    pub fn strife(&self) -> impl Iterator<Item = String> {
        let strife = self.put_back.values().filter(|(_, times)| is_strife(times));
        strife.map(|(Port { tap, bridge, .. }, _)| {
            format!(
                "another program takes {tap} off {bridge}, or changes its MAC, again and again, so watch leaves it alone \
                 for {} s: a .network file of systemd-networkd or a profile of NetworkManager may match it, and `tap32 \
                 doctor` names them",
                STRIFE.as_secs()
            )
        })
    }

    /// Learns from a pass: what it found, and which steps it took.
    pub fn learn(&mut self, config: &Config, snapshot: &Snapshot, done: &[Step]) {
        let not_asked = snapshot.links.iter().filter(|link| link.guard == Guard::NotAsked).map(|link| link.index);
        if self.phase == Phase::Starts {
            self.phase = Phase::Runs;
            self.left.extend(not_asked.map(|index| (index, Some(Instant::now() + LEFT_TO_HOOK))));
        } else {
            // A tap whose guard a pass has looked at is left to its hook no longer.
            let not_asked: BTreeSet<u32> = not_asked.collect();
            self.left.retain(|tap, until| until.is_some() && not_asked.contains(tap));
        }
        self.bridges.extend(snapshot.bridges.iter().map(|bridge| (bridge.index, bridge.name.clone())));
        let idle = snapshot.links.iter().filter(|link| link.is_idle());
        self.openings = idle.map(|link| (link.index, link.openings)).collect();
        self.taps.clear();
        self.guests.clear();
        for link in &snapshot.links {
            self.taps.insert(link.index);
            let Some(guest) = link.guest(config.mac_prefix) else { continue };
            self.guests.insert(guest.address(), link.index);
            if let bridge @ Some(_) = link.master {
                let was_guarded = || self.carriers.get(&link.index).is_some_and(|carrier| carrier.guarded);
                let is_wanted = snapshot.bridge_at(bridge).is_some_and(|bridge| config.wants_guard(&bridge.name));
                let is_there = if link.guard == Guard::NotAsked { was_guarded() } else { link.is_guarded_for(guest) };
                let guarded = is_wanted && is_there;
                self.carriers.insert(link.index, Carrier { guest, bridge, guarded, away: None });
            }
        }
        for step in done {
            // Not of one that a flush of the FDB forgot.
            if let Step::Attach(port, was) = step
                && (!was.attached || was.mac != port.mac)
                && let Some(carrier) = self.carriers.get_mut(&port.tap.index)
            {
                carrier.away = None;
                let (_, times) = self.put_back.entry(port.tap.index).or_insert_with(|| (port.clone(), Vec::new()));
                times.retain(|time| time.elapsed() < STRIFE);
                times.push(Instant::now());
            }
        }
        self.put_back.retain(|tap, _| self.carriers.contains_key(tap));
    }

    /// When to look again though nothing happens.
    pub fn next(&self) -> Option<Instant> {
        let left = self.left.values().flatten().copied();
        let away = self.carriers.values().filter_map(|carrier| Some(carrier.away? + AWAY));
        // What came due since that pass began has not been acted upon.
        left.chain(away).filter(|next| self.began.is_none_or(|began| *next > began)).min()
    }
}

fn is_strife(times: &[Instant]) -> bool {
    times.iter().filter(|time| time.elapsed() < STRIFE).count() >= PATIENCE
}
