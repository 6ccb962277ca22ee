//! The guard's program, run by an interpreter: every frame of the table, a million random ones against an independent
//! judge, and every mutant of the program, each of which one of the two must catch.

mod guard;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use guard::judge::is_own;
use guard::mutants::mutants;
use guard::random::{Random, Seeds};
use guard::table::{Cast, Row, table};
use guard::{Verdict, bpf, hex, program_of, verdict};
use socket2::{Domain, SockFilter, Socket, Type};
use tap32::addr::{GuestMac, MacPrefix};
use tap32::guest::guard::{Guard, Instruction, Program, program};

/// Frames of a guest before the next guest's turn.
const FRAMES_OF_A_GUEST: usize = 5_000;

fn usual() -> Vec<Instruction> {
    program_of(Cast::usual().me).0
}

#[test]
fn the_table() {
    for cast in [Cast::usual(), Cast::unusual()] {
        let program = program_of(cast.me).0;
        let said = |row: &Row| (row.name.clone(), verdict(&program, &row.frame));
        let wrong: Vec<_> = table(&cast).iter().filter(|row| said(row).1 != Ok(row.must)).map(said).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn the_judge_knows_the_table() {
    for cast in [Cast::usual(), Cast::unusual()] {
        let wrong: Vec<_> = table(&cast)
            .into_iter()
            .filter(|row| is_own(&row.frame, cast.me) != (row.must == Verdict::Pass))
            .map(|row| row.name)
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn the_kernel_takes_the_program_and_this_is_how_people_type_it() {
    let program = program_of(Cast::usual().me);
    assert_eq!(bpf::check(&program.0), Ok(()));
    let typed = program.to_string();
    println!("{typed}");
    assert!(typed.starts_with(&format!("{},40 0 0 4294963248,21 0 ", program.0.len())), "{typed}");
    let numbers = |i: &str| i.split(' ').map(|number| number.parse().unwrap()).collect();
    let read: Vec<Vec<u32>> = typed.split(',').skip(1).map(numbers).collect();
    let meant: Vec<_> = program.0.iter().map(|i| vec![i.code.into(), i.jt.into(), i.jf.into(), i.k]).collect();
    assert_eq!(read, meant);

    let octets = program.to_octets();
    let instruction = |o: &[u8]| Instruction {
        code: u16::from_ne_bytes([o[0], o[1]]),
        jt: o[2],
        jf: o[3],
        k: u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
    };
    assert_eq!(octets.chunks(8).map(instruction).collect::<Vec<_>>(), program.0);
}

/// The kernel's own bpf_check_classic judges the checker, by programs for a socket, which anybody may attach.
#[test]
fn the_checker_takes_what_the_kernel_takes() {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    let kernel_takes = |program: &[Instruction]| {
        let filter: Vec<_> = program.iter().map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k)).collect();
        socket.attach_filter(&filter).is_ok()
    };
    let program = usual();
    let mut programs: Vec<_> = mutants(&program).into_iter().map(|mutant| mutant.program).collect();
    programs.extend((0..program.len()).map(|length| program[..length].to_vec()));
    // Every code there could be, each with a harmless and a harmful constant.
    for (code, k) in (0..256).flat_map(|code| [0, 1, 15, 16, 31, 32, 0xffff_f000, 0xffff_f02e].map(|k| (code, k))) {
        let end = Instruction { code: 0x06, jt: 0, jf: 0, k: 0 };
        programs.push(vec![Instruction { code, jt: 0, jf: 0, k }, end, end]);
        programs.push(vec![
            Instruction { code: 0x02, jt: 0, jf: 0, k: 1 },
            Instruction { code, jt: 0, jf: 1, k },
            end,
            end,
        ]);
    }
    assert!(kernel_takes(&program));
    for program in programs {
        assert_eq!(bpf::check(&program).is_ok(), kernel_takes(&program), "{program:?}");
    }
}

/// `GUARD_FRAMES` and `GUARD_SEED` change how many, and repeat a run.
#[test]
fn whatever_passes_is_the_guests_own() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let (seed, count) = (number("GUARD_SEED").unwrap_or(now), number("GUARD_FRAMES").unwrap_or(1_000_000));
    println!("GUARD_SEED={seed} GUARD_FRAMES={count}");
    let mut random = Random(seed);
    let mut passed: BTreeMap<[u8; 2], u64> = BTreeMap::new();
    let mut left = count as usize;
    while left > 0 {
        let cast = random.cast();
        let (program, seeds) = (program_of(cast.me).0, Seeds::of(&cast));
        for _ in 0..left.min(FRAMES_OF_A_GUEST) {
            let frame = seeds.frame(&mut random);
            let must = if is_own(&frame, cast.me) { Verdict::Pass } else { Verdict::Drop };
            let said = verdict(&program, &frame);
            assert_eq!(said, Ok(must), "GUARD_SEED={seed}: {:?} sends {}", cast.me, hex(&frame));
            if must == Verdict::Pass {
                *passed.entry([frame[12], frame[13]]).or_default() += 1;
            }
        }
        left = left.saturating_sub(FRAMES_OF_A_GUEST);
    }
    // A fuzzer that nothing passes would find nothing.
    println!("passed: {passed:02x?} (hexadecimal)");
    for kind in [[8, 0], [8, 6], [0x80, 0x35]] {
        assert!(passed.get(&kind).is_some_and(|passed| *passed > count / 500), "{kind:02x?}: {passed:?}");
    }
}

#[test]
fn the_table_or_the_fuzzer_catches_each_mutant() {
    let cast = Cast::usual();
    let rows: Vec<_> = table(&cast).into_iter().map(|row| (row.must, row.frame)).collect();
    let (seeds, mut random) = (Seeds::of(&cast), Random(1));
    let judged = |frame: Vec<u8>| (if is_own(&frame, cast.me) { Verdict::Pass } else { Verdict::Drop }, frame);
    let frames: Vec<_> = (0..100_000).map(|_| judged(seeds.frame(&mut random))).collect();

    let mut valid = mutants(&usual());
    let all = valid.len();
    valid.retain(|mutant| bpf::check(&mutant.program).is_ok());
    let (mut by_table, mut by_fuzzer, mut same, mut missed) = (0, 0, BTreeMap::new(), Vec::new());
    for mutant in &valid {
        let caught =
            |list: &[(Verdict, Vec<u8>)]| list.iter().any(|(must, frame)| verdict(&mutant.program, frame) != Ok(*must));
        let (table, fuzzer) = (caught(&rows), caught(&frames));
        by_table += usize::from(table);
        by_fuzzer += usize::from(fuzzer);
        match mutant.means_the_same() {
            Some(why) => {
                *same.entry(why).or_insert(0) += 1;
                assert!(!table && !fuzzer, "{}: {:?} was caught, though {why}", mutant.at, mutant.new);
            }
            None if !table && !fuzzer => missed.push((mutant.at, mutant.old, mutant.new)),
            None => (),
        }
    }
    println!(
        "{all} mutants, {} that the kernel takes: {by_table} by table, {by_fuzzer} by fuzzer, {same:#?}",
        valid.len()
    );
    assert!(missed.is_empty(), "neither the table nor the fuzzer tells these from the program: {missed:#?}");
}

/// A guard is recognised as that of its guest, and as no other's, whichever octets the guest has in common with the rest of
/// the program.
#[test]
fn a_guard_is_of_one_guest() {
    let address = |text: &str| GuestMac::from_address(text.parse().unwrap(), MacPrefix::default());
    let guard = |program: Program| Guard::read(&program.to_octets());
    // The example's own, constants of the program (68 to 67, 1 to 0800, 0.0.0.16), and neighbours.
    let guests =
        ["254.220.186.152", "0.68.0.67", "0.1.8.0", "0.0.0.16", "10.0.0.10", "10.0.0.11", "10.1.0.10", "11.0.0.10"];
    for one in guests.map(address) {
        for other in guests.map(address) {
            assert_eq!(guard(program(one)) == Guard::Of(other), one == other, "{one} {other}");
        }
        for at in 0..program(one).0.len() {
            let mut changed = program(one);
            changed.0[at].k ^= 1;
            assert_eq!(guard(changed.clone()), Guard::Other(changed), "{one}: {at}");
        }
        for part in [&program(one).0[1..], &program(one).0[..program(one).0.len() - 1], &[]] {
            assert_eq!(guard(Program(part.to_vec())), Guard::Other(Program(part.to_vec())));
        }
    }
}
