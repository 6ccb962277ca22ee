//! The unix sockets of this network namespace, as the kernel lists them: sock_diag(7), which `ss -x` asks too.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

// linux/unix_diag.h
const UDIAG_SHOW_NAME: u32 = 0x01;
const UDIAG_SHOW_UID: u32 = 0x40;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_UID: u16 = 7;
/// sizeof(struct unix_diag_msg)
const MESSAGE: usize = 16;

// linux/sock_diag.h, net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u32 = 10;

/// sizeof(struct nlmsghdr), sizeof(struct nlattr)
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// As much as the kernel puts into one datagram (netlink_dump).
const DATAGRAM: usize = 32 << 10;

/// Names of the listening sockets with abstract names that begin with `prefix` and that root or this process's user
/// made. The kernel tells who made a socket (sk_diag_dump_uid), in the terms of our user namespace.
///
/// The list can miss a socket if another one is closed at that moment: where a datagram is full, the kernel continues
/// by position (unix_diag_dump).
///
/// `None` where the kernel has no unix_diag (CONFIG_UNIX_DIAG; where it is a module, asking loads it).
pub fn trusted(prefix: &str) -> Result<Option<BTreeSet<String>>> {
    ask(prefix).context("list the unix sockets, as `ss -xl` does")
}

fn ask(prefix: &str) -> Result<Option<BTreeSet<String>>> {
    let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkSockDiag)?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let user = nix::unistd::geteuid().as_raw();
    let mut names = BTreeSet::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let length = recv(socket.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
        let mut rest = &datagram[..length];
        while let Some((kind, payload, after)) = message(rest) {
            rest = after;
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(Some(names)),
                libc::NLMSG_ERROR => {
                    match number(payload, 0).map(|errno| Errno::from_raw((errno as i32).wrapping_neg())) {
                        Some(Errno::ENOENT) => return Ok(None),
                        errno => bail!("{}", errno.unwrap_or(Errno::EBADMSG).desc()),
                    }
                }
                _ => {
                    let owned = name_and_user(payload).filter(|(_, uid)| *uid == 0 || *uid == user);
                    names.extend(owned.map(|(name, _)| name).filter(|name| name.starts_with(prefix)));
                }
            }
        }
    }
}

/// struct nlmsghdr and struct unix_diag_req: all that listen, with name and user.
fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    bytes.extend(40u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    bytes.extend((1u32 << TCP_LISTEN).to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend((UDIAG_SHOW_NAME | UDIAG_SHOW_UID).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// The first message of a datagram: its type, its payload, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = number(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, rest))
}

/// An abstract name without its leading zero, and who made the socket.
fn name_and_user(message: &[u8]) -> Option<(String, u32)> {
    let (mut name, mut user) = (None, None);
    let mut rest = message.get(MESSAGE..)?;
    while let Some(head) = rest.first_chunk::<ATTRIBUTE>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = rest.get(ATTRIBUTE..length)?;
        match u16::from_ne_bytes([head[2], head[3]]) {
            UNIX_DIAG_NAME => name = value.strip_prefix(b"\0").and_then(|name| str::from_utf8(name).ok()),
            UNIX_DIAG_UID => user = number(value, 0),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((name?.to_owned(), user?))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
