//! A guest's permanent neighbour entry: there with its tap, whatever brought the guest, and gone with it. Judged by
//! `ip neigh`. They need root: `sudo tests/run`.

mod common;

use common::guard::Toml;
use common::hooks::{Hooks, domain};
use common::watch::Watch;
use common::{GUEST, Host, TAP32, owned_tap, wait_for};

/// As `ip neigh show nud permanent` has it.
fn entry(bridge: &str, protocol: u8) -> String {
    format!("10.0.0.10 dev {bridge} lladdr {GUEST} PERMANENT proto {protocol} \n")
}

fn entries(host: &Host) -> String {
    host.ok("ip neigh show nud permanent")
}

/// A line that must succeed, but may say something.
fn succeeds(host: &Host, arguments: &str) {
    assert!(host.run(&format!("{TAP32} {arguments}")).status.success(), "{arguments}");
}

/// A tap as libvirt leaves it before `start`.
fn libvirt_tap(host: &Host) {
    host.add_tap("vnet0");
    host.ok("ip link set vnet0 address fe:42:0a:00:00:0a master br-l2 up");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn libvirt_starts_a_guest_and_stops_it() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    let running = domain(GUEST, Some("vnet0"));
    for end in ["stopped", "release"] {
        hooks.ok(&host, "prepare", &domain(GUEST, None));
        libvirt_tap(&host);
        assert_eq!(entries(&host), "");
        hooks.ok(&host, "start", &running);
        assert_eq!(entries(&host), entry("br-l2", 132));
        // The daemon restarts, and somebody had flushed the table.
        host.ok("ip neigh flush dev br-l2 nud permanent");
        hooks.ok(&host, "reconnect", &running);
        assert_eq!(entries(&host), entry("br-l2", 132));
        // The tap goes first, and the XML does not name it any more.
        host.ok("ip link del vnet0");
        hooks.ok(&host, end, &domain(GUEST, None));
        assert_eq!(entries(&host), "", "{end}");
    }
    // With a file that nobody can read.
    libvirt_tap(&host);
    hooks.ok(&host, "start", &running);
    hooks.configure("protocol = = 1");
    host.ok("ip link del vnet0");
    assert!(hooks.call(&host, "stopped", &domain(GUEST, None)).status.success());
    assert_eq!(entries(&host), "");
}

/// Before the guest's first frame, which brings the claim: the entry can never be wrong.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_that_arrives_has_it_with_its_tap() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    for end in ["down vnet0", "a tap that goes"] {
        for operation in ["migrate", "prepare"] {
            hooks.ok(&host, operation, &domain(GUEST, None));
            assert_eq!(entries(&host), "");
        }
        let claims = || host.ok("cat /proc/net/unix").contains("@tap32/arrival/10.0.0.10");
        assert!(claims());
        libvirt_tap(&host);
        hooks.ok(&host, "start", &domain(GUEST, Some("vnet0")));
        assert_eq!(entries(&host), entry("br-l2", 132));
        host.tap32("reconcile");
        assert_eq!(entries(&host), entry("br-l2", 132));
        if end == "down vnet0" {
            host.tap32(end);
            host.ok("ip link del vnet0");
        } else {
            host.ok("ip link del vnet0");
            hooks.ok(&host, "release", &domain(GUEST, None));
        }
        assert_eq!(entries(&host), "", "{end}");
        wait_for("the claimer is gone", 5, || !claims());
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_moves_with_the_guest_to_another_managed_bridge() {
    let host = Host::new();
    host.ok("ip link add br-m2 address 02:00:00:00:00:02 type bridge");
    host.ok("ip link set br-m2 up");
    let table = |name| format!("[[bridge]]\nname = \"{name}\"\nprefixes = [\"10.0.0.0/24\"]\n");
    let config = Toml::new(&host, &(table("br-l2") + &table("br-m2")));
    // QEMU was killed, so that nobody called `down`, and starts again on the other bridge.
    let moves = |from: &str, to: &str| {
        host.add_tap("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST} --bridge {from} {config}"));
        assert_eq!(entries(&host), entry(from, 132));
        host.ok("ip link del vnet0");
        host.add_tap("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST} --bridge {to} {config}"));
        assert!(entries(&host).contains(&entry(to, 132)));
    };
    moves("br-l2", "br-m2");
    host.tap32(&format!("reconcile {config}"));
    assert_eq!(entries(&host), entry("br-m2", 132));
    // A running guest.
    host.ok("ip link set vnet0 master br-l2");
    host.tap32(&format!("reconcile {config}"));
    assert_eq!(entries(&host), entry("br-l2", 132));
    host.ok("ip link del vnet0");
    host.tap32(&format!("reconcile {config}"));
    // `down` takes what is left on either.
    moves("br-m2", "br-l2");
    host.tap32(&format!("down vnet0 {config}"));
    assert_eq!(entries(&host), "");
}

