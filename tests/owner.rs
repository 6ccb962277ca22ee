//! `setup` beside the network managers, whose files lie over /etc and /run in the test's own view. They need
//! root: `sudo tests/run`.

mod common;

use std::process::Command;

use common::setup::{Folder, addresses, assert_set_up, bare, is_up, sysctl};
use common::{Host, TAP32, text};
use serde_json::Value;

/// Where process 1 lives.
enum Managers {
    /// In the host's own network namespace, as the managers do.
    Here,
    /// In another one, whose interfaces of the same names and indices are others.
    Elsewhere,
}
use Managers::{Elsewhere, Here};

/// Runs setup where `files` are all that /etc/network, /etc/systemd, /etc/NetworkManager, /run/systemd and
/// /run/NetworkManager hold.
fn beside(
    managers: Managers,
    host: &Host,
    folder: &Folder,
    files: &[(&str, String)],
    setup: &str,
) -> (Option<i32>, String, String) {
    let covered = ["etc/network", "etc/systemd", "etc/NetworkManager", "run/systemd", "run/NetworkManager"];
    let _ = std::fs::remove_dir_all(folder.0.join("root"));
    for name in covered {
        std::fs::create_dir_all(folder.0.join("root").join(name)).unwrap();
    }
    for (name, contents) in files {
        folder.write(&format!("root{name}"), contents);
    }
    // Mount points that this machine may lack go on a tmpfs over its /etc and /run, seen by nobody else.
    let mut script = String::from("mount -t tmpfs none /etc && mount -t tmpfs none /run");
    for name in covered {
        script += &format!(" && mkdir -p /{name} && mount --bind {}/root/{name} /{name}", folder.0.display());
    }
    let (mut unshare, script) = match managers {
        Here => (host.command("unshare"), format!("{script} && exec {TAP32} {setup}")),
        Elsewhere => {
            let enter = format!("nsenter --net=/proc/self/fd/3 {TAP32} {setup}");
            (Command::new("unshare"), format!("exec 3</run/netns/{} && {script} && {enter}; exit $?", host.name))
        }
    };
    let output = unshare.args(["-mpf", "--mount-proc", "sh", "-c", &script]).output().unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn index(host: &Host, interface: &str) -> Value {
    host.link(interface)["ifindex"].clone()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn interfaces_of_network_managers_are_theirs() {
    let (host, folder, setup) = bare();
    host.ok("ip link add br-l2 address 02:42:0a:00:00:01 type bridge");
    let (br, eth) = (index(&host, "br-l2"), index(&host, "eth0"));
    let networkd = |state: &str| {
        let link = format!("ADMIN_STATE={state}\nOPER_STATE=off\nNETWORK_FILE=/etc/systemd/network/20-br.network\n");
        (format!("/run/systemd/netif/links/{br}"), link)
    };
    let device = |more: &str| (format!("/run/NetworkManager/devices/{eth}"), format!("[device]\n{more}"));
    let stanza = |name: &str| format!("auto {name}\niface {name} inet static\n    address 192.0.2.1/24\n");
    let theirs = [
        (
            "br-l2",
            networkd("configured"),
            "managed by systemd-networkd (/etc/systemd/network/20-br.network)",
            "`tap32 render networkd`",
        ),
        (
            "eth0",
            device("managed=true\nconnection-uuid=6f\n"),
            "managed by NetworkManager (/run/NetworkManager/devices/",
            "`nmcli device set eth0 managed no`",
        ),
        (
            "br-l2",
            ("/etc/network/interfaces".into(), stanza("br-l2")),
            "managed by ifupdown (/etc/network/interfaces)",
            "`tap32 render ifupdown`",
        ),
        (
            "eth0",
            ("/etc/network/interfaces.d/up".into(), stanza("eth0")),
            "managed by ifupdown (/etc/network/interfaces.d/up)",
            "`tap32 render ifupdown` prints",
        ),
    ];
    for (interface, (name, contents), whose, fix) in theirs {
        let files = [(name.as_str(), contents)];
        let (code, out, said) = beside(Here, &host, &folder, &files, &setup);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("{interface} is {whose}")) && said.contains(fix), "{said}");
        assert!(!out.contains(&format!("dev {interface}\n")), "{out}");
        assert!(addresses(&host, interface).is_empty() && !is_up(&host, interface));
        // Its switches are set all the same.
        assert_eq!(sysctl(&host, &format!("net.ipv4.conf.{interface}.rp_filter")), "2");
        for line in
            ["ip addr flush dev br-l2", "ip addr flush dev eth0", "ip link set br-l2 down", "ip link set eth0 down"]
        {
            host.ok(line);
        }
    }
    // NetworkManager has not activated the profile yet, and will.
    let profile = |more: &str| {
        let file = "/etc/NetworkManager/system-connections/eth.nmconnection";
        (file, format!("[connection]\nid=eth\ntype=ethernet\ninterface-name=eth0\n{more}"))
    };
    let (waiting, contents) = device("managed=true\n");
    let (code, out, said) = beside(Here, &host, &folder, &[(&waiting, contents), profile("")], &setup);
    assert!(
        code == Some(1) && said.contains("eth0 is managed by NetworkManager (/etc/NetworkManager/system-conn"),
        "{said}"
    );
    assert!(!out.contains("dev eth0\n"), "{out}");

    // networkd has not looked at it yet, and will.
    host.ok("ip addr flush dev eth0");
    let state = ("/run/systemd/netif/state", "OPER_STATE=routable\n".to_owned());
    let link = format!("/run/systemd/netif/links/{eth}");
    let network = ("/etc/systemd/network/30-eth.network", "[Match]\nName=eth0\n".to_owned());
    let files = [state, (&link, "ADMIN_STATE=pending\n".to_owned()), network];
    let (code, _, said) = beside(Here, &host, &folder, &files, &setup);
    assert!(
        code == Some(1) && said.contains("eth0 is managed by systemd-networkd (/etc/systemd/network/30-eth.network)"),
        "{said}"
    );

    // ifupdown's own file leads to it.
    let source = ("/etc/network/interfaces", "source /etc/network/conf.d/*\n".to_owned());
    let (code, _, said) = beside(Here, &host, &folder, &[source, ("/etc/network/conf.d/up", stanza("eth0"))], &setup);
    assert!(code == Some(1) && said.contains("eth0 is managed by ifupdown (/etc/network/conf.d/up)"), "{said}");

    host.ok("ip addr flush dev br-l2");

    // As the manager should have left them, there is nothing to say.
    for line in ["ip addr add 10.0.0.1/24 dev br-l2", "ip link set br-l2 up"] {
        host.ok(line);
    }
    let (name, contents) = networkd("configured");
    let (code, _, said) = beside(Here, &host, &folder, &[(&name, contents)], &setup);
    assert_eq!((code, said.as_str()), (Some(0), ""));

    // Nobody's: in another namespace; not managed, only watched, a profile for whoever calls it, a loopback stanza.
    host.ok("ip addr flush dev br-l2");
    let (name, contents) = networkd("configured");
    let (code, _, said) = beside(Elsewhere, &host, &folder, &[(&name, contents)], &setup);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_set_up(&host);
    for line in ["ip addr flush dev br-l2", "ip addr flush dev eth0", "ip addr flush dev eth1", "ip addr flush dev lo"]
    {
        host.ok(line);
    }
    let (name, contents) = networkd("unmanaged");
    let (device, watched) = device("managed=true\n");
    let loopback = "auto lo\niface lo inet loopback\n".to_owned();
    let manual = profile("autoconnect=false\n");
    let files = [(name.as_str(), contents), (device.as_str(), watched), manual, ("/etc/network/interfaces", loopback)];
    let (code, _, said) = beside(Here, &host, &folder, &files, &setup);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert_set_up(&host);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bridge_to_come_from_a_network_manager_is_waited_for() {
    let (host, folder, setup) = bare();
    let state = ("/run/systemd/netif/state", "OPER_STATE=routable\n".to_owned());
    let netdev = ("/etc/systemd/network/20-br.netdev", "[NetDev]\nName=br-l2\nKind=bridge\n".to_owned());
    let pattern =
        |line: &str| ("/etc/systemd/network/20-br.network", format!("[Match]\n{line}\n[Network]\nDHCP=yes\n"));
    let profile = (
        "/etc/NetworkManager/system-connections/br.nmconnection",
        "[connection]\nid=br\ntype=bridge\ninterface-name=br-l2\n".to_owned(),
    );
    for files in [vec![state.clone(), netdev.clone()], vec![state.clone(), pattern("Name=en* br-?2")], vec![profile]] {
        let (code, out, said) = beside(Here, &host, &folder, &files, &setup);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("br-l2 is ") && said.contains("`ip link add br-l2 "), "{said}");
        assert!(host.link("br-l2").is_null() && !out.contains("br-l2"), "{out}");
    }
    // networkd is not in use; its file is for others; its file needs more than the name; an earlier one, by its name and
    // not by its folder, has networkd leave the bridge alone.
    let unmanaged = ("/run/systemd/network/10-br.network", "[Match]\nName=br-*\n[Link]\nUnmanaged=true\n".to_owned());
    for files in [
        vec![netdev],
        vec![state.clone(), pattern("Name=en* eth?")],
        vec![state.clone(), pattern("Name=*\nType=ether")],
        vec![state, unmanaged, pattern("Name=*")],
    ] {
        let (code, _, said) = beside(Here, &host, &folder, &files, &setup);
        assert_eq!((code, said.as_str()), (Some(0), ""));
        assert_set_up(&host);
        host.ok("ip link del br-l2");
    }
}

