//! The kernel shell: the only folder that imports rtnetlink. Reads snapshots, applies steps, decides nothing.
//!
//! `read` asks, `apply` changes, `message` is the spelling of both; here is the socket. Every request goes
//! through `talk`, which waits for the kernel's own end of the answer (an acknowledgement, the end of a
//! dump) with a limit: rtnetlink's own streams just end when a dump was refused or the socket died, and an
//! empty dump that is believed withdraws a whole host.

mod apply;
mod message;
mod read;

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket;

pub use apply::OnFailure;
pub use read::mac_was_set;

/// The kernel answers in microseconds; seconds mean that another process holds RTNL.
const PATIENCE: Duration = Duration::from_secs(10);

/// NLM_F_DUMP_INTR (linux/netlink.h): the table changed under the dump, which may miss entries.
const DUMP_INTERRUPTED: u16 = 0x10;

/// How often an interrupted dump is tried again before it is an error.
const DUMP_TRIES: u32 = 5;

pub struct Kernel {
    handle: rtnetlink::Handle,
}

/// A request that the kernel refused.
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
            Errno::EPERM => write!(f, ": it takes root or CAP_NET_ADMIN"),
            Errno::EXFULL => write!(f, ": a bridge has at most 1023 ports, so this host needs a second [[bridge]]"),
            _ => Ok(()),
        }
    }
}

/// The errno behind an error of `talk`, where code branches on it.
fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<Denied>().map(|denied| denied.errno)
}

/// `Ok(None)` where the kernel's refusal means "there is none".
fn absent<T>(result: Result<T>, meaning: &[Errno]) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if errno(&error).is_some_and(|errno| meaning.contains(&errno)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How one exchange ended, where it is not an error.
enum End {
    Complete(Vec<RouteNetlinkMessage>),
    Interrupted,
}

impl Kernel {
    /// Opens a netlink socket in the network namespace of the process. Needs a tokio runtime.
    pub fn open() -> Result<Self> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().context("cannot open a netlink socket")?;
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true).context("netlink socket option NETLINK_EXT_ACK")?;
        socket.set_cap_ack(true).context("netlink socket option NETLINK_CAP_ACK")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// One request, of which one object is the answer; `flags` beside NLM_F_REQUEST.
    async fn ask(&self, what: &str, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>> {
        Ok(self.talk(what, message, 0).await?.into_iter().next())
    }

    /// One request that changes something and is acknowledged.
    async fn change(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.talk(what, message, flags | NLM_F_ACK).await.map(|_| ())
    }

    /// A dump that is whole: tried again when the table changed under it, an error when it is never whole.
    async fn dump(&self, what: &str, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>> {
        self.talk(what, message, NLM_F_DUMP).await
    }

    async fn talk(&self, what: &str, message: RouteNetlinkMessage, flags: u16) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_TRIES {
            let exchange = self.exchange(message.clone(), flags);
            match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(Ok(End::Complete(answer))) => return Ok(answer),
                Ok(Ok(End::Interrupted)) => continue,
                Ok(Err(error)) => return Err(error),
                Err(_) => bail!("no answer from the kernel in {} s: {what}", PATIENCE.as_secs()),
            }
        }
        bail!("the kernel's tables kept changing under {DUMP_TRIES} tries: {what}")
    }

    async fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> Result<End> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        let mut stream = self.handle.clone().request(message).context("the netlink socket is closed")?;
        let mut answer = Vec::new();
        let mut interrupted = false;
        let mut ended = false;
        while let Some(message) = stream.next().await {
            interrupted |= message.header.flags & DUMP_INTERRUPTED != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(inner) => {
                    answer.push(inner);
                    ended |= flags & (NLM_F_ACK | NLM_F_DUMP) == 0;
                }
                NetlinkPayload::Error(error) if error.code.is_none() => ended = true,
                NetlinkPayload::Error(error) => return Err(message::denied(error.raw_code(), &error.header).into()),
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(message::denied(done.code, &done.extended_ack).into());
                }
                NetlinkPayload::Done(_) => ended = true,
                _ => bail!("the netlink socket lost messages"),
            }
        }
        match (interrupted, ended) {
            (true, _) => Ok(End::Interrupted),
            (false, true) => Ok(End::Complete(answer)),
            (false, false) => bail!("the netlink socket closed before the kernel's answer was whole"),
        }
    }
}
