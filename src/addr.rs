//! Guest MAC, tap MAC and address: three spellings of one guest. `guest/policy.rs` decides which addresses are allowed.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr as _;

use anyhow::{Result, bail};
use macaddr::MacAddr6;
use serde::{Deserialize, Deserializer, Serialize};

/// First octet of every tap MAC. A bridge takes the lowest MAC of its ports; this one is too high for that. libvirt sets it
/// (virNetDevTapCreateInBridgePort), and tap32 under plain QEMU.
const TAP_OCTET: u8 = 0xfe;

/// The first two octets of every guest MAC, `02:42` by default. The other four are the guest's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MacPrefix([u8; 2]);

impl Default for MacPrefix {
    fn default() -> Self {
        Self([0x02, 0x42])
    }
}

impl TryFrom<String> for MacPrefix {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let Ok(mac) = MacAddr6::from_str(&format!("{text}:00:00:00:00")) else {
            bail!("{text:?} is not two octets of a MAC, such as \"02:42\"");
        };
        let [first, second, ..] = mac.into_array();
        if mac.is_multicast() {
            bail!("{text:?} marks multicast MACs (first octet odd), which no guest's NIC can have");
        }
        if first == TAP_OCTET {
            bail!("{text:?} begins with fe, the first octet of the taps' own MACs");
        }
        Ok(Self([first, second]))
    }
}

impl MacPrefix {
    /// The form of a guest MAC, for people: `02:42:AA:BB:CC:DD`.
    pub(crate) fn guest_form(self) -> String {
        format!("{self}:AA:BB:CC:DD")
    }

    /// The form of a tap MAC: `fe:42:AA:BB:CC:DD`.
    pub(crate) fn tap_form(self) -> String {
        format!("{TAP_OCTET:02x}:{:02x}:AA:BB:CC:DD", self.0[1])
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:02x}:{:02x}", self.0[0], self.0[1])
    }
}

/// The address in a tap MAC, also in one of another prefix; `None` if the first octet is not a tap's.
pub(crate) fn address_of_tap_mac(mac: MacAddr6) -> Option<Ipv4Addr> {
    let [first, _, address @ ..] = mac.into_array();
    (first == TAP_OCTET).then(|| Ipv4Addr::from(address))
}

/// A MAC that carries an address: the guest's own (`02:42:0a:00:00:0a`), not the tap's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuestMac(MacAddr6);

impl GuestMac {
    /// `None` if `mac` does not begin with `prefix`.
    pub fn new(mac: MacAddr6, prefix: MacPrefix) -> Option<Self> {
        (mac.as_bytes()[..2] == prefix.0).then_some(Self(mac))
    }

    /// The guest with this MAC on a host that gives its guests the MAC's first two octets for a prefix.
    pub(crate) fn of_any_prefix(mac: MacAddr6) -> Self {
        Self(mac)
    }

    /// The guest of a tap MAC (`fe:42:0a:00:00:0a`); `None` if `mac` is not one.
    pub fn from_tap_mac(mac: MacAddr6, prefix: MacPrefix) -> Option<Self> {
        let mut octets = mac.into_array();
        if octets[0] != TAP_OCTET {
            return None;
        }
        octets[0] = prefix.0[0];
        Self::new(octets.into(), prefix)
    }

    /// The MAC that carries `address`.
    pub fn from_address(address: Ipv4Addr, prefix: MacPrefix) -> Self {
        let [a, b, c, d] = address.octets();
        Self(MacAddr6::new(prefix.0[0], prefix.0[1], a, b, c, d))
    }

    pub(crate) fn mac(self) -> MacAddr6 {
        self.0
    }

    /// The guest's address.
    pub fn address(self) -> Ipv4Addr {
        let [_, _, a, b, c, d] = self.0.into_array();
        Ipv4Addr::new(a, b, c, d)
    }

    /// The MAC of the guest's tap: `fe` and the guest MAC's last five octets.
    pub fn tap_mac(self) -> MacAddr6 {
        let mut octets = self.0.into_array();
        octets[0] = TAP_OCTET;
        octets.into()
    }
}

impl fmt::Display for GuestMac {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&show(self.0))
    }
}

impl Serialize for GuestMac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// In lower case, as `ip link` prints a MAC.
pub fn show(mac: MacAddr6) -> String {
    mac.to_string().to_lowercase()
}

/// Reads six octets with `:` or with `-`, in either case. QEMU and libvirt do not take Cisco's `0242.0a00.000a`, which
/// `macaddr` reads too.
pub fn parse_mac(text: &str) -> Result<MacAddr6> {
    match MacAddr6::from_str(text) {
        Ok(mac) if text.len() == 17 => Ok(mac),
        _ => bail!("{text:?} is not a MAC address (six octets in hexadecimal with : between them)"),
    }
}

/// For `#[serde(deserialize_with)]`: a MAC or an `Option` of one, as [`parse_mac`] reads it.
pub(crate) fn deserialize_mac<'de, D: Deserializer<'de>, T: From<MacAddr6>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_mac(&text).map(T::from).map_err(serde::de::Error::custom)
}
