//! `reconcile` against a real kernel: whatever was missed, killed or broken, one run fixes it, and nothing of
//! anybody else's is touched. They need root: `sudo tests/run`.

mod common;

use common::slow::{self, slower};
use common::{Background, GUEST, Guest, Host, SETTLED, TAP32, crowd, text, wait_for};

fn route(address: &str, metric: u64) -> (String, String, u64) {
    (address.into(), "br-l2".into(), metric)
}

/// Runs `tap32 reconcile` under strace with one injected fault.
fn faulty(host: &Host, arguments: &[&str], fault: &str) -> std::process::Output {
    let mut strace = host.command("strace");
    strace.args(["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &format!("inject=sendto:{fault}"), TAP32]);
    strace.args(arguments).output().unwrap()
}

/// A host on which everything is wrong that can be.
fn mess() -> Host {
    let host = Host::new();
    for (tap, mac) in [("vnet0", "fe:42:0a:00:00:0a"), ("vnet1", "fe:42:0a:00:00:0b"), ("vnet2", "fe:42:0a:00:00:0c")] {
        host.add_tap(tap);
        // Guests that ran before tap32 came.
        host.ok(&format!("ip link set {tap} address {mac} master br-l2 up"));
    }
    // A claim whose claimer is dead, an old distance, a route without a tap.
    host.ok("ip route add 10.0.0.11/32 dev br-l2 proto 132 scope link metric 10");
    host.ok("ip route add 10.0.0.12/32 dev br-l2 proto 132 scope link metric 0");
    host.ok(&format!("ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric {SETTLED}"));
    // Not ours: other protocols, another bridge, a tap of somebody else's, one that the policy refuses.
    host.ok("ip route add 10.0.0.98/32 dev br-l2 proto static");
    host.ok("ip route add 10.0.0.10/32 dev br-l2 proto 133 metric 4200000000");
    host.ok("ip link add virbr0 type bridge");
    host.ok("ip link set virbr0 up");
    host.ok("ip route add 10.9.0.9/32 dev virbr0 proto 132 scope link");
    host.add_tap("vnet7");
    host.ok("ip link set vnet7 address fe:42:0a:00:00:4d master virbr0 up");
    host.add_tap("vnet8");
    host.ok("ip link set vnet8 address fe:42:08:08:08:08 master br-l2 up");
    host
}

fn mended() -> Vec<(String, String, u64)> {
    vec![
        route("10.0.0.10", SETTLED),
        route("10.0.0.11", SETTLED),
        route("10.0.0.12", SETTLED),
        ("10.9.0.9".into(), "virbr0".into(), 0),
    ]
}

/// The kernel gives a bridge the MTU of its smallest port, and its own back once that one is gone, if nobody has made the
/// others as small meanwhile.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_small_mtu_pulls_nobody_down() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.add_tap("small");
    host.ok("ip link set small address fe:42:0a:00:00:0b mtu 1280");
    host.ok("ip link set small master br-l2 up");
    assert_eq!(host.link("br-l2")["mtu"], 1280);
    host.tap32("reconcile");
    assert_eq!((&host.link("vnet0")["mtu"], &host.link("small")["mtu"]), (&1500.into(), &1280.into()));
    assert_eq!(host.owned(), [route("10.0.0.10", SETTLED), route("10.0.0.11", SETTLED)]);
    host.ok("ip link del small");
    assert_eq!(host.link("br-l2")["mtu"], 1500);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_run_mends_everything_and_the_next_has_nothing_to_do() {
    let host = mess();
    let before = host.state();
    let planned = host.tap32("reconcile -n");
    assert_eq!(host.state(), before);
    assert_eq!(host.tap32("reconcile"), planned);
    // Added before deleted: no address is ever without a route.
    let first_deleted = planned.lines().position(|line| line.starts_with("ip route del")).unwrap();
    let is_later = |line: &str| {
        ["ip route del", "tc qdisc add", "tc filter add", "ip link set dev"].iter().any(|it| line.starts_with(it))
    };
    assert!(planned.lines().skip(first_deleted).all(is_later), "{planned}");

    assert_eq!(host.owned(), mended());
    assert!(["vnet0", "vnet1", "vnet2"].iter().all(|tap| host.isolated(tap)));
    assert!(!host.isolated("vnet8"));
    assert_eq!(host.link("vnet7")["master"], "virbr0");
    assert_eq!(host.json("ip -j route show proto static").as_array().unwrap().len(), 1);
    assert_eq!(host.json("ip -j route show proto 133").as_array().unwrap().len(), 1);
    let after = host.state();
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.tap32("reconcile -n"), "");
    assert_eq!(host.state(), after);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn routes_that_the_kernel_dropped_without_a_word_come_back() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok("ip link set br-l2 down");
    host.ok("ip link set br-l2 up");
    assert!(host.owned().is_empty());
    host.tap32("reconcile");
    assert_eq!(host.owned(), [route("10.0.0.10", SETTLED)]);
    host.ok("ip addr del 10.0.0.1/24 dev br-l2");
    host.ok("ip addr add 10.0.0.1/24 dev br-l2");
    assert!(host.owned().is_empty());
    host.tap32("reconcile");
    assert_eq!(host.owned(), [route("10.0.0.10", SETTLED)]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_port_that_is_no_tap_is_somebody_elses() {
    let host = Host::new();
    host.ok("ip link add veth0 type veth peer name veth1");
    host.ok("ip link set veth0 address fe:42:0a:00:00:0a master br-l2 up");
    let before = host.state();
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.state(), before);
    assert_eq!(host.status()["taps"].as_array().unwrap().len(), 0);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_live_claim_stays() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok("ip route add 10.0.0.10/32 dev br-l2 proto 132 scope link metric 10");
    let lock = "import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(f'\\0tap32/arrival/10.0.0.10/{os.getpid()}/1/0/1')
s.listen()
print('locked', flush=True)
sys.stdin.read()";
    let mut python = host.command("python3");
    let mut claimer = python
        .args(["-c", lock])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(claimer.stdout.as_mut().unwrap(), &mut [0; 7]).unwrap();
    assert_eq!(host.tap32("reconcile"), "");
    assert_eq!(host.owned(), [route("10.0.0.10", 10), route("10.0.0.10", SETTLED)]);
    drop(claimer.stdin.take());
    claimer.wait().unwrap();
    assert_eq!(host.tap32("reconcile"), "ip route del 10.0.0.10/32 dev br-l2 proto 132 scope link metric 10\n");
    assert_eq!(host.owned(), [route("10.0.0.10", SETTLED)]);
}

/// Each send fails in turn: the end state is right, or the error says what, and the next run mends it.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_request_fails_in_turn() {
    let mut failed = 0;
    for n in 1.. {
        let host = mess();
        let before = host.state();
        let output = faulty(&host, &["reconcile"], &format!("error=ENOBUFS:when={n}"));
        if output.status.success() {
            assert_eq!(host.owned(), mended());
            break;
        }
        failed += 1;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.starts_with("tap32: reconcile: "), "{said}");
        // The first four only ask: of routes, addresses, bridges, interfaces. One that failed changes nothing.
        if n <= 4 {
            assert_eq!(host.state(), before, "send {n}: {said}");
        }
        host.tap32("reconcile");
        assert_eq!(host.owned(), mended(), "after request {n} failed");
    }
    println!("reconcile: {failed} sends made to fail, each in turn");
    assert!(failed >= 6, "{failed}");
}

