//! The socket for requests.
//!
//! The kernel answers a request while it takes it, and goes on with a dump whenever somebody reads (netlink_rcv_skb,
//! netlink_recvmsg): who has sent need not wait, but read. So there is no task and no queue, and a hook needs no runtime.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc::{MSG_DONTWAIT, MSG_TRUNC, NLMSG_DONE, NLMSG_ERROR};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{self, SocketAddr};
use socket2::SockRef;

use super::decode::{self, Object};
use super::{Denied, Outcome, encode};

/// The kernel has answered when `send` returns; but there are requests to which it says nothing (tc_qdisc_dump_ignore).
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
        let port = socket.bind_auto().context("cannot bind a netlink socket")?.port_number();
        // To the kernel: nobody else can send to it then (netlink_getsockbyportid).
        socket.connect(&SocketAddr::new(0, 0)).context("cannot connect a netlink socket")?;
        Ok(Self { socket, port, sequence: Cell::new(1), buffer: RefCell::new(Vec::with_capacity(LARGEST)) })
    }

    /// Sends requests in one datagram, and reads until each is answered to its end.
    pub fn exchange(&self, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        self.ask(requests).inspect_err(|_| self.drain())
    }

    fn ask(&self, requests: Vec<(RouteNetlinkMessage, u16)>) -> Result<Vec<Outcome>> {
        let flags: Vec<u16> = requests.iter().map(|(_, flags)| *flags).collect();
        let first = self.sequence.get();
        self.send(requests)?;
        let mut outcomes = Vec::with_capacity(flags.len());
        let mut answer = Answer::default();
        let mut buffer = self.buffer.borrow_mut();
        while outcomes.len() < flags.len() {
            self.receive(&mut buffer)?;
            for message in decode::messages(&buffer) {
                // What is older answers requests that were given up.
                let at = message.sequence_number().wrapping_sub(first) as usize;
                let Some(flags) = flags.get(at) else { continue };
                // The kernel answers the requests of one datagram one after the other (netlink_rcv_skb). A dump it goes on
                // with later, so that must be the last.
                ensure!(at == outcomes.len(), "the kernel left out an answer");
                if let Some(end) = answer.hear(&message, *flags)? {
                    outcomes.push(std::mem::take(&mut answer).outcome(end));
                }
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

    /// Reads what is left of answers that were given up: until then the kernel begins no other dump, and after an overrun
    /// it answers nothing.
    fn drain(&self) {
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        while self.socket.recv(&mut *buffer, MSG_DONTWAIT).is_ok() {
            buffer.clear();
        }
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

/// What was heard of one answer.
#[derive(Default)]
struct Answer {
    objects: Vec<Object>,
    interrupted: bool,
}

impl Answer {
    /// Whether the request was granted, if this is the end of the answer. A request without an acknowledgement has one
    /// object for an answer.
    fn hear(&mut self, message: &NetlinkBuffer<&[u8]>, flags: u16) -> Result<Option<Result<(), Denied>>> {
        self.interrupted |= message.flags() & DUMP_INTERRUPTED != 0;
        match i32::from(message.message_type()) {
            NLMSG_ERROR | NLMSG_DONE => {
                let (code, rest) = message.payload().split_first_chunk().context("the kernel's answer is cut off")?;
                let code = i32::from_ne_bytes(*code);
                Ok(Some(if code < 0 { Err(encode::denied(code, rest)) } else { Ok(()) }))
            }
            _ => {
                self.objects.push(decode::object(message));
                Ok((flags & (NLM_F_ACK | NLM_F_DUMP) == 0).then_some(Ok(())))
            }
        }
    }

    fn outcome(self, end: Result<(), Denied>) -> Outcome {
        end?;
        if self.interrupted { Err(Denied { errno: Errno::EINTR, text: String::new() }) } else { Ok(self.objects) }
    }
}
