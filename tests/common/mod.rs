//! What the tests with a real kernel share: a network namespace that goes when the test ends, programs run
//! in it, and the judges (`ip -j`, `bridge -j`), which are never tap32 itself.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod case;
pub mod dhcp;
pub mod forward;
pub mod guard;
pub mod hooks;
pub mod qemu;
pub mod setup;
pub mod slow;
pub mod view;
pub mod watch;
pub mod wire;

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const TAP32: &str = env!("CARGO_BIN_EXE_tap32");

/// The guest of 10.0.0.10.
pub const GUEST: &str = "02:42:0a:00:00:0a";

/// The route of 10.0.0.10 once it has settled.
pub const SETTLED: u64 = 4_026_531_940;

/// A settled route through br-l2, as `Host::owned` has it.
pub fn settled(address: &str) -> (String, String, u64) {
    (address.into(), "br-l2".into(), SETTLED)
}

/// A namespace with the bridge br-l2 on 10.0.0.1/24, as `tap32 setup` leaves it; gone when dropped.
pub struct Host {
    pub name: String,
}

impl Host {
    pub fn new() -> Self {
        let host = Self::bare();
        host.add_bridge();
        host
    }

    /// br-l2, where there is none.
    pub fn add_bridge(&self) {
        self.ok("ip link add br-l2 address 02:00:00:00:00:01 type bridge");
        self.ok("ip addr add 10.0.0.1/24 dev br-l2");
        self.ok("ip link set br-l2 up");
        self.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp_pvlan=1");
    }

