//! `render dnsmasq` with the real dnsmasq and busybox's udhcpc behind taps, judged by what the guest's kernel then has. They
//! need root: `sudo tests/run`.

mod common;
mod guard;

use std::path::Path;
use std::process::{Command, Stdio};

use common::dhcp::{Client, Server, unit_value};
use common::{Background, GUEST, Host, TAP32, wait_for};
use guard::frames::{EVERYWHERE, NOWHERE, Station, UDP, dhcp, udp};
use guard::hex;

const ONE: &str = "[[bridge]]\nname = \"br-l2\"\ngateway = \"10.0.0.1/24\"\n";

fn signal(udhcpc: &Background, signal: &str) {
    let pid = udhcpc.0.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// A restart after a mistake in the configuration leaves what was there.
#[test]
fn the_unit_writes_a_whole_file_or_none() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dhcp-unit");
    std::fs::create_dir_all(&folder).unwrap();
    let (config, file) = (folder.join("tap32.toml"), folder.join("dnsmasq.conf"));
    std::fs::write(&file, "").unwrap();
    let line = unit_value("ExecStartPre=");
    let script = line.strip_prefix("/bin/sh -c '").and_then(|rest| rest.strip_suffix('\'')).unwrap();
    let script = script.replace("/usr/sbin/tap32", TAP32).replace("/run/tap32-dhcp", folder.to_str().unwrap());
    let run = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let output = Command::new("/bin/sh").args(["-c", &script]).env("TAP32_CONFIG", &config).output().unwrap();
        (output.status.success(), std::fs::read_to_string(&file).unwrap())
    };
    let (written, text) = run(ONE);
    assert!(written && text.contains("dhcp-host=02:42:0a:00:00:0a,10.0.0.10\n"), "{text}");
    assert_eq!(run("[[bridge]]\nname = \"br-l2\"\n"), (false, text));
}

