//! Classic BPF as the kernel runs and checks it (bpf_check_classic and bpf_convert_filter of net/core/filter.c), for a
//! frame at a tap's ingress (net/sched/cls_bpf.c). Of the ancillary loads only the VLAN tag's presence.

use tap32::guest::guard::Instruction;

const MEMORY: usize = 16;
const SKF_AD_OFF: u32 = 0xffff_f000;
const VLAN_TAG_PRESENT: u32 = SKF_AD_OFF + 48;
/// Of the ancillary loads that the kernel knows, the last (SKF_AD_VLAN_TPID; none of them is at an odd number).
const LAST_ANCILLARY: u32 = SKF_AD_OFF + 60;

/// A frame as the filter sees it: from its MAC header on, with the outer VLAN tag taken out.
pub struct Skb {
    pub data: Vec<u8>,
    pub tagged: bool,
}

impl Skb {
    /// `None` if the kernel drops the frame before any filter (skb_vlan_untag reads two octets behind the tag).
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        match wire.get(12..14) {
            Some([0x81, 0x00] | [0x88, 0xa8]) if wire.len() < 20 => None,
            Some([0x81, 0x00] | [0x88, 0xa8]) => Some(Self { data: [&wire[..12], &wire[16..]].concat(), tagged: true }),
            _ => Some(Self { data: wire.to_vec(), tagged: false }),
        }
    }

    /// Up to four octets in network order; `None` beyond the end.
    fn load(&self, at: u32, size: usize) -> Option<u32> {
        // Offsets are signed: the negative ones are ancillary, or relative to another header, which nothing here uses.
        let at = usize::try_from(at as i32).ok()?;
        Some(self.data.get(at..at + size)?.iter().fold(0, |value, octet| value << 8 | u32::from(*octet)))
    }
}

/// Runs a checked program; the error names what the kernel could do and this cannot.
pub fn run(program: &[Instruction], skb: &Skb) -> Result<u32, String> {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; MEMORY]);
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let operand = if code & 0x08 != 0 { x } else { k };
        match code {
            0x20 | 0x28 | 0x30 if k == VLAN_TAG_PRESENT => a = skb.tagged.into(),
            0x20 | 0x28 | 0x30 if k >= SKF_AD_OFF => return Err(format!("ancillary load {k:#x}")),
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 => {
                let base = if code & 0x40 != 0 { x } else { 0 };
                let Some(value) = skb.load(base.wrapping_add(k), size(code)) else { return Ok(0) };
                a = value;
            }
            0xb1 => {
                let Some(value) = skb.load(k, 1) else { return Ok(0) };
                x = (value & 15) * 4;
            }
            0x80 => a = skb.data.len() as u32,
            0x81 => x = skb.data.len() as u32,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = memory[k as usize],
            0x61 => x = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x03 => memory[k as usize] = x,
            0x07 => x = a,
            0x87 => a = x,
            0x84 => a = a.wrapping_neg(),
            0x04 | 0x0c => a = a.wrapping_add(operand),
            0x14 | 0x1c => a = a.wrapping_sub(operand),
            0x24 | 0x2c => a = a.wrapping_mul(operand),
            // Division by an X of 0 ends the program with 0.
            0x34 | 0x3c | 0x94 | 0x9c if operand == 0 => return Ok(0),
            0x34 | 0x3c => a /= operand,
            0x94 | 0x9c => a %= operand,
            0x44 | 0x4c => a |= operand,
            0x54 | 0x5c => a &= operand,
            0x64 | 0x6c => a = a.wrapping_shl(operand),
            0x74 | 0x7c => a = a.wrapping_shr(operand),
            0xa4 | 0xac => a ^= operand,
            0x05 => at += k as usize,
            0x15 | 0x1d => at += skip(a == operand, jt, jf),
            0x25 | 0x2d => at += skip(a > operand, jt, jf),
            0x35 | 0x3d => at += skip(a >= operand, jt, jf),
            0x45 | 0x4d => at += skip(a & operand != 0, jt, jf),
            0x06 => return Ok(k),
            0x16 => return Ok(a),
            _ => return Err(format!("code {code:#x}")),
        }
    }
}

fn size(code: u16) -> usize {
    match code & 0x18 {
        0x00 => 4,
        0x08 => 2,
        _ => 1,
    }
}

fn skip(holds: bool, jt: u8, jf: u8) -> usize {
    usize::from(if holds { jt } else { jf })
}

/// Whether the kernel would take the program, as bpf_check_classic and check_load_and_stores decide it.
pub fn check(program: &[Instruction]) -> Result<(), String> {
    let count = program.len();
    if !(1..=4096).contains(&count) {
        return Err(format!("{count} instructions"));
    }
    for (at, i) in program.iter().enumerate() {
        let within = |distance: u64| at as u64 + 1 + distance < count as u64;
        let valid = match i.code {
            0x20 | 0x28 | 0x30 => i.k < SKF_AD_OFF || (i.k <= LAST_ANCILLARY && i.k.is_multiple_of(4)),
            0x40 | 0x48 | 0x50 | 0xb1 | 0x80 | 0x81 | 0x00 | 0x01 | 0x06 | 0x16 | 0x07 | 0x87 | 0x84 => true,
            0x60 | 0x61 | 0x02 | 0x03 => (i.k as usize) < MEMORY,
            0x34 | 0x94 => i.k != 0,
            0x64 | 0x74 => i.k < 32,
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x9c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c | 0x7c | 0xa4
            | 0xac => true,
            0x05 => within(i.k.into()),
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => within(i.jt.into()) && within(i.jf.into()),
            _ => false,
        };
        if !valid {
            return Err(format!("instruction {at}: {i:?}"));
        }
    }
    if !matches!(program[count - 1].code, 0x06 | 0x16) {
        return Err("the last instruction is not a return".into());
    }
    stores_before_loads(program)
}

/// No path may read a memory cell that it has not written.
fn stores_before_loads(program: &[Instruction]) -> Result<(), String> {
    let mut written = vec![u16::MAX; program.len() + 1];
    let mut valid = 0;
    for (at, i) in program.iter().enumerate() {
        valid &= written[at];
        match i.code {
            0x02 | 0x03 => valid |= 1 << i.k,
            0x60 | 0x61 if valid & 1 << i.k == 0 => return Err(format!("instruction {at} reads memory first")),
            0x05 => {
                written[at + 1 + i.k as usize] &= valid;
                valid = u16::MAX;
            }
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                written[at + 1 + usize::from(i.jt)] &= valid;
                written[at + 1 + usize::from(i.jf)] &= valid;
                valid = u16::MAX;
            }
            _ => (),
        }
    }
    Ok(())
}
