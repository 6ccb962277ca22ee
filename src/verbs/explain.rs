//! `tap32 status IFNAME`: one tap step by step, from its MAC to what FRR has of its route.

use anyhow::Result;

use crate::addr::{self, GuestMac};
use crate::config::Config;
use crate::fabric::answers::zebra;
use crate::fabric::vtysh;
use crate::guest::link::{Bridge, Link};
use crate::guest::policy;
use crate::guest::route::{HostRoute, Route};
use crate::guest::snapshot::Snapshot;
use crate::guest::state::{RouteState, TapRow};
use crate::guest::view::View;
use crate::kernel::{Kernel, Scope, mac_was_set};
use crate::text::{plural, printable};

/// Reads what there is of one tap, by name.
///
/// # Errors
/// There is no such interface, it is not a tap, or the kernel does not answer.
pub(crate) fn run(config: &Config, kernel: &Kernel, tap: &str) -> Result<String> {
    let snapshot = kernel.snapshot(config, Scope::Explain { tap })?;
    let link = policy::tap(&snapshot, tap)?;
    let fabric = match link.guest(config.mac_prefix).map(GuestMac::address) {
        None => String::new(),
        Some(address) => match vtysh::ask(&zebra::route(address)) {
            Ok(Some(routes)) => zebra_says(routes.to(address)),
            Ok(None) => "not asked: there is no vtysh here".to_owned(),
            Err(error) => format!("not known: {error:#}"),
        },
    };
    let dropped = kernel.dropped(link.index)?;
    Ok(explanation(config, &snapshot, link, dropped, fabric))
}

/// The text; `dropped` is how many frames the filters of the tap's clsact dropped, and `fabric` what FRR has of the route.
fn explanation(config: &Config, snapshot: &Snapshot, link: &Link, dropped: Option<u32>, fabric: String) -> String {
    let view = View::new(config, snapshot);
    let guest = link.guest(config.mac_prefix);
    let bridge = snapshot.bridge_at(link.master);
    let row = bridge.and_then(|_| TapRow::of(&view, link));
    let origin = match mac_was_set(link) {
        Some(true) => "set by somebody: libvirt, tap32 or a person",
        Some(false) => "chosen by the kernel at random",
        None => "set or chosen at random: this /sys does not tell",
    };
    let names = |guest: GuestMac| format!("{guest}, whose last four octets are {}", guest.address());
    let state = row.as_ref().map_or("on no managed bridge", |row| row.route.name());
    let mut lines = vec![
        ("tap", format!("{}: {state}", link.name)),
        ("MAC", format!("{}, {origin}", addr::show(link.mac))),
        ("guest", guest.map_or_else(|| "none: the MAC is not a tap MAC of a guest".to_owned(), names)),
        ("port", port(snapshot, link, bridge)),
    ];
    lines.extend(row.as_ref().map(|row| ("guard", guard(row, dropped))));
    match row.and_then(|row| row.why) {
        Some(why) => lines.push(("because", why)),
        None if guest.is_some() && bridge.is_some() => {
            lines.push(("policy", "allowed: in the bridge's prefixes, and no other tap has it".to_owned()))
        }
        None => {}
    }
    if let (Some(guest), Some(bridge)) = (guest, bridge) {
        let routes = [
            ("settled", HostRoute::settled(config, guest.address(), bridge)),
            ("claim", HostRoute::claim(config, guest.address(), bridge)),
        ];
        let if_there = |route: HostRoute| if view.has(&route) { route.to_string() } else { "no such route".to_owned() };
        lines.extend(routes.map(|(what, route)| (what, if_there(route))));
    }
    if let Some(guest) = guest {
        let kernel = match (snapshot.barred.get(&guest.address()), view.best(guest.address())) {
            (Some(what), _) => format!("takes {what}, not tap32's"),
            (None, Some(best)) => format!("takes {}", shown(config, snapshot, best)),
            (None, None) => "has no route to this address alone".to_owned(),
        };
        lines.extend([("kernel", kernel), ("FRR", fabric)]);
    }
    lines.iter().map(|(what, says)| format!("{what:<9} {}\n", printable(says))).collect()
}

fn guard(row: &TapRow, dropped: Option<u32>) -> String {
    match (row.guarded, row.unguarded) {
        (true, _) => format!("on, has dropped {}", plural(dropped.unwrap_or_default() as usize, "frame")),
        (false, true) if row.route == RouteState::Refused => {
            "none, because tap32 refuses this guest: it can send as another until it is off the bridge".to_owned()
        }
        (false, true) => "none, so this guest can send as another: `tap32 reconcile` puts it on".to_owned(),
        (false, false) => {
            format!("none, because of `guard = false` for bridge {}", row.bridge.as_deref().unwrap_or_default())
        }
    }
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

fn shown(config: &Config, snapshot: &Snapshot, route: &Route) -> String {
    let dev = route.dev.map(|dev| format!(" dev {}", snapshot.name_of(dev))).unwrap_or_default();
    let via = if route.gateways.is_empty() { String::new() } else { format!(" via {}", route.next_hop()) };
    let table = route.in_table();
    let ours = if snapshot.owns(route, config.protocol) { "tap32's" } else { "not tap32's" };
    format!("{}/32{via}{dev} proto {} metric {}{table}, {ours}", route.address, route.protocol, route.metric)
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
