//! The guard: which frames a guest may send, as a classic BPF program for the guest's tap.
//!
//! The kernel runs the program for each frame from the guest, before the bridge learns the frame's source MAC: cls_bpf,
//! direct-action, at the ingress of the tap's clsact. The rules are in `ethernet` and the functions below it, to be read
//! from top to bottom; `bpf` assembles them. What puts the program onto a tap lives in `kernel`.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use anyhow::Context;
use macaddr::MacAddr6;
use serde::Deserialize;

use super::bpf::Label::{Arp, Asks, Drop, Ipv4, Pass, WithoutAddress};
use super::bpf::{
    BYTE, FRAME_LENGTH, Field, HALF, HALF_AT_X, IP_HEADER_LENGTH_TO_X, Line, SUBTRACT, WORD, assemble, unless, when,
};
pub use super::bpf::{Instruction, Program};
use crate::addr::{self, GuestMac, MacPrefix};

/// The guard's place on a tap's ingress: before every filter that the kernel or libvirt places (tc_cls_api: from 49152).
pub const PREFERENCE: u16 = 1;
/// By this number tap32 knows its own filter, as it knows its routes by theirs. Others start at 1.
pub const HANDLE: u32 = 132;

/// TC_ACT_UNSPEC, -1: on to the tap's next filter, such as libvirt's policer. TC_ACT_OK would skip that filter.
const PASS: u32 = u32::MAX;
/// TC_ACT_SHOT (linux/pkt_cls.h).
const DROP: u32 = 2;

const IPV4: u32 = 0x0800;
const ARP: u32 = 0x0806;
/// With RARP, QEMU announces a guest after a migration (net/announce.c). The kernel itself reads no RARP.
const RARP: u32 = 0x8035;
const UDP: u32 = 17;
const BROADCAST: u32 = u32::MAX;

/// The kernel takes the outer tag out of the frame before the filter runs (skb_vlan_untag): the ethertype never shows it.
const HAS_VLAN_TAG: Field = Field(&[(HALF, 0xffff_f030)]); // SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT
/// Octets from the MAC header on. A load beyond them ends the program with 0, which is TC_ACT_OK: the frame would pass.
/// So each rule that looks further than the rules before it asks for the length first.
const LENGTH: Field = Field(&[(FRAME_LENGTH, 0)]);
const ETHERNET_AND_IPV4: u32 = 14 + 20;
const ETHERNET_AND_ARP: u32 = 14 + 28;
/// Up to the end of the client's MAC in what DHCP carries (chaddr, RFC 2131).
const ETHERNET_AND_IPV4_AND_DHCP_CLIENT: u32 = 14 + 20 + 8 + 34;

const SOURCE_MAC: [Field; 2] = [Field(&[(WORD, 6)]), Field(&[(HALF, 10)])];
const ETHERTYPE: Field = Field(&[(HALF, 12)]);

const IP_VERSION_AND_HEADER_LENGTH: Field = Field(&[(BYTE, 14)]);
const IPV4_WITHOUT_OPTIONS: u32 = 0x45;
const IP_FRAGMENT: Field = Field(&[(HALF, 20)]);
const OFFSET: u32 = 0x1fff;
const MORE_OR_OFFSET: u32 = 0x3fff;
const IP_PROTOCOL: Field = Field(&[(BYTE, 23)]);
const IP_SOURCE: Field = Field(&[(WORD, 26)]);
const IP_DESTINATION: Field = Field(&[(WORD, 30)]);

/// Octets that the IPv4 header may take, with its options, if Ethernet's 14 stand before it and UDP's 8 behind it.
/// Not less than 0, as no shorter frame than `ETHERNET_AND_IPV4` comes here. Leaves the header's length in X.
const ROOM_FOR_IP_HEADER: Field = Field(&[(IP_HEADER_LENGTH_TO_X, 14), (FRAME_LENGTH, 0), (SUBTRACT, 14 + 8)]);
const UDP_SOURCE_PORT: Field = Field(&[(HALF_AT_X, 14)]); // only behind ROOM_FOR_IP_HEADER, which sets X
const UDP_DESTINATION_PORT: Field = Field(&[(HALF_AT_X, 16)]); // likewise
/// Both ports at once, of a packet without IP options.
const UDP_PORTS: Field = Field(&[(WORD, 34)]);
const DHCP_SERVER: u32 = 67;
const DHCP_CLIENT: u32 = 68;
const DHCP_CLIENT_TO_SERVER: u32 = (DHCP_CLIENT << 16) | DHCP_SERVER;
const DHCP_CLIENT_MAC: [Field; 2] = [Field(&[(WORD, 70)]), Field(&[(HALF, 74)])];

