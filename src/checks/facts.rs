//! What doctor judges: plain values, read by `verbs/doctor_facts.rs` or by a golden case.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fabric::answers::Answers;
use crate::guest::link::Link;
use crate::guest::snapshot::Snapshot;
use crate::host::Seen;

/// All facts.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// How a shell starts this program with this configuration: `tap32 --config FILE`.
    pub tap32: String,
    /// Whether doctor runs as root: what another user may not read says nothing.
    pub root: bool,
    /// Whether systemd is process 1 (sd_booted(3)), and `systemctl` does something.
    pub systemd: bool,
    /// What `setup` sees.
    pub host: Seen,
    /// What `status` judges.
    pub snapshot: Snapshot,
    /// Taps that are not a port of any bridge.
    #[serde(rename = "tap_alone")]
    pub taps_alone: Vec<Link>,
    /// The number of ports of each managed bridge that exists.
    pub ports: BTreeMap<String, usize>,
    /// Other programs' filters at the guard's preference on taps of managed bridges.
    #[serde(rename = "filter")]
    pub filters: Vec<Filter>,
    /// What else on the machine helps or harms.
    pub machine: Machine,
    /// What should call tap32.
    pub hooks: Hooks,
    /// What the firewall is made of.
    pub firewall: Firewall,
    /// FRR's answers; `None` without vtysh.
    #[serde(skip)]
    pub frr: Option<Answers>,
}

impl Facts {
    /// The command that restarts a service here.
    pub(crate) fn restart(&self, service: &str) -> String {
        if self.systemd { format!("systemctl restart {service}") } else { format!("service {service} restart") }
    }
}

/// A filter of another program on a tap's ingress.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The tap's name.
    pub tap: String,
    /// `bpf`, `u32`.
    pub kind: String,
    /// Its number among those of its kind.
    pub handle: u32,
}

/// The firewall's rules as its own programs print them, and what else decides about forwarded packets.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// `nft -j list ruleset`; `None` where the kernel has no nftables.
    #[serde(skip)]
    pub nft: Option<Result<String, String>>,
    /// `nft -a -s list ruleset`; empty where nft does not answer.
    #[serde(skip)]
    pub nft_words: String,
    /// What each iptables prints that has tables here.
    #[serde(skip)]
    pub iptables: Vec<Saved>,
    /// Interfaces by which the host reaches others than its guests: those of routes with a gateway, else of any.
    pub interfaces: Vec<String>,
    /// net.netfilter.nf_conntrack_tcp_loose; `None` without conntrack.
    pub tcp_loose: Option<u32>,
    /// net.netfilter.nf_conntrack_tcp_be_liberal
    pub tcp_be_liberal: Option<u32>,
    /// Whether ufw is not enabled: its commands change no chain.
    pub is_ufw_off: bool,
}

/// What an iptables-save(8) prints.
#[derive(Debug)]
pub struct Saved {
    /// The iptables that changes the same tables: `iptables-nft`.
    pub program: String,
    /// Whether they are the kernel's older tables, which nft does not show.
    pub legacy: bool,
    /// The tables, or why there is no answer.
    pub text: Result<String, String>,
}

/// Of the machine besides its network.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// /proc/sys/net/bridge/bridge-nf-call-iptables; `None` without br_netfilter.
    pub bridge_nf_call_iptables: Option<u32>,
    /// The kernel's parts that a guard needs, and whether the kernel has them; empty where nobody can know.
    pub guard_modules: BTreeMap<String, Module>,
    /// Whether systemd-networkd runs in this network namespace.
    pub networkd: bool,
    /// The last `ManageForeignRoutes=` of networkd.conf and its drop-ins; `None` if there is none.
    pub manage_foreign_routes: Option<String>,
    /// networkd's .network files in the order in which it reads them.
    #[serde(rename = "network_file")]
    pub network_files: Vec<NetworkFile>,
    /// Whether udev's daemon runs.
    pub udev: bool,
    /// udev's .link files in the order in which it reads them.
    #[serde(rename = "link_file")]
    pub link_files: Vec<NetworkFile>,
    /// Interfaces that networkd makes.
    pub netdevs: Vec<String>,
    /// Bridges of tap32 and taps on them that NetworkManager manages.
    pub network_manager: Vec<String>,
    /// Whether /dev/log exists.
    pub syslog: bool,
    /// The process that holds the lock of `tap32 watch`; 0 if it is in another pid namespace.
    pub watch: Option<i32>,
    /// iproute2's name for the protocol of tap32's routes.
    pub proto_name: Option<String>,
    /// The DHCP server of `render dnsmasq`; `None` where nobody uses it.
    pub dhcp: Option<Dhcp>,
}

/// A dnsmasq that reads what `render dnsmasq` prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dhcp {
    /// Whether the host has no dnsmasq to start.
    pub not_installed: bool,
    /// Its file; `None` if there is none.
    pub text: Option<String>,
    /// The process that was started with that file.
    pub pid: Option<u32>,
    /// Whether the process has a socket on UDP port 67.
    pub hears: bool,
    /// Where it has none, another program that has, with its process.
    pub other: Option<(u32, String)>,
}

/// A .network file of systemd-networkd, or a .link file of udev.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    /// Where it is.
    pub path: String,
    /// Its text, then that of its drop-ins.
    pub text: String,
}

/// Whether the kernel has a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Module {
    /// Loaded or built in.
    There,
    /// Its file is there.
    Loadable,
    /// It has no file.
    Missing,
}

/// What libvirt and QEMU would call.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// The path of this program: what a hook's link should point to.
    pub program: String,
    /// Whether /etc/libvirt exists.
    pub libvirt: bool,
    /// libvirt's daemon, which calls the hooks, if it runs.
    pub daemon: Option<Daemon>,
    /// /etc/libvirt/hooks/qemu and the files in qemu.d.
    pub libvirt_hooks: Vec<Hook>,
    /// /etc/qemu-ifup and /etc/qemu-ifdown, and those in /usr/local/etc, if they exist.
    pub qemu_scripts: Vec<Hook>,
    /// A QEMU in /usr/local/bin, which was built from source.
    pub local_qemu: Option<String>,
    /// Running QEMUs that gave up root after they had made their taps (-runas, -run-with user=): process and user.
    pub unprivileged: Vec<(u32, String)>,
    /// The security module that confines libvirt: `AppArmor`, `SELinux`.
    pub confined_by: Option<String>,
    /// Whether SELinux's policy has a type of its own for the files in /etc/libvirt/hooks.
    pub labelled: bool,
    /// Whether dpkg-divert exists.
    pub dpkg: bool,
}

/// A running daemon.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// The name of its program.
    pub name: String,
    /// When it started, in seconds since the epoch.
    pub started: f64,
}

/// A file that libvirt or QEMU calls.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// Where libvirt or QEMU looks for it.
    pub path: String,
    /// The file itself, links followed; `None` for a dangling link.
    pub target: Option<String>,
    /// Whether the file can be run.
    pub executable: bool,
    /// Whether it is tap32, or a script that calls tap32.
    pub ours: bool,
    /// When it was installed, in seconds since the epoch.
    pub since: f64,
}
