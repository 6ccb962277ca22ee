//! A hostile guest that fills the kernel's neighbour table, which all namespaces share: tests/run gives these tests the
//! machine, one at a time. They need root: `sudo tests/run`.

mod common;
mod guard;
mod stage;

use std::sync::{Mutex, PoisonError};

use guard::frames::{ARP, Ip, REQUEST, UDP, arp, to, udp};
use stage::{AFTER, Loss, Stage, gateway, hostile};

static ALONE: Mutex<()> = Mutex::new(());

/// More addresses of the bridge's subnet than the table holds.
fn thousands() -> impl Iterator<Item = Ip> {
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap();
    let count = limit.trim().parse::<u32>().unwrap().max(2000) + 1000;
    (0..count).map(|i| std::net::Ipv4Addr::from(0x0a00_0100 + i).octets())
}

/// The client sends to the victim, the hostile guest writes its frames, the client sends on. Unless `permanent`, the host
/// forgets the victim three times. Also counts the neighbours that it has in between.
fn play(guard: bool, permanent: bool, frames: &[Vec<u8>]) -> (usize, Loss) {
    let mut stage = Stage::new(guard);
    stage.host.ok("ip addr add 10.0.255.254/16 dev br-l2");
    if permanent {
        stage.host.tap32(&format!("reconcile {}", stage.config));
    }
    stage.sends(40);
    stage.hostile.writes(frames);
    let neighbours = stage.host.json("ip -j neigh show dev br-l2").as_array().unwrap().len();
    // The kernel gives up entries of 5 s, and those that nobody answered for 3 s (neigh_forced_gc); new ones follow.
    stage.hostile.storms(frames);
    for _ in 0..3 {
        if !permanent {
            stage.host.run("ip neigh del 10.0.0.10 dev br-l2");
        }
        stage.sends(AFTER / 3);
    }
    (neighbours, stage.loss())
}

/// The attack without what stops it, which must cost packets. Whether a new entry finds the table full is a race with the
/// kernel's own clean-up (neigh_forced_gc): once in some twenty runs all three did not. So it is tried three times.
fn bites(guard: bool, frames: &[Vec<u8>]) -> (usize, Loss) {
    let mut tries = (0..3).map(|_| play(guard, false, frames));
    tries.find(|(_, loss)| loss.lost > 0).expect("three attacks, and no packet lost")
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn arp_from_thousands_of_senders() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let frame = |sender| hostile().sends(ARP, &arp(REQUEST, hostile().mac, sender, gateway().ip));
    let frames: Vec<_> = thousands().map(frame).collect();
    let ((without, before), (with, after)) = (bites(false, &frames), play(true, false, &frames));
    println!(
        "{without} neighbours, and of {AFTER} packets to a new guest {} lost; with the guard {with}, and {}",
        before.lost, after.lost
    );
    assert!(without > 900, "{without}");
    assert!(with <= 4 && after.lost == 0, "{after:?}");
}

/// What the hostile guest may send: no filter helps, but the permanent entry that `up` adds for each guest does.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn packets_to_thousands_of_addresses_that_nobody_has() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let frame = |target| to(gateway().mac, &hostile().ipv4(target, UDP, &udp(4000, 4000, &[])));
    let frames: Vec<_> = thousands().map(frame).collect();
    let ((all, learned), (_, permanent)) = (bites(true, &frames), play(true, true, &frames));
    println!(
        "{all} neighbours, and of {AFTER} packets to a new guest {} lost; with a permanent entry {}",
        learned.lost, permanent.lost
    );
    assert!(all > 900, "{all}");
    assert_eq!(permanent.lost, 0);
}
