//! `doctor` and connections that conntrack does not know, or knows from before: those of guests that come from another
//! host. They need root: `sudo tests/run`.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use common::forward::{Net, table};
use common::{Background, wait_for};

/// Connections of a guest that arrives: what conntrack calls invalid is dropped.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_chain_that_drops_invalid_packets_is_a_warning() {
    let net = Net::new();
    let rules = "ct state invalid drop; iifname br-l2 accept; oifname br-l2 accept; drop;";
    let chain = "forward chain inet filter forward";
    net.survives(&table(rules), chain, "warn", "net.netfilter.nf_conntrack_tcp_be_liberal=1", [true; 3]);
    assert_eq!(net.view.ok("sysctl -n net.netfilter.nf_conntrack_tcp_be_liberal").trim(), "1");
    net.survives(
        "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0",
        chain,
        "warn",
        "net.netfilter.nf_conntrack_tcp_loose=1",
        [true; 3],
    );
    assert_eq!(net.view.ok("sysctl -n net.netfilter.nf_conntrack_tcp_loose").trim(), "1");
}

/// Sends as many bytes as a line of stdin says, and prints whether they were answered.
const CLIENT: &str = "import socket, sys
s = socket.create_connection(('192.0.2.9', 81)); s.settimeout(3)
for line in sys.stdin:
    try: s.sendall(b'x' * (int(line) - 1) + b'\\n'); s.recv(9); print('answered', flush=True)
    except OSError: print('lost', flush=True)";
const ECHO: &str = "import socket
s = socket.create_server(('', 81))
while True:
    c = s.accept()[0]
    try:
        while (d := c.recv(65536)): c.sendall(b'.') if d.endswith(b'\\n') else None
    except OSError: pass";

/// A connection of which other hosts have forwarded a part, as after two migrations: this host tracks nothing meanwhile.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_connection_that_comes_back_is_lost_until_doctors_fix() {
    let net = Net::new();
    let inside = |holder: &Background, script: &str| {
        let mut python = std::process::Command::new("nsenter");
        python.args(["-t", &holder.0.id().to_string(), "-n", "python3", "-c", script]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let _echo = Background(inside(&net.peer, ECHO));
    let is_listening = || net.view.is(&format!("nsenter -t {} -n ss -tln | grep -q :81", net.peer.0.id()));
    wait_for("the server listens", 10, is_listening);
    net.view.ok(&table("ct state invalid drop;"));
    let fate = || {
        let mut client = inside(&net.guests[0], CLIENT);
        let (mut stdin, mut lines) =
            (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()).lines());
        let _client = Background(client);
        let mut send = |bytes: &str| {
            writeln!(stdin, "{bytes}").unwrap();
            lines.next().unwrap().unwrap()
        };
        let here = send("100");
        net.view.ok("nft 'table ip raw { chain pre { type filter hook prerouting priority -300; notrack; }; }'");
        let elsewhere = send("20000000");
        net.view.ok("nft delete table ip raw");
        [here, elsewhere, send("100")]
    };
    assert_eq!(fate(), ["answered", "answered", "lost"]);
    let [[_, verdict, seen, fix]] = &net.rows()[..] else { panic!("{:?}", net.rows()) };
    assert!(verdict == "warn" && seen.contains("comes back with its guest"), "{seen}");
    net.view.ok(fix);
    assert_eq!(fate(), ["answered"; 3], "after {fix}");
    assert_eq!(net.rows(), Vec::<[String; 4]>::new());
}
