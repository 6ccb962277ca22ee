//! Reads libvirt's XML: a domain's NICs, and the networks that they name.

use std::fs;

use anyhow::{Context, Result, anyhow, bail};
use macaddr::MacAddr6;
use roxmltree::{Document, Node};

use crate::addr;
use crate::text::printable;

const NODES_LIMIT: u32 = 200_000;
/// libvirt's files of its networks: the active ones, then all that are defined.
const NETWORKS: [&str; 2] = ["/run/libvirt/network", "/etc/libvirt/qemu/networks"];

/// A NIC of a domain that tap32 may manage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The guest's MAC, of any prefix.
    pub mac: MacAddr6,
    /// What attaches its tap.
    pub attachment: Attachment,
    /// `<target dev>`, which the XML has only while the guest runs on this host.
    pub tap: Option<String>,
}

impl Nic {
    /// The bridge to which libvirt attaches it.
    pub(crate) fn bridge(&self) -> Option<&str> {
        match &self.attachment {
            Attachment::Bridge(name) => Some(name),
            Attachment::Script => None,
        }
    }
}

/// What attaches a NIC's tap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// libvirt itself, to this bridge: `<interface type='bridge'>`, or `type='network'` with a network of a bridge.
    Bridge(String),
    /// The `<script>` of `<interface type='ethernet'>`, which libvirt calls.
    Script,
}

/// The NICs of a domain's XML, without those of other types (user, direct ...).
///
/// libvirt 9.0 gives a NIC of `type='network'` to `start` and `started` as `type='bridge'`, but to `migrate`,
/// `prepare`, `stopped` and `release` with the network's name. `bridge_of` returns that network's bridge.
///
/// # Errors
/// The text is not XML, has too many nodes or a document type, or an interface without a MAC.
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

/// The bridge of a libvirt network, if it has one, from libvirt's files: a hook that asked the daemon would deadlock.
pub(crate) fn bridge_of_network(name: &str) -> Option<String> {
    // libvirt allows no slash in a name (virXMLCheckIllegalChars), but another program may call the hook.
    if name.contains('/') {
        return None;
    }
    NETWORKS.iter().find_map(|folder| bridge(&fs::read_to_string(format!("{folder}/{name}.xml")).ok()?))
}

/// The bridge of `<network>`, which the file of an active network has inside `<networkstatus>`.
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
