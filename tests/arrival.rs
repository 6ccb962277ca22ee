//! libvirt's hook calls and the claimer against a real kernel, without libvirt: the test makes the taps as
//! libvirt does, calls the hook as libvirt does, and plays the guest's first frame by an entry in the bridge's
//! table, which is all that a frame leaves behind. They need root: `sudo tests/run`.

mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::hooks::{Hooks, claimers, domain};
use common::{GUEST, Guest, Host, SETTLED, string, text, wait_for};

const CLAIM: u64 = 10;

/// A tap as libvirt leaves it before `start`.
fn libvirt_tap(host: &Host, tap: &str) {
    host.add_tap(tap);
    host.ok(&format!("ip link set {tap} address fe:42:0a:00:00:0a master br-l2 up"));
}

fn routes(metrics: &[u64]) -> Vec<(String, String, u64)> {
    metrics.iter().map(|metric| ("10.0.0.10".into(), "br-l2".into(), *metric)).collect()
}

fn arrive(host: &Host, hooks: &Hooks) {
    hooks.ok(host, "migrate", &domain(GUEST, None));
    hooks.ok(host, "prepare", &domain(GUEST, None));
    libvirt_tap(host, "vnet0");
    hooks.ok(host, "start", &domain(GUEST, Some("vnet0")));
    hooks.ok(host, "started", &domain(GUEST, Some("vnet0")));
    assert_eq!(claimers(host).len(), 1);
    // Its packets still go to its old host.
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_cold_start_and_the_end() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    hooks.ok(&host, "prepare", &domain(GUEST, None));
    assert!(host.owned().is_empty());
    libvirt_tap(&host, "vnet0");
    hooks.ok(&host, "start", &domain(GUEST, Some("vnet0")));
    assert_eq!(host.owned(), routes(&[SETTLED]));
    assert!(host.isolated("vnet0"));
    assert!(claimers(&host).is_empty());
    // The daemon restarts; somebody had flushed the route.
    host.ok("ip route flush proto 132");
    hooks.ok(&host, "reconnect", &domain(GUEST, Some("vnet0")));
    assert_eq!(host.owned(), routes(&[SETTLED]));
    // The tap goes first, and the XML does not name it any more.
    host.ok("ip link del vnet0");
    hooks.ok(&host, "stopped", &domain(GUEST, None));
    assert!(host.owned().is_empty());
    hooks.ok(&host, "release", &domain(GUEST, None));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn prepare_refuses_before_anything_exists() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    let before = host.state();
    for (mac, sentence) in [
        ("02:42:08:08:08:08", "8.8.8.8 (guest MAC 02:42:08:08:08:08) is outside the prefixes of bridge br-l2"),
        ("52:54:00:12:34:56", "is not a guest MAC of the form 02:42:AA:BB:CC:DD"),
        ("02:42:0a:00:00:01", "10.0.0.1 is the gateway address"),
    ] {
        let output = hooks.call(&host, "prepare", &domain(mac, None));
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(sentence), "{said}");
        assert_eq!(said.lines().count(), 1);
        assert_eq!(host.state(), before);
    }
    for garbage in ["", "<domain", "<!DOCTYPE x><domain/>"] {
        assert_eq!(hooks.call(&host, "prepare", garbage).status.code(), Some(1));
    }
    // 5 MiB of it are not read to the end.
    let long = format!("<domain>{}</domain>", "<x/>".repeat(1_300_000));
    assert!(text(&hooks.call(&host, "prepare", &long).stderr).contains("longer than 4 MiB"));

    // A second guest with the MAC of the first, on this host: it never starts, and its end is not the first's.
    libvirt_tap(&host, "vnet0");
    hooks.ok(&host, "start", &domain(GUEST, Some("vnet0")));
    let said = text(&hooks.call(&host, "prepare", &domain(GUEST, None)).stderr);
    assert!(said.contains("vnet0 already carries"), "{said}");
    hooks.ok(&host, "release", &domain(GUEST, None));
    assert_eq!(host.owned(), routes(&[SETTLED]));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn where_an_exit_code_would_kill_it_is_zero() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    libvirt_tap(&host, "vnet0");
    hooks.ok(&host, "start", &domain(GUEST, Some("vnet0")));
    hooks.configure("protocol = = 1");
    assert!(hooks.call(&host, "start", &domain(GUEST, Some("vnet0"))).status.code() == Some(1));
    for operation in ["reconnect", "migrate", "stopped", "release"] {
        for xml in ["", "<domain", &domain(GUEST, None)] {
            let output = hooks.call(&host, operation, xml);
            assert_eq!(output.status.code(), Some(0), "{operation}: {}", text(&output.stderr));
        }
    }
    // The last calls had a broken file, and the route had to go all the same. (The tap carries it still, so
    // nothing but its end lets the route go.)
    assert_eq!(host.owned(), routes(&[SETTLED]));
    host.ok("ip link del vnet0");
    assert_eq!(hooks.call(&host, "stopped", &domain(GUEST, None)).status.code(), Some(0));
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_arrival_claims_on_the_first_frame_and_settles() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    arrive(&host, &hooks);
    // A frame of another guest, or of this one's tap, is not its first frame.
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from("02:42:0a:00:00:0b");
    wait_for("dropped", 5, || host.ok("tc -s qdisc show dev vnet0 clsact").contains("dropped 1,"));
    assert!(host.owned().is_empty());
    let frame = Instant::now();
    guest.frame_from(GUEST);
    wait_for("the claim", 5, || host.owned() == routes(&[CLAIM, SETTLED]));
    let status = host.status();
    assert_eq!(string(&status["taps"][0]["route"]), "claimed");
    wait_for("settled", 5, || host.owned() == routes(&[SETTLED]));
    assert!(frame.elapsed() >= Duration::from_secs(1));
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());
}

