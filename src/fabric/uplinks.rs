//! How each uplink stands, judged from FRR's answers. Pure; `verbs/uplink.rs` drains and restores by it.

use anyhow::{Error, Result};
use serde::Serialize;

use crate::config::{Config, FabricProtocol, Uplink};
use crate::fabric::answers::{Answers, bfd, bgp, ospf};

/// How one uplink stands; the field names of `list --json` are a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    pub uplink: String,
    pub peer: String,
    /// FRR's word for the neighbour's state (Full, Established ...); `none` without a neighbour.
    pub neighbour: String,
    /// FRR's word for BFD's status (up, down ...); `none` without a session.
    pub bfd: String,
    pub drained: bool,
    /// The number of the kernel's routes over it, without its own subnet.
    pub routes: usize,
}

impl State {
    /// Whether the uplink could carry the fabric's packets.
    pub fn carries(&self) -> bool {
        self.is_in_service() && self.bfd == "up"
    }

    /// Whether it does: a new switch has its neighbour long before it has routes.
    pub fn is_routed_over(&self) -> bool {
        self.carries() && self.routes > 0
    }

    /// Nobody has drained it. Without a neighbour FRR may not tell.
    pub fn is_in_service(&self) -> bool {
        !self.drained && self.is_adjacent()
    }

    pub fn is_adjacent(&self) -> bool {
        matches!(self.neighbour.as_str(), "Full" | "Established")
    }

    pub fn describe(&self) -> String {
        let drained = if self.drained { "drained, " } else { "" };
        format!("{}: {drained}neighbour {}, BFD {}, {} routes", self.uplink, self.neighbour, self.bfd, self.routes)
    }
}

/// All uplinks as FRR has them; `routes` is still 0, which only the kernel knows.
///
/// # Errors
/// An answer is missing, or the configuration names no uplink.
pub fn states(config: &Config, answers: &Answers) -> Result<Vec<State>> {
    let uplinks = config.uplinks()?;
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
            uplinks
                .iter()
                .map(|uplink| state(uplink, neighbours.state(uplink), interfaces.is_drained(uplink)))
                .collect()
        }
        FabricProtocol::Bgp => {
            let neighbours = answers.get(&bgp::NEIGHBOURS).map_err(Error::msg)?;
            uplinks
                .iter()
                .map(|uplink| state(uplink, neighbours.state(uplink), neighbours.is_drained(uplink)))
                .collect()
        }
    })
}

/// Whether another uplink carries traffic.
pub fn carried_without(states: &[State], name: &str) -> bool {
    states.iter().any(|state| state.uplink != name && state.is_routed_over())
}

/// All other uplinks, for an error.
pub fn describe_others(states: &[State], name: &str) -> String {
    let others: Vec<String> = states.iter().filter(|state| state.uplink != name).map(State::describe).collect();
    if others.is_empty() { "there is none".to_owned() } else { others.join("; ") }
}
