//! `doctor` against real faults of the host, its hooks and its guests: each is injected, found, fixed by running the
//! very command that doctor printed, and gone; other programs judge. FRR's are in tests/doctor_frr.rs, those of guards in
//! tests/doctor_guards.rs. They need root: `sudo tests/run`.

mod common;

use common::view::{Fault, View};
use common::{Host, TAP32, text, wait_for};

const CONFIG: &str = r#"[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"
mac = "02:00:00:00:00:01"
mtu = 1400

[fabric]
router-id = "10.47.176.132"

[[uplink]]
name = "eth0"
address = "10.47.175.10/30"
peer = "10.47.175.9"

[[uplink]]
name = "eth1"
address = "10.47.175.14/30"
peer = "10.47.175.13"
"#;

const HOOK: &str = "/etc/libvirt/hooks/qemu.d/50-tap32";

fn fault(
    check: &'static str,
    verdict: &'static str,
    seen: &'static str,
    inject: &'static str,
    judge: &'static str,
) -> Fault {
    Fault { check, verdict, seen, inject, judge }
}

/// A host that is set up and has one guest, whose libvirtd and networkd are sleeping processes of these names.
fn host() -> (View, Vec<String>) {
    let view = View::new(CONFIG);
    for (card, switch) in [("eth0", "sw0"), ("eth1", "sw1")] {
        view.ok(&format!("ip link add {card} type veth peer name {switch} && ip link set {switch} up"));
    }
    view.ok("tap32 setup");
    view.ok("ip tuntap add vnet0 mode tap && tap32 up vnet0 --mac 02:42:0a:00:00:0a");
    view.ok("mkdir -p /etc/systemd/networkd.conf.d && printf '[Network]\\nManageForeignRoutes=no\\n' \
             >/etc/systemd/networkd.conf.d/a.conf");
    view.ok(&format!("mkdir -p /etc/libvirt/hooks/qemu.d && ln -s /usr/sbin/tap32 {HOOK}"));
    let bin = view.folder.0.join("bin");
    for name in ["libvirtd", "systemd-networkd"] {
        view.ok(&format!("cp /usr/bin/sleep {}/{name} && service {name} start", bin.display()));
    }
    view.ok("for name in ifup ifdown; do ln -sf /usr/sbin/tap32 /etc/qemu-$name; done");
    view.ok("sysctl -qw net.bridge.bridge-nf-call-iptables=0; rm -rf /etc/iproute2/rt_protos.d; \
             mkdir -p /etc/iproute2/rt_protos.d && echo '132 tap32' >/etc/iproute2/rt_protos.d/tap32.conf");
    let well = view.wrong();
    // No FRR, no syslog perhaps, no guest has opened its tap, watch is for the last fault.
    let allowed = ["FRR", "syslog", "br-l2 carrier", "tap32 watch"];
    assert!(well.iter().all(|check| allowed.contains(&check.as_str())), "{well:?}");
    (view, well)
}

