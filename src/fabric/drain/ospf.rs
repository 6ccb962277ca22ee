//! One uplink in OSPF's words. A passive interface is announced as a stub: everybody's SPF leaves the link out, while
//! it goes on carrying what still comes (measured: 0 of 9,600 packets lost, FACTS.md).

use anyhow::Result;
use serde_json::Value;

use crate::config::Uplink;
use crate::verbs::uplink::{Session, ask};

/// One session for each of the uplinks, in their order.
pub fn look(uplinks: &[Uplink]) -> Result<Vec<Session>> {
    let interfaces = ask("show ip ospf interface json")?;
    let interfaces = interfaces.get("interfaces").unwrap_or(&interfaces);
    let neighbours = ask("show ip ospf neighbor json")?;
    let session = |uplink: &Uplink| Session {
        neighbour: neighbour(&neighbours, &uplink.name),
        drained: interfaces[&uplink.name]["timerPassiveIface"] == true,
    };
    Ok(uplinks.iter().map(session).collect())
}

/// FRR 8: `{"neighbors":{"10.255.0.11":[{"nbrState":"Full/-","ifaceName":"eth0:10.47.175.10", ...}]}}`; older ones
/// leave the outer key out and call the state `state`.
fn neighbour(answer: &Value, interface: &str) -> String {
    let routers = answer.get("neighbors").unwrap_or(answer);
    let mut all =
        routers.as_object().into_iter().flat_map(|routers| routers.values()).filter_map(Value::as_array).flatten();
    let is_here = |neighbour: &&Value| {
        neighbour["ifaceName"].as_str().is_some_and(|name| name.split(':').next() == Some(interface))
    };
    let state = all.find(is_here).and_then(|neighbour| neighbour["nbrState"].as_str().or(neighbour["state"].as_str()));
    state.and_then(|state| state.split('/').next()).unwrap_or("none").to_owned()
}

pub fn shut(uplink: &Uplink) -> Vec<String> {
    inside(uplink, "ip ospf passive")
}

pub fn open(uplink: &Uplink) -> Vec<String> {
    inside(uplink, "no ip ospf passive")
}

fn inside(uplink: &Uplink, line: &str) -> Vec<String> {
    vec!["configure terminal".to_owned(), format!("interface {}", uplink.name), line.to_owned()]
}
