//! The sentences of tap32's refusals. Each says what is wrong with what, and what fixes it. tap32(8) explains each.

use std::fmt::{self, Display};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use macaddr::MacAddr6;

use super::link::Other;
use crate::addr::{self, GuestMac, MacPrefix};
use crate::config::file;
use crate::text::quote;

/// Why a tap gets no route: the kind of cause, which is the same whatever the sentence names, and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(&'static str, String);

macro_rules! refusal {
    ($kind:literal, $($sentence:tt)*) => { Refusal($kind, format!($($sentence)*)) };
}

impl Refusal {
    /// With another way out.
    pub(crate) fn and(self, hint: &str) -> Self {
        Self(self.0, self.1 + "; " + hint)
    }

    /// The kind of cause, and the sentence.
    pub(crate) fn told(self) -> (&'static str, String) {
        (self.0, self.1)
    }
}

impl std::error::Error for Refusal {}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.1)
    }
}

impl Refusal {
    /// Several in one line; `None` of none.
    pub fn all(refusals: &[Self]) -> Option<Self> {
        let sentences: Vec<&str> = refusals.iter().map(|refusal| refusal.1.as_str()).collect();
        refusals.first().map(|first| Self(first.0, sentences.join("; ")))
    }
}

pub fn no_interface(tap: &str) -> Refusal {
    refusal!("no interface", "there is no interface {tap}: `ip link show type tun` lists the taps")
}

/// `kind` as IFLA_INFO_KIND, empty for physical interfaces.
pub fn not_a_tap(tap: &str, kind: &str) -> Refusal {
    let of_kind = format!("an interface of kind {kind}");
    let what = if kind.is_empty() { "a physical interface or the loopback" } else { &of_kind };
    refusal!("not a tap", "{tap} is {what}, not a tap, and tap32 takes only taps: `ip link show type tun` lists them")
}

/// `parent`: why the calling process did not give a MAC.
pub fn no_mac(tap: &str, parent: &str, prefix: MacPrefix) -> Refusal {
    refusal!(
        "no mac",
        "tap32 does not know the guest MAC of {tap}: {parent}; give it, as `tap32 encode ADDRESS` prints it, with mac= on \
         QEMU's NIC, or `tap32 up {tap} --mac MAC`, or in libvirt's XML, or set the tap's own: `ip link set dev {tap} \
         address {}`",
        prefix.tap_form()
    )
}

pub fn plugged_in(tap: &str, prefix: MacPrefix) -> Refusal {
    refusal!(
        "plugged in",
        "QEMU plugged {tap} in while its guest ran, so its command line does not say which guest MAC is behind it: plug it \
         in with script=no and run `tap32 up {tap} --mac {}`, or set the tap's own MAC first: `ip link set dev {tap} \
         address {}`",
        prefix.guest_form(),
        prefix.tap_form()
    )
}

pub fn mac_drawn(tap: &str, mac: MacAddr6, prefix: MacPrefix) -> Refusal {
    let mac = addr::show(mac);
    refusal!(
        "mac drawn",
        "the kernel chose {tap}'s MAC {mac} at random, so it does not identify a guest: run `tap32 up {tap} --mac {}`",
        prefix.guest_form()
    )
}

pub fn mac_prefix(mac: MacAddr6, prefix: MacPrefix) -> Refusal {
    let hint = match GuestMac::from_tap_mac(mac, prefix) {
        Some(guest) => format!("it is the tap's own MAC; give the guest {guest}"),
        None if mac.as_bytes()[..3] == [0x52, 0x54, 0x00] => {
            "QEMU or libvirt made it up; give the guest the MAC of its address, as `tap32 encode 10.0.0.10` prints it"
                .to_owned()
        }
        None => {
            format!("give the guest the MAC that `tap32 encode ADDRESS` prints, or change mac-prefix in {}", file())
        }
    };
    let (mac, form) = (addr::show(mac), prefix.guest_form());
    refusal!("mac prefix", "{mac} is not a guest MAC of the form {form}, so it carries no address: {hint}")
}

pub fn no_bridge(bridge: &str) -> Refusal {
    refusal!(
        "no bridge",
        "bridge {bridge} does not exist: run `tap32 setup`, which makes it if {} has its gateway = under [[bridge]], or \
         name there the bridge that this host has",
        file()
    )
}

pub fn bridge_down(bridge: &str) -> Refusal {
    refusal!(
        "bridge down",
        "bridge {bridge} is down, so no route can lead through it: run `ip link set dev {bridge} up`"
    )
}

/// `master`: what the bridge is a port of.
pub fn bridge_is_port(bridge: &str, master: &Other) -> Refusal {
    let fix = format!(
        "take it out with `ip link set dev {0} nomaster`, or name another bridge in place of {0} under [[bridge]] in \
         {1}",
        quote(bridge),
        file()
    );
    if master.kind == "vrf" {
        return refusal!(
            "bridge is port",
            "bridge {bridge} is in the VRF {}, which does not use the main table, where tap32's routes are: {fix}",
            master.name
        );
    }
    refusal!("bridge is port", "bridge {bridge} is itself a port of {master}, which takes what its guests send: {fix}")
}

