//! What a daemon owes to systemd and Prometheus: it works with no more than its unit gives it, takes nothing while it is
//! idle, and its metrics can be read. They need root: `sudo tests/run`.

mod common;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use common::watch::{RELEASE, Watch, add_by_hand};
use common::{Host, crowd, settled, text, wait_for};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn idle_it_takes_no_cpu_and_little_memory() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    host.batch(&crowd(200));
    let watch = Watch::start(&host);
    wait_for("all", 10, || host.owned().len() == 200);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", watch.pid())).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0)).collect();
        fields[11] + fields[12]
    };
    // The kernel's last events of the crowd (carrier, link-local addresses) come for a few seconds.
    let mut before = ticks();
    wait_for("idle for 3 s", 60, || {
        std::thread::sleep(Duration::from_secs(3));
        let now = ticks();
        std::mem::replace(&mut before, now) == now
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", watch.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.split_whitespace().next().unwrap().parse().unwrap();
    println!("with 200 taps: {resident} KiB resident");
    assert!(resident <= 6 * 1024, "{resident} KiB");
}

/// The unit's hardening, without systemd: it works with no capability but CAP_NET_ADMIN, no new privileges and a
/// read-only system, and makes no system call that the unit's filter does not let through. With 600 guests it takes a second
/// thread.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_needs_no_more_than_its_unit_gives_it() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    add_by_hand(&host, "vnet0", 10);
    host.batch(&crowd(600));
    let folder = std::env::temp_dir().join(format!("{}-unit", host.name));
    std::fs::create_dir_all(&folder).unwrap();
    let calls = folder.join("calls");
    let program = folder.join("hardened");
    // As ReadWritePaths= does, the folder of the metrics (and strace's) are mounts of their own; the rest is read-only.
    let script = format!(
        "#!/bin/sh\nset -e\nmount --make-rprivate /\nfor d in {0} {1}; do mount --bind $d $d; done\n\
         mount -o remount,bind,ro /\nexec setpriv --bounding-set=-all,+net_admin --inh-caps=-all --no-new-privs \
         strace -f -qq -o {0}/calls {RELEASE} \"$@\"\n",
        folder.display(),
        Watch::folder(&host).display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut watch = Watch::start_program(&host, program.to_str().unwrap());
    let guarded = || host.ok("tc filter show dev vnet0 ingress").contains("handle 0x84");
    wait_for("the guard", 30, guarded);
    let routed = || {
        let owned = host.owned();
        owned.len() == 601 && owned.contains(&settled("10.0.0.10"))
    };
    wait_for("the routes", 30, routed);
    host.ok("ip route flush proto 132");
    wait_for("mended", 30, routed);
    wait_for("the metrics", 30, || watch.metrics().contains("add_route\"} 1202"));
    watch.signal_tap32("HUP");
    watch.told("RELOADING=1");
    watch.signal_tap32("TERM");
    watch.told("STOPPING=1");
    assert_eq!(watch.process.0.wait().unwrap().code(), Some(0));
    let calls = std::fs::read_to_string(&calls).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let allowed = allowed_by_unit();
    let used: BTreeSet<&str> =
        calls.lines().filter_map(|line| line.split_whitespace().nth(1)?.split_once('(')).map(|call| call.0).collect();
    println!("system calls: {}", used.iter().copied().collect::<Vec<_>>().join(" "));
    let threads: BTreeSet<&str> = calls.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(threads.len() > 1, "{threads:?}");
    let denied: Vec<_> = used.iter().filter(|call| !allowed.contains(**call)).collect();
    assert!(used.len() > 20 && denied.is_empty(), "not in SystemCallFilter=: {denied:?}");
}

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/systemd/tap32-watch.service");

/// The system calls of SystemCallFilter=, its sets as systemd has them.
fn allowed_by_unit() -> BTreeSet<String> {
    let unit = std::fs::read_to_string(UNIT).unwrap();
    let lines = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let named = lines.flat_map(str::split_whitespace).map(str::to_owned);
    // systemd adds this set to every list of what is allowed (systemd.exec(5)).
    let mut open: Vec<String> = named.chain(["@default".to_owned()]).collect();
    let mut allowed = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !name.starts_with('@') {
            allowed.insert(name);
            continue;
        }
        let set = Command::new("systemd-analyze").args(["syscall-filter", &name]).output().unwrap();
        assert!(set.status.success(), "{name}: {}", text(&set.stderr));
        let members = text(&set.stdout);
        open.extend(
            members
                .lines()
                .skip(1)
                .map(str::trim)
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .map(str::to_owned),
        );
    }
    allowed
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn systemd_finds_the_unit_hardened() {
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20", UNIT]).output();
    let output = output.unwrap();
    let said = text(&output.stdout);
    println!("{}", said.lines().last().unwrap_or_default());
    // The threshold is in tenths: 2.0.
    assert!(output.status.success() && said.contains("Overall exposure level"), "{said}{}", text(&output.stderr));
}

/// Prometheus' own judge.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn promtool_finds_nothing_to_say() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
    let watch = Watch::start(&host);
    wait_for("the metrics", 5, || !watch.metrics().is_empty());
    let file = std::fs::File::open(watch.folder.join("tap32.prom")).unwrap();
    let output = Command::new("promtool").args(["check", "metrics"]).stdin(file).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(watch.metric("tap32_taps{bridge=\"br-l2\"}"), 1.0);
    assert!(watch.metric("tap32_last_success_timestamp_seconds") > 1.7e9);
    // Nothing half-written is left beside it.
    let names = std::fs::read_dir(&watch.folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().contains(".prom")).count(), 1);
}
