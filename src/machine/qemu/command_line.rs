//! A QEMU's options: which taps it has, which NICs are on them, and which MACs those have.

use macaddr::MacAddr6;

use super::given::Given;
use super::{config_file, values};
use crate::text::printable;

/// QEMU's options that take an argument, so that the value in `-name -netdev` is not read as an option. QEMU 7.2 said
/// so itself ("requires an argument"), and tests/qemu.rs asks again. Older and newer versions have the last line.
pub const WITH_ARGUMENT: &str = " \
    D L M accel acpitable action add-fd append audio audiodev bios blockdev boot cdrom chardev chroot compat \
    cpu d debugcon device dfilter display drive dtb dump-vmstate echr fda fdb fsdev fw_cfg g gdb global hda \
    hdb hdc hdd icount incoming initrd iscsi k kernel loadvm m machine mem-path mon monitor msg mtdblock \
    name net netdev nic numa object option-rom overcommit parallel pflash pidfile plugin prom-env qmp \
    qmp-pretty readconfig rotate rtc runas sandbox sd seed semihosting-config serial set smbios smp spice \
    tpmdev trace usbdevice uuid vga virtfs vnc watchdog-action xen-domid balloon clock redir run-with \
    shim soundhw startdate tb-size watchdog writeconfig ";

/// What a QEMU was started with, the files that its command line names included.
pub struct CommandLine {
    given: Vec<Given>,
    /// A `-readconfig FILE` that could not be read, and why.
    pub unread: Option<String>,
}

impl CommandLine {
    /// Reads the arguments, `-x` and `--x` alike. The text can be hostile.
    pub fn of(arguments: &[&str]) -> Self {
        let mut line = Self { given: Vec::new(), unread: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let Some(option) = argument.strip_prefix('-').map(|name| name.strip_prefix('-').unwrap_or(name)) else {
                continue;
            };
            let takes_one = WITH_ARGUMENT.split_whitespace().any(|with| with == option);
            let value = if takes_one { rest.next().copied().unwrap_or_default() } else { "" };
            line.take(option, value);
        }
        line
    }

    fn take(&mut self, option: &str, value: &str) {
        match option {
            "readconfig" => match config_file::read(value) {
                Ok(sections) => self.given.extend(sections),
                Err(error) => self.unread = Some(format!("-readconfig {}: {error:#}", printable(value))),
            },
            "set" => self.set(value),
            _ => self.given.push(Given { option: option.to_owned(), properties: values::properties(option, value) }),
        }
    }

    /// `-set GROUP.ID.KEY=VALUE` changes an option before it (qemu_set_option).
    fn set(&mut self, value: &str) {
        let Some((path, value)) = value.split_once('=') else { return };
        let mut parts = path.splitn(3, '.');
        let (group, id, key) = (parts.next(), parts.next(), parts.next());
        let is_it = |given: &&mut Given| Some(given.option.as_str()) == group && given.get("id") == id;
        if let (Some(given), Some(key)) = (self.given.iter_mut().find(is_it), key) {
            given.properties.push((key.to_owned(), value.to_owned()));
        }
    }

    pub fn has(&self, option: &str) -> bool {
        self.given.iter().any(|given| given.option == option)
    }

    pub fn taps(&self) -> impl Iterator<Item = &Given> {
        let is_tap = |given: &&Given| {
            matches!(given.option.as_str(), "netdev" | "nic" | "net") && given.get("type") == Some("tap")
        };
        self.given.iter().filter(is_tap)
    }

    /// The NICs that use a tap: a `-nic` itself, else what refers to it.
    pub fn nics_behind<'a>(&'a self, tap: &'a Given) -> Vec<&'a Given> {
        if tap.option == "nic" {
            return vec![tap];
        }
        // By the id of a -netdev. -net tap and every -net nic without netdev= meet on one hub (net/net.c, hub 0).
        let id = if tap.option == "netdev" { tap.get("id") } else { None };
        let is_on_it = |nic: &&Given| match nic.option.as_str() {
            "net" => nic.get("type") == Some("nic") && nic.get("netdev") == id,
            "device" => id.is_some() && nic.get("netdev") == id,
            _ => false,
        };
        self.given.iter().filter(is_on_it).collect()
    }

    /// A NIC's MAC as it is written, its own or that of `-global DRIVER.mac=`, which only a `-device` heeds.
    ///
    /// # Errors
    /// A `-global` names a driver that the NIC may have or not: an alias, or a type above it.
    pub fn mac_of<'a>(&'a self, nic: &'a Given) -> Result<Option<&'a str>, String> {
        let own = nic.get(if nic.option == "net" { "macaddr" } else { "mac" });
        if own.is_some() || nic.option != "device" {
            return Ok(own);
        }
        let globals =
            self.given.iter().filter(|given| given.option == "global" && given.get("property") == Some("mac"));
        let mut found = None;
        for global in globals {
            if global.get("driver") != nic.get("driver") {
                return Err(format!("{}.mac=", printable(global.get("driver").unwrap_or_default())));
            }
            found = global.get("value");
        }
        Ok(found)
    }

    /// The MACs of all NICs, and whatever else is called so.
    pub fn macs(&self) -> Vec<MacAddr6> {
        let is_mac = |key: &str| matches!(key, "mac" | "macaddr" | "value");
        let properties = self.given.iter().flat_map(|given| &given.properties);
        properties.filter(|(key, _)| is_mac(key)).filter_map(|(_, value)| values::mac(value)).collect()
    }
}
