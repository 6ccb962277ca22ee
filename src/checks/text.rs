//! Rows for people: each that is not ok, and a last line that counts.

use super::row::{Row, Verdict};
use crate::text::{GREEN, PLAIN, RED, YELLOW, plural, table};

/// In the order of the enum: the word for people, and its colour.
const VERDICTS: [(Verdict, &str, &str); 3] =
    [(Verdict::Ok, "ok", GREEN), (Verdict::Warn, "warn", YELLOW), (Verdict::Fail, "fail", RED)];

/// Aligned columns; under each row the command that fixes it.
pub fn text(rows: &[Row], colour: bool) -> String {
    let mut lines = vec![(["VERDICT", "CHECK", "SEEN"].map(str::to_owned), PLAIN)];
    for row in rows.iter().filter(|row| row.verdict != Verdict::Ok) {
        let (_, name, colour) = VERDICTS[row.verdict as usize];
        lines.push(([name.to_owned(), row.check.clone(), row.seen.clone()], colour));
        lines.extend(row.fix.iter().map(|fix| ([String::new(), String::new(), format!("fix: {fix}")], PLAIN)));
    }
    if lines.len() == 1 {
        lines.clear();
    }
    let counted = VERDICTS.map(|(verdict, name, _)| (rows.iter().filter(|row| row.verdict == verdict).count(), name));
    let counted = counted.iter().filter(|(number, _)| *number > 0).map(|(number, name)| format!(", {number} {name}"));
    table(&lines, colour.then_some(0)) + &plural(rows.len(), "check") + &counted.collect::<String>() + "\n"
}
