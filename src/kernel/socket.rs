//! The socket for requests.
//!
//! The kernel answers a request while it takes it, and goes on with a dump whenever somebody reads (netlink_rcv_skb,
//! netlink_recvmsg): who has sent need not wait, but read. netlink-proto's task, queues and boxes took longer than the
//! kernel itself: 5 of the 8 us of a question about a tap, of which a pass asks thousands.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{MSG_TRUNC, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{self, SocketAddr};
use socket2::SockRef;

use super::{Denied, Outcome, decode, encode};

/// The kernel has answered when `send` returns. Not to a request that it does not know to have an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// NLM_F_DUMP_INTR (linux/netlink.h): the table changed under the dump, which may miss entries.
const DUMP_INTERRUPTED: u16 = 0x10;

/// The kernel fills no larger piece of a dump (netlink_recvmsg: SKB_WITH_OVERHEAD(32768)).
pub const LARGEST: usize = 32 << 10;

pub struct Socket {
    socket: sys::Socket,
    /// The socket's port, by which events tell what was done through it.
    pub port: u32,
    /// Of the next request.
    sequence: Cell<u32>,
    buffer: RefCell<Vec<u8>>,
}

impl Socket {
    /// Opens a netlink socket in the network namespace of the process.
    pub fn open() -> Result<Self> {
        let mut socket = sys::Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        // Without strict checking the kernel ignores what a dump asks for, and sends everything.
        socket.set_netlink_get_strict_chk(true).context("netlink socket option NETLINK_GET_STRICT_CHK")?;
        socket.set_ext_ack(true).context("netlink socket option NETLINK_EXT_ACK")?;
        socket.set_cap_ack(true).context("netlink socket option NETLINK_CAP_ACK")?;
        SockRef::from(&socket).set_read_timeout(Some(PATIENCE)).context("netlink socket option SO_RCVTIMEO")?;
        let port = socket.bind_auto().context("netlink socket")?.port_number();
        // To the kernel, and nobody else can send to it (netlink_getsockbyportid).
        socket.connect(&SocketAddr::new(0, 0)).context("netlink socket")?;
        Ok(Self { socket, port, sequence: Cell::new(1), buffer: RefCell::new(Vec::with_capacity(LARGEST)) })
    }

    /// Sends requests in one datagram, and reads until each is answered to its end.
    pub fn exchange(&self, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        let flags: Vec<u16> = requests.iter().map(|(_, flags)| *flags).collect();
        let first = self.sequence.get();
        self.send(requests)?;
        let mut outcomes = Vec::with_capacity(flags.len());
        let (mut objects, mut interrupted) = (Vec::new(), false);
        let mut buffer = self.buffer.borrow_mut();
        while outcomes.len() < flags.len() {
            self.receive(&mut buffer)?;
            for message in decode::messages(&buffer) {
                // The kernel answers the requests of one datagram one after the other (netlink_rcv_skb). What is older
                // answers requests that were given up.
                let at = message.sequence_number().wrapping_sub(first) as usize;
                let Some(flags) = flags.get(at).filter(|_| at == outcomes.len()) else { continue };
                interrupted |= message.flags() & DUMP_INTERRUPTED != 0;
                let outcome = match i32::from(message.message_type()) {
                    NLMSG_ERROR | NLMSG_DONE => end(message.payload())?,
                    NLMSG_NOOP => continue,
                    NLMSG_OVERRUN => bail!("the netlink socket lost messages"),
                    _ => {
                        objects.push(decode::object(&message));
                        if flags & (NLM_F_ACK | NLM_F_DUMP) != 0 {
                            continue;
                        }
                        Ok(())
                    }
                };
                let objects = std::mem::take(&mut objects);
                outcomes.push(match outcome {
                    Ok(()) if std::mem::take(&mut interrupted) => {
                        Err(Denied { errno: Errno::EINTR, text: String::new() })
                    }
                    Ok(()) => Ok(objects),
                    Err(denied) => Err(denied),
                });
            }
        }
        Ok(outcomes)
    }

    fn send(&self, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<()> {
        let mut datagram = Vec::new();
        for (message, flags) in requests {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST | flags;
            header.sequence_number = self.sequence.replace(self.sequence.get().wrapping_add(1));
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut datagram[start..]);
        }
        retried(|| self.socket.send(&datagram, 0)).context("cannot ask the kernel")?;
        Ok(())
    }

    /// The next datagram.
    fn receive(&self, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        match retried(|| self.socket.recv(buffer, MSG_TRUNC)) {
            Ok(length) if length > buffer.len() => bail!("the kernel's answer of {length} octets is too long"),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                bail!("the kernel did not answer in {} s", PATIENCE.as_secs())
            }
            Err(error) => Err(error).context("cannot read the kernel's answer"),
        }
    }
}

/// A signal, such as SIGCHLD, may come at any time.
fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The end of an answer, with what NLMSG_ERROR or NLMSG_DONE carries: a negative error code, or 0, then more of it.
fn end(payload: &[u8]) -> Result<Result<(), Denied>> {
    let (code, rest) = payload.split_first_chunk().context("the kernel's answer is cut off")?;
    Ok(match i32::from_ne_bytes(*code) {
        0.. => Ok(()),
        code => Err(encode::denied(code, rest)),
    })
}
