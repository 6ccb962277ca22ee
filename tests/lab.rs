//! tap32 on two hosts in two racks with real libvirt, QEMU and FRR: `sudo tests/run` builds what it needs.
//!
//! One lab for all scenarios with OSPF and one for some with BGP, each judged by what the client behind the core
//! sees, and by `ip -j`, `virsh` and `vtysh`. `LAB_ONLY='life round'` runs those whose names hold one of the words.

mod common;
#[path = "lab/uplinks.rs"]
mod uplinks;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use common::{Background, SETTLED, TAP32, text, wait_for};
use serde_json::Value;

/// The bound: what a migration may cost beyond the guest's own downtime, in ms.
const BOUND: f64 = 60.0;

/// What BGP costs more: bgpd lets a route wait for 50 ms before it looks at it (bgp_process_queue_init), at the
/// host, the switch and the core. No command changes that in FRR 8.4.
const BGP_QUEUES: f64 = 3.0 * 50.0;

struct Lab {
    id: String,
    dir: PathBuf,
    fabric: &'static str,
}

impl Lab {
    /// With the fabric `ospf` or `bgp`.
    fn up(fabric: &'static str) -> Self {
        let id = std::process::id().to_string();
        let lab = Self { dir: PathBuf::from("/var/tmp/tap32-lab").join(&id), id, fabric };
        let mut up = Command::new("tests/lab/up");
        up.env("TAP32_LAB", &lab.id).env("TAP32_LAB_FABRIC", fabric).stdin(Stdio::null());
        assert!(up.status().unwrap().success(), "tests/lab/up");
        lab
    }

    /// Runs a line of bash with the lab's functions, which must succeed.
    fn sh(&self, line: &str) -> String {
        let (ok, out) = self.try_sh(line);
        assert!(ok, "{line}: {out}");
        out
    }

    fn try_sh(&self, line: &str) -> (bool, String) {
        let script = format!(". tests/lab/lib.sh; {line}");
        let output = Command::new("bash").args(["-c", &script]).env("TAP32_LAB", &self.id).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    fn node(&self, node: &str, line: &str) -> String {
        self.sh(&format!("in_node {node} {line}"))
    }

    fn json(&self, node: &str, line: &str) -> Value {
        let out = self.node(node, line);
        if out.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&out).unwrap() }
    }

    /// Metrics of our routes to an address on a host, sorted.
    fn owned(&self, host: &str, address: &str) -> Vec<u64> {
        let routes = self.json(host, &format!("ip -j route show proto 132 exact {address}/32"));
        let mut metrics: Vec<u64> = routes.as_array().unwrap().iter().map(|r| r["metric"].as_u64().unwrap()).collect();
        metrics.sort_unstable();
        metrics
    }

    /// Whether the core has a route to the address.
    fn in_fabric(&self, address: &str) -> bool {
        self.json("core", &format!("ip -j route show exact {address}/32")).as_array().is_some_and(|r| !r.is_empty())
    }

    /// How often a BFD session of any node has gone down since the lab came up.
    fn links_lost(&self) -> u64 {
        let count = |node: &&str| {
            let peers = self.sh(&format!("node_vtysh {node} -c 'show bfd peers counters json'"));
            let peers: Value = serde_json::from_str(&peers).unwrap();
            peers.as_array().unwrap().iter().map(|peer| peer["session-down"].as_u64().unwrap()).sum::<u64>()
        };
        ["core", "sw1a", "sw1b", "sw2a", "sw2b", "h1", "h2"].iter().map(count).sum()
    }

    fn claimers(&self, host: &str) -> usize {
        let pids = self.sh(&format!("ip netns pids $(ns {host})"));
        let claims = |pid: &&str| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).starts_with("tap32\0arrival"))
        };
        pids.split_whitespace().filter(claims).count()
    }

    fn virsh(&self, host: &str, line: &str) -> String {
        self.sh(&format!("lab_virsh {host} {line}"))
    }

    fn define(&self, host: &str, name: &str, address: &str, peer: &str) {
        self.sh(&format!("domain {name} {address} {peer} >$dir/{name}.xml; lab_virsh {host} define $dir/{name}.xml"));
    }

    fn console(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("{name}.console"))).unwrap_or_default()
    }

    fn answers(&self, address: &str) -> bool {
        self.try_sh(&format!("in_node client ping -c 1 -W 1 -I 172.31.0.1 {address}")).0
    }

    /// Starts a guest and waits until the client reaches it.
    fn start(&self, host: &str, name: &str, address: &str, peer: &str) {
        self.define(host, name, address, peer);
        self.virsh(host, &format!("start {name}"));
        wait_for(&format!("{name} answers"), 90, || self.answers(address));
    }

    /// Ends a guest, and everything about it must be gone everywhere.
    fn end(&self, host: &str, name: &str, address: &str) {
        self.try_sh(&format!("lab_virsh {host} destroy {name}"));
        for host in ["h1", "h2"] {
            self.try_sh(&format!("lab_virsh {host} undefine {name}"));
        }
        self.gone(address);
        let _ = std::fs::remove_file(self.dir.join(format!("{name}.console")));
    }

    fn gone(&self, address: &str) {
        wait_for(&format!("{address} is gone everywhere"), 20, || {
            ["h1", "h2"].iter().all(|host| self.owned(host, address).is_empty() && self.claimers(host) == 0)
                && !self.in_fabric(address)
        });
    }

    /// The command that moves a guest.
    fn migrate(&self, from: &str, name: &str, options: &str) -> String {
        let peer = if from == "h1" { "10.255.1.2" } else { "10.255.1.1" };
        format!(
            "lab_virsh {from} migrate --live --unsafe --persistent {options} {name} qemu+tcp://{peer}/system tcp://{peer}"
        )
    }

    /// The guest's own downtime in ms of the migration that `host` was the source of.
    fn downtime(&self, host: &str, name: &str) -> f64 {
        let info = self.virsh(host, &format!("domjobinfo {name} --completed"));
        let line = info.lines().find(|line| line.starts_with("Total downtime:")).unwrap_or_else(|| panic!("{info}"));
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("tests/lab/down").env("TAP32_LAB", &self.id).status();
    }
}

