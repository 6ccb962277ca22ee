//! What can be asked of tap32, one file a verb: each owns its `Request` and a `run`, which returns a [`Report`].

pub(crate) mod arrival;
pub(crate) mod doctor;
pub(crate) mod doctor_facts;
pub(crate) mod explain;
pub(crate) mod libvirt;
pub(crate) mod mac;
pub mod metrics;
pub(crate) mod reconcile;
pub mod render;
pub(crate) mod setup;
pub mod status;
pub(crate) mod up_down;
pub mod uplink;
pub(crate) mod watch;

use std::path::PathBuf;

use anyhow::{Error, Result};

use crate::config::Config;
use crate::machine::log::Log;

/// Every verb with its request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    Up(up_down::Request),
    Down(up_down::Request),
    Reconcile,
    Watch,
    Status(status::Request),
    Uplink(uplink::Request),
    Libvirt(libvirt::Request),
    SetUp,
    Doctor(doctor::Request),
    Render(render::Request),
    Arrival(arrival::Request),
    Decode(mac::Decode),
    Encode(mac::Encode),
    /// Help, or the version.
    Print(String),
}

impl Verb {
    /// # Errors
    /// What failed, on what, why, and what fixes it, in one line.
    pub async fn run(&self, common: &Common) -> Result<Report> {
        match self {
            Self::Up(request) => up_down::run(up_down::Direction::Up, request, common).await,
            Self::Down(request) => up_down::run(up_down::Direction::Down, request, common).await,
            Self::Reconcile => reconcile::run(common).await,
            Self::Watch => watch::run(common).await,
            Self::Status(request) => status::run(request, common).await,
            Self::Uplink(request) => uplink::run(request, common).await,
            Self::Libvirt(request) => libvirt::run(request, common).await,
            Self::SetUp => setup::run(common).await,
            Self::Doctor(request) => doctor::run(request, common).await,
            Self::Render(request) => render::run(request, common),
            Self::Arrival(request) => arrival::run(request, common).await,
            Self::Decode(request) => mac::decode(request, common),
            Self::Encode(request) => mac::encode(request, common),
            Self::Print(text) => Ok(text.clone().into()),
        }
    }
}

/// What every verb is given besides its own request.
pub struct Common {
    /// The file that `--config` names.
    file: Option<PathBuf>,
    pub dry_run: bool,
    pub log: Log,
}

impl Common {
    pub fn new(file: Option<PathBuf>, dry_run: bool, verbose: bool) -> Self {
        Self { file, dry_run, log: Log::new(verbose) }
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self) -> Result<Config> {
        Config::load(self.file.as_deref())
    }

    /// What of a broken configuration can be read, as [`Config::salvaged`].
    pub fn salvaged_config(&self) -> Config {
        Config::salvaged(self.file.as_deref())
    }

    /// The configuration file that somebody asked for, by option or by environment.
    pub fn named_file(&self) -> Option<PathBuf> {
        Config::named(self.file.as_deref())
    }
}

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
