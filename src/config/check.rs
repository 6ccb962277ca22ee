//! Refuses values that parse and cannot be meant, each with a sentence.

use std::net::Ipv4Addr;

use anyhow::{Result, bail, ensure};

use ipnet::Ipv4Net;

use super::{Bfd, BridgeConfig, Config, FabricProtocol, INTERFACE_NAME, Uplink, Watch, is_interface_name};

impl Config {
    pub(super) fn check(&self) -> Result<()> {
        // zebra does not redistribute kernel routes with FRR's own numbers (rt_netlink.c, is_selfroute). The kernel and the
        // administrator use 0 to 4 (rtnetlink(7)).
        ensure!(
            !matches!(self.protocol, 0..=4 | 11 | 42 | 186..=198),
            "protocol = {} is used by the kernel, by static routes or by FRR: choose another, such as 132",
            self.protocol
        );
        ensure!(self.distance != 255, "distance = 255 means unreachable to zebra: choose at most 254, such as 240");
        // FRR's distances. With a lower one each of two hosts would prefer its own route to an address.
        let other = match self.fabric.protocol {
            FabricProtocol::Ospf => 110,
            FabricProtocol::Bgp => 20,
        };
        ensure!(
            self.distance == 0 || self.distance > other,
            "distance = {}: tap32's routes would not yield to another host's, whose distance is {other}: choose more, such \
             as 240 (or 0, the article's metric 0)",
            self.distance
        );
        ensure!(
            !self.migration.timeout.is_zero(),
            "timeout = \"0s\" under [migration]: every guest takes time to arrive, so choose more, such as \"1h\""
        );
        self.watch.check()?;
        self.check_bridges()?;
        self.check_fabric()?;
        self.uplinks.iter().try_for_each(|uplink| self.check_uplink(uplink))?;
        self.check_mdu()
    }

    fn check_bridges(&self) -> Result<()> {
        for (i, bridge) in self.bridges.iter().enumerate() {
            let name = &bridge.name;
            ensure!(is_interface_name(name), "bridge name {name:?} is not {INTERFACE_NAME}");
            ensure!(
                self.bridges[..i].iter().all(|other| other.name != *name),
                "bridge {name} has two [[bridge]] tables: keep one"
            );
            if let Some(gateway) = bridge.gateway.map(|net| net.addr())
                && let Some(other) =
                    self.bridges[..i].iter().find(|other| other.gateway.is_some_and(|net| net.addr() == gateway))
            {
                let other = &other.name;
                bail!(
                    "gateway {gateway} of bridge {name} is also bridge {other}'s: give each bridge a gateway of its own"
                );
            }
            // IPv4 needs 68 (RFC 791), and a tap takes at most 65521 (tun_net_init).
            let mtu = bridge.mtu.unwrap_or(1500);
            ensure!((68..=65521).contains(&mtu), "mtu = {mtu} of bridge {name}: a tap takes 68 to 65521");
            ensure!(
                bridge.on_link || bridge.gateway.is_some(),
                "on-link = false of bridge {name} without a gateway: another program gives this bridge its address, so \
                 write its gateway too, such as gateway = \"10.0.0.1/24\", or delete the line"
            );
            if let Some(mac) = bridge.mac {
                ensure!(
                    !mac.is_multicast() && !mac.is_nil(),
                    "mac = {mac} of bridge {name}: an interface cannot have this MAC"
                );
            }
            bridge.check_names()?;
        }
        Ok(())
    }

