//! `/etc/sysctl.d/60-tap32.conf`: what `setup` sets, for hosts whose interfaces come from somewhere else. udev
//! applies the lines of an interface when it appears (99-systemd.rules).

use anyhow::{Result, ensure};

use crate::config::{Config, NOTHING_DESCRIBED};
use crate::host::sysctl;

/// # Errors
/// The configuration describes nothing.
pub fn render(config: &Config) -> Result<String> {
    ensure!(config.describes_host(), NOTHING_DESCRIBED);
    let mut text = String::from("# /etc/sysctl.d/60-tap32.conf, by `tap32 render sysctl`\n");
    for wanted in sysctl::wanted(config) {
        text.push_str(&format!("# {}\n{} = {}\n", wanted.why, wanted.name(), wanted.value));
    }
    Ok(text)
}
