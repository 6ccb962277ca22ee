//! `tap32 status IFNAME`: one tap step by step, from its MAC to what the fabric is told.

use std::fmt::Write as _;

use anyhow::Result;

use crate::addr::{self, GuestMac};
use crate::config::Config;
use crate::fabric::answers::zebra;
use crate::fabric::vtysh;
use crate::guest::link::{Bridge, Link};
use crate::guest::policy;
use crate::guest::route::{HostRoute, Route};
use crate::guest::snapshot::Snapshot;
use crate::guest::state::TapRow;
use crate::guest::view::View;
use crate::kernel::{Kernel, Scope, mac_was_set};
use crate::text::printable;

/// Reads what there is of one tap, by name.
///
/// # Errors
/// There is no such interface, it is no tap, or the kernel does not answer.
pub async fn run(config: &Config, kernel: &Kernel, tap: &str) -> Result<String> {
    let snapshot = kernel.snapshot(config, Scope::Explain { tap }).await?;
    let link = policy::tap(&snapshot, tap)?.clone();
    let guest = link.guest(config.mac_prefix);
    let fabric = match guest.map(GuestMac::address) {
        None => None,
        Some(address) => match vtysh::ask(&zebra::route(address)).await {
            Ok(answer) => answer.map(|routes| Ok(zebra_says(routes.to(address)))),
            Err(error) => Some(Err(format!("{error:#}"))),
        },
    };
    Ok(explanation(config, &snapshot, &link, mac_was_set(&link), fabric))
}

/// The text; `mac_set` as [`mac_was_set`], `fabric` what zebra says or why it does not, `None` without vtysh.
pub fn explanation(
    config: &Config,
    snapshot: &Snapshot,
    link: &Link,
    mac_set: Option<bool>,
    fabric: Option<Result<String, String>>,
) -> String {
    let view = View::new(config, snapshot);
    let guest = link.guest(config.mac_prefix);
    let bridge = snapshot.bridge_at(link.master);
    let row = bridge.map(|bridge| TapRow::of(&view, link, bridge));
    let mut text = String::new();
    let mut line = |what: &str, says: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{what:<9} {}", printable(says));
    };
    line("tap", &format!("{}: {}", link.name, row.as_ref().map_or("on no managed bridge", |row| row.route.name())));
    line("MAC", &format!("{}, {}", addr::show(link.mac), origin(mac_set)));
    line("guest", &guest.map_or_else(|| "none: the MAC is not a tap MAC of ours".to_owned(), names));
    line("port", &port(snapshot, link, bridge));
    let why = row.as_ref().and_then(|row| row.why.clone());
    match (guest, bridge) {
        (Some(_), Some(_)) if why.is_none() => {
            line("policy", "allowed: the address is the bridge's to give, and nobody else's here")
        }
        _ => {}
    }
    if let Some(why) = &why {
        line("because", why);
    }
    if let (Some(guest), Some(bridge)) = (guest, bridge) {
        for (what, route) in [
            ("settled", HostRoute::settled(config, guest.address(), bridge)),
            ("claim", HostRoute::claim(config, guest.address(), bridge)),
        ] {
            line(what, &if view.has(&route) { route.to_string() } else { "no such route".to_owned() });
        }
    }
    if let Some(guest) = guest {
        let best = view.best(guest.address());
        let takes = match (snapshot.barred.get(&guest.address()), best) {
            (Some(what), _) => format!("takes {what}, not ours"),
            (None, Some(best)) => format!("takes {}{}", shown(snapshot, best), ours(config, snapshot, best)),
            (None, None) => "has no route to this address alone".to_owned(),
        };
        line("kernel", &takes);
        line(
            "FRR",
            &match fabric {
                None => "not asked: there is no vtysh here".to_owned(),
                Some(Ok(says)) => says,
                Some(Err(error)) => format!("not known: {error}"),
            },
        );
    }
    text
}

fn origin(mac_set: Option<bool>) -> &'static str {
    match mac_set {
        Some(true) => "set by somebody: libvirt, tap32 or a person",
        Some(false) => "drawn by the kernel at random",
        None => "set or drawn, which this view of /sys does not tell",
    }
}

fn names(guest: GuestMac) -> String {
    format!("{guest}, whose last four octets are {}", guest.address())
}

fn port(snapshot: &Snapshot, link: &Link, bridge: Option<&Bridge>) -> String {
    let state = if link.up { "up" } else { "down" };
    let Some(bridge) = bridge else {
        let master = link.master.map_or_else(|| "no bridge".to_owned(), |index| snapshot.name_of(index));
        return format!("of {master}, {state}, MTU {}", link.mtu);
    };
    let isolated = if link.isolated { "isolated" } else { "not isolated" };
    let bridge_state = if bridge.up { "" } else { ", which is down" };
    format!("of {}{bridge_state}, {state}, {isolated}, MTU {}", bridge.name, link.mtu)
}

fn shown(snapshot: &Snapshot, route: &Route) -> String {
    let dev = route.dev.map(|dev| format!(" dev {}", snapshot.name_of(dev))).unwrap_or_default();
    let via = if route.gateways.is_empty() { String::new() } else { format!(" via {}", route.next_hop()) };
    let table = route.in_table();
    format!("{}/32{via}{dev} proto {} metric {}{table}", route.address, route.protocol, route.metric)
}

fn ours(config: &Config, snapshot: &Snapshot, route: &Route) -> &'static str {
    if snapshot.owns(route, config.protocol) { ", ours" } else { ", not ours" }
}

/// zebra's routes to the guest, the selected one first.
fn zebra_says(routes: &[zebra::Route]) -> String {
    if routes.is_empty() {
        return "FRR does not have this route, so it is not announced: `tap32 doctor` prints the command that fixes it"
            .into();
    }
    let mut said: Vec<(bool, String)> = routes.iter().map(|route| (!route.selected, zebra_entry(route))).collect();
    said.sort();
    said.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ")
}

fn zebra_entry(route: &zebra::Route) -> String {
    let zebra::Route { protocol, distance, metric, .. } = route;
    let selected = if route.selected { "selected" } else { "not selected" };
    format!("zebra has {protocol} [{distance}/{metric}] by {}, {selected}", route.next_hops().join(","))
}
