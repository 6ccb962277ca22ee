//! `on-link`: whether the guests' subnet is on link at their host. Two hosts of two MDUs, behind a core that has MDU 1's
//! aggregate and a /32 for the guest that is away from it, as borders leave it; each guest is a kernel of its own behind
//! its tap. They need root: `sudo tests/run`.

mod common;

use std::process::{Child, Output, Stdio};

use common::setup::{Folder, addresses};
use common::wire::wire;
use common::{Background, Host, TAP32, string, text, wait_for};
use serde_json::Value;

/// MDU 1's aggregate.
const AGGREGATE: &str = "10.0.0.0/24";
/// The MAC of the gateway on every host.
const GATEWAY: &str = "02:42:0a:00:00:01";
/// Nobody has it.
const NOBODY: &str = "10.0.0.77";

/// A guest's kernel, and its QEMU.
struct Guest {
    kernel: Host,
    _qemu: Background,
}

impl Guest {
    /// 10.0.0.LAST/24 on a host, with the gateway's address as its default route.
    fn new(host: &Server, last: u8) -> Self {
        let (kernel, tap, mac) = (Host::bare(), format!("vnet{last}"), format!("02:42:0a:00:00:{last:02x}"));
        host.host.add_tap(&tap);
        let qemu = wire(&host.host, &tap, &kernel);
        host.host.tap32(&format!("up {tap} --mac {mac} {}", host.config));
        kernel.ok(&format!("ip link set eth0 address {mac} up"));
        kernel.ok(&format!("ip addr add 10.0.0.{last}/24 dev eth0"));
        kernel.ok("ip route add default via 10.0.0.1");
        wait_for("the guest reaches its gateway", 5, || kernel.run("ping -c 1 -W 1 10.0.0.1").status.success());
        Self { kernel, _qemu: qemu }
    }

    fn ping(&self, address: &str) -> Output {
        self.kernel.run(&format!("ping -c 3 -i 0.2 -W 1 {address}"))
    }

    fn reaches(&self, address: &str) -> bool {
        self.ping(address).status.success()
    }

    /// The MAC that it has for a neighbour; `None` if nobody answered.
    fn mac_of(&self, address: &str) -> Option<String> {
        let found = self.kernel.json(&format!("ip -j neigh show to {address} dev eth0"));
        found.as_array().unwrap().iter().find_map(|entry| entry["lladdr"].as_str().map(str::to_owned))
    }
}

/// A host that `tap32 setup` has set up.
struct Server {
    host: Host,
    folder: Folder,
    config: String,
    uplink: u8,
}

impl Server {
    /// Its uplink is 198.51.100.(N+1)/30, the core has 198.51.100.N.
    fn new(core: &Host, uplink: u8, on_link: bool) -> Self {
        let host = Host::bare();
        host.ok(&format!("ip link add eth0 type veth peer name to-{uplink} netns {}", core.name));
        core.ok(&format!("ip addr add 198.51.100.{uplink}/30 dev to-{uplink}"));
        core.ok(&format!("ip link set to-{uplink} up"));
        let folder = Folder::new(&host);
        let config = format!("--config {}/tap32.toml", folder.0.display());
        let server = Self { host, folder, config, uplink };
        server.configure(on_link);
        server.host.tap32(&server.setup());
        server
    }

    fn configure(&self, on_link: bool) {
        let toml = format!(
            "[[bridge]]\ngateway = \"10.0.0.1/24\"\non-link = {on_link}\n\
             [[uplink]]\nname = \"eth0\"\naddress = \"198.51.100.{}/30\"\npeer = \"198.51.100.{}\"\n",
            self.uplink + 1,
            self.uplink
        );
        self.folder.write("tap32.toml", &toml);
    }

    fn setup(&self) -> String {
        format!("setup {}", self.config)
    }

    /// A route that FRR would hear from the core.
    fn hears(&self, prefix: &str) {
        self.host.ok(&format!("ip route add {prefix} via 198.51.100.{} proto bgp metric 20", self.uplink));
    }

    /// What its kernel has of a neighbour on the bridge.
    fn neighbours(&self, address: &str) -> String {
        self.host.ok(&format!("ip neigh show to {address} dev br-l2"))
    }

    /// The rows of doctor about the bridge's addresses that are not well: check and fix.
    fn wrong_addresses(&self) -> Vec<(String, String)> {
        let output = self.host.run(&format!("{TAP32} doctor --json {}", self.config));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = all["checks"].as_array().unwrap().iter();
        let wrong = rows.filter(|row| row["verdict"] != "ok" && string(&row["check"]).starts_with("br-l2 1"));
        wrong.map(|row| (string(&row["check"]), string(&row["fix"]))).collect()
    }
}

