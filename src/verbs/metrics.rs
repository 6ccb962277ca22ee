//! What `watch` tells Prometheus: a text file for node_exporter's textfile collector, in the exposition format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Pure but for the writing.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use crate::guest::plan::Step;
use crate::guest::state::Status;

/// Counters since `watch` started.
#[derive(Debug, Default)]
pub struct Metrics {
    repairs: BTreeMap<&'static str, u64>,
    passes: u64,
    failures: u64,
    lost: u64,
    duration: Duration,
    last_success: Option<SystemTime>,
}

impl Metrics {
    pub fn passed(&mut self, done: &[Step], took: Duration, at: SystemTime) {
        self.passes += 1;
        self.duration += took;
        self.last_success = Some(at);
        for step in done {
            *self.repairs.entry(kind(step)).or_default() += 1;
        }
    }

    pub fn failed(&mut self) {
        self.failures += 1;
    }

    pub fn lost(&mut self) {
        self.lost += 1;
    }

    /// The whole file.
    pub fn text(&self, status: &Status) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP tap32_{name} {help}\n# TYPE tap32_{name} {kind}");
            for (suffix, value) in samples {
                let _ = writeln!(text, "tap32_{name}{suffix} {value}");
            }
        };
        let one = |value: &dyn Display| vec![(String::new(), value.to_string())];
        family("build_info", "gauge", "Always 1.", &[(label("version", env!("CARGO_PKG_VERSION")), "1".to_owned())]);
        let mut bridges = BTreeMap::<&str, usize>::new();
        for tap in &status.taps {
            *bridges.entry(&tap.bridge).or_default() += 1;
        }
        let taps: Vec<_> = bridges.iter().map(|(bridge, taps)| (label("bridge", bridge), taps.to_string())).collect();
        family("taps", "gauge", "Taps that are ports of a managed bridge.", &taps);
        let states = status.by_state().map(|(state, number)| (label("state", state.name()), number.to_string()));
        family("guest_routes", "gauge", "Taps by the state of their route, as in tap32 status.", &states);
        family("orphan_routes", "gauge", "Routes of tap32 without a tap.", &one(&status.orphans.len()));
        let repairs =
            KINDS.map(|kind| (label("kind", kind), self.repairs.get(kind).copied().unwrap_or_default().to_string()));
        family("repairs_total", "counter", "Steps that fixed something, by kind.", &repairs);
        let passes = [
            ("_sum".to_owned(), self.duration.as_secs_f64().to_string()),
            ("_count".to_owned(), self.passes.to_string()),
        ];
        family("pass_duration_seconds", "summary", "Passes over the whole host and how long they took.", &passes);
        family(
            "pass_failures_total",
            "counter",
            "Passes that failed, or had a step that failed.",
            &one(&self.failures),
        );
        family(
            "lost_events_total",
            "counter",
            "Times that the kernel dropped events before watch read them.",
            &one(&self.lost),
        );
        let since = self.last_success.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        let help = "When the last pass read the whole host.";
        family("last_success_timestamp_seconds", "gauge", help, &one(&since.as_secs_f64()));
        text
    }
}

/// Replaces the file in one step, so that nobody ever reads half of it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("prom.new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path));
    written.with_context(|| {
        format!(
            "tap32 cannot write metrics to {}: the folder must exist, and ReadWritePaths= of the unit must name it",
            path.display()
        )
    })
}

const KINDS: [&str; 6] = ["attach", "isolate", "add_route", "move_route", "delete_route", "other"];

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Attach { .. } => "attach",
        Step::Isolate { .. } => "isolate",
        Step::AddRoute(_) => "add_route",
        Step::MoveRoute { .. } => "move_route",
        Step::DelRoute(_) => "delete_route",
        Step::Confirm { .. } | Step::Detach { .. } | Step::Dismiss { .. } => "other",
    }
}

fn label(name: &str, value: &str) -> String {
    format!("{{{name}=\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\""))
}
