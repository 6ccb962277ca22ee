//! Scenarios of the guard under libvirt: there as long as the guest is, beside libvirt's `<bandwidth>`, and nothing left.
//! Judged by `tc`: tap32's own word is not taken.

use std::process::{Command, Stdio};

use tap32::addr::{GuestMac, MacPrefix};

use crate::common::{Background, TAP32, wait_for};
use crate::harness::Lab;

/// What `tc` prints of a guard at its place.
fn guard_line(address: &str) -> String {
    let mac = GuestMac::from_address(address.parse().unwrap(), MacPrefix::default());
    format!("pref 1 bpf chain 0 handle 0x84 direct-action not_in_hw bytecode '{}'", tap32::guest::guard::program(mac))
}

fn filters(lab: &Lab, host: &str, tap: &str) -> String {
    lab.node(host, &format!("tc filter show dev {tap} ingress"))
}

pub fn is_guarded(lab: &Lab, host: &str, tap: &str, address: &str) -> bool {
    filters(lab, host, tap).contains(&guard_line(address))
}

/// The tap of a guest's only NIC.
pub fn tap_of(lab: &Lab, host: &str, name: &str) -> String {
    let taps = lab.virsh(host, &format!("domiflist {name}"));
    taps.split_whitespace().find(|word| word.starts_with("vnet")).unwrap_or_else(|| panic!("{taps}")).to_owned()
}

/// The XML of a guest with such a `<bandwidth>`, in the lab's folder.
fn limited(lab: &Lab, name: &str, address: &str, bandwidth: &str) {
    lab.sh(&format!(
        "domain {name} {address} | sed \"s|<model type='virtio'/>|<bandwidth>{bandwidth}</bandwidth>&|\" >$dir/{name}.xml"
    ));
}

/// libvirt's limit in force: small packets pass, and a burst of large ones does not pass as a whole.
fn is_limited(lab: &Lab, address: &str) -> bool {
    let all_answered = |options: &str| {
        let said = lab.try_sh(&format!("in_node h1 ping -q -W 2 {options} {address}")).1;
        said.contains(" 0% packet loss")
    };
    assert!(all_answered("-c 5 -i 0.2"), "{address}: small packets");
    !all_answered("-c 20 -i 0.05 -s 1400")
}

fn has_limit(lab: &Lab, tap: &str) -> bool {
    filters(lab, "h1", tap).contains(" pref 49152 ")
}

fn answers_at_home(lab: &Lab, address: &str) {
    wait_for("the guest answers", 90, || lab.try_sh(&format!("in_node h1 ping -c 1 -W 1 {address}")).0);
}

