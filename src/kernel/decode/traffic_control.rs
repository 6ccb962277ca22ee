//! Filters and qdiscs (linux/rtnetlink.h, pkt_cls.h).

use super::octets::{attribute, number, text};
use crate::guest::guard::{HANDLE, PREFERENCE, Program};

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
    /// The program, if it is at the guard's place.
    pub program: Option<Program>,
    /// Frames that the programs of a clsact dropped.
    pub drops: u32,
}

/// struct tcmsg.
pub fn decode(bytes: &[u8]) -> Option<TrafficControl> {
    const HEADER: usize = 20;
    let header = bytes.get(..HEADER)?;
    let attributes = &bytes[HEADER..];
    let chain = attribute(attributes, TCA_CHAIN).and_then(number).unwrap_or_default();
    let is_first = number(&header[16..20])? >> 16 == u32::from(PREFERENCE) && chain == 0;
    // Not `== INGRESS`: of all filters of an `ingress` the kernel tells the parent that the last was added with
    // (block->classid of tc_new_tfilter), and libvirt adds with ffff:0.
    let at_place = is_first && number(&header[8..12])? == HANDLE && number(&header[12..16])? != EGRESS;
    let options = attribute(attributes, TCA_OPTIONS).filter(|_| at_place).unwrap_or_default();
    Some(TrafficControl {
        index: number(&header[4..8])?,
        handle: number(&header[8..12])?,
        is_first,
        kind: attribute(attributes, TCA_KIND).map(text).unwrap_or_default(),
        program: attribute(options, TCA_BPF_OPS).map(Program::from_octets),
        // struct tc_stats: bytes (64 bits), packets, drops.
        drops: attribute(attributes, TCA_STATS).and_then(|stats| number(stats.get(12..)?)).unwrap_or_default(),
    })
}
