//! What `up` and `down` refuse, and what fails half-way: a sentence that says why, and nothing changed. They need root:
//! `sudo tests/run`.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use common::setup::Folder;
use common::{GUEST, Host, SETTLED, TAP32, settled, text, wait_for};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_is_refused_changes_nothing() {
    let host = Host::new();
    host.ok("ip link add eth9 type veth peer name eth8");
    host.ok("ip addr add 10.0.0.77/32 dev eth9");
    host.ok("ip link set eth9 up");
    host.ok("ip link add virbr0 type bridge");
    host.ok("ip tuntap add tun0 mode tun");
    for tap in ["vnet0", "vnet1", "vnet2"] {
        host.add_tap(tap);
    }
    host.ok("ip link set vnet1 master virbr0");
    host.tap32("up vnet2 --mac 02:42:0a:00:00:0b");
    let before = host.state();
    for (arguments, sentence) in [
        ("up eth9 --mac 02:42:0a:00:00:0a", "eth9 is an interface of kind veth, not a tap"),
        ("up lo --mac 02:42:0a:00:00:0a", "lo is a physical interface or the loopback, not a tap"),
        ("up tun0 --mac 02:42:0a:00:00:0a", "tun0 is an interface of kind tun, not a tap"),
        ("up br-l2 --mac 02:42:0a:00:00:0a", "br-l2 is an interface of kind bridge, not a tap"),
        ("down eth9", "eth9 is an interface of kind veth, not a tap"),
        ("up vnet9 --mac 02:42:0a:00:00:0a", "there is no interface vnet9"),
        ("up vnet0 --mac 52:54:00:12:34:56", "is not a guest MAC of the form 02:42:AA:BB:CC:DD"),
        ("up vnet0 --mac 02:42:c1:25:0f:ba", "193.37.15.186 (guest MAC 02:42:c1:25:0f:ba) is outside the prefixes"),
        ("up vnet0 --mac 02:42:0a:00:00:00", "10.0.0.0 is the network address of bridge br-l2"),
        ("up vnet0 --mac 02:42:0a:00:00:ff", "10.0.0.255 is the broadcast address of bridge br-l2"),
        ("up vnet0 --mac 02:42:0a:00:00:01", "10.0.0.1 is the gateway address of bridge br-l2"),
        ("up vnet0 --mac 02:42:0a:00:00:4d", "10.0.0.77 is an address of this host"),
        ("up vnet0 --mac 02:42:7f:00:00:01", "127.0.0.1 is a loopback address"),
        ("up vnet0 --mac 02:42:e0:00:00:05", "224.0.0.5 is a multicast address"),
        ("up vnet0 --mac 02:42:00:00:00:01", "0.0.0.1 is in 0.0.0.0/8"),
        ("up vnet0 --mac 02:42:f0:00:00:01", "240.0.0.1 is in 240.0.0.0/4"),
        ("up vnet0 --mac 02:42:0a:00:00:0b", "vnet2 already carries 10.0.0.11 (guest MAC 02:42:0a:00:00:0b)"),
        ("up vnet2 --mac 02:42:0a:00:00:0a", "vnet2 already carries 10.0.0.11"),
        ("up vnet1 --mac 02:42:0a:00:00:0a", "vnet1 is already a port of virbr0"),
        ("up vnet0 --mac 02:42:0a:00:00:0a --bridge virbr0", "tap32 does not manage bridge virbr0 (only br-l2)"),
        // A MAC that the kernel chose at random is nobody's address, and no QEMU calls here.
        ("up vnet0", "does not know the guest MAC of vnet0"),
    ] {
        let said = host.refused(arguments);
        assert!(said.contains(sentence), "tap32 {arguments}\n{said}");
        assert_eq!(host.state(), before, "tap32 {arguments}");
    }
    host.ok("ip link set br-l2 down");
    let said = host.refused("up vnet0 --mac 02:42:0a:00:00:0a");
    assert!(said.contains("bridge br-l2 is down") && said.contains("ip link set dev br-l2 up"), "{said}");
    host.ok("ip link del br-l2");
    assert!(host.refused("up vnet0 --mac 02:42:0a:00:00:0a").contains("bridge br-l2 does not exist"));
}

