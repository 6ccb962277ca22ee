//! Scenarios of a guest's life on a host, and of what the fabric hears of it.

use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::common::{Background, SETTLED, TAP32, wait_for};
use crate::harness::{Lab, Probe, announcers, answered};

pub fn life(lab: &Lab) {
    lab.start("h1", "g1", "10.0.0.10", "");
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    assert!(lab.in_fabric("10.0.0.10"));
    lab.end("h1", "g1", "10.0.0.10");
}

pub fn sigkill_of_qemu(lab: &Lab) {
    lab.begin("h1", "g1", "10.0.0.10", "");
    wait_for("the fabric has it", 10, || lab.in_fabric("10.0.0.10"));
    lab.node("h1", "pkill -9 -f guest=g[1],");
    lab.gone("10.0.0.10");
    lab.end("h1", "g1", "10.0.0.10");
}

pub fn libvirtd_restarted(lab: &Lab) {
    lab.sh("kill -9 $(cat $dir/h1/libvirt/pid); rm -f $dir/h1/libvirt/pid");
    // Meanwhile somebody loses the route.
    lab.node("h1", "ip route flush proto 132");
    lab.sh("libvirtd_start h1; until_true 30 libvirtd lab_virsh h1 list");
    wait_for("reconnect repairs", 20, || lab.owned("h1", "10.0.0.10") == [SETTLED] && lab.answers("10.0.0.10"));
    assert!(lab.virsh("h1", "domstate g1").contains("running"));
}

pub fn a_refused_mac(lab: &Lab) {
    lab.sh("domain g8 10.0.0.10 | sed s/02:42:0a:00:00:0a/02:42:08:08:08:08/ >$dir/g8.xml; lab_virsh h1 define $dir/g8.xml");
    let (started, said) = lab.try_sh("lab_virsh h1 start g8");
    assert!(!started && said.contains("8.8.8.8 (guest MAC 02:42:08:08:08:08) is outside the prefixes"), "{said}");
    println!("    {}", said.trim().replace('\n', " "));
    lab.virsh("h1", "undefine g8");
    lab.gone("8.8.8.8");
}

pub fn guests_of_one_subnet_reach_each_other(lab: &Lab) {
    lab.begin("h1", "g2", "10.0.0.11", "10.0.0.10");
    lab.begin("h2", "g3", "10.0.0.12", "10.0.0.10");
    for guest in ["g2", "g3"] {
        wait_for(&format!("{guest} reaches g1"), 30, || answered(&lab.console(guest)).len() > 10);
    }
    lab.end("h1", "g2", "10.0.0.11");
    lab.end("h2", "g3", "10.0.0.12");
}

/// `type='ethernet'`: libvirt runs our scripts, with the tap's own MAC as the only hint.
pub fn ethernet_with_scripts(lab: &Lab) {
    lab.sh("for name in qemu-ifup qemu-ifdown; do ln -sf $tap32 $dir/$name; done");
    let scripts = "<script path='$dir/qemu-ifup'/><downscript path='$dir/qemu-ifdown'/>";
    lab.sh(&format!(
        "domain g1 10.0.0.10 | sed \"s|interface type='bridge'|interface type='ethernet'|; s|<source bridge.*|{scripts}|\" \
         >$dir/g1.xml; lab_virsh h1 define $dir/g1.xml"
    ));
    lab.virsh("h1", "start g1");
    wait_for("g1 answers", 90, || lab.answers("10.0.0.10"));
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    lab.end("h1", "g1", "10.0.0.10");
}

/// `type='network'`: routed, claimed for on arrival, and gone with the guest, though libvirt names the bridge in `start`
/// and `started` only.
pub fn a_guest_of_a_libvirt_network(lab: &Lab) {
    let network = "<network><name>fabric</name><forward mode='bridge'/><bridge name='br-l2'/></network>";
    let on_both = |line: &str| lab.sh(&format!("for host in $hosts; do {line}; done"));
    lab.sh(&format!("echo \"{network}\" >$dir/net.xml"));
    on_both("lab_virsh $host net-define $dir/net.xml; lab_virsh $host net-start fabric");
    lab.sh(
        "domain g1 10.0.0.10 | sed \"s|interface type='bridge'|interface type='network'|; s|<source bridge.*|<source \
         network='fabric'/>|\" >$dir/g1.xml; lab_virsh h1 define $dir/g1.xml",
    );
    lab.virsh("h1", "start g1");
    wait_for("g1 answers", 90, || lab.answers("10.0.0.10"));
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);
    lab.sh(&lab.migrate("h1", "g1", ""));
    wait_for("h2 claims it", 5, || lab.owned("h2", "10.0.0.10").len() == 2);
    wait_for("h1 has cleaned up", 5, || lab.owned("h1", "10.0.0.10").is_empty());
    // Stopped after its network was, which it survives.
    on_both("lab_virsh $host net-destroy fabric");
    lab.end("h2", "g1", "10.0.0.10");
    on_both("lab_virsh $host net-undefine fabric");
}

