//! What a hostile guest does to its neighbour and to the host, without the guard and with it. The victim and the client
//! count packets, the rest is judged by `ip -j`, `bridge -j` and packet sockets. They need root: `sudo tests/run`.

mod common;
mod guard;
mod stage;

use std::process::Stdio;

use common::{Background, settled, string, wait_for};
use guard::frames::*;
use stage::{AFTER, CLIENT, LOCKTIME, Loss, Stage, gateway, hostile, victim, without_and_with};
use tap32::addr::show;

/// Without the guard the victim loses packets, and with it none.
fn costs(what: &str, before: u32, frames: &[Vec<u8>]) {
    let [without, with] = without_and_with(|guard| {
        let mut stage = Stage::new(guard);
        stage.sends(before);
        stage.attack(frames)
    });
    let Loss { lost, stolen, .. } = without;
    println!("{what}: of {AFTER} packets {lost} lost, {stolen} of them to the attacker; with the guard {}", with.lost);
    assert!(lost > 0, "{what}: {without:?}");
    assert_eq!((with.lost, with.stolen), (0, 0), "{what}");
}

fn reply_for_the_victim() -> Vec<u8> {
    to(gateway().mac, &hostile().sends(ARP, &arp(REPLY, hostile().mac, victim().ip, gateway().ip)))
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_gratuitous_arp() {
    let frame = hostile().sends(ARP, &arp(REPLY, hostile().mac, victim().ip, victim().ip));
    costs("a gratuitous ARP reply", LOCKTIME, &[frame]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_unicast_arp_reply() {
    costs("a unicast ARP reply", LOCKTIME, &[reply_for_the_victim()]);
}

/// The host asks again when the entry is old, here after a tenth of a second, and whom it asks is the attacker. One that
/// does not answer loses the entry to the victim.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn answering_the_hosts_arp_from_then_on() {
    let play = |guard| {
        let mut stage = Stage::new(guard);
        let quick =
            "base_reachable_time_ms=100 delay_first_probe_time=0 retrans_time_ms=400 ucast_solicit=1 locktime=0";
        for setting in quick.split(' ') {
            stage.host.ok(&format!("sysctl -qw net.ipv4.neigh.br-l2.{setting}"));
        }
        // The host asks everybody only once: from now on it asks whom the entry names.
        stage.is_reached();
        stage.hostile.answers(victim().ip);
        stage.attack(&[reply_for_the_victim()])
    };
    // An attacker that is late once, as on a busy machine, loses the entry: the host then asks everybody, and the victim
    // answers first. So tests/run gives this one the machine, and the attacker has three tries.
    let tries: Vec<Loss> = (0..3).map(|_| play(false)).collect();
    let without = tries.iter().max_by_key(|loss| loss.stolen).unwrap();
    let with = play(true);
    println!("answering ARP: of {AFTER} packets {} lost; with the guard {}", without.lost, with.lost);
    assert!(without.lost_at_the_end > 50 && without.stolen > 200, "{tries:?}");
    assert_eq!((with.lost, with.stolen), (0, 0));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_frame_with_the_victims_mac() {
    let plain = victim().arp(REQUEST, hostile());
    costs("a frame with the victim's MAC", 0, std::slice::from_ref(&plain));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_tagged_frame_with_the_victims_mac() {
    costs("a tagged one", 0, &[tagged(0x8100, 5, &victim().arp(REQUEST, hostile()))]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_frame_with_the_victims_mac_to_a_link_local_group() {
    costs("one to a link-local group", 0, &[to([0x01, 0x80, 0xc2, 0, 0, 0x0e], &victim().sends(LLDP, &[0; 46]))]);
}

/// From the first moment of the hostile tap: it writes while its own `up` runs.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_storm_while_the_tap_comes_up() {
    let [without, with] = without_and_with(|guard| {
        let mut stage = Stage::new(guard);
        let mut learned = 0;
        for _ in 0..10 {
            stage.host.tap32(&format!("down vnet1 {}", stage.config));
            stage.host.ok("ip link set vnet1 up");
            stage.hostile.storms(&[victim().sends(RARP, &rarp(victim().mac))]);
            stage.host.tap32(&format!("up vnet1 --mac {} {}", hostile().guest_mac(), stage.config));
            let forwards = || stage.host.ok("bridge link show dev vnet1").contains("state forwarding");
            wait_for("the port forwards", 5, forwards);
            learned +=
                usize::from(stage.host.ports_with(&victim().guest_mac().to_string()) == [("vnet1".into(), false)]);
            stage.hostile.seen();
        }
        learned
    });
    println!("a storm during up: learned {without} times of 10, with the guard {with}");
    assert!(without > 0);
    assert_eq!(with, 0);
}

/// IPv4 with another's source leaves the host, by a packet socket behind the uplink.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn forged_sources() {
    const JUDGE: &str = "import socket, sys
judge = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
judge.bind(('eth0', 0))
print('ready', flush=True)
sys.stdin.read()
judge.setblocking(False)
while True:
    try:
        packet = judge.recv(2048)
    except BlockingIOError:
        break
    if packet[23] == 17 and packet[36:38] == b'\\x1e\\x62':
        print('.'.join(map(str, packet[26:30])))
";
    let [without, with] = without_and_with(|guard| {
        let mut stage = Stage::new(guard);
        let mut python = stage.client.command("python3");
        let python = python.args(["-c", JUDGE]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut judge = Background(python.spawn().unwrap());
        let mut output = std::io::BufReader::new(judge.0.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut String::new()).unwrap();
        let from = |source: Ip| to(gateway().mac, &hostile().forges(source, CLIENT, UDP, &udp(4000, 7778, &[0; 20])));
        let sources = [victim().ip, [10, 0, 0, 77], [203, 0, 113, 9], hostile().ip];
        stage.hostile.writes(&sources.map(from));
        // The own one is the last, and all take the same way.
        stage.sends(20);
        drop(judge.0.stdin.take());
        let mut left = String::new();
        std::io::Read::read_to_string(&mut output, &mut left).unwrap();
        left.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    println!("sources that left the host: {without:?}, with the guard {with:?}");
    assert_eq!(without, ["10.0.0.10", "10.0.0.77", "203.0.113.9", "10.0.0.11"]);
    assert_eq!(with, ["10.0.0.11"]);
}

/// With accept_ra on, which `setup` turns off as well.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_router_advertisement() {
    let [without, with] = without_and_with(|guard| {
        let mut stage = Stage::new(guard);
        stage.host.ok("sysctl -qw net.ipv6.conf.br-l2.disable_ipv6=0 net.ipv6.conf.br-l2.accept_ra=2");
        let frame = advertisement();
        let taken = || {
            let routes = stage.host.json("ip -j -6 route show default dev br-l2");
            let addresses = stage.host.ok("ip -6 addr show dev br-l2");
            (routes.as_array().unwrap().len(), addresses.contains("2001:db8:66:"))
        };
        assert_eq!(taken(), (0, false));
        stage.hostile.writes(&[frame]);
        if !guard {
            wait_for("the host takes it", 5, || taken() == (1, true));
        }
        // The kernel has done with the frame when the guest has written it.
        taken()
    });
    println!("default routes and an address of the attacker: {without:?}, with the guard {with:?}");
    assert_eq!(without, (1, true));
    assert_eq!(with, (0, false));
}

/// For 2001:db8:66::/64, with the sender as default router for 30 minutes.
fn advertisement() -> Vec<u8> {
    let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let source = link_local(hostile().mac);
    let mut prefix = vec![3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0x66];
    prefix.resize(32, 0);
    let mut icmp = [&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &prefix].concat();
    let pseudo = [&source[..], &all, &(icmp.len() as u32).to_be_bytes(), &[0, 0, 0, 58], &icmp].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    icmp[2..4].copy_from_slice(&(!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes());
    to([0x33, 0x33, 0, 0, 0, 1], &hostile().sends(IPV6, &ipv6(source, all, 58, &icmp)))
}

/// The victim's tap has gone, and the attacker has its MAC: nobody takes it for the victim's new tap.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn frames_from_the_tap_mac_of_one_that_has_gone() {
    without_and_with(|guard| {
        let mut stage = Stage::new(guard);
        let tap_mac = victim().guest_mac().tap_mac();
        let frame = from(tap_mac.into_array(), RARP, &rarp(tap_mac.into_array()));
        let learned = if guard { vec![] } else { vec![("vnet1".to_owned(), false)] };
        let Stage { host, hostile, config, .. } = &mut stage;
        let mine = [settled("10.0.0.11")];
        for end in ["down vnet0 --mac 02:42:0a:00:00:0a", "reconcile"] {
            assert_eq!(host.owned(), [settled("10.0.0.10"), settled("10.0.0.11")]);
            host.ok("ip link del vnet0");
            hostile.writes(std::slice::from_ref(&frame));
            assert_eq!(host.ports_with(&show(tap_mac)), learned);
            let output = host.run(&format!("{} {end} {config}", common::TAP32));
            assert!(output.status.success());
            assert_eq!(host.owned(), mine, "{end}");
            // It comes back, and the attacker still has its MAC.
            host.add_tap("vnet0");
            host.tap32(&format!("up vnet0 --mac 02:42:0a:00:00:0a {config}"));
            assert_eq!(host.ports_with(&show(tap_mac)), [("vnet0".to_owned(), true)]);
        }
        // A tap that stays: `down` takes the MAC off the bridge, the attacker has it at once.
        hostile.storms(std::slice::from_ref(&frame));
        host.tap32(&format!("down vnet0 {config}"));
        hostile.seen();
        assert_eq!(host.owned(), mine);
        let row = host.status()["taps"].as_array().unwrap().iter().map(|tap| string(&tap["tap"])).collect::<Vec<_>>();
        assert_eq!(row, ["vnet1"]);
    });
}
