//! 2,000 guests on two bridges, and a hostile one that scans unused addresses: with the guests' permanent neighbour entries
//! no guest loses a packet, and without them packets are lost. The neighbour table is the machine's, for all namespaces:
//! tests/run gives this test the machine. It needs root: `sudo tests/run`.

mod common;
mod crowd;
mod guard;
mod stage;

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::guard::Toml;
use common::{Host, wait_for};
use crowd::{CLIENT, GUESTS, SCANNER};
use serde_json::Value;
use stage::Program;

const BRIDGES: [(u8, &str); 2] = [(0, "br-a"), (1, "br-b")];
/// On each bridge: guests that are spoken to in the first phase, and after them those that nobody speaks to before the
/// second one.
const SPOKEN_TO: u32 = 1000;
const NEW: u32 = 10;
/// Of those that are spoken to, so many on each bridge are spoken to while the hostile guest scans too.
const KNOWN: u32 = 10;
/// The hostile guest, on the first bridge.
const HOSTILE: Guest = Guest { bridge: 0, number: 0xc4c8 };
/// Seconds of the first phase and of the second.
const CROWD: u32 = 3;
const SCAN: u32 = 4;
/// UDP ports, by which the guests count.
const TO_CROWD: &str = "7001";
const TO_KNOWN: &str = "7002";
const TO_NEW: &str = "7003";

/// The guests of a bridge have 10.B.4.0 and the addresses after it.
#[derive(Clone, Copy)]
struct Guest {
    bridge: u8,
    number: u32,
}

impl Guest {
    /// Those with these numbers on each bridge.
    fn on_each(numbers: std::ops::Range<u32>) -> Vec<Self> {
        numbers.flat_map(|number| BRIDGES.map(|(bridge, _)| Self { bridge, number })).collect()
    }

