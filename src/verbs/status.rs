//! `tap32 status`: a row for each tap on a managed bridge, and for each owned route without a tap. `explain` tells of
//! one tap.

use std::io::IsTerminal as _;

use anyhow::{Context, Result, bail, ensure};

use super::{Common, Report, explain};
use crate::config::{Config, INTERFACE_NAME, is_interface_name};
use crate::guest::plan::{Wanted, plan};
use crate::guest::repairs::Repairs;
use crate::guest::snapshot::Snapshot;
use crate::guest::state::{Status, absent_bridges};
use crate::kernel::{Detail, Kernel, Scope};
use crate::text::{plural, printable};
use crate::verbs::status_table::table;

/// What `status` shows.
pub struct Request {
    /// The tap to explain; `None` for a table of all.
    pub(crate) tap: Option<String>,
    pub(crate) json: bool,
    /// A row for each tap, however many there are.
    pub(crate) all: bool,
    /// Whether anything wrong is a failure.
    pub(crate) check: bool,
}

pub(crate) fn run(request: &Request, common: &Common) -> Result<Report> {
    report(request, common).context("status")
}

fn report(request: &Request, common: &Common) -> Result<Report> {
    let (config, kernel) = (&common.config()?, &Kernel::open()?);
    let mut snapshot = kernel.snapshot(config, Scope::Host { foreign: true, detail: Detail::All })?;
    kernel.add_lost_taps(config, &mut snapshot)?;
    let mut status = Status::of(config, &snapshot);
    let mut explanation = None;
    let tap = request.tap.as_ref().map(|tap| named(&status, tap)).transpose()?;
    if let Some(tap) = &tap {
        explanation = Some(explain::run(config, kernel, tap)?);
        status.taps.retain(|row| row.tap == *tap);
        status.orphans.clear();
    }
    let steps = plan(config, &Wanted::Everything, &snapshot)?;
    let repairs = Repairs::of(&steps);
    let text = match explanation {
        _ if request.json => serde_json::to_string(&status).context("status as JSON")? + "\n",
        Some(explanation) => explanation,
        None => {
            let absent = absent_bridges(config, &snapshot).map(|sentence| sentence + "\n");
            table(&status, &repairs, request.all, has_colour()) + &absent.collect::<String>()
        }
    };
    let result = match &tap {
        _ if !request.check => Ok(()),
        Some(tap) => check_tap(&status, &repairs, tap),
        None => check(config, &snapshot, &status, steps.len()),
    };
    Ok(Report::new(text, result))
}

/// Whether stdout is a terminal, and NO_COLOR is not set (no-color.org).
pub(crate) fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The name of the tap that is called so: `status` prints names escaped that no other verb takes.
fn named(status: &Status, called: &str) -> Result<String> {
    let mut names = status.taps.iter().map(|row| &row.tap);
    let listed = names.find(|name| *name == called || printable(name) == called);
    ensure!(listed.is_some() || is_interface_name(called), "{called:?} is not {INTERFACE_NAME}");
    Ok(listed.map_or_else(|| called.to_owned(), Clone::clone))
}

fn check_tap(status: &Status, repairs: &Repairs, tap: &str) -> Result<()> {
    let row = status.taps.first().with_context(|| format!("{tap} is not a port of a managed bridge"))?;
    ensure!(!row.is_wrong(), "{tap} is {}", row.route.name());
    ensure!(!row.unguarded, "{tap} has no guard: `tap32 reconcile` puts it on");
    repairs.of_tap(row).map_or(Ok(()), |fault| bail!("{tap}: {fault}"))
}

/// Fails unless `reconcile` has nothing to do, no tap is refused, shadowed or unguarded, and each bridge exists.
fn check(config: &Config, snapshot: &Snapshot, status: &Status, steps: usize) -> Result<()> {
    let absent: Vec<String> = absent_bridges(config, snapshot).collect();
    ensure!(absent.is_empty(), "{}", absent.join(", "));
    let wrong = status.taps.iter().filter(|row| row.is_wrong() || row.unguarded).count();
    let fix = match steps {
        0 if wrong == 0 => return Ok(()),
        0 => String::new(),
        n => {
            let steps = plural(n, "step");
            format!("; `tap32 reconcile` would take {steps}, and `tap32 reconcile -n` prints them")
        }
    };
    bail!("something is wrong: {}{fix}", status.count())
}
