//! zebra's routes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

use super::Question;

/// All routes that zebra has from the kernel.
pub const KERNEL_ROUTES: Question<Routes> = Question::json("show ip route kernel json");

/// zebra's routes to this /32; `{}` if it has none.
pub fn route(address: Ipv4Addr) -> Question<Routes> {
    Question::about(format!("show ip route {address}/32 json"))
}

/// By prefix.
#[derive(Deserialize)]
pub struct Routes(BTreeMap<String, Vec<Route>>);

impl Routes {
    pub fn to(&self, address: Ipv4Addr) -> &[Route] {
        self.0.get(&format!("{address}/32")).map(Vec::as_slice).unwrap_or_default()
    }
}

#[derive(Deserialize)]
pub struct Route {
    pub protocol: String,
    /// Whether zebra prefers it; the key is missing where it does not.
    #[serde(default)]
    pub selected: bool,
    pub distance: u8,
    pub metric: u32,
    #[serde(default)]
    nexthops: Vec<NextHop>,
}

impl Route {
    /// Gateways, or interfaces where there is no gateway.
    pub fn next_hops(&self) -> Vec<&str> {
        self.nexthops.iter().filter_map(|hop| hop.ip.as_deref().or(hop.interface.as_deref())).collect()
    }
}

#[derive(Deserialize)]
struct NextHop {
    ip: Option<String>,
    #[serde(rename = "interfaceName")]
    interface: Option<String>,
}
