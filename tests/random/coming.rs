//! Guests come and go: under QEMU, under libvirt, by hand; they arrive from another host, and leave to one.

use crate::model::{Arrival, BRIDGES, Guest, Tap, Young};
use crate::operations::{Choice, Do, Hand, Operation};

pub const TABLE: &[(usize, Choice)] = &[
    (12, qemu),
    (10, libvirt),
    (5, by_hand),
    (8, persistent),
    (4, stranger),
    (3, duplicate),
    (8, open),
    (12, kill),
    (4, delete),
    (6, down),
    (6, up_again),
    (6, frame),
    (5, migrate),
    (2, cancel),
    (2, kill_claimer),
];

/// More taps than this take a judge too long.
const TAPS: usize = 30;

/// A tap that its guest has open, or a persistent one that nobody has; bare.
fn new_tap(hand: &mut Hand, owner: Guest, persistent: bool) -> Option<usize> {
    if hand.model.taps.len() >= TAPS {
        return None;
    }
    let id = hand.model.count;
    hand.model.count += 1;
    let queues = hand.one_in(4);
    let tap = Tap {
        id,
        name: format!("vnet{id}"),
        owner,
        persistent,
        queues,
        open: 0,
        ever_open: false,
        up: false,
        bridge: None,
        was: None,
        moving: false,
        put_back: 0,
        overwritten: false,
        stripped: false,
        unlisted: false,
        guest: None,
        young: None,
        known: false,
        has_room: false,
        doubled: false,
        alone: false,
    };
    if persistent {
        hand.shell(format!("ip tuntap add {} mode tap{}", tap.name, if queues { " multi_queue" } else { "" }));
    }
    hand.model.taps.push(tap);
    let i = hand.model.taps.len() - 1;
    if !persistent {
        open_queue(hand, i);
        if queues && hand.one_in(2) {
            open_queue(hand, i);
        }
    }
    Some(i)
}

fn open_queue(hand: &mut Hand, i: usize) {
    let Tap { id, name, owner, queues, .. } = &hand.model.taps[i];
    let verb = if *queues { "multi" } else { "open" };
    let line = format!("{verb} {id} {name} {} {}", owner.address(), owner.mac());
    hand.guests(line);
    let tap = &mut hand.model.taps[i];
    tap.open += 1;
    tap.ever_open = true;
}

/// Without a guard from its hook a tap is left to it for a while, also where the configuration has changed since.
fn unguarded(hand: &Hand) -> Option<Young> {
    (!hand.model.guard).then(|| Young::since(hand.now))
}

/// `tap32 up`, which is refused while the bridge is down.
fn up(hand: &mut Hand, i: usize, mac: bool) {
    let Tap { name, owner, .. } = hand.model.taps[i].clone();
    let mut line = format!("tap32 up {name}");
    if mac {
        line += &format!(" --mac {}", owner.mac());
    }
    if hand.one_in(2) {
        line += &format!(" --bridge {}", BRIDGES[owner.bridge]);
    }
    let (succeeds, young) = (hand.is_up(owner.bridge), unguarded(hand));
    hand.shell_if(succeeds, line);
    if succeeds {
        let tap = &mut hand.model.taps[i];
        (tap.bridge, tap.guest, tap.up) = (Some(owner.bridge), Some(owner), true);
        // One that `watch` has left to a hook stays so, whoever comes.
        tap.young = young.or(tap.young);
        (tap.known, tap.was, tap.overwritten) = (false, None, false);
    }
}

/// The tap's MAC, bridge and IFF_UP, as libvirt sets them, or a person.
fn attach(hand: &mut Hand, i: usize, mac: &str, guest: Option<Guest>) {
    let (now, bridge) = (hand.now, hand.model.taps[i].owner.bridge);
    let tap = &mut hand.model.taps[i];
    (tap.bridge, tap.guest, tap.up) = (Some(bridge), guest, true);
    (tap.young, tap.known) = (Some(Young::since(now)), false);
    let line = format!("ip link set {} address {mac} master {} up", tap.name, BRIDGES[bridge]);
    hand.shell(line);
}

/// QEMU makes its tap and calls its script.
fn qemu(hand: &mut Hand) -> Option<()> {
    let owner = hand.free_guest()?;
    start(hand, owner)
}

