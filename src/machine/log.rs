//! What tap32 says: one line an action in syslog (daemon, ident `tap32`, key=value), and warnings and
//! errors on stderr as well. A host without /dev/log is not an error, and one whose syslog hangs costs a
//! tenth of a second: QEMU and libvirt wait for their hooks without a limit.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use syslog::{Facility, Formatter3164, Logger, LoggerBackend};

use crate::addr::GuestMac;
use crate::guest::refusal::Refusal;
use crate::text::printable;

const SYSLOG: &str = "/dev/log";
const PATIENCE: Duration = Duration::from_millis(100);

pub struct Log {
    verbose: bool,
    start: Instant,
}

/// One action on one guest; what is not known (yet) is left out of the line.
#[derive(Debug, Default)]
pub struct Action {
    pub action: String,
    /// libvirt's name of the guest.
    pub domain: Option<String>,
    pub tap: Option<String>,
    pub guest: Option<GuestMac>,
    pub bridge: Option<String>,
    pub uplink: Option<String>,
}

#[derive(Clone, Copy)]
enum Severity {
    Info,
    Warning,
    Error,
}

impl Log {
    pub fn new(verbose: bool) -> Self {
        Self { verbose, start: Instant::now() }
    }

    /// One line on stderr; who started us may have closed it, which `eprintln` would take for a reason to die.
    pub fn say(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "tap32: {}", printable(text));
    }

    /// One line on stderr with `-v` only.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.say(text);
        }
    }

    /// One line in syslog only.
    pub fn note(&self, line: &str) {
        self.syslog(Severity::Info, line);
    }

    pub fn warn(&self, text: &str) {
        self.say(text);
        self.syslog(Severity::Warning, &format!("warning={text:?}"));
    }

    /// Writes the line of an action that ended, and hands its result on. `main` says an error on stderr.
    pub fn finish(&self, action: &Action, result: Result<&'static str>) -> Result<()> {
        match &result {
            Ok(outcome) => self.ended(Severity::Info, action, outcome, ""),
            Err(error) => self.failed(action, error),
        }
        result.map(|_| ())
    }

    /// Writes the line of an action that failed.
    pub fn failed(&self, action: &Action, error: &Error) {
        let outcome = if error.downcast_ref::<Refusal>().is_some() { "refused" } else { "failed" };
        self.ended(Severity::Error, action, outcome, &format!(" error={:?}", format!("{error:#}")));
    }

    fn ended(&self, severity: Severity, action: &Action, outcome: &str, error: &str) {
        let took = self.start.elapsed().as_micros();
        self.syslog(severity, &format!("{}result={outcome} took_us={took}{error}", action.fields()));
    }

    fn syslog(&self, severity: Severity, line: &str) {
        let formatter = Formatter3164 {
            facility: Facility::LOG_DAEMON,
            hostname: None,
            process: "tap32".into(),
            pid: std::process::id(),
        };
        let Ok(backend) = backend() else { return };
        let mut logger = Logger { formatter, backend };
        let line = printable(line);
        // A log that cannot be written must not stop a guest.
        let _ = match severity {
            Severity::Info => logger.info(line),
            Severity::Warning => logger.warning(line),
            Severity::Error => logger.err(line),
        };
    }
}

/// A socket of /dev/log that waits for nobody longer than PATIENCE.
fn backend() -> io::Result<LoggerBackend> {
    let datagrams = UnixDatagram::unbound()?;
    match datagrams.connect(SYSLOG) {
        Ok(()) => {
            datagrams.set_write_timeout(Some(PATIENCE))?;
            Ok(LoggerBackend::Unix(datagrams))
        }
        // syslog-ng may be told to listen to a stream.
        Err(error) if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
            let stream = stream()?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(LoggerBackend::UnixStream(BufWriter::new(stream)))
        }
        Err(error) => Err(error),
    }
}

/// Connecting would wait without a limit where the daemon's queue is full: with SOCK_NONBLOCK it is refused (EAGAIN).
fn stream() -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(stream.as_raw_fd(), &UnixAddr::new(SYSLOG)?)?;
    let stream = UnixStream::from(stream);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

impl Action {
    fn fields(&self) -> String {
        let mut line = format!("action={} ", self.action);
        let mut field = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(line, "{key}={value} ");
            }
        };
        // A domain's name may hold anything but a slash and a line break.
        field("domain", self.domain.as_ref().map(|domain| format!("{domain:?}")));
        field("tap", self.tap.clone());
        field("guest_mac", self.guest.map(|guest| guest.to_string()));
        field("address", self.guest.map(GuestMac::address).as_ref().map(Ipv4Addr::to_string));
        field("bridge", self.bridge.clone());
        field("uplink", self.uplink.clone());
        line
    }
}