/// The neighbour entry of tap32, which no ARP reply may replace.
fn is_permanent(host: &Host, address: &str) -> bool {
    host.ok("ip neigh show nud permanent").contains(&format!("{address} dev br-l2 lladdr"))
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guarded_guest_is_told_its_address_and_all_that_the_file_says() {
    let config = format!("{ONE}dns = [\"10.9.0.2\", \"10.9.0.3\"]\ndomain = \"example.org\"\nmtu = 1400\n");
    let server = Server::new(&config);
    let _dnsmasq = server.serve();
    server.up("vnet0", GUEST);
    let client = Client::new(&server.host, "vnet0", GUEST);
    let udhcpc = client.udhcpc();
    let told = client.was_told("bound");
    let said =
        "bound 10.0.0.10/24 router=10.0.0.1 server=10.0.0.1 dns=10.9.0.2 10.9.0.3 domain=example.org mtu=1400 routes=";
    assert_eq!(told, said);
    wait_for("the guest has it", 5, || client.addresses() == ["10.0.0.10/24"] && client.gateways() == ["10.0.0.1"]);
    assert_eq!(client.guest.link("eth0")["mtu"], 1400);
    assert!(client.reaches("10.0.0.1"));
    assert!(server.host.is_guarded("vnet0", GUEST));
    assert!(is_permanent(&server.host, "10.0.0.10"), "{}", server.host.ok("ip neigh"));

    // By unicast from its own address.
    signal(&udhcpc, "-USR1");
    client.was_told("renew 10.0.0.10/24 router=10.0.0.1 server=10.0.0.1");
    assert!(is_permanent(&server.host, "10.0.0.10"), "{}", server.host.ok("ip neigh"));
    assert!(!client.told().iter().any(|line| line.starts_with("nak")));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_renews_on_the_host_that_it_has_moved_to() {
    let (left, right) = (Server::new(ONE), Server::new(ONE));
    assert_eq!(
        left.host.tap32(&format!("render dnsmasq {}", left.config)),
        right.host.tap32(&format!("render dnsmasq {}", right.config))
    );
    let (_left, _right) = (left.serve(), right.serve());
    left.up("vnet0", GUEST);
    right.up("vnet7", GUEST);
    let mut client = Client::new(&left.host, "vnet0", GUEST);
    let udhcpc = client.udhcpc();
    client.was_told("bound 10.0.0.10/24");
    client.plug_in(&right.host, "vnet7");
    assert!(client.reaches("10.0.0.1"));
    signal(&udhcpc, "-USR1");
    client.was_told("renew 10.0.0.10/24 router=10.0.0.1 server=10.0.0.1");
    let told = client.told();
    assert!(told.iter().all(|line| !line.starts_with("nak")) && told.len() == 3, "{told:?}");
    assert_eq!(client.addresses(), ["10.0.0.10/24"]);
}

const TWO: &str = r#"
[[bridge]]
name = "br-l2"
gateway = "10.16.0.1/16"
prefixes = ["10.16.5.0/24"]
on-link = false

[[bridge]]
name = "br-b"
gateway = "10.0.1.1/24"
prefixes = ["10.0.1.0/25", "192.0.2.0/28"]
"#;

/// The gateway is a /32 on one bridge. The other is not there when dnsmasq starts, and is made a second time.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_bridges_of_which_one_is_made_later_and_one_is_not_on_link() {
    let server = Server::new(TWO);
    let host = &server.host;
    host.ok("ip link del br-b");
    let _dnsmasq = server.serve();
    assert_eq!(common::setup::addresses(host, "br-l2"), ["10.16.0.1/32"]);
    server.up("vnet0", "02:42:0a:10:05:07");
    let first = Client::new(host, "vnet0", "02:42:0a:10:05:07");
    assert!(first.gets_address());
    assert_eq!((first.addresses(), first.gateways()), (vec!["10.16.5.7/16".into()], vec!["10.16.0.1".into()]));
    assert!(first.reaches("10.16.0.1"));

    for tap in ["vnet1", "vnet2"] {
        host.tap32(&format!("setup {}", server.config));
        server.up(tap, "02:42:0a:00:01:07");
        let second = Client::new(host, tap, "02:42:0a:00:01:07");
        assert!(second.gets_address(), "{tap}");
        assert_eq!((second.addresses(), second.gateways()), (vec!["10.0.1.7/24".into()], vec!["10.0.1.1".into()]));
        host.ok(&format!("ip link del {tap}"));
        host.ok("ip link del br-b");
    }

    // Outside of the gateway's subnet: nothing is on link but the gateway. The first address is a guest's.
    host.tap32(&format!("setup {}", server.config));
    for (tap, mac, address) in
        [("vnet3", "02:42:c0:00:02:09", "192.0.2.9/32"), ("vnet4", "02:42:c0:00:02:00", "192.0.2.0/32")]
    {
        server.up(tap, mac);
        let outside = Client::new(host, tap, mac);
        assert!(outside.gets_address(), "{tap}");
        assert_eq!((outside.addresses(), outside.gateways()), (vec![address.into()], vec!["10.0.1.1".into()]));
        assert!(outside.reaches("10.0.1.1") && outside.reaches("10.16.0.1"), "{tap}");
    }
}

/// The one bridge of most hosts, which dnsmasq may not bind to: it would be deaf to the next one of that name.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_only_bridge_made_anew_is_heard() {
    let server = Server::new(ONE);
    let _dnsmasq = server.serve();
    server.host.ok("ip link del br-l2");
    server.host.tap32(&format!("setup {}", server.config));
    server.up("vnet0", GUEST);
    let client = Client::new(&server.host, "vnet0", GUEST);
    assert!(client.gets_address());
    assert_eq!(client.addresses(), ["10.0.0.10/24"]);
}

