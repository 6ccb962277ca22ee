//! The `tap32` binary: reads the arguments, runs one verb, prints an error, picks the exit code.
//!
//! Without Rust's own start-up, which reads and parses /proc/self/maps for a message on stack overflow: that
//! costs a hook 55 of its 840 us (tests/bench). What else it does and matters here is done below.

#![no_main]

use std::ffi::{c_char, c_int};
use std::io::Write;

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};
use tap32::addr;
use tap32::cli::{self, Command, Verb};
use tap32::config::Config;
use tap32::fabric::render;
use tap32::guest::policy;
use tap32::machine::log::{Action, Log};
use tap32::verbs::Report;
use tap32::verbs::up_down::{self, Way};
use tap32::verbs::{arrival, doctor, libvirt, reconcile, setup, status, uplink, watch};

const DONE: c_int = 0;
const FAILED: c_int = 1;
const USAGE: c_int = 2;

/// Called by the C library; `std::env::args_os` has its own way to the arguments.
// SAFETY: there is no other symbol of this name, which the C library's start-up wants.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    // A reader of stderr that went away must not kill a hook half-way.
    // SAFETY: SIG_IGN runs no code of ours.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match cli::parse(&arguments) {
        Ok(command) => command,
        Err(usage) => {
            Log::new(false).say(&usage.to_string());
            return USAGE;
        }
    };
    let log = Log::new(command.verbose);
    match run(&command, &log) {
        Ok(Report { text, failure: None }) => print(&text, &log),
        Ok(Report { text, failure: Some(error) }) => {
            print(&text, &log);
            log.say(&format!("{error:#}"));
            FAILED
        }
        Err(error) => {
            log.say(&format!("{error:#}"));
            FAILED
        }
    }
}

/// Runs one verb; what comes back is for stdout.
fn run(command: &Command, log: &Log) -> Result<Report> {
    let config = || Config::load(command.config.as_deref());
    match &command.verb {
        Verb::Help(text) | Verb::Version(text) => Ok(text.clone().into()),
        Verb::Decode { mac } => {
            let guest = policy::guest_mac(&config()?, *mac).context("decode")?;
            Ok(format!("{}\n", guest.address()).into())
        }
        Verb::Encode { address } => {
            Ok(format!("{}\n", addr::GuestMac::from_address(*address, config()?.mac_prefix)).into())
        }
        Verb::Up(request) => block_on(up_down::run(Way::Up, command, request, log)),
        Verb::Down(request) => block_on(up_down::run(Way::Down, command, request, log)),
        Verb::Libvirt(hook) => block_on(libvirt::run(command, hook, log)),
        Verb::Arrival { macs } => {
            let run = || {
                let config = config()?;
                let guests = macs.iter().map(|mac| policy::guest_mac(&config, *mac)).collect::<Result<Vec<_>, _>>()?;
                block_on(arrival::run(&config, &guests, log))
            };
            // Who started it has closed its stderr.
            run().inspect_err(|error| log.failed(&Action { action: "arrival".into(), ..Action::default() }, error))
        }
        Verb::Render(what) => Ok(render::render(&config()?, what).context("render")?.into()),
        Verb::SetUp => block_on(setup::run(command, log)),
        Verb::Doctor(request) => block_on(doctor::run(command, request, log)),
        Verb::Reconcile => block_on(reconcile::run(command, log)),
        Verb::Status(request) => block_on(async { status::run(&config()?, request).await.context("status") }),
        Verb::Uplink(request) => block_on(uplink::run(command, request, log)),
        Verb::Watch => block_on(watch::run(command, log)),
    }
}

/// One thread is enough, and a hook that starts in a millisecond cannot afford a pool.
fn block_on(work: impl Future<Output = Result<Report>>) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.context("cannot start the tokio runtime")?.block_on(work)
}

/// A reader that went away (`tap32 status | head -1`) is not a failure.
fn print(text: &str, log: &Log) -> c_int {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            log.say(&format!("what belongs on stdout cannot be written there: {error}"));
            FAILED
        }
        _ => DONE,
    }
}
