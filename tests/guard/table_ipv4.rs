//! The table's frames of type IPv4; `table` says what the columns are.

use super::Verdict::{Drop, Pass};
use super::frames::*;
use super::table::{Cast, Row, rows};

pub fn ipv4s(&Cast { me, victim, host, switch }: &Cast) -> Vec<Row> {
    let echo = ipv4(me.ip, host.ip, ICMP, &ping());
    let forged = |source: Ip| me.forges(source, host.ip, ICMP, &ping());
    let part = |source: Ip, offset, more| fragment(offset, more, &ipv4(source, host.ip, UDP, &[0; 64]));
    let inner = |source: Ip| ipv4(source, host.ip, ICMP, &ping());
    rows([
        ("IPv4 own, ICMP", Pass, "P", me.sends(IPV4, &echo)),
        ("IPv4 own, UDP", Pass, "P", me.ipv4(host.ip, UDP, &udp(4000, 53, &[0; 20]))),
        ("IPv4 own, TCP", Pass, "P", me.ipv4(host.ip, TCP, &tcp(67, 80, &[]))),
        ("IPv4 own, protocol 253 without a payload", Pass, "P", me.ipv4(host.ip, 253, &[])),
        ("IPv4 own, to a multicast group", Pass, "P", me.ipv4([224, 0, 0, 251], UDP, &udp(5353, 5353, &[0; 12]))),
        ("IPv4 own, later fragment", Pass, "P", me.sends(IPV4, &part(me.ip, 185, true))),
        ("IPv4 own, last fragment", Pass, "P", me.sends(IPV4, &part(me.ip, 185, false))),
        ("IPv4 own, options", Pass, "P", me.sends(IPV4, &options(&[1; 8], &echo))),
        ("IPv4 own, 40 octets of options", Pass, "P", me.sends(IPV4, &options(&[1; 40], &echo))),
        ("IPv4 source of the victim", Drop, "P", forged(victim.ip)),
        ("IPv4 source of the victim, its MAC too", Drop, "PL", victim.sends(IPV4, &inner(victim.ip))),
        ("IPv4 own, source MAC of the victim", Drop, "PL", victim.sends(IPV4, &echo)),
        ("IPv4 source of the victim, later fragment", Drop, "P", me.sends(IPV4, &part(victim.ip, 185, true))),
        ("IPv4 source of the victim, options", Drop, "P", me.sends(IPV4, &options(&[1; 8], &inner(victim.ip)))),
        ("IPv4 source of the victim, own in options", Drop, "P", me.sends(IPV4, &options(&me.ip, &inner(victim.ip)))),
        ("IPv4 source of the victim, to 1500", Drop, "P", resized(1500, &forged(victim.ip))),
        ("IPv4 source of the gateway", Drop, "P", forged(host.ip)),
        ("IPv4 source of a client far away", Drop, "P", forged([198, 51, 100, 7])),
        ("IPv4 source 127.0.0.1", Drop, "P", forged([127, 0, 0, 1])),
        ("IPv4 source 224.0.0.5", Drop, "P", forged([224, 0, 0, 5])),
        ("IPv4 source 255.255.255.255", Drop, "P", forged(EVERYWHERE)),
        ("IPIP: outer source victim, inner own", Drop, "P", me.forges(victim.ip, host.ip, IPIP, &inner(me.ip))),
        ("IPIP: outer source own, inner victim", Pass, "P", me.ipv4(host.ip, IPIP, &inner(victim.ip))),
        ("the switch's BFD", Drop, "P", me.forges(switch.ip, host.ip, UDP, &udp(49152, 3784, &[0; 24]))),
        ("the switch's BFD, its MAC too", Drop, "P", switch.ipv4(host.ip, UDP, &udp(49152, 3784, &[0; 24]))),
        ("the switch's OSPF", Drop, "P", me.forges(switch.ip, [224, 0, 0, 5], OSPF, &[0; 44])),
        ("the switch's BGP", Drop, "P", me.forges(switch.ip, host.ip, TCP, &tcp(179, 40000, &[]))),
    ])
}

/// Each bit of the fragment field alone.
pub fn fragments(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let discover = ipv4(NOWHERE, EVERYWHERE, UDP, &udp(68, 67, &dhcp(me.mac)));
    let from_67 = ipv4(me.ip, host.ip, UDP, &udp(67, 4000, &dhcp(me.mac)));
    let to_68 = ipv4(me.ip, host.ip, UDP, &udp(4000, 68, &dhcp(me.mac)));
    let forged = ipv4(victim.ip, host.ip, UDP, &udp(4000, 53, &[0; 64]));
    let each = (0..16).flat_map(|bit| {
        let at = |packet| me.sends(IPV4, &fragment(1 << bit, false, packet));
        let (asks, serves) = (if bit < 14 { Drop } else { Pass }, if bit < 13 { Pass } else { Drop });
        [
            (format!("DHCP, fragment bit {bit}"), asks, "P", at(&discover)),
            (format!("UDP source port 67, fragment bit {bit}"), serves, "P", at(&from_67)),
            (format!("UDP destination port 68, fragment bit {bit}"), serves, "P", at(&to_68)),
            (format!("UDP of the victim, fragment bit {bit}"), Drop, "P", at(&forged)),
        ]
    });
    rows(each)
}

