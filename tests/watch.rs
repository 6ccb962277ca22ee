//! `watch` against a real kernel: what goes wrong behind its back is mended within 200 ms, judged by `ip -j`; and
//! what a daemon owes to systemd and Prometheus. They need root: `sudo tests/run`.

mod common;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use common::{Background, Guest, Host, SETTLED, TAP32, crowd, settled, text, wait_for};

/// What is shipped, as tests/run builds it: times and memory are its, not those of a debug build.
const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/x86_64-unknown-linux-gnu/release/tap32");

const GUEST: &str = "02:42:0a:00:00:0a";
const LIMIT: Duration = Duration::from_millis(200);

/// A running `watch`, with a configuration, a metrics file and a systemd of its own.
struct Watch {
    process: Background,
    folder: PathBuf,
    systemd: mpsc::Receiver<String>,
}

impl Watch {
    fn start(host: &Host) -> Self {
        Self::start_program(host, RELEASE)
    }

    fn folder(host: &Host) -> PathBuf {
        std::env::temp_dir().join(format!("{}-watch", host.name))
    }

    fn start_program(host: &Host, program: &str) -> Self {
        let folder = Self::folder(host);
        std::fs::create_dir_all(&folder).unwrap();
        let systemd = listen(&folder.join("notify"));
        std::fs::write(folder.join("tap32.toml"), Self::toml(&folder, "")).unwrap();
        let mut command = host.command(program);
        command.arg("watch").env("TAP32_CONFIG", folder.join("tap32.toml"));
        command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "400000");
        command.stderr(std::fs::File::create(folder.join("stderr")).unwrap());
        let watch = Self { process: Background(command.spawn().unwrap()), folder, systemd };
        watch.told("READY=1");
        watch
    }

    fn toml(folder: &Path, more: &str) -> String {
        format!("[watch]\nmetrics = {:?}\n{more}", folder.join("tap32.prom"))
    }

    fn configure(&self, more: &str) {
        std::fs::write(self.folder.join("tap32.toml"), Self::toml(&self.folder, more)).unwrap();
    }

    /// Waits until systemd is told this.
    fn told(&self, what: &str) -> String {
        let patience = Duration::from_secs(10);
        loop {
            let message = self.systemd.recv_timeout(patience);
            let message = message.unwrap_or_else(|_| panic!("{what} was not told: {}", self.said()));
            if message.lines().any(|line| line.starts_with(what)) {
                return message;
            }
        }
    }

    /// Everything on stderr so far.
    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// To tap32 below a program that runs it.
    fn signal_tap32(&self, name: &str) {
        let kill = Command::new("pkill").args([&format!("-{name}"), "-P", &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// `ip netns exec` becomes the program that it starts.
    fn pid(&self) -> u32 {
        self.process.0.id()
    }

    fn metrics(&self) -> String {
        std::fs::read_to_string(self.folder.join("tap32.prom")).unwrap_or_default()
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Ends it, and returns its exit code.
    fn end(mut self) -> Option<i32> {
        self.signal("TERM");
        self.told("STOPPING=1");
        self.process.0.wait().unwrap().code()
    }
}

/// As systemd does, takes every message off the queue at once: one that is full would hang the sender.
fn listen(path: &Path) -> mpsc::Receiver<String> {
    let socket = UnixDatagram::bind(path).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            if sender.send(text(&buffer[..length])).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Does something to the host, and measures from there until it is mended.
///
/// One test at a time measures: all namespaces share one RTNL, which the others' bursts hold.
fn mended(what: &str, fault: impl FnOnce(), right: impl Fn() -> bool) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fault();
    let start = Instant::now();
    while !right() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: not mended in 5 s");
    }
    let took = start.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took <= LIMIT, "{what}: {took:?}");
}

fn add_by_hand(host: &Host, tap: &str, last: u8) {
    host.add_tap(tap);
    host.ok(&format!("ip link set {tap} address fe:42:0a:00:00:{last:02x} master br-l2 up"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_goes_wrong_is_mended_within_200_ms() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let watch = Watch::start(&host);
    let both = [settled("10.0.0.10"), settled("10.0.0.11")];

    mended(
        "a tap added to the bridge by hand",
        || add_by_hand(&host, "vnet1", 11),
        || host.owned() == both && host.isolated("vnet1"),
    );
    mended("a tap deleted", || drop(host.ok("ip link del vnet1")), || host.owned() == both[..1]);
    add_by_hand(&host, "vnet1", 11);
    wait_for("both", 5, || host.owned() == both);
    mended("an owned route deleted", || drop(host.ok("ip route del 10.0.0.11/32")), || host.owned() == both);
    mended("all of them flushed", || drop(host.ok("ip route flush proto 132")), || host.owned() == both);
    mended(
        "a route without a tap",
        || drop(host.ok(&format!("ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric {SETTLED}"))),
        || host.owned() == both,
    );
    mended(
        "isolation taken off",
        || drop(host.ok("bridge link set dev vnet1 isolated off")),
        || host.isolated("vnet1"),
    );
    mended(
        "the bridge down and up",
        || {
            host.ok("ip link set br-l2 down");
            host.ok("ip link set br-l2 up");
        },
        || host.owned() == both,
    );
    mended(
        "the gateway address removed and added",
        || {
            host.ok("ip addr del 10.0.0.1/24 dev br-l2");
            host.ok("ip addr add 10.0.0.1/24 dev br-l2");
        },
        || host.owned() == both,
    );
    // Only what was so for the moment in which the bridge was down, or had no address.
    let said = watch.said();
    assert!(said.lines().all(|line| line.contains(" is refused: bridge br-l2 ")), "{said}");
    assert_eq!(watch.metric("tap32_guest_routes{state=\"settled\"}"), 2.0);
    assert!(watch.metric("tap32_repairs_total{kind=\"add_route\"}") >= 6.0);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_hundred_taps_in_one_burst() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    let watch = Watch::start(&host);
    let before = watch.metric("tap32_pass_duration_seconds_count");
    mended("200 taps in one burst", || host.batch(&crowd(200)), || host.owned().len() == 200);
    let passes = || watch.metric("tap32_pass_duration_seconds_count") - before;
    wait_for("the metrics", 5, || passes() > 0.0);
    let passes = passes();
    println!("in {passes} passes");
    assert!(passes < 100.0, "a storm of some 2,000 events must not cost a pass each: {passes}");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lost_events_mean_a_full_pass() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    let watch = Watch::start(&host);
    watch.signal("STOP");
    let stopped = || std::fs::read_to_string(format!("/proc/{}/stat", watch.pid())).unwrap().contains(") T ");
    wait_for("stopped", 5, stopped);
    // 400 taps make some 5,000 events; the socket holds 425,984 octets of them.
    host.batch(&crowd(400));
    mended("the event socket overrun", || watch.signal("CONT"), || host.owned().len() == 400);
    wait_for("the metrics", 5, || watch.metric("tap32_lost_events_total") >= 1.0);
    assert_eq!(host.tap32("reconcile"), "");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_end_leaves_the_routes_and_a_second_one_does_not_start() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
    let watch = Watch::start(&host);
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    watch.told("WATCHDOG=1");
    let said = host.refused("watch");
    assert!(
        said.contains("another one runs in this network namespace")
            && said.contains(&format!("`kill {}`", watch.pid())),
        "{said}"
    );
    assert_eq!(watch.end(), Some(0));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    // The lock died with the process.
    let next = Watch::start(&host);
    next.signal("KILL");
    drop(next);
    assert_eq!(Watch::start(&host).end(), Some(0));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn reload_takes_a_new_configuration_and_keeps_the_old_one_when_it_is_broken() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
    let watch = Watch::start(&host);
    watch.configure("resync = \"1 fortnight\"");
    watch.signal("HUP");
    watch.told("RELOADING=1");
    watch.told("READY=1");
    wait_for("the complaint", 5, || watch.said().contains("line 3"));
    assert!(watch.said().contains("the old configuration stays in force"), "{}", watch.said());
    host.ok("ip route flush proto 132");
    wait_for("mended by the old one", 5, || host.owned() == [settled("10.0.0.10")]);

    watch.configure("\n[[bridge]]\nname = \"br-l2\"\nprefixes = [\"10.0.0.128/25\"]");
    add_by_hand(&host, "vnet1", 200);
    add_by_hand(&host, "vnet2", 12);
    wait_for("three", 5, || host.owned().len() == 3);
    watch.signal("HUP");
    watch.told("READY=1");
    host.ok("ip route flush proto 132");
    wait_for("mended by the new one", 5, || host.owned() == [settled("10.0.0.200")]);
    assert_eq!(watch.end(), Some(0));
    assert_eq!(host.refused("watch --config /nonexistent/tap32.toml").lines().count(), 1);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_slip_in_the_configuration_is_said_and_cuts_nobody_off() {
    let host = Host::new();
    for (tap, last) in [("vnet0", 10), ("vnet1", 11)] {
        add_by_hand(&host, tap, last);
    }
    let watch = Watch::start(&host);
    wait_for("two", 5, || host.owned().len() == 2);
    let slips = [
        ("mac-prefix = \"02:43\"\n", "", "vnet0 is refused: tap MAC fe:42:0a:00:00:0a names no guest"),
        ("", "\n[[bridge]]\nname = \"br-12\"", "bridge br-12 does not exist"),
    ];
    for (before, after, said) in slips {
        let toml = before.to_owned() + &Watch::toml(&watch.folder, after);
        std::fs::write(watch.folder.join("tap32.toml"), toml).unwrap();
        watch.signal("HUP");
        wait_for(said, 5, || watch.said().contains(said));
        assert_eq!(host.owned(), [settled("10.0.0.10"), settled("10.0.0.11")]);
    }
}

/// Events ask for a look at our own; at everything it looks every `resync`, however many of them come.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_events_put_the_full_pass_off() {
    let host = Host::new();
    host.ok("ip route add 10.0.0.10/32 dev br-l2 proto static");
    let watch = Watch::start(&host);
    watch.configure("resync = \"1s\"");
    watch.signal("HUP");
    watch.told("RELOADING=1");
    watch.told("READY=1");
    add_by_hand(&host, "vnet0", 10);
    wait_for("shadowed", 5, || {
        for verb in ["add", "del"] {
            host.ok(&format!("ip addr {verb} 10.99.0.1/32 dev lo"));
        }
        watch.said().contains("vnet0 is shadowed")
    });
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn foreign_routes_are_reported_once_and_left_alone() {
    let host = Host::new();
    host.ok("ip link add eth0 type veth peer name eth1");
    host.ok("ip addr add 10.47.175.10/30 dev eth0");
    host.ok("ip link set eth0 up");
    host.ok("ip link set eth1 up");
    for (tap, last) in [("vnet0", 10), ("vnet1", 11), ("vnet2", 12), ("vnet3", 13)] {
        add_by_hand(&host, tap, last);
    }
    // Exactly where ours would go; another device; another protocol; the fabric's.
    host.ok(&format!("ip route add 10.0.0.10/32 dev br-l2 proto static metric {SETTLED}"));
    host.ok("ip route add 10.0.0.11/32 dev eth0 proto static");
    let watch = Watch::start(&host);
    host.ok("ip route add 10.0.0.12/32 dev br-l2 proto 133 metric 5");
    host.ok("ip route add 10.0.0.13/32 via 10.47.175.9 dev eth0 proto ospf metric 20");
    for what in [
        "a route to 10.0.0.10 with metric 4026531940 that is not ours is in the way",
        "vnet1 is shadowed: 10.0.0.11/32 dev eth0 proto 4 metric 0 is not ours and wins",
        "vnet2 is shadowed: 10.0.0.12/32 dev br-l2 proto 133 metric 5 is not ours and wins",
        "vnet3 is shadowed: the fabric's route by 10.47.175.9 wins over ours",
    ] {
        wait_for(what, 5, || watch.said().contains(what));
    }
    // More passes say nothing more.
    let passes = watch.metric("tap32_pass_duration_seconds_count");
    for _ in 0..3 {
        host.ok("ip route del 10.0.0.13/32 dev br-l2 proto 132");
        wait_for("mended", 5, || host.owned().len() == 3);
    }
    wait_for("passes", 5, || watch.metric("tap32_pass_duration_seconds_count") >= passes + 3.0);
    assert_eq!(watch.said().matches("vnet1 is shadowed").count(), 1, "{}", watch.said());
    assert_eq!(watch.said().matches("is in the way").count(), 1, "{}", watch.said());
    assert_eq!(watch.metric("tap32_guest_routes{state=\"shadowed\"}"), 4.0);
    assert_eq!(host.json("ip -j route show proto static").as_array().unwrap().len(), 2);
    assert_eq!(host.json("ip -j route show proto 133").as_array().unwrap().len(), 1);
    assert_eq!(host.json("ip -j route show proto ospf").as_array().unwrap().len(), 1);
    // What is over is forgotten, by a pass of any kind: were it wrong again, it would be said again.
    host.ok("ip link del vnet0");
    wait_for("a tap less", 5, || watch.metric("tap32_taps{bridge=\"br-l2\"}") == 3.0);
    add_by_hand(&host, "vnet0", 10);
    wait_for("said again", 5, || watch.said().matches("is in the way").count() == 2);
    assert_eq!(watch.said().matches("vnet1 is shadowed").count(), 1, "{}", watch.said());
    // reconcile, by hand, says the same, and so does status.
    let output = host.run(&format!("{TAP32} reconcile"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("vnet1 is shadowed"), "{}", text(&output.stderr));
    let output = host.run(&format!("{TAP32} status --check"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("4 shadowed"), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_claim_whose_claimer_is_killed_is_taken_back() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
    let _watch = Watch::start(&host);
    let mut claimer = host.command(TAP32);
    let mut claimer = Background(claimer.args(["arrival", GUEST]).stdout(Stdio::null()).spawn().unwrap());
    wait_for("the lock", 5, || host.ok("cat /proc/net/unix").contains("@tap32/arrival/10.0.0.10"));
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from(GUEST);
    let claim = ("10.0.0.10".to_owned(), "br-l2".to_owned(), 10);
    wait_for("the claim", 5, || host.owned().contains(&claim));
    // A live one stays, over more passes than one.
    host.ok("ip route del 10.0.0.10/32 dev br-l2 metric 4026531940");
    wait_for("mended", 5, || host.owned() == [claim.clone(), settled("10.0.0.10")]);
    claimer.0.kill().unwrap();
    wait_for("demoted", 5, || host.owned() == [settled("10.0.0.10")]);
}

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
/// read-only system, and makes no system call that the unit's filter does not let through.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_needs_no_more_than_its_unit_gives_it() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
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
    host.ok("ip route flush proto 132");
    wait_for("mended", 10, || host.owned() == [settled("10.0.0.10")]);
    wait_for("the metrics", 10, || watch.metrics().contains("add_route\"} 2"));
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
