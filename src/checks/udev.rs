//! Whether udev leaves a tap its MAC, which names the guest.
//!
//! MACAddressPolicy= gives an interface whose MAC is the kernel's random one another (link_generate_new_hw_addr). udev
//! looks at a new tap while libvirt or tap32 sets its MAC, and may overwrite it milliseconds later.

use super::facts::{Facts, NetworkFile};
use super::row::Row;
use super::systemd::{Candidate, USUAL, conditions, taps};
use crate::host::networkd::entries;
use crate::text::quote;

pub fn rows(facts: &Facts) -> Vec<Row> {
    let check = "udev MACAddressPolicy";
    if !facts.machine.udev {
        return vec![Row::ok(check, "udev does not run")];
    }
    let mut candidates = taps(facts);
    if candidates.is_empty() {
        candidates.extend(USUAL.iter().map(|name| Candidate::usual(name)));
    }
    let files: Vec<_> = facts.machine.link_files.iter().map(|file| (file, conditions(file))).collect();
    let mut found: Vec<(&NetworkFile, Vec<String>)> = Vec::new();
    for mut candidate in candidates {
        // As the tap is when udev sees it: with a MAC that nobody has set.
        candidate.mac.clear();
        let first = files.iter().find(|(_, conditions)| candidate.matches(conditions)).map(|(file, _)| *file);
        let Some(file) = first.filter(|file| policy(file).is_some()) else { continue };
        let names = pattern(candidate.name);
        match found.iter_mut().find(|(known, _)| known.path == file.path) {
            Some((_, list)) if list.contains(&names) => {}
            Some((_, list)) => list.push(names),
            None => found.push((file, vec![names])),
        }
    }
    if found.is_empty() {
        return vec![Row::ok(check, "taps keep the MAC that they are given")];
    }
    found.iter().map(|(file, names)| row(check, file, names)).collect()
}

/// What the file says that changes MACs.
fn policy(file: &NetworkFile) -> Option<&str> {
    let last = entries(&file.text, "Link").into_iter().rev().find(|(key, _)| *key == "MACAddressPolicy");
    last.map(|(_, value)| value).filter(|value| ["persistent", "random"].contains(value))
}

/// Names like this one: `tap*` for `tap12`.
fn pattern(name: &str) -> String {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.is_empty() || stem == name { name.to_owned() } else { format!("{stem}*") }
}

fn row(check: &str, file: &NetworkFile, names: &[String]) -> Row {
    let (names, policy) = (names.join(" "), policy(file).unwrap_or_default());
    let seen = format!(
        "{} has {policy} for {names}: udev may give a new tap another MAC after `up`; `tap32 watch` gives it back",
        file.path
    );
    // Read before the file that matches now.
    let matched = file.path.rsplit('/').next().unwrap_or_default();
    let name = ["97-tap32-taps.link", "00-tap32-taps.link"].into_iter().find(|name| *name < matched);
    let link = "[Link]\\nNamePolicy=keep kernel database\\nMACAddressPolicy=none\\n";
    let text = format!("[Match]\\nOriginalName={names}\\nDriver=tun\\n\\n{link}");
    let fix = |name| format!("mkdir -p /etc/systemd/network && printf {} >/etc/systemd/network/{name}", quote(&text));
    Row::warn(format!("{check} {matched}"), seen).fix(name.map(fix))
}
