//! How one uplink leaves the fabric and comes back: vtysh commands as values, in each protocol's words.

pub mod bgp;
mod ospf;

use anyhow::Result;

use crate::config::{Config, FabricProtocol, Uplink};

/// The commands of one call of vtysh.
pub type Commands = Vec<String>;

/// One step of a drain.
pub struct Phase {
    pub commands: Commands,
    /// Whether it ends the session with the neighbour.
    pub ends_session: bool,
}

/// Takes an uplink out of the fabric, step by step.
///
/// # Errors
/// With BGP, `as` is missing in the configuration.
pub fn drain(config: &Config, uplink: &Uplink) -> Result<Vec<Phase>> {
    let last = |commands| Phase { commands, ends_session: true };
    Ok(match config.fabric.protocol {
        FabricProtocol::Ospf => vec![last(ospf::shut(uplink))],
        // Announced first: who hears of it moves away while the uplink still carries (RFC 8326).
        FabricProtocol::Bgp => vec![
            Phase { commands: bgp::announce(config, uplink)?, ends_session: false },
            last(bgp::shut(config, uplink)?),
        ],
    })
}

/// Brings it back, from wherever a drain ended.
///
/// # Errors
/// As [`drain`].
pub fn restore(config: &Config, uplink: &Uplink) -> Result<Vec<Commands>> {
    Ok(match config.fabric.protocol {
        FabricProtocol::Ospf => vec![ospf::open(uplink)],
        // While the session is down the maps take effect at once; on one that stands they wait for a refresh, which the
        // switch does not always answer while it is sending its table (seen with FRR 8.4).
        FabricProtocol::Bgp => vec![bgp::take_back(config, uplink)?, bgp::open(config, uplink)?],
    })
}
