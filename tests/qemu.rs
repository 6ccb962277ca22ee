//! The hook under a real QEMU, in a namespace: `sudo tests/run` makes the guest image and runs these.
//! Only two tests boot a guest; for the others it is enough that QEMU sets up its devices (`-S`).

mod common;

use std::process::Command;

use common::qemu::{Guest, Scripts, ask, boot, ends, quit, signal, start};
use common::{Host, TAP32, settled, string, text, wait_for};

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_is_reached_by_the_32_that_its_mac_says_and_leaves_nothing() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let guest = boot(&host, &scripts, &Guest::new("10.0.0.10", "vnet0"));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    assert_eq!(host.link("vnet0")["address"], "fe:42:0a:00:00:0a");
    assert!(host.isolated("vnet0"));
    host.ok("ping -c 3 -i 0.2 -W 5 10.0.0.10");
    // The kernel takes the /32, not the subnet.
    assert_eq!(host.json("ip -j route get fibmatch 10.0.0.10")[0]["dst"], "10.0.0.10");

    signal(&guest, "-TERM");
    wait_for("QEMU and its tap are gone", 20, || host.link("vnet0").is_null());
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn after_sigkill_the_route_stays_which_is_what_reconcile_is_for() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let netdev = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
    let guest = start(
        &host,
        &scripts,
        &["-S", "-netdev", &netdev, "-device", "e1000,netdev=n0,romfile=,mac=02:42:0a:00:00:0a"],
    );
    wait_for("the route", 20, || host.owned() == [settled("10.0.0.10")]);
    signal(&guest, "-KILL");
    wait_for("the tap is gone", 20, || host.link("vnet0").is_null());
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    let status = host.status();
    assert_eq!(status["orphans"][0]["address"], "10.0.0.10");
    host.tap32("reconcile");
    assert!(host.owned().is_empty());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_dialect_of_the_command_line() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let options = scripts.options();
    let json = format!(
        r#"{{"type":"tap","id":"n0","ifname":"vnet0","script":"{0}/qemu-ifup","downscript":"{0}/qemu-ifdown"}}"#,
        scripts.0.display()
    );
    let mac = "02:42:0a:00:00:0a";
    let named = format!("tap,id=n0,ifname=vnet0,{options}");
    let nameless = format!("tap,id=n0,{options}");
    let nic = format!("tap,ifname=vnet0,{options},mac={mac},model=e1000");
    let net = format!("tap,ifname=vnet0,{options}");
    let device = format!("e1000,netdev=n0,romfile=,mac={mac}");
    let device_json = format!(r#"{{"driver":"e1000","netdev":"n0","romfile":"","mac":"{mac}"}}"#);
    let net_nic = format!("nic,model=e1000,macaddr={mac}");
    let short = nic.replace(mac, "2:42:a-0:0:a");
    let json_single = json.replace('"', "'");
    let netdev_conf = format!(
        "[netdev \"n0\"]\n  type = \"tap\"\n  ifname = \"vnet0\"\n  script = \"{0}/qemu-ifup\"\n  \
         downscript = \"{0}/qemu-ifdown\"\n",
        scripts.0.display()
    );
    let device_conf = format!("[device \"d0\"]\n  driver = \"e1000\"\n  netdev = \"n0\"\n  mac = \"{mac}\"\n");
    let conf = scripts.0.join("machine.conf");
    std::fs::write(&conf, netdev_conf + &device_conf).unwrap();
    let conf = conf.display().to_string();
    let set = format!("device.d0.mac={mac}");
    let [global, global_long] = [format!("e1000.mac={mac}"), format!("driver=e1000,property=mac,value={mac}")];
    for arguments in [
        vec!["-netdev", &named, "-device", &device],
        vec!["-device", &device, "--netdev", &named],
        vec!["-netdev", &json, "-device", &device_json],
        vec!["-netdev", &nameless, "-device", &device],
        vec!["-nic", &nic],
        vec!["-net", &net_nic, "-net", &net],
        vec!["-name", "-netdev", "-netdev", &named, "-device", &device],
        vec!["-nic", &short],
        vec!["-netdev", &json_single, "-device", &device],
        vec!["-readconfig", &conf],
        vec!["-netdev", &named, "-device", "e1000,id=d0,netdev=n0,romfile=", "-set", &set],
        vec!["-netdev", &named, "-device", "e1000,netdev=n0,romfile=", "-global", &global],
        vec!["-global", &global_long, "-netdev", &named, "-device", "e1000,netdev=n0,romfile="],
    ] {
        let guest = start(&host, &scripts, &[&["-S"][..], &arguments].concat());
        wait_for(&format!("the route of {arguments:?}"), 20, || host.owned() == [settled("10.0.0.10")]);
        // What QEMU itself takes for the NIC's MAC.
        let info =
            serde_json::json!({"execute": "human-monitor-command", "arguments": {"command-line": "info network"}});
        let said = ask(&scripts, &info);
        assert!(string(&said).contains(&format!("macaddr={mac}")), "{arguments:?}: {said}");
        quit(&scripts);
        wait_for(&format!("the end of {arguments:?}"), 20, || host.owned().is_empty());
        drop(guest);
    }
}

