//! Taps behind which no guest is: those that somebody had open and nobody has now, and those that somebody set down. Judged
//! by `ip -j`, `bridge -j` and `tc -j`. They need root: `sudo tests/run`.

mod common;

use common::guard::Toml;
use common::hooks::{Hooks, domain};
use common::watch::Watch;
use common::{GUEST, Guest, Host, TAP32, settled, text, wait_for};

const OTHER: &str = "02:42:0a:00:00:0b";

/// A persistent tap with a guest behind it, as `ip tuntap add` and then QEMU make it.
fn running() -> (Host, Guest) {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    // Nobody has opened it yet: it keeps what `up` gave it.
    host.tap32("reconcile");
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    host.tap32("status --check");
    let guest = Guest::open(&host, "vnet0");
    (host, guest)
}

fn route(host: &Host) -> String {
    let status = host.status();
    status["taps"].as_array().unwrap().iter().map(|tap| tap["route"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// What `status --check` says, which must fail.
fn checks(host: &Host) -> String {
    let said = host.run(&format!("{TAP32} status --check"));
    assert!(!said.status.success());
    text(&said.stderr)
}

fn neighbours(host: &Host) -> usize {
    host.json("ip -j neigh show nud permanent").as_array().unwrap().len()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_dead_guests_tap_has_no_route() {
    let (host, guest) = running();
    drop(guest);
    wait_for("its carrier is lost", 5, || route(&host) == "idle");
    // As long as the route is there, something is wrong.
    assert!(checks(&host).contains("1 tap, 1 idle, 1 orphan"));
    assert!(host.tap32("reconcile").contains("ip route del 10.0.0.10/32 dev br-l2 "));
    assert!(host.owned().is_empty());
    assert_eq!(neighbours(&host), 0);
    host.tap32("status --check");
    assert_eq!(host.tap32("reconcile"), "");

    let _guest = Guest::open(&host, "vnet0");
    host.tap32("reconcile");
    assert_eq!((host.owned(), route(&host)), (vec![settled("10.0.0.10")], "settled".to_owned()));
    assert_eq!(neighbours(&host), 1);
    assert!(host.is_guarded("vnet0", GUEST));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_withdraws_a_dead_guest_and_brings_one_back() {
    let (host, mut guest) = running();
    let watch = Watch::start(&host);
    for _ in 0..3 {
        // The kernel tells of a lost carrier once a second at most (linkwatch_urgent_event).
        drop(guest);
        wait_for("withdrawn", 2, || host.owned().is_empty() && neighbours(&host) == 0);
        assert_eq!(watch.metric("tap32_guest_routes{state=\"idle\"}"), 1.0);
        guest = Guest::open(&host, "vnet0");
        wait_for("back", 2, || host.owned() == [settled("10.0.0.10")]);
    }
    assert_eq!(watch.said(), "");
}

/// Two queues are two openings of one tap: its carrier goes with the last.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_with_two_queues_is_idle_after_the_last() {
    const OPEN: &str = "import fcntl, os, struct, sys
for line in sys.stdin:
    tap = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'vnet0', 0x1102))
";
    let host = Host::new();
    host.ok("ip tuntap add vnet0 mode tap multi_queue");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let _watch = Watch::start(&host);
    let queue = || {
        let mut python = host.command("python3");
        let mut child = python.args(["-c", OPEN]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
        common::Background(child)
    };
    let first = queue();
    wait_for("open", 5, || host.link("vnet0")["operstate"] == "UP");
    let second = queue();
    let queues = || host.link("vnet0")["num_tx_queues"].clone();
    wait_for("two", 5, || host.ok("ip -j -d link show vnet0").contains("\"numqueues\":2") || queues() == 2);
    drop(first);
    wait_for("one queue", 5, || !host.ok("ip -j -d link show vnet0").contains("\"numqueues\":2"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    drop(second);
    wait_for("withdrawn", 2, || host.owned().is_empty());
}

/// Whoever opens it next may be another guest.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn up_takes_an_idle_tap_over() {
    for opened_again in [false, true] {
        for watched in [false, true] {
            let (host, guest) = running();
            let _watch = watched.then(|| Watch::start(&host));
            drop(guest);
            wait_for("idle", 5, || route(&host) == "idle");
            let again = opened_again.then(|| Guest::open(&host, "vnet0"));
            host.tap32(&format!("up vnet0 --mac {OTHER}"));
            let _again = again.unwrap_or_else(|| Guest::open(&host, "vnet0"));
            wait_for("the other guest alone", 2, || host.owned() == [settled("10.0.0.11")]);
            assert!(host.is_guarded("vnet0", OTHER));
            assert_eq!(host.link("vnet0")["address"], "fe:42:0a:00:00:0b");
            wait_for("its neighbour entry alone", 2, || neighbours(&host) == 1);
            host.tap32("status --check");
        }
    }
}

/// The same guest on a new tap: the old one, idle, is in nobody's way.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_idle_tap_does_not_keep_its_guest_from_another() {
    let (host, guest) = running();
    drop(guest);
    wait_for("idle", 5, || route(&host) == "idle");
    host.add_tap("vnet1");
    host.tap32(&format!("up vnet1 --mac {GUEST}"));
    let _guest = Guest::open(&host, "vnet1");
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    assert_eq!(host.ports_with("fe:42:0a:00:00:0a"), [("vnet1".to_owned(), true)]);
    host.tap32("reconcile");
    host.tap32("status --check");
    host.tap32("down vnet0");
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    host.tap32("down vnet1");
    assert!(host.owned().is_empty());
}

/// A guest that runs is not taken for a dead one: its tap carries it, and another is refused.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_running_guests_tap_is_not_taken_over() {
    let (host, _guest) = running();
    let before = host.state();
    assert!(host.refused(&format!("up vnet0 --mac {OTHER}")).contains("vnet0 already carries 10.0.0.10"));
    host.add_tap("vnet1");
    assert!(host.refused(&format!("up vnet1 --mac {GUEST}")).contains("vnet0 already carries 10.0.0.10"));
    host.ok("ip link del vnet1");
    let after = host.state();
    let differs = after.lines().zip(before.lines()).find(|(after, before)| after != before);
    assert_eq!(differs, None);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_that_somebody_set_down_stays_down() {
    let (host, _guest) = running();
    for watched in [false, true] {
        let watch = watched.then(|| Watch::start(&host));
        let settles = |what: &str, right: &dyn Fn() -> bool| {
            if !watched {
                host.tap32("reconcile");
                assert!(right(), "{what}");
            }
            wait_for(what, 2, right);
        };
        host.ok("ip link set vnet0 down");
        settles("its route goes", &|| host.owned().is_empty() && neighbours(&host) == 0);
        assert_eq!(host.tap32("reconcile"), "");
        let is_up = || host.link("vnet0")["flags"].as_array().unwrap().iter().any(|flag| flag == "UP");
        assert!(!is_up() && host.is_guarded("vnet0", GUEST));
        assert!(host.tap32("status").contains("vnet0: somebody set the tap down: `ip link set dev vnet0 up` "));
        // Its guest is still here: another tap cannot have its address.
        host.add_tap("vnet1");
        host.refused(&format!("up vnet1 --mac {GUEST}"));
        host.ok("ip link del vnet1");
        host.ok("ip link set vnet0 up");
        settles("back by ip", &|| host.owned() == [settled("10.0.0.10")]);

        host.ok("ip link set vnet0 down");
        settles("its route goes again", &|| host.owned().is_empty());
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        assert!(is_up() && host.owned() == [settled("10.0.0.10")]);
        host.tap32("status --check");
        drop(watch);
    }
}

/// Without guard there is no other trace of the guest than its MAC.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_dead_guests_tap_without_guard() {
    let host = Host::new();
    let unguarded = Toml::unguarded(&host);
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST} {unguarded}"));
    drop(Guest::open(&host, "vnet0"));
    wait_for("idle", 5, || route(&host) == "idle");
    host.tap32(&format!("reconcile {unguarded}"));
    assert!(host.owned().is_empty());
    let _guest = Guest::open(&host, "vnet0");
    host.tap32(&format!("reconcile {unguarded}"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
}

/// A restart of libvirt's daemon ends no quarantine.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn reconnect_leaves_a_tap_down() {
    let (host, _guest) = running();
    let hooks = Hooks::new(&host);
    let xml = domain(GUEST, Some("vnet0"));
    host.ok("ip link set vnet0 down");
    host.tap32("reconcile");
    let before = host.state();
    hooks.ok(&host, "reconnect", &xml);
    assert_eq!(host.state(), before);
    host.ok("ip link set vnet0 up");
    host.ok("ip route flush proto 132");
    hooks.ok(&host, "reconnect", &xml);
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
}
