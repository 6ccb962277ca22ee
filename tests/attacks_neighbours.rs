//! A hostile guest that fills the kernel's neighbour table, which all namespaces share: tests/run gives this test the
//! machine. It needs root: `sudo tests/run`.

mod common;
mod guard;
mod stage;

use guard::frames::{ARP, REQUEST, arp};
use stage::{AFTER, Loss, Stage, gateway, hostile};

/// ARP requests from so many senders that the table holds no more.
fn play(guard: bool) -> (usize, Loss) {
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap();
    let senders = limit.trim().parse::<u32>().unwrap().max(2000) + 1000;
    let mut stage = Stage::new(guard);
    stage.host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    stage.sends(40);
    // The host does not know the victim yet.
    stage.host.ok("ip neigh del 10.0.0.10 dev br-l2");
    let sender = |i: u32| std::net::Ipv4Addr::from(0x0a00_0100 + i).octets();
    let frame = |i| hostile().sends(ARP, &arp(REQUEST, hostile().mac, sender(i), gateway().ip));
    stage.hostile.writes(&(0..senders).map(frame).collect::<Vec<_>>());
    let neighbours = stage.host.json("ip -j neigh show dev br-l2").as_array().unwrap().len();
    stage.sends(AFTER);
    (neighbours, stage.loss())
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn arp_from_thousands_of_senders() {
    let [(without, before), (with, after)] = [false, true].map(play);
    println!(
        "{without} neighbours, and of {AFTER} packets to a new guest {} lost; with the guard {with}, and {}",
        before.lost, after.lost
    );
    assert!(without > 900 && before.lost > 0, "{before:?}");
    assert!(with <= 3 && after.lost == 0, "{after:?}");
}
