//! The `<interface>` element to put under `<devices>` of a domain's XML.

use crate::addr::GuestMac;
use crate::config::Config;

pub fn render(config: &Config, guest: GuestMac) -> String {
    let bridge = config.bridges.first().map_or("br-l2", |bridge| bridge.name.as_str());
    format!(
        "<interface type='bridge'>\n  <mac address='{guest}'/>\n  <source bridge='{bridge}'/>\n  <model type='virtio'/>\n</interface>\n"
    )
}
