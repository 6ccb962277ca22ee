//! The `tap32` binary: reads the arguments, runs one verb, prints an error, picks the exit code.
//!
//! Without Rust's own start-up, which reads and parses /proc/self/maps for a message on stack overflow: that
//! costs a hook 55 of its 840 us (tests/bench). What else it does and matters here is done below.

#![no_main]

use std::ffi::{c_char, c_int};
use std::io::Write;

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};
use tap32::cli;
use tap32::machine::log::Log;
use tap32::verbs::Report;

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
    let log = &command.common.log;
    match block_on(command.verb.run(&command.common)) {
        Ok(Report { text, failure: None }) => print(&text, log),
        Ok(Report { text, failure: Some(error) }) => {
            print(&text, log);
            log.say(&format!("{error:#}"));
            FAILED
        }
        Err(error) => {
            log.say(&format!("{error:#}"));
            FAILED
        }
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