pub fn watch(lab: &Lab) -> Background {
    let mut watch = Command::new("ip");
    watch.args(["netns", "exec", &format!("tap32lab-{}-h1", lab.id), TAP32, "watch"]);
    Background(watch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// What libvirt says where a limit needs its `ingress` and tap32's clsact is there.
const REFUSED: &str =
    "(tc qdisc add dev TAP ingress) unexpected exit status 2: Error: Exclusivity flag on, cannot modify.";

fn refused(said: &str, tap: &str) -> bool {
    said.contains(&REFUSED.replace("TAP", tap))
}

/// A transient guest: `create`, `suspend`, `resume`, a daemon that dies and one that comes back, `destroy`.
pub fn guarded_as_long_as_it_runs(lab: &Lab) {
    lab.sh("domain g1 10.0.0.10 >$dir/g1.xml; lab_virsh h1 create $dir/g1.xml");
    let tap = tap_of(lab, "h1", "g1");
    let guarded = || is_guarded(lab, "h1", &tap, "10.0.0.10");
    assert!(guarded(), "create: {}", filters(lab, "h1", &tap));
    answers_at_home(lab, "10.0.0.10");
    lab.virsh("h1", "suspend g1");
    assert!(guarded(), "suspend");
    lab.virsh("h1", "resume g1");
    assert!(guarded(), "resume");

    let kill = "kill -9 $(cat $dir/h1/libvirt/pid); rm -f $dir/h1/libvirt/pid";
    let again = "libvirtd_start h1; until_true 30 libvirtd lab_virsh h1 list";
    lab.sh(kill);
    assert!(guarded(), "without a daemon");
    lab.sh(again);
    assert!(lab.virsh("h1", "domstate g1").contains("running") && guarded(), "reconnect");
    // The hook's `reconnect` puts back what somebody took meanwhile.
    lab.sh(kill);
    lab.node("h1", &format!("tc qdisc del dev {tap} clsact"));
    assert!(!guarded());
    lab.sh(again);
    wait_for("reconnect guards it", 20, guarded);
    answers_at_home(lab, "10.0.0.10");

    lab.end("h1", "g1", "10.0.0.10");
    assert!(lab.json("h1", "ip -j link show type tun").as_array().unwrap().is_empty());
    let qdiscs = lab.node("h1", "tc qdisc show");
    assert!(!qdiscs.contains("clsact") && !qdiscs.contains("ingress"), "{qdiscs}");
}

/// libvirt's limit first, then the guard: both are there and both work. A change of the limit takes the guard away, which
/// `reconcile` puts back.
pub fn bandwidth_then_guard(lab: &Lab) {
    limited(lab, "g1", "10.0.0.10", "<inbound average='1000'/><outbound average='8' peak='8' burst='4'/>");
    lab.sh("lab_virsh h1 create $dir/g1.xml");
    let tap = tap_of(lab, "h1", "g1");
    let guarded = || is_guarded(lab, "h1", &tap, "10.0.0.10");
    assert!(lab.node("h1", &format!("tc qdisc show dev {tap}")).contains("qdisc ingress ffff:"));
    assert!(guarded() && has_limit(lab, &tap), "{}", filters(lab, "h1", &tap));
    answers_at_home(lab, "10.0.0.10");
    assert!(is_limited(lab, "10.0.0.10"));

    lab.virsh("h1", &format!("domiftune g1 {tap} --outbound 16,16,4"));
    assert!(has_limit(lab, &tap));
    println!("    after domiftune, without watch: guard {}", if guarded() { "there" } else { "gone" });
    lab.node("h1", "$tap32 reconcile");
    assert!(guarded() && has_limit(lab, &tap), "{}", filters(lab, "h1", &tap));
    assert!(is_limited(lab, "10.0.0.10"));
    lab.end("h1", "g1", "10.0.0.10");
}

/// The guard first: libvirt refuses a limit of what the guest sends, loudly, and takes one of what it gets.
pub fn guard_then_bandwidth(lab: &Lab) {
    lab.sh("domain g1 10.0.0.10 >$dir/g1.xml; lab_virsh h1 create $dir/g1.xml");
    let tap = tap_of(lab, "h1", "g1");
    let guarded = || is_guarded(lab, "h1", &tap, "10.0.0.10");
    lab.virsh("h1", &format!("domiftune g1 {tap} --inbound 1000"));
    assert!(guarded(), "inbound");
    for limit in ["--outbound 8,8,4", "--inbound 1000 --outbound 8,8,4"] {
        let (ok, said) = lab.try_sh(&format!("lab_virsh h1 domiftune g1 {tap} {limit}"));
        assert!(!ok && refused(&said, &tap), "{limit}: {said}");
        assert!(guarded() && !has_limit(lab, &tap), "{limit}: {}", filters(lab, "h1", &tap));
    }
    lab.end("h1", "g1", "10.0.0.10");
}

/// With `watch`, too, a guest starts with its limit and its guard.
pub fn bandwidth_beside_watch(lab: &Lab) {
    let _watch = watch(lab);
    limited(lab, "g1", "10.0.0.10", "<inbound average='1000'/><outbound average='8' peak='8' burst='4'/>");
    for _ in 0..5 {
        let (ok, said) = lab.try_sh("lab_virsh h1 create $dir/g1.xml");
        assert!(ok, "{said}");
        let tap = tap_of(lab, "h1", "g1");
        assert!(is_guarded(lab, "h1", &tap, "10.0.0.10") && has_limit(lab, &tap), "{}", filters(lab, "h1", &tap));
        lab.end("h1", "g1", "10.0.0.10");
    }
}

/// With `watch`, a limit that changes takes the guard away for a second only: watch lets libvirt make its qdisc anew first.
pub fn domiftune_beside_watch(lab: &Lab) {
    limited(lab, "g1", "10.0.0.10", "<inbound average='1000'/><outbound average='8' peak='8' burst='4'/>");
    for limit in ["--outbound 16,16,4", "--inbound 2000 --outbound 16,16,4"] {
        lab.sh("lab_virsh h1 create $dir/g1.xml");
        let tap = tap_of(lab, "h1", "g1");
        let _watch = watch(lab);
        wait_for("watch runs", 10, || lab.try_sh("in_node h1 ss -lxH | grep -q @tap32").0);
        let (ok, said) = lab.try_sh(&format!("lab_virsh h1 domiftune g1 {tap} {limit}"));
        assert!(ok && has_limit(lab, &tap), "domiftune {limit}: {said} {}", filters(lab, "h1", &tap));
        wait_for("watch guards it", 5, || is_guarded(lab, "h1", &tap, "10.0.0.10"));
        assert!(has_limit(lab, &tap), "domiftune {limit}: {}", filters(lab, "h1", &tap));
        lab.end("h1", "g1", "10.0.0.10");
    }
}

/// On the destination before the guest is: the tap has not carried a frame yet. With it again when it comes back.
pub fn guarded_before_it_arrives(lab: &Lab) {
    for (from, to) in [("h1", "h2"), ("h2", "h1")] {
        let migration = std::thread::scope(|scope| {
            let migration = scope.spawn(|| lab.try_sh(&lab.migrate(from, "g1", "--bandwidth 32")));
            let mut tap = String::new();
            wait_for("the tap on the destination", 20, || {
                let taps = lab.json(to, "ip -j link show type tun master br-l2");
                tap = taps[0]["ifname"].as_str().unwrap_or_default().to_owned();
                !tap.is_empty()
            });
            wait_for("the guard", 5, || is_guarded(lab, to, &tap, "10.0.0.10"));
            let carried = lab.json(to, &format!("ip -j -s link show {tap}"));
            assert_eq!(carried[0]["stats64"]["rx"]["packets"], 0, "{to}: before the guest arrives");
            migration.join().unwrap()
        });
        assert!(migration.0, "{}", migration.1);
        let tap = tap_of(lab, to, "g1");
        assert!(is_guarded(lab, to, &tap, "10.0.0.10") && is_guarded_only_there(lab, from), "{from} to {to}");
    }
}

fn is_guarded_only_there(lab: &Lab, left: &str) -> bool {
    !lab.node(left, "tc qdisc show").contains("clsact")
}
