//! `tap32 status`: a row for each tap on a managed bridge, and for each owned route without a tap. `explain` tells of
//! one tap.

use std::io::IsTerminal as _;

use anyhow::{Context, Result, bail, ensure};

use super::{Common, Report, explain};
use crate::config::Config;
use crate::guest::plan::{Step, Wanted, plan};
use crate::guest::repairs::Repairs;
use crate::guest::snapshot::Snapshot;
use crate::guest::state::{Status, absent_bridges};
use crate::kernel::{Detail, Kernel, Scope};
use crate::text::plural;
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

pub(crate) async fn run(request: &Request, common: &Common) -> Result<Report> {
    let result = async { report(&common.config()?, &Kernel::open()?, request).await };
    result.await.context("status")
}

async fn report(config: &Config, kernel: &Kernel, request: &Request) -> Result<Report> {
    let mut snapshot = kernel.snapshot(config, Scope::Host { foreign: true, detail: Detail::All }).await?;
    kernel.add_lost_taps(config, &mut snapshot).await?;
    let mut status = Status::of(config, &snapshot);
    let mut explanation = None;
    if let Some(tap) = &request.tap {
        explanation = Some(explain::run(config, kernel, tap).await?);
        status.taps.retain(|row| row.tap == *tap);
        status.orphans.clear();
    }
    let steps = plan(config, &Wanted::Everything, &snapshot)?;
    let text = match explanation {
        _ if request.json => serde_json::to_string(&status).context("status as JSON")? + "\n",
        Some(explanation) => explanation,
        None => {
            let absent = absent_bridges(config, &snapshot).map(|sentence| sentence + "\n");
            table(&status, &Repairs::of(&steps), request.all, has_colour()) + &absent.collect::<String>()
        }
    };
    let result = if request.check { check(config, &snapshot, &status, &steps, request) } else { Ok(()) };
    Ok(Report::new(text, result))
}

/// Whether stdout is a terminal, and NO_COLOR is not set (no-color.org).
pub(crate) fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Fails unless `reconcile` has nothing to do, no tap is refused, shadowed or unguarded, and each bridge exists.
fn check(config: &Config, snapshot: &Snapshot, status: &Status, steps: &[Step], request: &Request) -> Result<()> {
    if let Some(tap) = &request.tap {
        let row = status.taps.first().with_context(|| format!("{tap} is not a port of a managed bridge"))?;
        ensure!(!row.is_wrong(), "{tap} is {}", row.route.name());
        ensure!(!row.unguarded, "{tap} has no guard: `tap32 reconcile` puts it on");
        return Ok(());
    }
    let absent: Vec<String> = absent_bridges(config, snapshot).collect();
    ensure!(absent.is_empty(), "{}", absent.join(", "));
    let wrong = status.taps.iter().filter(|row| row.is_wrong() || row.unguarded).count();
    let fix = match steps.len() {
        0 if wrong == 0 => return Ok(()),
        0 => String::new(),
        n => {
            let steps = plural(n, "step");
            format!("; `tap32 reconcile` would take {steps}, and `tap32 reconcile -n` prints them")
        }
    };
    bail!("something is wrong: {}{fix}", status.count())
}
