//! `setup` against a real kernel, judged by `ip -j` and `sysctl`. They need root: `sudo tests/run`.

mod common;

use std::path::Path;
use std::process::Command;

use common::case::Case;
use common::setup::{CONFIG, addresses, assert_set_up, bare, is_up};
use common::{Host, TAP32, text, wait_for};

/// All that setup could change, as other programs see it.
fn state(host: &Host) -> String {
    host.ok("ip -o link show")
        + &host.ok("ip -o addr show")
        + &host.ok("sysctl -a -r ^net.(ipv4.(conf|neigh|fib)|ipv6.conf.*accept_ra$)")
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
        ("sysctl -w net.ipv6.conf.br-l2.accept_ra=1", "sysctl -w net.ipv6.conf.br-l2.accept_ra=0"),
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

/// A guest without a guard says that it is a router.
const ROUTER: &str = "import socket, struct
head = bytes.fromhex('fe80') + bytes(6) + bytes.fromhex('00420afffe00000a') + bytes.fromhex('ff02') + bytes(13) + b'\x01'
prefix = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 3600, 1800, 0) + bytes.fromhex('20010db8') + bytes(12)
said = lambda sum: struct.pack('!BBHBBHII', 134, 0, sum, 64, 0, 1800, 0, 0) + prefix
words = head + struct.pack('!II', len(said(0)), 58) + said(0)
sum = sum(struct.unpack('!%dH' % (len(words) // 2), words))
while sum >> 16: sum = (sum & 0xffff) + (sum >> 16)
packet = struct.pack('!IHBB', 6 << 28, len(said(0)), 58, 255) + head + said(sum ^ 0xffff)
guest = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
guest.bind(('guest', 0))
guest.send(bytes.fromhex('333300000001' '02420a00000a' '86dd') + packet)";

#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_guest_becomes_the_router_of_the_host() {
    let (host, folder, setup) = bare();
    folder.write("tap32.toml", &CONFIG.replacen("\ngateway", "\nother-ports = true\ngateway", 1));
    host.ok("ip link add br-l2 type bridge");
    host.ok("ip link add port type veth peer name guest");
    for link in ["br-l2", "guest", "port master br-l2"] {
        host.ok(&format!("ip link set {link} up"));
    }
    let advertise = || assert!(host.command("python3").args(["-c", ROUTER]).status().unwrap().success());
    let taken = || host.ok("ip -6 addr show dev br-l2 scope global") + &host.ok("ip -6 route show default");
    let heard = || {
        let counters = host.ok("cat /proc/net/dev_snmp6/br-l2");
        let line = counters.lines().find(|line| line.starts_with("Icmp6InRouterAdvertisements")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    // The bridge has no link-local address at first, and until then listens to nobody.
    wait_for("the host takes an address and a route", 10, || {
        advertise();
        taken().contains("2001:db8:") && taken().contains("default via fe80::42:aff:fe00:a dev br-l2")
    });
    host.tap32(&setup);
    host.ok("ip -6 addr flush dev br-l2 scope global");
    host.ok("ip -6 route flush default");
    assert_eq!(taken(), "");
    let before = heard();
    advertise();
    wait_for("the host hears it", 5, || heard() > before);
    assert_eq!(taken(), "");
}

/// Of the kernel, or of a bridge with a small MTU.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn without_ipv6_no_switch_of_it_is_missed() {
    let (host, folder, setup) = bare();
    let ipv4 = folder.0.join("ipv4").display().to_string();
    let script = format!(
        "mkdir {ipv4} && mount --bind /proc/sys/net/ipv4 {ipv4} && mount -t tmpfs none /proc/sys/net && \
         mkdir /proc/sys/net/ipv4 && mount --bind {ipv4} /proc/sys/net/ipv4 && {TAP32} {setup} && {TAP32} {setup}"
    );
    let output = host.command("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}");
    assert!(out.matches("br-l2.proxy_arp=1").count() == 1 && !out.contains("ipv6"), "{out}");
    let switch = "sysctl -w net.ipv6.conf.br-l2.accept_ra=0\n";
    assert_eq!(host.tap32(&setup), switch);
    host.ok("ip link set br-l2 mtu 1279");
    assert_eq!(host.tap32(&setup), "");
    host.ok("ip link set br-l2 mtu 1280");
    assert_eq!(host.tap32(&setup), switch);
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
        if !is_text || !["frr", "switch frr", "border frr"].iter().any(|frr| what.starts_with(frr)) {
            continue;
        }
        let output = Command::new("vtysh").arg("-C").arg("-f").arg(&text).output().unwrap();
        let said = common::text(&output.stdout) + &common::text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", text.display());
        read += 1;
    }
    assert!(read >= 4, "{read}");
}
