//! `doctor` and files of a real systemd-networkd that would take guests' taps. networkd itself judges: it takes the tap
//! off its bridge where doctor says so, and leaves it there after the fix. They need root: `sudo tests/run`.

mod common;

use common::view::View;
use common::{string, wait_for};

const CONFIG: &str = r#"[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"
"#;

/// A host with a guest's tap, and networkd with its bus. Without a writable /sys networkd does not wait for udev.
fn host() -> View {
    let view = View::new(CONFIG);
    view.ok("tap32 setup && ip tuntap add vnet0 mode tap && tap32 up vnet0 --mac 02:42:0a:00:00:0a");
    view.ok(
        "rm -rf /etc/systemd/network/* /etc/systemd/networkd.conf.d; mkdir -p /run/dbus /etc/systemd/networkd.conf.d \
             /etc/systemd/network /run/systemd/network && mount -o remount,bind,ro /sys && \
             printf '[Network]\\nManageForeignRoutes=no\\n' >/etc/systemd/networkd.conf.d/a.conf && \
             dbus-daemon --system --fork --nosyslog --nopidfile --print-pid >/run/dbus/pid && \
             install -d -o systemd-network -g systemd-network /run/systemd/netif /run/systemd/netif/links \
             /run/systemd/netif/leases /run/systemd/netif/lldp",
    );
    view.ok("/lib/systemd/systemd-networkd </dev/null >/run/networkd.log 2>&1 & echo $! >/run/networkd.pid");
    wait_for("networkd answers", 20, || view.is("networkctl reload"));
    view
}

struct Daemons<'a>(&'a View);

impl Drop for Daemons<'_> {
    fn drop(&mut self) {
        self.0.run("kill $(cat /run/networkd.pid /run/dbus/pid)");
    }
}

/// Whether networkd manages the tap, once it has decided.
fn is_managed(view: &View) -> bool {
    let mut answer = String::new();
    wait_for("networkd decides", 20, || {
        answer = view.ok("networkctl list --no-legend --no-pager vnet0");
        answer.contains("configur") || answer.contains("unmanaged")
    });
    answer.contains("configur")
}

fn is_on_bridge(view: &View) -> bool {
    view.is("ip link show vnet0 | grep -q 'master br-l2'")
}

/// The rows about networkd's files that are not ok.
fn rows(view: &View) -> Vec<[String; 4]> {
    let of = |row: &serde_json::Value| string(&row["check"]).starts_with("systemd-networkd") && row["verdict"] != "ok";
    let text = |row: serde_json::Value| {
        ["check", "verdict", "seen", "fix"].map(|key| row[key].as_str().unwrap_or("none").to_owned())
    };
    view.rows().into_iter().filter(of).map(text).collect()
}

fn put(view: &View, file: &str, text: &str) {
    view.ok(&format!("mkdir -p $(dirname {file}) && printf '{text}' >{file}"));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_file_that_takes_taps_is_named_and_taught() {
    let view = host();
    let _daemons = Daemons(&view);
    assert_eq!((is_managed(&view), rows(&view)), (false, Vec::new()));
    for (file, text) in [
        ("/etc/systemd/network/70-lan.network", "[Match]\\nType=ether\\n"),
        ("/run/systemd/network/10-netplan-all.network", "[Match]\\nName=*\\n"),
        ("/etc/systemd/network/70-lan.network", "[Match]\\nName=vnet* eth*\\n[Network]\\nDHCP=no\\n"),
        ("/etc/systemd/network/70-lan.network", "[Match]\\nDriver=tun\\n"),
        ("/etc/systemd/network/70-lan.network", "[Match]\\nKind=tun\\nType=!loopback\\n"),
        ("/etc/systemd/network/70-lan.network", "[Match]\\nMACAddress=FE:42:0A:00:00:0A\\n"),
        ("/etc/systemd/network/70-lan.network", "[Match]\\nName=!eth*\\nHost=!other\\n[Network]\\nBridge=br-other\\n"),
    ] {
        put(&view, file, text);
        view.ok("networkctl reload");
        wait_for(&format!("networkd takes the tap by {text}"), 20, || !is_on_bridge(&view));
        let rows_then = rows(&view);
        let [[check, verdict, seen, fix]] = &rows_then[..] else { panic!("{text}: {rows_then:?}") };
        assert_eq!(
            (check.as_str(), verdict.as_str()),
            (&*format!("systemd-networkd {}", &file[file.rfind('/').unwrap() + 1..]), "fail")
        );
        assert!(seen.contains(file) && seen.contains("taps such as vnet0"), "{seen}");
        println!("{text}\n    {seen}\n    {fix}");
        view.ok(fix);
        assert_eq!(rows(&view), Vec::<[String; 4]>::new(), "after {fix}");
        wait_for("networkd leaves the tap", 20, || !is_managed(&view));
        view.ok("tap32 setup && tap32 reconcile; ip link set vnet0 master br-l2 && networkctl reload");
        assert!(!is_managed(&view) && is_on_bridge(&view), "after {fix}");
        view.ok(&format!("rm -r {file} /etc/systemd/network/*.d"));
        view.ok("networkctl reload && tap32 setup");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_file_that_leaves_taps_alone_is_no_row() {
    let view = host();
    let _daemons = Daemons(&view);
    let all = "[Match]\\nType=ether\\n";
    for files in [
        &[("/etc/systemd/network/70-a.network", "[Match]\\nType=ether\\nKind=!*\\n")][..],
        &[("/etc/systemd/network/70-a.network", "[Match]\\nName=en* eth?\\n")],
        &[("/etc/systemd/network/70-a.network", "[Network]\\nDHCP=no\\n")],
        &[("/etc/systemd/network/70-a.network", "[Match]\\nName=*\\nName=\\nName=eth0\\n")],
        &[("/etc/systemd/network/70-a.network", "[Match]\\nType=ether\\nPath=pci-*\\n")],
        &[
            ("/etc/systemd/network/70-a.network", "[Match]\\nName=vnet*\\n[Network]\\nBridge=br-l2\\n"),
            ("/etc/systemd/network/60-b.netdev", "[NetDev]\\nName=br-l2\\nKind=bridge\\nMACAddress=none\\n"),
        ],
        &[
            ("/etc/systemd/network/20-a.network", "[Match]\\nName=vnet*\\n[Link]\\nUnmanaged=yes\\n"),
            ("/etc/systemd/network/70-a.network", all),
        ],
        &[
            ("/run/systemd/network/70-a.network", all),
            ("/etc/systemd/network/70-a.network.d/x.conf", "[Match]\\nDriver=!tun\\n"),
        ],
    ] {
        for (file, text) in files {
            put(&view, file, text);
        }
        view.ok("networkctl reload");
        let keeps = files[0].1.contains("Bridge=br-l2");
        assert_eq!((is_managed(&view), is_on_bridge(&view), rows(&view)), (keeps, true, Vec::new()), "{files:?}");
        view.ok("rm -rf /etc/systemd/network/* /run/systemd/network/*; networkctl reload");
    }
    // A link to /dev/null hides a file of the same name.
    put(&view, "/run/systemd/network/70-a.network", all);
    view.ok("ln -s /dev/null /etc/systemd/network/70-a.network && networkctl reload");
    assert_eq!((is_managed(&view), is_on_bridge(&view), rows(&view)), (false, true, Vec::new()));
}
