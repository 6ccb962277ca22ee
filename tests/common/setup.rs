//! What the tests of `setup` share: a bare host with two cards, its configuration, and how it must look after.

use std::path::PathBuf;

use super::{Host, string};

pub const CONFIG: &str = r#"
[[bridge]]
name = "br-l2"
gateway = "10.0.0.1/24"

[fabric]
router-id = "10.47.176.132"

[[uplink]]
name = "eth0"
address = "10.47.175.10/30"
peer = "10.47.175.9"

[[uplink]]
name = "eth1"
address = "10.47.175.14/30"
peer = "10.47.175.13"
"#;

/// A folder for one test's files; gone when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(host: &Host) -> Self {
        let folder = std::env::temp_dir().join(&host.name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn write(&self, file: &str, contents: &str) -> String {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A namespace with two cards and nothing else, and the arguments that set it up.
pub fn bare() -> (Host, Folder, String) {
    let host = Host::bare();
    host.ok("ip link set lo down");
    for (card, switch) in [("eth0", "sw0"), ("eth1", "sw1")] {
        host.ok(&format!("ip link add {card} type veth peer name {switch}"));
    }
    let folder = Folder::new(&host);
    let file = folder.write("tap32.toml", CONFIG);
    (host, folder, format!("setup --config {file}"))
}

/// `ip -j addr`, as address/length of an interface.
pub fn addresses(host: &Host, interface: &str) -> Vec<String> {
    let all = host.json(&format!("ip -j -4 addr show dev {interface}"));
    let infos = all.as_array().unwrap().iter().flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    infos.map(|info| format!("{}/{}", string(&info["local"]), info["prefixlen"])).collect()
}

pub fn is_up(host: &Host, interface: &str) -> bool {
    host.link(interface)["flags"].as_array().unwrap().contains(&"UP".into())
}

pub fn sysctl(host: &Host, name: &str) -> String {
    host.ok(&format!("sysctl -n {name}")).trim().to_owned()
}

/// What a host must have once it is set up.
pub fn assert_set_up(host: &Host) {
    let bridge = host.link("br-l2");
    assert_eq!(bridge["address"], "02:42:0a:00:00:01");
    assert_eq!(bridge["linkinfo"]["info_data"]["stp_state"], 0);
    assert_eq!(addresses(host, "br-l2"), ["10.0.0.1/24"]);
    assert_eq!(addresses(host, "eth0"), ["10.47.175.10/30"]);
    assert_eq!(addresses(host, "eth1"), ["10.47.175.14/30"]);
    assert!(addresses(host, "lo").contains(&"10.47.176.132/32".to_owned()));
    assert!(["br-l2", "eth0", "eth1", "lo"].iter().all(|name| is_up(host, name)));
    for (name, value) in [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.br-l2.forwarding", "1"),
        ("net.ipv4.conf.eth0.forwarding", "1"),
        ("net.ipv4.conf.br-l2.proxy_arp", "1"),
        ("net.ipv4.conf.br-l2.proxy_arp_pvlan", "1"),
        ("net.ipv4.conf.br-l2.send_redirects", "0"),
        ("net.ipv4.conf.all.send_redirects", "0"),
        ("net.ipv4.conf.br-l2.rp_filter", "2"),
        ("net.ipv4.conf.eth1.rp_filter", "2"),
        ("net.ipv4.neigh.br-l2.proxy_delay", "0"),
        ("net.ipv6.conf.br-l2.accept_ra", "0"),
        ("net.ipv4.fib_multipath_hash_policy", "1"),
        ("net.ipv4.conf.eth0.ignore_routes_with_linkdown", "1"),
        ("net.ipv4.conf.eth1.ignore_routes_with_linkdown", "1"),
    ] {
        assert_eq!(sysctl(host, name), value, "{name}");
    }
}
