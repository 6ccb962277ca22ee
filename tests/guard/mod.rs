//! What the tests of the guard share: frames, the table of frames with their verdicts, an interpreter of classic BPF,
//! and an independent judge.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod bpf;
pub mod frames;
pub mod judge;
pub mod mutants;
pub mod random;
pub mod table;
pub mod table_ipv4;

use bpf::Skb;
use tap32::guest::guard::{Instruction, Program};

pub const PASS: u32 = u32::MAX; // TC_ACT_UNSPEC
pub const DROP: u32 = 2; // TC_ACT_SHOT

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
}

/// What becomes of a frame that the guest writes, by the interpreter. An error for any answer that the guard never
/// gives: with 0, which a load beyond the frame's end returns, the frame would pass.
pub fn verdict(program: &[Instruction], wire: &[u8]) -> Result<Verdict, String> {
    // What skb_vlan_untag cannot read, it frees.
    let Some(skb) = Skb::from_wire(wire) else { return Ok(Verdict::Drop) };
    match bpf::run(program, &skb)? {
        PASS => Ok(Verdict::Pass),
        DROP => Ok(Verdict::Drop),
        other => Err(format!("the program returned {other}")),
    }
}

pub fn program_of(guest: frames::Station) -> Program {
    tap32::guest::guard::program(guest.guest_mac())
}

pub fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
