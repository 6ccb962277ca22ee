//! `doctor` and what other programs do to guests' taps: udev, which gives a new tap another MAC, and a QEMU that may
//! not delete the guest's route. udev's own program judges (`udevadm test`). They need root: `sudo tests/run`.

mod common;

use common::view::View;
use common::{Background, string, text, wait_for};

const CONFIG: &str = r#"[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"
"#;
const PACKAGED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/network/98-tap32.link");

/// Whether udev gives a new tap of this name another MAC than the kernel did: by the policy of the file that it takes for
/// it, and by the MAC where `udevadm test` still gives it (systemd 252; 257 says "skipping application of rtnl settings").
fn udev_changes(view: &View, name: &str) -> bool {
    view.ok(&format!("ip tuntap add {name} mode tap"));
    let mac = || view.ok(&format!("cat /sys/class/net/{name}/address"));
    let before = mac();
    let said = view.ok(&format!("udevadm test --action=add /sys/class/net/{name} 2>&1"));
    let files = |key: &str| {
        said.lines().find_map(|line| line.trim_start().strip_prefix(key)).unwrap_or_default().replace(':', " ")
    };
    let files = files("ID_NET_LINK_FILE=") + " " + &files("ID_NET_LINK_FILE_DROPINS=");
    let policies = view.ok(&format!("sed -n 's/^MACAddressPolicy=//p' {files}"));
    let policy = policies.lines().last() == Some("persistent");
    let changed = mac() != before;
    assert!(policy || !changed, "{said}");
    view.ok(&format!("ip link del {name}"));
    policy
}

fn rows(view: &View, check: &str) -> Vec<[String; 4]> {
    let rows = view.rows().into_iter();
    let rows = rows.filter(|row| string(&row["check"]).starts_with(check) && row["verdict"] != "ok");
    rows.map(|row| ["check", "verdict", "seen", "fix"].map(|key| row[key].as_str().unwrap_or("none").to_owned()))
        .collect()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_policy_that_changes_macs_is_named_and_kept_off_guests_taps() {
    let view = View::new(CONFIG);
    view.ok("rm -rf /etc/systemd/network/*; mkdir -p /etc/systemd/network; tap32 setup");
    assert_eq!(rows(&view, "udev"), Vec::<[String; 4]>::new(), "without udev");
    view.ok("mkdir -p /run/udev && touch /run/udev/control");
    for (name, address) in [("vnet0", "0a"), ("guest12", "0b"), ("tap3", "0c")] {
        view.ok(&format!("ip tuntap add {name} mode tap && tap32 up {name} --mac 02:42:0a:00:00:{address}"));
    }
    assert_eq!(["vnet9", "tap9", "guest9"].map(|name| udev_changes(&view, name)), [true; 3]);
    let names = |seen: &str| ["vnet*", "guest*", "tap*"].map(|name| seen.contains(name));
    let [[check, verdict, seen, _]] = &rows(&view, "udev")[..] else { panic!("{:?}", rows(&view, "udev")) };
    assert_eq!((check.as_str(), verdict.as_str()), ("udev MACAddressPolicy 99-default.link", "warn"));
    assert_eq!(names(seen), [true; 3], "{seen}");

    // What the packages bring is for libvirt's taps.
    view.ok(&format!("cp {PACKAGED} /etc/systemd/network/"));
    assert_eq!(["vnet9", "tap9", "guest9"].map(|name| udev_changes(&view, name)), [false, true, true]);
    let [[_, _, seen, fix]] = &rows(&view, "udev")[..] else { panic!("{:?}", rows(&view, "udev")) };
    assert_eq!(names(seen), [false, true, true], "{seen}");
    println!("{seen}\n    {fix}");
    view.ok(fix);
    assert_eq!(rows(&view, "udev"), Vec::<[String; 4]>::new(), "after {fix}");
    assert_eq!(["vnet9", "tap9", "guest9"].map(|name| udev_changes(&view, name)), [false; 3]);
    // Another's tap is as before.
    assert!(udev_changes(&view, "vpn0"));

    // A file of somebody's that comes before, and one that is masked.
    view.ok("printf '[Match]\\nDriver=tun\\n[Link]\\nMACAddressPolicy=random\\n' >/etc/systemd/network/10-mine.link");
    let [[check, _, _, fix]] = &rows(&view, "udev")[..] else { panic!("{:?}", rows(&view, "udev")) };
    assert_eq!(check, "udev MACAddressPolicy 10-mine.link");
    view.ok(fix);
    assert_eq!(rows(&view, "udev"), Vec::<[String; 4]>::new(), "after {fix}");
    view.ok("rm /etc/systemd/network/* && ln -s /dev/null /etc/systemd/network/99-default.link");
    assert_eq!((udev_changes(&view, "tap9"), rows(&view, "udev")), (false, Vec::new()));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_qemu_that_gave_up_root_needs_watch() {
    let view = View::new(CONFIG);
    view.ok("tap32 setup");
    let program = view.folder.write("qemu-system-x86_64", "#!/bin/sh\nsleep 1000\n");
    view.ok(&format!("chmod 755 {program}"));
    let tap = "-netdev tap,id=n0,ifname=vnet0,script=/x";
    for (arguments, user) in [
        (format!("{tap} -runas nobody"), Some("nobody")),
        (format!("{tap} --run-with async-teardown=on,user=daemon"), Some("daemon")),
        (tap.to_owned(), None),
        ("-netdev user,id=n0 -runas nobody".to_owned(), None),
    ] {
        let line = format!("exec setsid {program} {arguments}");
        let qemu = Background(view.host.command("sh").args(["-c", &line]).spawn().unwrap());
        let pid = qemu.0.id();
        wait_for("it runs", 10, || {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains("/qemu-system"))
                && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.starts_with("qemu-system"))
        });
        let rows = rows(&view, "QEMU process");
        match user {
            Some(user) => {
                let [[check, verdict, seen, fix]] = &rows[..] else { panic!("{arguments}: {rows:?}") };
                assert_eq!((check, verdict.as_str()), (&format!("QEMU process {pid}"), "warn"));
                assert!(seen.contains(user) && fix.contains("watch"), "{seen} {fix}");
            }
            None => assert_eq!(rows, Vec::<[String; 4]>::new(), "{arguments}"),
        }
        view.ok(&format!("pkill -P {pid}; true"));
    }
}