pub fn requests_for_an_address(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    let discover = ipv4(NOWHERE, EVERYWHERE, UDP, &udp(68, 67, &dhcp(me.mac)));
    let renew = ipv4(me.ip, host.ip, UDP, &udp(68, 67, &dhcp(me.mac)));
    let anonymous = |to: Ip, protocol, payload: &[u8]| me.forges(NOWHERE, to, protocol, payload);
    rows([
        ("DHCP: 0.0.0.0 to 255.255.255.255, 68 to 67", Pass, "P", me.sends(IPV4, &discover)),
        ("DHCP, do not fragment", Pass, "P", me.sends(IPV4, &fragment(0x4000, false, &discover))),
        ("DHCP, own address", Pass, "P", me.ipv4(host.ip, UDP, &udp(68, 67, &dhcp(me.mac)))),
        ("DHCP for the victim", Drop, "P", anonymous(EVERYWHERE, UDP, &udp(68, 67, &dhcp(victim.mac)))),
        ("DHCP for the victim, own address", Drop, "P", me.ipv4(host.ip, UDP, &udp(68, 67, &dhcp(victim.mac)))),
        ("DHCP for another prefix", Drop, "P", with(70, &[me.mac[0] ^ 4], &me.sends(IPV4, &discover))),
        ("DHCP, own address, IP options", Drop, "P", me.sends(IPV4, &options(&[1; 4], &renew))),
        ("DHCP, own address, first fragment", Pass, "P", me.sends(IPV4, &fragment(0, true, &renew))),
        ("DHCP, own address, IP version 6", Drop, "P", with(14, &[0x65], &me.sends(IPV4, &renew))),
        ("DHCP, own address, 75 octets", Drop, "P", resized(75, &me.sends(IPV4, &renew))),
        ("DHCP, own address, 76 octets", Pass, "P", resized(76, &me.sends(IPV4, &renew))),
        ("DHCP, 75 octets", Drop, "P", resized(75, &me.sends(IPV4, &discover))),
        ("DHCP, 76 octets", Pass, "P", resized(76, &me.sends(IPV4, &discover))),
        ("DHCP, own address, from port 4000", Drop, "P", me.ipv4(host.ip, UDP, &udp(4000, 67, &dhcp(me.mac)))),
        ("DHCP, source MAC of the victim", Drop, "PL", victim.sends(IPV4, &discover)),
        ("DHCP with IP options", Drop, "P", me.sends(IPV4, &options(&[1; 4], &discover))),
        ("DHCP with a header of 16 octets", Drop, "P", with(14, &[0x44], &me.sends(IPV4, &discover))),
        ("DHCP with IP version 6", Drop, "P", with(14, &[0x65], &me.sends(IPV4, &discover))),
        ("DHCP, first fragment", Drop, "P", me.sends(IPV4, &fragment(0, true, &discover))),
        ("DHCP, later fragment", Drop, "P", me.sends(IPV4, &fragment(1, true, &discover))),
        ("DHCP, last fragment, 8 KB on", Drop, "P", me.sends(IPV4, &fragment(1024, false, &discover))),
        ("0.0.0.0 to the gateway, 68 to 67", Drop, "P", anonymous(host.ip, UDP, &udp(68, 67, &dhcp(me.mac)))),
        ("0.0.0.0, 69 to 67", Drop, "P", anonymous(EVERYWHERE, UDP, &udp(69, 67, &dhcp(me.mac)))),
        ("0.0.0.0, 68 to 69", Drop, "P", anonymous(EVERYWHERE, UDP, &udp(68, 69, &dhcp(me.mac)))),
        ("0.0.0.0, 67 to 68", Drop, "P", anonymous(EVERYWHERE, UDP, &udp(67, 68, &dhcp(me.mac)))),
        ("0.0.0.0, TCP 68 to 67", Drop, "P", anonymous(EVERYWHERE, TCP, &tcp(68, 67, &[]))),
        ("0.0.0.0, ICMP", Drop, "P", anonymous(EVERYWHERE, ICMP, &ping())),
        ("0.0.0.0, IGMP", Drop, "P", anonymous([224, 0, 0, 22], 2, &[0x22, 0, 0xdd, 0xff, 0, 0, 0, 0])),
        ("0.0.0.10 to 255.255.255.255, 68 to 67", Drop, "P", with(29, &[10], &me.sends(IPV4, &discover))),
        ("IPv4 of the victim, 68 to 67", Drop, "P", me.forges(victim.ip, EVERYWHERE, UDP, &udp(68, 67, &dhcp(me.mac)))),
    ])
}

