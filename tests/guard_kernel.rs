//! The guard's program on a real tap, put there by `tc` as a person types it: the kernel must decide on each frame as the
//! interpreter does. Judged by a packet socket on the bridge, by `bridge -j fdb` and by tc's counters.

mod common;
mod guard;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};

use common::slow::rounds;
use common::{Background, Host, string, text, wait_for};
use guard::random::{Random, Seeds};
use guard::table::{Cast, Row, table};
use guard::{Verdict, hex, program_of, verdict};
use tap32::addr::show;
use tap32::guest::guard::Program;

/// A tap on br-l2 with a program that writes frames into it, and sees what comes to the bridge.
struct Tap {
    host: Host,
    frames: ChildStdin,
    answers: BufReader<ChildStdout>,
    _writer: Background,
}

impl Tap {
    /// Opens the tap with IFF_VNET_HDR, as QEMU does. Reads frames from stdin, a line each: the offload header and the
    /// frame. Answers each with how often the bridge got it. The kernel has done all its work when the write returns: a
    /// tap has no queue towards the host (tun_get_user calls netif_receive_skb).
    const SCRIPT: &str = "import fcntl, os, socket, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'vnet0', 0x5002))
judge = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
judge.bind(('br-l2', 0))
judge.setblocking(False)
def arrived():
    while True:
        try:
            data, address = judge.recvfrom(70000)
        except BlockingIOError:
            return
        if address[2] != socket.PACKET_OUTGOING:
            yield data
print('ready', flush=True)
for line in sys.stdin:
    offload, frame = map(bytes.fromhex, line.split())
    # The socket sees the frame without its outer tag.
    expected = frame[:12] + frame[16:] if frame[12:14] in (b'\\x81\\x00', b'\\x88\\xa8') else frame
    for _ in arrived():
        pass
    os.write(tap, offload + frame)
    print(sum(data == expected for data in arrived()), flush=True)
";