const ARP_TYPES: Field = Field(&[(WORD, 14)]);
const ETHERNET_TO_IPV4: u32 = 0x0001_0800;
const ARP_LENGTHS: Field = Field(&[(HALF, 18)]);
const SIX_AND_FOUR: u32 = 0x0604;
const ARP_OPERATION: Field = Field(&[(HALF, 20)]);
const REQUEST: u32 = 1;
const ARP_SENDER_MAC: [Field; 2] = [Field(&[(WORD, 22)]), Field(&[(HALF, 26)])];
const ARP_SENDER_IP: Field = Field(&[(WORD, 28)]);

/// The guard of one guest: lets through what the guest that `guest` names may send, and drops all else, IPv6 included.
pub fn program(guest: GuestMac) -> Program {
    // What comes to the end of `arp` passes.
    let verdicts = vec![Line::Label(Pass), Line::End(PASS), Line::Label(Drop), Line::End(DROP)];
    assemble(&[ethernet(guest), ipv4(guest), without_address(), asks(guest), arp(guest), verdicts].concat())
}

/// Every frame: untagged, long enough to read, from the guest's MAC, of a type that the rules below know.
fn ethernet(guest: GuestMac) -> Vec<Line> {
    let [mac_head, mac_tail] = halves(guest);
    vec![
        unless(HAS_VLAN_TAG.is(0), Drop),
        unless(LENGTH.at_least(ETHERNET_AND_IPV4), Drop),
        unless(SOURCE_MAC[0].is(mac_head), Drop),
        unless(SOURCE_MAC[1].is(mac_tail), Drop),
        when(ETHERTYPE.is(IPV4), Ipv4),
        when(ETHERTYPE.is(ARP), Arp),
        when(ETHERTYPE.is(RARP), Pass),
        Line::End(DROP),
    ]
}

/// IPv4 from the guest's address, but nothing that a DHCP server would say: a client looks at its own port only, so that
/// the server's alone would not do. Only the first fragment has ports.
fn ipv4(guest: GuestMac) -> Vec<Line> {
    vec![
        Line::Label(Ipv4),
        when(IP_SOURCE.is(0), WithoutAddress),
        unless(IP_SOURCE.is(guest.address().into()), Drop),
        unless(IP_PROTOCOL.is(UDP), Pass),
        when(IP_FRAGMENT.has_any(OFFSET), Pass),
        unless(ROOM_FOR_IP_HEADER.at_least_x(), Drop),
        when(UDP_SOURCE_PORT.is(DHCP_SERVER), Drop),
        when(UDP_DESTINATION_PORT.is(DHCP_CLIENT), Drop),
        when(UDP_DESTINATION_PORT.is(DHCP_SERVER), Asks),
        Line::End(PASS),
    ]
}

/// IPv4 from 0.0.0.0: a guest that asks a DHCP server for its address, and nothing else. Goes on in `asks`.
fn without_address() -> Vec<Line> {
    vec![
        Line::Label(WithoutAddress),
        unless(IP_DESTINATION.is(BROADCAST), Drop),
        unless(IP_PROTOCOL.is(UDP), Drop),
        when(IP_FRAGMENT.has_any(MORE_OR_OFFSET), Drop),
    ]
}

/// What a guest says to a DHCP server is about itself: it could decline the address of another, which dnsmasq then gives
/// nobody for 10 minutes (measured), or have the server refuse it.
fn asks(guest: GuestMac) -> Vec<Line> {
    let [mac_head, mac_tail] = halves(guest);
    vec![
        Line::Label(Asks),
        unless(IP_VERSION_AND_HEADER_LENGTH.is(IPV4_WITHOUT_OPTIONS), Drop),
        unless(LENGTH.at_least(ETHERNET_AND_IPV4_AND_DHCP_CLIENT), Drop),
        unless(UDP_PORTS.is(DHCP_CLIENT_TO_SERVER), Drop),
        unless(DHCP_CLIENT_MAC[0].is(mac_head), Drop),
        unless(DHCP_CLIENT_MAC[1].is(mac_tail), Drop),
        Line::End(PASS),
    ]
}