pub fn udp_headers(cast: &Cast) -> Vec<Row> {
    let mut list = servers(cast);
    list.extend(cut_headers(cast));
    list
}

/// What a DHCP server says. A client looks at its own port only, so either port is enough to drop it.
fn servers(&Cast { me, host, .. }: &Cast) -> Vec<Row> {
    let packet = |from, to| ipv4(me.ip, host.ip, UDP, &udp(from, to, &[0; 16]));
    let sends = |packet: &[u8]| me.sends(IPV4, packet);
    let mut list = Vec::new();
    for (what, from, to) in
        [("UDP 67 to 68", 67, 68), ("UDP source port 67", 67, 4000), ("UDP destination port 68", 4000, 68)]
    {
        let at = |offset, more| sends(&fragment(offset, more, &packet(from, to)));
        let name = |rest: &str| format!("{what}{rest}");
        list.extend(rows([
            (name(""), Drop, "P", sends(&packet(from, to))),
            (name(", to the host alone"), Drop, "P", super::frames::to(host.mac, &sends(&packet(from, to)))),
            (name(", IP options"), Drop, "P", sends(&options(&[1; 4], &packet(from, to)))),
            (name(", 40 octets of options"), Drop, "P", sends(&options(&[1; 40], &packet(from, to)))),
            (name(", first fragment"), Drop, "P", at(0, true)),
            (name(", do not fragment"), Drop, "P", at(0x4000, false)),
            (name(", where a later fragment has data"), Pass, "P", at(1, true)),
            (name(", where the last fragment has data"), Pass, "P", at(1, false)),
        ]));
    }
    list.extend(rows([
        ("UDP 68 to 67, too short for DHCP", Drop, "P", sends(&packet(68, 67))),
        ("UDP 68 to 68", Drop, "P", sends(&packet(68, 68))),
        ("UDP source port 66", Pass, "P", sends(&packet(66, 4000))),
        ("UDP source port 323: 67 in its low octet", Pass, "P", sends(&packet(0x0143, 4000))),
        ("UDP destination port 69", Pass, "P", sends(&packet(4000, 69))),
        ("UDP destination port 324: 68 in its low octet", Pass, "P", sends(&packet(4000, 0x0144))),
        ("UDP, 67 and 68 among the options", Pass, "P", sends(&options(&[0, 67, 0, 68], &packet(4000, 53)))),
        ("UDP, 67 and 68 behind the ports", Pass, "P", with(38, &[0, 67, 0, 68], &sends(&packet(4000, 53)))),
        ("TCP destination port 68", Pass, "P", me.ipv4(host.ip, TCP, &tcp(4000, 68, &[]))),
    ]));
    list
}

fn cut_headers(&Cast { me, host, .. }: &Cast) -> Vec<Row> {
    let packet = ipv4(me.ip, host.ip, UDP, &udp(4000, 53, &[0; 16]));
    let with_options = me.sends(IPV4, &options(&[1; 4], &packet));
    let whole = me.sends(IPV4, &packet);
    rows([
        ("UDP, its header cut after 7 octets", Drop, "P", resized(41, &whole)),
        ("UDP, its header cut, IP options", Drop, "P", resized(45, &with_options)),
        ("UDP, whole behind IP options, no data", Pass, "P", resized(46, &with_options)),
        ("UDP, an IP header longer than the frame", Drop, "P", with(14, &[0x4f], &resized(60, &whole))),
        ("UDP, the same in the shortest frame", Drop, "P", with(14, &[0x4f], &resized(34, &whole))),
        ("UDP, an IP header of no length", Pass, "P", with(14, &[0x40], &whole)),
    ])
}

/// 60 KB of TCP in one frame, for the host to cut into segments, as virtio-net hands it over.
pub fn segments(&Cast { me, victim, host, .. }: &Cast) -> Vec<Row> {
    // The checksum is to be filled in; TCPv4; 54 octets of headers, 1460 a segment; where the sum begins and stands.
    let offload = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0];
    let load = tcp(40000, 80, &vec![7; 60_000]);
    let mut list = rows([
        ("60 KB of TCP, own", Pass, "P", me.ipv4(host.ip, TCP, &load)),
        ("60 KB of TCP of the victim", Drop, "P", me.forges(victim.ip, host.ip, TCP, &load)),
        ("60 KB of TCP, victim's MAC", Drop, "PL", victim.sends(IPV4, &ipv4(me.ip, host.ip, TCP, &load))),
    ]);
    list.iter_mut().for_each(|row| row.offload = offload);
    list
}
