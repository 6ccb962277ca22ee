//! Which network manager configures an interface: systemd-networkd, NetworkManager or ifupdown, as their own files say.
//! Asks no daemon: `setup` runs at boot, when none may answer yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use glob::{Pattern, glob};

use crate::host::networkd::{boolean, entries};
use crate::host::{Manager, Owner};

/// Where networkd and its kin read their files, the later folder over the earlier (systemd.network(5)).
const SYSTEMD: [&str; 4] = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];
const PROFILES: [&str; 2] = ["/etc/NetworkManager/system-connections", "/run/NetworkManager/system-connections"];
const INTERFACES: &str = "/etc/network/interfaces";

/// The manager of the interface `name`, which has this index if it exists already.
///
/// The managers live in the network namespace of process 1. In any other, an interface of this name or index is a
/// different one, which nobody manages.
pub fn of(name: &str, index: Option<u32>) -> Option<Owner> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    if namespace("1").is_some_and(|first| namespace("self").is_some_and(|ours| ours != first)) {
        return None;
    }
    let owner = |manager: Manager| move |file| Owner { interface: name.to_owned(), manager, file };
    let found = networkd(name, index)
        .map(owner(Manager::Networkd))
        .or_else(|| network_manager(name, index).map(owner(Manager::NetworkManager)));
    // Both take netplan's files too; people change those that netplan makes them of.
    match (found, netplan(name)) {
        (Some(found), Some(file)) => Some(Owner { file, ..found }),
        (None, Some(file)) => Some(owner(Manager::Netplan)(file)),
        (found, None) => found.or_else(|| ifupdown(name).map(owner(Manager::Ifupdown))),
    }
}

/// netplan's files (netplan-generate(8)), as far as people write them.
pub fn netplan_files() -> Vec<PathBuf> {
    files("/etc/netplan").into_iter().filter(|file| file.extension().is_some_and(|it| it == "yaml")).collect()
}

/// The file that has the interface as a key. Not for the loopback, as with [`ifupdown`].
fn netplan(name: &str) -> Option<String> {
    let has_key = |line: &str| {
        let key = line.split(':').next().unwrap_or_default().trim();
        line.contains(':') && key.trim_matches(['"', '\'']) == name
    };
    let names = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default().lines().any(has_key);
    netplan_files().into_iter().filter(|_| name != "lo").find(names).map(|file| file.display().to_string())
}

/// networkd writes down whether it manages an interface as soon as it has looked at it (sd-network, link state). Until
/// then, and for an interface that does not exist yet, its files decide, if networkd is in use.
fn networkd(name: &str, index: Option<u32>) -> Option<String> {
    let state = index.and_then(|index| fs::read_to_string(format!("/run/systemd/netif/links/{index}")).ok());
    let state = state.unwrap_or_default();
    let field = |key: &str| state.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if field("ADMIN_STATE") == Some("unmanaged") {
        return None;
    }
    if let Some(file) = field("NETWORK_FILE") {
        return Some(file.to_owned());
    }
    if !Path::new("/run/systemd/netif/state").exists() {
        return None;
    }
    let texts = |kind: &'static str| {
        let files = by_name("network").into_iter().filter(move |file| file.extension().is_some_and(|it| it == kind));
        files.map(|file| (fs::read_to_string(&file).unwrap_or_default(), file))
    };
    let made = texts("netdev").find(|(text, _)| entries(text, "NetDev").contains(&("Name", name)));
    // The first that matches decides, also when it says that networkd shall leave the interface alone.
    let kept = || {
        let (text, file) = texts("network").find(|(text, _)| matches(text, name))?;
        let unmanaged = |(key, value): &(&str, &str)| *key == "Unmanaged" && boolean(value) == Some(true);
        (!entries(&text, "Link").iter().any(unmanaged)).then_some((text, file))
    };
    made.or_else(kept).map(|(_, file)| file.display().to_string())
}

/// Whether a .network file is for interfaces of this name. A file with other conditions as well (Type=, Driver=,
/// MACAddress=) does not count: only networkd knows whether it matches, once the interface exists.
fn matches(text: &str, name: &str) -> bool {
    match entries(text, "Match")[..] {
        [("Name", patterns)] => {
            patterns.split_whitespace().any(|pattern| Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name)))
        }
        _ => false,
    }
}

