//! Reads the facts for doctor's checks. What cannot be read is left out, and its row says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Common, doctor_dhcp, doctor_firewall, doctor_modules};
use crate::checks::facts::{Daemon, Facts, Filter, Hook, Hooks, Machine, NetworkFile};
use crate::config::Config;
use crate::fabric::answers;
use crate::fabric::vtysh;
use crate::guest::snapshot::Snapshot;
use crate::host::Manager;
use crate::kernel::{DUMP_TRIES, Detail, Kernel, Scope};
use crate::machine::{lock, network_managers, process};
use crate::text::quote;
use crate::verbs::{setup, watch};

const PROGRAM: &str = "tap32";
/// In every tap32, and in every script that runs one with a verb.
const MENTION: &[u8] = b"tap32 ";
/// What QEMU runs without script=, as distributions build it and as its source does.
const SCRIPTS: [&str; 4] =
    ["/etc/qemu-ifup", "/etc/qemu-ifdown", "/usr/local/etc/qemu-ifup", "/usr/local/etc/qemu-ifdown"];
const HOOKS: &str = "/etc/libvirt/hooks";
/// It came with that type, in fedora-selinux/selinux-policy's "Add support for libvirt hooks": Fedora 40, RHEL 10.
const HOOK_BOOLEAN: &str = "/sys/fs/selinux/booleans/virt_hooks_unconfined";

/// # Errors
/// The kernel does not answer.
pub fn facts(config: &Config, common: &Common) -> Result<Facts> {
    let kernel = Kernel::open()?;
    let host = setup::look(config, &kernel)?;
    let snapshot = kernel.snapshot(config, Scope::Host { foreign: true, detail: Detail::All })?;
    let (mut ports, mut filters) = (BTreeMap::new(), Vec::new());
    for bridge in &snapshot.bridges {
        ports.insert(bridge.name.clone(), kernel.ports_of(bridge.index)?.len());
    }
    for tap in &snapshot.links {
        let others = kernel.other_filters(tap.index)?.into_iter();
        filters.extend(others.map(|(kind, handle)| Filter { tap: tap.name.clone(), kind, handle }));
    }
    Ok(Facts {
        tap32: command(common),
        root: nix::unistd::geteuid().is_root(),
        systemd: Path::new("/run/systemd/system").is_dir(),
        machine: machine(config, &snapshot)?,
        hooks: hooks(),
        firewall: doctor_firewall::firewall(config),
        frr: vtysh::ask_all(answers::about_everything(config)),
        taps_alone: kernel.taps_alone(DUMP_TRIES)?,
        host,
        snapshot,
        ports,
        filters,
    })
}

/// How a shell runs this program: by its name if that is enough.
fn command(common: &Common) -> String {
    let program = program();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|folder| folder.join(PROGRAM)).find(|file| file.is_file());
    let is_us = first.and_then(|first| fs::canonicalize(first).ok()).is_some_and(|first| first == program);
    let word = if is_us { PROGRAM.to_owned() } else { quote(&program.display().to_string()) };
    match common.named_file().and_then(|file| std::path::absolute(file).ok()) {
        Some(file) => format!("{word} --config {}", quote(&file.display().to_string())),
        None => word,
    }
}

fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PROGRAM.into())
}

fn machine(config: &Config, snapshot: &Snapshot) -> Result<Machine> {
    let interfaces = snapshot
        .bridges
        .iter()
        .map(|bridge| (&bridge.name, bridge.index))
        .chain(snapshot.links.iter().map(|link| (&link.name, link.index)));
    let has = |name: &str, index| {
        network_managers::of(name, Some(index)).is_some_and(|o| o.manager == Manager::NetworkManager)
    };
    let number = |text: String| text.trim().parse().ok();
    Ok(Machine {
        bridge_nf_call_iptables: fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
            .ok()
            .and_then(number),
        guard_modules: doctor_modules::of_guards(),
        networkd: process::find(&["systemd-networkd"]).is_some(),
        manage_foreign_routes: network_managers::networkd_says("Network", "ManageForeignRoutes"),
        network_files: systemd_files("network"),
        udev: process::find(&["systemd-udevd"]).is_some() || Path::new("/run/udev/control").exists(),
        link_files: systemd_files("link"),
        netdevs: network_managers::netdevs(),
        network_manager: interfaces.filter(|(name, index)| has(name, *index)).map(|(name, _)| name.clone()).collect(),
        syslog: fs::metadata("/dev/log").is_ok_and(|file| file.file_type().is_socket()),
        watch: lock::holder(watch::LOCK)?.map(|holder| holder.pid.unwrap_or(0)),
        proto_name: proto_name(config.protocol),
        dhcp: doctor_dhcp::server(),
    })
}