pub fn start(hand: &mut Hand, owner: Guest) -> Option<()> {
    let i = new_tap(hand, owner, false)?;
    up(hand, i, true);
    Some(())
}

/// libvirt makes a tap, attaches it and calls its hook.
fn libvirt(hand: &mut Hand) -> Option<()> {
    let arriving: Vec<Guest> = hand.model.arrivals.keys().copied().collect();
    let arriving: Vec<Guest> =
        arriving.into_iter().filter(|guest| hand.model.taps.iter().all(|tap| tap.owner != *guest)).collect();
    let owner = match hand.some(&arriving) {
        Some(guest) if !hand.one_in(4) => guest,
        _ => hand.free_guest()?,
    };
    let (mac, bridge) = (owner.mac(), BRIDGES[owner.bridge]);
    let is_up = hand.is_up(owner.bridge);
    (hand.model.taps.len() < TAPS && hand.model.exists[owner.bridge]).then_some(())?;
    hand.shell_if(is_up, format!("hook prepare {mac} {bridge}"));
    let i = new_tap(hand, owner, false)?;
    attach(hand, i, &owner.tap_mac(), Some(owner));
    let name = hand.model.taps[i].name.clone();
    hand.shell_if(is_up, format!("hook start {mac} {bridge} {name}"));
    if is_up {
        hand.model.taps[i].young = unguarded(hand);
        hand.shell(format!("hook started {mac} {bridge} {name}"));
    }
    Some(())
}

fn by_hand(hand: &mut Hand) -> Option<()> {
    let owner = hand.free_guest().filter(|guest| hand.model.exists[guest.bridge])?;
    let persistent = hand.one_in(2);
    let i = new_tap(hand, owner, persistent)?;
    attach(hand, i, &owner.tap_mac(), Some(owner));
    Some(())
}

/// A tap that somebody makes before its guest starts.
fn persistent(hand: &mut Hand) -> Option<()> {
    let owner = hand.free_guest()?;
    let i = new_tap(hand, owner, true)?;
    up(hand, i, true);
    if !hand.one_in(4) {
        open_queue(hand, i);
    }
    Some(())
}

/// A tap on the bridge that is no guest of tap32's.
fn stranger(hand: &mut Hand) -> Option<()> {
    let owner = hand.free_guest().filter(|guest| hand.model.exists[guest.bridge])?;
    let i = new_tap(hand, owner, false)?;
    attach(hand, i, &format!("52:54:00:00:00:{:02x}", owner.last), None);
    Some(())
}

/// A second tap with the MAC of a guest that is here.
fn duplicate(hand: &mut Hand) -> Option<()> {
    let first = hand.any_tap(|model, tap| tap.known && model.is_routed(tap) && !model.has_duplicate(tap))?;
    let owner = hand.model.taps[first].owner;
    let i = new_tap(hand, owner, false)?;
    attach(hand, i, &owner.tap_mac(), Some(owner));
    Some(())
}

/// A guest starts on a tap that was made before.
fn open(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|_, tap| tap.persistent && tap.open == 0)?;
    open_queue(hand, i);
    hand.model.come_back();
    Some(())
}

/// A guest's QEMU is killed; libvirt may tell.
fn kill(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|model, tap| tap.open > 0 && !(tap.persistent && model.has_duplicate(tap)))?;
    let tap = hand.model.taps[i].clone();
    hand.guests(format!("close {}", tap.id));
    if tap.persistent {
        hand.model.taps[i].open = 0;
        hand.model.doubt_claims(|guest| guest == tap.owner);
        return Some(());
    }
    if hand.one_in(6) && !hand.has_alone(tap.owner) && hand.model.elsewhere.insert(tap.owner) {
        // It has moved: the fabric knows first.
        let line = format!("ip route add {}/32 via 192.0.2.2 proto ospf metric 20", tap.owner.address());
        hand.steps.insert(0, Operation { what: Do::Shell(line), succeeds: Some(true) });
    }
    hand.remove(i);
    if tap.guest.is_some() && hand.one_in(2) {
        let call = format!("{} {}", tap.owner.mac(), BRIDGES[tap.owner.bridge]);
        hand.shell(format!("hook stopped {call}"));
        hand.shell(format!("hook release {call}"));
    }
    Some(())
}

/// Somebody deletes a tap.
fn delete(hand: &mut Hand) -> Option<()> {
    let i = hand.moving_tap(|_, tap| !tap.alone)?;
    let line = format!("ip link del {}", hand.model.taps[i].name);
    hand.shell(line);
    hand.remove(i);
    Some(())
}

