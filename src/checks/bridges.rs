//! Bridges, uplinks, the loopback and sysctls. What is missing is what `setup` would change, by the same plan: there is no
//! second list.

use super::facts::Facts;
use super::row::Row;
use crate::addr;
use crate::config::{BridgeConfig, Config};
use crate::fabric::answers::{Answers, bgp, ospf};
use crate::host::sysctl::{self, Sysctl};
use crate::host::{self, Change, Interface, Seen};
use crate::text::quote;

/// What every port takes.
const ETHERNET_MTU: u32 = 1500;

/// BR_MAX_PORTS without the number 0 (net/bridge/br_private.h, br_if.c).
const MOST_PORTS: usize = 1023;
/// From here on it is time to think of a second bridge.
const MANY_PORTS: usize = 900;

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    // A network manager decides who should fix an interface, not what is wrong with it.
    let seen = Seen { owners: Vec::new(), ..facts.host.clone() };
    let plan = host::plan(config, &seen);
    let checks = Checks { facts, changes: plan.changes };
    let mut rows = Vec::new();
    for bridge in &config.bridges {
        rows.extend(checks.bridge(bridge));
    }
    for uplink in &config.uplinks {
        rows.extend(checks.uplink(config, &uplink.name));
    }
    if let Some(router_id) = config.fabric.router_id {
        rows.push(checks.addressed("lo", &format!("{router_id}/32")));
    }
    rows.extend(sysctl::wanted(config).iter().map(|wanted| checks.sysctl(config, wanted)));
    rows
}

struct Checks<'a> {
    facts: &'a Facts,
    /// What setup would change.
    changes: Vec<Change>,
}