/// Of the requests that go in one datagram each is refused in turn, by a route that is in its way: the others are
/// taken, and the error says which was not.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn each_request_of_a_batch_is_refused_in_turn() {
    const TAPS: u8 = 40;
    let mut refused = 0;
    for victim in (10..10 + TAPS).step_by(3 * slower()) {
        let host = Host::new();
        let taps = |i: u8| {
            format!("tuntap add vnet{i} mode tap\nlink set vnet{i} address fe:42:0a:00:00:{i:02x} master br-l2 up\n")
        };
        host.batch(&(10..10 + TAPS).map(taps).collect::<String>());
        host.ok(&format!("ip route add 10.0.0.{victim}/32 dev br-l2 proto static metric {SETTLED}"));
        let said = text(&host.run(&format!("{TAP32} reconcile")).stderr);
        assert!(
            said.contains(&format!("another program's route to 10.0.0.{victim} with metric {SETTLED} is in the way")),
            "{said}"
        );
        assert_eq!(host.owned().len(), usize::from(TAPS) - 1);
        assert!((10..10 + TAPS).all(|i| host.isolated(&format!("vnet{i}"))));
        host.ok(&format!("ip route del 10.0.0.{victim}/32 dev br-l2 proto static"));
        assert_eq!(host.tap32("reconcile").lines().count(), 1);
        refused += 1;
    }
    println!("reconcile: {refused} requests of a batch refused, each in turn");
}

/// The claimer killed at each of its requests, before, in and after claim and demote: one `reconcile` leaves the
/// settled route and nothing else.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_claimer_killed_at_every_step() {
    let (mut killed, mut claims) = (0, 0);
    for n in 1.. {
        let host = Host::new();
        host.add_tap("vnet0");
        host.tap32(&format!("up vnet0 --mac {GUEST}"));
        let config = std::env::temp_dir().join(format!("{}.toml", host.name));
        std::fs::write(&config, "[migration]\nsettle = \"50ms\"\ntimeout = \"20s\"\n").unwrap();
        let mut strace = host.command("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e"]);
        strace.arg(format!("inject=sendto:signal=KILL:when={n}"));
        strace.args([TAP32, "arrival", GUEST, "--config"]).arg(&config).stdout(std::process::Stdio::null());
        // The frame has been seen before the claimer starts, so that it claims at its first look: always the same
        // requests, up to the claim and behind it.
        let mut guest = Guest::open(&host, "vnet0");
        guest.frame_from(GUEST);
        wait_for("learned", 5, || host.ok("bridge fdb show br br-l2").contains(&format!("{GUEST} dev vnet0")));
        let mut claimer = Background(strace.spawn().unwrap());
        let mut status = None;
        wait_for("the claimer's end", 20, || {
            status = claimer.0.try_wait().unwrap();
            status.is_some()
        });
        std::fs::remove_file(&config).unwrap();
        claims += usize::from(host.owned().contains(&route("10.0.0.10", 10)));
        host.tap32("reconcile");
        assert_eq!(host.owned(), [route("10.0.0.10", SETTLED)], "killed at request {n}");
        assert_eq!(host.tap32("reconcile"), "");
        if status.unwrap().success() {
            break;
        }
        killed += 1;
    }
    println!("claim and demote: killed at {killed} requests, each in turn; {claims} left a claim behind");
    assert!(killed >= 5 && claims >= 1, "{killed}, {claims}");
}

