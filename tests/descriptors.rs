//! Started with descriptors 0 to 2 closed, tap32 makes no socket one of them: what it says would be a message of
//! its own protocol then. strace is the judge. They need root: `sudo tests/run`.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Background, Host, TAP32, text, wait_for};

const CLOSED: [&str; 4] = ["0<&- 1>&- 2>&-", "0<&-", "1>&-", "2>&-"];

/// The calls that a program made which write something.
struct Trace(PathBuf);

impl Trace {
    fn new(host: &Host) -> Self {
        Self(std::env::temp_dir().join(format!("{}-calls", host.name)))
    }

    /// tap32 in a shell that closes descriptors first.
    fn command(&self, host: &Host, arguments: &str, closed: &str) -> Command {
        let mut strace = host.command("strace");
        strace.args(["-f", "-yy", "-s", "300", "-e", "trace=write,writev,sendto,sendmsg", "-o"]).arg(&self.0);
        // TAP32_PROGRAM: to see it red with another binary.
        let program = std::env::var("TAP32_PROGRAM").unwrap_or_else(|_| TAP32.to_owned());
        strace.args(["sh", "-c", &format!("exec {program} {arguments} {closed}")]);
        strace
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }

    /// Calls on descriptors 0 to 2 that are a socket; `writev(2<NETLINK:[ROUTE:4711]>, ...`.
    fn written_to_sockets(&self) -> Vec<String> {
        let is_one = |line: &&str| {
            let arguments = line.split_once('(').map_or("", |(_, arguments)| arguments);
            let socket = |fd: &str| {
                let kinds = ["UNIX", "NETLINK", "socket"];
                kinds.iter().any(|kind| arguments.starts_with(&format!("{fd}<{kind}")))
            };
            ["0", "1", "2"].iter().any(|fd| socket(fd))
        };
        self.text().lines().filter(is_one).map(str::to_owned).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs it to its end, which it finds by itself.
fn check(host: &Host, arguments: &str, said: &str) {
    for closed in CLOSED {
        let trace = Trace::new(host);
        trace.command(host, arguments, closed).output().unwrap();
        let calls = trace.text();
        assert!(calls.contains(said), "{arguments} {closed}: {calls}");
        assert_eq!(trace.written_to_sockets(), [""; 0], "{arguments} {closed}");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn nothing_is_said_into_a_socket() {
    let host = Host::new();
    host.ok("ip link add eth0 type veth peer name eth1");
    host.ok("ip addr add 10.47.175.10/30 dev eth0");
    host.ok("ip link set eth0 up");
    host.ok("ip link set eth1 up");
    host.ok("ip route add 10.0.0.10/32 via 10.47.175.9 dev eth0 proto ospf metric 20");
    host.add_tap("vnet0");
    // A warning while the netlink socket is open, and then errors.
    check(&host, "up vnet0 --mac 02:42:0a:00:00:0a", "duplicate");
    check(&host, "up vnet9 --mac 02:42:0a:00:00:0a", "up vnet9: ");
    check(&host, "status --check", "tap32: ");
    check(&host, "libvirt g1 prepare begin -", "prepare of domain g1: ");
    // It says on stdout that it is ready.
    let claimer = short_arrival(&host);
    check(&host, &format!("arrival 02:42:0a:00:00:0a --config {}", claimer.display()), "");
    std::fs::remove_file(claimer).unwrap();
}

/// A configuration with which a claimer ends at once.
fn short_arrival(host: &Host) -> PathBuf {
    let file = Path::new(&std::env::temp_dir()).join(format!("{}.toml", host.name));
    std::fs::write(&file, "[migration]\nsettle = \"1ms\"\ntimeout = \"1ms\"\n").unwrap();
    file
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_says_nothing_into_a_socket() {
    let host = Host::bare();
    for closed in CLOSED {
        let trace = Trace::new(&host);
        // What it says of the bridge that is not there is written somewhere, or nowhere, while all its sockets are open.
        let mut watch = Background(trace.command(&host, "watch", closed).spawn().unwrap());
        wait_for("the first look", 10, || trace.text().contains("bridge br-l2 does not exist"));
        let pids = host.ok(&format!("ip netns pids {}", host.name));
        let is_watch = |pid: &&str| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("tap32\0watch"))
        };
        for pid in pids.split_whitespace().filter(is_watch) {
            host.ok(&format!("kill -TERM {pid}"));
        }
        wait_for("its end", 10, || watch.0.try_wait().unwrap().is_some());
        assert_eq!(trace.written_to_sockets(), [""; 0], "{closed}");
    }
}