impl Checks<'_> {
    fn interface(&self, name: &str) -> Option<&Interface> {
        self.facts.host.interfaces.iter().find(|interface| interface.name == name)
    }

    /// `fail` with the change that setup would make, if there is one.
    fn judge(&self, check: String, seen: String, change: impl Fn(&Change) -> bool) -> Row {
        match self.changes.iter().find(|wanted| change(wanted)) {
            Some(change) => Row::fail(check, seen + &self.manager(change), Some(change.to_string())),
            None => Row::ok(check, seen),
        }
    }

    /// Which network manager would undo the change at the next start, and where it lasts.
    fn manager(&self, change: &Change) -> String {
        let Some(name) = change.interface() else { return String::new() };
        let owner = self.facts.host.owners.iter().find(|owner| owner.interface == name);
        owner.map_or_else(String::new, |owner| {
            format!(" ({name} is managed by {}: change {} too, or it comes back)", owner.manager.name(), owner.file)
        })
    }

    fn bridge(&self, wanted: &BridgeConfig) -> Vec<Row> {
        let name = &wanted.name;
        let Some(found) = self.interface(name) else { return vec![self.missing(wanted)] };
        if found.kind != "bridge" {
            let seen = "the interface of this name is not a bridge: correct its name under [[bridge]]";
            return vec![Row::fail(format!("{name} present"), seen, None)];
        }
        let mut rows = vec![Row::ok(format!("{name} present"), "a bridge"), self.up(found)];
        rows.push(match wanted.gateway {
            Some(gateway) => self.addressed(name, &gateway.to_string()),
            None => without_gateway(found),
        });
        rows.push(self.judge(
            format!("{name} MAC"),
            addr::show(found.mac) + if found.pinned { "" } else { ", which changes with the ports" },
            |change| matches!(change, Change::SetMac(bridge, _) if bridge == name),
        ));
        rows.push(self.judge(
            format!("{name} STP"),
            if found.stp { "on: a new port forwards nothing for 30 s" } else { "off" }.to_owned(),
            |change| matches!(change, Change::StopStp(bridge) if bridge == name),
        ));
        rows.push(self.judge(
            format!("{name} MTU"),
            found.mtu.to_string(),
            |change| matches!(change, Change::SetMtu(bridge, _) if bridge == name),
        ));
        rows.extend(self.ports(found));
        rows
    }

    fn missing(&self, wanted: &BridgeConfig) -> Row {
        let name = &wanted.name;
        let make = |change: &Change| matches!(change, Change::MakeBridge(bridge, _) if bridge == name);
        if self.changes.iter().any(make) {
            return self.judge(format!("{name} present"), "there is no such interface".into(), make);
        }
        let fix = format!("ip link add {0} type bridge && ip link set dev {0} up", quote(name));
        Row::fail(format!("{name} present"), "there is no such interface", Some(fix))
    }

    fn up(&self, found: &Interface) -> Row {
        let name = &found.name;
        let check = format!("{name} up");
        let fix = format!("ip link set dev {} up", quote(name));
        match self.judge(
            check,
            if found.up { "up" } else { "down" }.into(),
            |change| matches!(change, Change::Up(interface) if interface == name),
        ) {
            // `setup` leaves a bridge without a configured gateway alone.
            row if row.fix.is_none() && !found.up => Row::fail(row.check, row.seen, Some(fix)),
            row => row,
        }
    }

    fn addressed(&self, name: &str, address: &str) -> Row {
        let addresses = self.interface(name).map(|found| found.addresses.as_slice()).unwrap_or_default();
        let seen = match addresses {
            [] => "no IPv4 address".into(),
            some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let row = self.judge(format!("{name} {address}"), seen, |change| {
            matches!(change, Change::AddAddress(interface, wanted)
                if interface == name && wanted.to_string() == address)
        });
        if self.interface(name).is_none() {
            return Row::fail(row.check, "there is no such interface", row.fix);
        }
        row
    }

    /// Carrier and number of ports.
    fn ports(&self, found: &Interface) -> Vec<Row> {
        let name = &found.name;
        let number = self.facts.ports.get(name).copied().unwrap_or_default();
        let ports = format!("{number} of at most {MOST_PORTS} ports");
        let more = ": put further guests on a second [[bridge]]";
        let count = format!("{name} ports");
        let count = match number {
            MOST_PORTS.. => Row::fail(count, ports + more, None),
            MANY_PORTS.. => Row::warn(count, ports + more, None),
            _ => Row::ok(count, ports),
        };
        let carrier = format!("{name} carrier");
        let carrier = match (found.carrier, number) {
            (true, _) => Row::ok(carrier, "a port forwards"),
            (false, 0) => Row::ok(carrier, "none, because there is no port"),
            (false, _) => Row::warn(carrier, "none: no guest has its tap open, or every port is down", None),
        };
        vec![count, carrier]
    }

    fn uplink(&self, config: &Config, name: &str) -> Vec<Row> {
        let Some(found) = self.interface(name) else {
            let seen = "there is no such interface: correct its name under [[uplink]], `ip link` lists the names";
            return vec![Row::fail(format!("{name} present"), seen, None)];
        };
        let mut rows = vec![self.up(found)];
        let carrier = format!("{name} carrier");
        rows.push(match (found.carrier, found.up) {
            (true, _) => Row::ok(carrier, "up"),
            (false, false) => Row::not_checked(carrier, "the interface is down"),
            (false, true) => Row::fail(carrier, "none: check the cable and the switch's port", None),
        });
        let address = config.uplinks.iter().find(|uplink| uplink.name == name).map(|uplink| uplink.address.to_string());
        rows.extend(address.map(|address| self.addressed(name, &address)));
        rows.extend(config.bridges.iter().filter_map(|bridge| self.mtu(bridge, found)));
        rows
    }

    /// Guests' largest packets must fit the uplinks.
    fn mtu(&self, bridge: &BridgeConfig, uplink: &Interface) -> Option<Row> {
        let found = self.interface(&bridge.name)?;
        let check = format!("{} MTU for {}", uplink.name, bridge.name);
        let seen = format!("{}, the bridge has {}", uplink.mtu, found.mtu);
        if uplink.mtu >= found.mtu {
            return Some(Row::ok(check, seen));
        }
        let seen = format!("{seen}: large packets of guests are fragmented or lost");
        // A configured MTU is intended; otherwise the smaller one decides.
        Some(match bridge.mtu {
            // OSPF between two ends that differ stays in ExStart (measured, FRR 8.4), and the switch's MTU is not known.
            Some(mtu) if mtu > ETHERNET_MTU || self.is_routing() => {
                let seen =
                    format!("{seen}; change the switch's port first, then `ip link set dev {} mtu {mtu}`", uplink.name);
                Row::warn(check, seen, None)
            }
            Some(mtu) => Row::warn(check, seen, Some(format!("ip link set dev {} mtu {mtu}", quote(&uplink.name)))),
            None => Row::warn(check, seen, Some(format!("ip link set dev {} mtu {}", quote(&bridge.name), uplink.mtu))),
        })
    }

    /// Whether FRR runs a protocol, whose neighbours a new MTU could cut off.
    fn is_routing(&self) -> bool {
        let runs = |frr: &Answers| frr.get(&ospf::NEIGHBOURS).is_ok() || frr.get(&bgp::NEIGHBOURS).is_ok();
        self.facts.frr.as_ref().is_some_and(runs)
    }

    fn sysctl(&self, config: &Config, wanted: &Sysctl) -> Row {
        let check = format!("sysctl {}", wanted.name());
        let found = wanted.interface().and_then(|name| self.interface(name));
        if let Some(found) = found.filter(|found| found.is_no_bridge(config)) {
            return Row::not_checked(check, format!("{} is not a bridge", found.name));
        }
        let fix = Change::Sysctl(wanted.clone()).to_string();
        match self.facts.host.sysctls.get(&wanted.path) {
            Some(value) if *value == wanted.value => Row::ok(check, value.to_string()),
            Some(value) => Row::fail(check, format!("{value}, not {} ({})", wanted.value, wanted.why), Some(fix)),
            None => match wanted.interface().filter(|name| self.interface(name).is_none()) {
                Some(name) => Row::not_checked(check, format!("there is no interface {name}")),
                None => Row::not_checked(check, "this kernel does not have it"),
            },
        }
    }
}

fn without_gateway(found: &Interface) -> Row {
    let check = format!("{} gateway", found.name);
    if found.addresses.is_empty() {
        let seen = "no IPv4 address: guests have no gateway, and FRR from 10.7 on drops their routes; write gateway = under [[bridge]]";
        return Row::fail(check, seen, None);
    }
    Row::ok(check, found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}
