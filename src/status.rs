//! `tap32 status`: one row a tap on a managed bridge, and one for each owned route without a tap.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::addr::{self, GuestMac};
use crate::config::{CLAIM_METRIC, Config};
use crate::kernel::Kernel;
use crate::plan::{self, HostRoute};
use crate::snapshot::{Bridge, Link, Snapshot};

/// What `status --json` prints; the field names are a contract.
#[derive(Debug, Serialize)]
pub struct Status {
    pub taps: Vec<TapRow>,
    pub orphans: Vec<OrphanRow>,
}

#[derive(Debug, Serialize)]
pub struct TapRow {
    pub tap: String,
    pub guest_mac: Option<GuestMac>,
    pub address: Option<Ipv4Addr>,
    pub bridge: String,
    pub isolated: bool,
    pub route: RouteState,
    /// Where the fabric has the address, if another host announces it.
    pub next_hop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteState {
    Settled,
    Claimed,
    Missing,
    Shadowed,
    Refused,
}

/// An owned route that no tap accounts for: a dead address that the whole fabric hears of.
#[derive(Debug, Serialize)]
pub struct OrphanRow {
    pub address: Ipv4Addr,
    pub bridge: String,
    pub route: RouteState,
    pub metric: u32,
}

/// Reads the host and returns the text for stdout.
pub async fn run(config: &Config, json: bool) -> Result<String> {
    let snapshot = Kernel::open()?.look_at_all(config, true).await?;
    let status = status(config, &snapshot);
    if json {
        return Ok(serde_json::to_string(&status).context("status as JSON")? + "\n");
    }
    let mut text = table(&status);
    for wanted in config.bridges.iter().filter(|wanted| snapshot.bridge(&wanted.name).is_none()) {
        let _ = writeln!(text, "bridge {} does not exist", wanted.name);
    }
    Ok(text)
}

/// Judges a whole snapshot.
pub fn status(config: &Config, snapshot: &Snapshot) -> Status {
    let taps: Vec<TapRow> = snapshot
        .links
        .iter()
        .filter_map(|link| Some(tap_row(config, snapshot, link, snapshot.bridge_at(link.master)?)))
        .collect();
    let orphans = snapshot
        .owned_routes(config.protocol)
        .filter(|route| taps.iter().all(|tap| tap.address != Some(route.address)))
        .map(|route| OrphanRow {
            address: route.address,
            bridge: route.dev.map(|index| snapshot.name_of(index)).unwrap_or_default(),
            route: if route.metric == CLAIM_METRIC { RouteState::Claimed } else { RouteState::Settled },
            metric: route.metric,
        })
        .collect();
    Status { taps, orphans }
}

fn tap_row(config: &Config, snapshot: &Snapshot, link: &Link, bridge: &Bridge) -> TapRow {
    let guest = link.guest(config.mac_prefix);
    let address = guest.map(GuestMac::address);
    let elsewhere = address.and_then(|address| snapshot.elsewhere(address));
    let refusal = match guest {
        Some(guest) => plan::admit(config, link, guest, None, snapshot).err().map(|refusal| refusal.to_string()),
        None => Some(foreign_mac(config, link)),
    };
    let owned = |metric| {
        snapshot.owned_routes(config.protocol).any(|route| Some(route.address) == address && route.metric == metric)
    };
    let settled = address.map(|address| HostRoute::settled(config, address, bridge).metric);
    let route = match refusal {
        Some(_) => RouteState::Refused,
        None if owned(CLAIM_METRIC) => RouteState::Claimed,
        None if elsewhere.is_some() => RouteState::Shadowed,
        None if settled.is_some_and(owned) => RouteState::Settled,
        None => RouteState::Missing,
    };
    TapRow {
        tap: link.name.clone(),
        guest_mac: guest,
        address,
        bridge: bridge.name.clone(),
        isolated: link.isolated,
        route,
        next_hop: elsewhere.map(|route| route.next_hop()),
        why: refusal,
    }
}

fn foreign_mac(config: &Config, link: &Link) -> String {
    // libvirt keeps the last five octets, so the tap shows which prefix the guest's MAC lacks.
    match GuestMac::new(link.mac, config.mac_prefix) {
        Some(guest) => format!("the tap has the guest's own MAC: `tap32 up {} --mac {guest}` mends it", link.name),
        None => format!(
            "tap MAC {} names no guest: it is not fe and the last five octets of {}:AA:BB:CC:DD",
            addr::show(link.mac),
            config.mac_prefix
        ),
    }
}

const HEADER: [&str; 7] = ["TAP", "GUEST MAC", "ADDRESS", "BRIDGE", "ISOLATED", "ROUTE", "NEXT HOP"];

/// Aligned columns for people, and a last line that counts.
pub fn table(status: &Status) -> String {
    let dash = || "-".to_owned();
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(status.taps.iter().map(|tap| {
        [
            tap.tap.clone(),
            tap.guest_mac.map_or_else(dash, |guest| guest.to_string()),
            tap.address.map_or_else(dash, |address| address.to_string()),
            tap.bridge.clone(),
            if tap.isolated { "yes" } else { "no" }.to_owned(),
            name(tap.route).to_owned(),
            tap.next_hop.clone().unwrap_or_else(dash),
        ]
    }));
    rows.extend(status.orphans.iter().map(|orphan| {
        let route = format!("orphan, {}", name(orphan.route));
        [dash(), dash(), orphan.address.to_string(), orphan.bridge.clone(), dash(), route, dash()]
    }));
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for tap in &status.taps {
        if let Some(why) = &tap.why {
            let _ = writeln!(text, "{}: {why}", tap.tap);
        }
    }
    let _ = writeln!(text, "{}", count(status));
    text
}

fn count(status: &Status) -> String {
    let plural = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let mut parts = vec![plural(status.taps.len(), "tap")];
    for state in
        [RouteState::Settled, RouteState::Claimed, RouteState::Shadowed, RouteState::Missing, RouteState::Refused]
    {
        let number = status.taps.iter().filter(|tap| tap.route == state).count();
        if number > 0 {
            parts.push(format!("{number} {}", name(state)));
        }
    }
    if !status.orphans.is_empty() {
        parts.push(plural(status.orphans.len(), "orphan"));
    }
    parts.join(", ")
}

fn name(state: RouteState) -> &'static str {
    match state {
        RouteState::Settled => "settled",
        RouteState::Claimed => "claimed",
        RouteState::Missing => "missing",
        RouteState::Shadowed => "shadowed",
        RouteState::Refused => "refused",
    }
}
