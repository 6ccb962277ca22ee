//! One line an action in syslog (facility daemon, ident `tap32`, key=value); warnings and errors on stderr too. A host
//! may lack /dev/log. A syslog that hangs costs [`PATIENCE`], because QEMU and libvirt wait for their hooks without a
//! limit.

use std::io::{self, BufWriter, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use syslog::{Facility, Formatter3164, LogFormat as _, LoggerBackend, Severity};

use crate::addr::GuestMac;
use crate::guest::refusal::Refusal;
use crate::text::printable;

const SYSLOG: &str = "/dev/log";
const PATIENCE: Duration = Duration::from_millis(100);

/// Where tap32 speaks: stderr and syslog.
pub struct Log {
    verbose: bool,
    start: Instant,
}

/// One action, mostly on one guest. The line leaves out what is `None`.
#[derive(Debug, Default)]
pub(crate) struct Action {
    pub action: String,
    /// libvirt's name of the guest.
    pub domain: Option<String>,
    pub tap: Option<String>,
    pub guest: Option<GuestMac>,
    pub bridge: Option<String>,
    pub uplink: Option<String>,
}

impl Log {
    /// Starts the clock of the actions; `verbose` prints details too.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, start: Instant::now() }
    }

    /// One line on stderr. The caller may have closed it, where `eprintln` would panic.
    pub fn say(&self, text: &str) {
        // One write, so that no other process's line gets into the middle of this one.
        let line = format!("tap32: {}\n", printable(text));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    /// One line on stderr, with `-v` only.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose {
            self.say(text);
        }
    }

    /// One line in syslog.
    pub(crate) fn note(&self, line: &str) {
        self.syslog(Severity::LOG_INFO, line);
    }

    /// One line on stderr and in syslog.
    pub(crate) fn warn(&self, text: &str) {
        self.say(text);
        self.syslog(Severity::LOG_WARNING, &format!("warning={text:?}"));
    }

    /// Writes the line of an action that ended, and returns its result. `main` prints an error on stderr.
    pub(crate) fn finish(&self, action: &Action, result: Result<&'static str>) -> Result<()> {
        match &result {
            Ok(outcome) => self.ended(Severity::LOG_INFO, action, outcome, ""),
            Err(error) => self.failed(action, error),
        }
        result.map(|_| ())
    }

    /// Writes the line of an action that failed.
    pub(crate) fn failed(&self, action: &Action, error: &Error) {
        let outcome = if error.downcast_ref::<Refusal>().is_some() { "refused" } else { "failed" };
        self.ended(Severity::LOG_ERR, action, outcome, &format!(" error={:?}", format!("{error:#}")));
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
        // A log that cannot be written must not stop a guest.
        let _ = backend().map(|mut backend| formatter.format(&mut backend, severity, printable(line)));
    }
}

/// A socket of /dev/log on which no write waits longer than [`PATIENCE`].
fn backend() -> io::Result<LoggerBackend> {
    let datagrams = UnixDatagram::unbound()?;
    match datagrams.connect(SYSLOG) {
        Ok(()) => {
            datagrams.set_write_timeout(Some(PATIENCE))?;
            Ok(LoggerBackend::Unix(datagrams))
        }
        // syslog-ng can be configured to listen on a stream.
        Err(error) if error.raw_os_error() == Some(Errno::EPROTOTYPE as i32) => {
            let stream = stream()?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(LoggerBackend::UnixStream(BufWriter::new(stream)))
        }
        Err(error) => Err(error),
    }
}

/// With SOCK_NONBLOCK, because `connect` waits without a limit while the daemon's queue is full.
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
        let fields = [
            ("action", Some(self.action.clone())),
            // A domain's name can contain anything but a slash and a line break.
            ("domain", self.domain.as_ref().map(|domain| format!("{domain:?}"))),
            ("tap", self.tap.clone()),
            ("guest_mac", self.guest.map(|guest| guest.to_string())),
            ("address", self.guest.map(|guest| guest.address().to_string())),
            ("bridge", self.bridge.clone()),
            ("uplink", self.uplink.clone()),
        ];
        fields.into_iter().filter_map(|(key, value)| Some(format!("{key}={} ", value?))).collect()
    }
}
