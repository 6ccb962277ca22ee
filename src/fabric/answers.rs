//! What FRR is asked, and what it answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::config::{Config, FabricProtocol};

pub const VERSION: &str = "show version";
pub const DAEMONS: &str = "show daemons";
pub const RUNNING: &str = "show running-config";
pub const BFD: &str = "show bfd peers json";
pub const ROUTES: &str = "show ip route kernel json";
pub const OSPF: &str = "show ip ospf json";
pub const OSPF_NEIGHBOURS: &str = "show ip ospf neighbor json";
pub const OSPF_INTERFACES: &str = "show ip ospf interface json";
pub const OSPF_LSAS: &str = "show ip ospf database external self-originate json";
pub const BGP: &str = "show bgp ipv4 unicast summary json";

/// What is sent to a BGP neighbour.
pub fn advertised(peer: Ipv4Addr) -> String {
    format!("show bgp ipv4 unicast neighbors {peer} advertised-routes json")
}

/// All that is asked, the question first that any FRR answers.
pub fn questions(config: &Config) -> Vec<String> {
    let mut questions = vec![VERSION, DAEMONS, RUNNING, BFD, ROUTES];
    match config.fabric.protocol {
        FabricProtocol::Ospf => questions.extend([OSPF, OSPF_NEIGHBOURS, OSPF_INTERFACES, OSPF_LSAS]),
        FabricProtocol::Bgp => questions.push(BGP),
    }
    let mut questions: Vec<String> = questions.into_iter().map(str::to_owned).collect();
    if config.fabric.protocol == FabricProtocol::Bgp {
        questions.extend(config.uplinks.iter().map(|uplink| advertised(uplink.peer)));
    }
    questions
}

#[derive(Debug, Default)]
pub struct Answers(pub BTreeMap<String, Result<String, String>>);

impl Answers {
    /// What FRR printed.
    ///
    /// # Errors
    /// Why it printed nothing of use.
    pub fn text(&self, question: &str) -> Result<&str, String> {
        match self.0.get(question) {
            Some(Ok(text)) => Ok(text),
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!("`{question}` was not asked")),
        }
    }

    /// What FRR answered to a `show ... json`.
    pub fn json(&self, question: &str) -> Result<Value, String> {
        let text = self.text(question)?.trim();
        // A daemon that is not there says so in words, and so does one without a configuration.
        serde_json::from_str(text).map_err(|_| {
            let said = text.lines().next().unwrap_or("nothing");
            format!("`{question}` printed {said:?}")
        })
    }
}
