//! `tap32 doctor`: what is wrong with this host, each with the command that fixes it. Changes nothing.
//!
//! `doctor_facts` reads the facts (files, processes, netlink, vtysh), `checks` judges them.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use super::{Common, Report, doctor_facts, status};
use crate::checks::judge;
use crate::checks::row::{Row, Verdict};
use crate::checks::text::text;
use crate::config::{Config, DEFAULT_PATH, nothing_described};
use crate::text::quote;

/// What `doctor` is asked.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Print JSON.
    pub json: bool,
}

/// # Errors
/// The kernel does not answer. Anything else that doctor cannot find out is a row.
pub(crate) fn run(request: &Request, common: &Common) -> Result<Report> {
    let rows = match common.config() {
        Ok(config) => {
            let facts = doctor_facts::facts(&config, common)?;
            [vec![described(&config, common)], judge(&config, &facts)].concat()
        }
        Err(error) => broken(common, &format!("{error:#}")),
    };
    let failed = rows.iter().filter(|row| row.verdict == Verdict::Fail).count();
    let text = if request.json {
        serde_json::to_string(&BTreeMap::from([("checks", &rows)]))? + "\n"
    } else {
        text(&rows, status::has_colour())
    };
    let result = if failed == 0 { Ok(()) } else { Err(anyhow!("doctor: {failed} of {} checks failed", rows.len())) };
    Ok(Report::new(text, result))
}

fn described(config: &Config, common: &Common) -> Row {
    let named = common.named_file();
    let path = named.as_deref().unwrap_or(DEFAULT_PATH.as_ref());
    let file = if path.exists() { path.display().to_string() } else { format!("no {DEFAULT_PATH}, so the defaults") };
    if config.describes_host() {
        Row::ok("configuration", file)
    } else {
        Row::warn("configuration", format!("{file}: {}", nothing_described()))
    }
}

/// What can be said without a configuration.
fn broken(common: &Common, error: &str) -> Vec<Row> {
    let path = common.named_file().unwrap_or_else(|| DEFAULT_PATH.into());
    let file = quote(&path.display().to_string());
    let line = error.split_once(": line ").and_then(|(_, rest)| rest.split(':').next()?.parse::<usize>().ok());
    let at = line.map_or_else(String::new, |line| format!("+{line} "));
    // Not a command that deletes the line: only a person knows what was meant, and the lines below may depend on it.
    let fix = format!("${{EDITOR:-vi}} {at}{file}");
    vec![
        Row::fail("configuration", error).fix(fix),
        Row::warn("everything else", "not checked until the configuration can be read"),
    ]
}
