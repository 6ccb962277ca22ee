//! What other programs do to a running guest's tap: udev gives it another MAC, networkd takes it off the bridge, somebody
//! makes the bridge anew. Judged by `ip -j`, `bridge -j` and `tc -j`. They need root: `sudo tests/run`.

mod common;

use common::watch::{Watch, mended};
use common::{GUEST, Guest, Host, TAP32, settled, wait_for};

const TAP_MAC: &str = "fe:42:0a:00:00:0a";

/// With a guest behind vnet0 and one behind vnet1, under `watch`.
fn watched(more: &str) -> (Host, Watch, [Guest; 2]) {
    let host = Host::new();
    for (tap, mac) in [("vnet0", GUEST), ("vnet1", "02:42:0a:00:00:0b")] {
        host.add_tap(tap);
        host.tap32(&format!("up {tap} --mac {mac}"));
    }
    let guests = ["vnet0", "vnet1"].map(|tap| Guest::open(&host, tap));
    let watch = Watch::start(&host);
    if !more.is_empty() {
        watch.configure(more);
        watch.signal("HUP");
        watch.told("READY=1");
    }
    (host, watch, guests)
}

fn both() -> [(String, String, u64); 2] {
    [settled("10.0.0.10"), settled("10.0.0.11")]
}

fn mac(host: &Host, tap: &str) -> String {
    common::string(&host.link(tap)["address"])
}

fn is_whole(host: &Host, tap: &str) -> bool {
    host.link(tap)["master"] == "br-l2"
        && mac(host, tap) == TAP_MAC
        && host.isolated(tap)
        && host.owned() == both()
        && host.ports_with(TAP_MAC) == [(tap.to_owned(), true)]
}

/// Every change of a route to 10.0.0.10 while it lives.
struct Routes {
    file: std::path::PathBuf,
    _monitor: common::Background,
}

impl Routes {
    fn monitor(host: &Host) -> Self {
        let file = std::env::temp_dir().join(format!("{}-routes", host.name));
        let mut ip = host.command("ip");
        ip.args(["monitor", "route"]).stdout(std::fs::File::create(&file).unwrap());
        let monitor = Self { _monitor: common::Background(ip.spawn().unwrap()), file };
        let said = || std::fs::read_to_string(&monitor.file).unwrap();
        // It listens once it tells of a route that nobody needs.
        wait_for("ip monitor", 5, || {
            host.ok("ip route replace 192.0.2.1/32 dev lo proto 200");
            host.ok("ip route del 192.0.2.1/32 dev lo proto 200");
            said().contains("192.0.2.1")
        });
        monitor
    }

