//! What doctor judges: plain values, read by `gather` or by a golden case.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fabric::answers::Answers;
use crate::guest::link::Link;
use crate::guest::snapshot::Snapshot;
use crate::host::Seen;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// How a shell starts this program with this configuration: `tap32 --config FILE`.
    pub tap32: String,
    /// Whether we are root: what others may not read says nothing.
    pub root: bool,
    /// Whether systemd is process 1 (sd_booted(3)), and `systemctl` does something.
    pub systemd: bool,
    pub host: Seen,
    pub snapshot: Snapshot,
    /// Taps that are on no bridge.
    #[serde(rename = "tap_alone")]
    pub taps_alone: Vec<Link>,
    /// How many ports each managed bridge has that exists.
    pub ports: BTreeMap<String, usize>,
    pub machine: Machine,
    pub hooks: Hooks,
    /// FRR's answers; none at all where there is no vtysh.
    #[serde(skip)]
    pub frr: Option<Answers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// /proc/sys/net/bridge/bridge-nf-call-iptables; none without br_netfilter.
    pub bridge_nf_call_iptables: Option<u32>,
    /// systemd-networkd runs here.
    pub networkd: bool,
    /// `ManageForeignRoutes=` in networkd.conf as written last; none where nobody wrote it.
    pub manage_foreign_routes: Option<String>,
    /// Managed bridges and their taps that NetworkManager has.
    pub network_manager: Vec<String>,
    /// /dev/log is there.
    pub syslog: bool,
    /// The process that holds the lock of `tap32 watch`.
    pub watch: Option<i32>,
    /// What iproute2 calls our routes' protocol.
    pub proto_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// Where this program lies: what a link should point to.
    pub program: String,
    /// /etc/libvirt is there.
    pub libvirt: bool,
    /// The daemon that calls hooks, if it runs here.
    pub daemon: Option<Daemon>,
    /// /etc/libvirt/hooks/qemu and what is in qemu.d.
    pub libvirt_hooks: Vec<Hook>,
    /// /etc/qemu-ifup and /etc/qemu-ifdown, those that are there.
    pub qemu_scripts: Vec<Hook>,
    /// The security module that confines libvirt: `AppArmor`, `SELinux`.
    pub confined_by: Option<String>,
    /// dpkg-divert is there.
    pub dpkg: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    pub name: String,
    /// Seconds since the epoch.
    pub started: f64,
}

/// Something that is called under its path.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    pub path: String,
    /// Where it leads to, links followed; none if that does not exist.
    pub target: Option<String>,
    #[serde(default)]
    pub executable: bool,
    /// A tap32, or a script that calls one.
    #[serde(default)]
    pub ours: bool,
    /// When it came, in seconds since the epoch.
    #[serde(default)]
    pub since: f64,
}
