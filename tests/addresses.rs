//! Which addresses of a prefix guests may have, and that no sentence shows another mac-prefix than the configured one. They
//! need root: `sudo tests/run`.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use common::hooks::{Hooks, domain};
use common::setup::Folder;
use common::view::View;
use common::{Background, Host, TAP32, settled, string, text, wait_for};

const ROUTED: &str = "[[bridge]]\nname = \"br-l2\"\nprefixes = [\"198.51.100.0/29\"]\n";

/// Opens a tap as QEMU does and keeps it open. Prints the destination MAC of the first UDP packet that the host sends into
/// it, after a line that says that it is open.
const LISTEN: &str = "import fcntl, os, signal, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
print('open', flush=True)
while True:
    frame = os.read(tap, 2000)
    if frame[12:14] == b'\\x08\\x00' and frame[23] == 17:
        print(frame[:6].hex(':'), flush=True)
        signal.pause()";

/// Sends until the guest's tap has one.
fn what_comes_for(host: &Host, address: &str, child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "open");
    wait_for("the port forwards", 5, || {
        let ports = host.json("bridge -j link show");
        ports.as_array().unwrap().iter().any(|port| port["state"] == "forwarding")
    });
    let send =
        format!("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{address}', 9))");
    assert!(host.command("python3").args(["-c", &send]).status().unwrap().success());
    lines.next().unwrap().unwrap()
}

/// Of a routed /29 each of the eight addresses is paid for, and packets reach a guest with the first and with the last.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_ends_of_a_prefix_that_no_interface_has_are_guests_like_others() {
    let host = Host::new();
    let folder = Folder::new(&host);
    let config = format!("--config {}", folder.write("tap32.toml", ROUTED));
    let mut guests = Vec::new();
    for last in [0, 7] {
        let (tap, address) = (format!("vnet{last}"), format!("198.51.100.{last}"));
        let mac = format!("02:42:c6:33:64:0{last}");
        host.add_tap(&tap);
        host.tap32(&format!("up {tap} --mac {mac} {config}"));
        assert_eq!(host.tap32(&format!("up {tap} --mac {mac} {config} -n")), "");
        let route = host.json(&format!("ip -j route get {address}"));
        assert_eq!((&route[0]["dev"], &route[0]["type"]), (&"br-l2".into(), &serde_json::Value::Null), "{route}");
        let mut python = host.command("python3");
        let listening = python.args(["-c", LISTEN, &tap]).stdout(Stdio::piped()).spawn().unwrap();
        let mut listening = Background(listening);
        assert_eq!(what_comes_for(&host, &address, &mut listening.0), mac);
        guests.push(listening);
    }
    assert_eq!(host.owned(), [settled("198.51.100.0"), settled("198.51.100.7")]);
    let status: serde_json::Value =
        serde_json::from_str(&host.tap32(&format!("status --json --check {config}"))).unwrap();
    assert!(status["taps"].as_array().unwrap().iter().all(|tap| tap["route"] == "settled"), "{status}");
    assert_eq!(host.tap32(&format!("reconcile {config}")), "");
}

/// Where an interface is on link in the prefix, its ends are refused: the bridge, as configured or by hand, or any other
/// interface, whose broadcast route the kernel takes first.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_ends_of_a_subnet_of_the_host_are_refused_wherever_it_is() {
    for (line, toml) in [
        ("ip addr add 198.51.100.1/29 dev br-l2", ROUTED.to_owned()),
        ("true", format!("{ROUTED}gateway = \"198.51.100.1/29\"\n")),
        // To the guests alone they are a subnet's ends.
        ("true", format!("{ROUTED}gateway = \"198.51.100.1/29\"\non-link = false\n")),
        ("ip addr add 198.51.100.1/29 dev eth5", ROUTED.to_owned()),
        // A subnet around the prefix and one inside it have other ends.
        ("ip addr add 198.51.100.1/30 dev eth5", ROUTED.to_owned()),
    ] {
        let host = Host::new();
        let folder = Folder::new(&host);
        let config = format!("--config {}", folder.write("tap32.toml", &toml));
        host.ok("ip link add eth5 type veth peer name eth6");
        host.ok("ip link set eth5 up");
        host.ok("ip link set eth6 up");
        host.ok(line);
        let small = line.contains("/30");
        let refused = if small { [0, 3] } else { [0, 7] };
        host.add_tap("vnet0");
        let before = host.state();
        for last in refused {
            let said = host.refused(&format!("up vnet0 --mac 02:42:c6:33:64:0{last} {config}"));
            assert!(
                said.contains(&format!("198.51.100.{last} is the ")) && said.contains("address of"),
                "{line}: {said}"
            );
            assert_eq!(host.state(), before, "{line}");
        }
        // A tap that somebody has made a port with such an address is refused by those that look at the whole host.
        for last in refused {
            host.ok(&format!("ip link set vnet0 address fe:42:c6:33:64:0{last} master br-l2 up"));
            assert_eq!(host.tap32(&format!("reconcile {config}")), "", "{line}");
            let status: serde_json::Value =
                serde_json::from_str(&host.tap32(&format!("status --json {config}"))).unwrap();
            assert_eq!(status["taps"][0]["route"], "refused", "{line} {last}: {status}");
        }
        assert!(host.owned().is_empty());
        if small {
            host.ok("ip link set vnet0 nomaster down");
            host.tap32(&format!("up vnet0 --mac 02:42:c6:33:64:07 {config}"));
            assert_eq!(host.owned(), [settled("198.51.100.7")]);
        }
    }
}

