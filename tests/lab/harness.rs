//! The lab as the scenarios see it: nodes, guests, and the client's 16 flows.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::{TAP32, text, wait_for};

pub struct Lab {
    pub id: String,
    pub dir: PathBuf,
    /// `ospf`, `bgp`, or `mdu`: two MDUs, with BGP.
    pub shape: &'static str,
    /// `ospf` or `bgp`.
    pub fabric: &'static str,
    pub hosts: &'static [&'static str],
}

impl Lab {
    pub fn up(shape: &'static str) -> Self {
        let id = std::process::id().to_string();
        let dir = PathBuf::from("/var/tmp/tap32-lab").join(&id);
        let (fabric, hosts): (_, &[_]) = match shape {
            "mdu" => ("bgp", &["h1", "h2", "h3", "h4"]),
            fabric => (fabric, &["h1", "h2"]),
        };
        let lab = Self { id, dir, shape, fabric, hosts };
        let mut up = Command::new("tests/lab/up");
        up.env("TAP32_LAB", &lab.id).arg(shape).stdin(Stdio::null());
        assert!(up.status().unwrap().success(), "tests/lab/up");
        lab
    }

    /// Runs a line of bash with the lab's functions, which must succeed.
    pub fn sh(&self, line: &str) -> String {
        let (ok, out) = self.try_sh(line);
        assert!(ok, "{line}: {out}");
        out
    }

    pub fn try_sh(&self, line: &str) -> (bool, String) {
        let script = format!(". tests/lab/lib.sh; {line}");
        let output = Command::new("bash").args(["-c", &script]).env("TAP32_LAB", &self.id).output().unwrap();
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    }

    pub fn node(&self, node: &str, line: &str) -> String {
        self.sh(&format!("in_node {node} {line}"))
    }

    pub fn json(&self, node: &str, line: &str) -> Value {
        let out = self.node(node, line);
        if out.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&out).unwrap() }
    }

    /// Metrics of our routes to an address on a host, sorted.
    pub fn owned(&self, host: &str, address: &str) -> Vec<u64> {
        let routes = self.json(host, &format!("ip -j route show proto 132 exact {address}/32"));
        let mut metrics: Vec<u64> = routes.as_array().unwrap().iter().map(|r| r["metric"].as_u64().unwrap()).collect();
        metrics.sort_unstable();
        metrics
    }

    /// Whether the core has a route to the address.
    pub fn in_fabric(&self, address: &str) -> bool {
        self.json("core", &format!("ip -j route show exact {address}/32")).as_array().is_some_and(|r| !r.is_empty())
    }

    /// How often a BFD session of any node has gone down since the lab came up.
    pub fn links_lost(&self) -> u64 {
        let all = self.sh("for node in ${nodes#client }; do node_vtysh $node -c 'show bfd peers counters json'; done");
        let count = |peers: Value| {
            peers.as_array().unwrap().iter().map(|peer| peer["session-down"].as_u64().unwrap()).sum::<u64>()
        };
        serde_json::Deserializer::from_str(&all).into_iter().map(|peers| count(peers.unwrap())).sum()
    }

    pub fn claimers(&self, host: &str) -> usize {
        let pids = self.sh(&format!("ip netns pids $(ns {host})"));
        let claims = |pid: &&str| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).starts_with("tap32\0arrival"))
        };
        pids.split_whitespace().filter(claims).count()
    }

    pub fn virsh(&self, host: &str, line: &str) -> String {
        self.sh(&format!("lab_virsh {host} {line}"))
    }

    pub fn define(&self, host: &str, name: &str, address: &str, peer: &str) {
        self.sh(&format!("domain {name} {address} {peer} >$dir/{name}.xml; lab_virsh {host} define $dir/{name}.xml"));
    }

    pub fn console(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(format!("{name}.console"))).unwrap_or_default()
    }

    pub fn answers(&self, address: &str) -> bool {
        self.try_sh(&format!("in_node client ping -c 1 -W 0.4 -I 172.31.0.1 {address}")).0
    }

    /// Starts a guest, which boots meanwhile.
    pub fn begin(&self, host: &str, name: &str, address: &str, peer: &str) {
        self.define(host, name, address, peer);
        self.virsh(host, &format!("start {name}"));
    }

    pub fn has_booted(&self, name: &str, address: &str) {
        wait_for(&format!("{name} answers"), 90, || self.answers(address));
    }

    /// Starts a guest and waits until the client reaches it.
    pub fn start(&self, host: &str, name: &str, address: &str, peer: &str) {
        self.begin(host, name, address, peer);
        self.has_booted(name, address);
    }

    /// g1 on h1, as an earlier scenario left it, or a new one.
    pub fn have_g1(&self) {
        let runs = self.try_sh("lab_virsh h1 domstate g1").1.contains("running");
        if !runs || !self.answers("10.0.0.10") {
            self.end("h1", "g1", "10.0.0.10");
            self.start("h1", "g1", "10.0.0.10", "");
        }
    }

    /// After a scenario that failed anywhere, so that the next one starts clean: what is not there fails, and the others
    /// go on.
    pub fn clean_up(&self) {
        let (_, said) = self.try_sh(CLEAN_UP);
        assert!(said.contains("the clean-up's end\n"), "the clean-up did not come to its end: {said}");
    }

    /// Ends a guest, and everything about it must be gone everywhere.
    pub fn end(&self, host: &str, name: &str, address: &str) {
        self.try_sh(&format!("lab_virsh {host} destroy {name}"));
        for host in self.hosts {
            self.try_sh(&format!("lab_virsh {host} undefine {name}"));
        }
        self.gone(address);
        let _ = std::fs::remove_file(self.dir.join(format!("{name}.console")));
    }

    pub fn gone(&self, address: &str) {
        wait_for(&format!("{address} is gone everywhere"), 20, || {
            self.hosts.iter().all(|host| self.owned(host, address).is_empty() && self.claimers(host) == 0)
                && !self.in_fabric(address)
        });
    }

    /// The command that moves a guest to the other host of two.
    pub fn migrate(&self, from: &str, name: &str, options: &str) -> String {
        self.migrate_to(from, if from == "h1" { "h2" } else { "h1" }, name, options)
    }

    pub fn migrate_to(&self, from: &str, to: &str, name: &str, options: &str) -> String {
        format!(
            "to=$(loopback {to}); lab_virsh {from} migrate --live --unsafe --persistent {options} {name} \
             qemu+tcp://$to/system tcp://$to"
        )
    }

    /// The guest's own downtime in ms of the migration that `host` was the source of.
    pub fn downtime(&self, host: &str, name: &str) -> f64 {
        let info = self.virsh(host, &format!("domjobinfo {name} --completed"));
        let line = info.lines().find(|line| line.starts_with("Total downtime:")).unwrap_or_else(|| panic!("{info}"));
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}