/// ARP from the guest's MAC and address; with the sender 0.0.0.0 only the question whether an address is free (RFC 5227).
fn arp(guest: GuestMac) -> Vec<Line> {
    let [mac_head, mac_tail] = halves(guest);
    vec![
        Line::Label(Arp),
        unless(LENGTH.at_least(ETHERNET_AND_ARP), Drop),
        unless(ARP_TYPES.is(ETHERNET_TO_IPV4), Drop),
        unless(ARP_LENGTHS.is(SIX_AND_FOUR), Drop),
        unless(ARP_SENDER_MAC[0].is(mac_head), Drop),
        unless(ARP_SENDER_MAC[1].is(mac_tail), Drop),
        when(ARP_SENDER_IP.is(guest.address().into()), Pass),
        unless(ARP_SENDER_IP.is(0), Drop),
        unless(ARP_OPERATION.is(REQUEST), Drop),
    ]
}

/// The guest's MAC as the two loads of a MAC see it: four octets and two.
fn halves(guest: GuestMac) -> [u32; 2] {
    let [a, b, c, d, e, f] = guest.mac().into_array();
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([0, 0, e, f])]
}

/// All that a guard has of its guest.
fn constants(guest: GuestMac) -> [u32; 3] {
    let [head, tail] = halves(guest);
    [head, tail, guest.address().into()]
}

/// The guard of a guest that has no constant like another in the program, and for each instruction which of the guest's
/// constants it holds.
static EXAMPLE: LazyLock<Vec<(Instruction, Option<usize>)>> = LazyLock::new(|| {
    let guest = GuestMac::from_address(Ipv4Addr::new(0xfe, 0xdc, 0xba, 0x98), MacPrefix::default());
    let constants = constants(guest);
    let holds = |instruction: &Instruction| constants.iter().position(|constant| *constant == instruction.k);
    program(guest).0.into_iter().map(|instruction| (instruction, holds(&instruction))).collect()
});

/// The guest of a guard as the kernel has it. A pass asks it of thousands: it makes no program for each, but looks for a
/// guest's MAC and address where the guard of an example has the example's.
fn guest_of(octets: &[u8]) -> Option<GuestMac> {
    let (found, []) = octets.as_chunks() else { return None };
    let example = &*EXAMPLE;
    let mut held = [None; 3];
    for (octets, (like, holds)) in found.iter().zip(example) {
        let found = Instruction::from_octets(octets);
        let k = holds.map_or(like.k, |at| *held[at].get_or_insert(found.k));
        if found != (Instruction { k, ..*like }) {
            return None;
        }
    }
    let [[a, b, c, d], [.., e, f], _] = held.map(|held| held.unwrap_or_default().to_be_bytes());
    let guest = GuestMac::of_any_prefix(MacAddr6::new(a, b, c, d, e, f));
    (found.len() == example.len() && held == constants(guest).map(Some)).then_some(guest)
}

/// What is at the guard's place on a tap.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Guard {
    /// Nobody looked.
    #[default]
    NotAsked,
    /// Nothing, and no clsact that it could be on.
    None,
    /// Nothing, but a clsact or libvirt's `ingress` has room for it.
    Room,
    /// The guard of this guest.
    Of(GuestMac),
    /// Another program, as of another tap32.
    Other(Program),
}

impl Guard {
    /// Reads a program at the guard's place, as [`Program::to_octets`] writes it.
    pub fn read(octets: &[u8]) -> Self {
        guest_of(octets).map_or_else(|| Self::Other(Program::from_octets(octets)), Self::Of)
    }

    /// The guest whose guard it is.
    pub fn guest(&self, prefix: MacPrefix) -> Option<GuestMac> {
        if let Self::Of(guest) = self { GuestMac::new(guest.mac(), prefix) } else { None }
    }

    /// The program that is there.
    pub fn program(&self) -> Option<Program> {
        match self {
            Self::NotAsked | Self::None | Self::Room => None,
            Self::Of(guest) => Some(program(*guest)),
            Self::Other(program) => Some(program.clone()),
        }
    }
}

/// For golden cases: `none`, `room`, or the MAC of the guest whose guard it is.
impl TryFrom<String> for Guard {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "none" => return Ok(Self::None),
            "room" => return Ok(Self::Room),
            _ => {}
        }
        let guest = GuestMac::new(addr::parse_mac(&text)?, MacPrefix::default());
        guest.map(Self::Of).context("a guest MAC, none or room")
    }
}