/// The 16 flows, from `new` to `stop`.
struct Probe(Child);

impl Probe {
    fn new(lab: &Lab, address: &str) -> Self {
        let probe = PathBuf::from(TAP32).with_file_name("examples").join("probe");
        assert!(probe.exists(), "{}", probe.display());
        let mut command = Command::new("ip");
        // Ahead of the guests: a late echo would look like a lost one.
        command.args(["netns", "exec", &format!("tap32lab-{}-client", lab.id), "nice", "-n", "-10"]);
        command.arg(probe).arg(address).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn stop(mut self) -> Value {
        drop(self.0.stdin.take());
        serde_json::from_slice(&self.0.wait_with_output().unwrap().stdout).unwrap()
    }
}

/// One migration under load.
struct Hop {
    gap: f64,
    downtime: f64,
    window: f64,
    lost: Vec<f64>,
}

impl Hop {
    fn beyond(&self) -> f64 {
        self.gap - self.downtime
    }
}

/// Whether a guest's kernel says that it broke. Under TCG it now and then does after a migration ("list_add
/// corruption", LAB.md knows it too): no fault of the routes, and tried again at most twice.
fn crashed(console: &str) -> bool {
    ["Kernel panic", "kernel BUG", "Oops"].iter().any(|word| console.contains(word))
}

/// Moves a running guest under load and watches until `after` seconds later; `None` if the guest crashed, or if a
/// link was lost: this machine's two cores sometimes starve a BFD for its 200 ms, which is not what is measured.
fn hop(lab: &Lab, from: &str, name: &str, address: &str, after: u64) -> Option<Hop> {
    let links_lost = lab.links_lost();
    let probe = Probe::new(lab, address);
    sleep(1);
    lab.sh(&lab.migrate(from, name, ""));
    let downtime = lab.downtime(from, name);
    sleep(after);
    let seen = probe.stop();
    if crashed(&lab.console(name)) {
        println!("    the guest crashed after a migration under TCG");
        return None;
    }
    if lab.links_lost() != links_lost {
        println!("    BFD lost a link meanwhile; packets lost at {:.0?} ms", spans(&lost_times(&seen)));
        return None;
    }
    let number = |key: &str| seen[key].as_f64().unwrap();
    Some(Hop { gap: number("longest_gap_ms"), downtime, window: number("window_ms"), lost: lost_times(&seen) })
}

/// When, in ms since the probe's start, each lost echo was sent.
fn lost_times(seen: &Value) -> Vec<f64> {
    seen["lost"].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect()
}

/// From when to when packets were lost, without a break of more than two echoes.
fn spans(lost: &[f64]) -> Vec<(f64, f64)> {
    let mut spans: Vec<(f64, f64)> = Vec::new();
    for &time in lost {
        match spans.last_mut() {
            Some((_, until)) if time - *until <= 25.0 => *until = time,
            _ => spans.push((time, time)),
        }
    }
    spans
}

/// The load runs for a while, on purpose: there is no state to wait for.
fn sleep(seconds: u64) {
    std::thread::sleep(std::time::Duration::from_secs(seconds));
}

fn other(host: &str) -> &'static str {
    if host == "h1" { "h2" } else { "h1" }
}

