//! `tap32 status`: one row a tap on a managed bridge, and one for each owned route without a tap. `explain` has one tap.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{Common, Report, explain};
use crate::addr::{self, GuestMac};
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::plan::{HostRoute, Wanted, plan};
use crate::guest::snapshot::{Bridge, Link, Route, Snapshot};
use crate::guest::view::View;
use crate::kernel::Kernel;

/// What `status` is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// One tap to explain, instead of a table of all.
    pub tap: Option<String>,
    pub json: bool,
    pub check: bool,
}

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

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";

impl RouteState {
    pub const ALL: [Self; 5] = [Self::Settled, Self::Claimed, Self::Shadowed, Self::Missing, Self::Refused];

    pub fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Claimed => "claimed",
            Self::Missing => "missing",
            Self::Shadowed => "shadowed",
            Self::Refused => "refused",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Settled | Self::Claimed => GREEN,
            Self::Shadowed => YELLOW,
            Self::Missing | Self::Refused => RED,
        }
    }
}

impl Status {
    /// How many taps there are of each state.
    pub fn by_state(&self) -> [(RouteState, usize); 5] {
        RouteState::ALL.map(|state| (state, self.taps.iter().filter(|tap| tap.route == state).count()))
    }
}

/// An owned route that no tap accounts for: a dead address that the whole fabric hears of.
#[derive(Debug, Serialize)]
pub struct OrphanRow {
    pub address: Ipv4Addr,
    pub bridge: String,
    pub route: RouteState,
    pub metric: u32,
}

/// Reads the host and returns the text for stdout; with `check` a failure too when anything is wrong.
pub async fn run(request: &Request, common: &Common) -> Result<Report> {
    let result = async { report(&common.config()?, &Kernel::open()?, request).await };
    result.await.context("status")
}

async fn report(config: &Config, kernel: &Kernel, request: &Request) -> Result<Report> {
    let mut snapshot = kernel.look_at_all(config).await?;
    kernel.look_for_winners(config, &mut snapshot).await?;
    let mut status = status(config, &snapshot);
    let mut explanation = None;
    if let Some(tap) = &request.tap {
        explanation = Some(explain::run(config, kernel, tap).await?);
        status.taps.retain(|row| row.tap == *tap);
        status.orphans.clear();
    }
    let text = match explanation {
        _ if request.json => serde_json::to_string(&status).context("status as JSON")? + "\n",
        Some(explanation) => explanation,
        None => {
            let absent = absent_bridges(config, &snapshot).map(|sentence| sentence + "\n");
            table(&status, has_colour()) + &absent.collect::<String>()
        }
    };
    let result = if request.check { check(config, &snapshot, &status, request) } else { Ok(()) };
    Ok(Report::new(text, result))
}

/// Whether stdout shows colours, and nobody asked for none (no-color.org).
pub fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Of each managed bridge that is not there, a sentence.
pub fn absent_bridges(config: &Config, snapshot: &Snapshot) -> impl Iterator<Item = String> {
    let absent = config.bridges.iter().filter(|wanted| snapshot.bridge(&wanted.name).is_none());
    absent.map(|wanted| format!("bridge {} does not exist", wanted.name))
}

/// Whether all is as it should be: nothing for `reconcile` to do, no tap refused or shadowed, each bridge there.
fn check(config: &Config, snapshot: &Snapshot, status: &Status, request: &Request) -> Result<()> {
    let bad = |row: &&TapRow| matches!(row.route, RouteState::Missing | RouteState::Shadowed | RouteState::Refused);
    if let Some(tap) = &request.tap {
        let row = status.taps.first().with_context(|| format!("{tap} is not on a managed bridge"))?;
        ensure!(!bad(&row), "{tap} is {}", row.route.name());
        return Ok(());
    }
    let absent: Vec<String> = absent_bridges(config, snapshot).collect();
    ensure!(absent.is_empty(), "{}", absent.join(", "));
    let steps = plan(config, &Wanted::Everything, snapshot)?;
    let wrong = status.taps.iter().filter(bad).count();
    let mend = match steps.len() {
        0 if wrong == 0 => return Ok(()),
        0 => String::new(),
        n => {
            let steps = plural(n, "step");
            format!("; `tap32 reconcile -n` shows the {steps} that would mend what can be mended from here")
        }
    };
    bail!("not as it should be: {}{mend}", count(status))
}