/// The route map on `redistribute kernel`, judged by what the core gets.
pub fn only_guests_are_announced(lab: &Lab) {
    let others = [
        ("10.9.9.9/32", "dev br-l2"),
        ("10.0.0.128/25", "dev br-l2"),
        ("10.0.0.77/32", "via 10.47.11.1"),
        ("10.0.0.78/32", "dev lo"),
    ];
    for (prefix, way) in others {
        lab.node("h1", &format!("ip route add {prefix} {way} proto 132"));
    }
    lab.node("h1", &format!("ip route add 10.0.0.66/32 dev br-l2 proto 132 scope link metric {SETTLED}"));
    wait_for("the guest's route", 10, || lab.in_fabric("10.0.0.66"));
    for (prefix, way) in others {
        let routes = lab.json("core", &format!("ip -j route show exact {prefix}"));
        assert!(routes.as_array().is_some_and(Vec::is_empty), "{prefix} {way}: {routes}");
        lab.node("h1", &format!("ip route del {prefix} {way} proto 132"));
    }
    lab.node("h1", "ip route del 10.0.0.66/32 dev br-l2 proto 132");
    lab.gone("10.0.0.66");
}

/// What a switch hears from a host is the host's own, whatever the host heard from the other switch.
pub fn a_host_is_never_transit(lab: &Lab) {
    lab.begin("h2", "g1", "10.0.0.10", "");
    let heard = |switch: &str, host: &str| {
        let show = format!("node_vtysh {switch} -c 'show bgp ipv4 unicast neighbors {host} routes json'");
        let routes: Value = serde_json::from_str(&lab.sh(&show)).unwrap();
        routes["routes"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    wait_for("h1 has both ways to it", 20, || {
        let routes = lab.node("h1", "ip route show 10.0.0.10");
        routes.contains("via 10.47.11.1") && routes.contains("via 10.47.12.1")
    });
    wait_for("the guest's switch hears it from its host", 20, || {
        heard("sw2a", "10.47.21.2") == ["10.0.0.10/32", "10.255.1.2/32"]
    });
    assert_eq!(heard("sw1a", "10.47.11.2"), ["10.255.1.1/32"]);
    lab.end("h2", "g1", "10.0.0.10");
}

pub fn a_second_guest_with_a_taken_address(lab: &Lab) {
    let probe = Probe::new(lab, "10.0.0.10");
    lab.define("h2", "g9", "10.0.0.10", "");
    lab.virsh("h2", "start g9");
    wait_for("the second guest runs", 60, || lab.console("g9").contains("is up"));
    let shadowed = || {
        let status: Value = serde_json::from_str(&lab.node("h2", &format!("{TAP32} status --json"))).unwrap();
        let tap = &status["taps"][0];
        (tap["route"] == "shadowed").then(|| tap["next_hop"].as_str().unwrap().to_owned())
    };
    wait_for("shadowed", 10, || shadowed().is_some());
    println!("    shadowed by the host behind {}", shadowed().unwrap());
    assert_eq!(announcers(lab, "10.0.0.10"), 1);
    lab.try_sh("lab_virsh h2 destroy g9; lab_virsh h2 undefine g9");
    wait_for("h2 is clean", 10, || lab.owned("h2", "10.0.0.10").is_empty());
    let seen = probe.stop();
    assert_eq!(seen["lost_count"], 0, "of {}", seen["sent"]);
    println!("    0 of {} packets of the first guest lost", seen["sent"]);
    let _ = std::fs::remove_file(lab.dir.join("g9.console"));
}

/// What libvirt's hooks miss, `watch` sees: NICs plugged into a running guest and out of it, a QEMU that is killed,
/// a guest that dies while no daemon runs.
pub fn watch_sees_what_hooks_miss(lab: &Lab) {
    let mut watch = Command::new("ip");
    watch.args(["netns", "exec", &format!("tap32lab-{}-h1", lab.id), TAP32, "watch"]);
    let _watch = Background(watch.stderr(Stdio::null()).spawn().unwrap());
    lab.start("h1", "g1", "10.0.0.10", "");
    lab.sh("$tap32 render libvirt 10.0.0.11 >$dir/nic.xml");
    lab.virsh("h1", "attach-device g1 $dir/nic.xml --live");
    let plugged = Instant::now();
    wait_for("the plugged NIC has its route", 10, || lab.owned("h1", "10.0.0.11") == [SETTLED]);
    println!("    attach-device: routed {} ms after virsh", plugged.elapsed().as_millis());
    wait_for("the fabric has it", 10, || lab.in_fabric("10.0.0.11"));
    lab.virsh("h1", "detach-device g1 $dir/nic.xml --live");
    lab.gone("10.0.0.11");
    assert_eq!(lab.owned("h1", "10.0.0.10"), [SETTLED]);

    // The hook has no hand in this: the daemon is not there.
    lab.sh("kill -9 $(cat $dir/h1/libvirt/pid); rm -f $dir/h1/libvirt/pid");
    lab.node("h1", "pkill -9 -f guest=g[1],");
    let killed = Instant::now();
    wait_for("the dead guest's route is gone", 10, || lab.owned("h1", "10.0.0.10").is_empty());
    println!("    QEMU killed while libvirtd is down: withdrawn {} ms later", killed.elapsed().as_millis());
    lab.gone("10.0.0.10");
    lab.sh("libvirtd_start h1; until_true 30 libvirtd lab_virsh h1 list");
    lab.end("h1", "g1", "10.0.0.10");

    lab.begin("h1", "g1", "10.0.0.10", "");
    wait_for("the fabric has it", 10, || lab.in_fabric("10.0.0.10"));
    lab.node("h1", "pkill -9 -f guest=g[1],");
    let killed = Instant::now();
    wait_for("the killed guest's route is gone", 10, || lab.owned("h1", "10.0.0.10").is_empty());
    println!("    QEMU killed: withdrawn {} ms later", killed.elapsed().as_millis());
    lab.end("h1", "g1", "10.0.0.10");
}
