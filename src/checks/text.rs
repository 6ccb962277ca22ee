//! Rows for people: what is not ok in full, and a last line that counts.

use std::fmt::Write as _;

use crate::verbs::doctor::{Row, Verdict};

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[31m",
        }
    }
}

/// Aligned columns; under each row the command that mends it.
pub fn text(rows: &[Row], colour: bool) -> String {
    let bad: Vec<&Row> = rows.iter().filter(|row| row.verdict != Verdict::Ok).collect();
    let width = bad.iter().map(|row| row.check.len()).max().unwrap_or(0).max("CHECK".len());
    let mut text = String::new();
    if !bad.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "VERDICT  {:width$}  SEEN", "CHECK");
    }
    for row in bad {
        let verdict = format!("{:7}", row.verdict.name());
        let verdict = if colour { format!("{}{verdict}\x1b[0m", row.verdict.colour()) } else { verdict };
        let _ = writeln!(text, "{verdict}  {:width$}  {}", row.check, row.seen);
        if let Some(mend) = &row.mend {
            let _ = writeln!(text, "         {:width$}  mend: {mend}", "");
        }
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let mut parts = vec![format!("{} check{}", rows.len(), if rows.len() == 1 { "" } else { "s" })];
    for verdict in [Verdict::Ok, Verdict::Warn, Verdict::Fail] {
        if count(verdict) > 0 {
            parts.push(format!("{} {}", count(verdict), verdict.name()));
        }
    }
    let _ = writeln!(text, "{}", parts.join(", "));
    text
}
