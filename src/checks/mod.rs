//! doctor's checks, one subject a file. Pure: from facts to rows. A check that cannot be made is never `ok`.

pub mod announced;
pub mod bridges;
pub mod facts;
pub mod frr;
pub mod guests;
pub mod hooks;
pub mod machine;
pub mod row;
pub mod text;
pub mod uplinks;

use crate::config::Config;
use facts::Facts;
use row::{Row, Verdict};

/// All checks, in the order in which people read them.
pub fn judge(config: &Config, facts: &Facts) -> Vec<Row> {
    let mut rows = bridges::rows(config, facts);
    rows.extend(machine::rows(config, facts));
    rows.extend(hooks::rows(facts));
    let frr = frr::rows(config, facts);
    let announces = frr.iter().all(|row| row.verdict == Verdict::Ok);
    rows.extend(frr);
    rows.extend(guests::rows(config, facts, announces));
    rows
}
