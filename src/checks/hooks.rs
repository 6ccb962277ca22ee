//! What should call tap32: libvirt's hook and QEMU's default scripts.

use super::facts::{Daemon, Facts, Hook};
use super::machine::start_watch;
use super::row::Row;
use crate::text::quote;

/// Where AppArmor's profile of libvirt (usr.sbin.libvirtd) and SELinux's labels allow hooks.
const ALLOWED: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
/// Where tap32 belongs.
const HOME: &str = "/usr/sbin/tap32";
/// Seconds by which the start of a process may seem too early: /proc has hundredths (proc_pid_stat(5), starttime).
const RESOLUTION: f64 = 0.02;
/// Where SELinux lets an operator's own hook be run.
const SCRIPT: &str = "/usr/sbin/tap32-hook";
const HOOK: &str = "/etc/libvirt/hooks/qemu.d/50-tap32";

pub fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows = libvirt(facts);
    rows.extend(["/etc/qemu-ifup", "/etc/qemu-ifdown"].map(|path| qemu(facts, path)));
    if let Some(program) = &facts.hooks.local_qemu {
        rows.extend(["/usr/local/etc/qemu-ifup", "/usr/local/etc/qemu-ifdown"].map(|path| local(facts, program, path)));
    }
    rows.extend(facts.hooks.unprivileged.iter().map(|(pid, user)| unprivileged(facts, *pid, user)));
    rows
}

/// A QEMU built from source asks for its scripts below its own prefix (net/tap.c, DEFAULT_NETWORK_SCRIPT).
fn local(facts: &Facts, program: &str, path: &str) -> Row {
    if facts.hooks.qemu_scripts.iter().any(|script| script.path == path) {
        return qemu(facts, path);
    }
    let effect = if path.ends_with("ifup") { "no guest of it starts" } else { "a guest's route stays at its end" };
    let seen = format!("there is none, but {program} runs it without script= and downscript=: {effect}");
    Row::warn(path, seen).fix(format!("mkdir -p /usr/local/etc && {}", link(facts, path)))
}

/// The downscript runs as QEMU does, at its end. Who may not change routes leaves the guest's there.
fn unprivileged(facts: &Facts, pid: u32, user: &str) -> Row {
    let check = format!("QEMU process {pid}");
    let seen = format!("runs as {user}, so its downscript has no right to delete the guest's route");
    if facts.machine.watch.is_some() {
        return Row::ok(check, format!("{seen}; `tap32 watch` does"));
    }
    Row::warn(check, format!("{seen}, and `tap32 watch`, which would, does not run")).fix(start_watch(facts))
}

fn libvirt(facts: &Facts) -> Vec<Row> {
    let hooks = &facts.hooks;
    if !hooks.libvirt && hooks.daemon.is_none() {
        return vec![Row::ok("libvirt hook", "libvirt is not installed")];
    }
    let Some(hook) = hooks.libvirt_hooks.iter().find(|hook| hook.ours || hook.path == HOOK) else {
        let fix = format!("mkdir -p /etc/libvirt/hooks/qemu.d && {}", link(facts, HOOK));
        return vec![Row::fail("libvirt hook", "none: libvirt creates taps, but they get no route").fix(fix)];
    };
    let mut rows = vec![present(facts, hook)];
    if let Some(target) = hook.target.as_deref().filter(|_| hook.executable) {
        rows.extend([confinement(facts, hook, target), loaded(facts, hook)]);
    }
    rows
}

