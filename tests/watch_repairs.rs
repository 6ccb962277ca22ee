//! `watch` against a real kernel: what goes wrong behind its back is mended within 200 ms, judged by `ip -j`. These tests
//! measure: tests/run gives them the machine. They need root: `sudo tests/run`.

mod common;

use common::watch::{Watch, add_by_hand, mended};
use common::{GUEST, Host, SETTLED, crowd, settled, wait_for};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_goes_wrong_is_mended_within_200_ms() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let watch = Watch::start(&host);
    let both = [settled("10.0.0.10"), settled("10.0.0.11")];

    mended(
        "a tap added to the bridge by hand",
        || add_by_hand(&host, "vnet1", 11),
        || host.owned() == both && host.isolated("vnet1"),
    );
    mended("a tap deleted", || drop(host.ok("ip link del vnet1")), || host.owned() == both[..1]);
    add_by_hand(&host, "vnet1", 11);
    wait_for("both", 5, || host.owned() == both);
    mended("an owned route deleted", || drop(host.ok("ip route del 10.0.0.11/32")), || host.owned() == both);
    mended("all of them flushed", || drop(host.ok("ip route flush proto 132")), || host.owned() == both);
    mended(
        "a route without a tap",
        || drop(host.ok(&format!("ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric {SETTLED}"))),
        || host.owned() == both,
    );
    mended(
        "isolation taken off",
        || drop(host.ok("bridge link set dev vnet1 isolated off")),
        || host.isolated("vnet1"),
    );
    mended(
        "the bridge down and up",
        || {
            host.ok("ip link set br-l2 down");
            host.ok("ip link set br-l2 up");
        },
        || host.owned() == both,
    );
    mended(
        "the gateway address removed and added",
        || {
            host.ok("ip addr del 10.0.0.1/24 dev br-l2");
            host.ok("ip addr add 10.0.0.1/24 dev br-l2");
        },
        || host.owned() == both,
    );
    // Only what was so for the moment in which the bridge was down, or had no address.
    let said = watch.said();
    assert!(said.lines().all(|line| line.contains(" is refused: bridge br-l2 ")), "{said}");
    assert_eq!(watch.metric("tap32_guest_routes{state=\"settled\"}"), 2.0);
    assert!(watch.metric("tap32_repairs_total{kind=\"add_route\"}") >= 6.0);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_hundred_taps_in_one_burst() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    let watch = Watch::start(&host);
    let before = watch.metric("tap32_pass_duration_seconds_count");
    mended("200 taps in one burst", || host.batch(&crowd(200)), || host.owned().len() == 200);
    let passes = || watch.metric("tap32_pass_duration_seconds_count") - before;
    wait_for("the metrics", 5, || passes() > 0.0);
    let passes = passes();
    println!("in {passes} passes");
    assert!(passes < 100.0, "a storm of some 2,000 events must not cost a pass each: {passes}");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lost_events_mean_a_full_pass() {
    let host = Host::new();
    host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    let watch = Watch::start(&host);
    watch.signal("STOP");
    let stopped = || std::fs::read_to_string(format!("/proc/{}/stat", watch.pid())).unwrap().contains(") T ");
    wait_for("stopped", 5, stopped);
    // The socket holds 16 MiB of events, and each takes at least 768 octets of that: a struct sk_buff and its data.
    host.batch(&(0..22_000).map(|i| format!("link set lo alias {i}\n")).collect::<String>());
    host.batch(&crowd(400));
    mended("the event socket overrun", || watch.signal("CONT"), || host.owned().len() == 400);
    wait_for("the metrics", 5, || watch.metric("tap32_lost_events_total") >= 1.0);
    // Those whose events were not lost are left to their hooks for a second.
    wait_for("guarded", 3, || host.tap32("reconcile -n").is_empty());
}