fn systemd_files(ending: &'static str) -> Vec<NetworkFile> {
    network_managers::systemd_files(ending).into_iter().map(|(path, text)| NetworkFile { path, text }).collect()
}

/// rt_protos as iproute2 reads it: /etc before /usr, each with a folder of additions (lib/rt_names.c).
fn proto_name(number: u8) -> Option<String> {
    let folders = ["/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2"];
    let files = folders.iter().flat_map(|folder| {
        let more = network_managers::files(&format!("{folder}/rt_protos.d"));
        [PathBuf::from(folder).join("rt_protos")].into_iter().chain(more)
    });
    let named = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        let mut lines = text.lines().map(|line| line.split_whitespace());
        lines.find_map(|mut words| {
            (words.next()?.parse() == Ok(number)).then(|| words.next().map(str::to_owned)).flatten()
        })
    };
    files.filter_map(named).next()
}

fn hooks() -> Hooks {
    let more = fs::read_dir(format!("{HOOKS}/qemu.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = more.chain([format!("{HOOKS}/qemu").into()]).collect();
    paths.sort();
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
    let selinux = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.starts_with('1'));
    Hooks {
        program: program().display().to_string(),
        libvirt: Path::new("/etc/libvirt").is_dir(),
        daemon: process::find(&["virtqemud", "libvirtd"])
            .map(|(name, started)| Daemon { name: name.to_owned(), started }),
        libvirt_hooks: paths.iter().filter_map(|path| hook(path)).collect(),
        qemu_scripts: SCRIPTS.iter().filter_map(|path| hook(path.as_ref())).collect(),
        local_qemu: local_qemu(),
        unprivileged: process::command_lines("qemu-system").into_iter().filter_map(user).collect(),
        confined_by: if apparmor {
            Some("AppArmor".into())
        } else if selinux {
            Some("SELinux".into())
        } else {
            None
        },
        labelled: selinux && Path::new(HOOK_BOOLEAN).exists(),
        dpkg: Path::new("/usr/bin/dpkg-divert").exists(),
    }
}

fn local_qemu() -> Option<String> {
    let programs = network_managers::files("/usr/local/bin").into_iter().map(|file| file.display().to_string());
    programs.filter(|file| file.starts_with("/usr/local/bin/qemu-system-")).min()
}

/// The user whom a QEMU became: `-runas USER`, and since 9.1 `-run-with user=USER` (system/vl.c), with one dash or two.
fn user((pid, words): (u32, Vec<String>)) -> Option<(u32, String)> {
    let has_tap = words.iter().any(|word| word.starts_with("tap,"));
    let value = |option: &str| {
        let at = words.iter().position(|word| word.trim_start_matches('-') == option && word.starts_with('-'))?;
        words.get(at + 1).map(String::as_str)
    };
    let run_with = value("run-with").and_then(|value| value.split(',').find_map(|part| part.strip_prefix("user=")));
    let user = value("runas").or(run_with).filter(|_| has_tap)?;
    Some((pid, user.to_owned()))
}

/// `None` if the file does not exist.
fn hook(path: &Path) -> Option<Hook> {
    let link = fs::symlink_metadata(path).ok()?;
    let target = fs::canonicalize(path).ok();
    // The program itself, or an operator's script that calls it (hooks/README.md).
    let calls_us = |line: &[u8]| {
        !line.trim_ascii_start().starts_with(b"#") && line.windows(MENTION.len()).any(|window| window == MENTION)
    };
    let mentions_us = |target: &Path| fs::read(target).is_ok_and(|bytes| bytes.split(|b| *b == b'\n').any(calls_us));
    Some(Hook {
        path: path.display().to_string(),
        executable: target
            .as_ref()
            .and_then(|target| fs::metadata(target).ok())
            .is_some_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0),
        ours: target.as_deref().is_some_and(mentions_us),
        target: target.map(|target| target.display().to_string()),
        since: link.ctime() as f64 + link.ctime_nsec() as f64 / 1e9,
    })
}
