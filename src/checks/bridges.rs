//! Bridges and their ports, uplinks, the loopback and sysctls. What is missing is what `setup` would change, by the same
//! plan.

use ipnet::Ipv4Net;

use super::facts::Facts;
use super::row::Row;
use crate::addr;
use crate::config::{BridgeConfig, Config, Uplink};
use crate::fabric::answers::{bgp, ospf};
use crate::guest::link::Other;
use crate::host::sysctl::{self, Sysctl};
use crate::host::{self, Change, Interface, Seen, on_link};
use crate::text::quote;

/// What every port takes.
const ETHERNET_MTU: u32 = 1500;

/// BR_MAX_PORTS without the number 0 (net/bridge/br_private.h, br_if.c).
const MOST_PORTS: usize = 1023;
/// From here on doctor recommends a second bridge.
const MANY_PORTS: usize = 900;

const ABSENT: &str = "there is no such interface";

pub fn rows(config: &Config, facts: &Facts) -> Vec<Row> {
    // A network manager decides who should fix an interface, not what is wrong with it.
    let seen = Seen { owners: Vec::new(), ..facts.host.clone() };
    let checks = Checks { config, facts, changes: host::plan(config, &seen).changes };
    let mut rows = Vec::new();
    rows.extend(config.bridges.iter().flat_map(|bridge| checks.bridge(bridge)));
    rows.extend(config.uplinks.iter().flat_map(|uplink| checks.uplink(uplink)));
    rows.extend(config.fabric.router_id.map(|router_id| match checks.interface("lo") {
        Some(lo) => checks.addressed(lo, router_id.into()),
        None => Row::fail(format!("lo {router_id}/32"), ABSENT),
    }));
    rows.extend(sysctl::wanted(config).into_iter().map(|wanted| checks.sysctl(wanted)));
    rows
}

struct Checks<'a> {
    config: &'a Config,
    facts: &'a Facts,
    /// What setup would change.
    changes: Vec<Change>,
}

