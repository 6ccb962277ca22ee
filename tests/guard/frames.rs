//! Frames as a guest writes them, built from the outside in: `station.sends(ARP, &arp(..))`. All go to everybody unless
//! `to` says otherwise.

use std::net::Ipv4Addr;

use tap32::addr::{GuestMac, MacPrefix, parse_mac};

pub type Mac = [u8; 6];
pub type Ip = [u8; 4];

pub const BROADCAST: Mac = [0xff; 6];
pub const NOWHERE: Ip = [0; 4];
pub const EVERYWHERE: Ip = [255; 4];

pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const RARP: u16 = 0x8035;
pub const IPV6: u16 = 0x86dd;
pub const LLDP: u16 = 0x88cc;

pub const REQUEST: u16 = 1;
pub const REPLY: u16 = 2;

pub const ICMP: u8 = 1;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const OSPF: u8 = 89;

/// Who sends, or is pretended to.
#[derive(Debug, Clone, Copy)]
pub struct Station {
    pub mac: Mac,
    pub ip: Ip,
}

impl Station {
    /// A station whose MAC says its address, with this prefix such as "02:42".
    pub fn guest(prefix: &str, ip: Ip) -> Self {
        let mac = GuestMac::from_address(Ipv4Addr::from(ip), MacPrefix::try_from(prefix.to_owned()).unwrap());
        Self::other(&mac.to_string(), ip)
    }

    pub fn other(mac: &str, ip: Ip) -> Self {
        Self { mac: parse_mac(mac).unwrap().into_array(), ip }
    }

    pub fn guest_mac(self) -> GuestMac {
        let prefix = MacPrefix::try_from(format!("{:02x}:{:02x}", self.mac[0], self.mac[1])).unwrap();
        GuestMac::new(self.mac.into(), prefix).unwrap()
    }

    pub fn sends(self, kind: u16, payload: &[u8]) -> Vec<u8> {
        from(self.mac, kind, payload)
    }

    /// ARP that tells the truth.
    pub fn arp(self, operation: u16, target: Station) -> Vec<u8> {
        self.sends(ARP, &arp(operation, self.mac, self.ip, target.ip))
    }

    pub fn ipv4(self, to: Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.forges(self.ip, to, protocol, payload)
    }

    /// IPv4 with a source that may be another's.
    pub fn forges(self, source: Ip, to: Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.sends(IPV4, &ipv4(source, to, protocol, payload))
    }
}

pub fn from(mac: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&BROADCAST[..], &mac, &kind.to_be_bytes(), payload].concat()
}

pub fn to(mac: Mac, frame: &[u8]) -> Vec<u8> {
    [&mac, &frame[6..]].concat()
}

/// Puts a VLAN tag in front of the ethertype; tag twice for QinQ, the outer one last.
pub fn tagged(kind: u16, vlan: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &kind.to_be_bytes(), &vlan.to_be_bytes(), &frame[12..]].concat()
}

/// 802.3: a length in place of the type, then LLC, and SNAP with the type.
pub fn snap(frame: &[u8]) -> Vec<u8> {
    let llc = [&[0xaa, 0xaa, 3, 0, 0, 0], &frame[12..]].concat();
    [&frame[..12], &(llc.len() as u16).to_be_bytes(), &llc].concat()
}

/// Cuts the frame, or fills it up with zeros.
pub fn resized(length: usize, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(length, 0);
    frame
}

/// Sets octets, counted from the MAC header.
pub fn with(at: usize, octets: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + octets.len()].copy_from_slice(octets);
    frame
}

pub fn arp(operation: u16, sender_mac: Mac, sender: Ip, target: Ip) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    [&head[..], &operation.to_be_bytes(), &sender_mac, &sender, &[0; 6], &target].concat()
}

/// What QEMU sends after a migration (net/announce.c): a RARP request for its own MAC, 60 octets with the header.
pub fn rarp(mac: Mac) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 3];
    resized(46, &[&head[..], &mac, &NOWHERE, &mac, &NOWHERE].concat())
}

pub fn ipv4(source: Ip, target: Ip, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len()).min(0xffff) as u16;
    let head = [&[0x45, 0], &length.to_be_bytes()[..], &[0, 1, 0, 0, 64, protocol, 0, 0], &source, &target].concat();
    summed(&[&head, payload].concat())
}

/// The fragment that begins at this offset, in units of 8 octets; `more` follow.
pub fn fragment(offset: u16, more: bool, packet: &[u8]) -> Vec<u8> {
    summed(&with(6, &(offset | if more { 0x2000 } else { 0 }).to_be_bytes(), packet))
}

/// Puts options into the header: a multiple of 4 octets.
pub fn options(octets: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut packet = [&packet[..20], octets, &packet[20..]].concat();
    packet[0] += (octets.len() / 4) as u8;
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    summed(&packet)
}

/// The header's checksum, which br_netfilter and the host look at.
fn summed(packet: &[u8]) -> Vec<u8> {
    let mut packet = with(10, &[0, 0], packet);
    let header = usize::from(packet[0] & 15) * 4;
    let words = packet[..header].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    packet[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    packet
}

pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

pub fn tcp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0];
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &rest, payload].concat()
}

pub fn ping() -> Vec<u8> {
    vec![8, 0, 0xf7, 0xfe, 0, 0, 0, 1]
}

/// What a DHCP client says of this MAC, as far as the guard could look: BOOTP's fixed part and the magic.
pub fn dhcp(client: Mac) -> Vec<u8> {
    [&[1, 1, 6, 0][..], &[0; 24], &client, &[0; 202], &[99, 130, 83, 99]].concat()
}

pub fn ipv6(source: [u8; 16], target: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    [&[0x60, 0, 0, 0], &length.to_be_bytes()[..], &[next, 255], &source, &target, payload].concat()
}

/// fe80:: and the EUI-64 of a MAC.
pub fn link_local([a, b, c, d, e, f]: Mac) -> [u8; 16] {
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}
