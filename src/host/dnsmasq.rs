//! dnsmasq's configuration as a DHCP server for the guests (dnsmasq(8), 2.81 or later). It follows from the bridges alone
//! and so is the same on every host that has them: each guest's address is reserved for its MAC everywhere, and a guest
//! renews wherever it is.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::{Result, bail, ensure};
use ipnet::Ipv4Net;

use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config, file};
use crate::guest::configured;

/// Where tap32-dhcp.service writes the text and dnsmasq reads it.
pub const FILE: &str = "/run/tap32-dhcp/dnsmasq.conf";

/// One reservation for each address of a /16. dnsmasq compares each with all before it (option.c, "duplicate dhcp-host IP
/// address"): that takes it 14 s for so many, and four times as long for twice as many (measured, 2.90).
const MOST: u64 = 1 << 16;

/// port: no DNS. bind-dynamic: a bridge may be made later, and other dnsmasqs may run. dhcp-authoritative: a guest that was
/// served by another host is not unknown. dhcp-ignore-clid: a guest is its MAC, whatever it says in its boot loader.
/// leasefile-ro, no-hosts: nothing that one host has and another has not. no-ping: an address is nobody else's.
/// interface: longer than a name can be, so that none is like it. With a wildcard dnsmasq does not bind to the only bridge
/// there is, which would make it deaf to another of that name (dhcp-common.c, whichdevice; measured).
/// dhcp-broadcast: to answer in unicast dnsmasq would put its own entry in the place of tap32's permanent neighbour entry
/// (dhcp.c, SIOCSARP).
const HEAD: &str = "\
port=0
bind-dynamic
interface=there-is-no-such-name*
dhcp-authoritative
dhcp-ignore-clid
dhcp-broadcast
no-ping
no-hosts
leasefile-ro
";

/// What dnsmasq itself calls requests, of any interface (rfc2131.c, dhcp_reply).
const TAGS: [&str; 4] = ["known", "known-othernet", "bootp", "cpewan-id"];

/// A guest asks again after half of it, wherever it is; a server that is away for less takes nobody's address.
const LEASE: &str = "24h";

/// # Errors
/// No bridge has a gateway, or none of those has a guest; a bridge's name is none for dnsmasq; an address is of two
/// bridges; or there are too many addresses.
pub fn render(config: &Config) -> Result<String> {
    let (served, others): (Vec<_>, Vec<_>) = config.bridges.iter().partition(|bridge| bridge.gateway.is_some());
    ensure!(
        !served.is_empty(),
        "no bridge has a gateway, so there are no guests to serve: write one under [[bridge]] in {}, such as gateway = \
         \"10.0.0.1/24\"",
        file()
    );
    served.iter().try_for_each(|bridge| check_name(&bridge.name))?;
    check_size(&served)?;
    check_pairs(&served)?;
    let mut text = format!("# {FILE}, by `tap32 render dnsmasq`\n# DHCP for guests, the same on every host.\n{HEAD}");
    for bridge in others {
        writeln!(text, "# Not for {}, which has no gateway in the configuration.", bridge.name)?;
    }
    let mut hosts = String::new();
    let mut count = 0;
    for bridge in &served {
        for address in prefixes(bridge).iter().flat_map(all) {
            configured::only_bridge(config, address)?;
            // Others are no guest's.
            if configured::bridge_on_any_host(config, address).is_ok() {
                writeln!(hosts, "dhcp-host={},{address}", GuestMac::from_address(address, config.mac_prefix))?;
                count += 1;
            }
        }
        bridge_lines(&mut text, bridge)?;
    }
    ensure!(
        count > 0,
        "no address that a guest may have is in the prefixes of {}, so there are no guests to serve: write under \
         [[bridge]] in {} a gateway with a shorter length, such as gateway = \"10.0.0.1/24\", or prefixes = [...]",
        served.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>().join(", "),
        file()
    );
    // dnsmasq's own is 1,000.
    writeln!(text, "dhcp-lease-max={count}")?;
    Ok(text + &hosts)
}

