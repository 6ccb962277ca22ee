//! Reads the firewall's rules for doctor. It must not load what is not loaded: listing the tables of iptables-legacy
//! makes them, and asking for nftables loads it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::doctor_modules::module;
use crate::checks::facts::{Firewall, Module, Saved};
use crate::config::Config;
use crate::machine::program;

/// A ruleset of 50,000 elements takes a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tables of iptables-legacy that were made in this network namespace (ip_tables.c).
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

pub fn firewall(config: &Config) -> Firewall {
    let nft = nft();
    let words = if matches!(nft, Some(Ok(_))) { ask("nft", &["-a", "-s", "list", "ruleset"]) } else { None };
    Firewall {
        nft,
        nft_words: words.and_then(Result::ok).unwrap_or_default(),
        iptables: iptables(),
        interfaces: interfaces(config),
        tcp_loose: number("nf_conntrack_tcp_loose"),
        tcp_be_liberal: number("nf_conntrack_tcp_be_liberal"),
        is_ufw_off: !is_ufw_enabled(&fs::read_to_string("/etc/ufw/ufw.conf").unwrap_or_default()),
    }
}

/// As ufw reads its file (backend.py, _get_defaults): the last line counts, in any case and quoted or not.
fn is_ufw_enabled(conf: &str) -> bool {
    let conf = conf.to_lowercase();
    let value = conf.lines().rev().find_map(|line| line.strip_prefix("enabled="));
    value.is_some_and(|value| value.trim().trim_matches(['"', '\'']) == "yes")
}

fn number(name: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).ok()?.trim().parse().ok()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn ask(program: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    program::ask(&[&[program], arguments].concat().join(" "), program, arguments, PATIENCE)
}

fn nft() -> Option<Result<String, String>> {
    if matches!(module("nf_tables"), Some(Module::Loadable | Module::Missing)) {
        return None;
    }
    if !is_root() {
        return Some(Err("run this as root".into()));
    }
    let answer = ask("nft", &["-j", "list", "ruleset"]);
    Some(answer.unwrap_or_else(|| Err("nft is not installed: install nftables".into())))
}

/// Of each of the two kinds the first program that there is.
fn iptables() -> Vec<Saved> {
    let legacy = fs::read_to_string(LEGACY_TABLES);
    let has_legacy = legacy.as_ref().is_ok_and(|tables| !tables.trim().is_empty());
    let mut found = Vec::new();
    if is_root() && !matches!(module("nf_tables"), Some(Module::Loadable | Module::Missing)) {
        found.extend(saved(false));
    }
    match legacy {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            found.push(Saved { program: String::new(), legacy: true, text: Err("run this as root".into()) });
        }
        Ok(_) if has_legacy => {
            let why = "iptables-legacy-save is not installed: install iptables".to_owned();
            let none = Saved { program: String::new(), legacy: true, text: Err(why) };
            found.push(saved(true).unwrap_or(none));
        }
        _ => {}
    }
    found
}

/// iptables-save says in its first line which of the two it is, if it prints any table (iptables-save.c).
fn saved(legacy: bool) -> Option<Saved> {
    let named = if legacy { "iptables-legacy" } else { "iptables-nft" };
    for program in [named, "iptables"] {
        let Some(text) = ask(&format!("{program}-save"), &[]) else { continue };
        let is_nft = |text: &String| text.lines().next().is_some_and(|line| line.contains("(nf_tables)"));
        if program == named || text.as_ref().is_ok_and(|text| is_nft(text) != legacy) {
            return Some(Saved { program: program.to_owned(), legacy, text });
        }
    }
    None
}

/// The interfaces of IPv4 routes with a gateway; if there are none, of all routes but those of bridges, behind which
/// are guests or containers.
fn interfaces(config: &Config) -> Vec<String> {
    const RTF_GATEWAY: u32 = 2;
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(3)?, 16).ok()?;
        Some(((*fields.first()?).to_owned(), flags & RTF_GATEWAY != 0))
    };
    let is_bridge = |name: &str| fs::exists(format!("/sys/class/net/{name}/bridge")).unwrap_or(false);
    let is_ours = |name: &str| config.bridge(name).is_some();
    let all: Vec<_> = routes.lines().skip(1).filter_map(route).filter(|(name, _)| !is_ours(name)).collect();
    let names = |keep: &dyn Fn(&(String, bool)) -> bool| -> BTreeSet<String> {
        all.iter().filter(|route| keep(route)).map(|(name, _)| name.clone()).collect()
    };
    let gateways = names(&|(_, gateway)| *gateway);
    let found = if gateways.is_empty() { names(&|(name, _)| !is_bridge(name)) } else { gateways };
    found.into_iter().collect()
}
