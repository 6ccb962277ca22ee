//! `tap32 setup`: looks, plans (`host`), makes each change and prints it.

use std::io::Write as _;

use anyhow::{Context, Result, bail};

use super::{Common, Report};
use crate::config::{Config, nothing_described};
use crate::host::sysctl;
use crate::host::{self, Seen};
use crate::kernel::{Kernel, is_without_ipv6, read_sysctl};
use crate::machine::log::Action;
use crate::machine::network_managers;

/// # Errors
/// A bridge that tap32 refuses, and nothing is done. Else what setup could not do or left to a network manager, and the
/// fix; the rest is done.
pub fn run(common: &Common) -> Result<Report> {
    let action = Action { action: "setup".to_owned(), ..Action::default() };
    let result = set_up(common);
    common.log.finish(&action, result).context("setup")?;
    Ok(Report::default())
}

fn set_up(common: &Common) -> Result<&'static str> {
    let config = common.config()?;
    if !config.describes_host() {
        common.log.say(&format!("setup: {}", nothing_described()));
        return Ok("unchanged");
    }
    let kernel = Kernel::open()?;
    let plan = host::plan(&config, &look(&config, &kernel)?);
    if let Some(refusal) = plan.refusal {
        return Err(refusal.into());
    }
    let mut problems = plan.problems;
    let mut outcome = "unchanged";
    for change in plan.changes {
        if !common.dry_run
            && let Err(error) = kernel.set_up(&change)
        {
            problems.push(format!("`{change}` failed: {error:#}"));
            continue;
        }
        outcome = if common.dry_run { "dry-run" } else { "done" };
        // At once, so that it is printed also when a later step fails. A reader that went away does not matter.
        let _ = writeln!(std::io::stdout(), "{change}");
    }
    match &problems[..] {
        [] => Ok(outcome),
        [only] => bail!("{only}"),
        // One cause often has many effects.
        [first, others @ ..] => {
            bail!("{first}; and {} more problems: fix this one and run `tap32 setup` again", others.len())
        }
    }
}

/// What exists of all that the configuration names.
pub fn look(config: &Config, kernel: &Kernel) -> Result<Seen> {
    let bridges = config.bridges.iter().map(|bridge| &bridge.name);
    let uplinks = config.uplinks.iter().map(|uplink| &uplink.name);
    let names: Vec<&str> = bridges.chain(uplinks).map(String::as_str).chain(["lo"]).collect();
    let found = kernel.look_at_host(&names)?;
    let index = |name: &str| found.iter().find(|(_, interface)| interface.name == name).map(|(index, _)| *index);
    let owners = names.iter().filter_map(|name| network_managers::of(name, index(name))).collect();
    let values = sysctl::wanted(config).into_iter().filter_map(|wanted| Some((read_sysctl(&wanted)?, wanted.path)));
    let sysctls = values.map(|(value, path)| (path, value)).collect();
    let interfaces = found.into_iter().map(|(_, interface)| interface).collect();
    Ok(Seen { interfaces, sysctls, without_ipv6: is_without_ipv6(), owners })
}