fn faults() -> Vec<Fault> {
    let link = |check, seen, inject, judge| fault(check, "fail", seen, inject, judge);
    vec![
        link("br-l2 present", "no such interface", "ip link del br-l2", "ip -d link show br-l2 | grep -q ' bridge '"),
        link("br-l2 up", "down", "ip link set br-l2 down", "ip link show br-l2 | grep -q '[<,]UP[,>]'"),
        link(
            "br-l2 10.0.0.1/24",
            "no IPv4",
            "ip addr del 10.0.0.1/24 dev br-l2",
            "ip addr show br-l2 | grep -q 'inet 10.0.0.1/24'",
        ),
        link(
            "br-l2 MAC",
            "02:00:00:00:00:99",
            "ip link set br-l2 address 02:00:00:00:00:99",
            "ip link show br-l2 | grep -q 'ether 02:00:00:00:00:01'",
        ),
        link(
            "br-l2 STP",
            "on:",
            "ip link set br-l2 type bridge stp_state 1",
            "ip -d link show br-l2 | grep -q 'stp_state 0'",
        ),
        link("br-l2 MTU", "1300", "ip link set br-l2 mtu 1300", "ip link show br-l2 | grep -q 'mtu 1400'"),
        fault(
            "eth0 MTU for br-l2",
            "warn",
            "1280, the bridge has 1400",
            "ip link set eth0 mtu 1280",
            "ip link show eth0 | grep -q 'mtu 1[4-9]'",
        ),
        link("eth0 up", "down", "ip link set eth0 down", "ip link show eth0 | grep -q '[<,]UP[,>]'"),
        link(
            "eth1 10.47.175.14/30",
            "no IPv4",
            "ip addr flush dev eth1",
            "ip addr show eth1 | grep -q 'inet 10.47.175.14/30'",
        ),
        link(
            "lo 10.47.176.132/32",
            "127.0.0.1/8",
            "ip addr del 10.47.176.132/32 dev lo",
            "ip addr show lo | grep -q 'inet 10.47.176.132/32'",
        ),
        link(
            "configuration",
            "line 1: there is no key colour ",
            "sed -i '1i colour = \"red\"' /etc/tap32.toml",
            "! grep -q '^colour' /etc/tap32.toml",
        ),
        fault(
            "rt_protos",
            "warn",
            "without a name",
            "rm /etc/iproute2/rt_protos.d/tap32.conf",
            "ip route show proto tap32 2>/dev/null | grep -q 10.0.0.10",
        ),
        link(
            "systemd-networkd ManageForeignRoutes",
            "yes, by default",
            "rm -rf /etc/systemd/networkd.conf.d",
            "grep -qs ManageForeignRoutes=no /etc/systemd/networkd.conf.d/*",
        ),
        link(
            "systemd-networkd ManageForeignRoutes",
            "true:",
            "printf '[Network]\\nManageForeignRoutes=true\\n' >/etc/systemd/networkd.conf.d/60-tap32.conf",
            "grep -qs ManageForeignRoutes=no /etc/systemd/networkd.conf.d/60-*",
        ),
    ]
}

fn hook_faults() -> Vec<Fault> {
    let hook = |check, seen, inject, judge| fault(check, "fail", seen, inject, judge);
    const LINK: &str = "test -x /etc/libvirt/hooks/qemu.d/50-tap32";
    vec![
        hook("libvirt hook", "none:", "rm /etc/libvirt/hooks/qemu.d/50-tap32", LINK),
        hook("libvirt hook", "dangling link", "ln -sf /nowhere/tap32 /etc/libvirt/hooks/qemu.d/50-tap32", LINK),
        hook(
            "libvirt hook",
            "not executable",
            "mkdir /etc/copy; cp /usr/sbin/tap32 /etc/copy/tap32; chmod 644 /etc/copy/tap32; ln -sf /etc/copy/tap32 \
             /etc/libvirt/hooks/qemu.d/50-tap32",
            LINK,
        ),
        hook(
            "libvirt hook",
            "not tap32",
            "ln -sf /usr/bin/true /etc/libvirt/hooks/qemu.d/50-tap32",
            "readlink -f /etc/libvirt/hooks/qemu.d/50-tap32 | grep -q tap32",
        ),
        hook(
            "libvirt hook's path",
            "AppArmor does not let libvirt run",
            "mkdir -p /etc/elsewhere && cp /usr/sbin/tap32 /etc/elsewhere/tap32 && \
             ln -sf /etc/elsewhere/tap32 /etc/libvirt/hooks/qemu.d/50-tap32 && echo Y >/sys/module/apparmor/parameters/enabled",
            "readlink -f /etc/libvirt/hooks/qemu.d/50-tap32 | grep -q '^/usr/sbin/'",
        ),
        fault(
            "libvirt hook is loaded",
            "warn",
            "started before the hook was installed",
            "touch -h /etc/libvirt/hooks/qemu.d/50-tap32",
            // The daemon is younger than the link.
            "test $(( $(date +%s%N) / 10000000 - $(cut -d' ' -f1 /proc/uptime | tr -d .) + \
             $(cut -d' ' -f22 /proc/$(cat $(dirname $(which libvirtd))/../libvirtd.pid)/stat) )) \
             -gt $(( $(date -d \"$(stat -c %z /etc/libvirt/hooks/qemu.d/50-tap32)\" +%s%N) / 10000000 ))",
        ),
        fault(
            "/etc/qemu-ifup",
            "warn",
            "not tap32",
            "rm /etc/qemu-ifup; printf '#!/bin/sh\\n' >/etc/qemu-ifup; chmod 755 /etc/qemu-ifup",
            "readlink -f /etc/qemu-ifup | grep -q '/tap32$'",
        ),
        // With the diversion there, as the package leaves it: the script is somebody's own, and is kept.
        fault(
            "/etc/qemu-ifup",
            "warn",
            "not tap32",
            "rm /etc/qemu-ifup; printf '#!/bin/sh\\n# precious\\n' >/etc/qemu-ifup; chmod 755 /etc/qemu-ifup; touch /etc/precious",
            "readlink -f /etc/qemu-ifup | grep -q '/tap32$' && \
             { [ ! -e /etc/precious ] || grep -q precious /etc/qemu-ifup.before-tap32; }",
        ),
        fault(
            "/etc/qemu-ifdown",
            "warn",
            "dangling link",
            "ln -sf /nowhere /etc/qemu-ifdown",
            "test -x /etc/qemu-ifdown",
        ),
    ]
}

