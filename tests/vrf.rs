//! A managed bridge in a VRF or in a bond, and ports of many kinds: tests/vrf.sh in a virtual machine, for the kernel that
//! the tests run on may have neither. `sudo tests/run` makes the image.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::qemu::image;
use common::watch::RELEASE;
use common::{Background, Host, setup::Folder, wait_for};

/// Seconds. It takes 20 on a machine that does nothing else.
const LIMIT: u64 = 400;

#[test]
#[ignore = "needs QEMU and root: sudo tests/run"]
fn a_bridge_in_a_vrf_is_refused_and_nothing_changes() {
    let host = Host::bare();
    let folder = Folder::new(&host);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vrf.sh");
    // The kernel unpacks one archive after the other (initramfs buffer format).
    let pack = format!(
        "mkdir -p root/bin && cp {RELEASE} root/bin/tap32 && cp {script} root/init && chmod 755 root/init && \
         (cd root && find . | cpio -o -H newc 2>/dev/null | gzip -1) | cat {} - >initrd",
        image("host.gz")
    );
    assert!(Command::new("sh").args(["-ec", &pack]).current_dir(&folder.0).status().unwrap().success());
    let console = folder.0.join("console");
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-m", "256", "-display", "none", "-no-reboot", "-monitor", "none"]);
    qemu.args(["-kernel", &image("vmlinuz"), "-append", "console=ttyS0 quiet panic=-1"]);
    qemu.args([Path::new("-initrd"), &folder.0.join("initrd")]);
    qemu.arg("-serial").arg(format!("file:{}", console.display())).stdin(Stdio::null());
    let mut machine = Background(qemu.spawn().unwrap());
    wait_for("the machine ends", LIMIT, || machine.0.try_wait().unwrap().is_some());
    let said = std::fs::read_to_string(console).unwrap();
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    let end = said.lines().find_map(|line| line.strip_prefix("end ")?.trim().parse::<usize>().ok());
    assert!(end.is_some_and(|checks| checks > 50 && count("ok ") == checks) && count("FAILED") == 0, "{said}");
}