/// Between the hook and the first frame the host can get the guest's address itself, and the configuration can change.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_address_that_is_refused_by_now_is_not_claimed() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    arrive(&host, &hooks);
    host.ok("ip addr add 10.0.0.10/32 dev lo");
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from(GUEST);
    wait_for("learned", 5, || host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev vnet0")));
    // A claim comes within milliseconds of the frame.
    let frame = Instant::now();
    while frame.elapsed() < Duration::from_millis(500) {
        assert!(host.owned().is_empty());
    }
    host.ok("ip link del vnet0");
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());
}

/// One claimer waits for all NICs of a domain; the end of one is not that of the others.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_nic_that_goes_leaves_the_claim_of_another() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    let nic = |last: u8| {
        format!(
            "<interface type='bridge'><mac address='02:42:0a:00:00:{last:02x}'/><source bridge='br-l2'/></interface>"
        )
    };
    hooks.ok(&host, "migrate", &format!("<domain><devices>{}{}</devices></domain>", nic(10), nic(11)));
    for (tap, last) in [("vnet0", 10), ("vnet1", 11)] {
        host.add_tap(tap);
        host.tap32(&format!("up {tap} --mac 02:42:0a:00:00:{last:02x}"));
    }
    let claimer = claimers(&host);
    assert_eq!(claimer.len(), 1);
    let mut second = Guest::open(&host, "vnet1");
    host.tap32("down vnet0");
    let routes = |metrics: &[u64]| metrics.iter().map(|m| ("10.0.0.11".into(), "br-l2".into(), *m)).collect::<Vec<_>>();
    assert_eq!((host.owned(), claimers(&host)), (vec![], claimer));
    second.frame_from("02:42:0a:00:00:0b");
    wait_for("the claim", 5, || host.owned() == routes(&[CLAIM, SETTLED]));
    wait_for("settled", 5, || host.owned() == routes(&[SETTLED]));
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_claimer_holds_none_of_the_hooks_descriptors() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    // `call` reads stdout and stderr to their end: a claimer that held them would hang it here.
    arrive(&host, &hooks);
    let pid = claimers(&host).remove(0);
    // It opens sockets for a moment: one that is closed by now is none of the hook's.
    let names = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let open: Vec<_> = names.filter_map(|name| Some((name.clone(), std::fs::read_link(name).ok()?))).collect();
    for number in ["0", "1", "2"] {
        let null = |(name, what): &(PathBuf, PathBuf)| name.ends_with(number) && what == Path::new("/dev/null");
        assert!(open.iter().any(null), "{number} of {open:?}");
    }
    assert!(open.iter().all(|(_, what)| !what.starts_with("pipe:")), "{open:?}");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_migration_that_fails_leaves_nothing() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    // While the guest's memory is copied: its tap goes, and libvirt tells.
    arrive(&host, &hooks);
    host.ok("ip link del vnet0");
    hooks.ok(&host, "stopped", &domain(GUEST, None));
    hooks.ok(&host, "release", &domain(GUEST, None));
    assert!(host.owned().is_empty());
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());

    // Before there is a tap.
    hooks.ok(&host, "migrate", &domain(GUEST, None));
    assert_eq!(claimers(&host).len(), 1);
    hooks.ok(&host, "release", &domain(GUEST, None));
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());

    // Before there is a tap, and libvirt never tells: the next migration does not rely on a claimer that is about to go.
    hooks.ok(&host, "migrate", &domain(GUEST, None));
    let first = claimers(&host);
    arrive(&host, &hooks);
    assert_ne!(claimers(&host), first);
    host.ok("ip link del vnet0");
    hooks.ok(&host, "release", &domain(GUEST, None));
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());

    // After the claim, and libvirt never tells: QEMU and the daemon died together.
    arrive(&host, &hooks);
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from(GUEST);
    wait_for("the claim", 5, || host.owned() == routes(&[CLAIM, SETTLED]));
    host.ok("ip link del vnet0");
    wait_for("the claim is gone", 5, || host.owned() == routes(&[SETTLED]));
    wait_for("the claimer is gone", 5, || claimers(&host).is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_arrival_that_never_comes_ends_after_timeout() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    // Longer than all the hook's calls take on a busy machine.
    hooks.configure("[migration]\ntimeout = \"4s\"\n");
    arrive(&host, &hooks);
    wait_for("the claimer is gone", 10, || claimers(&host).is_empty());
    assert!(host.owned().is_empty());
    host.tap32("reconcile");
    assert_eq!(host.owned(), routes(&[SETTLED]));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_killed_claimer_lets_go_of_its_lock() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    arrive(&host, &hooks);
    let lock = || host.ok("cat /proc/net/unix").contains("@tap32/arrival/10.0.0.10");
    assert!(lock());
    // A second call for the same guest leaves it to the first claimer.
    hooks.ok(&host, "migrate", &domain(GUEST, None));
    wait_for("one claimer", 5, || claimers(&host).len() == 1);
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from(GUEST);
    wait_for("the claim", 5, || host.owned() == routes(&[CLAIM, SETTLED]));
    host.ok(&format!("kill -9 {}", claimers(&host)[0]));
    wait_for("the lock is free", 5, || !lock());
    // The claim stays, for `reconcile` to demote.
    assert_eq!(host.owned(), routes(&[CLAIM, SETTLED]));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_that_merely_starts_with_a_taken_address_does_not_claim() {
    let host = Host::new();
    let hooks = Hooks::new(&host);
    host.ok("ip link add eth0 type veth peer name eth1");
    host.ok("ip addr add 10.47.175.10/30 dev eth0");
    host.ok("ip link set eth0 up");
    host.ok("ip link set eth1 up");
    host.ok("ip route add 10.0.0.10/32 via 10.47.175.9 dev eth0 proto ospf metric 20");
    hooks.ok(&host, "prepare", &domain(GUEST, None));
    libvirt_tap(&host, "vnet0");
    let output = hooks.call(&host, "start", &domain(GUEST, Some("vnet0")));
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("duplicate") && said.contains("next hop 10.47.175.9"), "{said}");
    let mut guest = Guest::open(&host, "vnet0");
    guest.frame_from(GUEST);
    wait_for("learned", 5, || host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev vnet0")));
    assert_eq!(host.owned(), routes(&[SETTLED]));
    assert!(claimers(&host).is_empty());
    let status = host.status();
    assert_eq!(string(&status["taps"][0]["route"]), "shadowed");
    assert_eq!(string(&status["taps"][0]["next_hop"]), "10.47.175.9");
}