fn life(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    assert!(lab.in_fabric("10.0.0.10"));
    lab.end("h1", "g1", "10.0.0.10");
}

fn sigkill_of_qemu(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.node("h1", "pkill -9 -f guest=g[1],");
    lab.gone("10.0.0.10");
    lab.end("h1", "g1", "10.0.0.10");
}

fn libvirtd_restarted(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.sh("kill -9 $(cat $dir/h1/libvirt/pid); rm -f $dir/h1/libvirt/pid");
    // Meanwhile somebody loses the route.
    lab.node("h1", "ip route flush proto 132");
    lab.sh("libvirtd_start h1; until_true 30 libvirtd lab_virsh h1 list");
    wait_for("reconnect repairs", 20, || lab.owned("h1", "10.0.0.10") == [SETTLED] && lab.answers("10.0.0.10"));
    assert!(lab.virsh("h1", "domstate g1").contains("running"));
    lab.end("h1", "g1", "10.0.0.10");
}

fn a_refused_mac(lab: &Lab) {
    lab.sh("domain g8 10.0.0.10 | sed s/02:42:0a:00:00:0a/02:42:08:08:08:08/ >$dir/g8.xml; lab_virsh h1 define $dir/g8.xml");
    let (started, said) = lab.try_sh("lab_virsh h1 start g8");
    assert!(!started && said.contains("8.8.8.8 (guest MAC 02:42:08:08:08:08) is outside the prefixes"), "{said}");
    println!("    {}", said.trim().replace('\n', " "));
    lab.virsh("h1", "undefine g8");
    lab.gone("8.8.8.8");
}

