//! Locks that die with the process that holds them, however that dies: abstract sockets, in the network
//! namespace whose routes they are about. Nothing in /run, nothing to clean up.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use anyhow::{Context, Result};
use nix::sys::socket::{getsockopt, sockopt};

/// A lock that is held, and the task that takes the callers off its queue: a full queue would block the next.
pub struct Lock(tokio::task::JoinHandle<()>);

impl Lock {
    /// `None` if somebody has it.
    pub fn take(name: &str) -> Result<Option<Self>> {
        let Ok(socket) = UnixListener::bind_addr(&abstract_name(name)?) else { return Ok(None) };
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
/// anybody may take an abstract name.
pub fn holder(name: &str) -> Option<i32> {
    let socket = UnixStream::connect_addr(&abstract_name(name).ok()?).ok()?;
    let holder = getsockopt(&socket, sockopt::PeerCredentials).ok()?;
    (holder.uid() == nix::unistd::geteuid().as_raw() || holder.uid() == 0).then_some(holder.pid())
}

fn abstract_name(name: &str) -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(name).with_context(|| format!("name of the lock {name}"))
}
