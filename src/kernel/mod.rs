//! The kernel shell: the only folder that imports rtnetlink. Reads snapshots, applies steps, decides nothing.
//!
//! `read` asks, `fdb` reads sysfs, `snapshot` and `whole_host` put answers together, `apply` changes. `interfaces` does all
//! of it for the host itself, `proc_sys` under /proc/sys, `guard` for a tap's filter, `neighbour` for the ARP table.
//! `events` listens. `encode` and `decode` are the spelling; here is the socket. Every request goes through
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
mod traffic;
mod whole_host;

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::ConnectionHandle;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use decode::{Message, Object};

pub use apply::{Applied, OnFailure};
pub use events::{Event, Events};
pub use proc_sys::{is_without_ipv6, read as read_sysctl};
pub use read::mac_was_set;
pub use snapshot::{Detail, Scope};

/// The kernel answers in microseconds; seconds mean that another process holds RTNL.
const PATIENCE: Duration = Duration::from_secs(10);

/// NLM_F_DUMP_INTR (linux/netlink.h): the table changed under the dump, which may miss entries.
const DUMP_INTERRUPTED: u16 = 0x10;

/// How often an interrupted dump is tried again before it is an error.
pub const DUMP_TRIES: u32 = 5;

/// How many requests go in one datagram: what the kernel answers to them must fit the receive buffer (212,992 octets
/// by default, of which what it says of one interface takes some 5 KiB).
const BATCH: usize = 32;

pub struct Kernel {
    handle: ConnectionHandle<Message>,
    /// The socket's port, by which events tell what we did ourselves.
    pub port: u32,
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
    /// Opens a netlink socket in the network namespace of the process. Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        let (mut connection, handle, _) =
            rtnetlink::proto::new_connection(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let socket: &mut TokioSocket = connection.socket_mut();
        let socket = socket.socket_mut();
        // Without strict checking the kernel ignores what a dump asks for, and sends everything.
        socket.set_netlink_get_strict_chk(true).context("netlink socket option NETLINK_GET_STRICT_CHK")?;
        socket.set_ext_ack(true).context("netlink socket option NETLINK_EXT_ACK")?;
        socket.set_cap_ack(true).context("netlink socket option NETLINK_CAP_ACK")?;
        let port = socket.bind_auto().context("netlink socket")?.port_number();
        tokio::spawn(connection);
        Ok(Self { handle, port })
    }

    /// Questions that are sent together, up to [`BATCH`] in a datagram, each with one object for an answer, or `None`
    /// where the kernel refuses it with one of the errors `none`.
    async fn request(
        &self,
        what: &str,
        questions: Vec<RouteNetlinkMessage>,
        none: &[Errno],
    ) -> Result<Vec<Option<Object>>> {
        let outcomes = self.request_each(what, questions).await?;
        outcomes.into_iter().map(|outcome| answer(outcome, what, none)).collect()
    }

    /// As `request`, with the kernel's refusals.
    async fn request_each(&self, what: &str, questions: Vec<RouteNetlinkMessage>) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(questions.len());
        let mut questions = questions.into_iter().map(|question| (question, 0)).peekable();
        while questions.peek().is_some() {
            outcomes.extend(self.request_batch(what, questions.by_ref().take(BATCH).collect()).await?);
        }
        Ok(outcomes)
    }

    /// One request that changes something, and whether the kernel did it.
    async fn change(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Result<(), Denied>> {
        let outcomes = self.request_batch(what, vec![(message, flags | NLM_F_ACK)]).await?;
        Ok(outcomes.into_iter().try_for_each(|outcome| outcome.map(|_| ())))
    }

    /// A dump that is whole: asked for again when the table changed under it, an error when it never is.
    async fn dump(&self, what: &str, message: RouteNetlinkMessage) -> Result<Outcome> {
        self.dump_within(DUMP_TRIES, what, message).await
    }

    async fn dump_within(&self, tries: u32, what: &str, message: RouteNetlinkMessage) -> Result<Outcome> {
        for _ in 0..tries {
            match self.request_batch(what, vec![(message.clone(), NLM_F_DUMP)]).await?.pop() {
                Some(Err(Denied { errno: Errno::EINTR, .. })) => {}
                Some(outcome) => return Ok(outcome),
                None => break,
            }
        }
        bail!("{what}: the kernel's tables changed during each of {tries} tries")
    }

    /// Sends requests in one datagram and waits until each is answered to its end.
    async fn request_batch(&self, what: &str, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        match tokio::time::timeout(PATIENCE, self.exchange(requests)).await {
            Ok(outcomes) => outcomes.with_context(|| what.to_owned()),
            Err(_) => bail!("{what}: the kernel did not answer in {} s", PATIENCE.as_secs()),
        }
    }

    async fn exchange(&self, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        let flags: Vec<u16> = requests.iter().map(|(_, flags)| *flags).collect();
        let messages = requests.into_iter().map(|(message, flags)| {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Message::Request(Box::new(message))))
        });
        let kernel = SocketAddr::new(0, 0);
        let batch = messages.collect::<Vec<_>>();
        let mut stream = self.handle.request_batch(batch, kernel).context("the netlink socket is closed")?;
        // The kernel answers the requests of one datagram one after the other (netlink_rcv_skb).
        let mut outcomes = Vec::with_capacity(flags.len());
        let mut objects = Vec::new();
        let mut interrupted = false;
        while let Some(message) = stream.next().await {
            interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
            let outcome = match message.payload {
                NetlinkPayload::InnerMessage(message) => {
                    if let Message::Answer(object) = message {
                        objects.push(*object);
                    }
                    if flags.get(outcomes.len()).is_some_and(|flags| flags & (NLM_F_ACK | NLM_F_DUMP) != 0) {
                        continue;
                    }
                    Ok(())
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    Err(encode::denied(error.raw_code(), &error.header))
                }
                NetlinkPayload::Done(done) if done.code < 0 => Err(encode::denied(done.code, &done.extended_ack)),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => Ok(()),
                _ => bail!("the netlink socket lost messages"),
            };
            let objects = std::mem::take(&mut objects);
            outcomes.push(match outcome {
                Ok(()) if interrupted => Err(Denied { errno: Errno::EINTR, text: String::new() }),
                Ok(()) => Ok(objects),
                Err(denied) => Err(denied),
            });
        }
        if outcomes.len() < flags.len() {
            bail!("the netlink socket closed before the kernel's answer was whole");
        }
        Ok(outcomes)
    }
}
