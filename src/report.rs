//! What a verb leaves for `main`: text for stdout, and perhaps an error all the same.

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