const CLEAN_UP: &str = r#"set +eu
    hook_mode tap32
    for h in $hosts; do
        # In a shell of its own, which `die` ends.
        lab_virsh $h list || (libvirtd_start $h; until_true 30 libvirtd lab_virsh $h list)
        for g in $(lab_virsh $h list --name); do lab_virsh $h destroy $g; done
        for g in $(lab_virsh $h list --all --name); do lab_virsh $h undefine $g; done
        lab_virsh $h net-destroy fabric
        lab_virsh $h net-undefine fabric
        for p in $(ip netns pids $(ns $h)); do grep -q ^qemu-system /proc/$p/comm && kill -9 $p; done
        in_node $h ip route flush proto 132
        in_node $h ip route flush table local proto boot
    done
    for n in ${nodes#client }; do
        in_node $n nft delete table netdev cut
        for i in $(in_node $n ip -o link show type veth | cut -d' ' -f2 | cut -d@ -f1); do
            in_node $n ip link set $i up
        done
    done
    for u in $(in_node h1 $tap32 uplink list --json | jq -r '.uplinks[].uplink'); do
        in_node h1 $tap32 uplink restore $u
    done
    rm -f $dir/*.console
    echo "the clean-up's end"
"#;

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("tests/lab/down").env("TAP32_LAB", &self.id).status();
    }
}

/// The 16 flows, from `new` to `stop`.
pub struct Probe(Child);

impl Probe {
    pub fn new(lab: &Lab, address: &str) -> Self {
        let probe = PathBuf::from(TAP32).with_file_name("examples").join("probe");
        assert!(probe.exists(), "{}", probe.display());
        let mut command = Command::new("ip");
        // Ahead of the guests: a late echo would look like a lost one.
        command.args(["netns", "exec", &format!("tap32lab-{}-client", lab.id), "nice", "-n", "-10"]);
        command.arg(probe).arg(address).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    pub fn stop(mut self) -> Value {
        drop(self.0.stdin.take());
        serde_json::from_slice(&self.0.wait_with_output().unwrap().stdout).unwrap()
    }
}

/// Whether a guest's kernel says that it or its NIC broke. Under TCG it now and then does after a migration ("list_add
/// corruption"; "virtio_net virtio0: output.0:id 0 is not a head!", after which the guest neither sends nor hears): no
/// fault of the routes, and tried again at most twice.
pub fn crashed(console: &str) -> bool {
    ["Kernel panic", "kernel BUG", "Oops", "is not a head"].iter().any(|word| console.contains(word))
}

/// When, in ms since the probe's start, each lost echo was sent.
pub fn lost_times(seen: &Value) -> Vec<f64> {
    seen["lost"].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect()
}

/// The load runs for a while, on purpose: there is no state to wait for.
pub fn sleep(seconds: u64) {
    std::thread::sleep(std::time::Duration::from_secs(seconds));
}

/// Sequence numbers of the answers that a guest's own ping printed.
pub fn answered(console: &str) -> Vec<u64> {
    console.lines().filter_map(|line| line.split("seq=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
}

/// How many hosts announce the address, as the core hears it.
pub fn announcers(lab: &Lab, address: &str) -> usize {
    if lab.fabric == "bgp" {
        let paths = lab.sh(&format!("node_vtysh core -c 'show bgp ipv4 unicast {address}/32 json'"));
        let paths: Value = serde_json::from_str(&paths).unwrap();
        // A path ends with the AS in which it began.
        let origin = |path: &Value| path["aspath"]["string"].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
        return paths["paths"].as_array().into_iter().flatten().map(origin).collect::<BTreeSet<_>>().len();
    }
    // An LSA of 3600 s is on its way out.
    let database = lab.sh(&format!("node_vtysh core -c 'show ip ospf database external {address}'"));
    let lsas = database.split("LS age: ").skip(1);
    lsas.filter(|lsa| !lsa.starts_with("3600") && lsa.contains("Advertising Router: 10.255.1.")).count()
}

/// What a scenario finds: g1 on h1, running as the one before it may have left it, which makes a boot less; or no guest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    G1,
    NoGuest,
}

pub type Scenario = (&'static str, Finds, fn(&Lab));
