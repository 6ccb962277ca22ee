//! The `tap32` binary: reads the arguments, runs one verb, prints an error, picks the exit code.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use tap32::cli::{self, Command, Verb};
use tap32::config::Config;
use tap32::log::Log;
use tap32::{addr, policy, status, updown};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match cli::parse(&arguments) {
        Ok(command) => command,
        Err(usage) => {
            Log::new(false).say(&usage.to_string());
            return ExitCode::from(2);
        }
    };
    let log = Log::new(command.verbose);
    match run(&command, &log) {
        Ok(text) => print(&text),
        Err(error) => {
            log.say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one verb; what comes back is for stdout.
fn run(command: &Command, log: &Log) -> Result<String> {
    let config = || Config::load(command.config.as_deref());
    match &command.verb {
        Verb::Help(text) | Verb::Version(text) => Ok(text.clone()),
        Verb::Decode { mac } => {
            let guest = policy::guest_mac(&config()?, *mac).context("decode")?;
            Ok(format!("{}\n", guest.address()))
        }
        Verb::Encode { address } => Ok(format!("{}\n", addr::GuestMac::from_address(*address, config()?.mac_prefix))),
        Verb::Up(request) => block_on(updown::up(command, request, log)),
        Verb::Down(request) => block_on(updown::down(command, request, log)),
        Verb::Status { json } => block_on(status::run(&config()?, *json)),
    }
}

/// One thread is enough, and a hook that starts in a millisecond cannot afford a pool.
fn block_on(work: impl Future<Output = Result<String>>) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.context("cannot start the tokio runtime")?.block_on(work)
}

/// A reader that went away (`tap32 status | head -1`) is not a failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
