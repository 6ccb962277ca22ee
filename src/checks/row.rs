//! One check and what came of it.

use std::fmt::Display;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One check; the field names are a contract.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was checked, for a person and for a program to find it again: `br-l2 gateway`.
    pub check: String,
    pub verdict: Verdict,
    /// One line.
    pub seen: String,
    /// The command that fixes it, for `sh -c` as it stands; `None` if all is well or no command on this host can.
    pub fix: Option<String>,
}

impl Row {
    fn new(verdict: Verdict, check: impl Into<String>, seen: impl Into<String>, fix: Option<String>) -> Self {
        Self { check: check.into(), verdict, seen: seen.into(), fix }
    }

    pub fn ok(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, seen, None)
    }

    pub fn warn(check: impl Into<String>, seen: impl Into<String>, fix: Option<String>) -> Self {
        Self::new(Verdict::Warn, check, seen, fix)
    }

    pub fn fail(check: impl Into<String>, seen: impl Into<String>, fix: Option<String>) -> Self {
        Self::new(Verdict::Fail, check, seen, fix)
    }

    /// The check could not be made.
    pub fn not_checked(check: impl Into<String>, why: impl Display) -> Self {
        Self::warn(check, format!("not checked: {why}"), None)
    }
}
