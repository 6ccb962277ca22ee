//! What the tests of `watch` share: one that runs, with a configuration, a metrics file and a systemd of its own.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::{Background, Host, slow, text};

/// What is shipped, as tests/run builds it: times and memory are its, not those of a debug build.
pub const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/x86_64-unknown-linux-gnu/release/tap32");

/// A running `watch`, with a configuration, a metrics file and a systemd of its own.
pub struct Watch {
    pub process: Background,
    pub folder: PathBuf,
    systemd: mpsc::Receiver<String>,
}

impl Watch {
    pub fn start(host: &Host) -> Self {
        Self::start_program(host, RELEASE)
    }

    pub fn folder(host: &Host) -> PathBuf {
        std::env::temp_dir().join(format!("{}-watch", host.name))
    }

    pub fn start_program(host: &Host, program: &str) -> Self {
        let folder = Self::folder(host);
        std::fs::create_dir_all(&folder).unwrap();
        let systemd = listen(&folder.join("notify"));
        std::fs::write(folder.join("tap32.toml"), Self::toml(&folder, "")).unwrap();
        let mut command = host.command(program);
        command.arg("watch").env("TAP32_CONFIG", folder.join("tap32.toml"));
        command.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "400000");
        command.stderr(std::fs::File::create(folder.join("stderr")).unwrap());
        let watch = Self { process: Background(command.spawn().unwrap()), folder, systemd };
        watch.told("READY=1");
        watch
    }

    pub fn toml(folder: &Path, more: &str) -> String {
        format!("[watch]\nmetrics = {:?}\n{more}", folder.join("tap32.prom"))
    }

    pub fn configure(&self, more: &str) {
        std::fs::write(self.folder.join("tap32.toml"), Self::toml(&self.folder, more)).unwrap();
    }

    /// Waits until systemd is told this.
    pub fn told(&self, what: &str) -> String {
        let patience = slow::limit(Duration::from_secs(10));
        loop {
            let message = self.systemd.recv_timeout(patience);
            let message = message.unwrap_or_else(|_| panic!("{what} was not told: {}", self.said()));
            if message.lines().any(|line| line.starts_with(what)) {
                return message;
            }
        }
    }

    /// Everything on stderr so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("stderr")).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// To tap32 below a program that runs it.
    pub fn signal_tap32(&self, name: &str) {
        let kill = Command::new("pkill").args([&format!("-{name}"), "-P", &self.pid().to_string()]).status().unwrap();
        assert!(kill.success());
    }

    /// `ip netns exec` becomes the program that it starts.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn metrics(&self) -> String {
        std::fs::read_to_string(self.folder.join("tap32.prom")).unwrap_or_default()
    }

    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.metrics();
        let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Ends it, and returns its exit code.
    pub fn end(mut self) -> Option<i32> {
        self.signal("TERM");
        self.told("STOPPING=1");
        self.process.0.wait().unwrap().code()
    }
}

/// As systemd does, takes every message off the queue at once: one that is full would hang the sender.
fn listen(path: &Path) -> mpsc::Receiver<String> {
    let socket = UnixDatagram::bind(path).unwrap();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            if sender.send(text(&buffer[..length])).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Does something to the host, and measures from there until it is mended, which must be within 200 ms.
///
/// One test at a time measures: all namespaces share one RTNL, which the others' bursts hold.
pub fn mended(what: &str, fault: impl FnOnce(), right: impl Fn() -> bool) {
    const LIMIT: Duration = Duration::from_millis(200);
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fault();
    let start = Instant::now();
    while !right() {
        assert!(start.elapsed() < slow::limit(Duration::from_secs(5)), "{what}: not mended in 5 s");
    }
    let took = start.elapsed();
    println!("{what}: {} ms", took.as_millis());
    assert!(took <= slow::limit(LIMIT), "{what}: {took:?}");
}

pub fn add_by_hand(host: &Host, tap: &str, last: u8) {
    host.add_tap(tap);
    host.ok(&format!("ip link set {tap} address fe:42:0a:00:00:{last:02x} master br-l2 up"));
}
