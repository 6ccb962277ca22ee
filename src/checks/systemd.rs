//! Which interfaces a file of systemd is for: `[Match]` of .network and .link files.

use glob::Pattern;

use super::facts::{Facts, NetworkFile};
use crate::addr;
use crate::host::networkd::entries;

/// Taps as libvirt and QEMU name them, for none may be there yet.
pub const USUAL: [&str; 2] = ["vnet0", "tap0"];

/// The taps that are there.
pub fn taps(facts: &Facts) -> Vec<Candidate<'_>> {
    let all = facts.snapshot.links.iter().chain(&facts.taps_alone);
    let tap = |name, mac| Candidate { name, mac, is_bridge: false, is_usual: false };
    all.map(|link| tap(link.name.as_str(), addr::show(link.mac))).collect()
}

/// An interface as the conditions of a file see it.
pub struct Candidate<'a> {
    pub name: &'a str,
    /// Empty where there is none yet.
    pub mac: String,
    pub is_bridge: bool,
    /// Whether there is none of this name yet.
    pub is_usual: bool,
}

impl<'a> Candidate<'a> {
    /// A tap that is not there yet.
    pub fn usual(name: &'a str) -> Self {
        Self { name, mac: String::new(), is_bridge: false, is_usual: true }
    }

    /// Whether it is the file's: a file without any condition matches nothing (since systemd 243).
    pub fn matches(&self, conditions: &Conditions) -> bool {
        !conditions.is_empty() && conditions.iter().all(|(key, words)| self.meets(key, words))
    }

    /// Whether a key of `[Match]` holds for it, by the rules of systemd.network(5). What is about the machine and not
    /// about the interface (Host=, Virtualization=) may hold.
    fn meets(&self, key: &str, words: &[String]) -> bool {
        let own = match key {
            "Name" | "OriginalName" => self.name,
            // What udev says of a bridge (DEVTYPE); of a tap it says nothing, and the kernel says ether.
            "Type" if self.is_bridge => "bridge",
            "Type" => "ether",
            "Kind" | "Driver" if self.is_bridge => "bridge",
            "Kind" | "Driver" => "tun",
            "MACAddress" => &self.mac,
            "PermanentMACAddress" | "Path" | "Property" | "WLANInterfaceType" | "SSID" | "BSSID" => "",
            _ => return true,
        };
        let matches = |pattern: &str| {
            let pattern = if key == "MACAddress" { pattern.to_lowercase() } else { pattern.to_owned() };
            !own.is_empty() && Pattern::new(&pattern).is_ok_and(|pattern| pattern.matches(own))
        };
        // systemd puts the "!" before each word of its list (net_condition_test_strv).
        let denied: Vec<_> = words.iter().filter_map(|word| word.strip_prefix('!')).collect();
        let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('!')).collect();
        !denied.into_iter().any(matches) && (wanted.is_empty() || wanted.into_iter().any(|word| matches(word)))
    }
}

/// Keys of `[Match]` and their words, each with its own "!".
pub type Conditions<'a> = Vec<(&'a str, Vec<String>)>;

/// What the conditions of a file come to: each key and its words. One without a value empties the list before it, and
/// "!" before the first word is for all words of the line.
pub fn conditions(file: &NetworkFile) -> Conditions<'_> {
    let mut all = Conditions::new();
    for (key, value) in entries(&file.text, "Match") {
        let (not, value) = value.strip_prefix('!').map_or(("", value), |rest| ("!", rest));
        let words = value.split_whitespace().map(|word| format!("{not}{}", word.trim_matches(['"', '\''])));
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, list)) if value.is_empty() => list.clear(),
            Some((_, list)) => list.extend(words),
            None => all.push((key, words.collect())),
        }
    }
    all.retain(|(_, words)| !words.is_empty());
    all
}