    fn new() -> Self {
        let host = Host::new();
        // br_netfilter, where it is loaded, drops malformed IPv4 by itself.
        if std::path::Path::new("/proc/sys/net/bridge").exists() {
            host.ok("sysctl -qw net.bridge.bridge-nf-call-iptables=0");
        }
        // The socket sees frames to all MACs, not only to the bridge's.
        host.ok("ip link set br-l2 promisc on");
        host.add_tap("vnet0");
        host.ok("ip link set vnet0 master br-l2 up");
        let mut python = host.command("python3");
        let mut child = python.args(["-c", Self::SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (frames, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut tap = Self { host, frames, answers, _writer: Background(child) };
        assert_eq!(tap.answer(), "ready");
        let forwards = || {
            let ports = tap.host.json("bridge -j link show");
            ports.as_array().unwrap().iter().any(|port| port["ifname"] == "vnet0" && port["state"] == "forwarding")
        };
        wait_for("the port forwards", 5, forwards);
        tap
    }

    fn guarded_by(program: &Program) -> Self {
        let tap = Self::new();
        tap.host.ok("tc qdisc add dev vnet0 clsact");
        tap.put("1", &program.to_string());
        tap
    }

    fn put(&self, preference: &str, bytecode: &str) {
        let mut tc = self.host.command("tc");
        tc.args(["filter", "add", "dev", "vnet0", "ingress", "pref", preference, "protocol", "all"]);
        let output = tc.args(["bpf", "da", "bytecode", bytecode]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Writes a frame, and says whether it reached the bridge.
    fn write(&mut self, offload: [u8; 10], frame: &[u8]) -> bool {
        writeln!(self.frames, "{} {}", hex(&offload), hex(frame)).unwrap();
        match self.answer().as_str() {
            "0" => false,
            "1" => true,
            other => panic!("{other:?} for {}", hex(frame)),
        }
    }

    /// The MACs that the bridge has learned on the tap's port, as `show` writes them.
    fn learned(&self) -> Vec<String> {
        let entries = self.host.json("bridge -j fdb show br br-l2 brport vnet0 dynamic");
        entries.as_array().unwrap().iter().map(|entry| string(&entry["mac"])).collect()
    }

    /// What the tap's clsact says it has dropped.
    fn dropped(&self) -> u64 {
        let all = self.host.json("tc -j -s qdisc show dev vnet0");
        let clsact = all.as_array().unwrap().iter().find(|qdisc| qdisc["kind"] == "clsact").unwrap();
        clsact["drops"].as_u64().unwrap()
    }
}

/// Two ways to hand over a frame: copied as a whole, or, by the length of its headers, with only 14 octets copied and the
/// rest in pages that the program's loads must reach.
fn offloads(row: &Row) -> Vec<[u8; 10]> {
    let in_pages = |mut offload: [u8; 10]| {
        offload[2..4].copy_from_slice(&14u16.to_le_bytes());
        offload
    };
    vec![row.offload, in_pages(row.offload)]
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn without_a_guard_the_table_is_as_bad_as_it_says() {
    for cast in [Cast::usual(), Cast::unusual()] {
        let mut tap = Tap::new();
        let victim = show(cast.victim.mac.into());
        for row in table(&cast) {
            let seen = tap.write(row.offload, &row.frame);
            let learned = row.bare.contains('L') && tap.learned().contains(&victim);
            if learned {
                tap.host.ok(&format!("bridge fdb del {victim} dev vnet0 master"));
            }
            assert_eq!((seen, learned), (row.bare.contains('P'), row.bare.contains('L')), "{}", row.name);
        }
        assert!(!tap.learned().contains(&victim), "a frame of the table that does not say so");
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn with_the_guard_the_kernel_does_what_the_table_says() {
    for cast in [Cast::usual(), Cast::unusual()] {
        let program = program_of(cast.me);
        let mut tap = Tap::guarded_by(&program);
        let own = show(cast.me.mac.into());
        let mut dropped = 0;
        for row in table(&cast) {
            for offload in offloads(&row) {
                let passed = tap.write(offload, &row.frame);
                assert_eq!(passed, row.must == Verdict::Pass, "{} with {}", row.name, hex(&offload));
                dropped += u64::from(row.must == Verdict::Drop);
            }
            assert_eq!(verdict(&program.0, &row.frame), Ok(row.must), "{}", row.name);
            if row.bare.contains('L') {
                assert!(tap.learned().iter().all(|mac| *mac == own), "{}: {:?}", row.name, tap.learned());
            }
        }
        assert_eq!(tap.learned(), [own]);
        assert_eq!(tap.dropped(), dropped);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn kernel_and_interpreter_agree_on_random_frames() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let cast = Cast::usual();
    let (seeds, mut random, program) = (Seeds::of(&cast), Random(seed), program_of(cast.me));
    let mut tap = Tap::guarded_by(&program);
    let mut passed = 0;
    for _ in 0..rounds(20_000) {
        let mut frame = seeds.frame(&mut random);
        // To everybody: the bridge gives its own device no frame for 01:80:c2:00:00:0x.
        frame[..6].fill(0xff);
        let must = verdict(&program.0, &frame);
        let seen = if tap.write([0; 10], &frame) { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(must, Ok(seen), "seed {seed}: {}", hex(&frame));
        passed += u32::from(seen == Verdict::Pass);
    }
    assert!(passed > u32::try_from(rounds(1000)).unwrap(), "{passed} passed");
    assert_eq!(tap.learned(), [show(cast.me.mac.into())]);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_kernel_gives_the_program_back_and_the_next_filter_its_turn() {
    let cast = Cast::usual();
    let program = program_of(cast.me);
    let mut tap = Tap::guarded_by(&program);
    let filters = tap.host.json("tc -j filter show dev vnet0 ingress");
    let read = filters.as_array().unwrap().iter().find_map(|filter| filter["options"]["bytecode"]["insns"].as_array());
    let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap();
    let quad = |i: &serde_json::Value| (number(i, "code"), number(i, "jt"), number(i, "jf"), number(i, "k"));
    let meant: Vec<_> = program.0.iter().map(|i| (i.code.into(), i.jt.into(), i.jf.into(), i.k.into())).collect();
    assert_eq!(read.unwrap().iter().map(quad).collect::<Vec<_>>(), meant);

    // A policer such as libvirt's, here one that drops all, stands behind the guard.
    let frame = cast.me.arp(guard::frames::REQUEST, cast.host);
    assert!(tap.write([0; 10], &frame));
    tap.put("2", "1,6 0 0 2");
    assert!(!tap.write([0; 10], &frame));
}
