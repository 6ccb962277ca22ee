//! What an attacker found that other programs can do to running guests' taps, and `watch` or `reconcile` did not put right.
//! Judged by `ip -j`, `bridge -j` and `tc -j`. They need root: `sudo tests/run`.

mod common;

use common::guard::FLUSH_FDB;
use common::hooks::{Hooks, domain};
use common::watch::Watch;
use common::{GUEST, Guest, Host, TAP32, settled, wait_for};

const SECOND: &str = "02:42:0a:00:00:0b";
const TAP_MACS: [&str; 2] = ["fe:42:0a:00:00:0a", "fe:42:0a:00:00:0b"];

/// With a guest behind vnet0 and one behind vnet1.
fn running() -> (Host, [Guest; 2]) {
    let host = Host::new();
    for (tap, mac) in [("vnet0", GUEST), ("vnet1", SECOND)] {
        host.add_tap(tap);
        host.tap32(&format!("up {tap} --mac {mac}"));
    }
    let guests = ["vnet0", "vnet1"].map(|tap| Guest::open(&host, tap));
    (host, guests)
}

fn both() -> [(String, String, u64); 2] {
    [settled("10.0.0.10"), settled("10.0.0.11")]
}

fn make_bridge(host: &Host) {
    host.sh("ip link add br-l2 address 02:00:00:00:00:01 type bridge\nip addr add 10.0.0.1/24 dev br-l2\nip link set br-l2 up");
}

fn is_whole(host: &Host) -> bool {
    host.owned() == both()
        && host.is_guarded("vnet0", GUEST)
        && host.is_guarded("vnet1", SECOND)
        && ["vnet0", "vnet1"].into_iter().zip(TAP_MACS).all(|(tap, mac)| {
            host.link(tap)["master"] == "br-l2"
                && host.link(tap)["address"] == mac
                && host.ports_with(mac) == [(tap.to_owned(), true)]
        })
}

/// `watch` has not seen such a tap on its bridge, or has seen that it was taken away: its guard tells whose it is.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_puts_back_what_it_did_not_see() {
    let (host, _guests) = running();
    let _watch = Watch::start(&host);
    for _ in 0..10 {
        host.tap32("down vnet1");
        host.ok("ip link set vnet1 up");
        host.sh(&format!("{TAP32} up vnet1 --mac {SECOND}\nip link set vnet1 nomaster"));
        wait_for("taken off at once", 5, || is_whole(&host));
    }
    let (host, _guests) = running();
    let _watch = Watch::start(&host);
    host.ok("ip link set vnet0 down");
    wait_for("in quarantine", 5, || host.owned() == [settled("10.0.0.11")]);
    host.ok("ip link del br-l2");
    make_bridge(&host);
    wait_for("the other is back", 5, || host.owned() == [settled("10.0.0.11")]);
    host.ok("ip link set vnet0 up");
    wait_for("after a quarantine in which the bridge was made anew", 5, || is_whole(&host));

    host.sh("ip link add br-other type bridge\nip link set br-other up\nip link set vnet0 master br-other");
    wait_for("moved away", 5, || host.owned() == [settled("10.0.0.11")]);
    host.ok("ip link del br-other");
    wait_for("the other bridge is gone", 5, || is_whole(&host));
}

/// Of the two taps that have the MAC then, the guard tells which one has it by right, whichever the kernel lists first.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_with_another_taps_mac_keeps_its_guest() {
    for watched in [true, false] {
        let (host, _guests) = running();
        let _watch = watched.then(|| Watch::start(&host));
        for (tap, mac) in [("vnet0", TAP_MACS[1]), ("vnet1", TAP_MACS[0])] {
            host.ok(&format!("ip link set dev {tap} address {mac}"));
            if !watched {
                let status = host.status();
                let addresses: Vec<_> = status["taps"].as_array().unwrap().iter().map(|tap| &tap["address"]).collect();
                assert_eq!(addresses, ["10.0.0.10", "10.0.0.11"]);
                host.tap32("reconcile");
                assert!(is_whole(&host), "{tap}");
            }
            wait_for(tap, 5, || is_whole(&host));
            host.tap32("status --check");
        }
    }
}

/// Without them `up` would not see that a tap has the guest's MAC already.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_taps_entry_in_the_fdb_comes_back() {
    let (host, _guests) = running();
    let lose = format!("bridge fdb del {} dev vnet1 master", TAP_MACS[1]);
    let half = &format!("ip link set br-l2 down\n{FLUSH_FDB}");
    host.ok(&lose);
    assert!(!host.run(&format!("{TAP32} status --check")).status.success());
    host.tap32("reconcile");
    assert!(is_whole(&host));
    host.sh(half);
    host.tap32("reconcile");
    host.ok("ip link set br-l2 up");
    host.tap32("reconcile");
    assert!(is_whole(&host));
    host.tap32("status --check");

    let _watch = Watch::start(&host);
    host.ok(&lose);
    wait_for("an entry deleted", 5, || is_whole(&host));
    host.sh(half);
    wait_for("the routes are gone", 5, || host.owned().is_empty());
    host.ok("ip link set br-l2 up");
    wait_for("a flush while the bridge was down", 5, || is_whole(&host));
    host.add_tap("vnet2");
    assert!(host.refused(&format!("up vnet2 --mac {SECOND}")).contains("vnet1 already carries 10.0.0.11"));
}

/// A guest that is refused keeps its route on its bridge, and loses it with the bridge.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_refused_guest_off_its_bridge_has_no_route() {
    let (host, _guests) = running();
    let _watch = Watch::start(&host);
    host.ok("ip addr add 10.0.0.10/32 dev lo");
    wait_for("refused", 5, || host.status()["taps"][0]["route"] == "refused");
    assert_eq!(host.owned(), both());
    host.ok("ip link set vnet0 nomaster");
    wait_for("its route is gone", 5, || host.owned() == [settled("10.0.0.11")]);
    let table = host.tap32("status");
    assert!(table.contains("vnet0: the tap is on no bridge, so the guest is cut off: 10.0.0.10 is "), "{table}");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_in_quarantine_without_a_bridge_is_shown_and_stays_there() {
    let (host, _guests) = running();
    let hooks = Hooks::new(&host);
    host.sh("ip link set vnet0 nomaster\nip link set vnet0 down");
    host.tap32("reconcile");
    let before = host.state();
    let xml = domain(GUEST, Some("vnet0"));
    hooks.ok(&host, "reconnect", &xml);
    assert_eq!(host.state(), before);
    assert!(
        host.tap32("status").contains("vnet0: the tap is down and on no bridge, so the guest is cut off: `tap32 up ")
    );
    assert!(!host.run(&format!("{TAP32} status --check")).status.success());
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert!(is_whole(&host));
}
