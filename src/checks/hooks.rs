//! What should call tap32: libvirt's hook and QEMU's default scripts.

use super::facts::{Daemon, Facts, Hook};
use super::row::Row;
use crate::text::quote;

/// Where AppArmor's profile of libvirt (usr.sbin.libvirtd) and SELinux's labels allow hooks.
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
        return vec![Row::ok("libvirt hook", "libvirt is not installed")];
    }
    let Some(hook) = hooks.libvirt_hooks.iter().find(|hook| hook.ours || hook.path == HOOK) else {
        let seen = "none: libvirt creates taps, but they get no route";
        let fix = format!("mkdir -p /etc/libvirt/hooks/qemu.d && {}", link(facts, HOOK));
        return vec![Row::fail("libvirt hook", seen, Some(fix))];
    };
    let mut rows = vec![present(facts, hook)];
    let Some(target) = hook.target.as_deref().filter(|_| hook.executable) else { return rows };
    rows.push(confinement(facts, hook, target));
    rows.push(loaded(facts, hook));
    rows
}

/// It is tap32, or a link to tap32, and can be run.
fn present(facts: &Facts, hook: &Hook) -> Row {
    let check = "libvirt hook";
    let Some(target) = &hook.target else {
        return Row::fail(check, format!("{} is a dangling link", hook.path), Some(link(facts, &hook.path)));
    };
    let seen = if *target == hook.path { target.clone() } else { format!("{} is {target}", hook.path) };
    if !hook.ours {
        // An operator's script is moved to where libvirt does not look: it runs every file in this folder.
        let is_script = *target == hook.path;
        let aside = if is_script { aside(&hook.path, "/etc/libvirt/hooks/50-tap32") + " && " } else { String::new() };
        return Row::fail(check, format!("{seen}, which is not tap32"), Some(aside + &link(facts, &hook.path)));
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
        return Row::ok(check, "neither AppArmor nor SELinux is enabled");
    };
    let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
    // An operator's script that calls tap32 is in libvirt's own folder.
    if ALLOWED.contains(&folder) || target == hook.path {
        return Row::ok(check, format!("{module} allows {folder}"));
    }
    let seen = format!("{module} does not let libvirt run {target}, only programs in {}", ALLOWED.join(", "));
    let fix = format!("install -m 755 {} {HOME} && ln -sf {HOME} {}", quote(target), quote(&hook.path));
    Row::fail(check, seen, Some(fix))
}

/// libvirt checks when it starts or reloads whether there is any hook (virHookInitialize). Which hooks there are, it reads
/// at each call.
fn loaded(facts: &Facts, hook: &Hook) -> Row {
    let check = "libvirt hook is loaded";
    let Some(Daemon { name, started }) = &facts.hooks.daemon else {
        return Row::ok(check, "libvirt's daemon does not run; it reads its hooks when it starts");
    };
    let first = facts.hooks.libvirt_hooks.iter().filter(|hook| hook.executable).map(|hook| hook.since);
    let first = first.fold(hook.since, f64::min);
    if first < *started + RESOLUTION {
        return Row::ok(check, format!("{name} started after the hook was installed"));
    }
    let seen = format!("{name} started before the hook was installed: restart it, unless it was reloaded since");
    Row::warn(check, seen, Some(facts.restart(name)))
}

fn qemu(facts: &Facts) -> Vec<Row> {
    let row = |name: &str| {
        let path = format!("/etc/{name}");
        let Some(script) = facts.hooks.qemu_scripts.iter().find(|script| script.path == path) else {
            return Row::ok(&path, "not installed; only a QEMU without script= would call it");
        };
        if script.ours && script.executable {
            return Row::ok(&path, script.target.clone().unwrap_or_default());
        }
        let seen = match &script.target {
            None => "a dangling link",
            Some(_) if script.ours => "not executable",
            Some(_) => "not tap32: guests of a QEMU without script= get no route",
        };
        let aside = match &script.target {
            None => String::new(),
            // The file belongs to qemu-system-common; without a diversion the next upgrade asks about it. If there is a
            // diversion already, the file is an operator's, and stays where it is.
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

/// The command that keeps an operator's file beside. If that name is taken, `test` fails and nothing is changed.
fn aside(path: &str, to: &str) -> String {
    format!("test ! -e {to}.before-tap32 && mv {path} {to}.before-tap32")
}

/// The command that makes `path` a link to this program, in a folder from which libvirt may run it.
fn link(facts: &Facts, path: &str) -> String {
    let program = &facts.hooks.program;
    let allowed = program.rsplit_once('/').is_some_and(|(folder, _)| ALLOWED.contains(&folder));
    if allowed || facts.hooks.confined_by.is_none() {
        format!("ln -sf {} {}", quote(program), quote(path))
    } else {
        format!("install -m 755 {} {HOME} && ln -sf {HOME} {}", quote(program), quote(path))
    }
}
