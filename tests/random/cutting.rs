//! What cuts a running guest's tap off: it is taken off its bridge, set down, or gets another MAC; and what brings it back.

use crate::model::{Model, Tap};
use crate::operations::{Choice, Hand};

pub const TABLE: &[(usize, Choice)] =
    &[(6, overwrite), (6, take_off), (5, set_down), (6, set_up), (3, change_hands), (3, restart_elsewhere)];

/// `watch` puts a tap back five times a minute, and counts also when it sets a MAC back.
pub const PUT_BACK: usize = 4;

fn is_well(model: &Model, tap: &Tap) -> bool {
    tap.known && tap.open > 0 && tap.put_back < PUT_BACK && model.is_routed(tap) && !model.has_duplicate(tap)
}

/// Somebody does something to a running guest's tap that `watch` undoes.
fn undone(hand: &mut Hand, i: usize, what: &str) {
    let tap = &mut hand.model.taps[i];
    tap.put_back += 1;
    let (line, owner) = (format!("ip link set {} {what}", tap.name), tap.owner);
    hand.shell(line);
    hand.model.doubt_claimers(|guest| guest == owner);
}

/// udev's MACAddressPolicy=persistent, or a person.
fn overwrite(hand: &mut Hand) -> Option<()> {
    let i = hand.any_tap(is_well)?;
    let mac = format!("6e:8a:11:22:33:{:02x}", hand.random.below(256));
    hand.model.taps[i].overwritten = true;
    undone(hand, i, &format!("address {mac}"));
    Some(())
}

/// Another program takes a running guest's tap off its bridge.
fn take_off(hand: &mut Hand) -> Option<()> {
    // Without its guard it looks as after `down`.
    let i = hand.tap(|model, tap| is_well(model, tap) && !tap.stripped)?;
    hand.model.taps[i].moving = true;
    undone(hand, i, "nomaster");
    Some(())
}

/// Somebody cuts a guest off.
fn set_down(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|model, tap| tap.up && tap.bridge.is_some() && !model.has_duplicate(tap))?;
    let tap = &mut hand.model.taps[i];
    tap.up = false;
    let (line, owner) = (format!("ip link set {} down", tap.name), tap.owner);
    hand.shell(line);
    hand.model.doubt_claims(|guest| guest == owner);
    Some(())
}

fn set_up(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|_, tap| !tap.up && tap.bridge.is_some())?;
    let tap = &mut hand.model.taps[i];
    tap.up = true;
    let line = format!("ip link set {} up", tap.name);
    hand.shell(line);
    Some(())
}

/// Another guest starts on a tap that its first guest has left.
fn change_hands(hand: &mut Hand) -> Option<()> {
    let owner = hand.free_guest().filter(|guest| hand.model.up[guest.bridge])?;
    let is_left = |model: &Model, tap: &Tap| {
        let is_settled = tap.known && tap.is_idle() && tap.bridge == Some(owner.bridge) && !tap.overwritten;
        is_settled && tap.guest.is_some() && !model.has_duplicate(tap)
    };
    let i = hand.tap(is_left)?;
    let tap = &mut hand.model.taps[i];
    let (before, id, name) = (tap.guest.replace(owner), tap.id, tap.name.clone());
    (tap.owner, tap.open, tap.known) = (owner, 1, false);
    let verb = if tap.queues { "multi" } else { "open" };
    hand.guests(format!("{verb} {id} {name} {} {}", owner.address(), owner.mac()));
    hand.shell(format!("tap32 up {name} --mac {}", owner.mac()));
    hand.model.leave(before);
    Some(())
}

/// A guest that has left a tap starts on another.
fn restart_elsewhere(hand: &mut Hand) -> Option<()> {
    let is_left = |model: &Model, tap: &Tap| {
        let is_there = tap.bridge.is_some_and(|bridge| model.up[bridge]) && tap.guest == Some(tap.owner);
        tap.known && tap.is_idle() && is_there && !tap.overwritten && !tap.unlisted && !model.has_duplicate(tap)
    };
    let i = hand.tap(is_left)?;
    let owner = hand.model.taps[i].owner;
    crate::coming::start(hand, owner)?;
    let tap = &mut hand.model.taps[i];
    (tap.bridge, tap.up) = (None, false);
    Some(())
}
