//! The `tap32` binary: reads the arguments, runs one verb, prints an error, picks the exit code.

use std::io::Write;
use std::process::ExitCode;

use tap32::cli;
use tap32::machine::log::Log;
use tap32::verbs::Report;

/// What was asked for was refused or failed.
const FAILED: u8 = 1;
/// The arguments say nothing that can be done.
const USAGE: u8 = 2;

/// Rust's own start-up matters to a hook of root's: it opens /dev/null where descriptors 0 to 2 are closed, so that no
/// socket of ours becomes stderr, and it ignores SIGPIPE, so that a reader who goes away stops nothing half-way.
fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = match cli::parse(&arguments) {
        Ok(command) => command,
        Err(usage) => {
            Log::new(false).say(&usage.to_string());
            return USAGE.into();
        }
    };
    let log = &command.common.log;
    match command.verb.run(&command.common) {
        Ok(Report { text, failure: None }) => print(&text, log),
        Ok(Report { text, failure: Some(error) }) => {
            print(&text, log);
            log.say(&format!("{error:#}"));
            FAILED.into()
        }
        Err(error) => {
            log.say(&format!("{error:#}"));
            FAILED.into()
        }
    }
}

/// A reader that went away (`tap32 status | head -1`) is not a failure.
fn print(text: &str, log: &Log) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            log.say(&format!("what belongs on stdout cannot be written there: {error}"));
            FAILED.into()
        }
        _ => ExitCode::SUCCESS,
    }
}
