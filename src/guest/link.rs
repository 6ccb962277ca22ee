//! Interfaces as the kernel has them.

use std::fmt::{self, Display};

use ipnet::Ipv4Net;
use macaddr::MacAddr6;
use serde::Deserialize;

use super::guard::Guard;
use crate::addr::{self, GuestMac, MacPrefix};
use crate::text::quote;

/// An interface as a step needs it: the index for the kernel, the name for people and their shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub(crate) name: String,
    pub(crate) index: u32,
}

impl Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&quote(&self.name))
    }
}

/// Another interface that a sentence is about: a bridge's port that is no tap, or what a bridge is itself a port of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Other {
    pub(crate) name: String,
    /// IFLA_INFO_KIND; empty for a physical interface.
    #[serde(default)]
    pub(crate) kind: String,
}

impl Other {
    /// `physical`, `veth`
    pub(crate) fn kind(&self) -> &str {
        if self.kind.is_empty() { "physical" } else { &self.kind }
    }
}

impl Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.kind())
    }
}

/// A managed bridge.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub up: bool,
    pub proxy_arp_pvlan: bool,
    #[serde(default, deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// Its FDB has lost the bridge's own MAC, so that no frame to the gateway arrives, and with it those of its ports:
    /// `bridge fdb flush` deletes all.
    #[serde(default)]
    pub flushed: bool,
    /// The bridge's own addresses, host bits kept: `10.0.0.1/24`.
    pub addresses: Vec<Ipv4Net>,
    /// The VRF, or whatever else the bridge is itself a port of.
    #[serde(default)]
    pub master: Option<Other>,
    /// Its ports that are no taps. Only looked up for the whole host.
    #[serde(default, rename = "other_port")]
    pub other_ports: Vec<Other>,
}

/// An interface that is, or may become, a port of a managed bridge.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub name: String,
    pub index: u32,
    /// IFLA_INFO_KIND, or `tap` for a `tun` device with an Ethernet header; empty for a physical interface.
    pub kind: String,
    #[serde(deserialize_with = "addr::deserialize_mac")]
    pub mac: MacAddr6,
    /// The kernel chose the MAC at random, so it does not identify a guest. Only looked up for a tap without route and
    /// isolation.
    #[serde(default)]
    pub mac_drawn: bool,
    pub mtu: u32,
    pub up: bool,
    /// Whether somebody has the tap open. A list of ports says `false` of one that is down.
    #[serde(default = "yes")]
    pub carrier: bool,
    /// How often somebody has opened the tap that nobody had open (IFLA_CARRIER_UP_COUNT). Who makes a tap has it open
    /// without being counted. Only looked up for a tap that was asked for alone.
    #[serde(default)]
    pub openings: u32,
    /// Index of the bridge, bond or VRF of which it is a port.
    pub master: Option<u32>,
    /// Somebody took it off its bridge, though it is a running guest's.
    #[serde(default)]
    pub lost: bool,
    /// The managed bridge of which `watch` last saw it as a port.
    #[serde(default)]
    pub was_on: Option<String>,
    /// Its MAC names another guest than its guard, and the guard is right: somebody has changed the MAC
    /// (`Snapshot::mark_changed_macs`).
    #[serde(default)]
    pub has_mac_of_another: bool,
    /// The bridge's FDB has lost its MAC. Only looked up for taps that were looked at closer.
    #[serde(default)]
    pub unlisted: bool,
    /// The guest MAC that `watch` remembers of a tap whose MAC somebody has changed.
    #[serde(default, deserialize_with = "addr::deserialize_mac")]
    pub remembered: Option<MacAddr6>,
    #[serde(default)]
    pub isolated: bool,
    #[serde(default)]
    pub guard: Guard,
    /// Nothing but the guard is on the tap's clsact. Only looked up for `down`.
    #[serde(default)]
    pub only_guard: bool,
}

fn yes() -> bool {
    true
}

impl Bridge {
    pub(crate) fn device(&self) -> Device {
        Device { name: self.name.clone(), index: self.index }
    }
}

impl Link {
    pub(crate) fn device(&self) -> Device {
        Device { name: self.name.clone(), index: self.index }
    }

    pub fn other(&self) -> Other {
        Other { name: self.name.clone(), kind: self.kind.clone() }
    }

    pub fn is_tap(&self) -> bool {
        self.kind == "tap"
    }

    /// The guest that the MAC identifies, as a tap MAC or as a guest MAC.
    pub fn named_guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        self.guest(prefix).or_else(|| GuestMac::new(self.mac, prefix))
    }

    /// Whether the tap lets through only frames of the guest that it carries.
    pub fn is_guarded(&self, prefix: MacPrefix) -> bool {
        self.guest(prefix).is_some_and(|guest| self.is_guarded_for(guest))
    }

    /// The same of this guest.
    pub fn is_guarded_for(&self, guest: GuestMac) -> bool {
        self.guard == Guard::Of(guest)
    }

    /// The guest that this tap carries: the one of its tap MAC. Where somebody has changed that (udev's
    /// MACAddressPolicy=persistent does), the one of its guard, or the one that `watch` remembers.
    pub fn guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        if !self.is_tap() {
            return None;
        }
        let remembered = || self.remembered.and_then(|mac| GuestMac::new(mac, prefix));
        let of_mac = GuestMac::from_tap_mac(self.mac, prefix).filter(|_| !self.has_mac_of_another);
        of_mac.or_else(|| self.guard.guest(prefix)).or_else(remembered)
    }

    /// Somebody had the tap open and nobody has now, so that no guest is behind it. A tap that nobody has opened yet is
    /// not idle.
    pub fn is_idle(&self) -> bool {
        self.up && !self.carrier && self.openings > 0
    }

    /// Whether a guest can be behind it: not behind a tap that somebody set down, and not behind one that is idle.
    pub fn is_in_service(&self) -> bool {
        self.up && !self.is_idle()
    }

    /// Whether nobody has attached it, taken it off its bridge, set it up or down or changed its MAC since `before`.
    pub fn is_as_before(&self, before: &Self) -> bool {
        let key = |link: &Self| (link.index, link.master, link.mac, link.up);
        key(self) == key(before)
    }

    /// It was closed meanwhile, so that another guest may be behind it than the one of its MAC.
    pub fn may_have_changed_hands(&self) -> bool {
        self.openings > 1 || self.is_idle()
    }
}