/// The kernel takes 15 characters, and QEMU cuts what is longer.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_name_that_is_too_long_is_cut() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let netdev = format!("tap,id=n0,ifname=vnet-of-the-first-guest,{}", scripts.options());
    let device = "e1000,netdev=n0,romfile=,mac=02:42:0a:00:00:0a";
    let guest = start(&host, &scripts, &["-S", "-netdev", &netdev, "-device", device]);
    wait_for("the route", 20, || host.owned() == [settled("10.0.0.10")]);
    assert_eq!(host.link("vnet-of-the-fir")["address"], "fe:42:0a:00:00:0a");
    quit(&scripts);
    wait_for("no route", 20, || host.owned().is_empty());
    drop(guest);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_nics_two_routes() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let one = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
    let two = format!("tap,id=n1,ifname=vnet1,{}", scripts.options());
    let devices = ["e1000,netdev=n0,romfile=,mac=02:42:0a:00:00:0a", "e1000,netdev=n1,romfile=,mac=02:42:0a:00:00:0b"];
    let arguments = ["-S", "-netdev", &one, "-netdev", &two, "-device", devices[0], "-device", devices[1]];
    let guest = start(&host, &scripts, &arguments);
    wait_for("both routes", 20, || host.owned() == [settled("10.0.0.10"), settled("10.0.0.11")]);
    assert_eq!(host.link("vnet1")["address"], "fe:42:0a:00:00:0b");
    quit(&scripts);
    wait_for("no routes", 20, || host.owned().is_empty());
    drop(guest);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_refused_mac_stops_qemu_with_our_sentence() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let before = host.state();
    let netdev = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
    let nameless = format!("tap,id=n1,{}", scripts.options());
    for (arguments, sentence) in [
        (
            vec!["-device", "e1000,netdev=n0,mac=02:42:c1:25:0f:ba"],
            "193.37.15.186 (guest MAC 02:42:c1:25:0f:ba) is outside",
        ),
        (vec!["-device", "e1000,netdev=n0,mac=02:42:08:08:08:08"], "8.8.8.8 (guest MAC 02:42:08:08:08:08) is outside"),
        (vec!["-device", "e1000,netdev=n0,mac=52:54:00:12:34:56"], "is not a guest MAC of the form 02:42:AA:BB:CC:DD"),
        (vec!["-device", "e1000,netdev=n0"], "has no mac="),
        (vec![], "does not know the guest MAC of vnet0"),
    ] {
        let output = ends(&host, &[&["-S", "-netdev", &netdev][..], &arguments].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(sentence), "{arguments:?}: {said}");
        wait_for("as before", 5, || host.state() == before);
    }
    // Two taps without a name: QEMU alone knows which is which.
    let other = nameless.replace("n1", "n2");
    let output = ends(&host, &["-S", "-netdev", &nameless, "-netdev", &other]);
    assert!(text(&output.stderr).contains("name each one"), "{}", text(&output.stderr));
}