    /// A namespace with a loopback and nothing else.
    pub fn bare() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tap32-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
        assert!(made.status.success(), "ip netns add: {} (these tests need root: sudo tests/run)", text(&made.stderr));
        let host = Self { name };
        host.ok("ip link set lo up");
        host
    }

    /// A program that will run in this namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        // A backtrace that anyhow takes is never shown, and a developer's shell may ask for one.
        command.env_remove("RUST_BACKTRACE").env_remove("TAP32_CONFIG");
        command
    }

    /// Waits until the bridge forwards what comes from a tap.
    pub fn port_forwards(&self, tap: &str) {
        wait_for("the port forwards", 5, || {
            let ports = self.json("bridge -j link show");
            ports.as_array().unwrap().iter().any(|port| port["ifname"] == tap && port["state"] == "forwarding")
        });
    }

    /// Runs a line of words; no quoting.
    pub fn run(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        self.command(words.next().unwrap()).args(words).output().unwrap()
    }

    /// Runs a line that must succeed, and returns its stdout.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs lines for a shell, of which each must succeed, and returns their stdout.
    pub fn sh(&self, line: &str) -> String {
        let output = self.command("sh").args(["-ec", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs tap32, which must succeed and say nothing on stderr.
    pub fn tap32(&self, arguments: &str) -> String {
        let output = self.run(&format!("{TAP32} {arguments}"));
        assert!(output.status.success(), "tap32 {arguments}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "tap32 {arguments}");
        text(&output.stdout)
    }

    /// Runs tap32, which must fail with one line; returns the line.
    pub fn refused(&self, arguments: &str) -> String {
        let output = self.run(&format!("{TAP32} {arguments}"));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "tap32 {arguments}: {said}");
        assert_eq!(text(&output.stdout), "", "tap32 {arguments}");
        assert_eq!(said.lines().count(), 1, "{said}");
        said
    }

    /// What `tap32 status --json` says; never the only judge.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.tap32("status --json")).unwrap()
    }

    pub fn json(&self, line: &str) -> Value {
        let out = self.ok(line);
        if out.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&out).unwrap() }
    }

    /// Lines for `ip -batch`.
    pub fn batch(&self, lines: &str) {
        let file = std::env::temp_dir().join(format!("{}-batch", self.name));
        std::fs::write(&file, lines).unwrap();
        self.ok(&format!("ip -batch {}", file.display()));
        std::fs::remove_file(&file).unwrap();
    }

    pub fn add_tap(&self, name: &str) {
        self.ok(&format!("ip tuntap add {name} mode tap"));
    }

    /// One interface as `ip -j -d link` has it; null if there is none.
    pub fn link(&self, name: &str) -> Value {
        let all = self.json("ip -j -d link show");
        all.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned().unwrap_or_default()
    }

    /// Main-table routes with our protocol number, as (destination, device, metric), sorted.
    pub fn owned(&self) -> Vec<(String, String, u64)> {
        let mut routes: Vec<_> = self
            .json("ip -j route show table main proto 132")
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (string(&r["dst"]), string(&r["dev"]), r["metric"].as_u64().unwrap_or(0)))
            .collect();
        routes.sort();
        routes
    }

    /// All that tap32 could change: to be compared before and after what must change nothing. Without what the
    /// kernel itself changes a moment later (carrier, operational state, IPv6 addresses and their routes once no other node
    /// has them, addrconf_dad_completed) or never takes back (the first qdisc).
    pub fn state(&self) -> String {
        const FILTERS: &str = "for dev in $(ls /sys/class/net); do echo $dev; tc filter show dev $dev ingress; done; \
             tc qdisc show | sed -nE '/clsact|ingress/p'; ip neigh show nud permanent";
        let all = self.ok("ip -o link show") + &self.ok("ip route show table all") + &self.ok("bridge -d link show");
        let all = all + &self.sh(FILTERS);
        let states = ["UP", "DOWN", "LOWERLAYERDOWN", "UNKNOWN", "disabled", "forwarding"];
        let qdiscs = ["noop", "pfifo_fast", "fq_codel", "noqueue"];
        let passing = states.map(|state| format!("state {state} ")).into_iter();
        let passing = passing.chain(qdiscs.map(|qdisc| format!("qdisc {qdisc} ")));
        let passing = passing.chain(["NO-CARRIER,", ",LOWER_UP", "linkdown "].map(str::to_owned));
        let all = passing.fold(all, |text, word| text.replace(&word, ""));
        // The kernel adds it once duplicate address detection is through, a second or two after a link went up.
        all.lines().filter(|line| !line.starts_with("local fe80:")).collect::<Vec<_>>().join("\n")
    }

    pub fn isolated(&self, tap: &str) -> bool {
        let ports = self.json("bridge -j -d link show");
        ports.as_array().unwrap().iter().any(|port| port["ifname"] == tap && port["isolated"] == true)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let pids = Command::new("ip").args(["netns", "pids", &self.name]).output();
        for pid in pids.map(|output| text(&output.stdout)).unwrap_or_default().split_whitespace() {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A program in the background, killed when dropped.
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tap that goes with the process that has it open, as QEMU's does, before anything else is done with it.
pub fn owned_tap(host: &Host, tap: &str) -> Background {
    const OWNER: &str = "import fcntl, os, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
sys.stdin.read()
";
    let mut python = host.command("python3");
    let owner = Background(python.args(["-c", OWNER, tap]).stdin(Stdio::piped()).spawn().unwrap());
    wait_for("the tap", 5, || !host.link(tap).is_null());
    owner
}

/// What QEMU is to the kernel: a process that has the tap open, and through which the guest's frames come.
pub struct Guest(Background);

impl Guest {
    /// A broadcast frame for each MAC on stdin, as a guest announces itself after a migration (RARP).
    const SCRIPT: &str = "import fcntl, os, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
for line in sys.stdin:
    os.write(tap, b'\\xff' * 6 + bytes.fromhex(line.strip().replace(':', '')) + b'\\x80\\x35' + bytes(46))
";

    pub fn open(host: &Host, tap: &str) -> Self {
        let guest = Self::open_unbridged(host, tap);
        host.port_forwards(tap);
        guest
    }

    /// Behind a tap that is on no bridge.
    pub fn open_unbridged(host: &Host, tap: &str) -> Self {
        let mut python = host.command("python3");
        let child = python.args(["-c", Self::SCRIPT, tap]).stdin(Stdio::piped()).spawn().unwrap();
        let guest = Self(Background(child));
        wait_for("the tap is open", 5, || {
            host.link(tap)["flags"].as_array().unwrap().iter().any(|flag| flag == "LOWER_UP")
        });
        guest
    }

    pub fn frame_from(&mut self, mac: &str) {
        self.0.0.stdin.as_mut().unwrap().write_all(format!("{mac}\n").as_bytes()).unwrap();
    }
}

/// The lines of `ip -batch` that make `count` taps on br-l2, from 10.0.1.0 on.
pub fn crowd(count: u32) -> String {
    let tap = |i: u32| {
        let mac = format!("fe:42:0a:00:{:02x}:{:02x}", 1 + i / 250, i % 250);
        format!("tuntap add many{i} mode tap\nlink set many{i} address {mac} master br-l2 up\n")
    };
    (0..count).map(tap).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Polls until `done`, for at most `seconds`; longer where a busy machine gives no time to look: a process that is
/// waited for gets none either.
pub fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    // On a machine with nothing else to do it is twice as often (measured, `ip -j link`).
    const LOOKS_A_SECOND: u64 = 20;
    const LONGEST: u32 = 4;
    let (start, limit) = (Instant::now(), slow::limit(Duration::from_secs(seconds)));
    let mut looks = 0;
    while !done() {
        looks += 1;
        let waited = start.elapsed();
        let is_over = waited >= limit && (looks >= seconds * LOOKS_A_SECOND || waited >= limit * LONGEST);
        assert!(!is_over, "{what}: not within {waited:.0?}, in {looks} looks");
        std::thread::sleep(Duration::from_millis(10));
    }
}
