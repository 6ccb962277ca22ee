//! `watch` against a real kernel: its life from start to end, its configuration, and what it says and leaves alone. They
//! need root: `sudo tests/run`.

mod common;

use std::process::Stdio;

use common::watch::{Watch, add_by_hand};
use common::{Background, GUEST, Guest, Host, SETTLED, TAP32, settled, text, wait_for};

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
        ("mac-prefix = \"02:43\"\n", "", "vnet0 is refused: tap MAC fe:42:0a:00:00:0a does not identify a guest"),
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
        "another program's route to 10.0.0.10 with metric 4026531940 is in the way",
        "vnet1 is shadowed: 10.0.0.11/32 dev eth0 proto 4 metric 0 is not tap32's and wins",
        "vnet2 is shadowed: 10.0.0.12/32 dev br-l2 proto 133 metric 5 is not tap32's and wins",
        "vnet3 is shadowed: another host announces the address: the route through 10.47.175.9 wins",
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
    let watch = Watch::start(&host);
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
    wait_for("the claim's age", 5, || watch.metric("tap32_oldest_claim_seconds") > 1.0);
    claimer.0.kill().unwrap();
    wait_for("demoted", 5, || host.owned() == [settled("10.0.0.10")]);
    wait_for("no claim", 5, || watch.metric("tap32_oldest_claim_seconds") == 0.0);
}
