//! The guest that runs tests/lab/hostile.c, with the table of frames in its image.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use crate::common::qemu::{Guest, Scripts, image};
use crate::common::{Background, Host, wait_for};
use crate::guard::table::{Cast, table};

pub struct Hostile<'a> {
    scripts: &'a Scripts,
    console: UnixStream,
    _qemu: Background,
}

impl<'a> Hostile<'a> {
    pub fn boot(host: &Host, scripts: &'a Scripts, guest: Guest, cast: &Cast) -> Self {
        let initrd = scripts.0.join("initrd");
        std::fs::write(&initrd, initrd_with_frames(cast)).unwrap();
        let guest = Guest { initrd: initrd.to_str().unwrap(), run: "/bin/hostile", ..guest };
        let hostile = Self::start(host, scripts, guest);
        wait_for("the hostile guest is ready", 240, || scripts.console().contains("hostile is ready"));
        hostile
    }

    /// With what is in memory when it arrives by a migration.
    pub fn start(host: &Host, scripts: &'a Scripts, guest: Guest) -> Self {
        let qemu = guest.start(host, scripts);
        let mut console = None;
        wait_for("the console", 20, || {
            console = UnixStream::connect(scripts.0.join("serial")).ok();
            console.is_some()
        });
        Self { scripts, console: console.unwrap(), _qemu: qemu }
    }

    pub fn order(&mut self, line: &str) {
        writeln!(self.console, "{line}").unwrap();
    }

    /// Waits until it says that it has sent what it was ordered to, for the `times`th time on this console.
    pub fn wait_sent(&self, times: usize) {
        wait_for("it has sent", 60, || self.scripts.console().matches("\nsent ").count() == times);
    }
}

/// The kernel unpacks one archive after the other.
fn initrd_with_frames(cast: &Cast) -> Vec<u8> {
    let mut frames = Vec::new();
    for row in table(cast) {
        frames.extend((row.frame.len() as u32 + 10).to_le_bytes());
        frames.extend(row.offload);
        frames.extend(row.frame);
    }
    let mut initrd = std::fs::read(image("initrd.gz")).unwrap();
    pad(&mut initrd);
    initrd.extend(entry("frames", 0o100_644, &frames));
    initrd.extend(entry("TRAILER!!!", 0, &[]));
    initrd
}

/// A file of a "newc" archive: cpio(5).
fn entry(name: &str, mode: usize, data: &[u8]) -> Vec<u8> {
    // inode, mode, uid, gid, links, time, size, four numbers of devices, size of the name, checksum
    let numbers = [1, mode, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
    let numbers = numbers.iter().map(|number| format!("{number:08x}")).collect::<String>();
    let mut entry = format!("070701{numbers}{name}\0").into_bytes();
    pad(&mut entry);
    entry.extend(data);
    pad(&mut entry);
    entry
}

fn pad(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}
