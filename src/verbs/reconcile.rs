//! `tap32 reconcile`: one pass over the whole host. `watch` makes many.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Common, Report};
use crate::config::Config;
use crate::guest::guard::Guard;
use crate::guest::plan::{Step, Wanted, plan};
use crate::guest::snapshot::Snapshot;
use crate::guest::state::Status;
use crate::kernel::{Applied, Detail, Kernel, OnFailure, Scope};
use crate::machine::log::Action;
use crate::verbs::memory::Memory;
use crate::verbs::up_down::{lines, outcome};

/// What a pass found and did.
pub struct Pass {
    /// The host as it was before the steps.
    pub snapshot: Snapshot,
    /// The steps that changed something.
    pub done: Vec<Step>,
    /// The first error of a step; the other steps were taken too.
    pub result: Result<()>,
    pub took: Duration,
}

/// The host as it is. Of taps that `detail` leaves out, guard and neighbour entry stay as they are, and where a hook is to
/// put a guard on that is missing, so does the guard.
///
/// # Errors
/// The kernel's tables could not be read whole.
pub fn look(config: &Config, kernel: &Kernel, detail: Detail<'_>, memory: &mut Memory) -> Result<Snapshot> {
    let mut snapshot = kernel.snapshot(config, Scope::Host { foreign: false, detail })?;
    for tap in snapshot.links.iter_mut().filter(|tap| matches!(tap.guard, Guard::None | Guard::Room)) {
        if memory.leaves(tap.index) {
            tap.guard = Guard::NotAsked;
        }
    }
    memory.leave_out_stuck_claimers(config, &mut snapshot);
    if memory.is_empty() {
        kernel.add_lost_taps(config, &mut snapshot)?;
    }
    let missed = memory.missed(&snapshot, detail);
    let mut found = kernel.links_at(&missed)?;
    found.retain(|link| link.is_tap());
    kernel.add_guards(&mut found.iter_mut().collect::<Vec<_>>())?;
    memory.recall(config, &mut snapshot, missed, found);
    Ok(snapshot)
}

/// How often to look before taps that change all the time are attached all the same.
const TRIES: usize = 5;

/// Whether somebody has changed a tap since the snapshot that is to be attached again: its `down` would be undone, or its
/// `up` for another guest, if they came between the look and the step.
fn has_changed(kernel: &Kernel, snapshot: &Snapshot, steps: &[Step]) -> Result<bool> {
    let attached = |step: &Step| if let Step::Attach(port, _) = step { Some(port.tap.index) } else { None };
    let taps: Vec<u32> = steps.iter().filter_map(attached).collect();
    let now = kernel.links_at(&taps)?;
    let mut before = snapshot.links.iter().filter(|link| taps.contains(&link.index));
    Ok(before.any(|before| !now.iter().any(|now| now.is_as_before(before))))
}

/// Looks at the host, and takes the steps that are missing.
///
/// # Errors
/// The kernel's tables could not be read whole, and nothing was changed.
pub fn pass(config: &Config, kernel: &Kernel, detail: Detail<'_>, memory: &mut Memory) -> Result<Pass> {
    let start = Instant::now();
    memory.begins(detail);
    let (mut snapshot, mut steps);
    let mut tries = 0;
    loop {
        snapshot = look(config, kernel, detail, memory)?;
        steps = plan(config, &Wanted::Everything, &snapshot)?;
        tries += 1;
        if tries == TRIES || !has_changed(kernel, &snapshot, &steps)? {
            break;
        }
    }
    steps.retain(|step| match step {
        Step::Attach(port, _) | Step::Confirm(port) => !memory.is_in_strife(port.tap.index),
        _ => true,
    });
    let Applied { done, result } = kernel.apply(&steps, OnFailure::GoOn);
    let done: Vec<Step> = done.into_iter().cloned().collect();
    memory.learn(config, &snapshot, &done);
    Ok(Pass { snapshot, done, result, took: start.elapsed() })
}

/// Prints the steps that it took, or with `--dry-run` would take.
pub fn run(common: &Common) -> Result<Report> {
    let action = Action { action: "reconcile".to_owned(), ..Action::default() };
    let mut text = String::new();
    let result = reconcile(common, &mut text);
    let result = common.log.finish(&action, result).context("reconcile");
    Ok(Report::new(text, result))
}

fn reconcile(common: &Common, text: &mut String) -> Result<&'static str> {
    let config = common.config()?;
    let kernel = Kernel::open()?;
    let mut memory = Memory::default();
    if common.dry_run {
        let snapshot = look(&config, &kernel, Detail::All, &mut memory)?;
        *text = lines(&plan(&config, &Wanted::Everything, &snapshot)?);
        return Ok("dry-run");
    }
    let Pass { mut snapshot, done, result, .. } = pass(&config, &kernel, Detail::All, &mut memory)?;
    *text = lines(&done);
    kernel.add_foreign_routes(&config, &mut snapshot)?;
    for sentence in Status::of(&config, &snapshot).shadowed() {
        common.log.warn(&format!("reconcile: {sentence}"));
    }
    result.map(|()| outcome(&done))
}
