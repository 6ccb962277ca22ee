//! The line that each action leaves in syslog, and a syslog that takes none. They need root: `sudo tests/run`.

mod common;

use std::io::Read as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::slow::limit;
use common::{GUEST, Host, TAP32, settled, text};

/// Runs tap32 with a /dev of its own, in which `log` is the given socket.
fn with_syslog(host: &Host, socket: &Path, arguments: &str) -> Output {
    let script = format!(
        "mount -t tmpfs none /dev && ln -s {} /dev/log && exec timeout 10 {TAP32} {arguments}",
        socket.display()
    );
    host.command("unshare").args(["-m", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn one_line_an_action_in_syslog() {
    let host = Host::new();
    host.add_tap("vnet0");
    let path = std::env::temp_dir().join(format!("tap32-{}-log", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    let line = || {
        let mut buffer = [0; 2048];
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let length = socket.recv(&mut buffer).unwrap();
        text(&buffer[..length])
    };
    assert!(with_syslog(&host, &path, &format!("up vnet0 --mac {GUEST}")).status.success());
    let up = line();
    // 30: facility daemon (3), severity info (6).
    assert!(up.starts_with("<30>") && up.contains(" tap32["), "{up}");
    let fields = "action=up tap=vnet0 guest_mac=02:42:0a:00:00:0a address=10.0.0.10 bridge=br-l2 result=done took_us=";
    assert!(up.contains(fields), "{up}");
    assert!(with_syslog(&host, &path, "up vnet0").status.success());
    assert!(line().contains("result=unchanged"));
    let refused = with_syslog(&host, &path, "up vnet0 --mac 02:42:08:08:08:08");
    assert!(text(&refused.stderr).contains("outside"));
    let up = line();
    // 27: severity err.
    assert!(up.starts_with("<27>") && up.contains("result=refused") && up.contains("error=\""), "{up}");
    assert!(with_syslog(&host, &path, "down vnet0").status.success());
    let fields = "action=down tap=vnet0 guest_mac=02:42:0a:00:00:0a address=10.0.0.10 bridge=br-l2 result=done";
    let down = line();
    assert!(down.contains(fields), "{down}");

    // Of a domain whose XML says nothing there is no guest to speak of, and libvirt drops stderr of most operations.
    let migrate = with_syslog(&host, &path, "libvirt g1 migrate begin -");
    assert!(migrate.status.success());
    let said = line();
    assert!(said.starts_with("<27>") && said.contains("action=migrate domain=\"g1\" result=failed"), "{said}");

    // A syslog that nobody reads any more must not hold a guest up.
    let flood = UnixDatagram::unbound().unwrap();
    flood.set_nonblocking(true).unwrap();
    while flood.send_to(b"x", &path).is_ok() {}
    let start = Instant::now();
    assert!(with_syslog(&host, &path, &format!("up vnet0 --mac {GUEST}")).status.success());
    assert!(start.elapsed() < limit(Duration::from_secs(5)));
    assert_eq!(host.owned(), [settled("10.0.0.10")]);
    std::fs::remove_file(&path).unwrap();
}

/// syslog-ng's `unix-stream("/dev/log")`, first as it should be, then with a daemon that takes nobody off its queue.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_syslog_that_is_a_stream() {
    let host = Host::new();
    host.add_tap("vnet0");
    let path = std::env::temp_dir().join(format!("tap32-{}-stream", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    assert!(with_syslog(&host, &path, &format!("up vnet0 --mac {GUEST}")).status.success());
    let mut said = String::new();
    listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("<30>") && said.contains("action=up tap=vnet0"), "{said:?}");
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    for _ in 0..4 {
        let start = Instant::now();
        assert!(with_syslog(&host, &path, "up vnet0").status.success());
        assert!(start.elapsed() < limit(Duration::from_secs(5)));
    }
    std::fs::remove_file(&path).unwrap();
}
