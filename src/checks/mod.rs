//! doctor's checks, one subject a file. Pure: from facts to rows. A check that cannot be made is never `ok`.

mod announced;
mod bridges;
mod dhcp;
pub mod facts;
mod forward;
mod frr;
mod guards;
mod guests;
mod hooks;
mod machine;
mod networkd;
pub mod row;
mod systemd;
pub mod text;
mod udev;
mod uplinks;

use crate::config::Config;
use facts::Facts;
use row::{Row, Verdict};

/// All checks, in the order in which people read them.
pub fn judge(config: &Config, facts: &Facts) -> Vec<Row> {
    let frr = frr::rows(config, facts);
    let announces = frr.iter().all(|row| row.verdict == Verdict::Ok);
    let guests = guests::rows(config, facts, announces);
    let host = [bridges::rows(config, facts), guards::rows(config, facts), forward::rows(config, facts)].concat();
    let host = [host, networkd::rows(config, facts), udev::rows(facts), machine::rows(config, facts)].concat();
    [host, dhcp::rows(config, facts), hooks::rows(facts), frr, guests].concat()
}
