//! What a broken file still says of whose the guests are: their MACs' prefix, the routes' protocol and the bridges. With
//! it `down` finds a guest's routes, and libvirt's hook the guests that it must stop.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::{BridgeConfig, Config, DEFAULT_PATH, is_interface_name};

/// The keys below which no bridge's name stands. Where else a mistake puts it nobody can know: the header that should
/// stand above it may be the mistake.
const WITHOUT_NAMES: [&str; 13] = [
    "mac-prefix",
    "protocol",
    "gateway",
    "mac",
    "prefixes",
    "dns",
    "domain",
    "migration",
    "watch",
    "fabric",
    "uplink",
    "mdu",
    "backbone",
];

impl Config {
    /// As [`Config::salvage`], from the file that [`Config::load`] reads.
    pub(crate) fn salvaged(option: Option<&Path>) -> Self {
        let path = Self::named(option).unwrap_or_else(|| DEFAULT_PATH.into());
        Self::salvage(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()))
    }

    /// The defaults, with the mac-prefix and the protocol where they can be read, and with every bridge that the text may
    /// name.
    pub fn salvage(text: &str) -> Self {
        let table = readable(text);
        let mut config = Self::default();
        if let Some(readable) = only("mac-prefix", &table) {
            config.mac_prefix = readable.mac_prefix;
        }
        if let Some(readable) = only("protocol", &table) {
            config.protocol = readable.protocol;
        }
        let mut names = Vec::new();
        names_in_table(&table, &mut names);
        names_in_lines(text, &mut names);
        if !names.is_empty() {
            names.sort();
            names.dedup();
            config.bridges = names.iter().map(|name| BridgeConfig::named(name)).collect();
        }
        config
    }
}

/// What of the text is TOML.
fn readable(text: &str) -> DeTable<'_> {
    DeTable::parse_recoverable(text).0.into_inner()
}

/// The configuration of this key alone; `None` if its value cannot be meant.
fn only(key: &str, table: &DeTable) -> Option<Config> {
    let found = table.iter().filter(|(other, _)| other.get_ref() == key);
    let alone: DeTable = found.map(|(key, value)| (key.clone(), value.clone())).collect();
    let config = Config::deserialize(Deserializer::from(Spanned::new(0..0, alone))).ok()?;
    config.check().is_ok().then_some(config)
}

fn names_in_table(table: &DeTable, names: &mut Vec<String>) {
    for (key, value) in may_hold_names(table) {
        match value {
            DeValue::String(name) if key == "name" && is_interface_name(name) => names.push(name.to_string()),
            DeValue::Table(table) => names_below(key, table, names),
            DeValue::Array(array) => {
                let tables = array.iter().filter_map(|value| value.get_ref().as_table());
                tables.for_each(|table| names_below(key, table, names));
            }
            _ => {}
        }
    }
}

/// A `[[bridge]]` without a name is br-l2, or its name stands under a key that is mistyped.
fn names_below(key: &str, table: &DeTable, names: &mut Vec<String>) {
    let before = names.len();
    names_in_table(table, names);
    if key == "bridge" && names.len() == before {
        names.push(BridgeConfig::default().name);
        let strings = may_hold_names(table).filter_map(|(_, value)| value.as_str());
        names.extend(strings.filter(|text| is_interface_name(text)).map(str::to_owned));
    }
}

fn may_hold_names<'a, 'i>(table: &'a DeTable<'i>) -> impl Iterator<Item = (&'a str, &'a DeValue<'i>)> {
    let all = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()));
    all.filter(|(key, _)| !WITHOUT_NAMES.contains(key))
}

/// Each line by itself, since one that is not TOML can hide those behind it.
fn names_in_lines(text: &str, names: &mut Vec<String>) {
    let mut has_names = true;
    for line in text.lines() {
        match line.trim_start().strip_prefix('[') {
            Some(header) => {
                let header = header.split(['#', ']']).next().unwrap_or_default().trim_matches(['[', ' ', '\t']);
                has_names = !WITHOUT_NAMES.contains(&header);
            }
            None if has_names => names_in_table(&readable(line), names),
            None => {}
        }
    }
}
