//! The `<interface>` element to put under `<devices>` of a domain's XML.

use anyhow::Result;

use super::configured;
use crate::addr::GuestMac;
use crate::config::Config;

/// # Errors
/// No bridge of the configuration has the address to give.
pub fn render(config: &Config, guest: GuestMac) -> Result<String> {
    let bridge = &configured::bridge_of(config, guest.address())?.name;
    Ok(format!(
        "<interface type='bridge'>\n  \
         <mac address='{guest}'/>\n  <source bridge='{bridge}'/>\n  \
         <model type='virtio'/>\n</interface>\n"
    ))
}
