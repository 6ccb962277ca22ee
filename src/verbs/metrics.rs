//! `watch`'s file for node_exporter's textfile collector, in the format of
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};

use crate::config::{CLAIM_METRIC, Config};
use crate::guest::plan::Step;
use crate::guest::policy;
use crate::guest::snapshot::Snapshot;
use crate::guest::state::{RouteState, Status};

/// What follows a family's name, and the value.
type Sample = (String, String);

/// Counters since `watch` started, and what the last pass saw that a status does not tell.
#[derive(Debug, Default)]
pub struct Metrics {
    repairs: BTreeMap<&'static str, u64>,
    passes: u64,
    failures: u64,
    lost: u64,
    /// Frames that guards dropped, by bridge.
    dropped: BTreeMap<String, u64>,
    /// The counters of which they are the sums, by the tap's index.
    counted: BTreeMap<u32, u32>,
    duration: Duration,
    last_success: Option<SystemTime>,
    /// Whether each managed bridge is broken.
    broken: BTreeMap<String, bool>,
    claims: Ages,
    arrivals: Ages,
}

/// Since when an address has been in a state that ought to pass, as far as this `watch` has seen it.
#[derive(Debug, Default)]
struct Ages {
    since: BTreeMap<Ipv4Addr, Instant>,
    oldest: Duration,
}

impl Ages {
    fn look(&mut self, there: &BTreeSet<Ipv4Addr>, now: Instant) {
        self.since.retain(|address, _| there.contains(address));
        for address in there {
            self.since.entry(*address).or_insert(now);
        }
        self.oldest = self.since.values().map(|since| now.duration_since(*since)).max().unwrap_or_default();
    }
}

impl Metrics {
    /// What a pass saw of the bridges, and of claims and arrivals that may be staying.
    pub fn looked(&mut self, config: &Config, snapshot: &Snapshot, status: &Status, now: Instant) {
        let is_broken = |name: &str| snapshot.bridge(name).is_none_or(|bridge| !bridge.up || bridge.master.is_some());
        self.broken = config.bridges.iter().map(|bridge| (bridge.name.clone(), is_broken(&bridge.name))).collect();
        self.broken.extend(policy::other_ports(config, snapshot).map(|(bridge, _)| (bridge, true)));
        let claims = snapshot.owned_routes(config.protocol).filter(|route| route.metric == CLAIM_METRIC);
        self.claims.look(&claims.map(|claim| claim.address).collect(), now);
        let arriving = status.taps.iter().filter(|tap| tap.route == RouteState::Arriving);
        self.arrivals.look(&arriving.filter_map(|tap| tap.address).collect(), now);
    }

    pub(crate) fn passed(&mut self, done: &[Step], took: Duration, at: SystemTime) {
        self.passes += 1;
        self.duration += took;
        self.last_success = Some(at);
        for step in done {
            *self.repairs.entry(kind(step)).or_default() += 1;
        }
    }

    pub(crate) fn failed(&mut self) {
        self.failures += 1;
    }

    pub(crate) fn lost(&mut self) {
        self.lost += 1;
    }

    /// `counters`: the dropped frames of each clsact since it was made, by its tap's index. They go with the tap.
    pub(crate) fn dropped(&mut self, status: &Status, counters: BTreeMap<u32, u32>) {
        for tap in status.taps.iter().filter(|tap| tap.guarded) {
            let now = counters.get(&tap.index).copied().unwrap_or_default();
            let before = self.counted.get(&tap.index).copied().filter(|before| *before <= now).unwrap_or_default();
            if let Some(bridge) = &tap.bridge {
                *self.dropped.entry(bridge.clone()).or_default() += u64::from(now - before);
            }
        }
        self.counted = counters;
    }

