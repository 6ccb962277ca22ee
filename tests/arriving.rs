//! A guest that arrives has no route before its first frame, whoever looks at the host meanwhile; one that is here has its
//! route, whatever became of its claimer. Judged by `ip -j`. They need root: `sudo tests/run`.

mod common;

use std::time::{Duration, Instant};

use common::guard::FLUSH_FDB;
use common::hooks::{Hooks, domain};
use common::watch::Watch;
use common::{GUEST, Guest, Host, TAP32, settled, string, wait_for};

/// A host to which libvirt migrates a guest: its tap is there, its QEMU has it open, and its memory is being copied.
struct Destination {
    host: Host,
    hooks: Hooks,
    guest: Guest,
}

impl Destination {
    fn new() -> Self {
        let host = Host::new();
        let hooks = Hooks::new(&host);
        hooks.ok(&host, "migrate", &domain(GUEST, None));
        let guest = Self::tap(&host, &hooks);
        Self { host, hooks, guest }
    }

    fn tap(host: &Host, hooks: &Hooks) -> Guest {
        Self::closed_tap(host, hooks);
        Guest::open(host, "vnet0")
    }

    fn closed_tap(host: &Host, hooks: &Hooks) {
        hooks.ok(host, "prepare", &domain(GUEST, None));
        host.add_tap("vnet0");
        host.ok("ip link set vnet0 address fe:42:0a:00:00:0a master br-l2 up");
        hooks.ok(host, "start", &domain(GUEST, Some("vnet0")));
    }

    fn routes(&self) -> Vec<(String, String, u64)> {
        self.host.owned()
    }

    fn state(&self) -> String {
        string(&self.host.status()["taps"][0]["route"])
    }

    fn claimer(&self) -> Option<String> {
        claimer(&self.host)
    }

    fn signal(&self, name: &str) {
        self.host.ok(&format!("kill -{name} {}", self.claimer().unwrap()));
    }

    fn stays_without_route(&self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            assert!(self.routes().is_empty(), "{:?}", self.routes());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The guest's claimer, by the name of its lock.
fn claimer(host: &Host) -> Option<String> {
    let sockets = host.ok("cat /proc/net/unix");
    let mut holders = sockets.split("@tap32/arrival/10.0.0.10/").skip(1).filter_map(|rest| rest.split('/').next());
    holders.find(|pid| *pid != "come").map(str::to_owned)
}

fn claim() -> (String, String, u64) {
    ("10.0.0.10".to_owned(), "br-l2".to_owned(), 10)
}

/// Whoever looks at the host while the guest's memory is copied.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn nobody_gives_it_a_route_too_early() {
    let mut here = Destination::new();
    let watch = Watch::start(&here.host);
    // Longer than watch waits between two looks for claimers.
    here.stays_without_route(Duration::from_millis(2500));
    for typed in ["reconcile", "up vnet0", "up vnet0 --mac 02:42:0a:00:00:0a"] {
        here.host.tap32(typed);
        here.stays_without_route(Duration::from_millis(20));
    }
    here.hooks.ok(&here.host, "reconnect", &domain(GUEST, Some("vnet0")));
    here.stays_without_route(Duration::from_millis(20));
    assert_eq!(here.host.tap32("reconcile -n"), "");
    assert_eq!(here.host.tap32("up vnet0 -n"), "");
    assert_eq!(here.state(), "arriving");
    here.host.tap32("status --check");
    assert!(here.host.tap32("status vnet0").contains("vnet0: arriving"));
    assert!(watch.metrics().contains("state=\"arriving\"} 1"), "{}", watch.metrics());
    assert_eq!(watch.said(), "");
    here.guest.frame_from(GUEST);
    wait_for("claim and settled route", 5, || here.routes() == [claim(), settled("10.0.0.10")]);
    assert_eq!(here.state(), "claimed");
    wait_for("settled", 5, || here.routes() == [settled("10.0.0.10")]);
    wait_for("the claimer is gone", 5, || here.claimer().is_none());
    assert_eq!(here.state(), "settled");
}

/// Then nobody knows when it arrives, and its old host's route goes when it has left.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn without_its_claimer_it_gets_its_route_at_once() {
    let here = Destination::new();
    here.signal("KILL");
    wait_for("the claimer is gone", 5, || here.claimer().is_none());
    assert_eq!((here.routes(), here.state()), (vec![], "missing".to_owned()));
    here.host.tap32("reconcile");
    assert_eq!(here.routes(), [settled("10.0.0.10")]);
    drop(here);

    let here = Destination::new();
    let _watch = Watch::start(&here.host);
    here.stays_without_route(Duration::from_millis(100));
    here.signal("KILL");
    wait_for("its route", 3, || here.routes() == [settled("10.0.0.10")]);
}

/// What `status` tells of a guest that arrives and never sends: the command that it names gives it its route.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_silent_guest_gets_its_route_as_status_says() {
    let here = Destination::new();
    let why = string(&here.host.status()["taps"][0]["why"]);
    let commands: Vec<&str> = why.split('`').skip(1).step_by(2).collect();
    assert_eq!(commands, [format!("kill -KILL {}", here.claimer().unwrap()).as_str(), "tap32 reconcile"], "{why}");
    here.stays_without_route(Duration::from_millis(100));
    here.host.ok(commands[0]);
    wait_for("the claimer is gone", 5, || here.claimer().is_none());
    here.host.ok(&commands[1].replace("tap32", TAP32));
    assert_eq!(here.routes(), [settled("10.0.0.10")]);
}

