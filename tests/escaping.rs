//! Names that could command a terminal or forge a line of a log: they are shown and logged escaped.

mod common;

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use common::{Host, TAP32, text};
use tap32::text::printable;

/// Clears the screen, and turns the writing around from there on.
const HOSTILE: &str = "\u{1b}[2J\u{202e}x";

/// Nothing in it but whole lines of what may be printed.
fn harmless(said: &[u8]) -> String {
    let said = String::from_utf8(said.to_vec()).unwrap();
    assert!(!said.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{said:?}");
    said
}

#[test]
fn what_is_escaped_and_what_is_not() {
    assert_eq!(printable("vnet0 \"a\\b\" 'c' äöü 漢"), "vnet0 \"a\\b\" 'c' äöü 漢");
    assert_eq!(printable("a\nb\rc\td\u{7f}e\u{9b}2J"), r"a\nb\rc\td\u{7f}e\u{9b}2J");
    assert_eq!(printable(HOSTILE), r"\u{1b}[2J\u{202e}x");
    assert_eq!(printable(&printable(HOSTILE)), printable(HOSTILE));
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_name_neither_commands_a_terminal_nor_forges_a_line() {
    let host = Host::new();
    let ip = |arguments: &[&str]| assert!(host.command("ip").args(arguments).status().unwrap().success());
    // A tap that has a guest, and one whose guest is refused.
    ip(&["tuntap", "add", HOSTILE, "mode", "tap"]);
    ip(&["link", "set", HOSTILE, "address", "fe:42:0a:00:00:0a", "master", "br-l2", "up"]);
    ip(&["tuntap", "add", "\u{1b}cy", "mode", "tap"]);
    ip(&["link", "set", "\u{1b}cy", "address", "fe:42:08:08:08:08", "master", "br-l2", "up"]);
    let printed = |arguments: &str| harmless(&host.run(&format!("{TAP32} {arguments}")).stdout);
    assert!(printed("reconcile -n").contains(r"dev '\u{1b}[2J\u{202e}x' isolated on"));
    host.tap32("reconcile");
    let status = printed("status");
    assert!(status.contains(r"\u{1b}[2J\u{202e}x") && status.contains("\n\\u{1b}cy: 8.8.8.8 "), "{status}");
    // By the name that the table has, and by the true one.
    for name in [printable("\u{1b}cy").as_str(), "\u{1b}cy"] {
        let said = host.command(TAP32).args(["status", name]).output().unwrap().stdout;
        assert!(harmless(&said).contains(r"\u{1b}cy: refused"), "{name:?}");
    }
    printed("doctor");
    // JSON has escapes of its own, and gives programs the true name.
    let json = host.tap32("status --json");
    assert!(!json.trim_end().contains(char::is_control), "{json:?}");
    let names: Vec<_> = host.status()["taps"].as_array().unwrap().iter().map(|tap| tap["tap"].clone()).collect();
    assert!(names.contains(&HOSTILE.into()), "{names:?}");

    // Arguments, on stderr; a domain's name and its XML, on stderr and in syslog.
    for arguments in [&["-\n"][..], &[HOSTILE], &["up", HOSTILE], &["up", "vnet0", "--mac", HOSTILE]] {
        let said = harmless(&host.command(TAP32).args(arguments).output().unwrap().stderr);
        assert!(said.starts_with("tap32: ") && said.lines().count() == 1, "{said:?}");
    }
    let path = std::env::temp_dir().join(format!("{}-escaping", host.name));
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let script = "mount -t tmpfs none /dev && ln -s \"$1\" /dev/log && exec \"$2\" libvirt \"$3\" prepare begin -";
    let mut hook = host.command("unshare");
    hook.args(["-m", "sh", "-c", script, "sh", path.to_str().unwrap(), TAP32, "g\u{1b}[2J1\nforged"]);
    let output = hook.stdin(Stdio::null()).output().unwrap();
    let said = harmless(&output.stderr);
    assert!(said.contains(r"domain g\u{1b}[2J1\nforged: ") && said.lines().count() == 1, "{said:?}");
    let mut line = [0; 2048];
    let length = socket.recv(&mut line).unwrap();
    let logged = text(&line[..length]);
    assert!(logged.contains("result=failed") && !logged.contains(char::is_control), "{logged:?}");
    std::fs::remove_file(&path).unwrap();
}
