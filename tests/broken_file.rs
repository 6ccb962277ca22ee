//! A mistake in the configuration stops only guests that could be tap32's. libvirt's hook is called as libvirt calls it;
//! its exit code is the judge, which libvirt obeys. They need root: `sudo tests/run`.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::hooks::Hooks;
use common::{GUEST, Host, SETTLED, text};

/// What may fail. Where libvirt would kill a running guest, and where it ignores the code, the hook ends with 0.
const STARTING: [&str; 2] = ["prepare", "start"];
const QUIET: [&str; 8] = ["migrate", "restore", "reconnect", "attach", "started", "stopped", "release", "no-such"];

fn domain(interfaces: &str) -> String {
    format!("<domain type='kvm'><name>g1</name><devices>{interfaces}</devices></domain>")
}

fn nic(kind: &str, inside: &str) -> String {
    format!("<interface type='{kind}'><mac address='52:54:00:00:00:01'/>{inside}<target dev='vnet7'/></interface>")
}

fn on_bridge(bridge: &str) -> String {
    nic("bridge", &format!("<source bridge='{bridge}'/>"))
}

fn in_network(network: &str) -> String {
    nic("network", &format!("<source network='{network}'/>"))
}

/// libvirt's networks: `ours` on the bridge that `managed` names, the others as libvirt makes them.
fn networks(managed: &str) -> String {
    let network = |name: &str, forward: &str, bridge: &str| {
        let text = format!("<network><name>{name}</name><forward mode='{forward}'/>{bridge}</network>");
        format!("echo \"{text}\" >/run/libvirt/network/{name}.xml\n")
    };
    let bridge = |name: &str| format!("<bridge name='{name}'/>");
    "mount -t tmpfs tmpfs /run; mkdir -p /run/libvirt/network\n".to_owned()
        + &network("ours", "bridge", &bridge(managed))
        + &network("default", "nat", &bridge("virbr0"))
        + &network("passthrough", "hostdev", "")
}

struct Broken {
    host: Host,
    hooks: Hooks,
}

impl Broken {
    fn new() -> Self {
        let host = Host::new();
        let hooks = Hooks::new(&host);
        Self { host, hooks }
    }

    /// Guests that are not tap32's start, those on the bridges `managed` do not.
    fn check(&self, what: &str, managed: &[&str], sentence: &str) {
        self.check_operations(what, managed, sentence, &STARTING[..1], &[]);
    }

