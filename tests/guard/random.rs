//! Random frames: those of the table, changed in a few places, with the values that matter at the places that matter.

use super::frames::{BROADCAST, EVERYWHERE, Mac, NOWHERE, Station, tagged};
use super::table::{Cast, table};

/// SplitMix64: small, seeded, the same everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A guest that any tap could have, and its neighbour.
    pub fn cast(&mut self) -> Cast {
        let prefix = self.one_of(&["02:42", "06:00", "8e:f1", "00:16", "fc:ff"]);
        let ip = (self.next() as u32).max(1);
        let other = ip ^ 1 << self.below(32);
        let station = |ip: u32| Station::guest(prefix, ip.to_be_bytes());
        Cast::of(station(ip), station(other.max(1)))
    }
}

/// The frames to start from, for one guest.
pub struct Seeds {
    frames: Vec<Vec<u8>>,
    macs: Vec<Mac>,
    ips: Vec<[u8; 4]>,
}

/// Longer frames of the table would only slow the fuzzer down.
const LONGEST: usize = 400;
const ETHERTYPES: &[[u8; 2]] = &[[8, 0], [8, 6], [0x80, 0x35], [0x86, 0xdd], [0x81, 0], [0x88, 0xa8], [0, 46], [8, 1]];
/// Octets that mean something: header lengths, protocols, ports, fragments, operations.
const OCTETS: &[u8] =
    &[0, 1, 2, 3, 4, 6, 8, 17, 0x1f, 0x20, 0x3f, 0x40, 0x44, 0x45, 0x46, 0x4f, 66, 67, 68, 69, 0x80, 255];

impl Seeds {
    pub fn of(cast: &Cast) -> Self {
        let frames = table(cast).into_iter().map(|row| row.frame).filter(|frame| frame.len() <= LONGEST).collect();
        let macs = vec![cast.me.mac, cast.me.mac, cast.victim.mac, cast.host.mac, [0; 6], BROADCAST];
        let ips = vec![cast.me.ip, cast.me.ip, cast.victim.ip, cast.host.ip, NOWHERE, NOWHERE, EVERYWHERE];
        Self { frames, macs, ips }
    }

    /// One frame as a guest could write it: 14 octets or more.
    pub fn frame(&self, random: &mut Random) -> Vec<u8> {
        let mut frame = match random.below(8) {
            0 => (0..14 + random.below(80)).map(|_| random.next() as u8).collect(),
            _ => self.frames[random.below(self.frames.len())].clone(),
        };
        for _ in 0..random.below(5) {
            self.change(&mut frame, random);
        }
        frame
    }

    fn change(&self, frame: &mut Vec<u8>, random: &mut Random) {
        let end = frame.len().min(80);
        match random.below(12) {
            0 => frame[random.below(end)] = random.next() as u8,
            1 => frame[random.below(end)] = random.one_of(OCTETS),
            2 | 3 => frame[random.below(end)] ^= 1 << random.below(8),
            4 => put(frame, 6, &random.one_of(&self.macs)),
            5 => put(frame, 22, &random.one_of(&self.macs)),
            6 => put(frame, 12, &random.one_of(ETHERTYPES)),
            7 => put(frame, 26, &random.one_of(&self.ips)),
            8 => put(frame, 28, &random.one_of(&self.ips)),
            9 => put(frame, 30, &random.one_of(&self.ips)),
            10 => frame.resize(14 + random.below(60), random.next() as u8),
            _ if random.below(4) == 0 => *frame = tagged(random.one_of(&[0x8100, 0x88a8]), random.next() as u16, frame),
            // The fragment's flags and offset, or the first octet of the IP header.
            _ => put(frame, random.one_of(&[14, 20, 21]), &[1 << random.below(8)]),
        }
    }
}

/// Writes as much as there is room for.
fn put(frame: &mut [u8], at: usize, octets: &[u8]) {
    for (place, octet) in frame.iter_mut().skip(at).zip(octets) {
        *place = *octet;
    }
}
