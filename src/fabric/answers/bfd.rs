//! BFD's sessions.

use serde::Deserialize;

use super::Question;
use crate::config::Uplink;

pub const SESSIONS: Question<Sessions> = Question::json("show bfd peers json");

#[derive(Deserialize)]
pub struct Sessions(Vec<Session>);

impl Sessions {
    pub fn of(&self, uplink: &Uplink) -> Option<&Session> {
        let peer = uplink.peer.to_string();
        self.0.iter().find(|session| session.peer == peer)
    }

    /// FRR's word for the session's state: `up`, `down`, `init`, `shutdown`; `none` where there is no session.
    pub fn status(&self, uplink: &Uplink) -> &str {
        self.of(uplink).map_or("none", |session| session.status.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    peer: String,
    pub status: String,
    /// In milliseconds.
    pub receive_interval: u32,
    pub transmit_interval: u32,
    pub detect_multiplier: u8,
    /// What the other end says went wrong; `ok` if nothing did.
    pub remote_diagnostic: Option<String>,
}
