//! A stage for attacks: a host with two guests on isolated ports of one bridge, the victim on vnet0 and a hostile one on
//! vnet1, and a client behind the uplink that sends to the victim each 5 ms. The guests are programs on their taps.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use crate::common::guard::Toml;
use crate::common::{Background, Host, wait_for};
use crate::guard::frames::{Ip, Station};
use crate::guard::hex;

pub const CLIENT: Ip = [198, 51, 100, 7];
/// Packets before an attack, and after it: 1.5 s.
const BEFORE: u32 = 40;
pub const AFTER: u32 = 300;
/// Packets for 1.1 s: so long the kernel protects a neighbour entry that it has just made (locktime).
pub const LOCKTIME: u32 = 220;

pub fn victim() -> Station {
    Station::guest("02:42", [10, 0, 0, 10])
}

pub fn hostile() -> Station {
    Station::guest("02:42", [10, 0, 0, 11])
}

pub fn gateway() -> Station {
    Station::other("02:00:00:00:00:01", [10, 0, 0, 1])
}

/// A child that answers each line with one.
pub struct Program {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _process: Background,
}

impl Program {
    pub fn start(host: &Host, script: &str, arguments: &[String]) -> Self {
        let mut python = host.command("python3");
        python.arg("-c").arg(script).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child: Child = python.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut program = Self { input, output, _process: Background(child) };
        assert_eq!(program.answer(), "ready");
        program
    }

    pub fn say(&mut self, lines: &str) {
        self.input.write_all(lines.as_bytes()).unwrap();
    }

    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

/// What QEMU and its guest are to the host.
pub struct Guest(Program);

impl Guest {
    /// Answers ARP for its addresses, and remembers the numbers of the client's packets. Reads lines: `seen` answers with
    /// those numbers, `answer ADDRESS` makes an address one of its own, `storm FRAME..` writes the frames in turn until the
    /// next line, and all else is a frame to write once.
    const SCRIPT: &str = "import fcntl, itertools, os, select, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
mac, addresses = bytes.fromhex(sys.argv[2]), [bytes.fromhex(sys.argv[3])]
seen, lines, storm = set(), b'', None
def write(frame):
    try:
        os.write(tap, frame)
    except OSError:
        pass  # The tap is down.
def receive():
    while True:
        try:
            frame = os.read(tap, 70000)
        except OSError:
            return
        if frame[12:14] == b'\\x08\\x06' and frame[20:22] == b'\\0\\1' and frame[38:42] in addresses:
            write(frame[6:12] + mac + frame[12:20] + b'\\0\\2' + mac + frame[38:42] + frame[22:32])
        elif frame[12:14] == b'\\x08\\0' and frame[23] == 17 and frame[36:38] == b'\\x1e\\x61':
            seen.add(int.from_bytes(frame[42:46], 'big'))
print('ready', flush=True)
while True:
    ready, _, _ = select.select([tap, 0], [], [], 0 if storm else None)
    receive()
    if 0 in ready:
        chunk = os.read(0, 65536)
        if not chunk:
            break
        *whole, lines = (lines + chunk).split(b'\\n')
        for line in whole:
            storm = None
            if line == b'seen':
                print(*seen, flush=True)
            elif line.startswith(b'answer '):
                addresses.append(bytes.fromhex(line[7:].decode()))
            elif line.startswith(b'storm '):
                storm = itertools.cycle([bytes.fromhex(frame) for frame in line[6:].decode().split()])
            else:
                write(bytes.fromhex(line.decode()))
    elif storm:
        write(next(storm))
";

    pub fn new(host: &Host, tap: &str, who: Station) -> Self {
        Self(Program::start(host, Self::SCRIPT, &[tap.to_owned(), hex(&who.mac), hex(&who.ip)]))
    }

    /// Answers ARP for this address too, from now on.
    pub fn answers(&mut self, address: Ip) {
        self.0.say(&format!("answer {}\n", hex(&address)));
    }

    /// Writes frames; the host has done with them when this returns.
    pub fn writes(&mut self, frames: &[Vec<u8>]) {
        let lines: String = frames.iter().map(|frame| hex(frame) + "\n").collect();
        self.0.say(&lines);
        self.seen();
    }

    /// Writes frames again and again until it is told something else.
    pub fn storms(&mut self, frames: &[Vec<u8>]) {
        self.0.say(&format!("storm {}\n", frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>().join(" ")));
    }

