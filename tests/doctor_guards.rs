//! `doctor` against what stands around the guard: ports without one, other filters, a flushed FDB, missing modules. Each
//! fault is found, fixed by the very command that doctor printed, and gone. They need root: `sudo tests/run`.

mod common;

use common::guard::FLUSH_FDB;
use common::view::{Fault, View};

const CONFIG: &str = "[[bridge]]\nname = \"br-l2\"\ngateway = \"10.0.0.1/24\"\n";
const GUARDED: &str = "tc filter show dev vnet0 ingress | grep -q 'pref 1 .*handle 0x84'";

/// A host that is set up and has two guests.
fn host() -> (View, Vec<String>) {
    let view = View::new(CONFIG);
    view.ok("tap32 setup");
    for (tap, octet) in [("vnet0", "0a"), ("vnet1", "0b")] {
        view.ok(&format!("ip tuntap add {tap} mode tap && tap32 up {tap} --mac 02:42:0a:00:00:{octet}"));
    }
    let well = view.wrong();
    let ours = ["guard", "FDB", " filter ", "br-l2 port ", "accept_ra"];
    assert!(!well.iter().any(|check| ours.iter().any(|word| check.contains(word))), "{well:?}");
    (view, well)
}

fn faults() -> Vec<Fault> {
    let fault = |check, verdict, seen, inject, judge| Fault { check, verdict, seen, inject, judge };
    vec![
        fault(
            "br-l2 guards",
            "fail",
            "1 of 2 taps; missing on vnet0: ",
            "tc filter del dev vnet0 ingress pref 1",
            GUARDED,
        ),
        // The guard of vnet1 is not the guard of vnet0.
        fault(
            "br-l2 guards",
            "fail",
            "1 of 2 taps; missing on vnet0: ",
            "tc filter replace dev vnet0 ingress pref 1 handle 132 protocol all bpf da bytecode '1,6 0 0 4294967295'",
            "tc filter show dev vnet0 ingress | grep -q 'bytecode .[2-9]'",
        ),
        fault(
            "vnet0 filter 0x1",
            "warn",
            "another program's bpf filter has the guard's preference and may run before the guard",
            "tc filter add dev vnet0 ingress pref 1 handle 1 protocol all bpf da bytecode '1,6 0 0 0'",
            "! tc filter show dev vnet0 ingress | grep -q 'handle 0x1 ' && tc filter show dev vnet0 ingress | grep -q 'handle 0x84'",
        ),
        fault(
            "vnet0 filter 0x80000800",
            "warn",
            "another program's u32 filter has the guard's preference and may keep the guard away",
            "tc filter del dev vnet0 ingress pref 1 && \
             tc filter add dev vnet0 ingress pref 1 protocol ip u32 match u32 0 0",
            "! tc filter show dev vnet0 ingress | grep -q u32",
        ),
        fault(
            "br-l2 port other",
            "fail",
            "a veth interface, which nothing guards",
            "ip link add other type veth peer name end && ip link set other master br-l2",
            "! bridge link show | grep -q other",
        ),
        fault(
            "br-l2 port vnet9",
            "fail",
            "tap32 refuses the guest of this tap and does not guard it",
            "ip tuntap add vnet9 mode tap && ip link set vnet9 address fe:42:08:08:08:08 master br-l2 up",
            "! bridge link show | grep -q vnet9",
        ),
        fault(
            "br-l2 port vnet9",
            "fail",
            "tap32 refuses the guest of this tap and does not guard it",
            "ip link set vnet9 address 02:42:0a:00:00:0c master br-l2 up",
            "! bridge link show | grep -q vnet9 || tc filter show dev vnet9 ingress | grep -q 'handle 0x84'",
        ),
        fault(
            "br-l2 FDB",
            "fail",
            "lacks the bridge's own MAC",
            FLUSH_FDB,
            // The bridge's own, and those of its ports.
            "test $(bridge fdb show br br-l2 | grep -cE '^(02:42:0a:00:00:01 dev br-l2|fe:42:0a:00:00:0a dev vnet0) master br-l2 permanent') -ge 2",
        ),
    ]
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn every_fault_around_a_guard_is_found_and_fixed_by_what_is_printed() {
    let (view, well) = host();
    for fault in &faults() {
        view.survives(fault, &well);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_without_guards_has_one_row_that_says_so() {
    let (view, _) = host();
    view.ok("ip link add other type veth peer name end && ip link set other master br-l2");
    view.ok("sed -i 's/^gateway/guard = false\\n&/' /etc/tap32.toml && tap32 reconcile");
    assert!(!view.is(GUARDED));
    let row = view.row("br-l2 guards").unwrap();
    assert_eq!((&row["verdict"], &row["seen"]), (&"ok".into(), &"off: `guard = false`".into()));
    assert!(view.row("guard modules").is_none());
    // What is behind such a port is nobody's guest, so that it makes no difference.
    let verdict = || view.row("br-l2 port other").unwrap()["verdict"].clone();
    assert_eq!(verdict(), "fail");
    view.ok("sed -i 's/^gateway/other-ports = true\\n&/' /etc/tap32.toml");
    assert_eq!(verdict(), "ok");
}

/// With lists of modules of its own, and where no guest shows that the kernel has them.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn modules_are_looked_up_and_nothing_is_loaded() {
    let (view, mut well) = host();
    assert_eq!(view.row("guard modules").unwrap()["seen"], "in use");
    let at = view.folder.0.display().to_string();
    view.ok(&format!(
        "mkdir -p {at}/lib/up {at}/lib/work && \
         mount -t overlay none -o lowerdir=/usr/lib,upperdir={at}/lib/up,workdir={at}/lib/work /usr/lib && \
         mkdir -p /usr/lib/modules && mount -t tmpfs none /usr/lib/modules && \
         {{ [ ! -e /proc/modules ] || mount --bind /dev/null /proc/modules; }} && tap32 down vnet0 && tap32 down vnet1"
    ));
    let seen = || {
        let row = view.row("guard modules").unwrap();
        format!("{}: {}", common::string(&row["verdict"]), common::string(&row["seen"]))
    };
    assert_eq!(seen(), "warn: not checked: this host has no list of its kernel's modules");
    well.push("guard modules".to_owned());
    view.ok("mkdir /lib/modules/$(uname -r) && cd /lib/modules/$(uname -r) && touch modules.dep && \
             echo kernel/net/sched/sch_ingress.ko >modules.builtin");
    assert!(seen().starts_with("fail: this kernel has no cls_bpf, "), "{}", seen());
    view.ok(
        "cd /lib/modules/$(uname -r) && echo 'kernel/net/sched/cls_bpf.ko.zst: kernel/net/core.ko' >modules.dep && \
             echo kernel/net/sched/cls_bpf.ko >loaded",
    );
    // What a kernel with modules would do.
    view.folder.write(
        "bin/modprobe",
        "#!/bin/sh\n[ \"$*\" = '-a sch_ingress cls_bpf' ] && cd /lib/modules/$(uname -r) && cat loaded >>modules.builtin\n",
    );
    view.ok(&format!("chmod 755 {at}/bin/modprobe && cp /lib/modules/$(uname -r)/modules.builtin {at}/builtin"));
    view.ok("cd /lib/modules/$(uname -r) && cat loaded >>modules.builtin");
    let inject: &str = format!("cp {at}/builtin /lib/modules/$(uname -r)/modules.builtin").leak();
    view.survives(
        &Fault {
            check: "guard modules",
            verdict: "warn",
            seen: "the kernel has not loaded cls_bpf, which the first guest needs",
            inject,
            judge: "grep -q cls_bpf /lib/modules/$(uname -r)/modules.builtin",
        },
        &well,
    );
    assert_eq!(seen(), "ok: loaded");
}