/// By its number tap32 knows its own entries; with another number they are another program's.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_has_the_configured_protocol_number() {
    let host = Host::new();
    let config = Toml::new(&host, "protocol = 140\n");
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST} {config}"));
    assert_eq!(entries(&host), entry("br-l2", 140));
    let foreign = "10.0.0.77 dev br-l2 lladdr 02:42:0a:00:00:4d PERMANENT proto 132 \n";
    host.ok("ip neigh add 10.0.0.77 lladdr 02:42:0a:00:00:4d dev br-l2 nud permanent protocol 132");
    host.ok("ip neigh del 10.0.0.10 dev br-l2");
    host.tap32(&format!("reconcile {config}"));
    let both = [foreign, &entry("br-l2", 140)];
    assert!(both.iter().all(|line| entries(&host).contains(line)), "{}", entries(&host));
    host.ok("ip link del vnet0");
    host.tap32(&format!("reconcile {config}"));
    assert_eq!(entries(&host), foreign);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn down_deletes_it_with_a_broken_configuration() {
    let host = Host::new();
    // The first as built in; of the second what says which entries are tap32's is still read.
    for (number, broken) in [(132, "protocol = = 1"), (140, "protocol = 140\nprotocoll = 141")] {
        let config = Toml::new(&host, &format!("protocol = {number}\n"));
        host.add_tap("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST} {config}"));
        assert_eq!(entries(&host), entry("br-l2", number));
        drop(config);
        let config = Toml::new(&host, broken);
        succeeds(&host, &format!("down vnet0 {config}"));
        assert_eq!(entries(&host), "", "{broken}");
        host.ok("ip link del vnet0");
    }
}

/// The guard is a matter of the bridge, the entry is not.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_without_guard_has_it_too() {
    let host = Host::new();
    let config = Toml::unguarded(&host);
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST} {config}"));
    assert!(host.guard("vnet0").is_empty());
    assert_eq!(entries(&host), entry("br-l2", 132));
    host.tap32(&format!("down vnet0 {config}"));
    assert_eq!(entries(&host), "");
}

/// A tap that comes by hand, an entry that a hand deletes, a tap that goes.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_keeps_it() {
    let host = Host::new();
    // Nothing is measured, so that the debug build does.
    let watch = Watch::start_program(&host, TAP32);
    let mut qemu = owned_tap(&host, "vnet0");
    host.ok("ip link set vnet0 address fe:42:0a:00:00:0a master br-l2 up");
    wait_for("the entry of a tap that came by hand", 5, || entries(&host) == entry("br-l2", 132));
    host.ok("ip neigh del 10.0.0.10 dev br-l2");
    watch.signal("HUP");
    wait_for("the entry after a full pass", 5, || entries(&host) == entry("br-l2", 132));
    qemu.0.kill().unwrap();
    wait_for("the entry is gone with the tap", 5, || entries(&host).is_empty());
    assert_eq!(watch.said(), "");
    wait_for("the metrics", 5, || watch.metric("tap32_repairs_total{kind=\"neighbour\"}") >= 3.0);
    assert_eq!(watch.end(), Some(0));
}

/// A wrong one of tap32's, which a person or a program changed; another's stays as it is.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_wrong_entry_is_set_right_and_a_deleted_one_comes_back() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok("ip neigh replace 10.0.0.10 lladdr 02:42:0a:00:00:0b dev br-l2 nud permanent");
    assert!(entries(&host).contains("02:42:0a:00:00:0b PERMANENT proto 132"));
    host.tap32("reconcile");
    assert_eq!(entries(&host), entry("br-l2", 132));
    let _watch = Watch::start(&host);
    host.ok("ip neigh del 10.0.0.10 dev br-l2");
    wait_for("watch adds it", 2, || entries(&host) == entry("br-l2", 132));
}