    /// The whole file.
    pub fn text(&self, status: &Status) -> String {
        let one = |value: &dyn Display| vec![(String::new(), value.to_string())];
        let mut bridges = BTreeMap::<&str, usize>::new();
        for bridge in status.taps.iter().filter_map(|tap| tap.bridge.as_ref()) {
            *bridges.entry(bridge).or_default() += 1;
        }
        let taps = bridges.iter().map(|(bridge, taps)| (label("bridge", bridge), taps.to_string())).collect();
        let states = status.by_state().map(|(state, number)| (label("state", state.name()), number.to_string()));
        let repaired = |kind| self.repairs.get(kind).copied().unwrap_or_default().to_string();
        let repairs = KINDS.map(|kind| (label("kind", kind), repaired(kind)));
        let passes = [("_sum", self.duration.as_secs_f64().to_string()), ("_count", self.passes.to_string())];
        let passes = passes.map(|(suffix, value)| (suffix.to_owned(), value));
        let since = self.last_success.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        let version = vec![(label("version", env!("CARGO_PKG_VERSION")), "1".to_owned())];
        let mut dropped: BTreeMap<&str, u64> = bridges.keys().map(|bridge| (*bridge, 0)).collect();
        dropped.extend(self.dropped.iter().map(|(bridge, frames)| (bridge.as_str(), *frames)));
        let dropped = dropped.iter().map(|(bridge, frames)| (label("bridge", bridge), frames.to_string())).collect();
        let broken =
            self.broken.iter().map(|(bridge, broken)| (label("bridge", bridge), u8::from(*broken).to_string()));
        let families: [(&str, &str, &str, Vec<Sample>); 14] = [
            ("build_info", "gauge", "Always 1.", version),
            ("taps", "gauge", "Taps that are ports of a managed bridge.", taps),
            (
                "bridge_broken",
                "gauge",
                "1 if a managed bridge is absent, down, itself a port, or has ports that are not taps.",
                broken.collect(),
            ),
            ("guest_routes", "gauge", "Taps by the state of their route, as in tap32 status.", states.into()),
            (
                "unguarded_taps",
                "gauge",
                "Taps without the guard that the configuration wants.",
                one(&status.unguarded().count()),
            ),
            ("guard_dropped_frames_total", "counter", "Frames of guests that their guard dropped.", dropped),
            ("orphan_routes", "gauge", "Routes of tap32 without a running guest.", one(&status.orphans.len())),
            (
                "oldest_claim_seconds",
                "gauge",
                "For how long watch has seen the oldest claim; 0 without one.",
                one(&self.claims.oldest.as_secs_f64()),
            ),
            (
                "oldest_arrival_seconds",
                "gauge",
                "For how long watch has seen the guest that has been arriving longest; 0 without one.",
                one(&self.arrivals.oldest.as_secs_f64()),
            ),
            ("repairs_total", "counter", "Steps that fixed something, by kind.", repairs.into()),
            ("pass_duration_seconds", "summary", "Passes over the whole host and how long they took.", passes.into()),
            ("pass_failures_total", "counter", "Passes that failed, or had a step that failed.", one(&self.failures)),
            (
                "lost_events_total",
                "counter",
                "Times that the kernel dropped events before watch read them.",
                one(&self.lost),
            ),
            (
                "last_success_timestamp_seconds",
                "gauge",
                "When the last pass read the whole host.",
                one(&since.as_secs_f64()),
            ),
        ];
        let family = |(name, kind, help, samples): (&str, &str, &str, Vec<Sample>)| {
            let sample = |(suffix, value)| format!("tap32_{name}{suffix} {value}\n");
            let samples: String = samples.into_iter().map(sample).collect();
            format!("# HELP tap32_{name} {help}\n# TYPE tap32_{name} {kind}\n{samples}")
        };
        families.map(family).concat()
    }
}

/// Replaces the file in one step, so that a reader never sees half of it.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("prom.new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.with_context(|| {
        format!(
            "tap32 cannot write metrics to {}: the folder must exist, and ReadWritePaths= of the unit must name it",
            path.display()
        )
    })
}

const KINDS: [&str; 8] =
    ["attach", "guard", "isolate", "neighbour", "add_route", "move_route", "delete_route", "other"];

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Attach(..) => "attach",
        Step::Guard(..) | Step::Unguard(..) => "guard",
        Step::Isolate(..) => "isolate",
        Step::AddRoute(_) => "add_route",
        Step::MoveRoute(..) => "move_route",
        Step::DelRoute(_) => "delete_route",
        Step::AddNeighbour(_) | Step::DelNeighbour(_) => "neighbour",
        Step::OwnEntry(..)
        | Step::Clsact(_)
        | Step::Forget(_)
        | Step::Confirm(_)
        | Step::Detach(_)
        | Step::Dismiss(_) => "other",
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\""))
}
