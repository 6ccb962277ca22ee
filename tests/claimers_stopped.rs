//! A claimer that somebody stops (SIGSTOP, a frozen cgroup) while its migration goes on and ends: neither it nor its lock
//! may tell of an arrival afterwards. Judged by `ip -j`. They need root: `sudo tests/run`.

mod common;

use std::time::{Duration, Instant};

use common::hooks::{Hooks, claimers, domain};
use common::watch::Watch;
use common::{GUEST, Guest, Host, settled, wait_for};

/// A host to which libvirt migrates a guest, whose claimer is stopped.
struct Destination {
    host: Host,
    hooks: Hooks,
    claimer: String,
}

impl Destination {
    fn new() -> Self {
        let host = Host::new();
        let hooks = Hooks::new(&host);
        hooks.ok(&host, "migrate", &domain(GUEST, None));
        let claimer = claimers(&host).remove(0);
        let here = Self { host, hooks, claimer };
        here.is_stopped();
        here
    }

    fn is_stopped(&self) {
        self.host.ok(&format!("kill -STOP {}", self.claimer));
    }

    /// It wakes up, if nobody has killed it.
    fn wakes_up(&self) {
        self.host.run(&format!("kill -CONT {}", self.claimer));
    }

    /// The guest's tap as libvirt makes it, and a QEMU that has it open.
    fn start(&self, tap: &str) -> Guest {
        self.hooks.ok(&self.host, "prepare", &domain(GUEST, None));
        self.host.add_tap(tap);
        self.host.ok(&format!("ip link set {tap} address fe:42:0a:00:00:0a master br-l2 up"));
        self.hooks.ok(&self.host, "start", &domain(GUEST, Some(tap)));
        Guest::open(&self.host, tap)
    }

    fn sends(&self, guest: &mut Guest, tap: &str) {
        guest.frame_from(GUEST);
        wait_for("learned", 5, || self.host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev {tap}")));
    }

    fn is_told_of_the_end(&self) {
        self.hooks.ok(&self.host, "stopped", &domain(GUEST, None));
        self.hooks.ok(&self.host, "release", &domain(GUEST, None));
    }

    fn wakes_up_in_vain(&self) {
        self.wakes_up();
        self.has_no_claim();
        wait_for("the claimer is gone", 5, || claimers(&self.host).is_empty());
    }

    /// A claim comes within milliseconds of what its claimer hears.
    fn has_no_claim(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            let owned = self.host.owned();
            assert!(owned.iter().all(|(_, _, metric)| *metric != 10), "{owned:?}");
        }
    }
}

fn claim() -> (String, String, u64) {
    ("10.0.0.10".to_owned(), "br-l2".to_owned(), 10)
}

/// libvirt tells of the end: then the next start is one like any other.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn after_the_end_of_its_guest_it_is_gone() {
    for has_come in [true, false] {
        let here = Destination::new();
        let mut guest = here.start("vnet0");
        if has_come {
            here.sends(&mut guest, "vnet0");
            here.host.tap32("reconcile");
            assert_eq!(here.host.owned(), [claim(), settled("10.0.0.10")]);
        }
        here.host.ok("ip link del vnet0");
        here.is_told_of_the_end();
        assert!(here.host.owned().is_empty());
        let mut guest = here.start("vnet1");
        assert_eq!(here.host.owned(), [settled("10.0.0.10")]);
        here.sends(&mut guest, "vnet1");
        here.has_no_claim();
        assert!(claimers(&here.host).is_empty());
    }
}

/// Nobody tells of the end, and it wakes up when the guest has been started anew.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn it_does_not_claim_for_another_start() {
    for (has_come, is_same_tap) in [(true, false), (false, false), (true, true)] {
        let here = Destination::new();
        let mut guest = here.start("vnet0");
        if has_come {
            here.sends(&mut guest, "vnet0");
        }
        drop(guest);
        let tap = if is_same_tap {
            here.host.tap32("down vnet0");
            "vnet0"
        } else {
            here.host.ok("ip link del vnet0");
            here.host.add_tap("vnet1");
            "vnet1"
        };
        here.host.tap32(&format!("up {tap} --mac {GUEST}"));
        let mut guest = Guest::open(&here.host, tap);
        here.sends(&mut guest, tap);
        here.wakes_up_in_vain();
        here.host.tap32("reconcile");
        assert_eq!(here.host.owned(), [settled("10.0.0.10")]);
    }
}

/// It has the tap in sight when it is stopped.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn nor_where_it_had_seen_its_tap() {
    for is_open in [true, false] {
        let here = Destination::new();
        here.wakes_up();
        here.hooks.ok(&here.host, "prepare", &domain(GUEST, None));
        let mut guest = here.start("vnet0");
        if is_open {
            // It looks at an open tap each five seconds.
            std::thread::sleep(Duration::from_secs(6));
        }
        here.is_stopped();
        here.sends(&mut guest, "vnet0");
        here.host.ok("ip link del vnet0");
        here.host.add_tap("vnet1");
        here.host.tap32(&format!("up vnet1 --mac {GUEST}"));
        let mut guest = Guest::open(&here.host, "vnet1");
        here.sends(&mut guest, "vnet1");
        here.wakes_up_in_vain();
    }
}

/// Its wait was over long before it wakes up.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn nor_after_its_time() {
    let here = Destination::new();
    here.wakes_up();
    here.hooks.configure("[migration]\nsettle = \"1s\"\ntimeout = \"1s\"\n");
    here.is_told_of_the_end();
    wait_for("the claimer is gone", 5, || claimers(&here.host).is_empty());
    here.hooks.ok(&here.host, "migrate", &domain(GUEST, None));
    let here = Destination { claimer: claimers(&here.host).remove(0), ..here };
    here.is_stopped();
    std::thread::sleep(Duration::from_millis(6500));
    let mut guest = here.start("vnet0");
    here.sends(&mut guest, "vnet0");
    here.wakes_up_in_vain();
}

/// While it is stopped somebody else claims for its guest, and takes the claim back too.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn watch_ends_a_claim_that_its_claimer_does_not_end() {
    let here = Destination::new();
    let watch = Watch::start(&here.host);
    watch.configure("[migration]\nsettle = \"1s\"\n");
    watch.signal("HUP");
    let mut guest = here.start("vnet0");
    here.sends(&mut guest, "vnet0");
    wait_for("claim and settled route", 3, || here.host.owned() == [claim(), settled("10.0.0.10")]);
    let start = Instant::now();
    wait_for("settled", 12, || here.host.owned() == [settled("10.0.0.10")]);
    assert!(start.elapsed() > Duration::from_secs(1));
}
