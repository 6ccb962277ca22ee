//! Whether each managed bridge is as safe as its guards make it: every tap has its guard, no other filter runs before
//! a guard, and the kernel can load what a guard needs. Also the bridge's own entry in its FDB.

use super::bridges::off_bridge;
use super::facts::{Facts, Filter, Module};
use super::row::Row;
use crate::config::Config;
use crate::guest::guard::PREFERENCE;
use crate::guest::link::Bridge;
use crate::guest::state::{RouteState, Status, TapRow};
use crate::text::{plural, quote};

const MODULES: &str = "guard modules";

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let status = Status::of(config, &facts.snapshot);
    let mut rows = Vec::new();
    for bridge in &facts.snapshot.bridges {
        rows.push(own_entry(facts, bridge));
        let taps: Vec<&TapRow> = status.taps.iter().filter(|tap| tap.bridge.as_ref() == Some(&bridge.name)).collect();
        if config.wants_guard(&bridge.name) {
            rows.extend(guarded(config, facts, bridge, &taps));
        } else {
            rows.push(Row::ok(guards(bridge), "off: `guard = false`"));
        }
    }
    if config.bridges.iter().any(|bridge| bridge.guard) {
        rows.push(modules(facts, status.taps.iter().any(|tap| tap.guarded)));
    }
    rows
}

fn guards(bridge: &Bridge) -> String {
    format!("{} guards", bridge.name)
}

/// Without it the bridge floods frames to its ports instead of taking them in (br_handle_frame_finish).
fn own_entry(facts: &Facts, bridge: &Bridge) -> Row {
    let check = format!("{} FDB", bridge.name);
    if !bridge.flushed {
        return Row::ok(check, "has the bridge's own MAC");
    }
    let seen = "lacks the bridge's own MAC, as after `bridge fdb flush`: no guest reaches its gateway";
    Row::fail(check, seen).fix(format!("{} reconcile", facts.tap32))
}

/// A bridge whose configuration wants guards.
fn guarded(config: &Config, facts: &Facts, bridge: &Bridge, taps: &[&TapRow]) -> Vec<Row> {
    // Where another filter has the guard's place, `reconcile` needs it gone.
    let filters = facts.filters.iter().filter_map(|filter| {
        let tap = taps.iter().find(|tap| tap.tap == filter.tap)?;
        Some(other_filter(filter, tap))
    });
    let mut rows: Vec<Row> = filters.collect();
    rows.push(every_tap(facts, bridge, taps));
    let is_open = |tap: &&&TapRow| tap.route == RouteState::Refused && tap.unguarded;
    rows.extend(taps.iter().filter(is_open).map(|tap| refused(config, facts, bridge, tap)));
    rows
}

/// Of the taps that `reconcile` guards.
fn every_tap(facts: &Facts, bridge: &Bridge, taps: &[&TapRow]) -> Row {
    /// More names in one line help nobody.
    const SHOWN: usize = 5;
    let taps: Vec<_> = taps.iter().filter(|tap| tap.route != RouteState::Refused).collect();
    let without: Vec<_> = taps.iter().filter(|tap| tap.unguarded).map(|tap| tap.tap.as_str()).collect();
    let have = format!("{} of {}", taps.len() - without.len(), plural(taps.len(), "tap"));
    if without.is_empty() {
        return Row::ok(guards(bridge), have);
    }
    let more = without.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = without.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ") + &more;
    let seen = format!("{have}; missing on {names}: a guest there can pass as any other");
    Row::fail(guards(bridge), seen).fix(format!("{} reconcile", facts.tap32))
}

/// The guest's own row says why tap32 refuses it.
fn refused(config: &Config, facts: &Facts, bridge: &Bridge, tap: &TapRow) -> Row {
    let seen = "tap32 refuses the guest of this tap and does not guard it: it can pass as any other guest";
    let link = facts.snapshot.link(&tap.tap);
    // A guest MAC where the tap MAC should be.
    let guest = link.filter(|_| tap.guest_mac.is_none()).and_then(|link| link.named_guest(config.mac_prefix));
    let fix = guest.map(|guest| format!("{} up {} --mac {guest}", facts.tap32, quote(&tap.tap)));
    Row::fail(format!("{} port {}", bridge.name, tap.tap), seen).fix(fix.unwrap_or_else(|| off_bridge(&tap.tap)))
}

/// A preference holds filters of one kind and protocol (tcf_chain_tp_find), of which cls_bpf runs the newest first
/// (cls_bpf_change). Beside the guard there can only be others of its own.
fn other_filter(filter: &Filter, tap: &TapRow) -> Row {
    let Filter { tap: name, kind, handle } = filter;
    let shown = format!("`tc filter show dev {} ingress` shows it", quote(name));
    let delete = format!("tc filter del dev {} ingress pref {PREFERENCE}", quote(name));
    let (does, fix) = if tap.guarded {
        ("may run before the guard", format!("{delete} handle {handle:#x} protocol all {kind}"))
    } else {
        ("may keep the guard away", delete)
    };
    let seen = format!("another program's {kind} filter has the guard's preference and {does}: {shown}");
    Row::warn(format!("{name} filter {handle:#x}"), seen).fix(fix)
}

fn modules(facts: &Facts, is_used: bool) -> Row {
    let of = |state| {
        let modules = facts.machine.guard_modules.iter().filter(move |(_, found)| **found == state);
        modules.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" and ")
    };
    let (loadable, missing) = (of(Module::Loadable), of(Module::Missing));
    if is_used {
        Row::ok(MODULES, "in use")
    } else if facts.machine.guard_modules.is_empty() {
        Row::not_checked(MODULES, "this host has no list of its kernel's modules")
    } else if !missing.is_empty() {
        let seen = format!("this kernel has no {missing}, so tap32 refuses every guest");
        Row::fail(MODULES, format!("{seen}: install its modules, or write `guard = false` under [[bridge]]"))
    } else if !loadable.is_empty() {
        let seen = format!("the kernel has not loaded {loadable}, which the first guest needs");
        Row::warn(MODULES, seen).fix("modprobe -a sch_ingress cls_bpf".to_owned())
    } else {
        Row::ok(MODULES, "loaded")
    }
}
