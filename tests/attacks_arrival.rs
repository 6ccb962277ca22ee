//! A neighbour that sends frames with the MAC and the tap MAC of a guest that is about to arrive, while its claimer waits:
//! with the guard and, where it must hold too, without. Judged by `ip -j`, `bridge -j` and /proc. They need root:
//! `sudo tests/run`.

mod common;
mod guard;
mod stage;

use std::process::Stdio;
use std::time::{Duration, Instant};

use common::guard::Toml;
use common::{Background, GUEST, Host, TAP32, settled, wait_for};
use guard::frames::{RARP, Station, from, rarp};
use stage::{Guest, hostile, victim, without_and_with};
use tap32::addr::show;

/// A host with the neighbour's tap, and a configuration whose claims settle in a second.
struct Destination {
    host: Host,
    neighbour: Guest,
    config: Toml,
    guard: bool,
}

impl Destination {
    fn new(guard: bool) -> Self {
        let host = Host::new();
        let config = format!("[migration]\nsettle = \"1s\"\n[[bridge]]\nname = \"br-l2\"\nguard = {guard}\n");
        let config = Toml::new(&host, &config);
        let neighbour = attach(&host, "vnet1", hostile(), &config);
        Self { host, neighbour, config, guard }
    }

    /// What `migrate begin` leaves behind.
    fn claimer(&self) -> Background {
        let mut claimer = self.host.command(TAP32);
        claimer.args(["arrival", GUEST]).args(self.config.to_string().split(' ')).stdout(Stdio::null());
        let claimer = Background(claimer.spawn().unwrap());
        wait_for("the lock", 5, || self.host.ok("cat /proc/net/unix").contains("@tap32/arrival/10.0.0.10"));
        claimer
    }

    /// The neighbour sends from both MACs; without a guard the bridge believes it where no port has the MAC.
    fn is_lied_to(&mut self) {
        let macs = [victim().mac, victim().guest_mac().tap_mac().into_array()];
        self.neighbour.writes(&macs.map(|mac| from(mac, RARP, &rarp(mac))));
        let on_neighbour = self.host.ports_with(GUEST) == [("vnet1".to_owned(), false)];
        assert_eq!(on_neighbour, !self.guard);
    }

    /// A claim comes within milliseconds of the frame that it follows.
    fn has_no_claim(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            assert!(self.host.owned().iter().all(|(_, _, metric)| *metric != 10), "{:?}", self.host.owned());
        }
    }
}

fn attach(host: &Host, tap: &str, who: Station, config: &Toml) -> Guest {
    host.add_tap(tap);
    host.tap32(&format!("up {tap} --mac {} {config}", who.guest_mac()));
    let guest = Guest::new(host, tap, who);
    wait_for("the port forwards", 5, || host.ok(&format!("bridge link show dev {tap}")).contains("state forwarding"));
    guest
}

fn is_running(claimer: &mut Background) -> bool {
    claimer.0.try_wait().unwrap().is_none()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_early_claim_and_the_right_one_at_the_first_frame() {
    without_and_with(|guard| {
        let mut here = Destination::new(guard);
        let mut claimer = here.claimer();
        here.is_lied_to();
        here.has_no_claim();
        let mut arriving = attach(&here.host, "vnet0", victim(), &here.config);
        // The bridge tells of a MAC only where it is new.
        here.host.run(&format!("bridge fdb del {GUEST} dev vnet1 master"));
        here.is_lied_to();
        here.has_no_claim();
        assert!(is_running(&mut claimer));
        assert_eq!(here.host.ports_with(&show(victim().guest_mac().tap_mac())), [("vnet0".to_owned(), true)]);

        arriving.writes(&[victim().sends(RARP, &rarp(victim().mac))]);
        let claim = ("10.0.0.10".to_owned(), "br-l2".to_owned(), 10);
        let others = [settled("10.0.0.10"), settled("10.0.0.11")];
        wait_for("the claim", 5, || here.host.owned().contains(&claim));
        // The neighbour goes on; the claim ends in its time and the claimer with it.
        here.neighbour.writes(&[from(victim().mac, RARP, &rarp(victim().mac))]);
        wait_for("settled", 5, || here.host.owned() == others);
        wait_for("the claimer is gone", 5, || !is_running(&mut claimer));
    });
}

/// The guest's tap goes while its claimer waits, and the neighbour has its tap MAC at once.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_stuck_claimer_and_no_route_kept_alive() {
    without_and_with(|guard| {
        let mut here = Destination::new(guard);
        let mine = [settled("10.0.0.11")];
        for end in [format!("down vnet0 --mac {GUEST}"), "reconcile".to_owned()] {
            let mut claimer = here.claimer();
            let arriving = attach(&here.host, "vnet0", victim(), &here.config);
            let tap_mac = victim().guest_mac().tap_mac().into_array();
            here.neighbour.storms(&[from(tap_mac, RARP, &rarp(tap_mac))]);
            here.host.ok("ip link del vnet0");
            wait_for("the claimer is gone", 5, || !is_running(&mut claimer));
            here.neighbour.seen();
            let learned = here.host.ports_with(&show(tap_mac.into()));
            assert_eq!(learned == [("vnet1".to_owned(), false)], !guard, "{learned:?}");
            assert!(here.host.run(&format!("{TAP32} {end} {}", here.config)).status.success());
            assert_eq!(here.host.owned(), mine, "{end}");
            drop(arriving);
        }
    });
}

/// The migration fails before there is a tap: `down` dismisses the claimer, whatever the neighbour has sent.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_claimer_that_waits_for_a_tap_is_dismissed() {
    without_and_with(|guard| {
        let mut here = Destination::new(guard);
        let mut claimer = here.claimer();
        here.is_lied_to();
        here.has_no_claim();
        assert!(is_running(&mut claimer));
        here.host.tap32(&format!("down vnet0 --mac {GUEST} {}", here.config));
        wait_for("the claimer is gone", 5, || !is_running(&mut claimer));
        assert_eq!(here.host.owned(), [settled("10.0.0.11")]);
    });
}
