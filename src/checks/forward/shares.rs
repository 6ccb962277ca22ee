//! How many packets of a connection meet a condition on their TCP flags, ports or place of a fragment. `nft` and
//! `iptables` both read such conditions.

use super::model::Share;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// The flags of the segments that TCP sends (RFC 9293); a chain that drops others is meant against scans.
const SENT: [u8; 7] = [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK];

/// The bit of a flag's name in the TCP header; `None` for a word that names none.
pub fn tcp_flag(name: &str) -> Option<u8> {
    let names = ["fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"];
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "none" => Some(0),
        "all" => Some(0x3f),
        "ece" => Some(1 << 6),
        _ => names.iter().position(|one| *one == name).map(|bit| 1 << bit),
    }
}

/// Of TCP segments: those whose flags under the mask are `value`.
pub fn tcp_flags(mask: u8, value: u8) -> Share {
    match SENT.iter().filter(|sent| **sent & mask == value).count() {
        0 => Share::None,
        count if count == SENT.len() => Share::All,
        _ => Share::Unknown,
    }
}

/// Of packets: those with a port of this range, ends included. A service has few ports; more than the privileged ones
/// are also those of connections that guests make.
pub fn ports(first: u64, last: u64) -> Share {
    match last.saturating_sub(first) {
        _ if first <= 1 && last >= 65535 => Share::All,
        0..=1024 => Share::Few,
        _ => Share::Unknown,
    }
}

/// Of packets: those of which the bits under the mask of IPv4's fragment field are zero. Few packets are fragments; most
/// have the bit that forbids to make some (0x4000).
pub fn whole(mask: u64) -> Share {
    if mask & 0x4000 == 0 { Share::Most } else { Share::Unknown }
}

/// Of forwarded packets: those whose address is of this kind (rtm_type). The host forwards unicast alone.
pub fn address_type(name: &str) -> Share {
    if name.eq_ignore_ascii_case("unicast") { Share::All } else { Share::None }
}
