//! The program with one instruction changed: each way to get one wrong that a person, or a bit, could find.

use tap32::guest::guard::Instruction;

use super::{DROP, PASS};

/// What the rules for DHCP load.
const ASKS: [(u16, u32); 4] = [(0x30, 14), (0x20, 34), (0x20, 70), (0x28, 74)];

pub struct Mutant {
    pub at: usize,
    pub old: Instruction,
    pub new: Instruction,
    pub program: Vec<Instruction>,
}

impl Mutant {
    /// Why no frame can tell the mutant from the program, if that is so.
    pub fn means_the_same(&self) -> Option<&'static str> {
        let (old, new) = (self.old, self.new);
        let recoded = new == Instruction { code: new.code, ..old };
        match (old.code, new.code) {
            (0x28, 0x20 | 0x30) if old.k > i32::MAX as u32 => Some("the load of the VLAN tag's presence has no size"),
            // A guest with an address comes to the rules for DHCP with its IP header's length in X.
            _ if ASKS.contains(&(old.code, old.k)) => None,
            (0x20 | 0x28 | 0x30, _) if recoded && new.code == old.code + 0x20 && old.k < i32::MAX as u32 => {
                Some("X is 0: the loads behind the one that sets it count from it already")
            }
            (0x15, 0x1d) if recoded && old.k == 0 => Some("X is 0, as k is"),
            (0x15, 0x35) if recoded && old.k == u32::MAX => Some("nothing is more than k"),
            (0x45, 0x45) if old.k ^ new.k > 0xffff => Some("two octets were loaded, and have no such bit"),
            _ => None,
        }
    }
}

pub fn mutants(program: &[Instruction]) -> Vec<Mutant> {
    let mut all = Vec::new();
    for (at, old) in program.iter().enumerate() {
        for new in changes(*old) {
            let mut program = program.to_vec();
            program[at] = new;
            all.push(Mutant { at, old: *old, new, program });
        }
    }
    all
}

fn changes(old: Instruction) -> Vec<Instruction> {
    let Instruction { code, jt, jf, k } = old;
    let mut codes = Vec::new();
    let mut constants = vec![k.wrapping_add(1), k.wrapping_sub(1)];
    let mut jumps = Vec::new();
    match code {
        // Loads: one octet further or nearer, of another size, from X on or not.
        0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => codes.extend([0x20, 0x28, 0x30, 0x40, 0x48, 0x50]),
        0xb1 => codes.extend([0x30, 0x01]),
        0x80 => {
            codes.extend([0x00, 0x81, 0x87]);
            // The kernel does not look at it.
            constants.clear();
        }
        // Arithmetic: subtract, add, and with X.
        0x04 | 0x14 | 0x1c => codes.extend([0x04, 0x14, 0x1c, 0x54]),
        0x06 => {
            codes.push(0x16);
            constants = vec![PASS, DROP, 0];
        }
        // Tests: each other test, each bit of the constant, each jump longer, shorter, not taken, the other way round.
        _ => {
            codes.extend([0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d]);
            constants.extend((0..32).map(|bit| k ^ 1 << bit));
            jumps.extend([(jf, jt), (0, 0), (jt + 1, jf), (jt, jf + 1)]);
            jumps.extend(jt.checked_sub(1).map(|less| (less, jf)));
            jumps.extend(jf.checked_sub(1).map(|less| (jt, less)));
        }
    }
    if code == 0x3d {
        // It compares with X.
        constants.clear();
    }
    // `ja 0` does nothing: the instruction is left out.
    let left_out = Instruction { code: 0x05, jt: 0, jf: 0, k: 0 };
    let codes = codes.into_iter().map(|code| Instruction { code, ..old });
    let constants = constants.into_iter().map(|k| Instruction { k, ..old });
    let jumps = jumps.into_iter().map(|(jt, jf)| Instruction { jt, jf, ..old });
    let mut all: Vec<_> = codes.chain(constants).chain(jumps).chain([left_out]).filter(|new| *new != old).collect();
    all.sort_unstable_by_key(|i| (i.code, i.jt, i.jf, i.k));
    all.dedup();
    all
}
