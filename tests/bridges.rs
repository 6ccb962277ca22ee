//! Managed bridges with a port that is no tap, behind which a whole LAN may be: `setup` refuses them, doctor and `watch`
//! report them, and guests that run go on. They need root: `sudo tests/run`.

mod common;

use common::setup::{Folder, sysctl};
use common::watch::Watch;
use common::{GUEST, Host, TAP32, settled, text, wait_for};

const TWO: &str = "[[bridge]]\nname = \"br-new\"\ngateway = \"10.1.0.1/24\"\n\n[[bridge]]\nname = \"br-l2\"\ngateway = \"10.0.0.1/24\"\n";

/// All that setup could change.
fn state(host: &Host) -> String {
    host.state() + &host.ok("ip -o -4 addr show") + &host.ok("sysctl -a -r ^net.(ipv4|ipv6.conf.*accept_ra$)")
}

/// A host whose bridge somebody else has made, as Debian's bridge_ports and Proxmox do: without proxy_arp.
fn with_bridge() -> (Host, Folder, String) {
    let host = Host::bare();
    host.ok("ip link add br-l2 type bridge");
    host.ok("ip addr add 10.0.0.1/24 dev br-l2");
    host.ok("ip link set br-l2 up");
    let folder = Folder::new(&host);
    let setup = format!("setup --config {}", folder.write("tap32.toml", TWO));
    (host, folder, setup)
}

/// A name, and the lines that make an interface of this name. tests/vrf.rs has kinds that this machine's kernel may lack.
const PORTS: &[(&str, &[&str])] = &[
    ("eth0", &["ip link add eth0 type veth peer name lan"]),
    ("ifb0", &["ip link add ifb0 type ifb"]),
    ("vx0", &["ip link add low type veth peer name lan", "ip link add vx0 type vxlan id 7 dstport 4789 dev low"]),
    (
        "macvlan0",
        &["ip link add low type veth peer name lan", "ip link add link low name macvlan0 type macvlan mode bridge"],
    ),
];

#[test]
#[ignore = "needs root: sudo tests/run"]
fn setup_refuses_a_port_that_is_no_tap_and_changes_nothing() {
    for (port, lines) in PORTS {
        let (host, folder, setup) = with_bridge();
        host.add_tap("vnet0");
        host.ok("ip link set vnet0 master br-l2");
        for line in *lines {
            host.ok(line);
        }
        host.ok(&format!("ip link set {port} master br-l2 up"));
        let before = state(&host);
        let take_off = format!("ip link set dev {port} nomaster");
        for call in [setup.clone(), format!("{setup} -n")] {
            let said = host.refused(&call);
            for part in ["br-l2", port, &format!("`{take_off}`"), "other-ports = true"] {
                assert!(said.contains(part), "{part}: {said}");
            }
            assert!(!said.contains("vnet0"), "{said}");
            assert_eq!(state(&host), before, "{call} with {port}");
        }
        // The one way out, and then the other.
        host.ok(&take_off);
        host.tap32(&setup);
        assert_eq!(sysctl(&host, "net.ipv4.conf.br-l2.proxy_arp"), "1");
        host.ok(&format!("ip link set {port} master br-l2"));
        host.refused(&setup);
        folder.write("tap32.toml", &format!("{TWO}other-ports = true\n"));
        host.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp=0");
        assert_eq!(host.tap32(&setup), "sysctl -w net.ipv4.conf.br-l2.proxy_arp=1\n");
        assert_eq!(host.link(port)["master"], "br-l2");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_bridge_and_port_is_named_also_of_a_bridge_that_setup_leaves_alone() {
    let (host, folder, setup) = with_bridge();
    host.ok("ip link add br-other type bridge");
    folder.write("tap32.toml", &format!("{TWO}\n[[bridge]]\nname = \"br-other\"\n"));
    for (port, bridge) in [("eth0", "br-l2"), ("eth1", "br-l2"), ("eth2", "br-other")] {
        host.ok(&format!("ip link add {port} type ifb"));
        host.ok(&format!("ip link set {port} master {bridge}"));
    }
    let before = state(&host);
    let said = host.refused(&setup);
    for part in ["br-l2", "br-other", "set dev eth0 nomaster", "set dev eth1 nomaster", "set dev eth2 nomaster"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(state(&host), before);
}

/// Asks from `lan` for an address that nobody has, and then for the host's own; prints what was answered up to then.
const ASK: &str = "import socket, sys
lan = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
lan.bind(('lan', 0))
lan.settimeout(5)
mac = lan.getsockname()[4]
for address in ['10.0.0.77', '10.0.0.1']:
    arp = bytes.fromhex('0001080006040001') + mac + socket.inet_aton('10.0.0.200') + bytes(6) + socket.inet_aton(address)
    lan.send(b'\\xff' * 6 + mac + b'\\x08\\x06' + arp)
answers = []
while '10.0.0.1' not in answers:
    frame = lan.recv(100)
    if frame[20:22] == b'\\x00\\x02':
        answers.append(socket.inet_ntoa(frame[28:32]))
print(*answers)";

/// The fault itself: with `other-ports = true` this host answers for all of the LAN, and after a refusal for nothing but
/// its own address.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_lan_behind_a_port_hears_only_of_the_hosts_own_address() {
    let (host, folder, setup) = with_bridge();
    host.ok("ip link add eth0 type veth peer name lan");
    host.ok("ip link set eth0 master br-l2 up");
    host.ok("ip link set lan up");
    let answers = || {
        wait_for("the port forwards", 5, || {
            host.json("bridge -j link show dev eth0")
                .as_array()
                .unwrap()
                .iter()
                .any(|port| port["state"] == "forwarding")
        });
        text(&host.command("python3").args(["-c", ASK]).output().unwrap().stdout)
    };
    let _ = host.run(&format!("{TAP32} {setup}"));
    assert_eq!(answers(), "10.0.0.1\n");
    folder.write("tap32.toml", &format!("{TWO}other-ports = true\n"));
    host.tap32(&setup);
    assert_eq!(answers(), "10.0.0.77 10.0.0.1\n", "what other-ports allows");
}

/// Guests that run must not be cut off by a port that somebody adds.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_port_added_later_stops_no_guest_and_watch_reports_it_once() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let watch = Watch::start(&host);
    assert!(!watch.said().contains("other-ports"), "{}", watch.said());
    host.ok("ip link add eth0 type veth peer name lan");
    host.ok("ip link set eth0 master br-l2 up");
    wait_for("the warning", 5, || watch.said().contains("br-l2"));
    let said = watch.said();
    assert!(said.contains("`ip link set dev eth0 nomaster`") && said.contains("other-ports = true"), "{said}");
    host.add_tap("vnet1");
    host.tap32("up vnet1 --mac 02:42:0a:00:00:0b");
    host.ok("ip route flush proto 132");
    let both = [settled("10.0.0.10"), settled("10.0.0.11")];
    wait_for("watch goes on", 5, || host.owned() == both);
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(watch.said().matches("eth0").count(), said.matches("eth0").count(), "{}", watch.said());
    let passes = || watch.metric("tap32_pass_duration_seconds_count");
    let before = passes();
    host.ok("ip link set eth0 nomaster");
    // One pass may have been under way.
    watch.signal("HUP");
    wait_for("watch sees that it is right", 5, || passes() >= before + 2.0);
    host.ok("ip link set eth0 master br-l2");
    wait_for("again, after it was right", 5, || {
        watch.said().matches("eth0").count() == 2 * said.matches("eth0").count()
    });
    assert_eq!(watch.end(), Some(0));
}
