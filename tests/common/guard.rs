//! A tap's guard as `tc` shows it, and configurations with and without one.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;
use tap32::addr::{GuestMac, MacPrefix, parse_mac};
use tap32::guest::guard;

use super::{Host, text};

/// A filter as another program could have it: lets every frame pass.
pub const PASSES_ALL: &str = "bpf da bytecode '1,6 0 0 4294967295'";

/// What `bridge fdb flush dev br-l2` does, also before Linux 5.19, which has no NLM_F_BULK.
pub const FLUSH_FDB: &str = r"bridge fdb flush dev br-l2 2>/dev/null || bridge fdb show br br-l2 |
    sed -n 's/^\([^ ]* dev [^ ]*\) master br-l2.*/\1/p' |
    while read -r entry; do bridge fdb del $entry master 2>/dev/null || bridge fdb del $entry self; done";

/// The program of a guest, as people type it.
pub fn program(mac: &str) -> String {
    guard::program(GuestMac::new(parse_mac(mac).unwrap(), MacPrefix::default()).unwrap()).to_string()
}

/// The program at the guard's place among filters as `tc -j` shows them; empty if there is none.
pub fn typed(filters: &[Value]) -> String {
    let is_guard = |filter: &&Value| {
        let options = &filter["options"];
        filter["pref"] == 1
            && filter["protocol"] == "all"
            && filter["kind"] == "bpf"
            && options["handle"] == "0x84"
            && options["direct-action"] == true
    };
    let Some(found) = filters.iter().find(is_guard) else { return String::new() };
    let instructions = found["options"]["bytecode"]["insns"].as_array().unwrap();
    let typed = |i: &Value| format!("{} {} {} {}", i["code"], i["jt"], i["jf"], i["k"]);
    let typed: Vec<String> = instructions.iter().map(typed).collect();
    format!("{},{}", typed.len(), typed.join(","))
}

impl Host {
    pub fn tc(&self, line: &str) {
        self.sh(&format!("tc {line}"));
    }

    /// The filters on a tap's ingress or egress; none where there is no clsact.
    pub fn filters(&self, tap: &str, hook: &str) -> Vec<Value> {
        let output = self.run(&format!("tc -j filter show dev {tap} {hook}"));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let all = all.as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|filter| !filter["options"].is_null()).collect()
    }

    /// The program at the guard's place, as people type it; empty if there is none.
    pub fn guard(&self, tap: &str) -> String {
        typed(&self.filters(tap, "ingress"))
    }

    pub fn is_guarded(&self, tap: &str, mac: &str) -> bool {
        self.guard(tap) == program(mac)
    }

    pub fn has_qdisc(&self, tap: &str, kind: &str) -> bool {
        let all = self.json(&format!("tc -j qdisc show dev {tap}"));
        all.as_array().unwrap().iter().any(|qdisc| qdisc["kind"] == kind)
    }

    /// All that traffic control has at a tap's ends, to be compared before and after.
    pub fn traffic_control(&self, tap: &str) -> String {
        let qdiscs = self.ok(&format!("tc qdisc show dev {tap}"));
        let ends = qdiscs.lines().filter(|line| line.contains(" ffff: ")).collect::<Vec<_>>().join("\n");
        let filters =
            ["ingress", "egress"].map(|hook| text(&self.run(&format!("tc filter show dev {tap} {hook}")).stdout));
        ends + "\n" + &filters.concat()
    }

    /// The ports that a bridge has this MAC on, each with whether it is the port's own. A kernel with
    /// CONFIG_BRIDGE_VLAN_FILTERING has each port's own MAC once more in each of its VLANs.
    pub fn ports_with(&self, mac: &str) -> Vec<(String, bool)> {
        let entries = self.json("bridge -j fdb show br br-l2");
        let is_its = |entry: &&Value| entry["mac"] == mac && entry["master"] == "br-l2" && entry["vlan"].is_null();
        let entries = entries.as_array().unwrap().iter().filter(is_its);
        entries.map(|entry| (super::string(&entry["ifname"]), entry["state"] == "permanent")).collect()
    }
}

/// A configuration file, gone when dropped; prints as the option that names it.
pub struct Toml(PathBuf);

impl Toml {
    pub fn new(host: &Host, text: &str) -> Self {
        let file = std::env::temp_dir().join(format!("{}.toml", host.name));
        std::fs::write(&file, text).unwrap();
        Self(file)
    }

    /// br-l2 with `guard = false`.
    pub fn unguarded(host: &Host) -> Self {
        Self::new(host, "[[bridge]]\nname = \"br-l2\"\nguard = false\n")
    }
}

impl fmt::Display for Toml {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "--config {}", self.0.display())
    }
}

impl Drop for Toml {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
