//! NICs that are plugged into a running QEMU, of which its command line says nothing: never a wrong address. A real QEMU,
//! in a namespace; they need root: `sudo tests/run`.

mod common;

use std::io::Read as _;

use common::qemu::{Scripts, answer, ask, quit, start};
use common::{Background, Host, settled, string, text, wait_for};
use serde_json::{Value, json};

/// A QEMU with one NIC on vnet0, whose MAC is that of 10.0.0.10.
struct Running {
    host: Host,
    scripts: Scripts,
    qemu: Background,
}

impl Running {
    fn new(more: &[&str]) -> Self {
        let host = Host::new();
        Self::on(host, more)
    }

    fn on(host: Host, more: &[&str]) -> Self {
        let scripts = Scripts::new(&host);
        let netdev = format!("tap,id=n0,ifname=vnet0,{}", scripts.options());
        // A card that can be unplugged without its guest's leave.
        let device = "usb-net,id=d0,netdev=n0,mac=02:42:0a:00:00:0a";
        let arguments = [&["-usb", "-netdev", &netdev, "-device", device][..], more].concat();
        let qemu = start(&host, &scripts, &arguments);
        wait_for("the route", 20, || host.owned() == [settled("10.0.0.10")]);
        // The guest's processors run, or would but for -S.
        ask(&scripts, &json!({"execute": "query-status"}));
        Self { host, scripts, qemu }
    }

    /// The card first: QEMU 10 keeps a netdev's tap open as long as a card is behind it.
    fn unplug(&self) {
        ask(&self.scripts, &json!({"execute": "device_del", "arguments": {"id": "d0"}}));
        ask(&self.scripts, &json!({"execute": "netdev_del", "arguments": {"id": "n0"}}));
    }

    fn plug(&self, netdev: &Value) -> Value {
        answer(&self.scripts, &json!({"execute": "netdev_add", "arguments": netdev}))
    }

    fn netdev(&self, tap: Option<&str>) -> Value {
        let script = |name: &str| self.scripts.0.join(name).display().to_string();
        let (up, down) = (script("qemu-ifup"), script("qemu-ifdown"));
        let mut netdev = json!({"type": "tap", "id": "n1", "script": up, "downscript": down});
        if let Some(tap) = tap {
            netdev["ifname"] = tap.into();
        }
        netdev
    }

    /// Interfaces, ports and their guards, tap32's routes and neighbour entries.
    fn seen(&self) -> String {
        self.host.sh("ls /sys/class/net /sys/class/net/br-l2/brif; for tap in $(ls /sys/class/net/br-l2/brif); do \
             tc filter show dev $tap ingress; done; ip route show proto 132; ip neigh show nud permanent dev br-l2")
    }

    /// The netdev must be refused, and change nothing.
    fn is_refused(&self, netdev: &Value) {
        let before = self.seen();
        let answer = self.plug(netdev);
        assert!(string(&answer["error"]["desc"]).contains("failed with status"), "{netdev}: {answer}");
        assert_eq!(self.seen(), before, "{netdev}");
    }

    /// What tap32 said on QEMU's stderr.
    fn said(mut self) -> String {
        quit(&self.scripts);
        let mut said = Vec::new();
        self.qemu.0.stderr.take().unwrap().read_to_end(&mut said).unwrap();
        text(&said)
    }
}

const SENTENCE: &str = "plugged vnet0 in while its guest ran, so its command line does not say which guest MAC is behind it: plug it in with \
     script=no and run `tap32 up vnet0 --mac 02:42:AA:BB:CC:DD`";

/// Under the name of the first, under another, and under none.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn what_is_plugged_in_later_is_refused() {
    // With threads beside those of the processor, as many a QEMU has; and paused.
    for more in [&[][..], &["-S"], &["-object", "iothread,id=t0", "-object", "iothread,id=t1"], &["-smp", "2", "-S"]] {
        let running = Running::new(more);
        running.unplug();
        assert!(running.host.owned().is_empty());
        for tap in [Some("vnet0"), Some("vnet1"), None] {
            running.is_refused(&running.netdev(tap));
        }
        let said = running.said();
        assert!(said.contains(SENTENCE), "{more:?}: {said}");
        assert!(said.contains("QEMU plugged vnet1 in"), "{more:?}: {said}");
    }
}