    fn deleted(&self) -> bool {
        std::fs::read_to_string(&self.file).unwrap().lines().any(|line| line.starts_with("Deleted 10.0.0.10"))
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_whose_mac_somebody_changed_keeps_its_route_and_gets_its_mac_back() {
    for more in ["", "[[bridge]]\nname = \"br-l2\"\nguard = false\n"] {
        let (host, watch, _guests) = watched(more);
        wait_for("guard as configured", 5, || host.is_guarded("vnet0", GUEST) == more.is_empty());
        let routes = Routes::monitor(&host);
        // udev's, one of another guest's form but with another prefix, and the guest's own.
        for other in ["6e:8a:11:22:33:44", "fe:54:0a:00:00:63", GUEST] {
            mended(
                other,
                || drop(host.ok(&format!("ip link set dev vnet0 address {other}"))),
                || is_whole(&host, "vnet0"),
            );
        }
        assert!(!routes.deleted(), "the route went");
        assert_eq!(watch.said(), "");
        assert!(watch.metric("tap32_repairs_total{kind=\"attach\"}") >= 3.0);
    }
}

/// Who is not there when it happens, an upgraded `watch` or a `reconcile` by hand, knows the guest by its guard.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn reconcile_knows_a_guest_by_its_guard() {
    let (host, watch, _guests) = watched("");
    drop(watch);
    host.ok("ip link set dev vnet0 address 6e:8a:11:22:33:44");
    assert_eq!(host.status()["taps"][0]["address"], "10.0.0.10");
    let routes = Routes::monitor(&host);
    assert!(host.tap32("reconcile").contains(&format!("ip link set dev vnet0 address {TAP_MAC} ")));
    assert!(is_whole(&host, "vnet0") && !routes.deleted());
    assert_eq!(host.tap32("reconcile"), "");

    host.ok("ip link set dev vnet0 address 6e:8a:11:22:33:44");
    host.tap32("down vnet0");
    assert_eq!(host.owned(), [settled("10.0.0.11")]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_that_somebody_took_off_the_bridge_is_put_back() {
    let (host, watch, _guests) = watched("");
    let routes = Routes::monitor(&host);
    mended("nomaster", || drop(host.ok("ip link set dev vnet0 nomaster")), || is_whole(&host, "vnet0"));
    assert!(!routes.deleted());
    // Five times within a minute is another program's will.
    let limit = "again and again";
    for _ in 0..4 {
        host.ok("ip link set dev vnet0 nomaster");
        wait_for("put back", 5, || host.link("vnet0")["master"] == "br-l2");
    }
    host.ok("ip link set dev vnet0 nomaster");
    wait_for("it gives up", 5, || watch.said().contains(limit));
    wait_for("the route goes", 5, || host.owned() == [settled("10.0.0.11")]);
    assert!(host.link("vnet0")["master"].is_null());
    assert!(watch.said().contains("takes vnet0 off br-l2"), "{}", watch.said());
    // The other one is no part of it.
    mended("nomaster", || drop(host.ok("ip link set dev vnet1 nomaster")), || host.link("vnet1")["master"] == "br-l2");
    // And who says `up` means it.
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert!(is_whole(&host, "vnet0"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn status_lists_a_guests_tap_that_is_on_no_bridge_and_reconcile_puts_it_back() {
    let (host, watch, _guests) = watched("");
    drop(watch);
    // One that nobody has opened, and one whose MAC the kernel chose.
    host.add_tap("vnet8");
    host.ok("ip link set vnet8 address fe:42:0a:00:00:12 up");
    host.add_tap("vnet9");
    host.ok("ip link set vnet9 up");
    let _other = Guest::open_unbridged(&host, "vnet9");
    host.ok("ip link set dev vnet0 nomaster");
    let status = host.status();
    let row = status["taps"].as_array().unwrap().iter().find(|tap| tap["tap"] == "vnet0").unwrap();
    assert_eq!((&row["route"], row["bridge"].is_null()), (&"missing".into(), true), "{status}");
    assert_eq!(status["taps"].as_array().unwrap().len(), 2, "{status}");
    let table = host.tap32("status");
    assert!(
        table.contains("vnet0: the tap is on no bridge, so the guest is cut off: `tap32 up vnet0 --mac "),
        "{table}"
    );
    assert!(!host.run(&format!("{TAP32} status --check")).status.success());
    assert!(host.tap32("reconcile -n").contains(&format!("ip link set dev vnet0 address {TAP_MAC} ")));
    host.tap32("reconcile");
    assert!(
        is_whole(&host, "vnet0") && host.link("vnet9")["master"].is_null() && host.link("vnet8")["master"].is_null()
    );
    host.tap32("status --check");
    // What `down` took off stays off.
    host.tap32("down vnet0");
    host.ok("ip link set vnet0 up");
    host.tap32("reconcile");
    assert!(host.link("vnet0")["master"].is_null());
}

/// `virsh update-device` takes a tap off one bridge and puts it on another; networkd and people do so too.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_tap_that_somebody_moves_or_sets_down_is_let_go() {
    let (host, watch, _guests) = watched("");
    host.ok("ip link add br-other type bridge");
    host.ok("ip link set br-other up");
    host.sh("ip link set vnet0 nomaster\nip link set vnet0 master br-other");
    wait_for("its route goes", 5, || host.owned() == [settled("10.0.0.11")]);
    host.tap32("down vnet1");
    host.ok("ip link set vnet1 up");
    let passes = || watch.metric("tap32_pass_duration_seconds_count");
    let before = passes();
    host.ok("ip link set vnet1 mtu 1400");
    wait_for("a pass", 5, || passes() > before);
    let end = std::time::Instant::now() + std::time::Duration::from_millis(500);
    wait_for("half a second", 5, || {
        assert!(host.link("vnet0")["master"] == "br-other" && host.link("vnet1")["master"].is_null());
        assert!(host.owned().is_empty());
        std::time::Instant::now() > end
    });
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_that_is_made_anew_gets_its_guests_back() {
    for more in ["", "[[bridge]]\nname = \"br-l2\"\nguard = false\n"] {
        let (host, _watch, _guests) = watched(more);
        wait_for("guard as configured", 5, || host.is_guarded("vnet0", GUEST) == more.is_empty());
        for (what, pause) in [("at once", ""), ("after a second", "sleep 1\n")] {
            host.sh(&format!("ip link del br-l2\n{pause}ip link add br-l2 type bridge"));
            host.ok("ip link set br-l2 address 02:00:00:00:00:01");
            host.ok("ip addr add 10.0.0.1/24 dev br-l2");
            mended(
                what,
                || {
                    host.ok("ip link set br-l2 up");
                    host.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp=1 net.ipv4.conf.br-l2.proxy_arp_pvlan=1");
                },
                || host.owned() == both() && host.link("vnet0")["master"] == "br-l2",
            );
            host.tap32("reconcile");
            assert!(is_whole(&host, "vnet0"));
        }
    }
    // Without `watch`, by hand.
    let (host, watch, _guests) = watched("");
    drop(watch);
    host.sh(
        "ip link del br-l2\nip link add br-l2 type bridge\nip addr add 10.0.0.1/24 dev br-l2\nip link set br-l2 up",
    );
    host.tap32("reconcile");
    assert!(host.owned() == both() && host.link("vnet1")["master"] == "br-l2");
}

/// udev gives a tap its MAC some milliseconds after it has come: while its guest migrates to this host.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_arrival_survives_what_happens_to_its_tap() {
    const ARRIVING: &str = "02:42:0a:00:00:0c";
    let (host, _watch, _guests) = watched("");
    host.add_tap("vnet2");
    host.ok("ip link set vnet2 up");
    let mut guest = Guest::open_unbridged(&host, "vnet2");
    // It tells by a line that it waits.
    let mut claimer = host.command(TAP32);
    let child = claimer.args(["arrival", ARRIVING]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut claimer = common::Background(child);
    std::io::Read::read_exact(claimer.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    host.tap32(&format!("up vnet2 --mac {ARRIVING}"));
    let is_there = || host.link("vnet2")["master"] == "br-l2" && mac(&host, "vnet2") == "fe:42:0a:00:00:0c";
    host.ok("ip link set dev vnet2 address 6e:8a:11:22:33:44");
    wait_for("its MAC", 5, is_there);
    host.ok("ip link set dev vnet2 nomaster");
    wait_for("its bridge", 5, is_there);
    wait_for("its port forwards", 5, || host.ok("bridge link show dev vnet2").contains("state forwarding"));
    let claim = ("10.0.0.12".to_owned(), "br-l2".to_owned(), 10);
    assert!(!host.owned().contains(&claim));
    guest.frame_from(ARRIVING);
    wait_for("the claim", 5, || host.owned().contains(&claim));
}