/// A MAC that carries no address of the bridge: QEMU's own, the gateway's, a guest's of another bridge.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn whoever_is_no_guest_of_the_bridge_gets_nothing() {
    let server = Server::new(TWO);
    let host = &server.host;
    let _dnsmasq = server.serve();
    let strangers =
        ["52:54:00:12:34:56", "02:42:0a:00:01:01", "02:42:0a:10:05:07", "02:42:0a:00:01:ff", "02:42:0a:00:01:90"];
    let clients = strangers.iter().enumerate().map(|(i, mac)| {
        host.add_tap(&format!("vnet{i}"));
        host.ok(&format!("ip link set vnet{i} master br-b up"));
        Client::new(host, &format!("vnet{i}"), mac)
    });
    let clients: Vec<_> = clients.collect();
    let running: Vec<_> = clients.iter().map(Client::udhcpc).collect();
    // One that is a guest is served meanwhile, the same way.
    host.add_tap("vnet9");
    host.ok("ip link set vnet9 master br-b up");
    let guest = Client::new(host, "vnet9", "02:42:0a:00:01:07");
    assert!(guest.gets_address());
    // Each has asked.
    for i in 0..clients.len() {
        let asked =
            || host.json(&format!("ip -j -s link show vnet{i}"))[0]["stats64"]["rx"]["packets"].as_u64() > Some(1);
        wait_for("it has asked twice", 10, asked);
    }
    for (mac, client) in strangers.iter().zip(&clients) {
        let told = client.told();
        assert!(
            told.iter().all(|line| line.starts_with("deconfig") || line.starts_with("leasefail")),
            "{mac}: {told:?}"
        );
        assert!(client.addresses().is_empty(), "{mac}");
    }
    drop(running);
}

/// A guest that plays the DHCP server on a bridge whose ports are not isolated: with its guard nobody hears it.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_rogue_server_in_a_guest_is_heard_only_without_the_guard() {
    for guard in [true, false] {
        let server = Server::new(&format!("{ONE}isolate = false\nguard = {guard}\n"));
        let host = &server.host;
        let rogue_mac = "02:42:0a:00:00:42";
        server.up("vnet0", rogue_mac);
        server.up("vnet1", GUEST);
        let rogue = Client::new(host, "vnet0", rogue_mac);
        rogue.guest.ok("ip addr add 10.0.0.66/24 dev eth0");
        let range =
            ["--port=0", "--no-ping", "--dhcp-range=10.0.0.200,10.0.0.250", "--dhcp-option=option:router,10.0.0.66"];
        let mut command = rogue.guest.command("dnsmasq");
        command.args(["-k", "--conf-file=/dev/null", "--leasefile-ro", "--pid-file="]).args(range);
        let _rogue = Background(command.stderr(Stdio::null()).spawn().unwrap());
        wait_for("the rogue hears", 10, || rogue.guest.ok("ss -ulnH sport = :67").contains(":67"));
        let victim = Client::new(host, "vnet1", GUEST);
        assert_eq!(victim.gets_address(), !guard, "guard = {guard}: {:?}", victim.told());
        if !guard {
            assert_eq!(victim.gateways(), ["10.0.0.66"]);
            continue;
        }
        // Beside the host's own, too.
        let _dnsmasq = server.serve();
        assert!(victim.gets_address());
        assert_eq!((victim.addresses(), victim.gateways()), (vec!["10.0.0.10/24".into()], vec!["10.0.0.1".into()]));
    }
}

/// A DHCPDECLINE in another guest's name: dnsmasq gives the address that it names to nobody for 10 minutes.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guarded_guest_declines_for_nobody_else() {
    for guard in [true, false] {
        let server = Server::new(&format!("{ONE}guard = {guard}\n"));
        let _dnsmasq = server.serve();
        let (evil, victim) = (Station::guest("02:42", [10, 0, 0, 66]), Station::guest("02:42", [10, 0, 0, 10]));
        let evil_mac = evil.guest_mac().to_string();
        server.up("vnet0", &evil_mac);
        server.up("vnet1", GUEST);
        let attacker = Client::new(&server.host, "vnet0", &evil_mac);
        assert!(attacker.gets_address(), "the server hears it");
        // Message type, address, server, end (RFC 2132).
        let options = [53, 1, 4, 50, 4, 10, 0, 0, 10, 54, 4, 10, 0, 0, 1, 255];
        let declines = udp(68, 67, &[&dhcp(victim.mac)[..], &options].concat());
        let frame = evil.forges(NOWHERE, EVERYWHERE, UDP, &declines);
        let send =
            "import socket, sys; s = socket.socket(17, 3); s.bind((\"eth0\", 0)); s.send(bytes.fromhex(sys.argv[1]))";
        let sent = attacker.guest.command("python3").args(["-c", send, &hex(&frame)]).status().unwrap();
        assert!(sent.success());
        assert_eq!(Client::new(&server.host, "vnet1", GUEST).gets_address(), guard, "guard = {guard}");
    }
}
