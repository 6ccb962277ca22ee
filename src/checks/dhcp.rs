//! The DHCP server of `render dnsmasq`, where the host uses it: whether it runs, hears, and says what the file says.

use super::facts::{Dhcp, Facts};
use super::row::Row;
use crate::config::Config;
use crate::host::dnsmasq::{self, FILE};

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    facts.machine.dhcp.as_ref().map(|dhcp| row(config, facts, dhcp)).into_iter().collect()
}

fn row(config: &Config, facts: &Facts, dhcp: &Dhcp) -> Row {
    let fail = |seen: String| Row::fail("DHCP server", seen);
    let wanted = match dnsmasq::render(config) {
        Ok(wanted) => wanted,
        Err(error) => return fail(format!("{error:#}")),
    };
    let Some(pid) = dhcp.pid else {
        // Whose processes another user may not see.
        if !facts.root {
            return Row::not_checked("DHCP server", "only root sees whether it runs");
        }
        if dhcp.not_installed {
            return fail("dnsmasq is not installed, so guests get no address".to_owned()).fix(start(facts, dhcp));
        }
        let seen = format!("no dnsmasq runs with {FILE}, so guests get no address");
        return fail(seen + &other(dhcp)).fix(start(facts, dhcp));
    };
    if !dhcp.hears {
        let seen = format!("dnsmasq, process {pid}, has no socket on UDP port 67");
        return fail(seen + &other(dhcp)).fix(start(facts, dhcp));
    }
    if dhcp.text.as_ref() != Some(&wanted) {
        let seen = format!("{FILE} is not what `tap32 render dnsmasq` prints now");
        return fail(seen).fix(start(facts, dhcp));
    }
    Row::ok("DHCP server", format!("dnsmasq, process {pid}"))
}

/// Whether dnsmasq can share the port depends on the other's socket options (SO_REUSEPORT), which /proc does not show.
fn other(dhcp: &Dhcp) -> String {
    let line = |(pid, name): &(u32, String)| {
        format!(
            "; {name}, process {pid}, has UDP port 67: stop it first, or have it leave that port, if dnsmasq does not start"
        )
    };
    dhcp.other.as_ref().map(line).unwrap_or_default()
}

/// The command that starts it anew, as tap32-dhcp.service does.
fn start(facts: &Facts, dhcp: &Dhcp) -> String {
    let install = if dhcp.not_installed { "apt-get install -y dnsmasq-base && " } else { "" };
    if facts.systemd {
        return format!("{install}systemctl restart tap32-dhcp");
    }
    let folder = FILE.rsplit_once('/').map_or(FILE, |(folder, _)| folder);
    let kill = dhcp.pid.map(|pid| format!(" && kill {pid}")).unwrap_or_default();
    let render =
        format!("{install}mkdir -p {folder} && {} render dnsmasq >{FILE}.new && mv {FILE}.new {FILE}", facts.tap32);
    format!("{render}{kill} && dnsmasq --conf-file={FILE} --pid-file")
}