    /// The same, with operations for whose exit code libvirt must not stop anything.
    fn check_operations(&self, what: &str, managed: &[&str], sentence: &str, starting: &[&str], quiet: &[&str]) {
        let networks = networks(managed[0]);
        let call = |operation: &str, interfaces: &str| {
            self.hooks.call_after(&self.host, &networks, operation, &domain(interfaces))
        };
        let script = "<script path='/etc/my-own-ifup'/>";
        let others = [
            String::new(),
            nic("user", ""),
            nic("direct", "<source dev='eth0' mode='bridge'/>"),
            nic("hostdev", "<source><address type='pci' bus='0x01' slot='0x00' function='0x0'/></source>"),
            nic("vhostuser", "<source type='unix' path='/run/vhost' mode='client'/>"),
            nic("ethernet", ""),
            nic("ethernet", script),
            on_bridge("virbr0"),
            in_network("default"),
            in_network("passthrough"),
            in_network("gone"),
            on_bridge("virbr0") + &nic("user", "") + &in_network("default") + &nic("ethernet", script),
        ];
        for operation in starting.iter().chain(quiet) {
            for interfaces in &others {
                let output = call(operation, interfaces);
                assert_eq!(output.status.code(), Some(0), "{what}: {operation} {interfaces}: {}", text(&output.stderr));
            }
        }
        let mut ours: Vec<String> = managed.iter().map(|bridge| on_bridge(bridge)).collect();
        ours.push(in_network("ours"));
        ours.push(on_bridge("virbr0") + &nic("user", "") + &on_bridge(managed[0]));
        for interfaces in &ours {
            for operation in starting {
                let output = call(operation, interfaces);
                let said = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{what}: {operation} {interfaces}: {said}");
                assert!(said.contains(sentence) && said.lines().count() == 1, "{what}: {said}");
            }
            for operation in quiet {
                let output = call(operation, interfaces);
                assert_eq!(output.status.code(), Some(0), "{what}: {operation} {interfaces}: {}", text(&output.stderr));
            }
        }
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_mistake_stops_only_guests_that_could_be_ours() {
    let broken = Broken::new();
    let two = "[[bridge]]\nname = \"br-a\"\ngateway = \"10.0.0.1/24\"\n\n[[bridge]]\nname = \"br-b\"\n";
    broken.hooks.configure("protocl = 132\n");
    broken.check_operations("every operation", &["br-l2"], "line 1: there is no key protocl ", &STARTING, &QUIET);
    let (a_and_b, fallback): (&[&str], &[&str]) = (&["br-a", "br-b"], &["br-l2"]);
    for (toml, managed, sentence) in [
        ("distance = \"240\"\n", fallback, "line 1: "),
        (&format!("protocl = 132\n{two}"), a_and_b, "line 1: there is no key protocl "),
        (&format!("{two}isolat = true\n"), a_and_b, "there is no key isolat "),
        (&format!("{two}[migrations]\nsettle = \"1s\"\n"), a_and_b, "there is no table [migrations]"),
        // TOML itself: a key without a value, an array and a string without end, a key that is there already.
        (&format!("protocol =\n{two}"), a_and_b, "line 1: "),
        (&format!("{two}prefixes = [\"10.0.0.0/24\",\n"), a_and_b, "configuration "),
        (&two.replace("/24\"", "/24"), a_and_b, "line 3: "),
        (&two.replacen("]]\n", "]]\nprefixes = [\"10.0.0.0/24\"\n", 1), a_and_b, "configuration "),
        (&two.replacen("[[bridge]]", "[[bridge]", 1), a_and_b, "line 1: "),
        (&format!("distance = 240\ndistance = 240\n{two}"), a_and_b, "line 2: distance is there twice"),
        (
            &two.replace("name = \"br-b\"", "name = \"br-b\"\nname = \"br-c\""),
            &["br-a", "br-b", "br-c"],
            "name is there twice",
        ),
        // Wrong types, wrong values.
        (&format!("protocol = \"132\"\n{two}"), a_and_b, "line 1: "),
        (&format!("mac-prefix = 2\n{two}"), a_and_b, "line 1: "),
        (&format!("{two}mtu = 1\n"), a_and_b, "mtu = 1 of bridge br-b"),
        (&format!("{two}[[bridge]]\nname = \"br-a\"\n"), a_and_b, "two [[bridge]] tables"),
        ("[bridge]\nname = \"br-a\"\n", &["br-a"], "two brackets"),
        ("[[brigde]]\nname = \"br-a\"\n", &["br-a"], "there is no table [[brigde]]"),
        ("[[bridge]]\nnaem = \"br-a\"\n", &["br-a"], "there is no key naem "),
        ("bridge = [\"br-a\"]\n[watch]\nresync = \"0s\"\n", fallback, "line 1: "),
        ("bridge = [{ name = \"br-a\" }, { name = \"br-b\" }]\nx = 1\n", a_and_b, "there is no key x "),
        ("[[bridge]]\ngateway = \"10.0.0.1\"\n", fallback, "gateway"),
        ("[[bridge]]\nname = br-a\n", &["br-a"], "line 2: "),
    ] {
        broken.hooks.configure(toml);
        broken.check(toml, managed, sentence);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_file_that_cannot_be_read_is_a_mistake_too() {
    let broken = Broken::new();
    let file = broken.hooks.file();
    fs::write(&file, b"# caf\xe9\n[[bridge]]\nname = \"br-a\"\n").unwrap();
    broken.check("Latin-1", &["br-a"], "cannot read it");
    fs::remove_file(&file).unwrap();
    broken.check("named by TAP32_CONFIG and not there", &["br-l2"], "cannot read it");
    fs::create_dir(&file).unwrap();
    broken.check("a directory", &["br-l2"], "cannot read it");
    fs::remove_dir(&file).unwrap();
    symlink("/proc/self/mem", &file).unwrap();
    broken.check("an error of the disk", &["br-l2"], "cannot read it");
}

/// Also one with another protocol, through a bridge that is not br-l2.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_guest_leaves_while_the_file_is_broken() {
    let broken = Broken::new();
    let host = &broken.host;
    host.ok("ip link add br-a address 02:00:00:00:00:02 type bridge");
    host.ok("ip addr add 10.0.1.1/24 dev br-a");
    host.ok("ip link set br-a up");
    broken.hooks.configure("protocol = 133\n[[bridge]]\nname = \"br-a\"\ngate = 1\n[watch\nresync = \"1s\"\n");
    for nic in [on_bridge("br-a"), in_network("ours")] {
        host.ok(&format!("ip route add 10.0.1.10/32 dev br-a proto 133 scope link metric {SETTLED}"));
        let stopped = domain(&nic).replace("52:54:00:00:00:01", "02:42:0a:00:01:0a");
        let output = broken.hooks.call_after(host, &networks("br-a"), "stopped", &stopped);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert_eq!(host.ok("ip route show proto 133"), "", "{nic}: {}", text(&output.stderr));
    }
    // And one whose routes are as ever.
    host.add_tap("vnet0");
    host.tap32(&format!("up vnet0 --mac {GUEST}"));
    host.ok("ip link del vnet0");
    broken.hooks.configure("protocl = 1\n");
    broken.hooks.call(host, "release", &domain(&on_bridge("br-l2")).replace("52:54:00:00:00:01", GUEST));
    assert!(host.owned().is_empty());
}
