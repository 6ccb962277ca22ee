//! The kernel shell: the only folder that imports rtnetlink. Reads snapshots, applies steps, decides nothing.
//!
//! `read` asks, `fdb` reads sysfs, `snapshot` and `whole_host` put answers together, `apply` changes. `interfaces` does all
//! of it for the host itself, `proc_sys` under /proc/sys, `guard` for a tap's filter, `neighbour` for the ARP table.
//! `events` listens. `encode` and `decode` are the spelling, `socket` sends it. Every request goes through
//! `request_batch`, which waits for the kernel's own end of the answer (an acknowledgement, the end of a dump) with a
//! limit: rtnetlink's own streams just end when a dump was refused or the socket died, and an empty dump that is believed
//! withdraws a whole host.

mod apply;
mod decode;
mod encode;
mod event_filter;
mod events;
mod fdb;
mod guard;
mod interfaces;
mod neighbour;
mod proc_sys;
mod read;
mod snapshot;
mod socket;
mod traffic;
mod whole_host;

use std::fmt::{self, Display};
use std::panic::resume_unwind;
use std::thread::Builder;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::machine::heap;
use decode::Object;
use socket::Socket;

pub use apply::{Applied, OnFailure};
pub use events::{Event, Events};
pub use proc_sys::{is_without_ipv6, read as read_sysctl};
pub use read::mac_was_set;
pub use snapshot::{Detail, Scope};

/// How often an interrupted dump is tried again before it is an error.
pub const DUMP_TRIES: u32 = 5;

/// How many questions go in one datagram: what the kernel answers to them must fit the receive buffer (212,992 octets
/// by default, of which what it says of one interface takes some 5 KiB).
const BATCH: usize = 32;

/// From so many questions on a second thread asks half.
const MANY: usize = 512;

pub struct Kernel {
    socket: Socket,
}

/// A request that the kernel refused; a value of its own, because code branches on the errno.
#[derive(Debug)]
struct Denied {
    errno: Errno,
    /// The kernel's own sentence (extended acknowledgement), often empty.
    text: String,
}

impl std::error::Error for Denied {}

impl Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.errno.desc())?;
        if !self.text.is_empty() {
            write!(f, " ({})", self.text)?;
        }
        match self.errno {
            Errno::EPERM => write!(f, ": tap32 needs root or CAP_NET_ADMIN"),
            Errno::EXFULL => write!(f, ": a bridge has at most 1023 ports, so this host needs a second [[bridge]]"),
            _ => Ok(()),
        }
    }
}

/// What one request came to.
type Outcome = Result<Vec<Object>, Denied>;

/// `None` where the kernel's refusal means "there is none"; any other becomes an error that says what was asked.
fn unless<T>(none: &[Errno], what: &str, outcome: Result<T, Denied>) -> Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(denied) if none.contains(&denied.errno) => Ok(None),
        Err(denied) => Err(anyhow::Error::new(denied).context(what.to_owned())),
    }
}

/// The one object of an answer.
fn answer(outcome: Outcome, what: &str, none: &[Errno]) -> Result<Option<Object>> {
    Ok(unless(none, what, outcome)?.and_then(|objects| objects.into_iter().next()))
}

impl Kernel {
    /// Opens a netlink socket in the network namespace of the process.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open()? })
    }

    /// The socket's port, by which events tell what we did ourselves.
    pub fn port(&self) -> u32 {
        self.socket.port
    }

    /// A question about each of these, with one object for an answer, or `None` where the kernel refuses it with one of the
    /// errors `none`.
    fn request<Q: Sync>(
        &self,
        what: &str,
        about: &[Q],
        question: impl Fn(&Q) -> RouteNetlinkMessage + Sync,
        none: &[Errno],
    ) -> Result<Vec<Option<Object>>> {
        self.request_each(what, about, question, |outcome| answer(outcome, what, none))
    }

    /// As `request`, and `read` makes of each answer or refusal what the caller wants. Of many questions a second thread
    /// asks half: a third of the time is tap32's own, and part of the kernel's work runs in parallel too. With one thread a
    /// full pass over 4,000 guarded taps takes a sixth longer (measured).
    fn request_each<Q: Sync, T: Send>(
        &self,
        what: &str,
        about: &[Q],
        question: impl Fn(&Q) -> RouteNetlinkMessage + Sync,
        read: impl Fn(Outcome) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let ask = |kernel: &Self, part: &[Q]| {
            let mut all = Vec::with_capacity(part.len());
            for batch in part.chunks(BATCH) {
                let questions = batch.iter().map(|one| (question(one), 0)).collect();
                for outcome in kernel.request_batch(what, questions)? {
                    all.push(read(outcome)?);
                }
            }
            anyhow::Ok(all)
        };
        if about.len() < MANY {
            return ask(self, about);
        }
        // Where the system gives no second socket or no thread (RLIMIT_NOFILE, TasksMax=), this one asks all.
        let Ok(other) = Self::open() else { return ask(self, about) };
        heap::share_one();
        let (first, second) = about.split_at(about.len() / 2);
        std::thread::scope(|scope| {
            let Ok(thread) = Builder::new().spawn_scoped(scope, move || ask(&other, second)) else {
                return ask(self, about);
            };
            let mut all = ask(self, first)?;
            all.append(&mut thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
            Ok(all)
        })
    }

    /// One request that changes something, and whether the kernel did it.
    fn change(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Result<(), Denied>> {
        let outcomes = self.request_batch(what, vec![(message, flags | NLM_F_ACK)])?;
        Ok(outcomes.into_iter().try_for_each(|outcome| outcome.map(|_| ())))
    }

    /// A dump that is whole: asked for again when the table changed under it, an error when it never is.
    fn dump(&self, what: &str, message: RouteNetlinkMessage) -> Result<Outcome> {
        self.dump_within(DUMP_TRIES, what, message)
    }

    fn dump_within(&self, tries: u32, what: &str, message: RouteNetlinkMessage) -> Result<Outcome> {
        for _ in 0..tries {
            match self.request_batch(what, vec![(message.clone(), NLM_F_DUMP)])?.pop() {
                Some(Err(Denied { errno: Errno::EINTR, .. })) => {}
                Some(outcome) => return Ok(outcome),
                None => break,
            }
        }
        bail!("{what}: the kernel's tables changed during each of {tries} tries")
    }

    /// Sends requests in one datagram and reads until each is answered to its end.
    fn request_batch(&self, what: &str, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        self.socket.exchange(requests).with_context(|| what.to_owned())
    }
}