/// The bridge's prefixes, none of which holds another.
fn prefixes(bridge: &BridgeConfig) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&bridge.guest_prefixes(&[]))
}

/// Also the ends, which are guests' where no interface is on that subnet.
fn all(net: &Ipv4Net) -> impl Iterator<Item = Ipv4Addr> + use<> {
    (u32::from(net.network())..=u32::from(net.broadcast())).map(Into::into)
}

/// Refuses a name that a line of dnsmasq's takes for something else.
fn check_name(name: &str) -> Result<()> {
    ensure!(
        !name.contains(','),
        "dnsmasq takes no bridge whose name has a comma, such as {name}: name another under [[bridge]] in {}",
        file()
    );
    ensure!(
        !TAGS.contains(&name),
        "dnsmasq has a tag {name} of its own, so guests of other bridges would be told what those of bridge {name} are: \
         name another under [[bridge]] in {}",
        file()
    );
    Ok(())
}

fn check_size(bridges: &[&BridgeConfig]) -> Result<()> {
    let sizes = bridges.iter().flat_map(|bridge| prefixes(bridge)).map(|net| 1_u64 << (32 - net.prefix_len()));
    let size = sizes.sum::<u64>();
    ensure!(
        size <= MOST,
        "the bridges' prefixes have {size} addresses, and dnsmasq compares the reservation of each with all before it when \
         it starts (14 s for a /16, four times as long for twice as many): write smaller prefixes = [...] under [[bridge]] \
         in {}, a /16 ({MOST} addresses) in all, or give guests their addresses with `tap32 render cloud-init ADDR`",
        file()
    );
    Ok(())
}

/// dnsmasq takes a range for a bridge's if the bridge's address, or a `shared-network` of that, is in it: whichever bridge
/// it was written for (dhcp.c, complete_context).
fn check_pairs(bridges: &[&BridgeConfig]) -> Result<()> {
    for (i, one) in bridges.iter().enumerate() {
        for other in &bridges[..i] {
            check_pair(other, one)?;
            check_pair(one, other)?;
        }
    }
    Ok(())
}

/// Refuses a range of `one` that holds a range or the gateway of `other`.
fn check_pair(one: &BridgeConfig, other: &BridgeConfig) -> Result<()> {
    let (own, others) = (Ranges::of(one), Ranges::of(other));
    let gateway = other.gateway.map(|net| net.addr().into());
    let theirs: Vec<Ipv4Net> = others.all().chain(gateway).collect();
    let held = |range: Ipv4Net| theirs.iter().find(|net| range.contains(*net)).map(|net| (range, *net));
    let Some((range, net)) = own.all().find_map(held) else { return Ok(()) };
    let fix = match one.gateway.filter(|_| own.on_link == Some(range)).map(|gateway| narrowed(gateway, net)) {
        Some(Some(gateway)) => {
            format!("gateway = \"{gateway}\", which leaves {net} out, and no prefixes that hold it")
        }
        Some(None) => "a gateway of another subnet".to_owned(),
        None => format!("prefixes = [...] that leave {net} out"),
    };
    let (one, other) = (&one.name, &other.name);
    bail!(
        "dnsmasq cannot tell the guests of bridges {one} and {other} apart, as {range} of {one} holds {net} of {other}: \
         write under [[bridge]] name = \"{one}\" in {} {fix}",
        file()
    )
}

/// The gateway in the largest subnet that leaves `net` out, and of which it is not an end.
fn narrowed(gateway: Ipv4Net, net: Ipv4Net) -> Option<Ipv4Net> {
    let mut nets = (gateway.prefix_len() + 1..=30).filter_map(|length| Ipv4Net::new(gateway.addr(), length).ok());
    let is_end = |own: &Ipv4Net| [own.network(), own.broadcast()].contains(&own.addr());
    nets.find(|own| !own.contains(&net) && !net.contains(own) && !is_end(own))
}

