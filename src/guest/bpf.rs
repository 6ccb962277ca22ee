//! Classic BPF as the guard needs it: what a rule can look at, where it can lead, and how rules become a program. The rules
//! are in `guard`.

use std::fmt;

// What can stand before a test (linux/bpf_common.h). A is the accumulator, X the index.
pub(super) const WORD: u16 = 0x20; // A = four octets at k
pub(super) const HALF: u16 = 0x28; // A = two octets at k
pub(super) const BYTE: u16 = 0x30; // A = one octet at k
pub(super) const HALF_AT_X: u16 = 0x48; // A = two octets at X + k
pub(super) const FRAME_LENGTH: u16 = 0x80; // A = the frame's length
pub(super) const IP_HEADER_LENGTH_TO_X: u16 = 0xb1; // X = 4 * (octet at k & 15)
pub(super) const SUBTRACT: u16 = 0x14; // A = A - k

/// What a rule looks at: the instructions, as (code, k), that put it into the accumulator.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Field(pub &'static [(u16, u32)]);

/// A field, and the jump, as (code, k), that compares the accumulator.
#[derive(Clone, Copy)]
pub(super) struct Test(Field, u16, u32);

impl Field {
    pub fn is(self, k: u32) -> Test {
        Test(self, 0x15, k) // BPF_JEQ: A == k
    }

    pub fn at_least(self, k: u32) -> Test {
        Test(self, 0x35, k) // BPF_JGE: A >= k
    }

    pub fn at_least_x(self) -> Test {
        Test(self, 0x3d, 0) // BPF_JGE with BPF_X: A >= X
    }

    pub fn has_any(self, k: u32) -> Test {
        Test(self, 0x45, k) // BPF_JSET: A & k != 0
    }
}

/// Where a rule can lead: always further down.
#[derive(Clone, Copy)]
pub(super) enum Label {
    Ipv4,
    WithoutAddress,
    Asks,
    Arp,
    Pass,
    Drop,
}

#[derive(Clone, Copy)]
pub(super) enum Line {
    Label(Label),
    /// Goes to the label if the test's outcome is the one given here, else on to the next line.
    Rule(Test, bool, Label),
    End(u32),
}

pub(super) fn when(test: Test, to: Label) -> Line {
    Line::Rule(test, true, to)
}

pub(super) fn unless(test: Test, to: Label) -> Line {
    Line::Rule(test, false, to)
}

/// Lines to instructions. A field is loaded once for the tests of it that follow each other.
pub(super) fn assemble(lines: &[Line]) -> Program {
    let instruction = |&(code, k): &(u16, u32)| Instruction { code, jt: 0, jf: 0, k };
    let (mut program, mut jumps) = (Vec::with_capacity(2 * lines.len()), Vec::with_capacity(lines.len()));
    let (mut places, mut loaded) = ([0; Label::Drop as usize + 1], None);
    for line in lines {
        match *line {
            Line::Label(label) => (places[label as usize], loaded) = (program.len(), None),
            Line::Rule(Test(field, code, k), outcome, to) => {
                if loaded.replace(field) != Some(field) {
                    program.extend(field.0.iter().map(instruction));
                }
                jumps.push((program.len(), outcome, to));
                program.push(instruction(&(code, k)));
            }
            Line::End(verdict) => program.push(instruction(&(0x06, verdict))), // BPF_RET
        }
    }
    for (at, outcome, to) in jumps {
        // Counted from the next instruction. The whole program is far shorter than the 255 that fit.
        let distance = (places[to as usize] - at - 1) as u8;
        *(if outcome { &mut program[at].jt } else { &mut program[at].jf }) = distance;
    }
    Program(program)
}

/// One instruction: struct sock_filter of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What it does (linux/bpf_common.h).
    pub code: u16,
    /// How many instructions a jump skips when its test is true, and when it is false.
    pub jt: u8,
    /// The same where the comparison fails.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

impl Instruction {
    /// A struct sock_filter.
    pub fn from_octets(octets: &[u8; 8]) -> Self {
        let [a, b, jt, jf, k @ ..] = *octets;
        Self { code: u16::from_ne_bytes([a, b]), jt, jf, k: u32::from_ne_bytes(k) }
    }
}

/// A whole program. `Display` is what `tc filter add .. bpf da bytecode '..'` takes: `N,code jt jf k,..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program(pub Vec<Instruction>);

impl Program {
    /// The inverse of `to_octets`.
    pub fn from_octets(octets: &[u8]) -> Self {
        Self(octets.as_chunks().0.iter().map(Instruction::from_octets).collect())
    }

    /// An array of struct sock_filter, 8 octets each in the host's byte order, as TCA_BPF_OPS holds it.
    pub fn to_octets(&self) -> Vec<u8> {
        let octets = |i: &Instruction| [&i.code.to_ne_bytes()[..], &[i.jt, i.jf], &i.k.to_ne_bytes()].concat();
        self.0.iter().flat_map(octets).collect()
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.0.len())?;
        self.0.iter().try_for_each(|i| write!(f, ",{} {} {} {}", i.code, i.jt, i.jf, i.k))
    }
}
