//! What can happen to a host. Each operation is one thing that somebody does; the model is told what comes of it.

use std::fmt;
use std::time::Instant;

use crate::guard::random::Random;
use crate::model::{BRIDGES, Guest, Model, Tap};
use crate::{breaking, coming, cutting, storms};

/// One thing that somebody does.
pub enum Do {
    /// Types a line.
    Shell(String),
    /// A guest's QEMU does something with its tap.
    Guests(String),
    /// Writes the configuration and has it read. With `true` what is written and read first is broken.
    Reload(String, bool),
    /// `watch` crashes, and systemd starts it again.
    RestartWatch,
    KillClaimer(Guest),
}

pub struct Operation {
    pub what: Do,
    /// Whether it must succeed; `None` if it may fail.
    pub succeeds: Option<bool>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.what {
            Do::Shell(line) => write!(f, "{line}"),
            Do::Guests(line) => write!(f, "# guests: {line}"),
            Do::Reload(config, false) => write!(f, "# reload: {}", config.replace('\n', "; ")),
            Do::Reload(..) => write!(f, "# reload of a broken file"),
            Do::RestartWatch => write!(f, "# watch is killed and started again"),
            Do::KillClaimer(guest) => write!(f, "# the claimer of {} is killed", guest.address()),
        }?;
        if self.succeeds == Some(false) { write!(f, "    # is refused") } else { Ok(()) }
    }
}

/// Who chooses operations: each changes the model and leaves behind what is to be done.
pub struct Hand<'a> {
    pub model: &'a mut Model,
    pub random: &'a mut Random,
    pub now: Instant,
    pub steps: Vec<Operation>,
}

/// `None` if it is not possible now.
type Chosen = Option<()>;
pub type Choice = fn(&mut Hand) -> Chosen;

/// How often each is chosen, in relation to the others.
fn table() -> Vec<(usize, Choice)> {
    [coming::TABLE, breaking::TABLE, cutting::TABLE, storms::TABLE].concat()
}

/// The steps of what is done next.
pub fn choose(model: &mut Model, random: &mut Random) -> Vec<Operation> {
    let table = table();
    let sum = table.iter().map(|(weight, _)| weight).sum();
    let mut hand = Hand { model, random, now: Instant::now(), steps: Vec::new() };
    loop {
        let mut at = hand.random.below(sum);
        let choice = table.iter().find(|(weight, _)| {
            let found = at < *weight;
            at = at.wrapping_sub(*weight);
            found
        });
        if choice.unwrap().1(&mut hand).is_some() {
            return hand.steps;
        }
    }
}

impl Hand<'_> {
    pub fn one_in(&mut self, count: usize) -> bool {
        self.random.below(count) == 0
    }

    pub fn shell(&mut self, line: String) {
        self.steps.push(Operation { what: Do::Shell(line), succeeds: Some(true) });
    }

    pub fn shell_if(&mut self, succeeds: impl Into<Option<bool>>, line: String) {
        self.steps.push(Operation { what: Do::Shell(line), succeeds: succeeds.into() });
    }

    pub fn guests(&mut self, line: String) {
        self.steps.push(Operation { what: Do::Guests(line), succeeds: Some(true) });
    }

    pub fn some<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { Some(all[self.random.below(all.len())].clone()) }
    }

    /// A tap to which something may happen that costs its guest packets: its place in the model.
    pub fn tap(&mut self, is_fit: impl Fn(&Model, &Tap) -> bool) -> Option<usize> {
        self.any_tap(|model, tap| !tap.alone && is_fit(model, tap))
    }

    /// A tap to which something harmless may happen.
    pub fn any_tap(&mut self, is_fit: impl Fn(&Model, &Tap) -> bool) -> Option<usize> {
        self.moving_tap(|model, tap| !tap.moving && is_fit(model, tap))
    }

    /// The same of all, also of those that are about to be put back.
    pub fn moving_tap(&mut self, is_fit: impl Fn(&Model, &Tap) -> bool) -> Option<usize> {
        let fit: Vec<usize> = (0..self.model.taps.len()).filter(|i| is_fit(self.model, &self.model.taps[*i])).collect();
        self.some(&fit)
    }

    /// A guest that has no tap here.
    pub fn free_guest(&mut self) -> Option<Guest> {
        let guest = Guest { bridge: self.random.below(BRIDGES.len()), last: 10 + self.random.below(40) as u8 };
        let is_here = |tap: &Tap| tap.owner == guest || tap.guest == Some(guest);
        let is_free = !self.model.resting.contains(&guest) && !self.model.taps.iter().any(is_here);
        is_free.then_some(guest)
    }

    /// Whether the guest is left alone in this batch.
    pub fn has_alone(&self, guest: Guest) -> bool {
        self.model.taps.iter().any(|tap| tap.alone && tap.owner == guest)
    }

    /// The tap is gone, and what had it open.
    pub fn remove(&mut self, i: usize) {
        self.linger(i);
        let tap = self.model.taps.remove(i);
        self.model.leave(tap.guest);
    }

    /// A tap goes: if `watch` is at work on it just now, the neighbour entry comes behind its back.
    pub fn linger(&mut self, i: usize) {
        let tap = &self.model.taps[i];
        self.model.lingering.extend(tap.guest.filter(|_| !tap.known));
    }

    /// Whether a bridge is there and up.
    pub fn is_up(&self, bridge: usize) -> bool {
        self.model.up[bridge]
    }
}