fn guest_faults() -> Vec<Fault> {
    let guest = |check, seen, inject, judge| fault(check, "fail", seen, inject, judge);
    vec![
        guest(
            "guest 10.0.0.10 tap",
            "is on no bridge",
            "ip link set vnet0 nomaster && ip route del 10.0.0.10/32 proto 132",
            "bridge link show dev vnet0 | grep -q 'master br-l2'",
        ),
        guest(
            "guest 10.0.0.10 route",
            "missing, although vnet0 has the guest",
            "ip route del 10.0.0.10/32 proto 132",
            "ip route show proto 132 | grep -q '10.0.0.10 dev br-l2'",
        ),
        guest(
            "guest 10.0.0.10 isolation",
            "not isolated",
            "bridge link set dev vnet0 isolated off",
            "bridge -d link show dev vnet0 | grep -q 'isolated on'",
        ),
        guest(
            "route 10.0.0.99",
            "no tap carries this guest",
            "ip route add 10.0.0.99/32 dev br-l2 proto 132 scope link metric 4026531940",
            "! ip route show proto 132 | grep -q 10.0.0.99",
        ),
    ]
}

/// Each switch that setup wants, as `tap32 render sysctl` lists them, set to something else.
fn sysctls(view: &View, well: &[String]) -> usize {
    let listed = view.ok("tap32 render sysctl | grep -v '^#'");
    let lines: Vec<(&str, &str)> = listed.lines().filter_map(|line| line.split_once('=')).collect();
    for (name, value) in &lines {
        let (name, value) = (name.trim(), value.trim());
        let check: &str = format!("sysctl {name}").leak();
        // proxy_delay is in hundredths of a second, and kept in the kernel's own ticks.
        let other = if name.ends_with("proxy_delay") { 80 } else { i32::from(value != "1") };
        let inject: &str = format!("sysctl -qw {name}={other}").leak();
        let judge: &str = format!("test $(sysctl -n {name}) = {value}").leak();
        view.survives(&fault(check, "fail", ", not ", inject, judge), well);
    }
    lines.len()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_fault_of_the_host_is_found_and_fixed_by_what_is_printed() {
    let (view, well) = host();
    let mut count = 0;
    for fault in faults().iter().chain(&hook_faults()).chain(&guest_faults()) {
        view.survives(fault, &well);
        count += 1;
    }
    let switches = sysctls(&view, &well);
    // Last, for watch fixes guests' routes before doctor sees them.
    let watch = fault("tap32 watch", "warn", "does not run", "true", "ss -xl | grep -q @tap32/watch");
    assert!(!view.is(watch.judge));
    view.ok(&common::string(&view.row(watch.check).unwrap()["fix"]));
    wait_for("watch runs", 10, || view.is(watch.judge) && view.row(watch.check).unwrap()["verdict"] == "ok");
    println!("{} faults of the host, and each of {switches} switches: found, fixed, gone", count + 1);
    assert!(count + 1 + switches >= 25);
}

/// As anybody: whatever that may see is judged, the rest says that it was not, and nothing is an error of its own.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_ordinary_user_sees_what_he_may() {
    let (view, _) = host();
    // Without the processes of other tests, which an ordinary user cannot tell from the host's own.
    let ordinary = "unshare -pf --mount-proc setpriv --reuid 65534 --regid 65534 --clear-groups tap32 doctor";
    view.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp=0");
    let output = view.run(ordinary);
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    assert!(out.contains("fix: sysctl -w net.ipv4.conf.br-l2.proxy_arp=1"), "{out}");
    assert!(out.contains("run this as root"), "{out}");
    assert!(
        said.starts_with("tap32: doctor: ") && said.contains(" checks failed") && said.lines().count() == 1,
        "{said}"
    );
    view.ok("sysctl -qw net.ipv4.conf.br-l2.proxy_arp=1");
    let output = view.run(ordinary);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{}", text(&output.stdout));
}

