//! One file a verb: its `Request`, and a `run` that returns a [`Report`].

pub(crate) mod arrival;
mod arriving_guest;
pub(crate) mod doctor;
mod doctor_dhcp;
pub(crate) mod doctor_facts;
mod doctor_firewall;
mod doctor_modules;
pub(crate) mod explain;
pub(crate) mod libvirt;
pub(crate) mod mac;
pub(crate) mod memory;
pub mod metrics;
pub(crate) mod reconcile;
pub mod render;
pub(crate) mod setup;
pub mod status;
pub mod status_table;
pub(crate) mod up_down;
pub mod uplink;
pub(crate) mod watch;

use std::path::PathBuf;

use anyhow::{Error, Result};

use crate::config::Config;
use crate::machine::log::Log;
use crate::machine::wait::wait;

/// Every verb with its request.
#[allow(missing_docs, reason = "the table of verbs describes each")]
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
    /// Does it.
    ///
    /// # Errors
    /// What failed, on what, why, and what fixes it, in one line.
    pub fn run(&self, common: &Common) -> Result<Report> {
        match self {
            Self::Up(request) => up_down::run(up_down::Direction::Up, request, common),
            Self::Down(request) => up_down::run(up_down::Direction::Down, request, common),
            Self::Reconcile => reconcile::run(common),
            Self::Watch => wait(watch::run(common))?,
            Self::Status(request) => status::run(request, common),
            Self::Uplink(request) => uplink::run(request, common),
            Self::Libvirt(request) => libvirt::run(request, common),
            Self::SetUp => setup::run(common),
            Self::Doctor(request) => doctor::run(request, common),
            Self::Render(request) => render::run(request, common),
            Self::Arrival(request) => wait(arrival::run(request, common))?,
            Self::Decode(request) => mac::decode(request, common),
            Self::Encode(request) => mac::encode(request, common),
            Self::Print(text) => Ok(text.clone().into()),
        }
    }
}

/// The options of every verb, and the log.
pub struct Common {
    /// The file that `--config` names.
    file: Option<PathBuf>,
    pub(crate) dry_run: bool,
    /// Where the verb speaks.
    pub log: Log,
}

impl Common {
    pub(crate) fn new(file: Option<PathBuf>, dry_run: bool, verbose: bool) -> Self {
        Self { file, dry_run, log: Log::new(verbose) }
    }

    /// As [`Config::load`].
    pub(crate) fn config(&self) -> Result<Config> {
        Config::load(self.file.as_deref())
    }

    /// As [`Config::salvaged`].
    pub(crate) fn salvaged_config(&self) -> Config {
        Config::salvaged(self.file.as_deref())
    }

    /// As [`Config::named`].
    pub(crate) fn named_file(&self) -> Option<PathBuf> {
        Config::named(self.file.as_deref())
    }
}

/// What a verb comes to: a text for stdout, and perhaps a failure, as of `status --check`.
#[derive(Default)]
pub struct Report {
    /// The text for stdout, in lines.
    pub text: String,
    /// Why the exit code is 1.
    pub failure: Option<Error>,
}

impl Report {
    pub(crate) fn new(text: String, result: Result<()>) -> Self {
        Self { text, failure: result.err() }
    }
}

impl From<String> for Report {
    fn from(text: String) -> Self {
        Self { text, failure: None }
    }
}
