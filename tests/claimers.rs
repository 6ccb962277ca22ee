//! What a claimer costs and holds: it sleeps through what is not its own, and has none of its hook's descriptors. They
//! need root: `sudo tests/run`.

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::hooks::{claimers, domain};
use common::{Background, GUEST, Guest, Host, TAP32, crowd, text, wait_for};

/// The hook that leaves a claimer behind, started by a shell line that ends in `exec`.
fn migrate(host: &Host, shell: &str) {
    let xml = std::env::temp_dir().join(format!("{}.xml", host.name));
    std::fs::write(&xml, domain(GUEST, None)).unwrap();
    let line = format!("{shell} {TAP32} libvirt g1 migrate begin - <{}", xml.display());
    let output = host.command("sh").args(["-c", &line]).output().unwrap();
    std::fs::remove_file(xml).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_sleeps_while_others_arrive() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    migrate(&host, "exec");
    let pid = claimers(&host).remove(0);
    let wakes = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u32>().unwrap()
    };
    let mut before = wakes();
    // Until it has gone to sleep.
    wait_for("asleep", 5, || std::mem::replace(&mut before, wakes()) == wakes());
    host.batch(&crowd(200));
    host.tap32("reconcile");
    assert_eq!(host.owned().len(), 200);
    let woken = wakes() - before;
    println!("200 taps came: the claimer woke {woken} times");
    // tokio's clock wakes it now and then.
    assert!(woken <= 3, "{woken}");
    // And it is awake for its own.
    host.add_tap("vnet0");
    host.ok("ip link set vnet0 address fe:42:0a:00:00:0a master br-l2 up");
    host.ok("ip link del vnet0");
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());
}

/// What a claimer inherits it keeps open: the tap's own descriptor, which QEMU hands down to its script, would keep the
/// tap alive. Also before Linux 5.11, which cannot mark all descriptors at once.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_inherits_no_descriptor() {
    // EINVAL: Linux 5.9 and 5.10, which do not know the flag; ENOSYS: before 5.9.
    let old_kernel =
        |errno| format!("strace -qq -o /dev/null -e trace=close_range -e inject=close_range:error={errno}");
    for by in [String::new(), old_kernel("EINVAL"), old_kernel("ENOSYS")] {
        let host = Host::new();
        let file = std::env::temp_dir().join(format!("{}-open", host.name));
        std::fs::write(&file, "").unwrap();
        migrate(&host, &format!("exec 3<{0} 9<{0} && exec {by}", file.display()));
        let pid = claimers(&host).remove(0);
        let open = Command::new("ls").args(["-l", &format!("/proc/{pid}/fd")]).output().unwrap();
        assert!(!text(&open.stdout).contains(file.to_str().unwrap()), "{by}: {}", text(&open.stdout));
        std::fs::remove_file(file).unwrap();
    }
}

