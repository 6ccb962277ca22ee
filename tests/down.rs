//! `down` against a real kernel: it takes a guest's route away whatever stands in its way, and no other guest's. They need
//! root: `sudo tests/run`.

mod common;

use std::time::{Duration, Instant};

use common::slow::{limit, rounds};
use common::{GUEST, Host, TAP32, settled, text};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn down_works_with_a_broken_configuration() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let file = std::env::temp_dir().join(format!("tap32-{}-broken.toml", std::process::id()));
    std::fs::write(&file, "protocol = = 1").unwrap();
    let up = host.refused(&format!("up vnet0 --config {}", file.display()));
    assert!(up.contains("line 1"), "{up}");
    let output = host.run(&format!("{TAP32} down vnet0 --config {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("tap32 goes on with the defaults"), "{}", text(&output.stderr));
    assert!(host.owned().is_empty() && host.link("vnet0")["master"].is_null());

    // What says which routes are ours is still read.
    let config = format!("--config {}", file.display());
    std::fs::write(&file, "protocol = 140").unwrap();
    host.tap32(&format!("up vnet0 --mac {GUEST} {config}"));
    std::fs::write(&file, "protocol = 140\nprotocoll = 141").unwrap();
    assert!(host.run(&format!("{TAP32} down vnet0 {config}")).status.success());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(host.ok("ip route show proto 140"), "");
}

/// The `down` of a guest's old tap beside the `up` of its new one: once it is let in, it is routed.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_that_changes_its_tap_keeps_its_route() {
    let host = Host::new();
    host.add_tap("old");
    host.add_tap("new");
    for _ in 0..rounds(60) {
        host.tap32(&format!("up old --mac {GUEST}"));
        let mut down = host.command(TAP32).args(["down", "old"]).spawn().unwrap();
        let start = Instant::now();
        while !host.run(&format!("{TAP32} up new --mac {GUEST}")).status.success() {
            assert!(start.elapsed() < limit(Duration::from_secs(5)));
        }
        assert!(down.wait().unwrap().success());
        assert_eq!(host.owned(), [settled("10.0.0.10")]);
        host.tap32("down new");
        assert!(host.owned().is_empty());
    }
}

/// The kernel's own choice for the address can lead past our route: it is taken away all the same.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_route_that_the_kernel_does_not_take_is_taken_away_too() {
    let host = Host::new();
    let hides = [
        (
            "sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=1",
            "sysctl -qw net.ipv4.conf.all.ignore_routes_with_linkdown=0",
        ),
        ("ip route add unreachable 10.0.0.10/32 proto static metric 1", "ip route del unreachable 10.0.0.10/32"),
        ("ip rule add to 10.0.0.0/24 lookup 100", "ip rule del to 10.0.0.0/24 lookup 100"),
    ];
    host.ok("ip route add 10.0.0.0/16 dev br-l2 table 100");
    for (hide, show) in hides {
        host.add_tap("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        host.ok(hide);
        host.tap32("down vnet0");
        host.ok(show);
        assert!(host.owned().is_empty(), "{hide}");
        host.ok("ip link del vnet0");
    }
}