/// No bridge, no configuration, no FRR, no libvirt: rows, not errors.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn where_nothing_is_it_says_so() {
    let host = Host::bare();
    let script = format!(
        "mount -t tmpfs none /etc && mount -t tmpfs none /run && mount -t tmpfs none /usr/local && PATH=/usr/local exec {TAP32} doctor --json"
    );
    let output = host.command("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = |check: &str| {
        let rows = answer["checks"].as_array().unwrap();
        rows.iter()
            .find(|row| row["check"] == check)
            .map(|row| (common::string(&row["verdict"]), common::string(&row["seen"])))
    };
    let is = |check: &str, verdict_is: &str, seen: &str| {
        let (verdict, says) = verdict(check).unwrap_or_else(|| panic!("no row {check}"));
        assert!(verdict == verdict_is && says.contains(seen), "{check}: {verdict}, {says}");
    };
    is("configuration", "warn", "describes nothing to set up");
    is("br-l2 present", "fail", "no such interface");
    is("libvirt hook", "ok", "not installed");
    is("/etc/qemu-ifup", "ok", "not installed");
    is("FRR", "ok", "not installed");
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}

/// Its MAC is the tap's of its only guest.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_without_a_mac_of_its_own_is_named() {
    let view = View::new("[[bridge]]\nname = \"br-l2\"\n");
    view.ok("ip link add br-l2 type bridge && ip addr add 10.0.0.1/24 dev br-l2 && ip link set br-l2 up");
    view.ok("ip tuntap add vnet0 mode tap && tap32 up vnet0 --mac 02:42:0a:00:00:0a");
    let mac = || view.ok("cat /sys/class/net/br-l2/address").trim().to_owned();
    let row = || view.row("br-l2 MAC").unwrap();
    assert_eq!(mac(), "fe:42:0a:00:00:0a");
    assert_eq!(row()["verdict"], "fail");
    assert_eq!(row()["seen"], "fe:42:0a:00:00:0a, which changes with the ports: guests lose their gateway then");
    view.ok(&common::string(&row()["fix"]));
    assert_eq!(mac(), "02:42:0a:00:00:01");
    view.ok("tap32 down vnet0");
    assert_eq!(mac(), "02:42:0a:00:00:01");
    assert_eq!((row()["verdict"].as_str(), row()["seen"].as_str()), (Some("ok"), Some("02:42:0a:00:00:01")));
}