/// The files of one of systemd's folders by their names; of two with one name that in the later of [`SYSTEMD`], which
/// may be a link to /dev/null and hide the others (systemd.network(5)).
fn by_name(folder: &str) -> Vec<PathBuf> {
    let all = |systemd: &&str| fs::read_dir(format!("{systemd}/{folder}")).into_iter().flatten().flatten();
    let files = SYSTEMD.iter().flat_map(all).map(|entry| entry.path()).filter(|path| !path.is_dir());
    let by_name: BTreeMap<_, _> = files.map(|file| (file.file_name().map(std::ffi::OsStr::to_owned), file)).collect();
    by_name.into_values().collect()
}

/// NetworkManager's own note on a device (nm-config.c, device state). If the device has no connection yet, or does not
/// exist yet, the profiles that name it. A device that NetworkManager only watches, because another made it, has neither.
fn network_manager(name: &str, index: Option<u32>) -> Option<String> {
    if !Path::new("/run/NetworkManager").exists() {
        return None;
    }
    if let Some(index) = index {
        let file = format!("/run/NetworkManager/devices/{index}");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let device = entries(&text, "device");
        if device.contains(&("managed", "false")) {
            return None;
        }
        if device.iter().any(|(key, _)| *key == "connection-uuid") {
            return Some(file);
        }
    }
    let names = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let profile = entries(&text, "connection");
        profile.contains(&("interface-name", name)) && !profile.contains(&("autoconnect", "false"))
    };
    PROFILES.iter().flat_map(|folder| files(folder)).find(names).map(|file| file.display().to_string())
}

/// A stanza. Not for the loopback: every Debian has one, which says nothing about other addresses.
fn ifupdown(name: &str) -> Option<String> {
    // Debian's own file has a `source` line (interfaces(5)) for the folder that is read anyway.
    let main = fs::read_to_string(INTERFACES).unwrap_or_default();
    let sourced = main.lines().filter_map(|line| glob(line.trim().strip_prefix("source ")?.trim()).ok()).flatten();
    let sourced = sourced.filter_map(Result::ok).chain(files(&format!("{INTERFACES}.d")));
    let has_stanza = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .any(|line| matches!(line.split_whitespace().collect::<Vec<_>>()[..], ["iface", of, ..] if of == name))
    };
    let all = [PathBuf::from(INTERFACES)].into_iter().chain(sourced);
    all.into_iter().filter(|_| name != "lo").find(has_stanza).map(|file| file.display().to_string())
}

/// The .network files of networkd, or the .link files of udev, in the order in which they are read: path and text, with
/// that of the drop-ins behind it.
pub fn systemd_files(ending: &'static str) -> Vec<(String, String)> {
    let has_ending = |ending: &'static str| move |file: &PathBuf| file.extension().is_some_and(|it| it == ending);
    let read = |file: &PathBuf| fs::read_to_string(file).unwrap_or_default();
    let with_drop_ins = |file: PathBuf| {
        let name = file.file_name().unwrap_or_default().display().to_string();
        let more = by_name(&format!("network/{name}.d")).into_iter().filter(has_ending("conf"));
        let texts = [file.clone()].into_iter().chain(more).map(|file| read(&file));
        (file.display().to_string(), texts.collect::<Vec<_>>().join("\n"))
    };
    by_name("network").into_iter().filter(has_ending(ending)).map(with_drop_ins).collect()
}

/// The interfaces that networkd makes: those of its .netdev files.
pub fn netdevs() -> Vec<String> {
    let files = by_name("network").into_iter().filter(|file| file.extension().is_some_and(|it| it == "netdev"));
    let name = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        let found = entries(&text, "NetDev").into_iter().find(|(key, _)| *key == "Name")?;
        Some(found.1.to_owned())
    };
    files.filter_map(name).collect()
}

/// What networkd.conf and its drop-ins say for a key, the last word winning (networkd.conf(5)). `None`: nothing.
pub fn networkd_says(section: &str, key: &str) -> Option<String> {
    let main =
        SYSTEMD.iter().rev().map(|folder| PathBuf::from(format!("{folder}/networkd.conf"))).find(|file| file.exists());
    let drop_ins =
        by_name("networkd.conf.d").into_iter().filter(|file| file.extension().is_some_and(|it| it == "conf"));
    let texts = main.into_iter().chain(drop_ins).filter_map(|file| fs::read_to_string(file).ok());
    let said = |text: String| {
        let found = entries(&text, section).into_iter().rev().find(|(name, _)| *name == key)?;
        Some(found.1.to_owned())
    };
    texts.filter_map(said).next_back()
}

/// The files of a folder in their order; none where there is no folder.
pub fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}
