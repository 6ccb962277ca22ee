//! What a verb leaves for `main`: text for stdout, and perhaps an error all the same.

pub mod arrival;
pub mod doctor;
pub mod doctor_facts;
pub mod explain;
pub mod libvirt;
pub mod metrics;
pub mod reconcile;
pub mod setup;
pub mod status;
pub mod up_down;
pub mod uplink;
pub mod watch;

use anyhow::{Error, Result};

/// `status --check` prints its table also when something is wrong, `reconcile` what it did also when a step failed.
#[derive(Debug, Default)]
pub struct Report {
    pub text: String,
    pub failure: Option<Error>,
}

impl Report {
    pub fn new(text: String, result: Result<()>) -> Self {
        Self { text, failure: result.err() }
    }
}

impl From<String> for Report {
    fn from(text: String) -> Self {
        Self { text, failure: None }
    }
}
