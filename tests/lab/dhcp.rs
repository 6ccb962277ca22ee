//! Guests that nobody has told anything: dnsmasq tells them, on each host the same.

use std::process::{Command, Stdio};

use crate::common::{Background, wait_for};
use crate::guard::is_guarded;
use crate::harness::{Lab, answered};

const SECOND_BRIDGE: &str = "[[bridge]]\nname = \"br-b\"\ngateway = \"10.0.1.1/24\"\n";

/// A second bridge, of which the hook and FRR know too, and the server as tap32-dhcp.service starts it.
struct Served<'a> {
    lab: &'a Lab,
    _servers: Vec<Background>,
}

impl<'a> Served<'a> {
    fn new(lab: &'a Lab) -> Self {
        std::fs::write(lab.dir.join("br-b"), SECOND_BRIDGE).unwrap();
        let made = "grep -q br-b $dir/$h/tap32.toml || cat $dir/br-b >>$dir/$h/tap32.toml; in_node $h $tap32 setup
            in_node $h $tap32 render frr >$dir/$h/both.conf && in_node $h vtysh -f $dir/$h/both.conf
            hook=$dir/$h/libvirt/etc/hooks/qemu.d/50-tap32; rm $hook
            printf '#!/bin/sh\\nexec %s --config %s libvirt \"$@\"\\n' $tap32 $dir/$h/tap32.toml >$hook; chmod +x $hook
            in_node $h $tap32 render dnsmasq >$dir/$h/dnsmasq.conf; : >$dir/$h/dnsmasq.log";
        lab.sh(&format!("for h in $hosts; do {made}; done"));
        let serve = |host: &&str| {
            let file = |name: &str| lab.dir.join(host).join(name).display().to_string();
            let mut dnsmasq = Command::new("ip");
            dnsmasq.args(["netns", "exec", &format!("tap32lab-{}-{host}", lab.id), "dnsmasq", "--keep-in-foreground"]);
            dnsmasq.args(["--pid-file=", "--user=root", &format!("--conf-file={}", file("dnsmasq.conf"))]);
            dnsmasq.arg(format!("--log-facility={}", file("dnsmasq.log")));
            Background(dnsmasq.stderr(Stdio::null()).spawn().unwrap())
        };
        Self { lab, _servers: lab.hosts.iter().map(serve).collect() }
    }

    /// How often the host's server has given the address.
    fn given(&self, host: &str, address: &str) -> usize {
        let log = std::fs::read_to_string(self.lab.dir.join(host).join("dnsmasq.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("DHCPACK") && line.contains(&format!(" {address} "))).count()
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.lab.try_sh("for h in $hosts; do hook_as_installed $h; in_node $h ip link del br-b; done");
    }
}

/// A guest with two NICs on two bridges of one host and a guest of the same subnet on the other boot with nothing configured,
/// are guarded, reach each other and the client. The first moves, renews there, and keeps its addresses.
pub fn guests_that_are_told_nothing(lab: &Lab) {
    let served = Served::new(lab);
    let untold = "sed 's/ addr=[^ ]* gw=[0-9.]*//'";
    lab.sh(&format!(
        "domain g1 10.0.0.10 | {untold} >$dir/g1.xml
         $tap32 --config $dir/h1/tap32.toml render libvirt 10.0.1.10 | sed \"s|<model type='virtio'/>|&<driver \
         ioeventfd='off'/><rom enabled='no'/>|\" >$dir/nic.xml
         sed -i \"/<serial/e cat $dir/nic.xml\" $dir/g1.xml
         domain g2 10.0.0.11 10.0.0.10 | {untold} >$dir/g2.xml
         lab_virsh h1 define $dir/g1.xml; lab_virsh h1 start g1; lab_virsh h2 define $dir/g2.xml; lab_virsh h2 start g2"
    ));
    for address in ["10.0.0.10", "10.0.1.10", "10.0.0.11"] {
        wait_for(&format!("{address} answers"), 90, || lab.answers(address));
    }
    wait_for("g2 reaches g1", 30, || answered(&lab.console("g2")).len() > 10);
    assert!(served.given("h1", "10.0.0.10") > 0 && served.given("h1", "10.0.1.10") > 0);
    assert!(served.given("h2", "10.0.0.11") > 0 && served.given("h2", "10.0.0.10") == 0);
    let guarded = |host: &str, bridge: &str, address: &str| {
        let taps = lab.json(host, &format!("ip -j link show type tun master {bridge}"));
        let taps: Vec<_> = taps.as_array().unwrap().iter().map(|tap| tap["ifname"].as_str().unwrap()).collect();
        taps.iter().any(|tap| is_guarded(lab, host, tap, address))
    };
    assert!(guarded("h1", "br-l2", "10.0.0.10") && guarded("h1", "br-b", "10.0.1.10"));

    let told = lines_told(lab);
    assert_eq!(told.iter().filter(|line| line.starts_with("bound")).count(), 2, "{told:?}");

    let (moved, said) = lab.try_sh(&lab.migrate("h1", "g1", ""));
    assert!(moved, "{said}");
    for address in ["10.0.0.10", "10.0.1.10"] {
        wait_for(&format!("{address} renews on h2"), 30, || served.given("h2", address) > 1);
        wait_for(&format!("{address} answers"), 10, || lab.answers(address));
    }
    assert!(guarded("h2", "br-l2", "10.0.0.10") && guarded("h2", "br-b", "10.0.1.10"));
    // libvirt begins the console anew. A line may be on its way yet when dnsmasq has said its word.
    wait_for("the guest tells of its renewals", 30, || lines_told(lab).len() > 2);
    let told = lines_told(lab);
    let renews =
        |line: &String| line.starts_with("renew eth0 10.0.0.10/24 ") || line.starts_with("renew eth1 10.0.1.10/24 ");
    assert!(told.iter().all(renews), "{told:?}");
    lab.end("h2", "g2", "10.0.0.11");
    lab.end("h2", "g1", "10.0.0.10");
    lab.gone("10.0.1.10");
}

/// What udhcpc said in g1.
fn lines_told(lab: &Lab) -> Vec<String> {
    let console = lab.console("g1");
    // A line of the kernel's ends with a carriage return, and the last one may be half.
    let whole = console.rfind('\n').map_or("", |end| &console[..end]);
    whole.lines().filter_map(|line| line.strip_prefix("dhcp ")).map(str::to_owned).collect()
}