/// Sequence numbers of the answers that a guest's own ping printed.
fn answered(console: &str) -> Vec<u64> {
    console.lines().filter_map(|line| line.split("seq=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
}

fn guests_of_one_subnet_reach_each_other(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.start("h1", "g2", "10.0.0.11", "10.0.0.10");
    lab.start("h2", "g3", "10.0.0.12", "10.0.0.10");
    for guest in ["g2", "g3"] {
        wait_for(&format!("{guest} reaches g1"), 30, || answered(&lab.console(guest)).len() > 10);
    }
    lab.end("h1", "g2", "10.0.0.11");
    lab.end("h2", "g3", "10.0.0.12");
    lab.end("h1", "g1", "10.0.0.10");
}

/// `type='ethernet'`: libvirt runs our scripts, with the tap's own MAC as the only hint.
fn ethernet_with_scripts(lab: &Lab) {
    lab.sh("for name in qemu-ifup qemu-ifdown; do ln -sf $tap32 $dir/$name; done");
    let scripts = "<script path='$dir/qemu-ifup'/><downscript path='$dir/qemu-ifdown'/>";
    lab.sh(&format!(
        "domain g1 10.0.0.10 | sed \"s|interface type='bridge'|interface type='ethernet'|; s|<source bridge.*|{scripts}|\" \
         >$dir/g1.xml; lab_virsh h1 define $dir/g1.xml"
    ));
    lab.virsh("h1", "start g1");
    wait_for("g1 answers", 90, || lab.answers("10.0.0.10"));
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    lab.end("h1", "g1", "10.0.0.10");
}

/// QEMU's monitor.
struct Monitor {
    stream: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Monitor {
    fn open(lab: &Lab, host: &str) -> Self {
        let stream = BufReader::new(UnixStream::connect(lab.dir.join(format!("{host}.qmp"))).unwrap());
        stream.get_ref().set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut monitor = Self { stream, events: Vec::new() };
        monitor.execute(&serde_json::json!({ "execute": "qmp_capabilities" }));
        monitor
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["event"].is_string() {
            self.events.push(message.clone());
        }
        message
    }

    fn execute(&mut self, command: &Value) -> Value {
        self.stream.get_mut().write_all(format!("{command}\n").as_bytes()).unwrap();
        loop {
            let message = self.read();
            assert!(message["error"].is_null(), "{command}: {message}");
            if !message["return"].is_null() {
                return message["return"].clone();
            }
        }
    }

    /// Ends QEMU; `false` if it had ended by itself, as it does when its guest panics (-no-reboot, panic=-1).
    fn quit(mut self) -> bool {
        let quit = serde_json::json!({ "execute": "quit" });
        let sent = self.stream.get_mut().write_all(format!("{quit}\n").as_bytes()).is_ok();
        let mut rest = String::new();
        let _ = std::io::Read::read_to_string(&mut self.stream, &mut rest);
        sent && rest.contains("\"return\"")
    }

    /// When an event came, in ms of the host's clock; waits for it.
    fn time_of(&mut self, event: &str) -> f64 {
        loop {
            if let Some(found) = self.events.iter().find(|found| found["event"] == event) {
                let stamp = |key: &str| found["timestamp"][key].as_f64().unwrap();
                return stamp("seconds") * 1e3 + stamp("microseconds") / 1e3;
            }
            self.read();
        }
    }
}

/// No libvirt: QEMU calls its scripts, and the destination's `-incoming` is what tells an arrival.
fn plain_qemu_incoming(lab: &Lab) {
    lab.sh("for name in qemu-ifup qemu-ifdown; do ln -sf $tap32 $dir/$name; done");
    let start = |host: &str, more: &str| {
        let guest = "-accel tcg -machine pc -cpu Nehalem -m 128 -display none -no-reboot \
             -kernel $lab/vmlinuz -initrd $lab/initrd.gz \
             -append 'console=ttyS0 quiet panic=-1 addr=10.0.0.10/24 gw=10.0.0.1' \
             -netdev tap,id=n0,ifname=vnet0,script=$dir/qemu-ifup,downscript=$dir/qemu-ifdown \
             -device virtio-net-pci,ioeventfd=off,netdev=n0,romfile=,mac=02:42:0a:00:00:0a";
        let serial = format!("-serial file:$dir/{host}.serial -qmp unix:$dir/{host}.qmp,server=on,wait=off");
        lab.sh(&format!("in_node {host} qemu-system-x86_64 {guest} {serial} {more} -daemonize"));
    };
    let execute = |command: &str| serde_json::json!({ "execute": command });
    let hop = || {
        start("h1", "");
        wait_for("the guest answers", 90, || lab.answers("10.0.0.10"));
        start("h2", "-incoming tcp:0:4444");
        assert_eq!((lab.owned("h2", "10.0.0.10"), lab.claimers("h2")), (vec![SETTLED], 1));
        let (mut source, mut destination) = (Monitor::open(lab, "h1"), Monitor::open(lab, "h2"));
        let probe = Probe::new(lab, "10.0.0.10");
        sleep(1);
        source.execute(&serde_json::json!({ "execute": "migrate", "arguments": { "uri": "tcp:10.255.1.2:4444" } }));
        wait_for("the migration completes", 60, || source.execute(&execute("query-migrate"))["status"] == "completed");
        // What QEMU itself calls downtime (2 ms here) ends at the source; the guest's ends when it runs again.
        let downtime = destination.time_of("RESUME") - source.time_of("STOP");
        // A second later the source cleans up, then the claim settles.
        sleep(1);
        assert!(source.quit());
        sleep(12);
        let seen = probe.stop();
        let settled = lab.owned("h2", "10.0.0.10") == [SETTLED] && lab.claimers("h2") == 0;
        // Asked from its own host, without the fabric: a guest that hangs is no fault of the routes either.
        let alive = lab.try_sh("in_node h2 ping -c 3 -W 1 10.0.0.10").0;
        let survived = destination.quit() && alive && !crashed(&lab.sh("cat $dir/h2.serial"));
        lab.gone("10.0.0.10");
        if !survived {
            println!("    the guest crashed after a migration under TCG");
            return None;
        }
        assert!(settled);
        let number = |key: &str| seen[key].as_f64().unwrap();
        Some(Hop { gap: number("longest_gap_ms"), downtime, window: number("window_ms"), lost: lost_times(&seen) })
    };
    within_bound(lab, || {
        let hop = (0..3).find_map(|_| hop()).expect("the guest crashed three times");
        println!("    gap {:.0} ms, the guest's own downtime {:.0} ms", hop.gap, hop.downtime);
        vec![hop]
    });
}

/// h1 to h2 and back, and what each hop cost.
fn there_and_back(lab: &Lab, mode: &str, after: u64) -> Vec<Hop> {
    lab.sh(&format!("hook_mode {mode}"));
    let mut hops = Vec::new();
    for _ in 0..3 {
        hops.clear();
        lab.start("h1", "g1", "10.0.0.10", "");
        for from in ["h1", "h2"] {
            match hop(lab, from, "g1", "10.0.0.10", after) {
                Some(hop) => hops.push(hop),
                None => break,
            }
        }
        let at = if lab.try_sh("lab_virsh h1 domstate g1").1.contains("running") { "h1" } else { "h2" };
        if mode == "seed" {
            lab.try_sh(&format!("lab_virsh {at} destroy g1; lab_virsh h1 undefine g1; lab_virsh h2 undefine g1"));
            wait_for("the seed's routes are gone", 20, || !lab.in_fabric("10.0.0.10"));
            let _ = std::fs::remove_file(lab.dir.join("g1.console"));
        } else {
            lab.end(at, "g1", "10.0.0.10");
        }
        if hops.len() == 2 {
            break;
        }
    }
    lab.sh("hook_mode tap32");
    assert_eq!(hops.len(), 2, "the guest crashed, or BFD lost a link, three times");
    for hop in &hops {
        println!("    {mode:<6} gap {:4.0} ms, the guest's own downtime {:3.0} ms", hop.gap, hop.downtime);
    }
    hops
}

/// All hops of a round within the bound, and all that was lost lost in one gap: not before the switch-over, not
/// when the claim is demoted. Of the bound's 60 ms tap32 takes half a millisecond (`ip -ts monitor`: first frame
/// 48.8077 s, claim 48.8082 s, the core's route 48.8295 and 48.8404 s); the rest is six FRRs on two cores that
/// they share with the guests, so a round that misses it is measured again, at most twice.
fn within_bound(lab: &Lab, mut round: impl FnMut() -> Vec<Hop>) {
    let bound = if lab.fabric == "bgp" { BOUND + BGP_QUEUES } else { BOUND };
    for last in [false, false, true] {
        let hops = round();
        for hop in &hops {
            // Two paths may switch an echo apart.
            assert!(
                hop.window <= hop.gap + 20.0,
                "longest gap {} ms, but lost at {:.0?} ms",
                hop.gap,
                spans(&hop.lost)
            );
        }
        let worst = hops.iter().map(Hop::beyond).fold(0.0, f64::max);
        if worst <= bound {
            return;
        }
        println!("    {worst:.0} ms over the guest's own downtime");
        assert!(!last, "three rounds over {bound} ms");
    }
}

fn live_migration_under_load(lab: &Lab) {
    // Until after the claim is demoted, 10 s.
    within_bound(lab, || there_and_back(lab, "tap32", 13));
}

fn live_migration_with_a_late_source(lab: &Lab) {
    within_bound(lab, || there_and_back(lab, "late", 3));
}

fn the_table_of_the_three_ways(lab: &Lab) {
    let ways = [("seed", "the seed's way"), ("yield", "yielding only"), ("tap32", "with claim")];
    let mut table = String::from("way             gap    guest's downtime\n");
    let mut lost = Vec::new();
    for (mode, name) in ways {
        let hops = there_and_back(lab, mode, 3);
        for hop in &hops {
            table.push_str(&format!("{name:<14} {:5.0} ms {:5.0} ms\n", hop.gap, hop.downtime));
        }
        lost.push((name, hops.into_iter().next().unwrap().lost));
    }
    println!("{table}");
    picture(lab, &lost);
}

/// Packets lost over time during one migration, the three ways under each other.
fn picture(lab: &Lab, ways: &[(&str, Vec<f64>)]) {
    // Each way's first loss at one second.
    let mut script = String::from(
        "set terminal svg size 900,480 font 'sans,13' background '#ffffff'\nset multiplot layout 3,1\n\
         set xrange [0:5]\nset yrange [0:17]\nset ytics 0,8,16\nset style fill solid\nunset key\n",
    );
    for (number, (name, lost)) in ways.iter().enumerate() {
        let first = lost.first().copied().unwrap_or(0.0);
        let mut bins = vec![0; 500];
        for time in lost {
            let bin = ((time - first + 1000.0) / 10.0) as usize;
            if let Some(bin) = bins.get_mut(bin) {
                *bin += 1;
            }
        }
        let file = lab.dir.join(format!("lost{number}"));
        let lines: String = bins.iter().enumerate().map(|(bin, n)| format!("{} {n}\n", bin as f64 / 100.0)).collect();
        std::fs::write(&file, lines).unwrap();
        script.push_str(&format!(
            "set title \"{name}: {} of the echoes lost\" left\n{}plot '{}' with boxes lc rgb '#c03030'\n",
            lost.len(),
            if number == 2 { "set xlabel 'seconds; height: how many of 16 flows lost their packet'\n" } else { "" },
            file.display()
        ));
    }
    let mut gnuplot = Command::new("gnuplot").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gnuplot.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let svg = gnuplot.wait_with_output().unwrap().stdout;
    assert!(text(&svg).contains("<svg"), "gnuplot drew nothing");
    std::fs::write("target/lab/migration.svg", svg).unwrap();
    println!("    target/lab/migration.svg");
}

fn a_neighbour_on_the_bridge_notices_nothing(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.start("h1", "g2", "10.0.0.11", "10.0.0.10");
    wait_for("they talk", 30, || answered(&lab.console("g2")).len() > 20);
    lab.sh(&lab.migrate("h1", "g1", ""));
    let before = answered(&lab.console("g2")).len();
    wait_for("they talk again", 20, || answered(&lab.console("g2")).len() > before + 30);
    let sequence = answered(&lab.console("g2"));
    let missed = sequence.windows(2).map(|pair| pair[1] - pair[0] - 1).max().unwrap();
    println!("    {missed} pings in a row without an answer, one each 100 ms");
    assert!(missed < 10, "{missed}");
    lab.end("h1", "g2", "10.0.0.11");
    lab.end("h2", "g1", "10.0.0.10");
}

fn three_times_round(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    for from in ["h1", "h2", "h1"] {
        let to = other(from);
        lab.sh(&lab.migrate(from, "g1", ""));
        wait_for("settled", 30, || lab.owned(to, "10.0.0.10") == [SETTLED] && lab.claimers(to) == 0);
        assert!(lab.owned(from, "10.0.0.10").is_empty() && lab.claimers(from) == 0);
        wait_for("one host announces it", 10, || announcers(lab, "10.0.0.10") == 1);
        assert!(lab.answers("10.0.0.10"), "{}", lab.console("g1"));
    }
    lab.end("h2", "g1", "10.0.0.10");
}

/// How many hosts announce the address, as the core hears it.
fn announcers(lab: &Lab, address: &str) -> usize {
    if lab.fabric == "bgp" {
        let paths = lab.sh(&format!("node_vtysh core -c 'show bgp ipv4 unicast {address}/32 json'"));
        let paths: Value = serde_json::from_str(&paths).unwrap();
        // A path ends with the AS in which it began.
        let origin = |path: &Value| path["aspath"]["string"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
        return paths["paths"].as_array().into_iter().flatten().map(origin).collect::<BTreeSet<_>>().len();
    }
    // An LSA of 3600 s is on its way out.
    let database = lab.sh(&format!("node_vtysh core -c 'show ip ospf database external {address}'"));
    let lsas = database.split("LS age: ").skip(1);
    lsas.filter(|lsa| !lsa.starts_with("3600") && lsa.contains("Advertising Router: 10.255.1.")).count()
}

/// The route map on `redistribute kernel`, judged by what the core gets.
fn only_guests_are_announced(lab: &Lab) {
    let others = [
        ("10.9.9.9/32", "dev br-l2"),
        ("10.0.0.128/25", "dev br-l2"),
        ("10.0.0.77/32", "via 10.47.11.1"),
        ("10.0.0.78/32", "dev lo"),
    ];
    for (prefix, way) in others {
        lab.node("h1", &format!("ip route add {prefix} {way} proto 132"));
    }
    lab.node("h1", &format!("ip route add 10.0.0.66/32 dev br-l2 proto 132 scope link metric {SETTLED}"));
    wait_for("the guest's route", 10, || lab.in_fabric("10.0.0.66"));
    for (prefix, way) in others {
        let routes = lab.json("core", &format!("ip -j route show exact {prefix}"));
        assert!(routes.as_array().is_some_and(Vec::is_empty), "{prefix} {way}: {routes}");
        lab.node("h1", &format!("ip route del {prefix} {way} proto 132"));
    }
    lab.node("h1", "ip route del 10.0.0.66/32 dev br-l2 proto 132");
    lab.gone("10.0.0.66");
}

/// What a switch hears from a host is the host's own, whatever the host heard from the other switch.
fn a_host_is_never_transit(lab: &Lab) {
    lab.start("h2", "g1", "10.0.0.10", "");
    let heard = |switch: &str, host: &str| {
        let show = format!("node_vtysh {switch} -c 'show bgp ipv4 unicast neighbors {host} routes json'");
        let routes: Value = serde_json::from_str(&lab.sh(&show)).unwrap();
        routes["routes"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert!(lab.node("h1", "ip route show 10.0.0.10").contains("via 10.47.12.1"));
    assert_eq!(heard("sw1a", "10.47.11.2"), ["10.255.1.1/32"]);
    assert_eq!(heard("sw2a", "10.47.21.2"), ["10.0.0.10/32", "10.255.1.2/32"]);
    lab.end("h2", "g1", "10.0.0.10");
}

fn a_cancelled_migration(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    let probe = Probe::new(lab, "10.0.0.10");
    let mut virsh = {
        let script = format!(". tests/lab/lib.sh; {}", lab.migrate("h1", "g1", "--bandwidth 2"));
        Command::new("bash").args(["-c", &script]).env("TAP32_LAB", &lab.id).spawn().unwrap()
    };
    wait_for("the destination has the tap and its route", 20, || lab.owned("h2", "10.0.0.10") == [SETTLED]);
    assert_eq!(lab.claimers("h2"), 1);
    sleep(2);
    lab.virsh("h1", "domjobabort g1");
    assert!(!virsh.wait().unwrap().success());
    wait_for("the destination is clean", 20, || lab.owned("h2", "10.0.0.10").is_empty() && lab.claimers("h2") == 0);
    assert_eq!(lab.json("h2", "bridge -j link show").as_array().unwrap().len(), 0);
    let seen = probe.stop();
    assert_eq!(seen["lost_count"], 0, "of {}", seen["sent"]);
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    println!("    0 of {} packets lost", seen["sent"]);
    lab.end("h1", "g1", "10.0.0.10");
}

fn a_second_guest_with_a_taken_address(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    let probe = Probe::new(lab, "10.0.0.10");
    lab.define("h2", "g9", "10.0.0.10", "");
    lab.virsh("h2", "start g9");
    wait_for("the second guest runs", 60, || lab.console("g9").contains("is up"));
    let shadowed = || {
        let status: Value = serde_json::from_str(&lab.node("h2", &format!("{TAP32} status --json"))).unwrap();
        let tap = &status["taps"][0];
        (tap["route"] == "shadowed").then(|| tap["next_hop"].as_str().unwrap().to_owned())
    };
    wait_for("shadowed", 10, || shadowed().is_some());
    println!("    shadowed by the host behind {}", shadowed().unwrap());
    assert_eq!(announcers(lab, "10.0.0.10"), 1);
    lab.try_sh("lab_virsh h2 destroy g9; lab_virsh h2 undefine g9");
    wait_for("h2 is clean", 10, || lab.owned("h2", "10.0.0.10").is_empty());
    let seen = probe.stop();
    assert_eq!(seen["lost_count"], 0, "of {}", seen["sent"]);
    println!("    0 of {} packets of the first guest lost", seen["sent"]);
    let _ = std::fs::remove_file(lab.dir.join("g9.console"));
    lab.end("h1", "g1", "10.0.0.10");
}

/// What libvirt's hooks miss, `watch` sees: NICs plugged into a running guest and out of it, a QEMU that is killed,
/// a guest that dies while no daemon runs.
fn watch_sees_what_hooks_miss(lab: &Lab) {
    let mut watch = Command::new("ip");
    watch.args(["netns", "exec", &format!("tap32lab-{}-h1", lab.id), TAP32, "watch"]);
    let _watch = Background(watch.stderr(Stdio::null()).spawn().unwrap());
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.sh("$tap32 render libvirt 10.0.0.11 >$dir/nic.xml");
    lab.virsh("h1", "attach-device g1 $dir/nic.xml --live");
    let plugged = Instant::now();
    wait_for("the plugged NIC has its route", 10, || lab.owned("h1", "10.0.0.11") == [SETTLED]);
    println!("    attach-device: routed {} ms after virsh", plugged.elapsed().as_millis());
    wait_for("the fabric has it", 10, || lab.in_fabric("10.0.0.11"));
    lab.virsh("h1", "detach-device g1 $dir/nic.xml --live");
    lab.gone("10.0.0.11");
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);

    // The hook has no hand in this: the daemon is not there.
    lab.sh("kill -9 $(cat $dir/h1/libvirt/pid); rm -f $dir/h1/libvirt/pid");
    lab.node("h1", "pkill -9 -f guest=g[1],");
    let killed = Instant::now();
    wait_for("the dead guest's route is gone", 10, || lab.owned("h1", "10.0.0.10").is_empty());
    println!("    QEMU killed while libvirtd is down: withdrawn {} ms later", killed.elapsed().as_millis());
    lab.gone("10.0.0.10");
    lab.sh("libvirtd_start h1; until_true 30 libvirtd lab_virsh h1 list");
    lab.end("h1", "g1", "10.0.0.10");

    lab.start("h1", "g1", "10.0.0.10", "");
    lab.node("h1", "pkill -9 -f guest=g[1],");
    let killed = Instant::now();
    wait_for("the killed guest's route is gone", 10, || lab.owned("h1", "10.0.0.10").is_empty());
    println!("    QEMU killed: withdrawn {} ms later", killed.elapsed().as_millis());
    lab.end("h1", "g1", "10.0.0.10");
}

type Scenario = (&'static str, fn(&Lab));

const SCENARIOS: &[Scenario] = &[
    ("life", life),
    ("only_guests_are_announced", only_guests_are_announced),
    ("sigkill_of_qemu", sigkill_of_qemu),
    ("libvirtd_restarted", libvirtd_restarted),
    ("a_refused_mac", a_refused_mac),
    ("guests_of_one_subnet_reach_each_other", guests_of_one_subnet_reach_each_other),
    ("ethernet_with_scripts", ethernet_with_scripts),
    ("live_migration_under_load", live_migration_under_load),
    ("live_migration_with_a_late_source", live_migration_with_a_late_source),
    ("plain_qemu_incoming", plain_qemu_incoming),
    ("the_table_of_the_three_ways", the_table_of_the_three_ways),
    ("a_neighbour_on_the_bridge_notices_nothing", a_neighbour_on_the_bridge_notices_nothing),
    ("three_times_round", three_times_round),
    ("a_cancelled_migration", a_cancelled_migration),
    ("a_second_guest_with_a_taken_address", a_second_guest_with_a_taken_address),
    ("watch_sees_what_hooks_miss", watch_sees_what_hooks_miss),
];

/// What the fabric has a part in, again with BGP.
const WITH_BGP: &[Scenario] = &[
    ("life", life),
    ("only_guests_are_announced", only_guests_are_announced),
    ("a_host_is_never_transit", a_host_is_never_transit),
    ("live_migration_under_load", live_migration_under_load),
    ("live_migration_with_a_late_source", live_migration_with_a_late_source),
    ("three_times_round", three_times_round),
    ("a_cancelled_migration", a_cancelled_migration),
    ("a_second_guest_with_a_taken_address", a_second_guest_with_a_taken_address),
];

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lab() {
    run("ospf", &[SCENARIOS, uplinks::SCENARIOS].concat());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lab_with_bgp() {
    run("bgp", &[WITH_BGP, uplinks::SCENARIOS].concat());
}

/// One lab at a time: they would take each other's cores.
static LAB: Mutex<()> = Mutex::new(());

fn run(fabric: &'static str, scenarios: &[Scenario]) {
    let _one = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    // Words, of which a scenario's name holds one.
    let only = std::env::var("LAB_ONLY").unwrap_or_default();
    let chosen = |name: &str| only.is_empty() || only.split(' ').any(|word| name.contains(word));
    let lab = Lab::up(fabric);
    let mut failed = Vec::new();
    for (name, scenario) in scenarios.iter().filter(|(name, _)| chosen(name)) {
        println!("lab, {fabric}: {name}");
        let start = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| scenario(&lab)));
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("lab, {fabric}: {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
        if result.is_err() {
            failed.push(*name);
            // The next scenario starts clean.
            lab.try_sh("for h in $hosts; do for g in g1 g2 g3 g9; do lab_virsh $h destroy $g; lab_virsh $h undefine $g; done; in_node $h ip route flush proto 132; done; rm -f $dir/*.console");
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}
