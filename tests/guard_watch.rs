//! Whatever happens to a tap, its guard is right again: within 200 ms under `watch`, and after one `reconcile` without.
//! Judged by `tc -j`, `bridge -j` and `ip -j`. These tests measure: tests/run gives them the machine. They need root:
//! `sudo tests/run`.

mod common;

use std::time::Duration;

use common::guard::{FLUSH_FDB, PASSES_ALL, Toml, program};
use common::watch::{Watch, add_by_hand, mended};
use common::{GUEST, Guest, Host, owned_tap, settled, wait_for};

const GATEWAY: &str = "02:00:00:00:00:01";
const TAP_MAC: &str = "fe:42:0a:00:00:0a";

/// What can happen to vnet0, in commands; `{tap}` is its name afterwards where that is another.
fn faults() -> Vec<(&'static str, String)> {
    let replace = "tc filter replace dev vnet0 ingress pref 1 handle 132 protocol all";
    let of_another = program("02:42:0a:00:00:0b");
    vec![
        ("the clsact deleted", "tc qdisc del dev vnet0 clsact".into()),
        ("the filter deleted", "tc filter del dev vnet0 ingress pref 1".into()),
        ("a program that passes all", format!("{replace} {PASSES_ALL}")),
        ("another guest's guard", format!("{replace} bpf da bytecode '{of_another}'")),
        ("nft flush ruleset", "nft flush ruleset".into()),
        ("nomaster and master", "ip link set vnet0 nomaster;ip link set vnet0 master br-l2".into()),
        ("down and up", "ip link set vnet0 down;ip link set vnet0 up".into()),
        ("the FDB flushed", FLUSH_FDB.into()),
        (
            "the clsact deleted while the tap is down",
            "ip link set vnet0 down;tc qdisc del dev vnet0 clsact;ip link set vnet0 up".into(),
        ),
    ]
}

fn happen(host: &Host, commands: &str) {
    host.sh(commands);
}

/// Whether all is there that a guest needs and its neighbours.
fn is_whole(host: &Host, tap: &str) -> bool {
    host.is_guarded(tap, GUEST)
        && host.owned() == [settled("10.0.0.10")]
        && host.isolated(tap)
        && host.ports_with(TAP_MAC) == [(tap.to_owned(), true)]
        && host.ports_with(GATEWAY) == [("br-l2".to_owned(), true)]
}

fn guarded() -> Host {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert!(is_whole(&host, "vnet0"));
    host
}

/// Of a guest that had no guard for a moment: who sends to its neighbour must not reach it from then on.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_the_bridge_learned_without_a_guard_it_forgets() {
    const NEIGHBOUR: &str = "02:42:0a:00:00:0b dev vnet0";
    let host = guarded();
    let mut guest = Guest::open(&host, "vnet0");
    let learned = || host.ok("bridge fdb show br br-l2").contains(NEIGHBOUR);
    for qdisc in ["", "clsact"] {
        host.tc("qdisc del dev vnet0 clsact");
        guest.frame_from("02:42:0a:00:00:0b");
        wait_for("learned", 5, learned);
        if !qdisc.is_empty() {
            host.tc(&format!("qdisc add dev vnet0 {qdisc}"));
        }
        // Typed by hand it does the same, also where another program has made room for it.
        host.sh(&host.tap32("reconcile -n"));
        assert!(!learned() && is_whole(&host, "vnet0"));
        guest.frame_from(GUEST);
        wait_for("its own", 5, || host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev vnet0")));
    }
}

/// As `virsh domiftune` does: libvirt's own qdisc goes and comes, and nothing of watch's may come in between.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_lets_libvirt_make_its_ingress_anew() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tc("qdisc add dev vnet0 ingress");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let _watch = Watch::start(&host);
    for _ in 0..3 {
        host.tc("qdisc del dev vnet0 ingress");
        std::thread::sleep(Duration::from_millis(100));
        host.tc("qdisc add dev vnet0 ingress");
        wait_for("watch puts the guard on it", 3, || host.is_guarded("vnet0", GUEST));
        assert!(host.ok("tc qdisc show dev vnet0").contains("qdisc ingress"));
    }
}

