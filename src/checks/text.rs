//! Rows for people: each that is not ok, and a last line that counts.

use super::row::{Row, Verdict};
use crate::text::{GREEN, PLAIN, RED, YELLOW, plural, table};

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
            Self::Ok => GREEN,
            Self::Warn => YELLOW,
            Self::Fail => RED,
        }
    }
}

/// Aligned columns; under each row the command that fixes it.
pub fn text(rows: &[Row], colour: bool) -> String {
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.verdict != Verdict::Ok) {
        lines.push(([row.verdict.name().to_owned(), row.check.clone(), row.seen.clone()], row.verdict.colour()));
        lines.extend(row.fix.iter().map(|fix| ([String::new(), String::new(), format!("fix: {fix}")], PLAIN)));
    }
    if !lines.is_empty() {
        lines.insert(0, (["VERDICT", "CHECK", "SEEN"].map(str::to_owned), PLAIN));
    }
    let mut parts = vec![plural(rows.len(), "check")];
    for verdict in [Verdict::Ok, Verdict::Warn, Verdict::Fail] {
        let number = rows.iter().filter(|row| row.verdict == verdict).count();
        if number > 0 {
            parts.push(format!("{number} {}", verdict.name()));
        }
    }
    table(&lines, colour.then_some(0)) + &parts.join(", ") + "\n"
}
