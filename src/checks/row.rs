//! One check and what came of it.

use std::fmt::Display;

use serde::Serialize;

/// Whether anything is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing.
    Ok,
    /// It may be, or could not be checked.
    Warn,
    /// It is.
    Fail,
}

/// One check; the field names are a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was checked, for a person and for a program to find it again: `br-l2 gateway`.
    pub check: String,
    /// Whether it is as it should be.
    pub verdict: Verdict,
    /// One line.
    pub seen: String,
    /// The command that fixes it, for `sh -c` as it stands; `None` if all is well or no command on this host can.
    pub fix: Option<String>,
}

impl Row {
    fn new(verdict: Verdict, check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { check: check.into(), verdict, seen: seen.into(), fix: None }
    }

    pub(crate) fn ok(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, seen)
    }

    pub(crate) fn warn(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, check, seen)
    }

    pub(crate) fn fail(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, check, seen)
    }

    /// The check could not be made.
    pub(crate) fn not_checked(check: impl Into<String>, why: impl Display) -> Self {
        Self::warn(check, format!("not checked: {why}"))
    }

    /// The same row with the command that fixes it.
    pub(crate) fn fix(self, fix: impl Into<Option<String>>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}