fn down(hand: &mut Hand) -> Option<()> {
    let i = hand.tap(|model, tap| tap.guest.is_some() && tap.bridge.is_some() && !model.has_duplicate(tap))?;
    let line = format!("tap32 down {}", hand.model.taps[i].name);
    hand.shell(line);
    hand.linger(i);
    let tap = &mut hand.model.taps[i];
    (tap.bridge, tap.up) = (None, false);
    let guest = tap.guest;
    hand.model.leave(guest);
    Some(())
}

/// `up` of a tap that was taken down, or refused, or is up already.
fn up_again(hand: &mut Hand) -> Option<()> {
    let i = hand.any_tap(|model, tap| {
        let is_ours = tap.guest == Some(tap.owner) || (tap.guest.is_none() && tap.bridge.is_none());
        is_ours && !model.has_duplicate(tap) && !model.resting.contains(&tap.owner)
    })?;
    let tap = hand.model.taps[i].clone();
    let mac = tap.guest.is_none() || tap.overwritten || hand.one_in(2);
    up(hand, i, mac);
    if tap.bridge.is_some() {
        hand.model.taps[i].known = tap.known;
    }
    Some(())
}

/// A guest says something, which it does when it arrives.
fn frame(hand: &mut Hand) -> Option<()> {
    let waits = |hand: &Hand, guest: Guest| hand.model.arrivals.get(&guest).is_some_and(|a| a.claimed.is_none());
    let arriving: Vec<Guest> = hand.model.arrivals.keys().copied().filter(|guest| waits(hand, *guest)).collect();
    let i = hand
        .any_tap(|model, tap| tap.open > 0 && model.is_routed(tap) && arriving.contains(&tap.owner))
        .or_else(|| hand.any_tap(|model, tap| tap.open > 0 && model.is_routed(tap)))?;
    let Tap { id, name, owner, .. } = hand.model.taps[i].clone();
    if waits(hand, owner) {
        hand.shell(format!("forwards {name}"));
    }
    hand.guests(format!("frame {id}"));
    let now = hand.now;
    if let Some(arrival) = hand.model.arrivals.get_mut(&owner).filter(|arrival| arrival.killed.is_none()) {
        arrival.claimed.get_or_insert(now);
        if hand.model.elsewhere.remove(&owner) {
            hand.shell(format!("ip route del {}/32 via 192.0.2.2 proto ospf metric 20", owner.address()));
        }
    }
    Some(())
}

/// A guest will arrive from another host.
fn migrate(hand: &mut Hand) -> Option<()> {
    let guest = hand.free_guest().filter(|guest| !hand.model.arrivals.contains_key(guest))?;
    if hand.one_in(2) && hand.model.elsewhere.insert(guest) {
        hand.shell(format!("ip route add {}/32 via 192.0.2.2 proto ospf metric 20", guest.address()));
    }
    hand.shell(format!("hook migrate {} {}", guest.mac(), BRIDGES[guest.bridge]));
    if hand.is_up(guest.bridge) {
        hand.model.arrivals.insert(guest, Arrival::default());
    }
    Some(())
}

/// A migration fails before there is a tap.
fn cancel(hand: &mut Hand) -> Option<()> {
    let waiting: Vec<Guest> = hand.model.arrivals.keys().copied().collect();
    let waiting: Vec<Guest> =
        waiting.into_iter().filter(|guest| hand.model.taps.iter().all(|tap| tap.owner != *guest)).collect();
    let guest = hand.some(&waiting)?;
    hand.shell(format!("hook release {} {}", guest.mac(), BRIDGES[guest.bridge]));
    hand.model.arrivals.remove(&guest);
    hand.model.resting.insert(guest);
    Some(())
}

fn kill_claimer(hand: &mut Hand) -> Option<()> {
    let alive: Vec<Guest> =
        hand.model.arrivals.iter().filter(|(_, a)| a.killed.is_none()).map(|(guest, _)| *guest).collect();
    let guest = hand.some(&alive)?;
    hand.steps.push(Operation { what: Do::KillClaimer(guest), succeeds: None });
    let now = hand.now;
    hand.model.arrivals.get_mut(&guest)?.killed = Some(now);
    Some(())
}
