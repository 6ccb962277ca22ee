//! dnsmasq's configuration as a DHCP server for the guests (dnsmasq(8), 2.81 or later). It follows from the bridges alone
//! and so is the same on every host that has them: each guest's address is reserved for its MAC everywhere, and a guest
//! renews wherever it is.

use std::fmt::Write;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
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

/// A guest asks again after half of it, wherever it is; a server that is away for less takes nobody's address.
const LEASE: &str = "24h";

/// # Errors
/// No bridge has a gateway, a bridge's name is none for dnsmasq, or there are too many addresses.
pub fn render(config: &Config) -> Result<String> {
    let (served, others): (Vec<_>, Vec<_>) = config.bridges.iter().partition(|bridge| bridge.gateway.is_some());
    ensure!(
        !served.is_empty(),
        "no bridge has a gateway, so there are no guests to serve: write one under [[bridge]] in {}, such as gateway = \
         \"10.0.0.1/24\"",
        file()
    );
    check_size(&served)?;
    let mut text = format!("# {FILE}, by `tap32 render dnsmasq`\n# DHCP for guests, the same on every host.\n{HEAD}");
    for bridge in others {
        writeln!(text, "# Not for {}, which has no gateway in the configuration.", bridge.name)?;
    }
    let mut hosts = String::new();
    let mut count = 0;
    for bridge in served {
        ensure!(
            !bridge.name.contains(','),
            "dnsmasq takes no bridge whose name has a comma, such as {}: name another under [[bridge]] in {}",
            bridge.name,
            file()
        );
        for address in prefixes(bridge).iter().flat_map(all) {
            let is_here = |found: &BridgeConfig| found.name == bridge.name;
            if configured::bridge_on_any_host(config, address).is_ok_and(is_here) {
                writeln!(hosts, "dhcp-host={},{address}", GuestMac::from_address(address, config.mac_prefix))?;
                count += 1;
            }
        }
        bridge_lines(&mut text, bridge)?;
    }
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

/// What the guests of a bridge are told. dnsmasq gives each request the name of its interface as a tag (dnsmasq(8), TAGS).
fn bridge_lines(text: &mut String, bridge: &BridgeConfig) -> Result<()> {
    let name = &bridge.name;
    let Some(gateway) = bridge.gateway else { return Ok(()) };
    let (router, subnet, guests) = (gateway.addr(), gateway.trunc(), prefixes(bridge));
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
    // A /32 has no guest beside the gateway.
    let on_link = Some(subnet).filter(|subnet| subnet.prefix_len() < 32);
    if on_link.is_some_and(|subnet| guests.iter().any(|net| net.contains(&subnet) || subnet.contains(net))) {
        writeln!(text, "dhcp-range={}", range(subnet))?;
    }
    let outside: Vec<_> =
        guests.iter().flat_map(|net| on_link.map_or(vec![*net], |hole| without(*net, hole))).collect();
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
