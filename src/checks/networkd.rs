//! systemd-networkd: whether it leaves tap32's routes alone, and the taps and bridges themselves.

use super::facts::{Facts, NetworkFile};
use super::row::Row;
use super::systemd::{Candidate, Conditions, USUAL, conditions, taps};
use crate::config::Config;
use crate::host::networkd::{boolean, entries};
use crate::text::quote;

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let mut rows = vec![foreign_routes(facts)];
    rows.extend(taken(config, facts));
    rows
}

/// networkd.conf(5): with "yes", which is the default, networkd deletes at each start the routes that it does not know.
fn foreign_routes(facts: &Facts) -> Row {
    let check = "systemd-networkd ManageForeignRoutes";
    if !facts.machine.networkd {
        return Row::ok(check, "systemd-networkd does not run");
    }
    let said = facts.machine.manage_foreign_routes.as_deref();
    if said.and_then(boolean) == Some(false) {
        return Row::ok(check, "no");
    }
    let said = said.unwrap_or("yes, by default");
    let seen = format!("{said}: when networkd restarts, it deletes the routes of tap32 and FRR");
    let fix = "mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\n\
                ManageForeignRoutingPolicyRules=no\\n' >/etc/systemd/networkd.conf.d/60-tap32.conf && \
                systemctl restart systemd-networkd";
    Row::fail(check, seen).fix(fix.to_owned())
}

fn says(file: &NetworkFile, section: &str, key: &str) -> bool {
    let last = entries(&file.text, section).into_iter().rev().find(|(name, _)| *name == key);
    last.is_some_and(|(_, value)| boolean(value) == Some(true))
}

/// The files by which networkd takes taps, or bridges that they do not name. networkd configures an interface by the
/// first file that matches, and takes one off the bridge that the file does not name (networkd-setlink.c, measured).
fn taken(config: &Config, facts: &Facts) -> Vec<Row> {
    let check = "systemd-networkd and taps";
    if !facts.machine.networkd {
        return vec![Row::ok(check, "systemd-networkd does not run")];
    }
    let usual = USUAL.iter().map(|name| Candidate::usual(name));
    let bridges = config.bridges.iter().map(|bridge| Candidate {
        name: &bridge.name,
        mac: String::new(),
        is_bridge: true,
        is_usual: false,
    });
    let files: Vec<_> = facts.machine.network_files.iter().map(|file| (file, conditions(file))).collect();
    let mut found: Vec<(&NetworkFile, Vec<Candidate>)> = Vec::new();
    for candidate in taps(facts).into_iter().chain(usual).chain(bridges) {
        let first = files.iter().find(|(_, conditions)| candidate.matches(conditions));
        let harmful = first.filter(|(file, conditions)| harms(config, facts, file, conditions, &candidate));
        let Some((file, _)) = harmful else { continue };
        match found.iter_mut().find(|(known, _)| known.path == file.path) {
            Some((_, list)) => list.push(candidate),
            None => found.push((*file, vec![candidate])),
        }
    }
    // Where a file before it is for libvirt's taps, one for every interface is no danger to them.
    found.retain(|(file, candidates)| is_sure(candidates) || conditions(file).iter().any(|(key, _)| *key == "Name"));
    if found.is_empty() {
        return vec![Row::ok(check, "no file matches them")];
    }
    found.iter().map(|(file, candidates)| row(file, candidates)).collect()
}

/// Whether a file that matches would change what tap32 set up.
fn harms(config: &Config, facts: &Facts, file: &NetworkFile, conditions: &Conditions, of: &Candidate) -> bool {
    let names_it = || conditions.iter().any(|(key, words)| *key == "Name" && words.iter().any(|word| word == of.name));
    // networkd ignores a bridge that it has not made (measured).
    let is_made = |name: &str| config.bridge(name).is_some() && facts.machine.netdevs.iter().any(|made| made == name);
    let keeps_bridge = || {
        let bridge = entries(&file.text, "Network").into_iter().rev().find(|(key, _)| *key == "Bridge");
        bridge.is_some_and(|(_, name)| is_made(name)) || says(file, "Network", "KeepMaster")
    };
    !says(file, "Link", "Unmanaged")
        && if of.is_bridge { !names_it() } else { !(keeps_bridge() || of.is_usual && names_it()) }
}

/// Only libvirt has vnet0; tap0 may be a VPN's.
fn is_sure(candidates: &[Candidate]) -> bool {
    candidates.iter().any(|it| !it.is_usual || it.name == USUAL[0])
}

/// The fix leaves the file alone: a drop-in adds conditions to it, also to one that a package or netplan wrote.
fn row(file: &NetworkFile, candidates: &[Candidate]) -> Row {
    let name = file.path.rsplit('/').next().unwrap_or(&file.path);
    let named = |is_bridge: bool| -> Vec<&str> {
        candidates.iter().filter(|it| it.is_bridge == is_bridge).map(|it| it.name).collect()
    };
    let (taps, bridges) = (named(false), named(true));
    let is_sure = is_sure(candidates);
    let mut seen = Vec::new();
    let mut lines = String::from("[Match]\\n");
    if let Some(tap) = taps.first() {
        let if_any = if is_sure { "" } else { " if they are guests'" };
        seen.push(format!("matches taps such as {tap}, and networkd takes them off their bridge{if_any}"));
        lines.push_str("Driver=!tun\\n");
    }
    if !bridges.is_empty() {
        let bridges = bridges.join(" ");
        seen.push(format!("matches {bridges}, and networkd takes the addresses that the file does not give"));
        lines.push_str(&format!("Name=!{bridges}\\n"));
    }
    let folder = format!("/etc/systemd/network/{name}.d");
    let folder = quote(&folder);
    let fix = format!("mkdir -p {folder} && printf {} >{folder}/60-tap32.conf && networkctl reload", quote(&lines));
    let (check, seen) = (format!("systemd-networkd {name}"), format!("{} {}", file.path, seen.join("; it ")));
    if is_sure { Row::fail(check, seen).fix(fix) } else { Row::warn(check, seen).fix(fix) }
}
