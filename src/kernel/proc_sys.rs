//! Kernel switches under /proc/sys. /proc/sys/net shows the reader's network namespace.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};

use crate::host::sysctl::Sysctl;

/// The value of a switch; `None` if it does not exist or is not a number.
pub fn read(wanted: &Sysctl) -> Option<u32> {
    fs::read_to_string(file(wanted)).ok()?.trim().parse().ok()
}

/// Whether the kernel was built, or started with ipv6.disable=1, without IPv6. An unreadable /proc/sys does not say so.
pub fn is_without_ipv6() -> bool {
    let exists = |family| Path::new("/proc/sys/net").join(family).exists();
    exists("ipv4") && !exists("ipv6")
}

pub fn write(wanted: &Sysctl) -> Result<()> {
    let file = file(wanted);
    match fs::write(&file, wanted.value.to_string()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("{file} does not exist: this kernel has no such switch, or the interface is gone (see `ip link`)")
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => bail!("{file}: {error}: tap32 needs root"),
        Err(error) => bail!("{file}: {error}: if /proc/sys is mounted read-only, run `mount -o remount,rw /proc/sys`"),
    }
}

fn file(wanted: &Sysctl) -> String {
    format!("/proc/sys/{}", wanted.path)
}