/// The package has taken the place of the script that this QEMU relied on, and says where that is now.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_that_is_not_ours_is_told_of_the_script_before() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let netdev = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
    let ours = "e1000,netdev=n0,romfile=,mac=02:42:08:08:08:08";
    let others = ["e1000,netdev=n0,romfile=,mac=52:54:00:12:34:56", "e1000,netdev=n0,romfile="];
    let said = |device| text(&ends(&host, &["-S", "-netdev", &netdev, "-device", device]).stderr);
    assert!(!said(others[0]).contains("called here before"));
    for ending in ["distrib", "before-tap32"] {
        let script = scripts.0.join("qemu-ifup").display().to_string() + "." + ending;
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for device in others {
            let said = said(device);
            assert!(said.contains(&format!("called here before is script={script}\n")), "{said}");
        }
        assert!(!said(ours).contains("called here before"));
        let netdev = format!("tap,id=n0,ifname=vnet0,script={script},downscript=no");
        let guest = start(&host, &scripts, &["-S", "-netdev", &netdev, "-device", others[0]]);
        quit(&scripts);
        drop(guest);
    }
}

/// The table of options that take an argument, against the QEMU that is installed.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_table_of_options_agrees_with_this_qemu() {
    let help = Command::new("qemu-system-x86_64").arg("--help").output().unwrap();
    let help = text(&help.stdout);
    let names =
        help.lines().filter_map(|line| line.strip_prefix('-')).filter_map(|line| line.split([' ', '\t']).next());
    let mut asked = 0;
    for name in names.filter(|name| !name.starts_with('-') && !name.contains('/')) {
        // A missing argument is noticed before -version is obeyed.
        let output = Command::new("qemu-system-x86_64").args(["-version", &format!("-{name}")]).output().unwrap();
        let takes_one = text(&output.stderr).contains("requires an argument");
        let listed = tap32::machine::qemu::WITH_ARGUMENT.split_whitespace().any(|with| with == name);
        assert_eq!(listed, takes_one, "-{name}: {}", text(&output.stderr));
        asked += 1;
    }
    assert!(asked > 80, "{asked}");
}

/// As an upgrade of QEMU by a migration that stays on the host would have it.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_second_qemu_of_a_guest_on_its_own_host_is_refused_by_name() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let device = "e1000,netdev=n0,romfile=,mac=02:42:0a:00:00:0a";
    let netdev = |tap: &str| format!("tap,id=n0,ifname={tap},{}", scripts.options());
    let first = start(&host, &scripts, &["-S", "-netdev", &netdev("vnet0"), "-device", device]);
    wait_for("the route", 20, || host.owned() == [settled("10.0.0.10")]);
    let second = netdev("vnet1");
    let said = |more: &[&str]| {
        let output = ends(&host, &[&["-S", "-netdev", &second, "-device", device][..], more].concat());
        text(&output.stderr)
    };
    let arriving = said(&["-incoming", "defer"]);
    assert!(arriving.contains("from one QEMU to another on one host, and vnet0 here already carries"), "{arriving}");
    let starting = said(&[]);
    assert!(starting.contains("vnet0 already carries 10.0.0.10"), "{starting}");
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    quit(&scripts);
    drop(first);
}

/// A guest that arrives under plain QEMU has a claimer; its end is the claimer's. Also on a kernel that cannot mark all
/// descriptors at once.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn incoming_starts_a_claimer() {
    for errno in [None, Some("EINVAL"), Some("ENOSYS")] {
        let host = Host::new();
        let scripts = Scripts::new(&host);
        if let Some(errno) = errno {
            let up = scripts.0.join("qemu-ifup");
            std::fs::remove_file(&up).unwrap();
            // -D: strace is not the parent, and QEMU still is.
            let inject = format!("-e trace=close_range -e inject=close_range:error={errno}");
            let strace = format!("strace -D -qq -o /dev/null {inject}");
            std::fs::write(&up, format!("#!/bin/sh\nexec {strace} {TAP32} up \"$1\"\n")).unwrap();
            std::fs::set_permissions(&up, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let netdev = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
        let device = "e1000,netdev=n0,romfile=,mac=02:42:0a:00:00:0a";
        let guest = start(&host, &scripts, &["-incoming", "defer", "-netdev", &netdev, "-device", device]);
        let locked = || host.ok("cat /proc/net/unix").contains("@tap32/arrival/10.0.0.10");
        wait_for("the claimer", 20, || host.isolated("vnet0") && locked());
        // Its packets still go to its old host.
        assert!(host.owned().is_empty());
        // Killed: no down script runs, and the tap must go although the claimer was started from a script that
        // had the tap open.
        signal(&guest, "-KILL");
        wait_for("the tap and the claimer are gone", 20, || host.link("vnet0").is_null() && !locked());
    }
}
