//! Locks that die with the process that holds them, however that dies: abstract sockets, in the network
//! namespace whose routes they are about. Nothing in /run, nothing to clean up.

use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};

/// A lock that is held, and the task that takes the callers off its queue: a full queue would block the next.
pub struct Lock(tokio::task::JoinHandle<()>);

impl Lock {
    /// `None` if somebody has it.
    pub fn take(name: &str) -> Result<Option<Self>> {
        let socket = match UnixListener::bind_addr(&abstract_name(name)?) {
            Ok(socket) => socket,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("lock {name}")),
        };
        socket.set_nonblocking(true).with_context(|| format!("lock {name}"))?;
        let socket = tokio::net::UnixListener::from_std(socket).with_context(|| format!("lock {name}"))?;
        Ok(Some(Self(tokio::spawn(async move { while socket.accept().await.is_ok() {} }))))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The process that holds a lock. A socket of that name that another user's process holds is no lock of ours:
/// anybody may take an abstract name. So nobody is waited for either: one whose queue is full is not ours, which are
/// emptied. One in another pid namespace has no process id here.
pub fn holder(name: &str) -> Option<i32> {
    let address = UnixAddr::new_abstract(name.as_bytes()).ok()?;
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.ok()?;
    connect(socket.as_raw_fd(), &address).ok()?;
    let holder = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    let ours = holder.uid() == nix::unistd::geteuid().as_raw() || holder.uid() == 0;
    (ours && holder.pid() > 0).then_some(holder.pid())
}

/// What to say of a lock that is taken and has no holder.
pub fn squatted(name: &str) -> String {
    format!("somebody else's process holds the abstract socket @{name}: `ss -xlp src @{name}` names it")
}

fn abstract_name(name: &str) -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(name).with_context(|| format!("name of the lock {name}"))
}
