//! doctor's row of the DHCP server, with a /run of its own. They need root: `sudo tests/run`.

mod common;

use common::dhcp::Server;
use common::{TAP32, text};
use serde_json::Value;

const CONFIG: &str = "[[bridge]]\nname = \"br-l2\"\ngateway = \"10.0.0.1/24\"\n";

/// Takes the server's port, without sharing it.
const OTHER: &str = r#"import signal, socket; taken = socket.socket(2, 2); taken.bind(("", 67)); signal.pause()"#;

/// In one shell, whose mounts nobody else sees. Each line of what it prints is what doctor then says of the server.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn its_fix_starts_the_server_and_starts_it_anew() {
    let server = Server::new(CONFIG);
    let row =
        format!("{TAP32} doctor --json {} | jq -c '[.checks[] | select(.check == \"DHCP server\")][0]'", server.config);
    let file = "/run/tap32-dhcp/dnsmasq.conf";
    let script = format!(
        "set -e
        mount -t tmpfs none /run
        row() {{ {row}; }}
        row
        mkdir -p /run/tap32-dhcp && : >{file}
        row
        mount -t tmpfs none /usr/sbin
        row
        umount /usr/sbin
        python3 -c '{OTHER}' &
        while [ -z \"$(ss -ulnH sport = :67)\" ]; do sleep 0.1; done
        row
        kill $!
        while [ -n \"$(ss -ulnH sport = :67)\" ]; do sleep 0.1; done
        eval \"$(row | jq -r .fix)\"
        row
        echo dhcp-host=02:42:0a:00:00:0a,10.0.0.11 >>{file}
        row
        eval \"$(row | jq -r .fix)\"
        row
        ss -ulnpH sport = :67 | grep -o 'pid=[0-9]*' | tr -d pid= | xargs kill
        while [ -n \"$(ss -ulnH sport = :67)\" ]; do sleep 0.1; done
        row"
    );
    let output = server.host.command("sh").args(["-c", &script]).output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdicts: Vec<_> = rows.iter().map(|row| row["verdict"].as_str().unwrap_or("none")).collect();
    assert_eq!(verdicts, ["none", "fail", "fail", "fail", "ok", "fail", "ok", "fail"], "{said}");
    let seen = |row: usize| rows[row]["seen"].as_str().unwrap();
    assert!(seen(1).starts_with("no dnsmasq runs"), "{said}");
    assert!(!seen(1).contains("port 67"), "{said}");
    assert_eq!(seen(2), "dnsmasq is not installed, so guests get no address");
    assert!(rows[2]["fix"].as_str().unwrap().starts_with("apt-get install -y dnsmasq-base && "), "{said}");
    assert!(seen(3).starts_with("no dnsmasq runs") && seen(3).contains("; python3, process "), "{said}");
    assert!(seen(5).contains("is not what `tap32 render dnsmasq` prints now"), "{said}");
    assert!(seen(7).starts_with("no dnsmasq runs"), "{said}");
}
