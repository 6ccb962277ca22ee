//! The kernel switches that the configuration asks for, each with its value and why.

use anyhow::{Result, ensure};

use crate::config::{Config, nothing_described};

/// One kernel switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Under /proc/sys: `net/ipv4/conf/br-l2/proxy_arp`.
    pub path: String,
    /// The value that it must have.
    pub value: u32,
    /// One line for people.
    pub why: &'static str,
}

impl Sysctl {
    /// The name for sysctl(8) and sysctl.d(5): with dots, or with slashes if the interface's name has a dot.
    pub fn name(&self) -> String {
        if self.path.contains('.') { self.path.clone() } else { self.path.replace('/', ".") }
    }

    /// The interface of the switch; `None` for the whole host's.
    pub fn interface(&self) -> Option<&str> {
        let mut parts = self.path.split('/').skip(2);
        let (Some("conf" | "neigh"), Some(name)) = (parts.next(), parts.next()) else { return None };
        (name != "all").then_some(name)
    }

    pub(crate) fn is_of_ipv6(&self) -> bool {
        self.path.starts_with("net/ipv6/")
    }
}

/// The lines of `/etc/sysctl.d/60-tap32.conf`. udev applies those of an interface when it appears (99-systemd.rules).
///
/// # Errors
/// The configuration describes nothing.
pub fn render(config: &Config) -> Result<String> {
    ensure!(config.describes_host(), nothing_described());
    let line = |wanted: Sysctl| format!("# {}\n{} = {}\n", wanted.why, wanted.name(), wanted.value);
    let lines: String = wanted(config).into_iter().map(line).collect();
    let bridges = config.described_bridges().map(|(bridge, _)| bridge).filter(|bridge| !bridge.other_ports);
    let names: Vec<&str> = bridges.map(|bridge| bridge.name.as_str()).collect();
    // setup refuses such a bridge, and udev, which applies these lines, does not.
    let warning = match &names[..] {
        [] => String::new(),
        names => format!(
            "# Only taps may be ports of {}: with proxy_arp this host answers ARP for every address of\n\
             # a LAN that another port leads to.\n",
            names.join(", ")
        ),
    };
    Ok(format!("# /etc/sysctl.d/60-tap32.conf, by `tap32 render sysctl`\n{warning}{lines}"))
}

/// Every kernel switch that the configuration asks for, the one that sets others first.
pub fn wanted(config: &Config) -> Vec<Sysctl> {
    let mut wanted = Vec::new();
    let mut add = |path: String, value, why| wanted.push(Sysctl { path, value, why });
    if config.describes_host() {
        add("net/ipv4/conf/all/forwarding".into(), 1, "the host routes between its guests and the fabric");
        add(
            "net/ipv4/conf/all/send_redirects".into(),
            0,
            "off here too, since either switch is enough: a redirect would tell a guest to bypass its gateway",
        );
    }
    for (bridge, _) in config.described_bridges() {
        let conf = |key: &str| format!("net/ipv4/conf/{}/{key}", bridge.name);
        add(conf("forwarding"), 1, "the host routes here too, even if another program switched it off");
        add(conf("proxy_arp"), 1, "guests ask for their whole subnet, and the gateway answers for what it routes");
        // Not switched off without isolation: guests that are isolated still could not reach each other.
        if bridge.isolate {
            add(
                conf("proxy_arp_pvlan"),
                1,
                "the gateway answers for guests of this bridge too, for their ports are isolated from each other",
            );
        }
        add(
            conf("send_redirects"),
            0,
            "a guest must not learn another guest's MAC: it would be wrong after a migration",
        );
        // The kernel takes the larger of all.rp_filter and this one, so only 2 does not depend on "all".
        add(conf("rp_filter"), 2, "loose: after a migration a guest's first frames come before its route");
        add(
            format!("net/ipv4/neigh/{}/proxy_delay", bridge.name),
            0,
            "the gateway answers ARP at once: the kernel's default delays a guest's first packet by up to 0.8 s",
        );
        add(
            format!("net/ipv6/conf/{}/accept_ra", bridge.name),
            0,
            "a guest's router advertisement must not give the host an address and a default route through that guest",
        );
    }
    if !config.uplinks.is_empty() {
        add(
            "net/ipv4/fib_multipath_hash_policy".into(),
            1,
            "equal paths are chosen by addresses and ports, so that both uplinks carry",
        );
    }
    for uplink in &config.uplinks {
        let conf = |key: &str| format!("net/ipv4/conf/{}/{key}", uplink.name);
        add(conf("forwarding"), 1, "the host routes here too, even if another program switched it off");
        add(conf("rp_filter"), 2, "loose: a packet may come in by one uplink while the route back uses the other");
        add(
            conf("ignore_routes_with_linkdown"),
            1,
            "no packet goes into an uplink without carrier, even before FRR notices",
        );
    }
    wanted
}