/// A QEMU that ends at once takes its tap down before its claimer has run: the claimer saw the tap before.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_has_the_tap_in_sight_when_it_is_ready() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    // Each of its questions takes a while.
    let mut arrival = host.command("strace");
    arrival.args(["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", "inject=sendto:delay_enter=100000"]);
    let child = arrival.args([TAP32, "arrival", "02:42:0a:00:00:0a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut claimer = Background(child);
    std::io::Read::read_exact(claimer.0.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
    host.tap32("down vnet0");
    wait_for("the claimer is gone", 5, || claimer.0.try_wait().unwrap().is_some());
}

/// `tap32 arrival` with a timeout of a second and a syslog of its own.
struct Arrival {
    claimer: Background,
    socket: UnixDatagram,
    files: [PathBuf; 2],
}

impl Arrival {
    fn new(host: &Host) -> Self {
        Self::run_by(host, "")
    }

    /// `by` runs it, with its own options.
    fn run_by(host: &Host, by: &str) -> Self {
        let file = |name: &str| std::env::temp_dir().join(format!("{}-{name}", host.name));
        let files = [file("toml"), file("log")];
        std::fs::write(&files[0], "[migration]\nsettle = \"1s\"\ntimeout = \"1s\"\n").unwrap();
        let socket = UnixDatagram::bind(&files[1]).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // A /dev with nothing but the log and what a process needs.
        let line = format!(
            "mount -t tmpfs none /dev && ln -s {} /dev/log && mknod -m 666 /dev/null c 1 3 && \
             exec {by} {TAP32} arrival 02:42:0a:00:00:0a --config {}",
            files[1].display(),
            files[0].display()
        );
        let mut shell = host.command("unshare");
        let child = shell.args(["-m", "sh", "-c", &line]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut arrival = Self { claimer: Background(child), socket, files };
        std::io::Read::read_exact(arrival.claimer.0.stdout.as_mut().unwrap(), &mut [0; 1]).unwrap();
        arrival
    }

    fn is_there(&mut self) -> bool {
        self.claimer.0.try_wait().unwrap().is_none()
    }

    /// Lines of syslog up to the one with `words`.
    fn says(&self, words: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let mut buffer = [0; 2048];
        while !lines.last().is_some_and(|line| line.contains(words)) {
            let length = self.socket.recv(&mut buffer).unwrap_or_else(|_| panic!("{words:?} is not in {lines:?}"));
            lines.push(text(&buffer[..length]));
        }
        lines
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
}

/// A guest with terabytes to copy: the claim is there at its end.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_waits_without_a_limit_while_the_tap_is_open() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    let mut guest = Guest::open(&host, "vnet0");
    let mut arrival = Arrival::new(&host);
    let start = Instant::now();
    // Longer than the timeout, and than it takes to look again.
    while start.elapsed() < Duration::from_secs(6) {
        assert!(arrival.is_there());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Somebody cuts the guest off meanwhile, and thinks better of it.
    host.ok("ip link set vnet0 down");
    while start.elapsed() < Duration::from_secs(12) {
        assert!(arrival.is_there());
        std::thread::sleep(Duration::from_millis(50));
    }
    host.ok("ip link set vnet0 up");
    host.port_forwards("vnet0");
    guest.frame_from("02:42:0a:00:00:0a");
    wait_for("the claim", 5, || host.owned().iter().any(|(_, _, metric)| *metric == 10));
    wait_for("the claimer is gone", 5, || !arrival.is_there());
    arrival.says("action=demote guest_mac=02:42:0a:00:00:0a address=10.0.0.10 bridge=br-l2 result=settled");
}

/// 28: facility daemon (3), severity warning (4).
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_end_of_its_patience_is_a_warning() {
    let host = Host::new();
    let mut arrival = Arrival::new(&host);
    wait_for("the claimer is gone", 5, || !arrival.is_there());
    let lines = arrival.says("result=timeout");
    assert!(lines[0].starts_with("<28>") && lines[0].contains("its tap has not come in 1s"), "{lines:?}");
    drop(arrival);
    // A tap of a pool that nobody opens.
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    let mut arrival = Arrival::new(&host);
    wait_for("the claimer is gone", 5, || !arrival.is_there());
    let lines = arrival.says("result=timeout");
    assert!(lines[0].starts_with("<28>") && lines[0].contains("no QEMU has opened its tap in 1s"), "{lines:?}");
}

/// A killed QEMU's tap can stay, and whoever starts the guest here later, cold, must not find a claimer.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_goes_when_qemu_has_closed_the_tap() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    let guest = Guest::open(&host, "vnet0");
    let mut arrival = Arrival::new(&host);
    assert!(arrival.is_there());
    drop(guest);
    wait_for("the claimer is gone", 10, || !arrival.is_there());
    arrival.says("result=gone");
}

/// The second lock tells that the guest has come.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_logs_its_claim_though_it_gets_no_second_lock() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    let mut guest = Guest::open(&host, "vnet0");
    let by = "strace -qq -o /dev/null -e trace=listen -e inject=listen:error=ENOBUFS:when=2+";
    let arrival = Arrival::run_by(&host, by);
    guest.frame_from(GUEST);
    arrival.says("action=claim guest_mac=02:42:0a:00:00:0a address=10.0.0.10 bridge=br-l2 result=done");
    arrival.says("arrival of 02:42:0a:00:00:0a: lock tap32/arrival/10.0.0.10/come");
    arrival.says("result=settled");
}