/// OpenNebula's MACs are 02:00 and the address.
const OPENNEBULA: &str = "mac-prefix = \"02:00\"\n\n[[bridge]]\nname = \"br-l2\"\ngateway = \"10.0.0.1/24\"\n\
     mac = \"02:00:00:00:00:01\"\n\n[migration]\nsettle = \"1s\"\n";

/// All that tap32 says, on stdout and stderr, with and without success.
fn said(host: &Host, arguments: &str) -> String {
    let output = host.run(&format!("{TAP32} {arguments}"));
    text(&output.stdout) + &text(&output.stderr)
}

fn has_only_this_prefix(what: &str, said: &str) {
    for other in ["02:42", "fe:42", "0242", "02-42"] {
        assert!(!said.to_lowercase().contains(other), "{what} says {other}:\n{said}");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_word_has_the_configured_mac_prefix() {
    let host = Host::bare();
    let hooks = Hooks::new(&host);
    hooks.configure(OPENNEBULA);
    let folder = Folder::new(&host);
    let config = format!("--config {}", folder.write("tap32.toml", OPENNEBULA));
    host.tap32(&format!("setup {config}"));
    assert_eq!(host.link("br-l2")["address"], "02:00:00:00:00:01");
    for tap in ["vnet0", "vnet1", "vnet2", "vnet3"] {
        host.add_tap(tap);
    }
    let plan = host.tap32(&format!("up vnet0 --mac 02:00:0a:00:00:0a -n {config}"));
    has_only_this_prefix("-n", &plan);
    assert!(plan.contains("address fe:00:0a:00:00:0a ") && plan.contains("lladdr 02:00:0a:00:00:0a "), "{plan}");
    host.tap32(&format!("up vnet0 --mac 02:00:0a:00:00:0a {config}"));
    assert_eq!(host.link("vnet0")["address"], "fe:00:0a:00:00:0a");
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    // Whose guest's MAC somebody set by mistake, whose tap MAC has another prefix, and whose MAC is nobody's.
    host.ok("ip link set vnet2 address 02:00:0a:00:00:0c master br-l2 up");
    host.ok("ip link set vnet3 address fe:11:0a:00:00:0d master br-l2 up");
    assert_eq!(host.tap32(&format!("decode 02:00:0a:00:00:0a {config}")), "10.0.0.10\n");
    assert_eq!(host.tap32(&format!("encode 10.0.0.10 {config}")), "02:00:0a:00:00:0a\n");
    assert!(host.tap32(&format!("render libvirt 10.0.0.10 {config}")).contains("'02:00:0a:00:00:0a'"));
    // For `reconcile -n`.
    host.ok("ip route flush proto 132");
    let mut calls: Vec<String> = [
        "up vnet1",
        "up vnet1 --mac 52:54:00:12:34:56",
        "up vnet1 --mac fe:00:0a:00:00:0b",
        "up vnet1 --mac 0a:11:0a:00:00:0b",
        "up vnet1 --mac 02:00:0a:00:00:0a",
        "up vnet1 --mac 02:00:0a:00:00:01",
        "up vnet1 --mac 02:00:0a:00:00:ff",
        "up vnet1 --mac 02:00:0a:01:00:01",
        "up vnet1 --mac 02:00:00:00:00:01",
        "up vnet1 --mac 02:00:7f:00:00:01",
        "up vnet0 --mac 02:00:0a:00:00:0b",
        "up vnet1 --mac ten",
        "up vnet1 --mac 0200.0a00.000b",
        "up lo --mac 02:00:0a:00:00:0b",
        "up vnet1 --mac 02:00:0a:00:00:0b --bridge br9",
        "up vnet3",
        "down vnet1 --mac 52:54:00:12:34:56",
        "down vnet1 -v",
        "status",
        "status vnet0",
        "status vnet1",
        "status vnet2",
        "status vnet3",
        "status --json",
        "status --check",
        "reconcile -n",
        "doctor",
        "doctor --json",
        "decode 52:54:00:12:34:56",
        "decode fe:00:0a:00:00:0b",
        "decode ten",
        "encode ten",
        "render libvirt 8.8.8.8",
        "arrival 52:54:00:12:34:56",
        "setup -n",
    ]
    .map(|call| format!("{call} {config}"))
    .to_vec();
    for verb in ["frr", "switch", "sysctl", "networkd", "ifupdown"] {
        calls.push(format!("render {verb} {config}"));
    }
    // What the verbs' own help says holds for every configuration.
    let overview = host.tap32("--help");
    let verbs: BTreeSet<&str> =
        overview.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    assert!(verbs.len() > 10, "{overview}");
    calls.extend(verbs.iter().filter(|verb| !verb.is_empty() && !verb.starts_with('-')).map(|v| format!("{v} --help")));
    for call in &calls {
        let said = said(&host, call);
        assert!(!said.is_empty() || call.starts_with("down") || call.starts_with("setup"), "{call} says nothing");
        has_only_this_prefix(call, &said);
    }
    for (operation, mac) in [("prepare", "52:54:00:12:34:56"), ("start", "02:00:08:08:08:08"), ("migrate", "ten")] {
        let xml = domain(mac, Some("vnet1"));
        has_only_this_prefix(operation, &text(&hooks.call(&host, operation, &xml).stderr));
    }
    assert_eq!(host.tap32(&format!("down vnet0 {config}")), "");
    assert!(host.owned().is_empty());
}

/// doctor's fixes run as they stand, also with another prefix.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_doctor_prints_has_the_configured_mac_prefix_and_works() {
    let view = View::new(OPENNEBULA);
    view.ok(
        "tap32 setup && ip tuntap add vnet0 mode tap && ip link set vnet0 address 02:00:0a:00:00:0a master br-l2 up",
    );
    let row = view.row("br-l2 port vnet0").unwrap();
    assert_eq!(row["fix"], "tap32 up vnet0 --mac 02:00:0a:00:00:0a");
    view.ok(&string(&row["fix"]));
    assert_eq!(view.host.owned(), [settled("10.0.0.10")]);
    assert_eq!(view.host.link("vnet0")["address"], "fe:00:0a:00:00:0a");
}

/// The default stands in one place, and in the error for a prefix that cannot be read.
#[test]
fn no_sentence_of_the_program_names_a_prefix_itself() {
    let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let source = std::fs::read_to_string(&path).unwrap();
            let code = source.lines().map(|line| line.split("//").next().unwrap());
            let named = code.filter(|code| ["02:42", "fe:42", "0242"].iter().any(|prefix| code.contains(prefix)));
            let named: Vec<&str> = named.collect();
            let allowed = ["            bail!(\"{text:?} is not two octets of a MAC, such as \\\"02:42\\\"\");"];
            let is_addr = path.ends_with("src/addr.rs");
            assert_eq!(named, if is_addr { &allowed[..] } else { &[] }, "{}", path.display());
        }
    }
    assert!(files > 50, "{files}");
}

/// A guest with the MAC of its own gateway could reach nobody.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_guest_gets_the_bridges_own_mac() {
    let host = Host::new();
    host.ok("ip link set br-l2 address 02:42:0a:00:00:05");
    host.add_tap("vnet0");
    let before = host.state();
    let said = host.refused("up vnet0 --mac 02:42:0a:00:00:05");
    assert!(said.contains("bridge br-l2 has the MAC 02:42:0a:00:00:05 of the guest 10.0.0.5"), "{said}");
    assert_eq!(host.state(), before);
    host.tap32("up vnet0 --mac 02:42:0a:00:00:06");
}