/// Judges a whole snapshot.
pub fn status(config: &Config, snapshot: &Snapshot) -> Status {
    let view = View::new(config, snapshot);
    let on_bridges = snapshot.links.iter().filter_map(|link| Some((link, snapshot.bridge_at(link.master)?)));
    let taps: Vec<TapRow> = on_bridges.map(|(link, bridge)| tap_row(&view, link, bridge)).collect();
    // As `plan` has it: also of a tap with another prefix.
    let attached = snapshot.links.iter().filter(|link| snapshot.bridge_at(link.master).is_some());
    let carried: BTreeSet<_> = attached.filter_map(|link| addr::address_of_tap_mac(link.mac)).collect();
    let orphans = snapshot
        .owned_routes(config.protocol)
        .filter(|route| !carried.contains(&route.address))
        .map(|route| OrphanRow {
            address: route.address,
            bridge: route.dev.map(|index| snapshot.name_of(index)).unwrap_or_default(),
            route: if route.metric == CLAIM_METRIC { RouteState::Claimed } else { RouteState::Settled },
            metric: route.metric,
        })
        .collect();
    Status { taps, orphans }
}

/// Judges one tap that is a port of `bridge`.
pub fn tap_row(view: &View, link: &Link, bridge: &Bridge) -> TapRow {
    let config = view.config;
    let guest = link.guest(config.mac_prefix);
    let refusal = match guest {
        Some(guest) => view.admit(link, guest, None).err().map(|refusal| refusal.to_string()),
        None => Some(foreign_mac(config, link)),
    };
    let address = guest.map(GuestMac::address);
    let winner = address.and_then(|address| view.winner(address));
    let barred = address.and_then(|address| Some((address, view.snapshot.barred.get(&address)?)));
    let barred = barred.map(|(address, what)| {
        format!("{what} takes {address}, not our route: `ip route show table all {address}` and `ip rule` show it")
    });
    let has = |route: fn(&Config, Ipv4Addr, &Bridge) -> HostRoute| {
        address.is_some_and(|address| view.has(&route(config, address, bridge)))
    };
    let route = match refusal {
        Some(_) => RouteState::Refused,
        None if winner.is_some() || barred.is_some() => RouteState::Shadowed,
        None if has(HostRoute::claim) => RouteState::Claimed,
        None if has(HostRoute::settled) => RouteState::Settled,
        None => RouteState::Missing,
    };
    let next_hop = winner.filter(|route| !route.gateways.is_empty()).map(Route::next_hop);
    let foreign = winner.filter(|route| route.gateways.is_empty()).map(|route| {
        let dev = route.dev.map_or_else(|| "several interfaces".to_owned(), |dev| view.snapshot.name_of(dev));
        format!(
            "{0}/32 dev {dev} proto {1} metric {2}{3} is not ours and wins: if nobody needs it, `ip route del {0}/32 dev \
             {dev} proto {1} metric {2}{3}`",
            route.address,
            route.protocol,
            route.metric,
            route.in_table()
        )
    });
    TapRow {
        tap: link.name.clone(),
        guest_mac: guest,
        address,
        bridge: bridge.name.clone(),
        isolated: link.isolated,
        route,
        next_hop,
        why: refusal.or(foreign).or(barred),
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
/// Which column of [`HEADER`] has a colour.
const ROUTE_COLUMN: usize = 5;

/// Aligned columns for people, and a last line that counts.
pub fn table(status: &Status, colour: bool) -> String {
    let dash = || "-".to_owned();
    let mut rows = vec![(HEADER.map(str::to_owned), "")];
    rows.extend(status.taps.iter().map(|tap| {
        let cells = [
            tap.tap.clone(),
            tap.guest_mac.map_or_else(dash, |guest| guest.to_string()),
            tap.address.map_or_else(dash, |address| address.to_string()),
            tap.bridge.clone(),
            if tap.isolated { "yes" } else { "no" }.to_owned(),
            tap.route.name().to_owned(),
            tap.next_hop.clone().unwrap_or_else(dash),
        ];
        (cells, tap.route.colour())
    }));
    rows.extend(status.orphans.iter().map(|orphan| {
        let route = format!("orphan, {}", orphan.route.name());
        ([dash(), dash(), orphan.address.to_string(), orphan.bridge.clone(), dash(), route, dash()], RED)
    }));
    let widths: [usize; 7] =
        std::array::from_fn(|column| rows.iter().map(|(cells, _)| cells[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for (cells, paint) in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let padded = format!("{cell:width$}");
            let painted = colour && column == ROUTE_COLUMN && !paint.is_empty();
            line += &if painted { format!("{paint}{padded}\x1b[0m  ") } else { format!("{padded}  ") };
        }
        // Writing to a String cannot fail.
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

/// `3 taps, 2 settled, 1 missing`
pub fn count(status: &Status) -> String {
    let mut parts = vec![plural(status.taps.len(), "tap")];
    for (state, number) in status.by_state() {
        if number > 0 {
            parts.push(format!("{number} {}", state.name()));
        }
    }
    if !status.orphans.is_empty() {
        parts.push(plural(status.orphans.len(), "orphan"));
    }
    parts.join(", ")
}

fn plural(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