/// libvirt deletes its root qdisc first, milliseconds before its `ingress`: watch looks at the tap for the one, and must not
/// fix what it sees of the other.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn whenever_watch_looks_it_lets_libvirt_make_its_ingress_anew() {
    const TAPS: u8 = 40;
    let host = Host::new();
    let mac = |tap: u8| format!("02:42:0a:00:00:{:02x}", tap + 10);
    for tap in 0..TAPS {
        host.add_tap(&format!("vnet{tap}"));
        host.tc(&format!("qdisc add dev vnet{tap} ingress"));
        host.tap32(&format!("up vnet{tap} --mac {}", mac(tap)));
    }
    let _watch = Watch::start(&host);
    let mut refused = 0;
    for tap in 0..TAPS {
        // 2 to 10 ms: watch looks 5 ms after the last event.
        let pause = format!("sleep 0.{:04}", 20 + 2 * u32::from(tap));
        let on_tap = |verb: &str, kind: &str| format!("tc qdisc {verb} dev vnet{tap} {kind}");
        let del = on_tap("del", "ingress");
        let said = host.sh(&[
            on_tap("replace", "root pfifo"),
            pause,
            format!("{del} || {{ echo refused; {del}; }}"),
            "sleep 0.05".to_owned(),
            on_tap("add", "ingress"),
        ]
        .join("\n"));
        refused += said.lines().count();
    }
    // For the microseconds of a question about a qdisc's filter the kernel lets nobody delete the qdisc ("has ongoing filter
    // requests", qdisc_graft in net/sched/sch_api.c).
    println!("{refused} of {TAPS} deletions met a question of watch's");
    assert!(refused <= 1);
    wait_for("the guards", 5, || (0..TAPS).all(|tap| host.is_guarded(&format!("vnet{tap}"), &mac(tap))));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn under_watch_the_guard_is_right_within_200_ms() {
    let host = guarded();
    let watch = Watch::start(&host);
    for (what, commands) in faults() {
        mended(what, || happen(&host, &commands), || is_whole(&host, "vnet0"));
    }
    let rename = |from: &str, to: &str| {
        happen(&host, &format!("ip link set {from} down;ip link set {from} name {to};ip link set {to} up"));
    };
    mended("renamed", || rename("vnet0", "other"), || is_whole(&host, "other"));
    // And watch knows it still, by its index.
    mended("renamed, then deleted", || host.tc("qdisc del dev other clsact"), || is_whole(&host, "other"));
    rename("other", "vnet0");
    // It could be one that libvirt has just made, whose hook comes after libvirt has set the bandwidth.
    mended("a tap added by hand: its route", || add_by_hand(&host, "vnet1", 11), || host.owned().len() == 2);
    assert!(!host.is_guarded("vnet1", "02:42:0a:00:00:0b"));
    wait_for("a tap added by hand: its guard", 3, || host.is_guarded("vnet1", "02:42:0a:00:00:0b"));
    assert_eq!(watch.said(), "");
    assert!(watch.metric("tap32_repairs_total{kind=\"guard\"}") >= 6.0, "{}", watch.metrics());
}

/// It may start while libvirt has taken its `ingress` off a tap, or has not come to the hook of a new one.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_that_starts_leaves_guards_to_hooks_for_a_second() {
    let host = Host::new();
    add_by_hand(&host, "vnet0", 10);
    let watch = Watch::start(&host);
    assert!(host.owned() == [settled("10.0.0.10")] && !host.has_qdisc("vnet0", "clsact"));
    wait_for("its guard", 3, || host.is_guarded("vnet0", GUEST));
    drop(watch);
    // It leaves one that is there alone, and is there for it from the start.
    let _watch = Watch::start(&host);
    mended("the clsact deleted", || host.tc("qdisc del dev vnet0 clsact"), || host.is_guarded("vnet0", GUEST));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn without_watch_one_reconcile_makes_it_right() {
    let host = guarded();
    for (what, commands) in faults() {
        happen(&host, &commands);
        host.tap32("reconcile");
        assert!(is_whole(&host, "vnet0"), "{what}");
        assert_eq!(host.tap32("reconcile"), "", "{what}");
        host.tap32("status vnet0 --check");
    }
    happen(&host, "ip link set vnet0 down;ip link set vnet0 name other;ip link set other up");
    assert_eq!(host.tap32("reconcile"), "");
    assert!(is_whole(&host, "other"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn nothing_is_left_of_a_tap_whose_owner_is_killed() {
    let host = Host::new();
    for watched in [false, true] {
        let mut owner = owned_tap(&host, "vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        assert!(is_whole(&host, "vnet0"));
        let watch = watched.then(|| Watch::start(&host));
        owner.0.kill().unwrap();
        wait_for("the tap is gone", 5, || host.link("vnet0").is_null());
        if watched {
            wait_for("the route is gone", 5, || host.owned().is_empty());
        } else {
            host.tap32("reconcile");
        }
        let all = host.ok("tc qdisc show");
        assert!(!all.contains("clsact") && host.owned().is_empty(), "{all}");
        assert!(host.ports_with(TAP_MAC).is_empty());
        drop(watch);
    }
    // A tap of the same name has no guard before its `up`.
    let _owner = owned_tap(&host, "vnet0");
    assert!(host.guard("vnet0").is_empty() && !host.has_qdisc("vnet0", "clsact"));
}

/// Another program has the guard's place: watch says so once, tries no more than when something happens, and puts the guard
/// on as soon as the place is free.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guard_that_cannot_be_put_is_said_once() {
    let host = Host::new();
    host.add_tap("vnet0");
    let unguarded = Toml::unguarded(&host);
    host.tap32(&format!("up vnet0 --mac {GUEST} {unguarded}"));
    host.tc("qdisc add dev vnet0 clsact");
    host.tc("filter add dev vnet0 ingress pref 1 protocol ip u32 match u32 0 0 flowid :1");
    let watch = Watch::start(&host);
    let said = || watch.said().matches("`tc filter show dev vnet0 ingress`").count();
    wait_for("said", 5, || said() == 1);
    let passes = || watch.metric("tap32_pass_duration_seconds_count");
    let before = passes();
    // A change of a link makes a pass, and so another try.
    host.ok("ip link set vnet0 mtu 1400");
    wait_for("another pass", 5, || passes() > before);
    assert!(passes() < before + 5.0, "{}", watch.metrics());
    assert_eq!(watch.metric("tap32_unguarded_taps"), 1.0);
    mended("the place is free", || host.tc("filter del dev vnet0 ingress pref 1"), || host.is_guarded("vnet0", GUEST));
    assert_eq!(said(), 1);
}