/// Killed at each request of `up` and of `down`: one `reconcile` makes tap and route agree.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn killed_at_every_step() {
    let mut killed = 0;
    for verb in [vec!["up", "vnet0", "--mac", GUEST], vec!["down", "vnet0"]] {
        for n in 1.. {
            let host = Host::new();
            host.add_tap("vnet0");
            if verb[0] == "down" {
                host.tap32(&format!("up vnet0 --mac {GUEST}"));
            }
            let output = faulty(&host, &verb, &format!("signal=KILL:when={n}"));
            host.tap32("reconcile");
            let attached = host.link("vnet0")["master"] == "br-l2";
            let expected = if attached { vec![route("10.0.0.10", SETTLED)] } else { Vec::new() };
            assert_eq!(host.owned(), expected, "{verb:?} killed at request {n}");
            assert!(!attached || host.isolated("vnet0"));
            assert_eq!(host.tap32("reconcile"), "");
            if output.status.success() {
                break;
            }
            killed += 1;
        }
    }
    println!("up and down: killed at {killed} requests, each in turn");
    assert!(killed >= 10, "{killed}");
}

/// The kernel tells routes apart by prefix and metric: one behind another bridge is moved, never missing.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_that_comes_back_behind_another_bridge() {
    let host = Host::new();
    host.ok("ip link add br-m2 address 02:00:00:00:00:02 type bridge");
    host.ok("ip link set br-m2 up");
    let config = std::env::temp_dir().join(format!("{}.toml", host.name));
    let table = |name| format!("[[bridge]]\nname = \"{name}\"\nprefixes = [\"10.0.0.0/24\"]\n");
    std::fs::write(&config, table("br-l2") + &table("br-m2")).unwrap();
    let config = config.display();
    let behind = |bridge: &str| vec![("10.0.0.10".to_owned(), bridge.to_owned(), SETTLED)];
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST} --bridge br-l2 --config {config}"));
    // Killed: nobody called down.
    host.ok("ip link del vnet0");
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST} --bridge br-m2 --config {config}"));
    assert_eq!(host.owned(), behind("br-m2"));
    host.ok("ip link set vnet0 master br-l2");
    let printed = host.tap32(&format!("reconcile --config {config}"));
    let moved = format!("ip route replace 10.0.0.10/32 dev br-l2 proto 132 scope link metric {SETTLED}\n");
    assert!(printed.ends_with(&(moved + "ip neigh del 10.0.0.10 dev br-m2\n")), "{printed}");
    assert!(!printed.contains("route del"), "{printed}");
    assert_eq!(host.owned(), behind("br-l2"));
    assert_eq!(host.tap32(&format!("reconcile --config {config}")), "");
    std::fs::remove_file(config.to_string()).unwrap();
}

/// A port that goes while the ports are listed hides another one from the list (rtnl_bridge_getlink): its guest must
/// keep its route.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn ports_that_go_meanwhile_hide_no_guest() {
    const GUESTS: u32 = 400;
    const OTHERS: u32 = 300;
    let host = Host::new();
    host.ok("ip link add virbr0 type bridge");
    let others: String =
        (0..OTHERS).map(|n| format!("tuntap add other{n} mode tap\nlink set other{n} master virbr0\n")).collect();
    host.ok("ip addr add 10.0.0.1/16 dev br-l2");
    let all = crowd(GUESTS);
    host.batch(&all);
    host.tap32("reconcile");
    assert_eq!(host.owned().len(), GUESTS as usize);
    let (mut passes, mut rounds) = (0, 0);
    while passes < slow::rounds(200) {
        // Those that go must come first in the list: the guests are made anew behind them.
        host.batch(&(0..GUESTS).map(|n| format!("link del many{n}\n")).collect::<String>());
        host.batch(&others);
        host.batch(&all);
        host.tap32("reconcile");
        let gone: String = (0..OTHERS).map(|n| format!("link del other{n}\n")).collect();
        std::thread::scope(|scope| {
            let going = scope.spawn(|| host.batch(&gone));
            while !going.is_finished() {
                let printed = host.tap32("reconcile");
                assert!(!printed.contains("route del"), "pass {passes}: {printed}");
                passes += 1;
            }
        });
        assert_eq!(host.owned().len(), GUESTS as usize);
        rounds += 1;
    }
    println!("{passes} passes while {OTHERS} ports went, {rounds} times: no guest lost its route");
}