/// A QEMU that was started without any tap.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_first_tap_plugged_in_later_is_refused_too() {
    let host = Host::new();
    let scripts = Scripts::new(&host);
    let qemu = start(&host, &scripts, &["-S"]);
    let running = Running { host, scripts, qemu };
    running.is_refused(&running.netdev(Some("vnet0")));
    assert!(running.said().contains(SENTENCE));
}

/// As the sentence says.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn by_hand_it_works() {
    let running = Running::new(&["-S"]);
    let host = &running.host;
    running.unplug();
    let mut netdev = running.netdev(Some("vnet0"));
    netdev["script"] = "no".into();
    assert_eq!(running.plug(&netdev)["error"], Value::Null);
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0b");
    assert_eq!(host.owned(), [settled("10.0.0.11")]);
    let device = json!({"driver": "usb-net", "id": "d1", "netdev": "n1", "mac": "02:42:0a:00:00:0b"});
    ask(&running.scripts, &json!({"execute": "device_add", "arguments": device}));
    ask(&running.scripts, &json!({"execute": "device_del", "arguments": {"id": "d1"}}));
    ask(&running.scripts, &json!({"execute": "netdev_del", "arguments": {"id": "n1"}}));
    assert!(host.owned().is_empty());
    // And with the tap's own MAC, on a tap that outlives its netdev.
    host.add_tap("vnet0");
    host.ok("ip link set dev vnet0 address fe:42:0a:00:00:0c");
    assert!(running.plug(&running.netdev(Some("vnet0")))["error"].is_null());
    assert_eq!(host.owned(), [settled("10.0.0.12")]);
}

/// A tap that outlives its netdev still has the MAC that tap32 gave it for the first.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_mac_of_the_netdev_before_is_not_taken() {
    let host = Host::new();
    host.add_tap("vnet0");
    let running = Running::on(host, &["-S"]);
    running.unplug();
    assert_eq!(running.host.link("vnet0")["address"], "fe:42:0a:00:00:0a");
    running.is_refused(&running.netdev(Some("vnet0")));
    assert!(running.said().contains(SENTENCE));
}

/// Threads and much memory before the guest's own are no guest.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_start_with_many_threads_is_one() {
    let threads: Vec<String> = (0..4).map(|i| format!("iothread,id=t{i}")).collect();
    let mut more = vec!["-S", "-m", "256", "-object", "memory-backend-ram,id=m0,size=256M,prealloc=on"];
    more.extend(["-machine", "memory-backend=m0"]);
    threads.iter().for_each(|thread| more.extend(["-object", thread]));
    Running::new(&more);
}

/// KVM names its descriptors. Who has those of a virtual machine and of no processor yet is starting.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_process_with_a_processor_of_kvm_is_not_starting() {
    const QEMU: &str = "import fcntl, os, subprocess, sys, threading
kvm = os.open('/dev/kvm', os.O_RDWR)
machine = fcntl.ioctl(kvm, 0xAE01, 0)
if sys.argv[1] == 'runs':
    fcntl.ioctl(machine, 0xAE41, 0)
wait = threading.Event()
for _ in range(3):
    threading.Thread(target=wait.wait, daemon=True).start()
sys.exit(subprocess.run([sys.argv[2], 'up', 'vnet0']).returncode)
";
    if std::fs::File::open("/dev/kvm").is_err() {
        println!("not tested: /dev/kvm cannot be opened");
        return;
    }
    let host = Host::new();
    host.add_tap("vnet0");
    let up = |state: &str| {
        let mut python = host.command("python3");
        python.args(["-c", QEMU, state, common::TAP32, "-netdev", "tap,id=n0,ifname=vnet0"]);
        python.args(["-device", "virtio-net-pci,netdev=n0,mac=02:42:0a:00:00:0a"]).output().unwrap()
    };
    let output = up("runs");
    assert!(text(&output.stderr).contains(SENTENCE), "{}", text(&output.stderr));
    assert!(host.owned().is_empty());
    let output = up("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
}
