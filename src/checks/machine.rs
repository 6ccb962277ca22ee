//! What else helps or harms guests' routes: netfilter on bridges, NetworkManager, syslog, `tap32 watch`, rt_protos.

use super::facts::Facts;
use super::row::Row;
use crate::config::Config;
use crate::text::quote;

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    let mut rows = vec![br_netfilter(config, facts)];
    rows.extend(network_manager(config, facts));
    rows.extend([syslog(facts), watch(facts), proto_name(config, facts)]);
    rows
}

/// What guests send to each other is routed where their ports are isolated. `forward` judges the chains themselves.
fn br_netfilter(config: &Config, facts: &Facts) -> Row {
    let check = "br_netfilter";
    let bridged: Vec<_> = config.bridges.iter().filter(|bridge| !bridge.isolate).collect();
    match (facts.machine.bridge_nf_call_iptables, &bridged[..]) {
        (None, _) => Row::ok(check, "not loaded"),
        (Some(0), _) => Row::ok(check, "bridges do not call iptables"),
        (Some(_), []) => Row::ok(check, "bridges call iptables, but pass no frame from one isolated port to another"),
        (Some(_), [bridge, ..]) => {
            let seen = format!("frames between guests of {} pass iptables' FORWARD chain", bridge.name);
            Row::warn(check, seen).fix("sysctl -w net.bridge.bridge-nf-call-iptables=0".to_owned())
        }
    }
}

fn network_manager(config: &Config, facts: &Facts) -> Vec<Row> {
    if facts.machine.network_manager.is_empty() {
        return vec![Row::ok("NetworkManager", "manages no bridge of tap32 and no tap on one")];
    }
    let row = |name: &String| {
        let what = if config.bridge(name).is_some() { "bridge" } else { "tap" };
        let fix = format!("nmcli device set {} managed no", quote(name));
        Row::fail(format!("NetworkManager {name}"), format!("manages the {what} and may delete its routes")).fix(fix)
    };
    facts.machine.network_manager.iter().map(row).collect()
}

fn syslog(facts: &Facts) -> Row {
    if facts.machine.syslog {
        return Row::ok("syslog", "/dev/log");
    }
    let fix = if facts.systemd { "systemctl start systemd-journald-dev-log.socket" } else { "service rsyslog start" };
    Row::warn("syslog", "no /dev/log: what the hooks do and refuse is not logged").fix(fix.to_owned())
}

fn watch(facts: &Facts) -> Row {
    match facts.machine.watch {
        Some(0) => return Row::ok("tap32 watch", "a process in another pid namespace"),
        Some(pid) => return Row::ok("tap32 watch", format!("process {pid}")),
        None => {}
    }
    let seen = "does not run: a NIC plugged at run time, or a route lost with the bridge, waits for `tap32 reconcile`";
    Row::warn("tap32 watch", seen).fix(start_watch(facts))
}

/// The command that starts `tap32 watch`, for ever where that is possible.
pub fn start_watch(facts: &Facts) -> String {
    if facts.systemd {
        "systemctl enable --now tap32-watch".to_owned()
    } else {
        format!("setsid {} watch </dev/null >/dev/null 2>&1 &", facts.tap32)
    }
}

fn proto_name(config: &Config, facts: &Facts) -> Row {
    let number = config.protocol;
    if let Some(name) = &facts.machine.proto_name {
        return Row::ok("rt_protos", format!("{number} is {name}"));
    }
    let folder = "/etc/iproute2/rt_protos.d";
    let fix = format!("mkdir -p {folder} && echo '{number} tap32' >{folder}/tap32.conf");
    Row::warn("rt_protos", format!("`ip route` shows tap32's routes as proto {number}, without a name")).fix(fix)
}