    fn check_fabric(&self) -> Result<()> {
        // bfdd_vty.c: receive-interval, transmit-interval, detect-multiplier.
        let Bfd { interval_ms, multiplier } = self.fabric.bfd;
        ensure!((10..=60000).contains(&interval_ms), "bfd interval-ms = {interval_ms}: FRR takes 10 to 60000");
        ensure!(multiplier >= 2, "bfd multiplier = {multiplier}: FRR takes 2 to 255");
        ensure!(self.fabric.r#as != Some(0), "as = 0 is not an AS number (RFC 7607)");
        if let Some(router_id) = self.fabric.router_id {
            ensure!(is_unicast(router_id), "router-id = {router_id}: the loopback cannot have this address");
        }
        Ok(())
    }

    fn check_uplink(&self, uplink: &Uplink) -> Result<()> {
        let Uplink { name, address, peer, .. } = uplink;
        ensure!(is_interface_name(name), "uplink name {name:?} is not {INTERFACE_NAME}");
        ensure!(self.bridge(name).is_none(), "{name} has a [[bridge]] and an [[uplink]] table: keep one");
        ensure!(
            name != "lo",
            "uplink lo: the loopback is not an uplink; write its address as router-id under [fabric]"
        );
        ensure!(uplink.peer_as != Some(0), "peer-as = 0 of uplink {name} is not an AS number (RFC 7607)");
        if let Some(number) = uplink.peer_as.filter(|number| Some(*number) == self.fabric.r#as) {
            bail!(
                "peer-as = {number} of uplink {name} is this host's own AS number, as under [fabric]: each node of the \
                 fabric has its own, so write the switch's"
            );
        }
        let again =
            |what: fn(&Uplink, &Uplink) -> bool| self.uplinks.iter().filter(|other| what(other, uplink)).count() > 1;
        ensure!(!again(|a, b| a.name == b.name), "uplink {name} has two [[uplink]] tables: keep one");
        ensure!(!again(|a, b| a.address.addr() == b.address.addr()), "two uplinks have the address {}", address.addr());
        ensure!(!again(|a, b| a.peer == b.peer), "two uplinks have the peer {peer}");
        ensure!(
            matches!(address.prefix_len(), 30 | 31),
            "address {address} of uplink {name}: a link between two routers is a /30 or a /31"
        );
        check_ends(*address, *peer, &format!("uplink {name}"))?;
        uplink.switch_port.iter().try_for_each(|port| check_port(port, "switch-port", &format!("uplink {name}")))
    }
}

impl BridgeConfig {
    /// What guests are told of names.
    fn check_names(&self) -> Result<()> {
        let Self { name, dns, domain, .. } = self;
        for (i, server) in dns.iter().enumerate() {
            ensure!(is_unicast(*server), "dns of bridge {name}: {server} is not the address of a name server");
            ensure!(!dns[..i].contains(server), "dns of bridge {name} has {server} twice: keep one");
        }
        if let Some(domain) = domain {
            ensure!(
                is_domain(domain),
                "domain = {domain:?} of bridge {name} is not a domain such as \"example.org\": write labels of letters, \
                 digits and hyphens with dots between, no hyphen at a label's ends, no dot at the domain's, at most 63 \
                 characters a label and 253 in all"
            );
        }
        Ok(())
    }
}

/// RFC 1123, 2.1, and RFC 1035, 2.3.4.
fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    domain.len() <= 253 && domain.split('.').all(is_label)
}

/// The two ends of a link of a router.
pub(super) fn check_ends(address: Ipv4Net, peer: Ipv4Addr, link: &str) -> Result<()> {
    // A /31 has no network and no broadcast address (RFC 3021).
    ensure!(is_unicast(address.addr()), "address {address} of {link}: no interface can have this address (RFC 6890)");
    let ends = if address.prefix_len() <= 30 { vec![address.network(), address.broadcast()] } else { Vec::new() };
    ensure!(
        !ends.contains(&address.addr()),
        "address {address} of {link} is the network or broadcast address of its subnet"
    );
    let is_other = |end: &Ipv4Addr| *end != address.addr() && !ends.contains(end);
    let only = address.hosts().find(is_other).filter(|_| address.prefix_len() >= 30);
    let fix = only.map_or_else(String::new, |end| format!(": write peer = \"{end}\", or correct the address"));
    ensure!(address.contains(&peer) && is_other(&peer), "peer {peer} of {link} is not the other end of {address}{fix}");
    Ok(())
}

/// A port's name, which stands in one line of a router's configuration.
pub(super) fn check_port(port: &str, key: &str, link: &str) -> Result<()> {
    let printable = !port.is_empty() && port.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    ensure!(printable, "{key} {port:?} of {link} is not the name of a port");
    Ok(())
}

impl Watch {
    fn check(&self) -> Result<()> {
        if let Some(path) = &self.metrics {
            // node_exporter's textfile collector reads only *.prom.
            ensure!(
                path.is_absolute() && path.extension().is_some_and(|ending| ending == "prom"),
                "metrics = {path:?} under [watch]: write an absolute path that ends in .prom"
            );
        }
        ensure!(
            !self.resync.is_zero(),
            "resync = \"0s\" under [watch]: watch would never rest, so choose more, such as \"60s\""
        );
        Ok(())
    }
}

/// Ranges of which no interface can have an address (RFC 6890).
const UNUSABLE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Whether an interface can have the address.
pub(super) fn is_unicast(address: Ipv4Addr) -> bool {
    unusable(&address.into()).is_none()
}

/// The part of a range that no interface can have.
pub(super) fn unusable(range: &Ipv4Net) -> Option<Ipv4Net> {
    UNUSABLE.into_iter().find(|unusable| overlap(unusable, range))
}

pub(super) fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(b) || b.contains(a)
}
