//! The table: what a guest may send and what not, a line a frame. The columns: what the frame is; what the guard must
//! do; what becomes of it without a guard (P: it reaches the bridge, L: the bridge learns the victim's MAC on this port).

use super::Verdict::{self, Drop, Pass};
use super::frames::*;
use super::table_ipv4::{fragments, ipv4s, requests_for_an_address, segments, udp_headers};

pub struct Row {
    pub name: String,
    pub must: Verdict,
    pub bare: &'static str,
    pub frame: Vec<u8>,
    /// The struct virtio_net_hdr with which the guest writes the frame: zeros, or how to cut it into segments.
    pub offload: [u8; 10],
}

/// Who plays: the guest whose tap it is, and whom it pretends to be.
#[derive(Clone, Copy)]
pub struct Cast {
    pub me: Station,
    pub victim: Station,
    pub host: Station,
    pub switch: Station,
}

impl Cast {
    pub fn of(me: Station, victim: Station) -> Self {
        let host = Station::other("02:00:00:00:00:01", [10, 0, 0, 1]);
        Self { me, victim, host, switch: Station::other("00:1c:73:00:00:99", [10, 47, 175, 9]) }
    }

    /// The guests of the manual.
    pub fn usual() -> Self {
        Self::of(Station::guest("02:42", [10, 0, 0, 10]), Station::guest("02:42", [10, 0, 0, 11]))
    }

    /// A prefix of its own, and an address whose highest bit is set: every immediate of the program differs.
    pub fn unusual() -> Self {
        Self::of(Station::guest("8e:f1", [203, 7, 113, 250]), Station::guest("8e:f1", [203, 7, 113, 251]))
    }
}

pub fn table(cast: &Cast) -> Vec<Row> {
    let lists = [
        arps(cast),
        announcements(cast),
        ipv4s(cast),
        fragments(cast),
        requests_for_an_address(cast),
        udp_headers(cast),
        tags(cast),
        types(cast),
        ipv6s(cast),
        sources(cast),
        short(cast),
        segments(cast),
    ];
    lists.into_iter().flatten().collect()
}

