//! Scenarios of live migration: what it costs, and what it leaves behind.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{SETTLED, text, wait_for};
use crate::harness::{Lab, Probe, announcers, answered, crashed, sleep};
use crate::hop::{AFTER, Hop, SETTLE, bound, journey, moves, within_bound};

/// QEMU's monitor.
pub struct Monitor {
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
pub fn plain_qemu_incoming(lab: &Lab) {
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
        assert_eq!((lab.owned("h2", "10.0.0.10"), lab.claimers("h2")), (vec![], 1));
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
        sleep(SETTLE + AFTER);
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
        Some(Hop::of(&seen, downtime))
    };
    let hop = within_bound(Some(bound(lab)), hop);
    println!("    gap {:.0} ms, the guest's own downtime {:.0} ms", hop.gap, hop.downtime);
}

/// There, back from a source that cleans up a second late, and there again. After each move one host has a route, and
/// the fabric hears it of one. A guest moves on only after its claim has ended: else it has a second claim in the fabric
/// until its QEMU at the source has ended, which under libvirt takes 0.1 to 0.4 s from when it runs again (README, "settle").
pub fn live_migration_under_load(lab: &Lab) {
    let mut three = moves(lab, &["h1", "h2", "h1", "h2"]);
    "late".clone_into(&mut three[1].hooks);
    journey(lab, "10.0.0.10", &three, |step| {
        let owned = |host| (lab.owned(host, "10.0.0.10"), lab.claimers(host));
        wait_for("settled", 10, || owned(step.to) == (vec![SETTLED], 0));
        assert_eq!(owned(step.from), (vec![], 0));
        wait_for("one host announces it", 10, || announcers(lab, "10.0.0.10") == 1);
        assert!(lab.answers("10.0.0.10"), "{}", lab.console("g1"));
    });
}

pub fn the_table_of_the_three_ways(lab: &Lab) {
    let by = |hosts: &[&'static str], hooks: &[&str]| {
        let mut steps = moves(lab, hosts);
        for (step, hooks) in steps.iter_mut().zip(hooks) {
            (*hooks).clone_into(&mut step.hooks);
            (step.after, step.bound) = (3, None);
        }
        journey(lab, "10.0.0.10", &steps, |_| ())
    };
    // The seed's script leaves routes that tap32 does not take for its own, so its guest starts and ends with it.
    let mut hops = by(&["h1", "h2"], &["seed"]);
    hops.extend(by(&["h1", "h2", "h1"], &["yield", "tap32"]));
    let mut table = String::from("way             gap    guest's downtime\n");
    let mut lost = Vec::new();
    for (name, hop) in ["the seed's way", "yielding only", "with claim"].into_iter().zip(hops) {
        table.push_str(&format!("{name:<14} {:5.0} ms {:5.0} ms\n", hop.gap, hop.downtime));
        lost.push((name, hop.lost));
    }
    println!("{table}");
    picture(lab, &lost);
}

/// Packets lost over time during one migration, the three ways under each other.
pub fn picture(lab: &Lab, ways: &[(&str, Vec<f64>)]) {
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

pub fn a_neighbour_on_the_bridge_notices_nothing(lab: &Lab) {
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

pub fn a_cancelled_migration(lab: &Lab) {
    let probe = Probe::new(lab, "10.0.0.10");
    let mut virsh = {
        let script = format!(". tests/lab/lib.sh; {}", lab.migrate("h1", "g1", "--bandwidth 2"));
        Command::new("bash").args(["-c", &script]).env("TAP32_LAB", &lab.id).spawn().unwrap()
    };
    let arrives = || lab.json("h2", "$tap32 status --json")["taps"][0]["route"] == "arriving";
    wait_for("the destination has the tap", 20, || lab.claimers("h2") == 1 && arrives());
    sleep(2);
    assert!(lab.owned("h2", "10.0.0.10").is_empty());
    lab.virsh("h1", "domjobabort g1");
    assert!(!virsh.wait().unwrap().success());
    wait_for("the destination is clean", 20, || lab.owned("h2", "10.0.0.10").is_empty() && lab.claimers("h2") == 0);
    assert_eq!(lab.json("h2", "bridge -j link show").as_array().unwrap().len(), 0);
    let seen = probe.stop();
    assert_eq!(seen["lost_count"], 0, "of {}", seen["sent"]);
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    println!("    0 of {} packets lost", seen["sent"]);
}
