//! QEMU's face: what the command line of the QEMU that runs `qemu-ifup` says of the guest's NIC.
//!
//! QEMU hands its script one argument, the interface name; the NIC's MAC is only on QEMU's own command
//! line. Both dialects are read: option strings (`tap,id=n0,ifname=vnet0`, where `,,` is a comma in a
//! value: util/qemu-option.c) and JSON. The text can be hostile; whatever it holds, nothing here panics.

use anyhow::{Context, Result, bail};
use macaddr::MacAddr6;
use serde_json::Value;

use crate::addr;

/// QEMU's options that take an argument. Without this list the value of one (`-name -netdev`) would be
/// read as an option. Asked of QEMU 7.2 itself ("requires an argument"), and tests/qemu.rs asks again; the
/// last line is what older and newer versions have. An option missing here is read as one without.
pub const WITH_ARGUMENT: &str = " \
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat \
    cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda \
    hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock \
    name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp \
    qmp-pretty readconfig rotate rtc runas sandbox sd seed semihosting-config serial set smbios smp spice \
    tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action xen-domid balloon clock redir run-with \
    soundhw startdate tb-size watchdog writeconfig ";

/// What a parent process says of the guest behind a tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Not a QEMU that has a tap, or one whose command line does not name the NIC; with the reason.
    Silent(String),
    Guest {
        mac: MacAddr6,
        /// `-incoming`: the guest still runs on another host.
        incoming: bool,
    },
}

/// Reads the command line of our parent process and looks for the guest behind `tap`.
///
/// # Errors
/// As [`guest_of`].
pub fn parent(tap: &str) -> Result<Parent> {
    let path = format!("/proc/{}/cmdline", std::os::unix::process::parent_id());
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(Parent::Silent(format!("{path} cannot be read")));
    };
    let text = String::from_utf8_lossy(&bytes);
    let arguments: Vec<&str> = text.split('\0').collect();
    guest_of(&arguments, tap)
}

/// Finds in a QEMU command line the MAC of the guest's NIC behind the tap interface `tap`.
///
/// # Errors
/// The command line is a QEMU's but leaves the MAC open: several taps could be `tap`, several NICs hang
/// on it, its NIC has no `mac=`, or has one that is no MAC.
pub fn guest_of(arguments: &[&str], tap: &str) -> Result<Parent> {
    let options = options(arguments);
    let backends: Vec<&Properties> = options
        .iter()
        .filter(|(name, p)| matches!(*name, "netdev" | "nic" | "net") && p.get("type") == Some("tap"))
        .map(|(_, p)| p)
        .collect();
    if backends.is_empty() {
        return Ok(Parent::Silent("the calling process is no QEMU with a tap on its command line".into()));
    }
    let named = |p: &&&Properties| p.get("ifname") == Some(tap);
    // Without ifname=, and with a %d in it, the kernel chose the name (tun.c, dev_alloc_name).
    let open = |p: &&&Properties| p.get("ifname").is_none_or(|name| name.contains('%')) && p.runs_script();
    let mut candidates: Vec<&Properties> = backends.iter().filter(named).copied().collect();
    if candidates.is_empty() {
        candidates = backends.iter().filter(open).copied().collect();
    }
    let backend = match candidates[..] {
        [] => return Ok(Parent::Silent(format!("QEMU's command line has taps, but none named {tap}"))),
        [one] => one,
        _ => bail!(
            "QEMU's command line has {} taps that could be {tap}: name each one, -netdev tap,...,ifname={tap}",
            candidates.len()
        ),
    };
    let macs = nics_of(backend, &options);
    let mac = match macs[..] {
        [] => {
            return Ok(Parent::Silent(format!("QEMU's command line has no NIC on the tap {tap}")));
        }
        [Some(text)] => addr::parse_mac(text).with_context(|| format!("the NIC of {tap} on QEMU's command line"))?,
        [None] => bail!(
            "the NIC of {tap} has no mac= on QEMU's command line, so QEMU gives it one of its own \
             (52:54:00:12:34:56): add mac=02:42:AA:BB:CC:DD for the address AA.BB.CC.DD"
        ),
        _ => bail!("QEMU's command line has {} NICs on the tap {tap}: give each its own -netdev", macs.len()),
    };
    Ok(Parent::Guest { mac, incoming: options.iter().any(|(name, _)| *name == "incoming") })
}

/// The MACs (as written; `None` where there is none) of the NICs that hang on a tap backend.
fn nics_of<'a>(backend: &'a Properties, options: &'a [(&str, Properties)]) -> Vec<Option<&'a str>> {
    if backend.option == "nic" {
        return vec![backend.get("mac")];
    }
    options
        .iter()
        .filter_map(|(name, p)| match *name {
            // -net tap and every -net nic without netdev= meet on one hub (net/net.c, hub 0).
            "net" if p.get("type") == Some("nic") && p.get("netdev") == backend.id() => Some(p.get("macaddr")),
            "device" if p.get("netdev").is_some() && p.get("netdev") == backend.id() => Some(p.get("mac")),
            _ => None,
        })
        .collect()
}

/// Properties of one option, in order; of a key that is given twice the last counts (qemu_opt_get).
struct Properties {
    option: String,
    pairs: Vec<(String, String)>,
}

impl Properties {
    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The name by which a NIC refers to this backend; `-net tap` has none that counts.
    fn id(&self) -> Option<&str> {
        if self.option == "netdev" { self.get("id") } else { None }
    }

    /// Taps that come as a descriptor or from a helper, and those with script=no, run no script.
    fn runs_script(&self) -> bool {
        ["fd", "fds", "helper"].iter().all(|key| self.get(key).is_none()) && self.get("script") != Some("no")
    }
}

/// Splits a command line into options, `-x` and `--x` alike; what is not an option is passed over.
fn options<'a>(arguments: &[&'a str]) -> Vec<(&'a str, Properties)> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(name) = argument.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name)) else {
            continue;
        };
        if WITH_ARGUMENT.split_whitespace().any(|with| with == name) {
            let value = rest.next().copied().unwrap_or_default();
            found.push((name, Properties { option: name.to_owned(), pairs: properties(name, value) }));
        }
    }
    found
}

fn properties(option: &str, value: &str) -> Vec<(String, String)> {
    if value.starts_with('{') { json(value) } else { option_string(option, value) }
}

/// `driver,key=value,...`: the first item may leave out its key.
fn option_string(option: &str, value: &str) -> Vec<(String, String)> {
    let implied = if option == "device" { "driver" } else { "type" };
    let mut pairs = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (item, next) = split_item(rest);
        rest = next;
        pairs.push(match item.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if pairs.is_empty() => (implied.to_owned(), item),
            None => (item, "on".to_owned()),
        });
    }
    pairs
}

/// Cuts the first item off an option string at a single comma, and turns each `,,` into `,`.
fn split_item(text: &str) -> (String, &str) {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let Some(comma) = rest.find(',') else {
            item.push_str(rest);
            return (item, "");
        };
        item.push_str(&rest[..comma]);
        rest = &rest[comma + 1..];
        match rest.strip_prefix(',') {
            Some(after) => {
                item.push(',');
                rest = after;
            }
            None => return (item, rest),
        }
    }
}

/// The top-level scalars of a JSON object; nothing of it matters that is deeper.
fn json(value: &str) -> Vec<(String, String)> {
    let Ok(Value::Object(object)) = serde_json::from_str(value) else {
        return Vec::new();
    };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        other => Some(other.to_string()),
    };
    object.into_iter().filter_map(|(key, value)| Some((key, scalar(value)?))).collect()
}
