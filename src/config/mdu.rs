//! `[mdu]` and `[[backbone]]`: the modular unit of racks that the host is in, and how its border speaks to the others.
//! A method stands for each key that `tap32 render border` needs: its error says what to write.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer};

use super::bridge::subnets;
use super::check::{check_ends, check_port, overlap, unusable};
use super::fabric::missing;
use super::{Config, FabricProtocol, file};

/// `[mdu]`. Every list holds subnets without host bits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mdu {
    /// The ranges of this MDU's guests. The border announces one route for each.
    #[serde(deserialize_with = "ranges")]
    pub aggregate: Vec<Ipv4Net>,
    /// The ranges of every MDU's guests.
    #[serde(deserialize_with = "ranges")]
    pub guests: Vec<Ipv4Net>,
    /// The ranges of this MDU's loopbacks, which a migration from another MDU connects to. Also one route for each.
    #[serde(deserialize_with = "ranges")]
    pub hosts: Vec<Ipv4Net>,
    /// The border's AS number.
    pub r#as: Option<u32>,
}

/// `[[backbone]]`: a link of the border to the backbone.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Backbone {
    /// The border's end.
    pub address: Ipv4Net,
    /// The backbone router's end.
    pub peer: Ipv4Addr,
    /// The backbone router's AS number.
    pub peer_as: Option<u32>,
    /// The border's own name of the port. Without it the interface has its address already.
    pub port: Option<String>,
}

impl Config {
    /// The MDU of a border. Every guest that this configuration knows must be in its `guests`, or nobody elsewhere would
    /// hear of it.
    pub(crate) fn mdu(&self) -> Result<&Mdu> {
        let mdu = self.mdu.as_ref().with_context(|| {
            format!(
                "there is no [mdu]: write in {} [mdu] with aggregate = [\"10.16.0.0/16\"] (this MDU's guests), guests = \
                 [\"10.16.0.0/16\", \"10.32.0.0/16\"] (every MDU's guests) and as = 64901 (the border's AS number)",
                file()
            )
        })?;
        self.check_mdu_protocol()?;
        ensure!(
            !mdu.aggregate.is_empty(),
            missing("aggregate", "", "[mdu]", "the ranges of this MDU's guests", "[\"10.16.0.0/16\"]")
        );
        ensure!(
            !mdu.guests.is_empty(),
            missing("guests", "", "[mdu]", "the ranges of every MDU's guests", "[\"10.16.0.0/16\", \"10.32.0.0/16\"]")
        );
        for bridge in &self.bridges {
            let outside = bridge.guest_prefixes(&[]).into_iter().find(|prefix| !is_in(prefix, &mdu.guests));
            if let Some(prefix) = outside {
                bail!(
                    "bridge {} has guests in {prefix}, which guests under [mdu] does not have: the border would announce \
                     them to nobody, so add \"{prefix}\" to guests under [mdu] in {}",
                    bridge.name,
                    file()
                );
            }
        }
        let router_id = self.fabric.router_id.filter(|own| !is_in(&Ipv4Net::from(*own), &mdu.hosts));
        if let Some(router_id) = router_id.filter(|_| !mdu.hosts.is_empty()) {
            bail!(
                "router-id {router_id} under [fabric] is in none of the ranges of hosts under [mdu]: no migration from \
                 another MDU would reach this host, so add the range of this MDU's loopbacks to hosts under [mdu] in {}",
                file()
            );
        }
        Ok(mdu)
    }

    /// Whether the protocol can do what an MDU needs.
    ///
    /// ospfd's `area range` summarises router and network LSAs ("Type-5 AS-external-LSAs can't be summarized", ospfd.rst),
    /// and guests are type 5. An NSSA for each MDU lets no other MDU's type 5 in.
    pub(crate) fn check_mdu_protocol(&self) -> Result<()> {
        ensure!(
            self.mdu.is_none() || self.fabric.protocol == FabricProtocol::Bgp,
            "[mdu] needs BGP: OSPF cannot aggregate guests at an area's border and let single ones pass (guests are \
             type-5 LSAs, which `area range` does not summarise, and an NSSA keeps those of other MDUs out), so a guest's \
             old host would never hear its claim from another MDU: write under [fabric] in {} protocol = \"bgp\", \
             or remove [mdu] and keep one flat OSPF domain",
            file()
        );
        Ok(())
    }

