//! `up` against a real kernel: what it makes, once, twice, many at once, and that `down` undoes it. Each test in a network
//! namespace of its own, judged by `ip -j` and `bridge -j`. They need root: `sudo tests/run`.

mod common;

use std::process::Stdio;

use common::{GUEST, Host, SETTLED, TAP32, settled, text};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn up_attaches_and_routes_and_down_undoes_it() {
    let host = Host::new();
    host.ok("ip link set br-l2 mtu 1400");
    host.add_tap("vnet0");
    let before = host.link("vnet0");
    assert_eq!(host.tap32(&format!("up vnet0 --mac {GUEST}")), "");

    let link = host.link("vnet0");
    assert_eq!(link["master"], "br-l2");
    assert_eq!(link["address"], "fe:42:0a:00:00:0a");
    assert_eq!(link["mtu"], 1400);
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()));
    assert!(host.isolated("vnet0"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    let all = host.json("ip -j -d route show proto 132");
    assert_eq!((&all[0]["scope"], &all[0]["type"]), (&"link".into(), &"unicast".into()));
    // The gateway's MAC must not follow the lowest port (br_stp_if.c).
    assert_eq!(host.link("br-l2")["address"], "02:00:00:00:00:01");

    assert_eq!(host.tap32("down vnet0"), "");
    let after = host.link("vnet0");
    assert!(after["master"].is_null());
    assert_eq!(after["flags"], before["flags"]);
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn twice_is_as_good_as_once() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let once = host.state();
    // The tap's own MAC, which the first `up` set, says all the second needs.
    assert_eq!(host.tap32("up vnet0"), "");
    assert_eq!(host.tap32("up -n vnet0"), "");
    assert_eq!(host.state(), once);

    host.tap32("down vnet0");
    let gone = host.state();
    host.tap32("down vnet0");
    assert_eq!(host.state(), gone);
    host.ok("ip link del vnet0");
    host.tap32("down vnet0");
    host.tap32(&format!("down vnet0 --mac {GUEST}"));
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn dry_run_prints_commands_that_do_the_same() {
    let by_hand = Host::new();
    by_hand.add_tap("vnet0");
    let before = by_hand.state();
    let steps = by_hand.tap32(&format!("up -n vnet0 --mac {GUEST}"));
    assert_eq!(by_hand.state(), before);
    for step in steps.lines() {
        by_hand.sh(step);
    }
    let by_tap32 = Host::new();
    by_tap32.add_tap("vnet0");
    by_tap32.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(by_hand.owned(), by_tap32.owned());
    for key in ["master", "address", "mtu", "flags"] {
        assert_eq!(by_hand.link("vnet0")[key], by_tap32.link("vnet0")[key], "{key}");
    }
    assert!(by_hand.isolated("vnet0") && by_tap32.isolated("vnet0"));
    for line in ["tc filter show dev vnet0 ingress", "ip neigh show nud permanent"] {
        assert_eq!(by_hand.ok(line), by_tap32.ok(line));
    }

    for step in by_hand.tap32("down -n vnet0").lines() {
        by_hand.ok(step);
    }
    assert!(by_hand.owned().is_empty() && by_hand.link("vnet0")["master"].is_null());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_mac_that_somebody_set_names_the_guest() {
    let host = Host::new();
    for (tap, mac) in [("vnet0", "fe:42:0a:00:00:0a"), ("vnet1", "02:42:0a:00:00:0b")] {
        host.add_tap(tap);
        host.ok(&format!("ip link set {tap} address {mac}"));
        host.tap32(&format!("up {tap}"));
    }
    assert_eq!(host.owned(), [settled("10.0.0.10"), settled("10.0.0.11")]);
    // With the guest's own MAC on the tap the bridge would take the guest's frames for the host's.
    assert_eq!(host.link("vnet1")["address"], "fe:42:0a:00:00:0b");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn isolation_is_in_force_while_the_bridge_answers_arp_for_its_ports() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp_pvlan=0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert!(!host.isolated("vnet0"));
    host.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp_pvlan=1");
    host.tap32("up vnet0");
    assert!(host.isolated("vnet0"));
}

/// Such a bridge takes the MAC of a port. Without ports it has none, which no FDB can have.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_whose_mac_nobody_has_set() {
    let host = Host::bare();
    host.ok("ip link add br-l2 type bridge");
    host.ok("ip addr add 10.0.0.1/24 dev br-l2");
    host.ok("ip link set br-l2 up");
    host.add_tap("vnet0");
    for _ in 0..2 {
        assert_eq!(host.tap32(&format!("up vnet0 --mac {GUEST}")), "");
        assert_eq!(host.owned(), [settled("10.0.0.10")]);
        assert_eq!(host.link("br-l2")["address"], "fe:42:0a:00:00:0a");
        host.tap32("down vnet0");
        assert_eq!(host.link("br-l2")["address"], "00:00:00:00:00:00");
        assert_eq!(host.tap32("reconcile -n"), "");
        host.tap32("status --check");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_managed_bridges() {
    let host = Host::new();
    host.ok("ip link add br-b address 02:00:00:00:00:02 type bridge");
    host.ok("ip addr add 10.0.1.1/24 dev br-b");
    host.ok("ip link set br-b up");
    let file = std::env::temp_dir().join(format!("tap32-{}-two.toml", std::process::id()));
    std::fs::write(&file, "[[bridge]]\nname = \"br-l2\"\n[[bridge]]\nname = \"br-b\"\n").unwrap();
    let config = format!("--config {}", file.display());
    host.add_tap("vnet0");
    host.add_tap("vnet1");
    host.tap32(&format!("up vnet0 --mac {GUEST} {config}"));
    host.tap32(&format!("up vnet1 --mac 02:42:0a:00:01:0a {config}"));
    assert_eq!(host.owned(), [settled("10.0.0.10"), ("10.0.1.10".into(), "br-b".into(), SETTLED)]);
    host.tap32(&format!("down vnet1 {config}"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    std::fs::remove_file(&file).unwrap();
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_route_of_ours_that_a_better_one_hides_is_found() {
    let host = Host::new();
    host.ok("ip link add eth0 type veth peer name eth1");
    host.ok("ip addr add 10.47.175.10/30 dev eth0");
    host.ok("ip link set eth0 up");
    host.ok("ip link set eth1 up");
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    // What zebra installs while another host claims the guest.
    host.ok("ip route add 10.0.0.10/32 via 10.47.175.9 dev eth0 proto ospf metric 20");
    let before = host.state();
    let output = host.run(&format!("{TAP32} up vnet0"));
    assert!(output.status.success());
    assert!(
        text(&output.stderr)
            .contains("duplicate: another host already announces 10.0.0.10 of vnet0 (next hop 10.47.175.9)")
    );
    assert_eq!(host.state(), before);

    let status = host.status();
    assert_eq!(status["taps"][0]["route"], "shadowed");
    assert_eq!(status["taps"][0]["next_hop"], "10.47.175.9");
    // The same of a BGP between unnumbered ends.
    host.ok("ip route replace 10.0.0.10/32 via inet6 fe80::9 dev eth0 proto ospf metric 20");
    assert_eq!(host.status()["taps"][0]["next_hop"], "fe80::9");
    host.tap32("down vnet0");
    assert!(host.owned().is_empty());
    assert_eq!(host.json("ip -j route show exact 10.0.0.10/32").as_array().unwrap().len(), 1);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn fifty_at_once() {
    let host = Host::new();
    let run_all = |verb: &dyn Fn(u32) -> String| {
        let children: Vec<_> = (10..60)
            .map(|i| {
                let arguments = verb(i);
                let command = &mut host.command(TAP32);
                command.args(arguments.split(' ')).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
    };
    (10..60).for_each(|i| host.add_tap(&format!("vnet{i}")));
    run_all(&|i| format!("up vnet{i} --mac 02:42:0a:00:00:{i:02x}"));
    assert_eq!(host.owned().len(), 50);
    let ports = host.json("bridge -j -d link show");
    assert_eq!(ports.as_array().unwrap().iter().filter(|port| port["isolated"] == true).count(), 50);
    run_all(&|i| format!("down vnet{i}"));
    assert!(host.owned().is_empty());
    assert_eq!(host.json("bridge -j link show").as_array().unwrap().len(), 0);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn of_two_at_the_same_moment_one_wins_and_the_other_leaves_nothing() {
    let host = Host::new();
    let mut wins = 0;
    for _ in 0..25 {
        host.add_tap("vnet0");
        host.add_tap("vnet1");
        let start = |tap: &str| {
            let command = &mut host.command(TAP32);
            command.args(["up", tap, "--mac", GUEST]).stderr(Stdio::piped()).spawn().unwrap()
        };
        let outputs = [start("vnet0"), start("vnet1")].map(|child| child.wait_with_output().unwrap());
        let won: Vec<bool> = outputs.iter().map(|output| output.status.success()).collect();
        let attached: Vec<bool> = ["vnet0", "vnet1"].iter().map(|tap| host.link(tap)["master"] == "br-l2").collect();
        assert_eq!(won, attached);
        assert!(won.iter().filter(|won| **won).count() <= 1);
        assert_eq!(host.owned().len(), won.iter().filter(|won| **won).count());
        wins += host.owned().len();
        host.ok("ip link del vnet0");
        host.ok("ip link del vnet1");
        host.tap32(&format!("down vnet0 --mac {GUEST}"));
        assert!(host.owned().is_empty());
    }
    // Both may lose where each sees the other attached; that must be rare, or starting a guest is a lottery.
    assert!(wins >= 20, "{wins} of 25");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_cost_does_not_grow_with_the_host() {
    let host = Host::new();
    host.add_tap("vnet0");
    let requests = || {
        let mut counted = host.command("strace");
        counted.args(["-qq", "-e", "trace=recvfrom", TAP32, "up", "vnet0", "--mac", GUEST]);
        let output = counted.output().unwrap();
        assert!(output.status.success());
        host.tap32("down vnet0");
        text(&output.stderr).lines().count()
    };
    let alone = requests();
    let batch: String = (0..20000)
        .map(|i| format!("route add 10.200.{}.{}/32 dev br-l2\n", i / 250, i % 250))
        .chain((0..100).map(|i| format!("tuntap add port{i} mode tap\nlink set port{i} master br-l2\n")))
        .collect();
    host.batch(&batch);
    assert_eq!(requests(), alone);
}

/// Also in the place of what the kernel has learned; another program's own stays.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_guest_has_a_permanent_neighbour_entry_while_it_is_here() {
    let host = Host::new();
    let entries = || host.ok("ip neigh show dev br-l2 nud permanent");
    let ours = "10.0.0.10 lladdr 02:42:0a:00:00:0a PERMANENT proto 132 \n";
    host.add_tap("vnet0");
    host.ok("ip neigh add 10.0.0.10 lladdr 02:42:0a:00:00:0b dev br-l2 nud stale");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(entries(), ours);
    for loss in ["ip neigh del 10.0.0.10 dev br-l2", "ip neigh flush dev br-l2 nud permanent"] {
        host.ok(loss);
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        assert_eq!(entries(), ours);
        host.ok(loss);
        assert!(host.tap32("reconcile").contains("ip neigh replace 10.0.0.10 lladdr 02:42:0a:00:00:0a dev br-l2"));
        assert_eq!(entries(), ours);
    }
    // QEMU is killed: the entry goes with the route.
    host.ok("ip link del vnet0");
    host.tap32("reconcile");
    assert_eq!(entries(), "");
    // Without the route it is an orphan all the same.
    host.ok("ip neigh add 10.0.0.77 lladdr 02:42:0a:00:00:4d dev br-l2 nud permanent protocol 132");
    host.tap32("reconcile");
    assert_eq!(entries(), "");
    // A person's stays, as it is.
    host.ok("ip neigh add 10.0.0.10 lladdr 02:42:0a:00:00:0b dev br-l2 nud permanent");
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.tap32("reconcile");
    host.tap32("down vnet0");
    assert_eq!(entries(), "10.0.0.10 lladdr 02:42:0a:00:00:0b PERMANENT \n");
}