    /// The numbers of the client's packets that arrived here.
    pub fn seen(&mut self) -> BTreeSet<u32> {
        self.0.say("seen\n");
        self.0.answer().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}

/// What the victim and the attacker got of the packets behind an attack.
#[derive(Debug)]
pub struct Loss {
    pub lost: usize,
    /// Of the last hundred.
    pub lost_at_the_end: usize,
    pub stolen: usize,
}

pub struct Stage {
    pub host: Host,
    pub client: Host,
    pub config: Toml,
    pub victim: Guest,
    pub hostile: Guest,
    sender: Program,
    sent: u32,
}

impl Stage {
    /// Sends as many packets as the line says.
    const SENDER: &str = "import socket, struct, sys, time
client, number = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
print('ready', flush=True)
for line in sys.stdin:
    due = time.monotonic()
    for _ in range(int(line)):
        client.sendto(struct.pack('>I', number), ('10.0.0.10', 7777))
        number, due = number + 1, due + 0.005
        time.sleep(max(0, due - time.monotonic()))
    print(number, flush=True)
";

    pub fn new(guard: bool) -> Self {
        let (host, client) = (Host::new(), Host::bare());
        host.ok(&format!("ip link add uplink type veth peer name eth0 netns {}", client.name));
        for (end, interface, address) in [(&host, "uplink", "198.51.100.1/24"), (&client, "eth0", "198.51.100.7/24")] {
            end.ok(&format!("ip addr add {address} dev {interface}"));
            end.ok(&format!("ip link set {interface} up"));
        }
        client.ok("ip route add default via 198.51.100.1");
        host.ok("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br-l2.rp_filter=0");
        let config = Toml::new(&host, &format!("[[bridge]]\nname = \"br-l2\"\nguard = {guard}\n"));
        for (tap, guest) in [("vnet0", victim()), ("vnet1", hostile())] {
            host.add_tap(tap);
            host.tap32(&format!("up {tap} --mac {} {config}", guest.guest_mac()));
        }
        // The guard alone has to do.
        host.run("ip neigh flush dev br-l2 nud permanent");
        let of_victim = Guest::new(&host, "vnet0", victim());
        let of_hostile = Guest::new(&host, "vnet1", hostile());
        let forwards = || {
            let ports = host.json("bridge -j link show");
            ports.as_array().unwrap().iter().filter(|port| port["state"] == "forwarding").count() == 2
        };
        wait_for("the ports forward", 5, forwards);
        let sender = Program::start(&client, Self::SENDER, &[]);
        Self { host, client, config, victim: of_victim, hostile: of_hostile, sender, sent: 0 }
    }

    pub fn sends(&mut self, count: u32) {
        self.sender.say(&format!("{count}\n"));
        self.sent += count;
        assert_eq!(self.sender.answer(), self.sent.to_string());
    }

    /// The client sends some packets, and the victim gets them.
    pub fn is_reached(&mut self) {
        self.sends(BEFORE);
        wait_for("the victim is reached", 5, || self.victim.seen().len() == self.sent as usize);
    }

    /// The client sends, the hostile guest writes its frames, the client sends on.
    pub fn attack(&mut self, frames: &[Vec<u8>]) -> Loss {
        self.is_reached();
        self.hostile.writes(frames);
        self.sends(AFTER);
        self.loss()
    }

    /// Of the last `AFTER` packets; of those before none may be lost.
    pub fn loss(&mut self) -> Loss {
        let first = self.sent - AFTER;
        // What is still on its way.
        let (patience, start) = (Duration::from_millis(200), Instant::now());
        let mut seen = self.victim.seen();
        while seen.len() < self.sent as usize && start.elapsed() < patience {
            seen = self.victim.seen();
        }
        assert_eq!(seen.range(..first).count(), first as usize, "lost before the attack");
        let lost = |from: u32| (from..self.sent).filter(|number| !seen.contains(number)).count();
        let stolen = self.hostile.seen().range(first..).count();
        Loss { lost: lost(first), lost_at_the_end: lost(self.sent - 100), stolen }
    }
}

/// Runs a play without the guard and with it, side by side.
pub fn without_and_with<T: Send>(play: impl Fn(bool) -> T + Sync) -> [T; 2] {
    std::thread::scope(|scope| {
        let play = &play;
        let plays = [false, true].map(|guard| scope.spawn(move || play(guard)));
        plays.map(|play| play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
