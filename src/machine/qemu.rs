//! Reads the command line of the QEMU that runs `qemu-ifup`, because QEMU gives its script only the tap's name.
//!
//! Both dialects: option strings (`tap,id=n0,ifname=vnet0`, where `,,` is a comma in a value: util/qemu-option.c) and
//! JSON. The text can be hostile.

use anyhow::{Context, Result, bail};
use macaddr::MacAddr6;
use serde_json::Value;

use crate::addr;

/// QEMU's options that take an argument, so that the value in `-name -netdev` is not read as an option. QEMU 7.2 said
/// so itself ("requires an argument"), and tests/qemu.rs asks again. Older and newer versions have the last line.
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

/// Looks for the guest behind `tap` in the command line of the parent process.
///
/// # Errors
/// As [`guest_of`].
pub(crate) fn parent(tap: &str) -> Result<Parent> {
    let path = format!("/proc/{}/cmdline", std::os::unix::process::parent_id());
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(Parent::Silent(format!("{path} cannot be read")));
    };
    let text = String::from_utf8_lossy(&bytes);
    guest_of(&text.split('\0').collect::<Vec<_>>(), tap)
}

/// Finds in a QEMU's command line the MAC of the guest's NIC behind the interface `tap`.
///
/// # Errors
/// The command line leaves the MAC open: several taps could be `tap`, the tap has several NICs, or its NIC has no `mac=`
/// or a wrong one.
pub fn guest_of(arguments: &[&str], tap: &str) -> Result<Parent> {
    let options = options(arguments);
    let is_tap = |given: &&Given| matches!(given.option, "netdev" | "nic" | "net") && given.get("type") == Some("tap");
    let backends: Vec<&Given> = options.iter().filter(is_tap).collect();
    if backends.is_empty() {
        return Ok(Parent::Silent("the calling process is not a QEMU with a tap on its command line".into()));
    }
    let is_named = |given: &&Given| given.get("ifname") == Some(tap);
    // Without ifname=, and with a %d in it, the kernel chose the name (tun.c, dev_alloc_name).
    let is_open = |given: &&Given| given.get("ifname").is_none_or(|name| name.contains('%')) && given.runs_script();
    let mut candidates: Vec<&Given> = backends.iter().copied().filter(is_named).collect();
    if candidates.is_empty() {
        candidates = backends.into_iter().filter(is_open).collect();
    }
    let backend = match candidates[..] {
        [] => return Ok(Parent::Silent(format!("QEMU's command line has taps, but none named {tap}"))),
        [one] => one,
        _ => bail!(
            "QEMU's command line has {} taps that could be {tap}: name each one, -netdev tap,...,ifname={tap}",
            candidates.len()
        ),
    };
    let macs = macs_behind(backend, &options);
    let mac = match macs[..] {
        [] => return Ok(Parent::Silent(format!("QEMU's command line has no NIC on the tap {tap}"))),
        [Some(text)] => addr::parse_mac(text).with_context(|| format!("the NIC of {tap} on QEMU's command line"))?,
        [None] => bail!(
            "the NIC of {tap} has no mac= on QEMU's command line, so QEMU gives it one of its own \
             (52:54:00:12:34:56): add mac=02:42:AA:BB:CC:DD for the address AA.BB.CC.DD"
        ),
        _ => bail!("QEMU's command line has {} NICs on the tap {tap}: give each its own -netdev", macs.len()),
    };
    Ok(Parent::Guest { mac, incoming: options.iter().any(|given| given.option == "incoming") })
}

/// The MACs of the NICs that use a tap backend: as written, `None` for a NIC without.
fn macs_behind<'a>(backend: &'a Given, options: &'a [Given]) -> Vec<Option<&'a str>> {
    if backend.option == "nic" {
        return vec![backend.get("mac")];
    }
    // A NIC refers to a -netdev by its id. -net tap and every -net nic without netdev= meet on one hub (net/net.c, hub 0).
    let id = if backend.option == "netdev" { backend.get("id") } else { None };
    let mac = |nic: &'a Given| match nic.option {
        "net" if nic.get("type") == Some("nic") && nic.get("netdev") == id => Some(nic.get("macaddr")),
        "device" if id.is_some() && nic.get("netdev") == id => Some(nic.get("mac")),
        _ => None,
    };
    options.iter().filter_map(mac).collect()
}

/// An option that takes an argument, with the properties in that, in order.
struct Given<'a> {
    option: &'a str,
    properties: Vec<(String, String)>,
}

impl Given<'_> {
    /// The last value of a key (qemu_opt_get).
    fn get(&self, key: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// QEMU runs no script for a tap that comes as a descriptor or from a helper, nor with script=no.
    fn runs_script(&self) -> bool {
        ["fd", "fds", "helper"].iter().all(|key| self.get(key).is_none()) && self.get("script") != Some("no")
    }
}

/// The options of a command line that take an argument, `-x` and `--x` alike.
fn options<'a>(arguments: &[&'a str]) -> Vec<Given<'a>> {
    let mut found = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(option) = argument.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name)) else {
            continue;
        };
        if WITH_ARGUMENT.split_whitespace().any(|with| with == option) {
            let value = rest.next().copied().unwrap_or_default();
            let properties = if value.starts_with('{') { json(value) } else { option_string(option, value) };
            found.push(Given { option, properties });
        }
    }
    found
}

/// `driver,key=value,...`: the first item may leave out its key.
fn option_string(option: &str, value: &str) -> Vec<(String, String)> {
    let implied = if option == "device" { "driver" } else { "type" };
    // An argument cannot contain NUL, which stands for a comma in a value here.
    let value = value.replace(",,", "\0");
    let items = value.split_terminator(',').map(|item| item.replace('\0', ","));
    let property = |(at, item): (usize, String)| match item.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None if at == 0 => (implied.to_owned(), item),
        None => (item, "on".to_owned()),
    };
    items.enumerate().map(property).collect()
}

/// The top-level scalars of a JSON object.
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
