//! `status` against a real kernel: what it says of each state, to programs, on a terminal, and of one tap. They need
//! root: `sudo tests/run`.

mod common;

use common::{GUEST, Host, SETTLED, TAP32, string, text};

/// Exit code, stdout and stderr.
fn run(host: &Host, arguments: &str) -> (i32, String, String) {
    let output = host.run(&format!("{TAP32} {arguments}"));
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn check_fails_with_anything_that_is_wrong() {
    let host = Host::new();
    assert_eq!(run(&host, "status --check").0, 0);
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(run(&host, "status --check"), (0, host.tap32("status"), String::new()));
    assert_eq!(run(&host, "status vnet0 --check").0, 0);
    for (fault, mend, sentence) in [
        ("ip route flush proto 132", "tap32 reconcile", "1 tap, 1 missing"),
        (
            &format!("ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric {SETTLED}"),
            "tap32 reconcile",
            "1 tap, 1 settled, 1 orphan",
        ),
        ("bridge link set dev vnet0 isolated off", "tap32 reconcile", "would take 1 step"),
        ("ip route add 10.0.0.10/32 dev lo metric 7", "ip route del 10.0.0.10/32 metric 7", "1 tap, 1 shadowed"),
        ("ip route add blackhole 10.0.0.10/32", "ip route del blackhole 10.0.0.10/32", "1 tap, 1 shadowed"),
        ("ip route add unreachable 10.0.0.10/32", "ip route del unreachable 10.0.0.10/32", "1 tap, 1 shadowed"),
        ("ip route add local 10.0.0.10/32 dev lo", "ip route del local 10.0.0.10/32 dev lo", "1 tap, 1 shadowed"),
        ("ip addr add 10.0.0.10/32 dev lo", "ip addr del 10.0.0.10/32 dev lo", "1 tap, 1 refused"),
    ] {
        host.ok(fault);
        let (code, table, said) = run(&host, "status --check");
        assert!(code == 1 && said.contains(sentence) && said.lines().count() == 1, "{fault}: {said}");
        assert!(table.starts_with("TAP "), "{table}");
        host.ok(&mend.replace("tap32", TAP32));
        assert_eq!(run(&host, "status --check").0, 0, "{mend}");
    }
    host.ok("ip link del br-l2");
    let (code, table, said) = run(&host, "status --check");
    assert!(
        code == 1 && said.contains("bridge br-l2 does not exist") && table.ends_with("bridge br-l2 does not exist\n")
    );
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_foreign_route_is_named_with_what_takes_it_away() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok("ip route add 10.0.0.10/32 dev lo proto static metric 7");
    let status = host.status();
    let row = &status["taps"][0];
    assert_eq!((&row["route"], &row["next_hop"]), (&"shadowed".into(), &serde_json::Value::Null));
    let why = row["why"].as_str().unwrap();
    let command = why.split('`').nth(1).unwrap();
    assert_eq!(command, "ip route del 10.0.0.10/32 dev lo proto 4 metric 7");
    host.ok(command);
    assert_eq!(host.status()["taps"][0]["route"], "settled");
}

/// What `ip route get` refuses to show, and what an `ip rule` leads to.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_wins_unseen_or_from_another_table_is_named() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let why = || common::string(&host.status()["taps"][0]["why"]);
    let kernel = || {
        let said = host.tap32("status vnet0");
        said.lines().find(|line| line.starts_with("kernel ")).unwrap_or_default().to_owned()
    };
    host.ok("ip route add blackhole 10.0.0.10/32");
    assert!(!host.run("ip route get 10.0.0.10").status.success());
    assert!(why().starts_with("a blackhole route takes the packets for 10.0.0.10"), "{}", why());
    assert_eq!(kernel(), "kernel    takes a blackhole route, not tap32's");
    host.ok("ip route del blackhole 10.0.0.10/32");

    host.ok("ip rule add pref 100 lookup 1000");
    host.ok("ip route add 10.0.0.10/32 dev lo table 1000 proto static metric 7");
    assert_eq!(why().split('`').nth(1).unwrap(), "ip route del 10.0.0.10/32 dev lo proto 4 metric 7 table 1000");
    assert!(kernel().contains("table 1000, not tap32's"), "{}", kernel());
    host.ok(why().split('`').nth(1).unwrap());

    // A copy of ours leads where ours does, but zebra does not look there.
    host.ok(&format!("ip route add 10.0.0.10/32 dev br-l2 table 1000 proto 132 scope link metric {SETTLED}"));
    assert_eq!(host.status()["taps"][0]["route"], "settled");
    host.tap32("down vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    assert_eq!(host.owned(), [common::settled("10.0.0.10")]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_tap_is_explained() {
    let host = Host::new();
    host.ok("ip link add virbr0 type bridge");
    for tap in ["vnet0", "vnet1", "vnet2"] {
        host.add_tap(tap);
    }
    host.ok("ip link set vnet2 master virbr0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let (code, said, _) = run(&host, "status vnet0");
    assert_eq!(code, 0);
    for line in [
        "tap       vnet0: settled",
        "MAC       fe:42:0a:00:00:0a, set by somebody",
        "guest     02:42:0a:00:00:0a, whose last four octets are 10.0.0.10",
        "port      of br-l2, up, isolated, MTU 1500",
        "policy    allowed",
        "settled   10.0.0.10/32 dev br-l2 proto 132 scope link metric 4026531940",
        "claim     no such route",
        "kernel    takes 10.0.0.10/32 dev br-l2 proto 132 metric 4026531940, tap32's",
    ] {
        assert!(said.lines().any(|there| there.starts_with(line)), "{line}\n{said}");
    }
    assert!(run(&host, "status vnet1").1.contains("chosen by the kernel at random"));
    assert!(run(&host, "status vnet2").1.contains("port      of virbr0, down"));
    assert!(host.refused("status vnet9").contains("there is no interface vnet9"));
    assert!(host.refused("status br-l2").contains("not a tap"));
    let only: serde_json::Value = serde_json::from_str(&run(&host, "status vnet0 --json").1).unwrap();
    assert_eq!((only["taps"].as_array().unwrap().len(), &only["taps"][0]["tap"]), (1, &"vnet0".into()));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn colour_only_on_a_terminal() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let plain = host.tap32("status");
    assert!(!plain.contains('\x1b'));
    let on_terminal = |environment: &str| {
        let mut script = host.command("script");
        let line = format!("{environment} {TAP32} status");
        text(&script.args(["-qec", &line, "/dev/null"]).output().unwrap().stdout)
    };
    let coloured = on_terminal("");
    assert!(coloured.contains("\x1b[32msettled\x1b[0m"), "{coloured:?}");
    // The columns stand where they stand without colour.
    let bare = coloured.replace("\x1b[32m", "").replace("\x1b[0m", "").replace('\r', "");
    assert_eq!(bare, plain);
    assert!(!on_terminal("NO_COLOR=1").contains('\x1b'));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn status_shows_taps_and_orphans_to_anybody() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok(&format!("ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric {SETTLED}"));
    host.ok("ip route add 10.0.0.98/32 dev br-l2 proto static");
    let mut nobody = host.command("setpriv");
    let binary = std::env::temp_dir().join(format!("tap32-{}-binary", std::process::id()));
    std::fs::copy(TAP32, &binary).unwrap();
    nobody.args(["--reuid=65534", "--clear-groups"]).arg(&binary);
    let output = nobody.args(["status", "--json"]).output().unwrap();
    std::fs::remove_file(&binary).unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["taps"].as_array().unwrap().len(), 1);
    let tap = &status["taps"][0];
    assert_eq!((string(&tap["tap"]), string(&tap["address"])), ("vnet0".into(), "10.0.0.10".into()));
    assert_eq!((string(&tap["route"]), &tap["isolated"]), ("settled".into(), &true.into()));
    assert_eq!(status["orphans"].as_array().unwrap().len(), 1);
    assert_eq!(status["orphans"][0]["address"], "10.0.0.99");
    host.ok("ip route flush proto 132");
    let status = host.status();
    assert_eq!(status["taps"][0]["route"], "missing");
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_cannot_be_printed_is_said() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Host::new().command(TAP32).arg("status").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot be written there: No space left"), "{}", text(&output.stderr));
}

/// A host with more taps than a terminal has lines.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn many_taps_are_counted_and_all_lists_them() {
    const TAPS: usize = 25;
    let host = Host::new();
    for i in 0..TAPS {
        host.add_tap(&format!("vnet{i}"));
        host.tap32(&format!("up vnet{i} --mac 02:42:0a:00:00:{:02x}", 10 + i));
    }
    host.ok("ip route del 10.0.0.17/32 dev br-l2 proto 132");
    let table = host.tap32("status");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["vnet7", "02:42:0a:00:00:11", "10.0.0.17", "br-l2", "yes", "yes", "missing", "-"], "{table}");
    assert_eq!(rows[2], ["24", "taps", "-", "-", "br-l2", "yes", "yes", "settled", "-"], "{table}");
    assert!(rows[3][0] == "vnet7:" && table.lines().count() == 6, "{table}");
    assert_eq!(host.tap32("status --all").lines().count(), 1 + TAPS + 1 + 1);
    assert_eq!(host.status()["taps"].as_array().unwrap().len(), TAPS);
    assert_eq!(run(&host, "status --check").1, table);

    // Its route is settled, and --check fails.
    host.tap32("reconcile");
    host.ok("bridge link set dev vnet8 isolated off");
    let (code, table, _) = run(&host, "status --check");
    let said =
        table.lines().nth(1).unwrap().starts_with("vnet8 ") && table.contains("\nvnet8: the port is not isolated: ");
    assert!(code == 1 && said, "{table}");
    assert_eq!(run(&host, "status vnet8 --check").0, 1);
    assert_eq!(run(&host, "status vnet9 --check").0, 0);
}

/// Root is not told to become root.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_frr_that_does_not_run() {
    let host = Host::new();
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    let folder = common::setup::Folder::new(&host);
    let vtysh = folder.write("vtysh", "#!/bin/sh\necho 'Exiting: failed to connect to any daemons.' >&2\nexit 1\n");
    host.ok(&format!("chmod -R a+rx {}", folder.0.display()));
    let path = vtysh.trim_end_matches("/vtysh");
    let ask = |who: &str| host.ok(&format!("env PATH={path}:/usr/sbin:/usr/bin:/sbin:/bin {who} {TAP32} status vnet0"));
    let root = ask("env");
    assert!(root.contains(": start FRR with `systemctl start frr`\n") && !root.contains("as root"), "{root}");
    let anybody = ask("setpriv --reuid 65534 --regid 65534 --clear-groups");
    assert!(anybody.contains(": run this as root, and if that says so too start FRR"), "{anybody}");
}
