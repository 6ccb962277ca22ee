//! A second opinion on a frame, written from the rules and not from the program: a plain parser, a question at a time.
//! Says of a frame, as the guest writes it, whether it is the guest's own.

use super::frames::{ARP, IPV4, Ip, RARP, Station};

pub fn is_own(wire: &[u8], guest: Station) -> bool {
    if wire.len() < 34 || wire[6..12] != guest.mac {
        return false;
    }
    let payload = &wire[14..];
    match u16::from_be_bytes([wire[12], wire[13]]) {
        IPV4 => own_ipv4(payload, guest).unwrap_or(false),
        ARP => own_arp(payload, guest).unwrap_or(false),
        RARP => true,
        // VLAN tags of all kinds, 802.3 lengths, IPv6 and the rest.
        _ => false,
    }
}

/// `None` if the packet ends before what the rules must know of it.
fn own_ipv4(packet: &[u8], guest: Station) -> Option<bool> {
    let source: Ip = packet.get(12..16)?.try_into().ok()?;
    let is_udp = *packet.get(9)? == 17;
    let (more, offset) = (packet[6] & 0x20 != 0, u16::from_be_bytes([packet[6] & 0x1f, packet[7]]));
    if source == guest.ip {
        if !is_udp || offset > 0 {
            return Some(true);
        }
        let (from, to) = ports(packet)?;
        return Some(from != 67 && to != 68 && (to != 67 || is_of_client(packet, guest)?));
    }
    let asks_for_an_address = source == [0; 4]
        && packet.get(16..20)? == [255; 4]
        && is_udp
        && !more
        && offset == 0
        && is_of_client(packet, guest)?;
    Some(asks_for_an_address)
}

/// Whether a DHCP client says it to a server, of itself. None puts options into its IP header.
fn is_of_client(packet: &[u8], guest: Station) -> Option<bool> {
    let bootp = packet.get(28..28 + 34)?;
    Some(packet[0] == 0x45 && ports(packet)? == (68, 67) && bootp[28..] == guest.mac)
}

/// The ports of a UDP header that is there as a whole.
fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let header = usize::from(packet[0] % 16) * 4;
    let [a, b, c, d, ..] = *packet.get(header..header + 8)? else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn own_arp(packet: &[u8], guest: Station) -> Option<bool> {
    let (head, addresses) = packet.get(..28)?.split_at(8);
    let (mac, ip) = addresses[..10].split_at(6);
    let is_for_ipv4 = head[..6] == [0, 1, 8, 0, 6, 4];
    let is_request = head[6..] == [0, 1];
    Some(is_for_ipv4 && mac == guest.mac && (ip == guest.ip || (ip == [0; 4] && is_request)))
}
