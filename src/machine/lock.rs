//! Locks that die with the process that holds them, however it dies: each is a unix socket with an abstract name, in
//! the network namespace whose routes it is about. There is no file to clean up, and a process with another /run or in
//! another pid namespace (libvirt in a container) sees the lock too.
//!
//! Every user may bind any abstract name. So a name proves nothing, and a name that others can foresee they can take
//! first. Therefore each holder's name ends in a random number, and a lock is held where the kernel lists a socket that
//! root made and whose name begins with the lock's. Other users' sockets do not count, and they cannot guess a
//! holder's name. The sockets refuse every connection, so other users can neither wake nor block a holder.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, listen, shutdown, socket,
};

use super::unix_sockets;

/// How often a process tries again when another one tries at the same moment.
const TRIES: u32 = 10;

/// A lock that is held.
pub struct Lock(#[expect(dead_code, reason = "held until it is dropped")] OwnedFd);

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Name of the lock.
    pub lock: String,
    /// Its process; `None` where that is in another pid namespace.
    pub pid: Option<i32>,
    /// Port of the netlink socket that takes requests to end; 0 if there is none.
    pub port: u32,
}

impl Lock {
    /// Takes a lock; `None` if another process holds it. `port` is [`Holder::port`].
    ///
    /// # Errors
    /// The kernel does not list its sockets, or makes none.
    pub fn take(lock: &str, port: u32) -> Result<Option<Self>> {
        for _ in 0..TRIES {
            if holder(lock)?.is_some() {
                return Ok(None);
            }
            let random = random();
            let name = format!("{lock}/{}/{}/{port}/{random:016x}", std::process::id(), pid_namespace());
            let held = Self(listener(&name).with_context(|| format!("lock {lock}"))?);
            // Each has its name before it looks, so of two at least the second sees the first. If both see each other, both
            // let go and try again after different times.
            let holders =
                names(lock)?.context("this kernel does not list unix sockets: `modprobe unix_diag` fixes that")?;
            if holders.iter().all(|other| *other == name) {
                return Ok(Some(held));
            }
            drop(held);
            sleep(Duration::from_micros(500 + random % 8000));
        }
        Ok(None)
    }
}

/// The process that holds a lock.
pub fn holder(lock: &str) -> Result<Option<Holder>> {
    Ok(holders_below(lock)?.into_iter().find(|holder| holder.lock == lock))
}

/// All holders of this lock, and of locks whose names have another part behind this one. Where the kernel lists no
/// sockets there are none, since there nobody can take a lock.
pub fn holders_below(folder: &str) -> Result<Vec<Holder>> {
    Ok(names(folder)?.unwrap_or_default().iter().filter_map(|name| parse(name)).collect())
}

fn names(lock: &str) -> Result<Option<BTreeSet<String>>> {
    unix_sockets::trusted(&format!("{lock}/"))
}

/// As [`Lock::take`] names it.
fn parse(name: &str) -> Option<Holder> {
    let mut parts = name.rsplitn(5, '/').skip(1);
    let (port, namespace, pid) = (parts.next()?.parse().ok()?, parts.next()?.parse::<u64>().ok()?, parts.next()?);
    let is_here = namespace != 0 && namespace == pid_namespace();
    let pid = pid.parse().ok()?;
    Some(Holder { lock: parts.next()?.to_owned(), pid: is_here.then_some(pid), port })
}

/// A socket that has a name and takes no connection: one that is shut down for reading refuses them
/// (unix_stream_connect).
fn listener(name: &str) -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
    listen(&socket, Backlog::new(0)?)?;
    shutdown(socket.as_raw_fd(), Shutdown::Both)?;
    Ok(socket)
}

/// Inode of our pid namespace, which names it (namespaces(7)); 0 without a /proc of ours.
fn pid_namespace() -> u64 {
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// A number that nobody can foresee: std takes the keys of its hash tables from the kernel's generator.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
