//! The addresses of a bridge with `on-link = false` that put guests on link all the same, and whose they are: `setup` takes
//! back its own, and leaves those of others to a person.

use ipnet::Ipv4Net;

use crate::config::BridgeConfig;

/// All of them. zebra takes each for a connected subnet, also one without a route in the kernel (`noprefixroute`), and then
/// never selects the fabric's route to it (measured, FRR 8.4).
pub fn still(wanted: &BridgeConfig, on_bridge: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut guests = wanted.guest_prefixes(&[]);
    guests.extend(wanted.gateway);
    let overlaps = |net: &Ipv4Net| guests.iter().any(|of| of.contains(&net.addr()) || net.contains(&of.addr()));
    let puts_on_link = |net: &&Ipv4Net| !wanted.on_link && net.prefix_len() < 32 && overlaps(net);
    on_bridge.iter().filter(puts_on_link).copied().collect()
}

/// The one that `setup` gave the bridge while `on-link` was true. `None` beside one of another program: the kernel may
/// delete that too, as a secondary of this (__inet_del_ifa, promote_secondaries), and it keeps the guests on link anyway.
pub fn own(wanted: &BridgeConfig, on_bridge: &[Ipv4Net]) -> Option<Ipv4Net> {
    match still(wanted, on_bridge)[..] {
        [only] => wanted.gateway.filter(|gateway| *gateway == only),
        _ => None,
    }
}

/// The sentence for those of another program.
pub fn foreign(wanted: &BridgeConfig, on_bridge: &[Ipv4Net]) -> Option<String> {
    let still = still(wanted, on_bridge);
    let foreign: Vec<_> = still.into_iter().filter(|net| wanted.gateway != Some(*net)).collect();
    let name = &wanted.name;
    let all = |show: &dyn Fn(&Ipv4Net) -> String| foreign.iter().map(show).collect::<Vec<_>>().join(", ");
    (!foreign.is_empty()).then(|| {
        format!(
            "bridge {name} has {}, which tap32 did not add and which puts guests on link, in spite of on-link = false: \
             delete it with {}, and run `tap32 setup` again",
            all(&|net| net.to_string()),
            all(&|net| format!("`{}`", delete(net, name)))
        )
    })
}

/// The command that deletes an address.
pub fn delete(net: &Ipv4Net, bridge: &str) -> String {
    format!("ip addr del {net} dev {bridge}")
}