    /// The links to the backbone, of which there must be one.
    pub(crate) fn backbones(&self) -> Result<&[Backbone]> {
        ensure!(
            !self.backbones.is_empty(),
            "there is no link to the backbone: write in {} one [[backbone]] for each link of the border, with address = \
             \"172.30.1.1/31\", peer = \"172.30.1.0\" and peer-as = 64900",
            file()
        );
        Ok(&self.backbones)
    }

    pub(super) fn check_mdu(&self) -> Result<()> {
        if let Some(mdu) = &self.mdu {
            mdu.check()?;
            let own = self.fabric.r#as.filter(|own| mdu.r#as == Some(*own));
            if let Some(own) = own {
                bail!("as = {own} under [mdu] is this host's own under [fabric]: the border is another node");
            }
        }
        let border = self.mdu.as_ref().and_then(|mdu| mdu.r#as);
        for (i, link) in self.backbones.iter().enumerate() {
            link.check(border)?;
            self.backbones[..i].iter().try_for_each(|other| link.check_beside(other))?;
            self.check_backbone(link)?;
        }
        Ok(())
    }

    /// A link of the border beside what the host itself has.
    fn check_backbone(&self, Backbone { address, peer, peer_as, .. }: &Backbone) -> Result<()> {
        if let Some(uplink) = self.uplinks.iter().find(|uplink| overlap(&uplink.address, address)) {
            bail!(
                "address {address} of backbone {peer} is in the subnet of uplink {}: write the address of the border's \
                 end, towards the backbone",
                uplink.name
            );
        }
        let guests = self.mdu.iter().flat_map(|mdu| &mdu.guests).find(|guests| overlap(guests, address));
        if let Some(guests) = guests {
            bail!(
                "address {address} of backbone {peer} is in {guests}, which guests under [mdu] has: a link has no \
                 guest's address"
            );
        }
        let Some(number) = *peer_as else { return Ok(()) };
        ensure!(
            self.fabric.r#as != Some(number),
            "peer-as = {number} of backbone {peer} is this host's own AS number, as under [fabric]: the backbone has \
             another"
        );
        // RFC 4271, 9.1.2: a route with the own AS number in its path is a loop.
        if let Some(uplink) = self.uplinks.iter().find(|uplink| uplink.peer_as == Some(number)) {
            bail!(
                "peer-as = {number} of backbone {peer} is also that of uplink {}, whose switch would take every route \
                 from the backbone for a loop: write the AS number of the backbone's router",
                uplink.name
            );
        }
        Ok(())
    }
}

impl Mdu {
    /// The border's AS number.
    pub(crate) fn own_as(&self) -> Result<u32> {
        self.r#as.with_context(|| missing("as", "", "[mdu]", "the border's AS number", "64901"))
    }

