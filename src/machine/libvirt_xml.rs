//! What libvirt's XML says of a domain's NICs, and of the networks that they name.

use std::fs;

use anyhow::{Context, Result, anyhow, bail};
use macaddr::MacAddr6;
use roxmltree::{Document, Node};

use crate::addr;
use crate::text::printable;

const NODES_LIMIT: u32 = 200_000;
/// Where libvirt keeps its networks: those that are active, then all that are defined.
const NETWORKS: [&str; 2] = ["/run/libvirt/network", "/etc/libvirt/qemu/networks"];

/// A NIC of a domain that could be ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub mac: MacAddr6,
    pub attachment: Attachment,
    /// `<target dev>`: only while the guest runs, and on its own host.
    pub tap: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// `<interface type='bridge'>`, or `type='network'` on a network of a bridge: libvirt attaches the tap itself.
    Bridge(String),
    /// `<interface type='ethernet'>` with a `<script>`, which libvirt calls at the right time.
    Script,
}

/// The NICs of a domain's XML; those of other types (user, direct ...) are left out.
///
/// One of `type='network'` names its bridge only while it has its tap: to `start` and `started` libvirt 9.0 gives it as
/// `type='bridge'`; to `migrate`, `prepare`, `stopped` and `release` with the network's name, whose bridge `bridge_of`
/// knows.
///
/// # Errors
/// Not XML, too many nodes, a document type (no DTD is ever read), or an interface without a MAC.
pub fn nics(xml: &str, bridge_of: impl Fn(&str) -> Option<String>) -> Result<Vec<Nic>> {
    if xml.trim().is_empty() {
        bail!(
            "there is nothing on stdin, where libvirt hands a hook the domain's XML: a script in between must pass it on"
        );
    }
    let document = parse(xml).map_err(|error| anyhow!("the domain's XML: {}", printable(&error.to_string())))?;
    let devices = document.root_element().children().filter(|node| node.has_tag_name("devices"));
    let mut found = Vec::new();
    for interface in devices.flat_map(|node| node.children()).filter(|node| node.has_tag_name("interface")) {
        let bridge = child(interface, "source", "bridge");
        let attachment = match interface.attribute("type") {
            Some("bridge") => bridge.map(Attachment::Bridge),
            Some("network") => {
                bridge.or_else(|| bridge_of(&child(interface, "source", "network")?)).map(Attachment::Bridge)
            }
            Some("ethernet") => child(interface, "script", "path").map(|_| Attachment::Script),
            _ => None,
        };
        if let Some(attachment) = attachment {
            let mac = child(interface, "mac", "address").context("an interface of the domain's XML has no MAC")?;
            let mac = addr::parse_mac(&mac).context("an interface of the domain's XML")?;
            found.push(Nic { mac, attachment, tap: child(interface, "target", "dev") });
        }
    }
    Ok(found)
}

/// The bridge of a libvirt network, from libvirt's own files: a hook must not ask the daemon (deadlock). `None`: of no
/// bridge, or not known here.
pub fn bridge_of_network(name: &str) -> Option<String> {
    // libvirt lets no name with a slash through (virXMLCheckIllegalChars); whatever else calls us must not lead us away.
    if name.contains('/') {
        return None;
    }
    NETWORKS.iter().find_map(|folder| bridge(&fs::read_to_string(format!("{folder}/{name}.xml")).ok()?))
}

/// `<network>`, which in libvirt's note of an active one stands inside `<networkstatus>`.
fn bridge(xml: &str) -> Option<String> {
    let document = parse(xml).ok()?;
    let network = document.descendants().find(|node| node.has_tag_name("network"))?;
    child(network, "bridge", "name")
}

fn parse(xml: &str) -> Result<Document<'_>, roxmltree::Error> {
    Document::parse_with_options(xml, roxmltree::ParsingOptions { nodes_limit: NODES_LIMIT, ..Default::default() })
}

fn child(node: Node, name: &str, attribute: &str) -> Option<String> {
    node.children().find(|n| n.has_tag_name(name)).and_then(|n| n.attribute(attribute)).map(str::to_owned)
}