/// The machine's own systemd-networkd, given what `tap32 render networkd` prints, makes what setup would; setup
/// then finds its interfaces taken, and right, and has only the switches left to set.
#[test]
#[ignore = "needs root and systemd-networkd: sudo tests/run"]
fn networkd_makes_what_is_rendered_for_it() {
    let (host, folder, setup) = bare();
    let render = setup.replacen("setup", "render networkd", 1);
    for (number, file) in host.tap32(&render).split("# /etc/systemd/").skip(1).enumerate() {
        let (name, contents) = file.split_once('\n').unwrap();
        assert!(name.starts_with("network"), "file {number}: {name}");
        folder.write(&format!("systemd/{name}"), contents);
    }
    host.ok("ip link set sw0 up");
    host.ok("ip link set sw1 up");
    // A read-only /sys, as in a container, is how networkd knows that there is no udev to wait for.
    let script = format!(
        "mount -o remount,ro /sys && mount -t tmpfs none /run && mkdir -p /run/systemd/netif/links /run/systemd/netif/leases \
         && chown -R systemd-network: /run/systemd/netif && mount --bind {0}/systemd /etc/systemd && {{ /usr/lib/systemd/systemd-networkd >{0}/log 2>&1 & }}; \
         until grep -qs '^ADMIN_STATE=configured' /run/systemd/netif/links/* && [ \"$(grep -ls '^NETWORK_FILE=' \
         /run/systemd/netif/links/* | xargs grep -l '^ADMIN_STATE=configured' | wc -l)\" = 4 ]; do \
         i=$((i + 1)); [ $i -lt 100 ] || exit 9; sleep 0.1; done; {TAP32} {setup}; exit $?",
        folder.0.display()
    );
    let output = host.command("unshare").args(["-mpf", "--mount-proc", "sh", "-c", &script]).output().unwrap();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    let log = || std::fs::read_to_string(folder.0.join("log")).unwrap_or_default();
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}{}", output.status, log());
    assert!(out.lines().all(|line| line.starts_with("sysctl -w ")), "{out}");
    assert_set_up(&host);
}