impl Checks<'_> {
    fn interface(&self, name: &str) -> Option<&Interface> {
        self.facts.host.interfaces.iter().find(|interface| interface.name == name)
    }

    /// `fail` with the change of this kind that setup would make, if there is one.
    fn judge(&self, name: &str, what: &str, seen: impl Into<String>, is_kind: fn(&Change) -> bool) -> Row {
        let check = format!("{name} {what}");
        match self.changes.iter().find(|change| change.interface() == Some(name) && is_kind(change)) {
            Some(change) => Row::fail(check, seen.into() + &self.manager(name)).fix(change.to_string()),
            None => Row::ok(check, seen),
        }
    }

    /// The same of what is wrong in any case; `fix` is the command where setup leaves the interface alone.
    fn wrong(&self, name: &str, what: &str, seen: &str, is_kind: fn(&Change) -> bool, fix: String) -> Row {
        let row = self.judge(name, what, seen, is_kind);
        if row.fix.is_some() { row } else { Row::fail(row.check, seen.to_owned() + &self.manager(name)).fix(fix) }
    }

    /// Which network manager would undo a change at the next start, and where the change lasts.
    fn manager(&self, name: &str) -> String {
        let owner = self.facts.host.owners.iter().find(|owner| owner.interface == name);
        owner.map_or_else(String::new, |owner| {
            format!(" ({name} is managed by {}: change {} too, or it comes back)", owner.manager().name(), owner.file)
        })
    }

    fn bridge(&self, wanted: &BridgeConfig) -> Vec<Row> {
        let name = &wanted.name;
        let present = format!("{name} present");
        let Some(found) = self.interface(name) else {
            let fix = format!("ip link add {0} type bridge && ip link set dev {0} up", quote(name));
            return vec![self.wrong(name, "present", ABSENT, |it| matches!(it, Change::MakeBridge { .. }), fix)];
        };
        if found.kind != "bridge" {
            let seen = "the interface of this name is not a bridge: correct its name under [[bridge]]";
            return vec![Row::fail(present, seen)];
        }
        let stp = if found.stp { "on: a new port forwards nothing for 30 s" } else { "off" };
        let mut rows = vec![
            Row::ok(present, "a bridge"),
            self.up(found),
            wanted.address().map_or_else(|| without_gateway(found), |address| self.addressed(found, address)),
            self.mac(wanted, found),
            self.judge(name, "STP", stp, |it| matches!(it, Change::StopStp { .. })),
            self.judge(name, "MTU", found.mtu.to_string(), |it| matches!(it, Change::SetMtu { .. })),
        ];
        rows.extend(self.on_link(wanted, found));
        rows.extend(self.ports(found));
        rows.extend(found.master.as_ref().map(|master| self.is_port(name, master)));
        rows.extend(found.other_ports.iter().map(|port| other_port(wanted, port)));
        rows
    }

    fn up(&self, found: &Interface) -> Row {
        let name = &found.name;
        if found.up {
            return Row::ok(format!("{name} up"), "up");
        }
        let fix = format!("ip link set dev {} up", quote(name));
        self.wrong(name, "up", "down", |it| matches!(it, Change::Up { .. }), fix)
    }

    /// A bridge whose MAC nobody has set takes the lowest of its ports' MACs (br_stp_recalculate_bridge_id). When that port
    /// leaves, no guest knows the gateway's new MAC.
    fn mac(&self, wanted: &BridgeConfig, found: &Interface) -> Row {
        let name = &found.name;
        let is_kind: fn(&Change) -> bool = |change| matches!(change, Change::SetMac { .. });
        let mac = addr::show(found.mac);
        let address = wanted.address().or_else(|| found.addresses.first().copied());
        match address.filter(|_| !found.pinned) {
            Some(address) => {
                let seen = format!("{mac}, which changes with the ports: guests lose their gateway then");
                let set = Change::SetMac(name.clone(), wanted.wanted_mac(self.config.mac_prefix, address));
                self.wrong(name, "MAC", &seen, is_kind, set.to_string())
            }
            None => self.judge(name, "MAC", mac, is_kind),
        }
    }

    fn addressed(&self, found: &Interface, address: Ipv4Net) -> Row {
        let seen = if found.addresses.is_empty() { "no IPv4 address".into() } else { addresses(found) };
        self.judge(&found.name, &address.to_string(), seen, |it| matches!(it, Change::AddAddress { .. }))
    }

    /// With `on-link = false` a row for each address that still has guests on link.
    fn on_link(&self, wanted: &BridgeConfig, found: &Interface) -> Vec<Row> {
        let name = &wanted.name;
        let Some(address) = wanted.address().filter(|_| !wanted.on_link) else { return Vec::new() };
        let still = on_link::still(wanted, &found.addresses);
        if still.is_empty() {
            return vec![Row::ok(format!("{name} on link"), "nothing, as `on-link = false` says")];
        }
        // First the new one: the kernel deletes each route through a bridge that loses its last address.
        let is_there = found.addresses.contains(&address);
        let add = if is_there { String::new() } else { format!("ip addr replace {address} dev {} && ", quote(name)) };
        let row = |net: &Ipv4Net| {
            let seen = format!(
                "{} is on link here, which hides the fabric's aggregate: guests here do not reach those of this subnet in \
                 another MDU{}",
                net.trunc(),
                self.manager(name)
            );
            Row::fail(format!("{name} {net}"), seen).fix(add.clone() + &on_link::delete(net, name))
        };
        still.iter().map(row).collect()
    }

    /// The number of ports, and the carrier.
    fn ports(&self, found: &Interface) -> [Row; 2] {
        let name = &found.name;
        let number = self.facts.ports.get(name).copied().unwrap_or_default();
        let check = format!("{name} ports");
        let ports = format!("{number} of at most {MOST_PORTS} ports");
        let more = ": put further guests on a second [[bridge]]";
        let count = match number {
            MOST_PORTS.. => Row::fail(check, ports + more),
            MANY_PORTS.. => Row::warn(check, ports + more),
            _ => Row::ok(check, ports),
        };
        let check = format!("{name} carrier");
        let carrier = match (found.carrier, number) {
            (true, _) => Row::ok(check, "a port forwards"),
            (false, 0) => Row::ok(check, "none, because there is no port"),
            (false, _) => Row::warn(check, "none: no guest has its tap open, or every port is down"),
        };
        [count, carrier]
    }

    /// A bridge that is itself a port: tap32 refuses its guests.
    fn is_port(&self, name: &str, master: &Other) -> Row {
        let seen = if master.kind == "vrf" {
            format!(
                "in the VRF {}, which does not use the main table, where tap32's routes are: tap32 refuses every guest",
                master.name
            )
        } else {
            format!("a port of {master}, which takes what its guests send: tap32 refuses every guest")
        };
        Row::fail(format!("{name} master"), seen + &self.manager(name)).fix(off_bridge(name))
    }

    fn uplink(&self, uplink: &Uplink) -> Vec<Row> {
        let name = &uplink.name;
        let Some(found) = self.interface(name) else {
            let seen = format!("{ABSENT}: correct its name under [[uplink]], `ip link` lists the names");
            return vec![Row::fail(format!("{name} present"), seen)];
        };
        let check = format!("{name} carrier");
        let carrier = match (found.carrier, found.up) {
            (true, _) => Row::ok(check, "up"),
            (false, false) => Row::not_checked(check, "the interface is down"),
            (false, true) => Row::fail(check, "none: check the cable and the switch's port"),
        };
        let mut rows = vec![self.up(found), carrier, self.addressed(found, uplink.address)];
        rows.extend(self.config.bridges.iter().filter_map(|bridge| self.mtu(bridge, found)));
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
        let set = |interface: &str, mtu: u32| format!("ip link set dev {} mtu {mtu}", quote(interface));
        // A configured MTU is intended; otherwise the smaller one decides.
        Some(match bridge.mtu {
            // With two MTUs on a link OSPF stays in ExStart (measured, FRR 8.4), and the switch's is not known.
            Some(mtu) if mtu > ETHERNET_MTU || self.is_routing() => {
                Row::warn(check, format!("{seen}; change the switch's port first, then `{}`", set(&uplink.name, mtu)))
            }
            Some(mtu) => Row::warn(check, seen).fix(set(&uplink.name, mtu)),
            None => Row::warn(check, seen).fix(set(&bridge.name, uplink.mtu)),
        })
    }

    /// Whether FRR runs a protocol, whose neighbours a new MTU could cut off.
    fn is_routing(&self) -> bool {
        let frr = self.facts.frr.as_ref();
        frr.is_some_and(|frr| frr.get(&ospf::NEIGHBOURS).is_ok() || frr.get(&bgp::NEIGHBOURS).is_ok())
    }

    fn sysctl(&self, wanted: Sysctl) -> Row {
        let check = format!("sysctl {}", wanted.name());
        let found = wanted.interface().map(|name| (name, self.interface(name)));
        match (self.facts.host.sysctls.get(&wanted.path), found) {
            (_, Some((name, Some(found)))) if found.is_no_bridge(self.config) => {
                Row::not_checked(check, format!("{name} is not a bridge"))
            }
            (Some(value), _) if *value == wanted.value => Row::ok(check, value.to_string()),
            (Some(value), _) => Row::fail(check, format!("{value}, not {} ({})", wanted.value, wanted.why))
                .fix(Change::Sysctl(wanted).to_string()),
            (None, _) if self.facts.host.lacks_ipv6(&wanted) => Row::ok(check, "there is no IPv6 here"),
            (None, Some((name, None))) => Row::not_checked(check, format!("there is no interface {name}")),
            (None, _) => Row::not_checked(check, "this kernel does not have it"),
        }
    }
}

