//! The claimers that are alive: each holds a lock named after its guest's address. verbs/arrival.rs is the claimer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use super::lock::{self, Holder};
use super::process;
use crate::guest::snapshot::Arrival;

const FOLDER: &str = "tap32/arrival";
const COME: &str = "come";

/// How many seconds to wait while the claimer's queue is full.
const PATIENCE: i64 = 1;

pub(crate) fn lock_name(address: Ipv4Addr) -> String {
    format!("{FOLDER}/{address}")
}

/// The lock that a claimer holds too from its guest's first frame on: by it others know that the guest is here, though the
/// bridge have forgotten its frames.
pub(crate) fn come_lock_name(address: Ipv4Addr) -> String {
    format!("{FOLDER}/{address}/{COME}")
}

/// The claimer that is alive for an address.
pub fn live(address: Ipv4Addr) -> Result<Option<Arrival>> {
    let listed = arrivals(lock::holders_below(&lock_name(address))?);
    Ok(listed.into_iter().find(|arrival| arrival.address == address))
}

/// All claimers that are alive, where one can matter for these addresses.
///
/// Where none is listed for one of these addresses the list is read twice, since it can miss a socket
/// (`unix_sockets::trusted`): a claim that is deleted too early costs its guest packets, and so does a route that comes too
/// early.
pub fn all_live(addresses: &BTreeSet<Ipv4Addr>) -> Result<Vec<Arrival>> {
    let mut found: Vec<Arrival> = Vec::new();
    for _ in 0..2 {
        let is_missing = |address: &Ipv4Addr| found.iter().all(|arrival| arrival.address != *address);
        if !addresses.iter().any(is_missing) {
            break;
        }
        let new = arrivals(lock::holders_below(FOLDER)?);
        found.retain(|arrival| new.iter().all(|other| other.address != arrival.address));
        found.extend(new);
    }
    Ok(found)
}

fn arrivals(holders: Vec<Holder>) -> Vec<Arrival> {
    let address = |lock: &str| lock.strip_prefix(FOLDER)?.strip_prefix('/')?.parse::<Ipv4Addr>().ok();
    let (come, waiting): (Vec<_>, Vec<_>) = holders.into_iter().partition(|holder| holder.lock.ends_with(COME));
    let come: BTreeSet<String> = come.into_iter().map(|holder| holder.lock).collect();
    let arrival = |holder: Holder| {
        let address = address(&holder.lock)?;
        Some(Arrival { address, pid: holder.pid, has_come: come.contains(&come_lock_name(address)) })
    };
    waiting.into_iter().filter_map(arrival).collect()
}

/// Ends a claimer's wait for every guest whose tap is not on a bridge; the claim is its dismisser's to delete.
///
/// The claimer gets a message on the netlink socket on which it waits. A signal would not reach a process in another pid
/// namespace, and the pid could be another process's by now. Only a process with CAP_NET_ADMIN may send this message
/// (netlink_sendmsg: NETLINK_ROUTE has no NL_CFG_F_NONROOT_SEND).
///
/// One that somebody has stopped hears nothing, and would tell of an arrival for as long as it holds its lock: it is
/// killed. It cannot have gone meanwhile, so the pid is its own.
pub fn dismiss(address: Ipv4Addr) -> Result<()> {
    let lock = lock_name(address);
    let Some(holder) = lock::holder(&lock)? else { return Ok(()) };
    tell(holder.port).with_context(|| format!("dismiss the claimer of {address}"))?;
    if let Some(pid) = holder.pid.filter(|pid| process::is_stopped(*pid))
        && lock::holder(&lock)?.as_ref() == Some(&holder)
    {
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("kill the stopped claimer of {address}"))?;
    }
    Ok(())
}

fn tell(port: u32) -> Result<()> {
    let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
    let socket = socket(AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(PATIENCE, 0))?;
    match sendto(socket.as_raw_fd(), &no_operation(), &NetlinkAddr::new(port, 0), MsgFlags::empty()) {
        // Nobody has the port any more.
        Ok(_) | Err(Errno::ECONNREFUSED) => Ok(()),
        Err(errno) => bail!("{}", errno.desc()),
    }
}

/// struct nlmsghdr of a NLMSG_NOOP, which the kernel itself never sends.
fn no_operation() -> [u8; 16] {
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16u32.to_ne_bytes());
    message[4..6].copy_from_slice(&(libc::NLMSG_NOOP as u16).to_ne_bytes());
    message
}
