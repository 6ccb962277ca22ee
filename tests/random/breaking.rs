//! What other programs, people and faults do to single guests, and what tap32 is told to do meanwhile.

use crate::model::{BRIDGES, CLAIM, Model, Tap};
use crate::operations::{Choice, Do, Hand, Operation};
use crate::stage::toml;

pub const TABLE: &[(usize, Choice)] = &[
    (6, rename),
    (5, delete_route),
    (3, stray_route),
    (3, stray_claim),
    (3, announce),
    (6, withdraw),
    (4, take_guard),
    (3, take_isolation),
    (3, delete_neighbour),
    (2, reconcile),
    (1, status),
    (1, reload),
    (1, reload_broken),
];

fn is_well(model: &Model, tap: &Tap) -> bool {
    tap.known && model.is_routed(tap)
}

/// Also a tap that is up (dev_change_name, since Linux 6.2).
fn rename(hand: &mut Hand) -> Option<()> {
    let i = hand.moving_tap(|_, _| true)?;
    let count = hand.model.count;
    hand.model.count += 1;
    let name = if hand.one_in(2) { format!("web{count}.0") } else { format!("tap-{count}") };
    let line = format!("ip link set {} name {name}", hand.model.taps[i].name);
    hand.shell(line);
    hand.model.taps[i].name = name;
    Some(())
}

fn route(address: &str, bridge: usize, metric: u64) -> String {
    format!("{address}/32 dev {} proto 132 scope link metric {metric}", BRIDGES[bridge])
}

fn delete_route(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(is_well)?;
    let owner = hand.model.taps[i].owner;
    let line = format!("ip route del {}", route(&owner.address(), owner.bridge, hand.model.metric()));
    hand.model.lingering.insert(owner);
    hand.shell_if(None, line);
    Some(())
}

/// A route of ours without a guest, as a crash leaves it.
fn stray_route(hand: &mut Hand) -> Option<()> {
    let guest = hand.free_guest().filter(|guest| !hand.model.arrivals.contains_key(guest))?;
    let line = format!("ip route replace {}", route(&guest.address(), guest.bridge, hand.model.metric()));
    hand.shell_if(None, line);
    Some(())
}

/// A claim whose claimer is dead.
fn stray_claim(hand: &mut Hand) -> Option<()> {
    let i = hand.any_tap(|model, tap| is_well(model, tap) && !model.arrivals.contains_key(&tap.owner))?;
    let owner = hand.model.taps[i].owner;
    hand.shell_if(None, format!("ip route add {}", route(&owner.address(), owner.bridge, CLAIM)));
    Some(())
}

/// Another host has this guest, or says so.
fn announce(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|model, tap| !model.elsewhere.contains(&tap.owner))?;
    let owner = hand.model.taps[i].owner;
    (!hand.has_alone(owner)).then_some(())?;
    hand.shell(format!("ip route add {}/32 via 192.0.2.2 proto ospf metric 20", owner.address()));
    hand.model.elsewhere.insert(owner);
    Some(())
}

fn withdraw(hand: &mut Hand) -> Option<()> {
    let all: Vec<_> = hand.model.elsewhere.iter().copied().collect();
    let guest = hand.some(&all)?;
    hand.shell(format!("ip route del {}/32 via 192.0.2.2 proto ospf metric 20", guest.address()));
    hand.model.elsewhere.remove(&guest);
    Some(())
}

fn take_guard(hand: &mut Hand) -> Option<()> {
    let whole = hand.one_in(2);
    let i = hand.any_tap(|model, tap| is_well(model, tap) && tap.young.is_none() && !(whole && tap.alone))?;
    let name = hand.model.taps[i].name.clone();
    hand.model.taps[i].stripped = true;
    let line = if whole {
        hand.model.taps[i].has_room = false;
        format!("tc qdisc del dev {name} clsact")
    } else {
        format!("tc filter del dev {name} ingress pref 1 handle 0x84 protocol all bpf")
    };
    hand.shell_if(None, line);
    Some(())
}

fn take_isolation(hand: &mut Hand) -> Option<()> {
    let i = hand.any_tap(is_well)?;
    let line = format!("bridge link set dev {} isolated off", hand.model.taps[i].name);
    hand.shell(line);
    Some(())
}

fn delete_neighbour(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|model, tap| is_well(model, tap) && !model.has_duplicate(tap))?;
    let owner = hand.model.taps[i].owner;
    hand.shell_if(None, format!("ip neigh del {} dev {}", owner.address(), BRIDGES[owner.bridge]));
    hand.model.lingering.insert(owner);
    Some(())
}

/// A tap's guard tells it whose the tap was, where somebody has changed its MAC.
fn reconcile(hand: &mut Hand) -> Option<()> {
    let is_clear = |tap: &Tap| !tap.overwritten || (hand.model.guard && tap.young.is_none() && !tap.stripped);
    hand.model.taps.iter().all(is_clear).then_some(())?;
    hand.shell("tap32 reconcile".to_owned());
    Some(())
}

/// Whatever it says, it can say it.
fn status(hand: &mut Hand) -> Option<()> {
    hand.shell("tap32 status --json".to_owned());
    Some(())
}

/// The routes move to another distance, or the guards come and go.
fn reload(hand: &mut Hand) -> Option<()> {
    if hand.one_in(2) {
        hand.model.moved = true;
        hand.model.distance = if hand.model.distance == 240 { 200 } else { 240 };
    } else {
        hand.model.guard = !hand.model.guard;
    }
    reload_with(hand, false)
}

fn reload_broken(hand: &mut Hand) -> Option<()> {
    reload_with(hand, true)
}

fn reload_with(hand: &mut Hand, broken: bool) -> Option<()> {
    let config = toml(hand.model.distance, hand.model.guard);
    hand.steps.push(Operation { what: Do::Reload(config, broken), succeeds: None });
    hand.model.look();
    Some(())
}