/// Whether it is guarded or not: nothing guards what is behind a port that is no tap.
fn other_port(wanted: &BridgeConfig, port: &Other) -> Row {
    let check = format!("{} port {}", wanted.name, port.name);
    let kind = port.kind();
    if wanted.other_ports {
        return Row::ok(check, format!("a {kind} interface, which `other-ports = true` allows and nothing guards"));
    }
    let seen = format!(
        "a {kind} interface, which nothing guards: with proxy ARP this host answers for every address behind it, and \
         whatever is there can pass as any guest; if it is meant to be there, write other-ports = true under [[bridge]]"
    );
    Row::fail(check, seen).fix(off_bridge(&port.name))
}

/// The command that takes a port off its bridge, or a bridge out of its VRF.
pub fn off_bridge(port: &str) -> String {
    format!("ip link set dev {} nomaster", quote(port))
}

fn without_gateway(found: &Interface) -> Row {
    let check = format!("{} gateway", found.name);
    if !found.addresses.is_empty() {
        return Row::ok(check, addresses(found));
    }
    let seen = "no IPv4 address: guests have no gateway, and FRR from 10.7 on drops their routes";
    Row::fail(check, format!("{seen}; set `gateway` under [[bridge]]"))
}

fn addresses(found: &Interface) -> String {
    found.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