/// What to write goes into the file that tap32 reads.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_file_of_config_is_named_in_the_fix() {
    let host = Host::new();
    host.add_tap("vnet0");
    let folder = Folder::new(&host);
    let file = folder.write("other.toml", "[[bridge]]\nname = \"br-l2\"\n");
    for arguments in ["up vnet0 --mac 02:42:08:08:08:08", "up vnet0 --mac 02:42:0a:00:00:0a --bridge br9"] {
        let said = host.refused(&format!("{arguments} --config {file}"));
        assert!(said.contains(&file) && !said.contains("/etc/tap32.toml"), "{said}");
        let output = host.command(TAP32).args(arguments.split(' ')).env("TAP32_CONFIG", &file).output().unwrap();
        assert!(text(&output.stderr).contains(&file), "{}", text(&output.stderr));
        assert!(host.refused(arguments).contains("/etc/tap32.toml"));
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_taps_with_one_address() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.add_tap("vnet1");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let before = host.state();
    let said = host.refused(&format!("up vnet1 --mac {GUEST}"));
    assert!(said.contains("10.0.0.10") && said.contains("vnet0 already carries"), "{said}");
    assert_eq!(host.state(), before);
    // The end of the refused guest must not take the first one's route along.
    host.tap32(&format!("down vnet1 --mac {GUEST}"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn foreign_routes_are_left_alone() {
    let host = Host::new();
    host.add_tap("vnet0");
    // One exactly where ours would go, and two that merely lead to the same guest.
    host.ok(&format!("ip route add 10.0.0.10/32 dev br-l2 proto static metric {SETTLED}"));
    host.ok("ip route add 10.0.0.10/32 dev br-l2 proto static metric 4100000000");
    host.ok("ip route add 10.0.0.10/32 dev br-l2 proto 133 metric 4200000000");
    let before = host.state();
    let said = host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert!(said.contains("another program's route") && said.contains("ip route show exact 10.0.0.10/32"), "{said}");
    assert_eq!(host.state(), before);

    host.ok(&format!("ip route del 10.0.0.10/32 dev br-l2 proto static metric {SETTLED}"));
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    host.tap32("down vnet0");
    assert_eq!(host.json("ip -j route show exact 10.0.0.10/32").as_array().unwrap().len(), 2);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_full_bridge_says_what_to_do() {
    let host = Host::new();
    let batch: String =
        (0..1023).map(|i| format!("tuntap add port{i} mode tap\nlink set port{i} master br-l2\n")).collect();
    host.batch(&batch);
    host.add_tap("vnet0");
    let before = host.link("vnet0");
    let said = host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert!(said.contains("at most 1023 ports"), "{said}");
    // The kernel had set MAC and MTU before it refused the bridge.
    for key in ["address", "mtu", "flags", "master"] {
        assert_eq!(host.link("vnet0")[key], before[key], "{key}");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_kernels_own_words_are_in_the_error() {
    let host = Host::new();
    // More than a tap can have.
    host.ok("ip link set br-l2 mtu 65535");
    host.add_tap("vnet0");
    let before = host.state();
    let said = host.refused(&format!("up vnet0 --mac {GUEST}"));
    assert!(said.contains("Invalid argument (mtu greater than device maximum)"), "{said}");
    assert_eq!(host.state(), before);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn without_cap_net_admin_nothing_changes() {
    let host = Host::new();
    host.add_tap("vnet0");
    let before = host.state();
    let mut weak = host.command("setpriv");
    let output = weak.args(["--bounding-set=-net_admin", TAP32, "up", "vnet0", "--mac", GUEST]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("Operation not permitted") && said.contains("CAP_NET_ADMIN"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(host.state(), before);
}

/// `up` is stopped after its n-th request, and the bridge goes then: nothing is left, and the error says what is missing.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_that_vanishes_between_two_steps() {
    let host = Host::bare();
    let mut after_attach = 0;
    for n in 1.. {
        host.add_bridge();
        host.add_tap("vnet0");
        let before = host.link("vnet0");
        let calls = std::env::temp_dir().join(format!("{}-calls", host.name));
        let mut stopped = host.command("strace");
        stopped.args(["-qq", "-e", "trace=sendto", "-e", &format!("inject=sendto:signal=SIGSTOP:when={n}"), "-o"]);
        stopped.arg(&calls).args(["sh", "-c", "echo $$ && exec \"$@\"", "sh", TAP32, "up", "vnet0", "--mac", GUEST]);
        let mut child = stopped.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut pid).unwrap();
        let is_stopped = || std::fs::read_to_string(&calls).unwrap_or_default().contains("stopped by SIGSTOP");
        wait_for("stopped, or at its end", 20, || is_stopped() || child.try_wait().unwrap().is_some());
        let is_attached = host.link("vnet0")["master"] == "br-l2";
        let is_over = !host.owned().is_empty();
        if !is_over {
            host.ok("ip link del br-l2");
        }
        // Not of one that has ended.
        host.run(&format!("kill -CONT {pid}"));
        let output = child.wait_with_output().unwrap();
        std::fs::remove_file(&calls).unwrap();
        if is_over {
            assert!(output.status.success(), "{}", text(&output.stderr));
            break;
        }
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "request {n}");
        let names_it = said.contains("br-l2") || said.contains("vnet0 is no longer a port of a bridge");
        assert!(said.starts_with("tap32: up vnet0: ") && names_it && !said.contains("take"), "request {n}: {said}");
        let after = host.link("vnet0");
        for key in ["address", "mtu", "flags", "master"] {
            assert_eq!(after[key], before[key], "request {n}: {key}");
        }
        assert_eq!((host.owned(), host.guard("vnet0")), (vec![], String::new()), "request {n}");
        after_attach += i32::from(is_attached);
        host.ok("ip link del vnet0");
    }
    assert!(after_attach >= 4, "{after_attach}");
}

/// The n-th request cannot even be sent: the end state is right, or nothing has changed and the error says what.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_request_fails_in_turn() {
    let host = Host::new();
    let mut failed = 0;
    for n in 1.. {
        host.add_tap("vnet0");
        let before = host.state();
        let mut broken = host.command("strace");
        broken.args(["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e"]);
        broken.arg(format!("inject=sendto:error=ENOBUFS:when={n}"));
        let output = broken.args([TAP32, "up", "vnet0", "--mac", GUEST]).output().unwrap();
        if output.status.success() {
            assert_eq!(host.owned(), [settled("10.0.0.10")]);
            break;
        }
        assert!(text(&output.stderr).starts_with("tap32: up vnet0: "), "{}", text(&output.stderr));
        assert_eq!(host.state(), before, "request {n}: {}", text(&output.stderr));
        failed += 1;
        host.ok("ip link del vnet0");
    }
    println!("up: {failed} requests made to fail, each in turn");
    assert!(failed >= 7, "{failed}");
}
