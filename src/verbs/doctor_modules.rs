//! Which parts the kernel has, for doctor: it must not ask for one, for that would load it.

use std::collections::BTreeMap;
use std::fs;

use crate::checks::facts::Module;

/// clsact and the filter.
const GUARD_MODULES: [&str; 2] = ["sch_ingress", "cls_bpf"];

/// The state of each part that a guard needs; empty where nobody can know.
pub fn of_guards() -> BTreeMap<String, Module> {
    let states: Option<_> = GUARD_MODULES.iter().map(|name| Some(((*name).to_owned(), module(name)?))).collect();
    states.unwrap_or_default()
}

/// What the kernel says of the modules that it has loaded, and depmod(8)'s lists of those that are built in or have a
/// file. `None` where there are no lists. Asking for a filter itself would load it.
pub fn module(name: &str) -> Option<Module> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = format!("/lib/modules/{}", release.trim());
    let loaded = read("/proc/modules").unwrap_or_default();
    let files = read(&format!("{folder}/modules.builtin")).zip(read(&format!("{folder}/modules.dep")));
    let is_loaded = |line: &str| line.split(' ').next() == Some(name);
    // kernel/net/sched/cls_bpf.ko.zst: kernel/...
    let has = |list: &str| list.lines().any(|line| line.contains(&format!("/{name}.ko")));
    Some(match files {
        _ if loaded.lines().any(is_loaded) => Module::There,
        Some((builtin, _)) if has(&builtin) => Module::There,
        Some((_, loadable)) if has(&loadable) => Module::Loadable,
        Some(_) => Module::Missing,
        None => return None,
    })
}
