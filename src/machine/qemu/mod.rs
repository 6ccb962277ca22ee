//! What the QEMU that runs `qemu-ifup` says of the guest, because it gives its script only the tap's name.
//!
//! `command_line` reads its options, with `values` and `config_file`; `process` sees whether it is just starting: what
//! it has plugged in later is on no command line.

mod command_line;
mod config_file;
mod given;
mod process;
mod values;

use anyhow::{Context, Result, bail};
use macaddr::MacAddr6;

use crate::addr;
use command_line::CommandLine;
use given::Given;

pub use command_line::WITH_ARGUMENT;

/// IFNAMSIZ without its zero (linux/if.h).
const NAME: usize = 15;

/// What a QEMU's command line says of the guest behind a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: it is not a QEMU with a tap, or its command line does not name the NIC. With the reason.
    Silent(String),
    /// The guest.
    Guest {
        /// The MAC of its NIC, of any prefix.
        mac: MacAddr6,
        /// `-incoming`: the guest still runs on another host.
        incoming: bool,
    },
}

/// What the calling process says of a tap that comes up.
pub(crate) enum Caller {
    /// It is no QEMU, or one that is just starting.
    Says(Parent),
    /// It is a QEMU that runs and has plugged the tap in. With the MACs of the NICs with which it was started.
    PluggedIn(Vec<MacAddr6>),
}

/// What the parent process says of a tap that comes up.
///
/// # Errors
/// As [`guest_of`].
pub(crate) fn caller(tap: &str) -> Result<Caller> {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(reason) => return Ok(Caller::Says(Parent::Silent(reason))),
    };
    let line = CommandLine::of(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    if !is_qemu(&arguments) && line.taps().next().is_none() {
        return Ok(Caller::Says(guest(&line, tap)?));
    }
    if line.has("preconfig") {
        let reason = "QEMU runs with -preconfig, so its monitor may have changed its NICs since it was started";
        return Ok(Caller::Says(Parent::Silent(reason.into())));
    }
    match process::is_starting(std::os::unix::process::parent_id()) {
        Ok(true) => Ok(Caller::Says(guest(&line, tap)?)),
        Ok(false) => Ok(Caller::PluggedIn(line.macs())),
        Err(error) => {
            Ok(Caller::Says(Parent::Silent(format!("tap32 cannot see whether QEMU is just starting: {error:#}"))))
        }
    }
}

/// What the parent process was started with says of a tap that goes.
///
/// # Errors
/// As [`guest_of`].
pub(crate) fn parent(tap: &str) -> Result<Parent> {
    match arguments() {
        Ok(arguments) => guest_of(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), tap),
        Err(reason) => Ok(Parent::Silent(reason)),
    }
}

/// Finds in a QEMU's command line the MAC of the guest's NIC behind the interface `tap`.
///
/// # Errors
/// The command line leaves the MAC open: several taps could be `tap`, the tap has several NICs, or its NIC has no `mac=`
/// or a wrong one.
pub fn guest_of(arguments: &[&str], tap: &str) -> Result<Parent> {
    guest(&CommandLine::of(arguments), tap)
}

/// Where the package has put the script in whose place QEMU calls tap32: Debian's own, or the operator's
/// (packaging/common.sh, packaging/deb/lib.sh).
pub(crate) fn displaced_script() -> Option<String> {
    let called = std::env::args_os().next()?.into_string().ok()?;
    let places = [".before-tap32", ".distrib"].map(|ending| called.clone() + ending);
    places.into_iter().find(|place| std::path::Path::new(place).is_file())
}

/// The parent's arguments, or why there are none.
fn arguments() -> Result<Vec<String>, String> {
    let path = format!("/proc/{}/cmdline", std::os::unix::process::parent_id());
    let bytes = std::fs::read(&path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect())
}

/// By its name; one with another name is known by its taps.
fn is_qemu(arguments: &[String]) -> bool {
    let program = arguments.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    program.starts_with("qemu") || program.ends_with("kvm")
}

fn guest(line: &CommandLine, tap: &str) -> Result<Parent> {
    let found = named_guest(line, tap);
    match (&found, &line.unread) {
        (Ok(Parent::Guest { .. }), _) | (_, None) => found,
        (_, Some(unread)) => Ok(Parent::Silent(format!("tap32 cannot read what QEMU reads by {unread}"))),
    }
}

fn named_guest(line: &CommandLine, tap: &str) -> Result<Parent> {
    let taps: Vec<&Given> = line.taps().collect();
    if taps.is_empty() {
        return Ok(Parent::Silent("the calling process is not a QEMU with a tap on its command line".into()));
    }
    let mut candidates: Vec<&Given> =
        taps.iter().copied().filter(|given| ifname(given) == Some(tap.as_bytes())).collect();
    // Without ifname=, and with a %d in it, the kernel chose the name (tun.c, dev_alloc_name).
    if candidates.is_empty() {
        let is_open = |given: &&Given| ifname(given).is_none_or(|name| name.contains(&b'%')) && given.runs_script();
        candidates = taps.into_iter().filter(is_open).collect();
    }
    let backend = match candidates[..] {
        [] => return Ok(Parent::Silent(format!("QEMU's command line has taps, but none named {tap}"))),
        [one] => one,
        _ => bail!(
            "QEMU's command line has {} taps that could be {tap}: name each one, -netdev tap,...,ifname={tap}",
            candidates.len()
        ),
    };
    let nics = line.nics_behind(backend);
    let nic = match nics[..] {
        [] => return Ok(Parent::Silent(format!("QEMU's command line has no NIC on the tap {tap}"))),
        [one] => one,
        _ => bail!("QEMU's command line has {} NICs on the tap {tap}: give each its own -netdev", nics.len()),
    };
    let Some(text) = line.mac_of(nic).map_err(|global| unclear(tap, &global))? else {
        bail!(
            "the NIC of {tap} has no mac= on QEMU's command line, so QEMU gives it one of its own \
             (52:54:00:12:34:56): add mac= with what `tap32 encode ADDRESS` prints"
        );
    };
    let mac = match values::mac(text) {
        Some(mac) => mac,
        None => addr::parse_mac(text).with_context(|| format!("the NIC of {tap} on QEMU's command line"))?,
    };
    Ok(Parent::Guest { mac, incoming: line.has("incoming") })
}

fn unclear(tap: &str, global: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the NIC of {tap} has no mac= of its own on QEMU's command line, and tap32 does not know whether -global {global} \
         is for it: give the NIC the mac= that `tap32 encode ADDRESS` prints"
    )
}

/// QEMU cuts the name to what the kernel takes (net/tap-linux.c, tap_open), and the script gets the cut one.
fn ifname(given: &Given) -> Option<&[u8]> {
    let name = given.get("ifname").filter(|name| !name.is_empty())?.as_bytes();
    Some(&name[..name.len().min(NAME)])
}