/// The first frame is proof, though the claimer sleeps through it.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn with_a_claimer_that_is_stuck_others_claim() {
    for has_watch in [true, false] {
        let mut here = Destination::new();
        here.signal("STOP");
        let _watch = has_watch.then(|| Watch::start(&here.host));
        here.guest.frame_from(GUEST);
        wait_for("learned", 5, || here.host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev vnet0")));
        if !has_watch {
            assert_eq!((here.routes(), here.state()), (vec![], "missing".to_owned()));
            let steps = here.host.tap32("reconcile -n");
            let metrics: Vec<_> = steps.lines().filter_map(|step| step.split("metric ").nth(1)).collect();
            assert_eq!(metrics, ["10", "4026531940"], "{steps}");
            here.host.tap32("reconcile");
        }
        wait_for("claim and settled route", 3, || here.routes() == [claim(), settled("10.0.0.10")]);
        // It wakes up, and takes the claim back in its time.
        here.signal("CONT");
        wait_for("settled", 5, || here.routes() == [settled("10.0.0.10")]);
        wait_for("the claimer is gone", 5, || here.claimer().is_none());
    }
}

/// Somebody gives its tap the tap MAC of a guest that is not here: the guard and the claimer both say whose tap it is.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_mac_that_somebody_overwrites_is_not_believed() {
    for has_watch in [true, false] {
        let mut here = Destination::new();
        let _watch = has_watch.then(|| Watch::start(&here.host));
        here.host.ok("ip link set vnet0 address fe:42:0a:00:00:0b");
        let is_back = || here.host.link("vnet0")["address"] == "fe:42:0a:00:00:0a";
        if has_watch {
            wait_for("the tap MAC", 3, is_back);
        } else {
            here.host.tap32("reconcile");
            assert!(is_back());
        }
        here.stays_without_route(Duration::from_millis(100));
        here.guest.frame_from(GUEST);
        wait_for("claim and settled route", 5, || here.routes() == [claim(), settled("10.0.0.10")]);
    }
}

/// Between the first frame and the end of its claim somebody deletes all that could tell of it.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn under_watch_one_that_has_come_stays() {
    let mut here = Destination::new();
    let _watch = Watch::start(&here.host);
    here.guest.frame_from(GUEST);
    wait_for("claim and settled route", 5, || here.routes() == [claim(), settled("10.0.0.10")]);
    here.host.sh("bridge fdb del 02:42:0a:00:00:0a dev vnet0 master; ip route flush proto 132");
    wait_for("its routes are back", 1, || here.routes() == [claim(), settled("10.0.0.10")]);
    wait_for("settled", 5, || here.routes() == [settled("10.0.0.10")]);
}

/// It leaves again, and comes back, while the claim of its first arrival could still be there.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn twice_within_settle() {
    let mut here = Destination::new();
    for _ in 0..2 {
        here.guest.frame_from(GUEST);
        wait_for("claim and settled route", 5, || here.routes() == [claim(), settled("10.0.0.10")]);
        here.host.ok("ip link del vnet0");
        here.hooks.ok(&here.host, "stopped", &domain(GUEST, None));
        here.hooks.ok(&here.host, "release", &domain(GUEST, None));
        assert!(here.routes().is_empty());
        here.hooks.ok(&here.host, "migrate", &domain(GUEST, None));
        here.guest = Destination::tap(&here.host, &here.hooks);
        here.stays_without_route(Duration::from_millis(100));
    }
    here.guest.frame_from(GUEST);
    wait_for("claim and settled route", 5, || here.routes() == [claim(), settled("10.0.0.10")]);
    wait_for("settled", 5, || here.routes() == [settled("10.0.0.10")]);
}

/// `down` follows so soon that the claimer has not yet looked at the tap that came.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_claimer_that_was_slow_goes_with_its_tap() {
    for end in ["ip link del vnet0".to_owned(), format!("{TAP32} down vnet0")] {
        let host = Host::new();
        let hooks = Hooks::new(&host);
        hooks.ok(&host, "migrate", &domain(GUEST, None));
        let pid = claimer(&host).unwrap();
        host.ok(&format!("kill -STOP {pid}"));
        let guest = Destination::tap(&host, &hooks);
        host.ok(&end);
        drop(guest);
        // `down` has killed it.
        host.run(&format!("kill -CONT {pid}"));
        wait_for("the claimer is gone", 5, || claimer(&host).is_none());
        assert!(host.owned().is_empty());
    }
}

/// A tap that QEMU has not opened yet has no carrier, and is not one that QEMU has closed.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn before_its_tap_is_open_it_waits_whatever_happens_to_the_tap() {
    for fault in [FLUSH_FDB, "ip link set vnet0 nomaster"] {
        let host = Host::new();
        let hooks = Hooks::new(&host);
        hooks.ok(&host, "migrate", &domain(GUEST, None));
        Destination::closed_tap(&host, &hooks);
        host.sh(fault);
        host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
        let mut guest = Guest::open(&host, "vnet0");
        assert!(claimer(&host).is_some() && host.owned().is_empty(), "{fault}: {:?}", host.owned());
        guest.frame_from(GUEST);
        wait_for("claim and settled route", 5, || host.owned() == [claim(), settled("10.0.0.10")]);
    }
}

/// With the metric of the seed nothing can be claimed: a guest that arrives has its route from the start.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn with_the_metric_of_the_seed_it_has_its_route_from_the_start() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    hooks.configure("distance = 0\n");
    hooks.ok(&host, "migrate", &domain(GUEST, None));
    let _guest = Destination::tap(&host, &hooks);
    assert_eq!(host.owned(), [("10.0.0.10".to_owned(), "br-l2".to_owned(), 0)]);
}
