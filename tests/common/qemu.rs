//! A real QEMU whose scripts are tap32, in a namespace.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tap32::addr::{GuestMac, MacPrefix};

use super::{Background, Host, TAP32, wait_for};

/// A guest's folder, with tap32 under the names that QEMU calls; gone when dropped.
pub struct Scripts(pub PathBuf);

impl Scripts {
    pub fn new(host: &Host) -> Self {
        Self::of(host, "guest")
    }

    /// For one guest of several on the host.
    pub fn of(host: &Host, guest: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("{}-{guest}", host.name));
        std::fs::create_dir(&folder).unwrap();
        for name in ["qemu-ifup", "qemu-ifdown"] {
            std::os::unix::fs::symlink(TAP32, folder.join(name)).unwrap();
        }
        Self(folder)
    }

    /// `script=...,downscript=...` for a -netdev or a -nic.
    pub fn options(&self) -> String {
        format!("script={0}/qemu-ifup,downscript={0}/qemu-ifdown", self.0.display())
    }

    /// What the guest and its kernel have said so far.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.0.join("console")).unwrap_or_default()
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn qemu(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.command("qemu-system-x86_64");
    command.args(["-accel", "tcg,thread=single", "-machine", "pc", "-cpu", "qemu64", "-m", "128", "-display", "none"]);
    command.args(["-nodefaults", "-no-reboot"]).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// QEMU that must come as far as its monitor.
pub fn start(host: &Host, scripts: &Scripts, arguments: &[&str]) -> Background {
    let monitor = format!("unix:{}/monitor,server=on,wait=off", scripts.0.display());
    Background(qemu(host, arguments).args(["-qmp", &monitor]).spawn().unwrap())
}

/// What QEMU's monitor answers to a command that it must not refuse; null if QEMU ends instead.
pub fn ask(scripts: &Scripts, command: &Value) -> Value {
    let answer = answer(scripts, command);
    assert!(answer["error"].is_null(), "{command}: {answer}");
    answer["return"].clone()
}

/// What QEMU's monitor answers to a command, as soon as there is a monitor.
pub fn answer(scripts: &Scripts, command: &Value) -> Value {
    let mut monitor = None;
    wait_for("the monitor", 20, || {
        monitor = UnixStream::connect(scripts.0.join("monitor")).ok();
        monitor.is_some()
    });
    let mut monitor = monitor.unwrap();
    monitor.write_all(format!("{{\"execute\":\"qmp_capabilities\"}}\n{command}\n").as_bytes()).unwrap();
    let lines = BufReader::new(monitor).lines().map_while(Result::ok);
    let messages = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    // The first answer is that to qmp_capabilities.
    let mut answers = messages.filter(|message| message.get("return").or(message.get("error")).is_some()).skip(1);
    let answer = answers.next().unwrap_or_default();
    if command["execute"] == "quit" {
        // Until QEMU closes it.
        answers.for_each(drop);
    }
    answer
}

/// Ends QEMU through its monitor. (SIGTERM before QEMU's main loop kills it without its down script.)
pub fn quit(scripts: &Scripts) {
    ask(scripts, &serde_json::json!({ "execute": "quit" }));
}

/// QEMU that must end by itself, within 30 s.
pub fn ends(host: &Host, arguments: &[&str]) -> Output {
    let mut child = qemu(host, arguments).spawn().unwrap();
    wait_for("QEMU ends", 30, || child.try_wait().unwrap().is_some());
    child.wait_with_output().unwrap()
}

pub fn signal(qemu: &Background, signal: &str) {
    assert!(Command::new("kill").args([signal, &qemu.0.id().to_string()]).status().unwrap().success());
}

/// What tests/run has made of the guest image.
pub fn image(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/lab").join(name);
    assert!(path.exists(), "{} is missing: sudo tests/run makes it", path.display());
    path.display().to_string()
}

/// What a guest of the image consists of.
pub struct Guest<'a> {
    pub address: &'a str,
    pub tap: &'a str,
    /// On the -netdev, such as `,queues=2`.
    pub netdev: &'a str,
    /// On the -device, such as `,mq=on`.
    pub device: &'a str,
    pub initrd: &'a str,
    /// What the guest runs when it is up.
    pub run: &'a str,
    /// Further arguments of QEMU.
    pub more: &'a [&'a str],
}

impl<'a> Guest<'a> {
    pub fn new(address: &'a str, tap: &'a str) -> Self {
        Self { address, tap, netdev: "", device: "", initrd: "", run: "", more: &[] }
    }

    /// Starts the guest image. Its console is a socket, and a file that `Scripts::console` reads.
    pub fn start(&self, host: &Host, scripts: &Scripts) -> Background {
        let address = self.address.parse::<Ipv4Addr>().unwrap();
        let mac = GuestMac::from_address(address, MacPrefix::default());
        let initrd = if self.initrd.is_empty() { image("initrd.gz") } else { self.initrd.to_owned() };
        let run = if self.run.is_empty() { String::new() } else { format!(" run={}", self.run) };
        let folder = scripts.0.display();
        let arguments = [
            "-kernel",
            &image("vmlinuz"),
            "-initrd",
            &initrd,
            "-append",
            &format!("console=ttyS0 quiet panic=-1 addr={address}/24 gw=10.0.0.1{run}"),
            "-chardev",
            &format!("socket,id=c0,path={folder}/serial,server=on,wait=off,logfile={folder}/console"),
            "-serial",
            "chardev:c0",
            "-netdev",
            &format!("tap,id=n0,ifname={},{}{}", self.tap, scripts.options(), self.netdev),
            "-device",
            &format!("virtio-net-pci,ioeventfd=off,netdev=n0,romfile=,mac={mac}{}", self.device),
        ];
        start(host, scripts, &[&arguments[..], self.more].concat())
    }
}

/// Boots the guest image; the guest says on its console when it is up.
pub fn boot(host: &Host, scripts: &Scripts, guest: &Guest) -> Background {
    let running = guest.start(host, scripts);
    wait_for("the guest is up", 90, || scripts.console().contains("is up"));
    running
}
