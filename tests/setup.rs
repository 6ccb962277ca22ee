//! `setup` against a real kernel, judged by `ip -j` and `sysctl`. They need root: `sudo tests/run`.

mod common;

use std::path::Path;
use std::process::Command;

use common::case::Case;
use common::setup::{CONFIG, addresses, assert_set_up, bare, is_up};
use common::{Host, TAP32, text};

/// All that setup could change, as other programs see it.
fn state(host: &Host) -> String {
    host.ok("ip -o link show") + &host.ok("ip -o addr show") + &host.ok("sysctl -a -r ^net.ipv4.(conf|neigh|fib)")
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_empty_host_is_set_up_and_a_second_run_says_nothing() {
    let (host, _folder, setup) = bare();
    let before = state(&host);
    let planned = host.tap32(&format!("{setup} -n"));
    assert!(state(&host) == before, "something changed");
    assert_eq!(host.tap32(&setup), planned);
    assert_set_up(&host);
    // A port must not change the gateway's MAC, however low its own is.
    host.add_tap("vnet0");
    host.ok("ip link set vnet0 address 00:00:00:00:00:0a master br-l2 up");
    assert_eq!(host.link("br-l2")["address"], "02:42:0a:00:00:01");

    let after = state(&host);
    assert_eq!(host.tap32(&setup), "");
    assert_eq!(host.tap32(&format!("{setup} -n")), "");
    assert!(state(&host) == after, "something changed");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_it_prints_does_the_same_by_hand() {
    let (host, _folder, setup) = bare();
    for line in host.tap32(&format!("{setup} -n")).lines() {
        host.ok(line);
    }
    assert_set_up(&host);
    assert_eq!(host.tap32(&setup), "");
}

/// Each thing that setup makes is taken away in turn: one command, the right one, brings it back.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn whatever_is_missing_comes_back() {
    let (host, _folder, setup) = bare();
    host.tap32(&setup);
    for (fault, mend) in [
        ("ip link set br-l2 type bridge stp_state 1", "ip link set dev br-l2 type bridge stp_state 0"),
        ("ip link set br-l2 down", "ip link set dev br-l2 up"),
        ("ip addr del 10.0.0.1/24 dev br-l2", "ip addr add 10.0.0.1/24 dev br-l2"),
        ("ip addr del 10.47.175.14/30 dev eth1", "ip addr add 10.47.175.14/30 dev eth1"),
        ("ip addr del 10.47.176.132/32 dev lo", "ip addr add 10.47.176.132/32 dev lo"),
        ("ip link set eth0 down", "ip link set dev eth0 up"),
        ("sysctl -w net.ipv4.conf.eth1.forwarding=0", "sysctl -w net.ipv4.conf.eth1.forwarding=1"),
        ("sysctl -w net.ipv4.conf.all.forwarding=0", "sysctl -w net.ipv4.conf.all.forwarding=1"),
        ("sysctl -w net.ipv4.conf.br-l2.proxy_arp=0", "sysctl -w net.ipv4.conf.br-l2.proxy_arp=1"),
        ("sysctl -w net.ipv4.neigh.br-l2.proxy_delay=80", "sysctl -w net.ipv4.neigh.br-l2.proxy_delay=0"),
        ("sysctl -w net.ipv4.conf.eth0.rp_filter=1", "sysctl -w net.ipv4.conf.eth0.rp_filter=2"),
        ("sysctl -w net.ipv4.fib_multipath_hash_policy=0", "sysctl -w net.ipv4.fib_multipath_hash_policy=1"),
    ] {
        host.ok(fault);
        assert_eq!(host.tap32(&setup), format!("{mend}\n"), "after {fault}");
        assert_set_up(&host);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_that_was_there_keeps_what_is_not_ours() {
    let (host, folder, setup) = bare();
    host.ok("ip link add br-l2 address 02:00:00:00:00:01 mtu 1400 type bridge");
    host.ok("ip addr add 10.0.0.254/24 dev br-l2");
    host.ok("ip addr add 192.0.2.1/24 dev eth0");
    host.ok("ip link add virbr0 type bridge stp_state 1");
    host.tap32(&setup);
    assert_eq!(addresses(&host, "br-l2"), ["10.0.0.254/24", "10.0.0.1/24"]);
    assert_eq!(addresses(&host, "eth0"), ["192.0.2.1/24", "10.47.175.10/30"]);
    let bridge = host.link("br-l2");
    assert_eq!((&bridge["address"], &bridge["mtu"]), (&"02:00:00:00:00:01".into(), &1400.into()));
    assert_eq!(host.link("virbr0")["linkinfo"]["info_data"]["stp_state"], 1);
    assert!(!is_up(&host, "virbr0"));

    let named = CONFIG.replacen("\ngateway", "\nmac = \"02:00:00:00:00:07\"\nmtu = 9000\ngateway", 1);
    folder.write("tap32.toml", &named);
    let expected = "ip link set dev br-l2 address 02:00:00:00:00:07\nip link set dev br-l2 mtu 9000\n";
    assert_eq!(host.tap32(&setup), expected);
    let bridge = host.link("br-l2");
    assert_eq!((&bridge["address"], &bridge["mtu"]), (&"02:00:00:00:00:07".into(), &9000.into()));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_whose_mac_follows_its_ports_gets_one_of_its_own() {
    let (host, _folder, setup) = bare();
    host.ok("ip link add br-l2 type bridge");
    host.add_tap("vnet0");
    host.ok("ip link set vnet0 address 00:00:00:00:00:0a master br-l2");
    assert_eq!(host.link("br-l2")["address"], "00:00:00:00:00:0a");
    assert!(host.tap32(&setup).starts_with("ip link set dev br-l2 address 02:42:0a:00:00:01\n"));
    assert_set_up(&host);
}

/// What cannot be done is told with its cause, and everything else is done.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_failure_is_told_and_the_rest_is_done() {
    let (host, folder, setup) = bare();
    host.ok("ip link del eth1");
    let output = host.run(&format!("{TAP32} {setup}"));
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("tap32: setup: there is no interface eth1: `ip link`") && said.lines().count() == 1,
        "{said}"
    );
    assert!(text(&output.stdout).contains("ip addr add 10.47.175.10/30 dev eth0\n"));
    assert_eq!(addresses(&host, "eth0"), ["10.47.175.10/30"]);

    host.ok("ip link del br-l2");
    host.ok("ip link add br-l2 type veth peer name eth1");
    let said = text(&host.run(&format!("{TAP32} {setup}")).stderr);
    assert!(said.contains("br-l2 exists and is not a bridge"), "{said}");
    assert!(!host.ok("sysctl net.ipv4.conf.br-l2.proxy_arp").contains("= 1"), "it is somebody else's");
    host.ok("ip link del br-l2");

    // As an ordinary user: nothing happens, and the line says what it takes.
    host.ok("ip link add eth1 type veth peer name sw1");
    let readable = Path::new(&folder.0).join("tap32");
    std::fs::copy(TAP32, &readable).unwrap();
    let before = state(&host);
    let output = host.run(&format!("setpriv --reuid 65534 --clear-groups {} {setup}", readable.display()));
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    assert!(said.contains("tap32 needs root") && said.lines().count() == 1, "{said}");
    assert!(state(&host) == before, "something changed");

    // /proc/sys read-only, as in a container.
    let script = format!("mount -o bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && {TAP32} {setup}");
    let output = host.command("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("/proc/sys/net/ipv4/conf/"), "{said}");
    assert!(said.contains("`mount -o remount,rw /proc/sys`") && said.contains(" more problems"), "{said}");
    assert_eq!(addresses(&host, "br-l2"), ["10.0.0.1/24"]);
    host.tap32(&setup);
    assert_set_up(&host);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_host_that_is_not_configured_is_not_touched() {
    let (host, folder, _) = bare();
    for contents in ["", "# [[bridge]]\n", "[[bridge]]\nname = \"br-l2\"\nprefixes = [\"10.0.0.0/24\"]\n"] {
        let file = folder.write("empty.toml", contents);
        let before = state(&host);
        let output = host.run(&format!("{TAP32} setup --config {file}"));
        assert!(output.status.success() && output.stdout.is_empty());
        assert!(text(&output.stderr).contains("describes nothing to set up"), "{}", text(&output.stderr));
        assert!(state(&host) == before, "something changed");
    }
}

/// What packaging/systemd/tap32-setup.service leaves of root's power is enough.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_capability_is_enough() {
    let (host, _folder, setup) = bare();
    let unit = include_str!("../packaging/systemd/tap32-setup.service");
    assert!(unit.contains("\nCapabilityBoundingSet=CAP_NET_ADMIN\n") && unit.contains("\nNoNewPrivileges=yes\n"));
    let confined = "setpriv --inh-caps=-all --bounding-set=-all,+net_admin --no-new-privs";
    host.ok(&format!("{confined} {TAP32} {setup}"));
    assert_set_up(&host);
}

/// Every text for FRR in tests/golden/render is one that FRR itself reads without an error.
#[test]
#[ignore = "needs FRR: sudo tests/run"]
fn vtysh_reads_every_rendered_text() {
    let mut read = 0;
    for case in Case::all("render") {
        let what = case.read("what").unwrap();
        let text = case.folder().join("expected");
        // A case that inherits its text has no such file.
        let is_text = std::fs::read_to_string(&text).is_ok_and(|text| !text.starts_with("error: "));
        if !is_text || !(what.starts_with("frr") || what.starts_with("switch frr")) {
            continue;
        }
        let output = Command::new("vtysh").arg("-C").arg("-f").arg(&text).output().unwrap();
        let said = common::text(&output.stdout) + &common::text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", text.display());
        read += 1;
    }
    assert!(read >= 4, "{read}");
}