pub fn rows<N: Into<String>>(list: impl IntoIterator<Item = (N, Verdict, &'static str, Vec<u8>)>) -> Vec<Row> {
    let row = |(name, must, bare, frame): (N, _, _, _)| Row { name: name.into(), must, bare, frame, offload: [0; 10] };
    list.into_iter().map(row).collect()
}

fn arps(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let own = me.arp(REQUEST, host);
    let claims = |operation, mac, ip| me.sends(ARP, &arp(operation, mac, ip, host.ip));
    rows([
        ("ARP request, own", Pass, "P", own.clone()),
        ("ARP request, own, to the host alone", Pass, "P", to(host.mac, &own)),
        ("ARP reply, own, to the host alone", Pass, "P", to(host.mac, &me.arp(REPLY, host))),
        ("ARP, gratuitous request, own", Pass, "P", me.arp(REQUEST, me)),
        ("ARP, gratuitous reply, own", Pass, "P", me.arp(REPLY, me)),
        ("ARP probe: sender 0.0.0.0, request", Pass, "P", claims(REQUEST, me.mac, NOWHERE)),
        ("ARP request, own, padded to 60", Pass, "P", resized(60, &own)),
        ("ARP request, own, padded to 1500", Pass, "P", resized(1500, &own)),
        ("ARP reply with sender 0.0.0.0", Drop, "P", claims(REPLY, me.mac, NOWHERE)),
        ("ARP, operation 3, sender 0.0.0.0", Drop, "P", claims(3, me.mac, NOWHERE)),
        ("ARP, operation 257, sender 0.0.0.0", Drop, "P", claims(257, me.mac, NOWHERE)),
        ("ARP request, sender IP of the victim", Drop, "P", claims(REQUEST, me.mac, victim.ip)),
        ("ARP reply, sender IP of the victim", Drop, "P", claims(REPLY, me.mac, victim.ip)),
        ("ARP reply, sender IP of the victim, to 1500", Drop, "P", resized(1500, &claims(REPLY, me.mac, victim.ip))),
        ("ARP reply, sender IP of the gateway", Drop, "P", claims(REPLY, me.mac, host.ip)),
        ("ARP request, sender IP 255.255.255.255", Drop, "P", claims(REQUEST, me.mac, EVERYWHERE)),
        ("ARP, sender MAC of the victim inside", Drop, "P", claims(REQUEST, victim.mac, me.ip)),
        ("ARP probe, sender MAC of the victim inside", Drop, "P", claims(REQUEST, victim.mac, NOWHERE)),
        ("ARP, the victim's own, from this port", Drop, "PL", victim.arp(REQUEST, host)),
        ("ARP, source MAC of the victim, own inside", Drop, "PL", from(victim.mac, ARP, &own[14..])),
        ("ARP, hardware type 6", Drop, "P", with(14, &[0, 6], &own)),
        ("ARP, protocol type 0x0801", Drop, "P", with(16, &[8, 1], &own)),
        ("ARP, hardware addresses of 8 octets", Drop, "P", with(18, &[8], &own)),
        ("ARP, protocol addresses of 16 octets", Drop, "P", with(19, &[16], &own)),
        ("ARP, the victim's addresses behind hlen 0", Drop, "P", with(18, &[0], &claims(REQUEST, me.mac, victim.ip))),
    ])
}

fn announcements(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let groups = |last: u8| [0x01, 0x80, 0xc2, 0, 0, last];
    let lldp = from(victim.mac, LLDP, &[0; 46]);
    let echo = victim.ipv4(host.ip, ICMP, &ping());
    rows([
        ("RARP announcement, own", Pass, "P", me.sends(RARP, &rarp(me.mac))),
        ("RARP, the victim's MAC inside: nobody reads it", Pass, "P", me.sends(RARP, &rarp(victim.mac))),
        ("RARP announcement with the victim's MAC", Drop, "PL", victim.sends(RARP, &rarp(victim.mac))),
        ("RARP with the victim's MAC outside only", Drop, "PL", victim.sends(RARP, &rarp(me.mac))),
        ("to the LLDP group, victim's MAC", Drop, "L", to(groups(0x0e), &lldp)),
        ("to the 802.1X group, victim's MAC", Drop, "L", to(groups(0x03), &lldp)),
        ("to the BPDU group, victim's MAC", Drop, "PL", to(groups(0x00), &lldp)),
        ("to the LLDP group, victim's MAC, type IPv4", Drop, "L", to(groups(0x0e), &echo)),
        ("to the BPDU group, victim's MAC, type IPv4", Drop, "PL", to(groups(0x00), &echo)),
        ("to the LLDP group, own MAC, type LLDP", Drop, "", to(groups(0x0e), &from(me.mac, LLDP, &[0; 46]))),
    ])
}

fn tags(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let own = me.ipv4(host.ip, UDP, &udp(4000, 53, &[0; 20]));
    let forged = me.forges(victim.ip, host.ip, UDP, &udp(4000, 53, &[0; 20]));
    let arp = me.arp(REQUEST, host);
    rows([
        ("VLAN 0 + IPv4, own", Drop, "P", tagged(0x8100, 0, &own)),
        ("VLAN 0 + IPv4 of the victim", Drop, "P", tagged(0x8100, 0, &forged)),
        ("VLAN 0 + ARP, own", Drop, "P", tagged(0x8100, 0, &arp)),
        ("VLAN 0, priority 5 + RARP, own", Drop, "P", tagged(0x8100, 0xa000, &me.sends(RARP, &rarp(me.mac)))),
        ("VLAN 5 + ARP of the victim", Drop, "PL", tagged(0x8100, 5, &victim.arp(REQUEST, host))),
        ("VLAN 5 + ARP, own", Drop, "P", tagged(0x8100, 5, &arp)),
        ("802.1ad 0 + IPv4, own", Drop, "P", tagged(0x88a8, 0, &own)),
        ("QinQ 88a8 + 8100 + IPv4 of the victim", Drop, "P", tagged(0x88a8, 5, &tagged(0x8100, 6, &forged))),
        ("8100 + 8100 + IPv4, own", Drop, "P", tagged(0x8100, 0, &tagged(0x8100, 0, &own))),
        ("9100 + IPv4, own", Drop, "P", tagged(0x9100, 0, &own)),
    ])
}

fn types(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let forged = me.forges(victim.ip, host.ip, ICMP, &ping());
    let echo = ipv4(me.ip, host.ip, ICMP, &ping());
    let behind = |kind, head: &[u8]| me.sends(kind, &[head, &forged[14..]].concat());
    let bpdu = [&[0x42, 0x42, 3][..], &[0; 43]].concat();
    rows([
        ("802.3 and SNAP around IPv4 of the victim", Drop, "P", snap(&forged)),
        ("802.3 and SNAP around IPv4, own", Drop, "P", snap(&me.sends(IPV4, &echo))),
        ("STP BPDU", Drop, "P", to([0x01, 0x80, 0xc2, 0, 0, 0], &me.sends(38, &bpdu))),
        ("STP BPDU to everybody", Drop, "P", me.sends(38, &bpdu)),
        ("type 0x9000 (loopback)", Drop, "P", me.sends(0x9000, &[0; 46])),
        ("type 0x8863 (PPPoE discovery)", Drop, "P", me.sends(0x8863, &[0x11, 9, 0, 0, 0, 0])),
        ("type 0x8864 (PPPoE) + IPv4 of the victim", Drop, "P", behind(0x8864, &[0x11, 0, 0, 1, 0, 30, 0, 0x21])),
        ("type 0x8847 (MPLS) + IPv4 of the victim", Drop, "P", behind(0x8847, &[0, 1, 1, 64])),
        ("type 0x888e (802.1X)", Drop, "P", me.sends(0x888e, &[0; 46])),
        ("type 0x22f0, 0x0801, beside IPv4's", Drop, "P", me.sends(0x0801, &echo)),
        ("type 0x0900, the same in the other octet", Drop, "P", me.sends(0x0900, &echo)),
        ("type 0", Drop, "P", me.sends(0, &echo)),
    ])
}

/// tap32 routes no IPv6, so its guests have none.
fn ipv6s(&Cast { me, victim, .. }: &Cast) -> Vec<Row> {
    let (own, all) = (link_local(me.mac), [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let icmp = |source, kind: u8| me.sends(IPV6, &ipv6(source, all, 58, &[&[kind, 0, 0, 0][..], &[0; 20]].concat()));
    rows([
        ("IPv6 router solicitation, own", Drop, "P", icmp(own, 133)),
        ("IPv6 router advertisement", Drop, "P", icmp(own, 134)),
        ("IPv6 neighbour solicitation, own", Drop, "P", icmp(own, 135)),
        ("IPv6 neighbour advertisement of the victim", Drop, "P", icmp(link_local(victim.mac), 136)),
        ("IPv6 redirect", Drop, "P", icmp(own, 137)),
        ("IPv6 duplicate address detection", Drop, "P", icmp([0; 16], 135)),
        ("IPv6 UDP, own", Drop, "P", me.sends(IPV6, &ipv6(own, all, 17, &udp(546, 547, &[0; 8])))),
        ("IPv6 behind type IPv4", Drop, "P", me.sends(IPV4, &ipv6(own, all, 17, &udp(546, 547, &[0; 8])))),
    ])
}

fn sources(&Cast { me, host, switch, .. }: &Cast) -> Vec<Row> {
    let echo = ipv4(me.ip, host.ip, ICMP, &ping());
    let first_octet = |octet| with(6, &[octet], &from(me.mac, IPV4, &echo));
    let mut list = rows([
        ("source MAC of a multicast group", Drop, "", from([0x01, 0, 0x5e, 0, 0, 1], IPV4, &echo)),
        ("source MAC of the guest, multicast bit set", Drop, "", first_octet(me.mac[0] | 1)),
        ("source MAC 00:00:00:00:00:00", Drop, "", from([0; 6], IPV4, &echo)),
        ("source MAC ff:ff:ff:ff:ff:ff", Drop, "", from(BROADCAST, IPV4, &echo)),
        ("source MAC of the tap", Drop, "P", first_octet(0xfe)),
        ("source MAC of the bridge", Drop, "P", from(host.mac, IPV4, &echo)),
        ("source MAC of the switch", Drop, "P", from(switch.mac, IPV4, &echo)),
    ]);
    // An octet of each address that the rules compare.
    let (ipv4, arp) = (from(me.mac, IPV4, &echo), me.arp(REQUEST, host));
    for (what, frame, octets) in [
        ("IPv4's source MAC", &ipv4, 6..12),
        ("IPv4's source", &ipv4, 26..30),
        ("ARP's source MAC", &arp, 6..12),
        ("ARP's sender MAC", &arp, 22..28),
        ("ARP's sender IP", &arp, 28..32),
    ] {
        let another =
            |at: usize| (format!("{what}, octet {at} differs"), Drop, "P", with(at, &[frame[at] ^ 0x40], frame));
        list.extend(rows(octets.map(another)));
    }
    list
}

/// Frames from 14 octets, the fewest that a tap takes, to 60. Each kind passes from the length on that its rules read.
fn short(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let datagram = ipv4(me.ip, host.ip, UDP, &udp(4000, 53, &[0; 32]));
    let kinds = [
        ("ARP, own", 42, me.arp(REQUEST, host)),
        ("ARP of the victim", usize::MAX, with(28, &victim.ip, &me.arp(REPLY, host))),
        ("RARP, own", 34, me.sends(RARP, &rarp(me.mac))),
        ("ICMP, own", 34, me.ipv4(host.ip, ICMP, &[&ping()[..], &[0; 32]].concat())),
        ("UDP, own", 42, me.sends(IPV4, &datagram)),
        ("UDP, own, 8 octets of options", 50, me.sends(IPV4, &options(&[1; 8], &datagram))),
        ("ICMP of the victim", usize::MAX, me.forges(victim.ip, host.ip, ICMP, &[0; 40])),
        ("DHCP", usize::MAX, me.forges(NOWHERE, EVERYWHERE, UDP, &udp(68, 67, &dhcp(me.mac)))),
    ];
    let cut = |(name, least, frame): &(&str, usize, Vec<u8>), length| {
        let must = if length >= *least { Pass } else { Drop };
        (format!("{name}, {length} octets"), must, "P", resized(length, frame))
    };
    rows((14..=60).flat_map(|length| kinds.iter().map(move |kind| cut(kind, length))))
}
