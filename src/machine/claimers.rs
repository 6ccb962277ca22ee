//! The claimers that are alive: each holds a lock named after its guest's address. verbs/arrival.rs is the claimer.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lock;
use crate::guest::snapshot::Arrival;

pub fn lock_name(address: Ipv4Addr) -> String {
    format!("tap32/arrival/{address}")
}

/// The claimer that is alive for an address.
pub fn live(address: Ipv4Addr) -> Option<Arrival> {
    lock::holder(&lock_name(address)).map(|pid| Arrival { address, pid })
}

/// Ends a claimer's wait for every guest whose tap is not on a bridge; the claim is its dismisser's to delete.
pub fn dismiss(pid: i32) -> Result<()> {
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => bail!("{}", errno.desc()),
    }
}