/// `ports`: those that are no taps.
pub fn other_ports(bridge: &str, ports: &[Other]) -> Refusal {
    /// More names in one line help nobody.
    const SHOWN: usize = 5;
    let shown = || ports.iter().take(SHOWN);
    let more = ports.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let names = shown().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let commands = shown().map(|port| format!("`ip link set dev {} nomaster`", quote(&port.name)));
    refusal!(
        "other ports",
        "bridge {bridge} has ports that are not taps ({names}{more}), and with proxy ARP this host answers for every \
         address behind them: take them off with {}, or give the guests a bridge of their own, or if they are meant to be \
         there write other-ports = true under [[bridge]] name = \"{bridge}\" in {}",
        commands.collect::<Vec<_>>().join(", "),
        file()
    )
}

pub fn unmanaged(bridge: &str, managed: &str) -> Refusal {
    refusal!(
        "unmanaged",
        "tap32 does not manage bridge {bridge} (only {managed}): to manage it too, add to {} a [[bridge]] with name = \
         \"{bridge}\", and keep one for each of the others",
        file()
    )
}

/// `of`: none or several.
pub fn which_bridge(address: Ipv4Addr, of: &str, bridges: &str) -> Refusal {
    let Refusal(kind, sentence) = bridges_of(address, of, bridges);
    Refusal(kind, sentence + ", or name one with --bridge")
}

/// The same for a verb without --bridge.
pub fn bridges_of(address: Ipv4Addr, of: &str, bridges: &str) -> Refusal {
    refusal!(
        "which bridge",
        "{address} is in the prefixes of {of} of the bridges {bridges}: give it to one with prefixes = [...] under its \
         [[bridge]] in {}",
        file()
    )
}

pub fn foreign_port(tap: &str, master: &str) -> Refusal {
    refusal!(
        "foreign port",
        "{tap} is already a port of {master}: to give it to tap32, run `ip link set dev {tap} nomaster` first"
    )
}

pub fn carries_another(tap: &str, address: Ipv4Addr) -> Refusal {
    refusal!("carries another", "{tap} already carries {address}: if that guest is gone, run `tap32 down {tap}` first")
}

pub fn reserved(address: Ipv4Addr, what: &str) -> Refusal {
    refusal!(
        "reserved",
        "{address} is {what}, which no guest can have: give the guest another MAC, as `tap32 encode ADDRESS` prints it"
    )
}

/// `prefixes`: the bridge's; none if it has neither an address nor a line in the configuration.
pub fn outside(guest: GuestMac, bridge: &str, prefixes: &[Ipv4Net]) -> Refusal {
    if prefixes.is_empty() {
        return refusal!(
            "outside",
            "bridge {bridge} has no IPv4 address, so its guests have no gateway: run `tap32 setup`, which gives it one if \
             {} has its gateway = under [[bridge]], or `ip addr add ADDRESS/LENGTH dev {bridge}`",
            file()
        );
    }
    let address = guest.address();
    let allowed = prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let quoted = allowed.iter().map(|prefix| format!("\"{prefix}\", ")).collect::<String>();
    refusal!(
        "outside",
        "{address} (guest MAC {guest}) is outside the prefixes of bridge {bridge} ({}): give the guest another MAC, \
         or to allow this one write under [[bridge]] name = \"{bridge}\" in {}: prefixes = [{quoted}\"{address}/32\"]",
        allowed.join(", "),
        file()
    )
}

/// `what`: gateway, network or broadcast.
pub fn special(address: Ipv4Addr, bridge: &str, what: &str) -> Refusal {
    refusal!("special", "{address} is the {what} address of bridge {bridge}: give the guest another MAC")
}

pub fn end_of_subnet(address: Ipv4Addr) -> Refusal {
    refusal!(
        "end of subnet",
        "{address} is the network or broadcast address of a subnet that is on link at this host (`ip addr` shows which): \
         give the guest another MAC"
    )
}

/// The bridge has the MAC that the guest would have.
pub fn bridges_own_mac(guest: GuestMac, bridge: &str) -> Refusal {
    refusal!(
        "bridges own mac",
        "bridge {bridge} has the MAC {guest} of the guest {} as its own: give the guest another MAC, or the bridge, with \
         mac = under [[bridge]] in {} and `tap32 setup` on every host",
        guest.address(),
        file()
    )
}

pub fn hosts_own(address: Ipv4Addr) -> Refusal {
    refusal!("hosts own", "{address} is an address of this host (`ip addr` shows where): give the guest another MAC")
}

pub fn taken(guest: GuestMac, by: &str) -> Refusal {
    let address = guest.address();
    refusal!(
        "taken",
        "{by} already carries {address} (guest MAC {guest}): two guests have the same MAC, so give one of them another"
    )
}

/// The same for a guest that arrives on its own host.
pub fn second_qemu(guest: GuestMac, by: &str) -> Refusal {
    let address = guest.address();
    refusal!(
        "second qemu",
        "a guest cannot migrate from one QEMU to another on one host, and {by} here already carries {address} (guest MAC \
         {guest}): migrate it to another host and back, or stop it and start it with the new QEMU"
    )
}
