//! What the verbs do about the guard, against a real kernel: `up` puts it on, `down` takes it off, `reconcile` makes it
//! right, `status` tells of it. Judged by `tc -j`, `bridge -j` and `ip -j`. They need root: `sudo tests/run`.

mod common;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::guard::{PASSES_ALL, Toml, program};
use common::slow::limit;
use common::{GUEST, Guest, Host, SETTLED, TAP32, settled, string, text, wait_for};

const ANOTHER: &str = "02:42:0a:00:00:0b";

fn with_tap() -> Host {
    let host = Host::new();
    host.add_tap("vnet0");
    host
}

fn guarded() -> Host {
    let host = with_tap();
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert!(host.is_guarded("vnet0", GUEST));
    host
}

/// What `status ... --check` says on stderr when it fails, and on stdout.
fn failed(host: &Host, check: &str) -> (String, String) {
    let output = host.run(&format!("{TAP32} {check}"));
    assert_eq!(output.status.code(), Some(1), "{check}");
    (text(&output.stderr), text(&output.stdout))
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_guard_is_there_before_the_tap_joins_the_bridge() {
    /// Links and filters in one queue, as the kernel tells them in order. Ends with its stdin.
    const LISTENER: &str = "import socket, struct, sys
events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
events.bind((0, 1 | 8))  # RTMGRP_LINK, RTMGRP_TC
print('ready', flush=True)
sys.stdin.read()
events.setblocking(False)
while True:
    try:
        message = events.recv(65536)
    except BlockingIOError:
        break
    kind, family = struct.unpack_from('=H', message, 4)[0], message[16]
    if kind in (36, 44):  # RTM_NEWQDISC, RTM_NEWTFILTER
        print({36: 'qdisc', 44: 'filter'}[kind])
    at = 32
    while kind == 16 and family == 0 and at + 4 <= len(message):  # RTM_NEWLINK
        length, attribute = struct.unpack_from('=HH', message, at)
        if attribute == 10:  # IFLA_MASTER
            print('port')
        at += (length + 3) & ~3
";
    let host = with_tap();
    let mut listener = host.command("python3");
    let mut listener = listener
        .args(["-c", LISTENER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(common::Background)
        .unwrap();
    let mut heard = std::io::BufReader::new(listener.0.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut heard, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    drop(listener.0.stdin.take());
    let mut said = String::new();
    std::io::Read::read_to_string(&mut heard, &mut said).unwrap();
    let mut order: Vec<&str> = said.lines().collect();
    order.dedup();
    // The filter is told twice: the kernel makes its preference first.
    assert_eq!(order, ["qdisc", "filter", "port"]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_second_up_changes_nothing() {
    let host = guarded();
    let once = host.state() + &host.traffic_control("vnet0");
    assert_eq!(host.tap32("up -n vnet0"), "");
    assert_eq!(host.tap32("up vnet0"), "");
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.state() + &host.traffic_control("vnet0"), once);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_a_dry_run_prints_can_be_typed() {
    let host = with_tap();
    let before = host.state() + &host.traffic_control("vnet0");
    let steps = host.tap32(&format!("up -n vnet0 --mac {GUEST}"));
    assert_eq!(host.state() + &host.traffic_control("vnet0"), before);
    let commands: Vec<&str> = steps.lines().filter(|line| line.starts_with("tc ")).collect();
    let filter =
        format!("tc filter add dev vnet0 ingress pref 1 handle 132 protocol all bpf da bytecode '{}'", program(GUEST));
    assert_eq!(commands, ["tc qdisc add dev vnet0 clsact", &filter]);
    // By a shell, in an `up` without guard as it was before 0.2.
    let unguarded = Toml::unguarded(&host);
    host.tap32(&format!("up vnet0 --mac {GUEST} {unguarded}"));
    assert!(host.guard("vnet0").is_empty());
    let (said, _) = failed(&host, "status --check");
    assert!(said.contains("1 unguarded") && said.contains("would take 3 steps"), "{said}");
    host.sh(&commands.join("\n"));
    host.tap32("status --check");
    host.tap32("status vnet0 --check");
    assert!(host.is_guarded("vnet0", GUEST));

    // And what `down` and `reconcile` print.
    host.tc(&format!("filter replace dev vnet0 ingress pref 1 handle 132 protocol all {PASSES_ALL}"));
    let steps = host.tap32("reconcile -n");
    assert!(steps.starts_with("tc filter replace dev vnet0 ingress pref 1 handle 132 protocol all bpf da "), "{steps}");
    host.sh(&steps);
    assert!(host.is_guarded("vnet0", GUEST));
    host.sh(&host.tap32(&format!("reconcile -n {unguarded}")));
    assert!(host.guard("vnet0").is_empty());
    host.tap32("reconcile");
    host.sh(&host.tap32("down -n vnet0"));
    assert!(!host.has_qdisc("vnet0", "clsact") && host.owned().is_empty() && host.link("vnet0")["master"].is_null());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn with_guard_false_none_is_put_and_tap32s_own_is_taken_off() {
    let host = with_tap();
    let unguarded = Toml::unguarded(&host);
    host.tap32(&format!("up vnet0 --mac {GUEST} {unguarded}"));
    assert!(host.guard("vnet0").is_empty() && !host.has_qdisc("vnet0", "clsact"));
    host.tap32(&format!("status --check {unguarded}"));
    let said = host.tap32(&format!("status vnet0 --check {unguarded}"));
    assert!(said.contains("none, because of `guard = false` for bridge br-l2"), "{said}");
    for verb in ["reconcile", "up vnet0"] {
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        assert!(host.is_guarded("vnet0", GUEST));
        host.tap32(&format!("{verb} {unguarded}"));
        assert!(host.guard("vnet0").is_empty(), "{verb}");
        assert_eq!(host.tap32(&format!("{verb} -n {unguarded}")), "");
        assert_eq!(host.owned(), [settled("10.0.0.10")]);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn down_on_a_tap_that_stays_takes_the_guard_and_its_clsact() {
    let host = with_tap();
    let before = host.traffic_control("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.tap32("down vnet0");
    assert_eq!(host.traffic_control("vnet0"), before);
    assert!(!host.has_qdisc("vnet0", "clsact"));

    // Also off a tap that is no port any more, and with a configuration that wants no guards or is broken.
    for config in ["", "[[bridge]]\nname = \"br-l2\"\nguard = false\n", "protocol = = 1"] {
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        host.ok("ip link set vnet0 nomaster");
        let config = Toml::new(&host, config);
        assert!(host.run(&format!("{TAP32} down vnet0 {config}")).status.success());
        assert_eq!(host.traffic_control("vnet0"), before);
        assert!(host.owned().is_empty());
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_guard_of_another_guest_is_replaced() {
    let host = guarded();
    host.ok("ip link set vnet0 nomaster");
    host.tap32(&format!("up vnet0 --mac {ANOTHER}"));
    assert!(host.is_guarded("vnet0", ANOTHER));
    assert_eq!(host.filters("vnet0", "ingress").len(), 1);
    // By a person who changes the tap MAC, and reconcile.
    host.ok("ip link set vnet0 address fe:42:0a:00:00:0a");
    assert!(failed(&host, "status --check").0.contains("1 unguarded"));
    assert!(failed(&host, "status vnet0 --check").0.contains("vnet0 has no guard: `tap32 reconcile` puts it on"));
    assert!(host.tap32("reconcile").contains("tc filter replace dev vnet0"));
    assert!(host.is_guarded("vnet0", GUEST));
    host.tap32("status --check");
}

/// A step behind the guard fails: everything is as it was.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_later_step_that_fails_takes_the_guard_back() {
    let host = with_tap();
    host.ok(&format!("ip route add 10.0.0.10/32 dev br-l2 proto static metric {SETTLED}"));
    let of = |host: &Host| host.state() + &host.traffic_control("vnet0");
    let before = of(&host);
    let said = host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert!(said.contains("another program's route to 10.0.0.10"), "{said}");
    assert_eq!(of(&host), before);
    assert!(!host.has_qdisc("vnet0", "clsact"));

    // The clsact was another program's, with and without filters.
    host.tc("qdisc add dev vnet0 clsact");
    host.tc(&format!("filter add dev vnet0 egress pref 7 protocol ip {PASSES_ALL}"));
    let before = of(&host);
    host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(of(&host), before);

    // Where the guard of the tap's guest before was, it is again.
    host.ok("ip route del 10.0.0.10/32 proto static");
    host.tap32(&format!("up vnet0 --mac {ANOTHER}"));
    host.ok("ip link set vnet0 nomaster");
    host.ok(&format!("ip route add 10.0.0.10/32 dev br-l2 proto static metric {SETTLED}"));
    let before = of(&host);
    host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(of(&host), before);
    assert!(host.is_guarded("vnet0", ANOTHER));
}

/// libvirt's ethernet script and watch's unit have CAP_NET_ADMIN and not CAP_BPF, which an eBPF program would need.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn cap_net_admin_is_enough() {
    let host = with_tap();
    // As nobody: root would get every capability of the bounding set back at the exec.
    let only = "setpriv --reuid 65534 --clear-groups --bounding-set -all,+net_admin --inh-caps -all,+net_admin \
                --ambient-caps -all,+net_admin";
    let caps = host.ok(&format!("{only} grep CapEff /proc/self/status"));
    assert_eq!(caps.split_whitespace().last(), Some("0000000000001000"));
    host.ok(&format!("{only} {TAP32} up vnet0 --mac {GUEST}"));
    assert!(host.is_guarded("vnet0", GUEST));
    host.tc(&format!("filter replace dev vnet0 ingress pref 1 handle 132 protocol all {PASSES_ALL}"));
    host.ok(&format!("{only} {TAP32} reconcile"));
    assert!(host.is_guarded("vnet0", GUEST));
    host.ok(&format!("{only} {TAP32} down vnet0"));
    assert!(!host.has_qdisc("vnet0", "clsact"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn status_tells_of_the_guard_and_of_what_it_dropped() {
    let host = guarded();
    host.add_tap("vnet1");
    host.tap32(&format!("up vnet1 --mac {ANOTHER}"));
    let mut guest = Guest::open(&host, "vnet0");
    (0..3).for_each(|_| guest.frame_from(ANOTHER));
    guest.frame_from(GUEST);
    let dropped = || {
        let all = host.json("tc -j -s qdisc show dev vnet0");
        let clsact = all.as_array().unwrap().iter().find(|qdisc| qdisc["kind"] == "clsact");
        clsact.and_then(|clsact| clsact["drops"].as_u64()).unwrap()
    };
    wait_for("three dropped, one passed", 5, || dropped() == 3 && host.ports_with(GUEST) == [("vnet0".into(), false)]);
    assert!(host.ports_with(ANOTHER).is_empty());
    let said = host.tap32("status vnet0");
    assert!(said.contains("\nguard     on, has dropped 3 frames\n"), "{said}");
    let rows = || {
        let guarded = |tap: &serde_json::Value| tap["guarded"] == true;
        host.status()["taps"].as_array().unwrap().iter().map(guarded).collect::<Vec<_>>()
    };
    assert_eq!(rows(), [true, true]);
    host.tap32("status --check");

    host.tc("qdisc del dev vnet1 clsact");
    assert_eq!(rows(), [true, false]);
    let table = host.tap32("status");
    let column = |tap: &str| {
        let place = table.lines().next().unwrap().find("GUARDED").unwrap();
        let row = table.lines().find(|line| line.starts_with(tap)).unwrap();
        string(&row[place..].split_whitespace().next().unwrap().into())
    };
    assert_eq!((column("vnet0"), column("vnet1")), ("yes".into(), "no".into()));
    assert!(table.ends_with("2 taps, 2 settled, 1 unguarded\n"), "{table}");
    assert!(failed(&host, "status --check").0.contains("1 unguarded"));
    host.tap32("status vnet0 --check");
    let (stderr, stdout) = failed(&host, "status vnet1 --check");
    assert!(stdout.contains("guard     none, so this guest can send as another"), "{stdout}{stderr}");
    assert!(stderr.contains("vnet1 has no guard: `tap32 reconcile` puts it on"), "{stderr}");
}

/// The kernel keeps an empty place where a clsact was, and answers a question about it with silence unless it names the
/// handle (tc_get_qdisc, tc_qdisc_dump_ignore).
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_clsact_that_has_gone_delays_nobody() {
    let host = guarded();
    host.tc("qdisc del dev vnet0 clsact");
    let start = Instant::now();
    host.tap32("status vnet0");
    host.tap32("down vnet0");
    host.tap32("status");
    assert!(start.elapsed() < limit(Duration::from_secs(5)), "{:?}", start.elapsed());
}

/// From 512 taps on two threads ask for the guards, where there is a socket for each.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn each_of_600_guards_is_looked_at() {
    let host = Host::new();
    host.ok("ip addr add 10.1.0.1/16 dev br-l2");
    let mac = |n: u32| format!("02:42:0a:01:{:02x}:{:02x}", 1 + n / 200, 1 + n % 200);
    host.batch(&(0..600).map(|n| format!("tuntap add t{n} mode tap\n")).collect::<String>());
    host.sh(&(0..600).map(|n| format!("{TAP32} up t{n} --mac {}\n", mac(n))).collect::<String>());
    let all = || host.sh("seq -f 'filter show dev t%g ingress' 0 599 | tc -batch -");
    let guards = all();
    assert_eq!(guards.matches(" handle 0x84 ").count(), 600);
    for n in [0, 299, 300, 599] {
        assert!(host.is_guarded(&format!("t{n}"), &mac(n)));
    }
    for limited in ["", "prlimit --nofile=4"] {
        for n in [0, 450] {
            host.tc(&format!("qdisc del dev t{n} clsact"));
        }
        host.tc("filter del dev t599 ingress pref 1 handle 0x84 bpf");
        for (n, other) in [(299, 300), (300, 299)] {
            let program = program(&mac(other));
            host.tc(&format!(
                "filter replace dev t{n} ingress pref 1 handle 0x84 protocol all bpf da bytecode '{program}'"
            ));
        }
        assert_eq!(all().matches(" handle 0x84 ").count(), 597);
        host.ok(&format!("{limited} {TAP32} reconcile"));
        assert_eq!(all(), guards);
    }
}