/// It is tap32, or a link to tap32, and can be run.
fn present(facts: &Facts, hook: &Hook) -> Row {
    let check = "libvirt hook";
    let Some(target) = &hook.target else {
        return Row::fail(check, format!("{} is a dangling link", hook.path)).fix(link(facts, &hook.path));
    };
    let is_file = *target == hook.path;
    let seen = if is_file { target.clone() } else { format!("{} is {target}", hook.path) };
    if !hook.ours {
        // libvirt runs every file in this folder, so an operator's script is moved out of it.
        let aside = if is_file { aside(&hook.path, "/etc/libvirt/hooks/50-tap32") + " && " } else { String::new() };
        return Row::fail(check, format!("{seen}, which is not tap32")).fix(aside + &link(facts, &hook.path));
    }
    if !hook.executable {
        // The link's time is when libvirt could first see the hook.
        let fix = format!("chmod 755 {} && touch -h {}", quote(target), quote(&hook.path));
        return Row::fail(check, format!("{seen}, which is not executable")).fix(fix);
    }
    Row::ok(check, seen)
}

fn confinement(facts: &Facts, hook: &Hook, target: &str) -> Row {
    let check = "libvirt hook's path";
    let Some(module) = &facts.hooks.confined_by else {
        return Row::ok(check, "neither AppArmor nor SELinux is enabled");
    };
    let folder = folder(target);
    // The policy's virt.te lets virtqemud run programs (bin_t) and a shell. Files of virt_hook_t, as they are labelled in
    // /etc/libvirt/hooks, it lets virtnetworkd alone run, and that with its boolean virt_hooks_unconfined only.
    if facts.hooks.labelled && target == hook.path {
        let seen = format!(
            "SELinux does not let virtqemud run a script in {folder}, also where virt_hooks_unconfined is on, which is \
             for virtnetworkd"
        );
        let fix = format!("mv {0} {SCRIPT} && restorecon {SCRIPT} && ln -s {SCRIPT} {0}", quote(target));
        return Row::warn(check, seen).fix(fix);
    }
    // An operator's script that calls tap32 is in libvirt's own folder.
    if ALLOWED.contains(&folder) || target == hook.path {
        return Row::ok(check, format!("{module} allows {folder}"));
    }
    let seen = format!("{module} does not let libvirt run {target}, only programs in {}", ALLOWED.join(", "));
    Row::fail(check, seen).fix(install(target, &hook.path))
}

/// libvirt checks when it starts or reloads whether there is any hook (virHookInitialize), and reads them at each call.
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
    Row::warn(check, seen).fix(facts.restart(name))
}

fn qemu(facts: &Facts, path: &str) -> Row {
    let Some(script) = facts.hooks.qemu_scripts.iter().find(|script| script.path == path) else {
        return Row::ok(path, "not installed; only a QEMU without script= would call it");
    };
    let Some(target) = &script.target else { return Row::warn(path, "a dangling link").fix(link(facts, path)) };
    if script.ours && script.executable {
        return Row::ok(path, target);
    }
    if script.ours {
        return Row::warn(path, "not executable").fix(format!("chmod 755 {}", quote(target)));
    }
    let aside = aside(path, path);
    // The file belongs to qemu-system-common: without a diversion the next upgrade asks about it. If there already is a
    // diversion, the file is an operator's, and `--rename` leaves it in place.
    let aside = match facts.hooks.dpkg && path.starts_with("/etc/") {
        true => format!("dpkg-divert --quiet --local --rename --add {path} && if [ -e {path} ]; then {aside}; fi"),
        false => aside,
    };
    let seen = "not tap32: guests of a QEMU without script= get no route";
    Row::warn(path, seen).fix(format!("{aside} && {}", link(facts, path)))
}

/// The command that keeps an operator's file beside. If that name is taken, `test` fails and nothing is changed.
fn aside(path: &str, to: &str) -> String {
    format!("test ! -e {to}.before-tap32 && mv {path} {to}.before-tap32")
}

/// The command that makes `path` a link to this program, in a folder from which libvirt may run it.
fn link(facts: &Facts, path: &str) -> String {
    let program = &facts.hooks.program;
    if ALLOWED.contains(&folder(program)) || facts.hooks.confined_by.is_none() {
        format!("ln -sf {} {}", quote(program), quote(path))
    } else {
        install(program, path)
    }
}

fn install(program: &str, path: &str) -> String {
    format!("install -m 755 {} {HOME} && ln -sf {HOME} {}", quote(program), quote(path))
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}
