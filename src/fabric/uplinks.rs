//! How each uplink stands, judged from FRR's answers. Pure; `verbs/uplink.rs` drains and restores by it.

use anyhow::{Error, Result};
use serde::Serialize;

use crate::config::{Config, FabricProtocol, Uplink};
use crate::fabric::answers::{Answers, bfd, bgp, ospf};
use crate::text::plural;

/// How one uplink stands; the field names of `list --json` are a contract.
#[derive(Clone, Serialize)]
pub struct State {
    /// The interface's name.
    pub uplink: String,
    /// The switch's address.
    pub peer: String,
    /// FRR's word for the neighbour's state (Full, Established ...); `none` without a neighbour.
    pub neighbour: String,
    /// FRR's word for BFD's status (up, down ...); `none` without a session.
    pub bfd: String,
    /// Whether FRR has the configuration of a drain. Without a neighbour FRR may not tell.
    pub drained: bool,
    /// The number of the kernel's routes over it, without its own subnet.
    pub routes: usize,
}

impl State {
    /// Whether the uplink could carry the fabric's packets.
    pub(crate) fn carries(&self) -> bool {
        self.is_in_service() && self.bfd == "up"
    }

    /// Whether it does: a new switch has its neighbour long before it has routes.
    pub(crate) fn is_routed_over(&self) -> bool {
        self.carries() && self.routes > 0
    }

    pub(crate) fn is_in_service(&self) -> bool {
        !self.drained && self.is_adjacent()
    }

    pub(crate) fn is_adjacent(&self) -> bool {
        matches!(self.neighbour.as_str(), "Full" | "Established")
    }

    pub(crate) fn describe(&self) -> String {
        let drained = if self.drained { "drained, " } else { "" };
        let routes = plural(self.routes, "route");
        format!("{}: {drained}neighbour {}, BFD {}, {routes}", self.uplink, self.neighbour, self.bfd)
    }
}

/// All uplinks as FRR has them; `routes` is still 0, which only the kernel knows.
///
/// # Errors
/// An answer is missing, or the configuration names no uplink.
pub fn states(config: &Config, answers: &Answers) -> Result<Vec<State>> {
    let uplinks = config.uplinks()?.iter();
    let bfd = answers.get(&bfd::SESSIONS).map_err(Error::msg)?;
    let state = |uplink: &Uplink, neighbour: &str, drained: bool| State {
        uplink: uplink.name.clone(),
        peer: uplink.peer.to_string(),
        neighbour: neighbour.to_owned(),
        bfd: bfd.status(uplink).to_owned(),
        drained,
        routes: 0,
    };
    Ok(match config.fabric.protocol {
        FabricProtocol::Ospf => {
            let neighbours = answers.get(&ospf::NEIGHBOURS).map_err(Error::msg)?;
            let interfaces = answers.get(&ospf::INTERFACES).map_err(Error::msg)?;
            uplinks.map(|uplink| state(uplink, neighbours.state(uplink), interfaces.is_drained(uplink))).collect()
        }
        FabricProtocol::Bgp => {
            let neighbours = answers.get(&bgp::NEIGHBOURS).map_err(Error::msg)?;
            uplinks.map(|uplink| state(uplink, neighbours.state(uplink), neighbours.is_drained(uplink))).collect()
        }
    })
}

/// Whether an uplink besides this one carries traffic. An error says how all others stand.
pub(crate) fn carried_without(states: &[State], name: &str) -> Result<(), String> {
    let others: Vec<_> = states.iter().filter(|state| state.uplink != name).collect();
    if others.iter().any(|state| state.is_routed_over()) {
        return Ok(());
    }
    let others: Vec<String> = others.into_iter().map(State::describe).collect();
    Err(if others.is_empty() { "there is none".to_owned() } else { others.join("; ") })
}