    fn address(self) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0400 + (u32::from(self.bridge) << 16) + self.number)
    }

    fn bridge(self) -> &'static str {
        BRIDGES[usize::from(self.bridge)].1
    }

    fn tap(self) -> String {
        format!("t{}-{}", self.bridge, self.number)
    }

    fn mac(self, first: &str) -> String {
        let [a, b, c, d] = self.address().octets();
        format!("{first}:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// Files for the programs, gone when dropped.
struct Files(PathBuf);

impl Files {
    fn new(host: &Host) -> Self {
        let folder = std::env::temp_dir().join(format!("{}-crowd", host.name));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.0.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The host, its guests, and a client behind its uplink. Each open tap gets a copy of each ARP request: with all 2,000 open
/// the hostile guest comes to 200 packets a second and does not fill the table (measured). So only the taps of the known,
/// the new and the hostile guests are open, and all other guests are behind one more port of each bridge.
struct Crowd {
    guests: Program,
    scanner: Program,
    sender: Program,
    host: Host,
    _client: Host,
    _files: Files,
}

/// Packets sent and lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Loss {
    sent: u64,
    lost: u64,
}

impl Crowd {
    fn new() -> Self {
        let (host, client) = (Host::bare(), Host::bare());
        host.ok(&format!("ip link add uplink type veth peer name eth0 netns {}", client.name));
        for (end, other, dev, address) in [(&host, 7, "uplink", 1), (&client, 1, "eth0", 7)] {
            end.ok(&format!("ip link set {dev} address 02:00:00:00:01:{address:02x} up"));
            end.ok(&format!("ip addr add 198.51.100.{address}/24 dev {dev}"));
            // The entry of the host's neighbour upstream is not what this is about.
            let neighbour = format!("198.51.100.{other} lladdr 02:00:00:00:01:{other:02x}");
            end.ok(&format!("ip neigh replace {neighbour} dev {dev} nud permanent"));
        }
        client.ok("ip route add default via 198.51.100.1");
        host.ok("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
        let mut toml = String::new();
        for (i, bridge) in BRIDGES {
            host.ok(&format!("ip link add {bridge} address 02:00:00:00:00:0{i} type bridge"));
            host.ok(&format!("ip addr add 10.{i}.0.1/16 dev {bridge}"));
            host.ok(&format!("ip link set {bridge} up"));
            host.ok(&format!("sysctl -qw net.ipv4.conf.{bridge}.proxy_arp_pvlan=1 net.ipv4.conf.{bridge}.rp_filter=2"));
            writeln!(toml, "[[bridge]]\nname = \"{bridge}\"").unwrap();
        }
        let config = Toml::new(&host, &toml);
        let files = Files::new(&host);
        let guests = Guest::on_each(0..SPOKEN_TO + NEW);
        let (mut batch, mut used) = (String::new(), String::new());
        for guest in guests.iter().chain([&HOSTILE]) {
            writeln!(batch, "tuntap add {} mode tap", guest.tap()).unwrap();
            writeln!(batch, "link set {} address {} master {} up", guest.tap(), guest.mac("fe"), guest.bridge())
                .unwrap();
            writeln!(used, "{}", guest.address().to_bits() & 0x1_ffff).unwrap();
        }
        let start = Instant::now();
        host.batch(&batch);
        println!("{} taps in {:?}", guests.len() + 1, start.elapsed());
        // One pass routes and guards everybody, and gives everybody the neighbour entry.
        let start = Instant::now();
        host.tap32(&format!("reconcile {config}"));
        println!("reconcile: {:?}", start.elapsed());

        let is_open = |guest: &&Guest| guest.number < KNOWN || guest.number >= SPOKEN_TO;
        let mut open: String =
            guests.iter().filter(is_open).map(|guest| format!("{} 32 {}\n", guest.tap(), guest.address())).collect();
        for (i, bridge) in BRIDGES {
            // After the pass, which would refuse it.
            host.ok(&format!("ip tuntap add rest{i} mode tap"));
            host.ok(&format!("ip link set rest{i} master {bridge} up"));
            let rest = guests.iter().filter(|guest| guest.bridge == i && !is_open(guest));
            let rest: Vec<_> = rest.map(|guest| guest.address().to_string()).collect();
            writeln!(open, "rest{i} 22 {}", rest.join(" ")).unwrap();
        }
        let mut opened = Program::start(&host, GUESTS, &[files.write("guests", &open)]);
        let hostile = [HOSTILE.tap(), HOSTILE.mac("02"), "02:00:00:00:00:00".into(), files.write("used", &used)];
        let scanner = Program::start(&host, SCANNER, &hostile);
        let sender = Program::start(&client, CLIENT, &[]);
        let ports = open.lines().count() + 1;
        let forwards = || {
            let all = host.json("bridge -j link show");
            all.as_array().unwrap().iter().filter(|port| port["state"] == "forwarding").count() == ports
        };
        wait_for("the ports forward", 10, forwards);
        opened.say("announce\n");
        opened.answer();
        Self { guests: opened, scanner, sender, host, _client: client, _files: files }
    }

    /// What the pass has made.
    fn is_whole(&self) {
        let all = 2 * (SPOKEN_TO + NEW) as usize + 1;
        assert_eq!(self.host.owned().len(), all);
        assert_eq!(self.host.ok("tc qdisc show").matches("qdisc clsact").count(), all);
        assert!(self.host.is_guarded(&HOSTILE.tap(), &HOSTILE.mac("02")));
        assert_eq!(self.entries("nud permanent"), all);
    }

    /// Entries of the neighbour table on the two bridges.
    fn entries(&self, filter: &str) -> usize {
        let of = |bridge: &str| self.host.ok(&format!("ip neigh show dev {bridge} {filter}")).lines().count();
        BRIDGES.map(|(_, bridge)| of(bridge)).iter().sum()
    }

    /// Has packets sent, each at its second to a guest, and `during` at the same time. What was lost, for each port.
    fn sends(
        &mut self,
        packets: &[(f64, Guest, &str)],
        ports: &[&str],
        during: impl FnOnce(&mut Program),
    ) -> Vec<Loss> {
        let list = packets.iter().map(|(due, to, port)| format!("[{due:.4},\"{}\",\"{port}\"]", to.address()));
        self.sender.say(&format!("[{}]\n", list.collect::<Vec<_>>().join(",")));
        during(&mut self.scanner);
        let number = |counts: &Value, port: &str| counts[port].as_u64().unwrap_or(0);
        let sent: Value = serde_json::from_str(&self.sender.answer()).unwrap();
        let mut ask = |word: &str| -> Value {
            self.guests.say(&format!("{word}\n"));
            serde_json::from_str(&self.guests.answer()).unwrap()
        };
        // What is still on its way.
        let (patience, start) = (Duration::from_millis(500), Instant::now());
        let is_all = |seen: Value| ports.iter().all(|port| number(&seen, port) == number(&sent, port));
        while !is_all(ask("seen")) && start.elapsed() < patience {}
        let seen = ask("count");
        let loss = |port: &&str| {
            let sent = number(&sent, port);
            Loss { sent, lost: sent - number(&seen, port) }
        };
        ports.iter().map(loss).collect()
    }

    /// Each of the 2,000 is spoken to once a second.
    fn crowd(&mut self) -> Loss {
        let guests = Guest::on_each(0..SPOKEN_TO);
        let pause = 1.0 / guests.len() as f64;
        let rounds = std::iter::repeat_n(&guests, CROWD as usize).flatten();
        let packets = rounds.enumerate().map(|(i, guest)| (i as f64 * pause, *guest, TO_CROWD)).collect::<Vec<_>>();
        self.sends(&packets, &[TO_CROWD], |_| ())[0]
    }

    /// While the hostile guest scans, known guests get a packet each 10 ms, and each 100 ms another new one gets its first
    /// packet, and from then on one each 100 ms. What was lost of those to known ones and of those to new ones.
    fn scan(&mut self) -> [Loss; 2] {
        let mut packets = Vec::new();
        for guest in Guest::on_each(0..KNOWN) {
            let times = (0..SCAN * 100).map(|i| f64::from(i) / 100.0);
            packets.extend(times.map(|due| (due, guest, TO_KNOWN)));
        }
        for (first, guest) in (1..).zip(Guest::on_each(SPOKEN_TO..SPOKEN_TO + NEW)) {
            let times = (first..SCAN * 10).map(|i| f64::from(i) / 10.0);
            packets.extend(times.map(|due| (due, guest, TO_NEW)));
        }
        let losses = self.sends(&packets, &[TO_KNOWN, TO_NEW], |scanner| {
            scanner.say(&format!("{SCAN}\n"));
            let sent: u32 = scanner.answer().parse().unwrap();
            println!("the hostile guest sends {} packets a second", sent / SCAN);
        });
        [losses[0], losses[1]]
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn no_guest_costs_another_a_packet() {
    let limit = std::fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    assert!(limit < 2000, "net.ipv4.neigh.default.gc_thresh3 is {limit}: 2,000 guests fit in without tap32's entries");
    let mut crowd = Crowd::new();
    crowd.is_whole();
    let with = crowd.crowd();
    println!("2,000 guests: {with:?}");
    let [known, new] = crowd.scan();
    let learned = crowd.entries("") - crowd.entries("nud permanent");
    println!("while one scans: known {known:?}, new {new:?}, {learned} entries of unused addresses");
    // Or the scan has proved nothing.
    assert!(learned > limit * 9 / 10, "{learned}");

    for (_, bridge) in BRIDGES {
        crowd.host.ok(&format!("ip neigh flush dev {bridge} nud all"));
    }
    assert_eq!(crowd.entries("nud permanent"), 0);
    let without = crowd.crowd();
    println!("without entries: {without:?}");
    let [known_without, new_without] = crowd.scan();
    println!("without entries, while one scans: known {known_without:?}, new {new_without:?}");
    assert!(without.lost > 0 && new_without.lost > 0, "{without:?} {new_without:?}");
    assert_eq!([with.lost, known.lost, new.lost], [0; 3]);
}
