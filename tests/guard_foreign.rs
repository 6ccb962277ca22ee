//! The guard beside filters of other programs on the same tap: each keeps its own, byte for byte. They need root:
//! `sudo tests/run`.

mod common;

use common::guard::{PASSES_ALL, Toml, program};
use common::{GUEST, Guest, Host, TAP32, settled, text, wait_for};

const ANOTHER: &str = "02:42:0a:00:00:0b";

fn with_tap() -> Host {
    let host = Host::new();
    host.add_tap("vnet0");
    host
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn filters_of_others_stay() {
    let host = with_tap();
    let all = [
        format!("egress pref 5 protocol all {PASSES_ALL}"),
        format!("ingress pref 5 protocol ip {PASSES_ALL}"),
        "ingress pref 49152 protocol all u32 match u32 0 0 flowid :1".to_owned(),
        // At the guard's preference, and even with its handle, but at the tap's other end.
        format!("ingress pref 1 handle 1 protocol all {PASSES_ALL}"),
        format!("egress pref 1 handle 132 protocol all {PASSES_ALL}"),
    ];
    let unguarded = Toml::unguarded(&host);
    for filters in all.iter().map(std::slice::from_ref).chain([&all[..]]) {
        host.tc("qdisc add dev vnet0 clsact");
        for filter in filters {
            host.tc(&format!("filter add dev vnet0 {filter}"));
        }
        let before = host.traffic_control("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        assert!(host.is_guarded("vnet0", GUEST), "{filters:?}");
        host.tap32(&format!("reconcile {unguarded}"));
        assert_eq!(host.traffic_control("vnet0"), before);
        host.tap32("reconcile");
        assert!(host.is_guarded("vnet0", GUEST), "{filters:?}");
        host.tap32("down vnet0");
        assert_eq!(host.traffic_control("vnet0"), before);
        host.tc("qdisc del dev vnet0 clsact");
    }
    // One that comes behind the guard.
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.tc(&format!("filter add dev vnet0 {}", all[0]));
    host.tap32("down vnet0");
    assert!(host.filters("vnet0", "ingress").is_empty() && host.has_qdisc("vnet0", "clsact"));
    assert_eq!(host.filters("vnet0", "egress").len(), 1);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn where_another_has_the_guards_place_up_refuses_and_leaves_all_as_it_was() {
    let host = with_tap();
    host.tc("qdisc add dev vnet0 clsact");
    host.tc("filter add dev vnet0 ingress pref 1 protocol ip u32 match u32 0 0 flowid :1");
    let filters = host.traffic_control("vnet0");
    let of = || host.state() + &host.traffic_control("vnet0");
    let before = of();
    let said = host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert!(said.contains("`tc filter show dev vnet0 ingress`") && said.contains("`guard = false`"), "{said}");
    assert_eq!(of(), before);
    assert!(host.link("vnet0")["master"].is_null() && host.owned().is_empty());
    // As the sentence says.
    let unguarded = Toml::unguarded(&host);
    host.tap32(&format!("up vnet0 --mac {GUEST} {unguarded}"));
    // A running guest keeps its route.
    let output = host.run(&format!("{TAP32} reconcile"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("`tc filter show dev vnet0 ingress`"), "{}", text(&output.stderr));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    host.tap32("down vnet0");
    assert_eq!(host.traffic_control("vnet0"), filters);
    assert!(host.owned().is_empty());
}

/// libvirt's `<bandwidth>`: a qdisc of the kind `ingress`, and a policer for all frames at a preference that the kernel
/// chooses (virNetDevBandwidthSet). act_police is not in every kernel: an action that sends the frame elsewhere stands
/// here for it, and tells as well whether the policer gets its turn.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn libvirts_policer_gets_every_frame_that_the_guard_lets_through() {
    let policer = "filter add dev vnet0 parent ffff: protocol all u32 match u32 0 0 flowid :1 action mirred egress \
                   redirect dev elsewhere";
    for libvirt_first in [true, false] {
        let host = with_tap();
        host.ok("ip link add elsewhere type veth peer name end");
        host.ok("ip link set elsewhere up");
        host.ok("ip link set end up");
        if libvirt_first {
            host.tc("qdisc add dev vnet0 ingress");
            host.tc(policer);
        }
        let before = host.traffic_control("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        if !libvirt_first {
            // libvirt is refused both where it did not come first.
            assert!(!host.run("tc qdisc add dev vnet0 ingress").status.success());
            host.tc(&policer.replace("parent ffff:", "ingress"));
        }
        assert!(host.is_guarded("vnet0", GUEST));
        assert_eq!(host.has_qdisc("vnet0", "clsact"), !libvirt_first);
        assert_eq!(host.filters("vnet0", "ingress").iter().filter(|filter| filter["kind"] == "u32").count(), 2);
        host.tap32("status --check");

        let policed = || {
            let filters = host.json("tc -j -s filter show dev vnet0 ingress");
            let action = |filter: &serde_json::Value| filter["options"]["actions"][0]["stats"]["packets"].as_u64();
            filters.as_array().unwrap().iter().find_map(action).unwrap()
        };
        let mut guest = Guest::open(&host, "vnet0");
        guest.frame_from(ANOTHER);
        guest.frame_from(GUEST);
        wait_for("the policer's frame", 5, || policed() == 1);
        assert!(host.ports_with(GUEST).is_empty() && host.ports_with(ANOTHER).is_empty());
        let said = host.tap32("status vnet0");
        assert!(said.contains("on, has dropped 1 frame\n"), "{said}");

        host.tap32("down vnet0");
        assert!(host.guard("vnet0").is_empty());
        if libvirt_first {
            // The kernel says of every filter of an `ingress` what parent the last was added with (block->classid).
            let without_parent = |text: &str| text.replace(" parent ffff:", "").replace("filter ingress", "filter");
            assert_eq!(without_parent(&host.traffic_control("vnet0")), without_parent(&before));
        } else {
            assert!(host.has_qdisc("vnet0", "clsact") && !host.filters("vnet0", "ingress").is_empty());
        }
    }
}

/// A `domiftune` behind the guard: libvirt deletes its `ingress` with all that is on it, and makes it anew.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_new_bandwidth_takes_the_guard_and_reconcile_puts_it_back() {
    let host = with_tap();
    host.tc("qdisc add dev vnet0 ingress");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.tc("filter add dev vnet0 parent ffff: protocol all u32 match u32 0 0 flowid :1");
    host.tap32("status --check");
    host.tc("qdisc del dev vnet0 ingress");
    host.tc("qdisc add dev vnet0 ingress");
    assert!(host.guard("vnet0").is_empty());
    let steps = host.tap32("reconcile");
    assert!(steps.contains(&format!("pref 1 handle 132 protocol all bpf da bytecode '{}'", program(GUEST))), "{steps}");
    assert!(host.is_guarded("vnet0", GUEST));
}
