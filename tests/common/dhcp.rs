//! dnsmasq as tap32-dhcp.service starts it, and guests whose DHCP client is busybox's.

use std::process::Stdio;

use serde_json::Value;

use super::setup::Folder;
use super::wire::wire;
use super::{Background, Host, string, wait_for};

const UNIT: &str = include_str!("../../packaging/systemd/tap32-dhcp.service");

/// What stands behind the key in the unit.
pub fn unit_value(key: &str) -> &'static str {
    UNIT.lines().find_map(|line| line.strip_prefix(key)).unwrap()
}

/// A host that `tap32 setup` makes as `config` says.
pub struct Server {
    pub host: Host,
    folder: Folder,
    /// `--config FILE`
    pub config: String,
}

impl Server {
    pub fn new(config: &str) -> Self {
        let host = Host::bare();
        let folder = Folder::new(&host);
        let config = format!("--config {}", folder.write("tap32.toml", config));
        host.tap32(&format!("setup {config}"));
        Self { host, folder, config }
    }

    /// What the unit starts, with its capabilities and a file of its own; returns when it hears.
    pub fn serve(&self) -> Background {
        let file = self.folder.write("dnsmasq.conf", &self.host.tap32(&format!("render dnsmasq {}", self.config)));
        let line = unit_value("ExecStart=");
        assert!(line.contains(" --conf-file=/run/tap32-dhcp/dnsmasq.conf"), "{line}");
        let line = line.replace("/run/tap32-dhcp/dnsmasq.conf", &file);
        let capabilities =
            unit_value("CapabilityBoundingSet=").to_lowercase().replace(" cap_", ",+").replace("cap_", "-all,+");
        let mut command = self.host.command("setpriv");
        command.args(["--bounding-set", &capabilities, "--inh-caps=-all", "--no-new-privs"]);
        command.args(line.split_whitespace());
        let server = Background(command.stderr(Stdio::null()).spawn().unwrap());
        wait_for("dnsmasq hears", 10, || self.host.ok("ss -ulnH sport = :67").contains(":67"));
        server
    }

    pub fn up(&self, tap: &str, mac: &str) {
        self.host.add_tap(tap);
        self.host.tap32(&format!("up {tap} --mac {mac} {}", self.config));
    }
}

/// A namespace that is the guest: its eth0 and the host's tap are the two ends of a wire, as through QEMU.
pub struct Client {
    pub guest: Host,
    folder: Folder,
    wire: Option<Background>,
}

/// What udhcpc calls with what it was told: writes it down and does it.
const SCRIPT: &str = r#"#!/bin/sh
echo "$1 $ip/$mask router=$router server=$serverid dns=$dns domain=$domain mtu=$mtu routes=$staticroutes" >>"${0%/*}/told"
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
[ -n "$staticroutes" ] || staticroutes="0.0.0.0/0 $router"
set -- $staticroutes
while [ $# -gt 1 ]; do
    case $2 in
        0.0.0.0) ip route replace "$1" dev "$interface" ;;
        *) ip route replace "$1" via "$2" dev "$interface" ;;
    esac
    shift 2
done
"#;

impl Client {
    /// Behind `tap`, with nothing configured.
    pub fn new(host: &Host, tap: &str, mac: &str) -> Self {
        let guest = Host::bare();
        guest.ok("ip tuntap add eth0 mode tap");
        guest.ok(&format!("ip link set eth0 address {mac} up"));
        let folder = Folder::new(&guest);
        let script = folder.write("script", SCRIPT);
        guest.ok(&format!("chmod +x {script}"));
        let mut client = Self { guest, folder, wire: None };
        client.plug_in(host, tap);
        client
    }

    /// Out of where it was, and into this tap.
    pub fn plug_in(&mut self, host: &Host, tap: &str) {
        self.wire = None;
        self.wire = Some(wire(host, tap, &self.guest));
        let has_carrier = |host: &Host, name: &str| {
            host.link(name)["flags"].as_array().is_some_and(|flags| flags.contains(&"LOWER_UP".into()))
        };
        wait_for("the wire", 10, || has_carrier(host, tap) && has_carrier(&self.guest, "eth0"));
        host.port_forwards(tap);
    }

    /// udhcpc, until dropped.
    pub fn udhcpc(&self) -> Background {
        let script = self.folder.0.join("script");
        let mut command = self.guest.command("busybox");
        command.args(["udhcpc", "-f", "-i", "eth0", "-O", "mtu", "-t", "20", "-T", "1", "-s"]).arg(script);
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Whether udhcpc gets an address within three tries.
    pub fn gets_address(&self) -> bool {
        let script = self.folder.0.join("script");
        let line = format!("busybox udhcpc -n -q -f -i eth0 -t 3 -T 1 -s {}", script.display());
        self.guest.run(&line).status.success()
    }

    /// What udhcpc was told, a line a call.
    pub fn told(&self) -> Vec<String> {
        let told = std::fs::read_to_string(self.folder.0.join("told")).unwrap_or_default();
        told.lines().map(str::to_owned).collect()
    }

    /// Waits until udhcpc has been told so.
    pub fn was_told(&self, what: &str) -> String {
        let mut found = None;
        wait_for(&format!("{what}: {:?}", self.told()), 20, || {
            found = self.told().into_iter().find(|line| line.starts_with(what));
            found.is_some()
        });
        found.unwrap()
    }

    /// The addresses of eth0, as its kernel has them.
    pub fn addresses(&self) -> Vec<String> {
        super::setup::addresses(&self.guest, "eth0")
    }

    /// The default routes' gateways.
    pub fn gateways(&self) -> Vec<String> {
        let routes: Value = self.guest.json("ip -j route show default");
        routes.as_array().unwrap().iter().map(|route| string(&route["gateway"])).collect()
    }

    pub fn reaches(&self, address: &str) -> bool {
        self.guest.run(&format!("ping -c 1 -W 1 {address}")).status.success()
    }
}
