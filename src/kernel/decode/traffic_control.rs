//! Filters and qdiscs (linux/rtnetlink.h, pkt_cls.h).

use super::octets::{attribute, attributes, number, text};
use crate::guest::guard::{Guard, HANDLE, PREFERENCE};

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_STATS: u16 = 3;
const TCA_CHAIN: u16 = 11;
/// In TCA_OPTIONS of a filter of the kind `bpf`.
const TCA_BPF_OPS: u16 = 5;

/// The end of a clsact where frames go out. It has preferences and handles of its own.
const EGRESS: u32 = 0xffff_fff3;

/// Of a filter or qdisc, as an answer or an event has it.
#[derive(Debug, Clone)]
pub struct TrafficControl {
    /// Index of its interface.
    pub index: u32,
    /// `bpf`, `clsact`.
    pub kind: String,
    pub handle: u32,
    /// Whether the filter has the guard's preference, in the chain where each frame begins.
    pub is_first: bool,
    /// The program at the guard's place, if that is what it is.
    pub guard: Option<Guard>,
    /// Frames that the programs of a clsact dropped.
    pub drops: u32,
}

/// struct tcmsg.
pub fn decode(bytes: &[u8]) -> Option<TrafficControl> {
    const HEADER: usize = 20;
    let header = bytes.get(..HEADER)?;
    let [index, handle, parent, info] = [4, 8, 12, 16].map(|at| number(&header[at..]).unwrap_or_default());
    let is_first = info >> 16 == u32::from(PREFERENCE);
    let mut found = TrafficControl { index, kind: String::new(), handle, is_first, guard: None, drops: 0 };
    let mut options: &[u8] = &[];
    for (kind, value) in attributes(&bytes[HEADER..]) {
        match kind {
            TCA_KIND => found.kind = text(value),
            TCA_OPTIONS => options = value,
            TCA_CHAIN => found.is_first &= number(value) == Some(0),
            // struct tc_stats: bytes (64 bits), packets, drops.
            TCA_STATS => found.drops = value.get(12..).and_then(number).unwrap_or_default(),
            _ => {}
        }
    }
    // Not `== INGRESS`: of all filters of an `ingress` the kernel tells the parent that the last was added with
    // (block->classid of tc_new_tfilter), and libvirt adds with ffff:0.
    if found.kind == "bpf" && found.is_first && handle == HANDLE && parent != EGRESS {
        found.guard = attribute(options, TCA_BPF_OPS).map(Guard::read);
    }
    Some(found)
}