    fn check(&self) -> Result<()> {
        let Self { aggregate, guests, hosts, r#as } = self;
        ensure!(*r#as != Some(0), "as = 0 under [mdu] is not an AS number (RFC 7607)");
        for (key, prefixes) in [("aggregate", aggregate), ("guests", guests), ("hosts", hosts)] {
            for (i, prefix) in prefixes.iter().enumerate() {
                ensure!(
                    prefix.prefix_len() > 0,
                    "{key} under [mdu] has {prefix}, which is the default route: write ranges such as \"10.16.0.0/16\""
                );
                if let Some(unusable) = unusable(prefix) {
                    bail!(
                        "{key} under [mdu] has {prefix}, but no interface can have an address in {unusable} (RFC 6890): \
                         remove \"{prefix}\" from {key}"
                    );
                }
                let other = prefixes[..i].iter().find(|other| overlap(other, prefix));
                if let Some(other) = other {
                    bail!("{key} under [mdu] has {other} and {prefix}, which overlap: keep the wider one");
                }
            }
        }
        if let Some(single) = aggregate.iter().chain(hosts).find(|prefix| prefix.prefix_len() == 32) {
            bail!("{single} under [mdu] is a single address, which aggregates nothing: write a range up to /31");
        }
        for (key, ranges) in [("guests", guests), ("aggregate", aggregate)] {
            let mixed = hosts.iter().find_map(|host| Some((host, ranges.iter().find(|guest| overlap(host, guest))?)));
            if let Some((host, guest)) = mixed {
                bail!(
                    "hosts {host} under [mdu] overlaps {key} {guest}: a host's loopback is no guest's address, so write \
                     {key} without it"
                );
            }
        }
        let outside = aggregate.iter().find(|prefix| !is_in(prefix, guests)).filter(|_| !guests.is_empty());
        if let Some(outside) = outside {
            if let Some(part) = guests.iter().find(|range| overlap(outside, range)) {
                bail!(
                    "aggregate {outside} under [mdu] is wider than {part}, which guests has: the border would announce \
                     more than guests, so write under [mdu] in {} only this MDU's ranges, such as \
                     aggregate = [\"{part}\"]",
                    file()
                );
            }
            bail!(
                "aggregate {outside} under [mdu] is not in guests, the ranges of every MDU: add \"{outside}\" to guests \
                 under [mdu] in {}",
                file()
            );
        }
        Ok(())
    }
}

impl Backbone {
    /// The AS number of the backbone router.
    pub(crate) fn peer_as(&self) -> Result<u32> {
        let missing = || {
            let table = format!("[[backbone]] peer = \"{}\"", self.peer);
            missing("peer-as", &format!(" at backbone {}", self.peer), &table, "the router's AS number", "64900")
        };
        self.peer_as.with_context(missing)
    }

    /// `border` is the border's AS number.
    fn check(&self, border: Option<u32>) -> Result<()> {
        let Self { address, peer, peer_as, port } = self;
        check_ends(*address, *peer, &format!("backbone {peer}"))?;
        ensure!(*peer_as != Some(0), "peer-as = 0 of backbone {peer} is not an AS number (RFC 7607)");
        let same = peer_as.filter(|number| Some(*number) == border);
        if let Some(number) = same {
            bail!(
                "peer-as = {number} of backbone {peer} is the border's own AS number, as under [mdu]: the backbone \
                 has another"
            );
        }
        port.iter().try_for_each(|port| check_port(port, "port", &format!("backbone {peer}")))
    }

    /// Two routers of the backbone can be behind one port, on one subnet.
    fn check_beside(&self, other: &Self) -> Result<()> {
        let Self { address, peer, port, .. } = self;
        ensure!(*peer != other.peer, "two [[backbone]] have the peer {peer}");
        if address == &other.address && port == &other.port {
            return Ok(());
        }
        if let Some(port) = port.as_ref().filter(|port| other.port.as_ref() == Some(port)) {
            bail!(
                "two [[backbone]] have the port {port}, and the addresses {} and {address}: write at each the port that \
                 leads to its peer",
                other.address
            );
        }
        ensure!(
            !overlap(address, &other.address),
            "address {address} of backbone {peer} is in the subnet of backbone {}: each port has a subnet of its own",
            other.peer
        );
        Ok(())
    }
}

fn ranges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Net>, D::Error> {
    Ok(subnets(deserializer)?.iter().map(Ipv4Net::trunc).collect())
}

fn is_in(prefix: &Ipv4Net, ranges: &[Ipv4Net]) -> bool {
    ranges.iter().any(|range| range.contains(prefix))
}
