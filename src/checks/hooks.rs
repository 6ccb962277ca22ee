//! What should call tap32: libvirt's hook, QEMU's default scripts.

use super::facts::Facts;
use super::facts::{Daemon, Hook};
use super::row::Row;
use crate::text::quote;

/// Where AppArmor's profile of libvirt (and SELinux's labels) let hooks lie (usr.sbin.libvirtd).
const ALLOWED: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Where tap32 belongs.
const HOME: &str = "/usr/sbin/tap32";
/// Seconds by which the start of a process may seem too early: /proc tells the time and the start in hundredths.
const RESOLUTION: f64 = 0.02;
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/50-tap32";

pub fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows = libvirt(facts);
    rows.extend(qemu(facts));
    rows
}

fn libvirt(facts: &Facts) -> Vec<Row> {
    let hooks = &facts.hooks;
    if !hooks.libvirt && hooks.daemon.is_none() {
        return vec![Row::ok("libvirt hook", "libvirt is not here")];
    }
    let Some(hook) = hooks.libvirt_hooks.iter().find(|hook| hook.ours || hook.path == HOOK) else {
        let seen = "none: libvirt attaches taps, and nobody routes them";
        let fix = format!("mkdir -p /etc/libvirt/hooks/qemu.d && {}", link(facts, HOOK));
        return vec![Row::fail("libvirt hook", seen, Some(fix))];
    };
    let mut rows = vec![present(facts, hook)];
    let Some(target) = hook.target.as_deref().filter(|_| hook.executable) else { return rows };
    rows.push(confinement(facts, hook, target));
    rows.push(loaded(facts, hook));
    rows
}

/// Leads to a tap32 that can be run.
fn present(facts: &Facts, hook: &Hook) -> Row {
    let check = "libvirt hook";
    let Some(target) = &hook.target else {
        return Row::fail(check, format!("{} leads nowhere", hook.path), Some(link(facts, &hook.path)));
    };
    let seen = if *target == hook.path { target.clone() } else { format!("{} is {target}", hook.path) };
    if !hook.ours {
        // A script of somebody's own is moved out of libvirt's sight, which runs whatever lies there.
        let is_script = *target == hook.path;
        let aside = if is_script { aside(&hook.path, "/etc/libvirt/hooks/50-tap32") + " && " } else { String::new() };
        return Row::fail(check, format!("{seen}, which is no tap32"), Some(aside + &link(facts, &hook.path)));
    }
    if !hook.executable {
        // The link's time is when libvirt could first see the hook.
        let fix = format!("chmod 755 {} && touch -h {}", quote(target), quote(&hook.path));
        return Row::fail(check, format!("{seen}, which is not executable"), Some(fix));
    }
    Row::ok(check, seen)
}

fn confinement(facts: &Facts, hook: &Hook, target: &str) -> Row {
    let check = "libvirt hook's path";
    let Some(module) = &facts.hooks.confined_by else {
        return Row::ok(check, "neither AppArmor nor SELinux is here");
    };
    let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
    // A script of somebody's own that calls us lies where libvirt may read it.
    if ALLOWED.contains(&folder) || target == hook.path {
        return Row::ok(check, format!("{folder} is allowed"));
    }
    let seen = format!("{module} lets libvirt run programs in {} only, not {target}", ALLOWED.join(", "));
    let fix = format!("install -m 755 {} {HOME} && ln -sf {HOME} {}", quote(target), quote(&hook.path));
    Row::fail(check, seen, Some(fix))
}

/// libvirt looks when it starts or reloads whether there is any hook to call (virHookInitialize); which ones, it looks
/// at each call.
fn loaded(facts: &Facts, hook: &Hook) -> Row {
    let check = "libvirt hook is loaded";
    let Some(Daemon { name, started }) = &facts.hooks.daemon else {
        return Row::ok(check, "no daemon runs; it looks for hooks when it starts");
    };
    let first = facts.hooks.libvirt_hooks.iter().filter(|hook| hook.executable).map(|hook| hook.since);
    let first = first.fold(hook.since, f64::min);
    if first < *started + RESOLUTION {
        return Row::ok(check, format!("{name} started after it came"));
    }
    let restart = if facts.systemd { format!("systemctl restart {name}") } else { format!("service {name} restart") };
    let seen = format!("{name} runs since before the hook came: unless it was reloaded since, it calls none");
    Row::warn(check, seen, Some(restart))
}

fn qemu(facts: &Facts) -> Vec<Row> {
    let row = |name: &str| {
        let path = format!("/etc/{name}");
        let Some(script) = facts.hooks.qemu_scripts.iter().find(|script| script.path == path) else {
            return Row::ok(&path, "not here; only a QEMU without script= would call it");
        };
        if script.ours && script.executable {
            return Row::ok(&path, script.target.clone().unwrap_or_default());
        }
        let seen = match &script.target {
            None => "leads nowhere",
            Some(_) if script.ours => "not executable",
            Some(_) => "not ours: a QEMU without script= is not routed",
        };
        let aside = match &script.target {
            None => String::new(),
            // The file is qemu-system-common's; without a diversion the next upgrade asks about it. Where there is one
            // already the file is somebody's own, and stays where it is.
            Some(_) if facts.hooks.dpkg => format!(
                "dpkg-divert --quiet --local --rename --add {path} && if [ -e {path} ]; then {}; fi && ",
                aside(&path, &path)
            ),
            Some(_) => aside(&path, &path) + " && ",
        };
        let fix = if script.ours && script.target.is_some() {
            format!("chmod 755 {}", quote(script.target.as_deref().unwrap_or(&path)))
        } else {
            aside + &link(facts, &path)
        };
        Row::warn(&path, seen, Some(fix))
    };
    vec![row("qemu-ifup"), row("qemu-ifdown")]
}

/// The command that keeps somebody's file beside. Onto a file that is there already nothing is moved: `test` fails then,
/// and nothing is changed.
fn aside(path: &str, to: &str) -> String {
    format!("test ! -e {to}.before-tap32 && mv {path} {to}.before-tap32")
}

/// The command that makes `path` lead to this program, from where libvirt may run it.
fn link(facts: &Facts, path: &str) -> String {
    let program = &facts.hooks.program;
    let allowed = program.rsplit_once('/').is_some_and(|(folder, _)| ALLOWED.contains(&folder));
    if allowed || facts.hooks.confined_by.is_none() {
        format!("ln -sf {} {}", quote(program), quote(path))
    } else {
        format!("install -m 755 {} {HOME} && ln -sf {HOME} {}", quote(program), quote(path))
    }
}