/// Two hosts, of MDU 1 and of MDU 2.
struct Mdus {
    _core: Host,
    home: Server,
    away: Server,
}

impl Mdus {
    fn new(on_link: bool) -> Self {
        let core = Host::bare();
        core.ok("sysctl -qw net.ipv4.ip_forward=1");
        let (home, away) = (Server::new(&core, 1, on_link), Server::new(&core, 5, on_link));
        for (prefix, host) in [(AGGREGATE, 2), ("10.0.0.11/32", 6)] {
            core.ok(&format!("ip route add {prefix} via 198.51.100.{host}"));
        }
        // Of its own MDU a host hears the /32s, here of none; of the other the aggregate, and guests that came from here.
        away.hears(AGGREGATE);
        home.hears("10.0.0.11/32");
        Self { _core: core, home, away }
    }
}

/// Once with each setting.
fn with_each<T: Send>(play: impl Fn(bool) -> T + Sync) -> [T; 2] {
    std::thread::scope(|scope| {
        let play = &play;
        let plays = [true, false].map(|on_link| scope.spawn(move || play(on_link)));
        plays.map(|play| play.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// On link, the host's own connected route hides the aggregate from the guest that is away.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_in_another_mdu_and_its_peers_at_home_reach_each_other() {
    let met = with_each(|on_link| {
        let mdus = Mdus::new(on_link);
        let (stays, moved) = (Guest::new(&mdus.home, 10), Guest::new(&mdus.away, 11));
        (moved.reaches("10.0.0.10"), stays.reaches("10.0.0.11"), stays.mac_of("10.0.0.11"), moved.mac_of("10.0.0.10"))
    });
    let gateway = Some(GATEWAY.to_owned());
    assert_eq!(met, [(false, false, gateway.clone(), gateway.clone()), (true, true, gateway.clone(), gateway)]);
}

/// Guests of one host, whose ports are isolated, with either setting: by way of the gateway, and no redirect tells them of
/// a shorter one.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn two_guests_of_one_host_reach_each_other_through_the_gateway() {
    with_each(|on_link| {
        let core = Host::bare();
        let server = Server::new(&core, 1, on_link);
        let (one, other) = (Guest::new(&server, 10), Guest::new(&server, 12));
        assert!(one.reaches("10.0.0.12") && other.reaches("10.0.0.10"), "{on_link}");
        assert_eq!(one.mac_of("10.0.0.12").as_deref(), Some(GATEWAY), "{on_link}");
        server.host.ok("ping -c 1 -W 1 10.0.0.10");
        let counted = server.host.ok("nstat -asz IcmpOutRedirects IcmpOutEchoReps");
        let number = |name: &str| {
            let line = counted.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
        };
        assert!(number("IcmpOutEchoReps") > 0 && number("IcmpOutRedirects") == 0, "{on_link}: {counted}");
    });
}

/// On link the host answers for it, keeps a place in its neighbour table, and says after 3 s that nobody is there. Off link
/// it does what its routes say: without one it does not answer, with one the packet goes into the fabric, which must know.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_asks_for_an_address_that_nobody_has() {
    for default in [false, true] {
        with_each(|on_link| {
            let core = Host::bare();
            // Without an aggregate that ends there: who answers shows how far the packet came.
            core.ok("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0");
            core.ok(&format!("ip route add unreachable {AGGREGATE}"));
            let server = Server::new(&core, 1, on_link);
            core.ok("ip route add 10.0.0.10/32 via 198.51.100.2");
            if default {
                server.hears("default");
            }
            let guest = Guest::new(&server, 10);
            // The kernels give up after three requests, a second each.
            let output = guest.kernel.run(&format!("ping -c 1 -W 5 {NOBODY}"));
            let said = text(&output.stdout);
            let from = if on_link {
                "From 10.0.0.1 "
            } else if default {
                "From 198.51.100.1 "
            } else {
                "From 10.0.0.10 "
            };
            assert!(!output.status.success() && said.contains(from), "{on_link} {default}: {said}");
            let answered = guest.mac_of(NOBODY).is_some();
            assert_eq!(answered, on_link || default, "{on_link} {default}");
            assert_eq!(!server.neighbours(NOBODY).is_empty(), on_link, "{on_link} {default}");
        });
    }
}

/// How many of a ping's packets came back.
fn counted(ping: Child) -> (u32, u32) {
    let said = text(&ping.wait_with_output().unwrap().stdout);
    let line = said.lines().find(|line| line.contains("packets transmitted")).unwrap_or_else(|| panic!("{said}"));
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// `setup` switches a host there and back, again and again, while its guests speak to each other and to the fabric.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn setup_switches_there_and_back_and_no_packet_is_lost() {
    let core = Host::bare();
    core.ok("sysctl -qw net.ipv4.ip_forward=1");
    let server = Server::new(&core, 1, true);
    core.ok(&format!("ip route add {AGGREGATE} via 198.51.100.2"));
    server.hears("default");
    let (one, other) = (Guest::new(&server, 10), Guest::new(&server, 12));
    assert!(one.reaches("10.0.0.12") && other.reaches("198.51.100.1"));
    let routes = server.host.owned();
    assert_eq!(routes.len(), 2);
    let ping = |from: &Host, to: &str| {
        let mut ping = from.command("ping");
        ping.args(["-q", "-i", "0.005", "-c", "600", "-W", "2", to]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let flows = [ping(&one.kernel, "10.0.0.12"), ping(&other.kernel, "198.51.100.1"), ping(&core, "10.0.0.10")];
    let mut switches = 0;
    while switches < 20 {
        for (on_link, said, has) in [
            (false, "ip addr add 10.0.0.1/32 dev br-l2\nip addr del 10.0.0.1/24 dev br-l2\n", &["10.0.0.1/32"][..]),
            (true, "ip addr add 10.0.0.1/24 dev br-l2\n", &["10.0.0.1/32", "10.0.0.1/24"]),
        ] {
            // The /32 stays where the subnet is on link again: it does no harm.
            let said = if switches > 1 { said.replace("ip addr add 10.0.0.1/32 dev br-l2\n", "") } else { said.into() };
            server.configure(on_link);
            assert_eq!(server.host.tap32(&server.setup()), said);
            assert_eq!(addresses(&server.host, "br-l2"), has);
            let connected = server.host.ok(&format!("ip route show {AGGREGATE} dev br-l2"));
            assert_eq!(!connected.is_empty(), on_link, "{connected}");
            assert_eq!(server.host.owned(), routes);
            assert_eq!(server.host.tap32(&server.setup()), "");
            switches += 1;
        }
    }
    for flow in flows.map(counted) {
        assert_eq!(flow, (600, 600));
    }
}

/// An address that tap32 did not add stays, and tap32's own beside it: the kernel would delete both as one's secondary.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn an_address_of_another_stays_and_is_named_with_its_command() {
    let core = Host::bare();
    let server = Server::new(&core, 1, true);
    server.host.ok("sysctl -qw net.ipv4.conf.all.promote_secondaries=0 net.ipv4.conf.br-l2.promote_secondaries=0");
    for foreign in ["10.0.0.254/24", "192.0.2.1/24"] {
        server.host.ok(&format!("ip addr add {foreign} dev br-l2"));
    }
    server.configure(false);
    for _ in 0..2 {
        let output = server.host.run(&format!("{TAP32} {}", server.setup()));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("`ip addr del 10.0.0.254/24 dev br-l2`") && !said.contains("192.0.2.1"), "{said}");
        let mut left = addresses(&server.host, "br-l2");
        left.sort();
        assert_eq!(left, ["10.0.0.1/24", "10.0.0.1/32", "10.0.0.254/24", "192.0.2.1/24"]);
    }
    server.host.ok("ip addr del 10.0.0.254/24 dev br-l2");
    assert_eq!(server.host.tap32(&server.setup()), "ip addr del 10.0.0.1/24 dev br-l2\n");
    assert_eq!(addresses(&server.host, "br-l2"), ["192.0.2.1/24", "10.0.0.1/32"]);
}

/// Also on a host where nobody runs `setup`, and whichever command is run first.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn doctor_finds_what_is_still_on_link_and_its_command_keeps_the_guests_routes() {
    let core = Host::bare();
    let server = Server::new(&core, 1, true);
    let _guest = Guest::new(&server, 10);
    let routes = server.host.owned();
    server.host.ok("ip addr add 10.0.0.254/24 dev br-l2");
    server.configure(false);
    assert_eq!(server.wrong_addresses().len(), 3);
    for _ in 0..2 {
        let (_, fix) = server.wrong_addresses().pop().unwrap();
        server.host.sh(&fix);
        assert_eq!(server.host.owned(), routes, "after {fix}");
    }
    assert_eq!(server.wrong_addresses(), []);
    assert_eq!(addresses(&server.host, "br-l2"), ["10.0.0.1/32"]);
    assert!(server.host.ok(&format!("ip route show {AGGREGATE}")).is_empty());
}