/// The ranges of a bridge, each a line.
struct Ranges {
    /// The gateway's subnet, if guests are in it.
    on_link: Option<Ipv4Net>,
    /// The guests outside of it.
    outside: Vec<Ipv4Net>,
}

impl Ranges {
    fn of(bridge: &BridgeConfig) -> Self {
        let guests = prefixes(bridge);
        let has_guests = |subnet: &Ipv4Net| guests.iter().any(|net| net.contains(subnet) || subnet.contains(net));
        // A /32 has no guest beside the gateway.
        let subnet = bridge.gateway.map(|gateway| gateway.trunc()).filter(|subnet| subnet.prefix_len() < 32);
        let on_link = subnet.filter(has_guests);
        let outside = guests.iter().flat_map(|net| on_link.map_or(vec![*net], |hole| without(*net, hole))).collect();
        Self { on_link, outside }
    }

    fn all(&self) -> impl Iterator<Item = Ipv4Net> {
        self.on_link.into_iter().chain(self.outside.iter().copied())
    }
}

/// What the guests of a bridge are told. dnsmasq gives each request the name of its interface as a tag (dnsmasq(8), TAGS).
fn bridge_lines(text: &mut String, bridge: &BridgeConfig) -> Result<()> {
    let name = &bridge.name;
    let Some(gateway) = bridge.gateway else { return Ok(()) };
    let (router, Ranges { on_link, outside }) = (gateway.addr(), Ranges::of(bridge));
    writeln!(text, "interface={name}\ndhcp-option=tag:{name},option:router,{router}")?;
    if !bridge.dns.is_empty() {
        let servers: Vec<_> = bridge.dns.iter().map(ToString::to_string).collect();
        writeln!(text, "dhcp-option=tag:{name},option:dns-server,{}", servers.join(","))?;
    }
    if let Some(domain) = &bridge.domain {
        writeln!(text, "dhcp-option=tag:{name},option:domain-name,{domain}")?;
    }
    if let Some(mtu) = bridge.mtu {
        writeln!(text, "dhcp-option=tag:{name},option:mtu,{mtu}")?;
    }
    if let Some(subnet) = on_link {
        writeln!(text, "dhcp-range={}", range(subnet))?;
    }
    if outside.is_empty() { Ok(()) } else { outside_lines(text, name, router, &outside) }
}

/// The guests outside of the gateway's subnet have no broadcast address (28) and nothing on link but the gateway. The route
/// to it (121, RFC 3442) goes also to a client that does not ask for it, as busybox's does not.
fn outside_lines(text: &mut String, bridge: &str, router: Ipv4Addr, nets: &[Ipv4Net]) -> Result<()> {
    // No interface has a name like this tag.
    let tag = format!("{bridge}/outside");
    for net in nets {
        writeln!(text, "dhcp-range=set:{tag},{}", range(*net))?;
        if !net.contains(&router) {
            writeln!(text, "shared-network={router},{}", net.network())?;
        }
    }
    writeln!(text, "dhcp-option=tag:{tag},option:netmask,255.255.255.255")?;
    writeln!(text, "dhcp-option=tag:{tag},28")?;
    writeln!(text, "dhcp-option-force=tag:{tag},121,{router}/32,0.0.0.0,0.0.0.0/0,{router}")?;
    Ok(())
}

/// A range without a pool. dnsmasq takes it for an interface's if an address of the interface is in it, by the range's mask
/// (dhcp.c, complete_context), which with `on-link = false` is not the address's own. `shared-network` says so of the
/// others: by the address, as the interface may be made later.
fn range(net: Ipv4Net) -> String {
    format!("{},static,{},{},{LEASE}", net.network(), net.netmask(), net.broadcast())
}

/// What of `net` is outside of `hole`.
fn without(net: Ipv4Net, hole: Ipv4Net) -> Vec<Ipv4Net> {
    if hole.contains(&net) {
        return Vec::new();
    }
    match net.subnets(net.prefix_len() + 1) {
        Ok(halves) if net.contains(&hole) => halves.flat_map(|half| without(half, hole)).collect(),
        _ => vec![net],
    }
}
