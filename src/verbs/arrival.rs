//! An arriving guest: one small detached process (the claimer) waits until the bridge learns the guest's MAC on its tap's
//! port, adds the claim and the settled route at that moment, waits `settle`, takes the claim back, and goes. It goes
//! too when the tap does, when QEMU has closed the tap, or when no QEMU has opened one for `timeout`. While QEMU has the
//! tap open it waits without a limit: some guests have terabytes to copy first.
//!
//! A live claimer holds a lock named after the address, which dies with the process, however that dies.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use macaddr::MacAddr6;
use nix::libc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout_at};

use super::arriving_guest::{Guest, action, demote, gave_up, look};
use super::{Common, Report};
use crate::addr::GuestMac;
use crate::config::Config;
use crate::guest::policy;
use crate::kernel::{Event, Events, Kernel};
use crate::machine::claimers::{dismiss, lock_name};
use crate::machine::lock::Lock;
use crate::machine::log::Log;

/// How long one that waits for a guest without a tap may take to give way to the next.
const GIVING_WAY: Duration = Duration::from_millis(500);

/// What a claimer says on stdout when it holds its locks. With the newline std writes it at once.
const READY: &[u8] = b"\n";

/// When to look again after the kernel did not answer.
const SOON: Duration = Duration::from_secs(1);

/// Whether a guest that arrives has no route before its first frame. With the metric of the seed (`distance = 0`) nothing
/// can be claimed, and it has its route from the start.
pub fn is_awaited(config: &Config) -> bool {
    config.distance != 0
}

/// Leaves a claimer behind for the guests of one domain, and returns once it holds its locks and none of our descriptors.
pub fn spawn(config: &Config, common: &Common, guests: &[GuestMac]) -> Result<()> {
    if guests.is_empty() || !is_awaited(config) {
        return Ok(());
    }
    let mut claimer = Command::new("/proc/self/exe");
    claimer.arg0("tap32").arg("arrival").args(guests.iter().map(GuestMac::to_string));
    if let Some(file) = common.named_file() {
        claimer.arg("--config").arg(std::path::absolute(file).context("the configuration's path")?);
    }
    // Its own process group, so that no terminal's signals reach it; its stdout tells us that it is ready.
    claimer.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
    hand_down_no_descriptors();
    let mut child = claimer.spawn().context("cannot start the claimer")?;
    let mut said = Vec::new();
    let mut stdout = child.stdout.take().context("the claimer's stdout")?;
    std::io::Read::read_to_end(&mut stdout, &mut said).context("the claimer's stdout")?;
    ensure!(said == READY, "the claimer ended at once; syslog says why");
    Ok(())
}

/// QEMU's launch_script leaves the tap's own descriptor open in us (net/tap.c). A claimer that inherited it would keep
/// the tap alive after QEMU's end.
#[expect(unsafe_code, reason = "nix has no close_range, and fcntl only for descriptors that Rust owns")]
fn hand_down_no_descriptors() {
    // SAFETY: marks descriptors close-on-exec, and closes none.
    if unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) } == 0 {
        return;
    }
    // Before Linux 5.11, which brought the flag.
    let names = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().map(|entry| entry.file_name());
    for descriptor in names.filter_map(|name| name.to_str()?.parse().ok()).filter(|descriptor| *descriptor > 2) {
        // SAFETY: the same for one of them; one that is closed by now is refused.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The guests to wait for, by their MACs.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub macs: Vec<MacAddr6>,
}

/// The claimer itself. Who started it has closed its stderr, so that syslog has its errors.
pub async fn run(request: &Request, common: &Common) -> Result<Report> {
    let failed = |error: &anyhow::Error| common.log.failed(&action("arrival", None, None), error);
    wait(request, common).await.inspect_err(failed)
}

async fn wait(request: &Request, common: &Common) -> Result<Report> {
    let config = &common.config()?;
    let guests = request.macs.iter().map(|mac| policy::guest_mac(config, *mac)).collect::<Result<Vec<_>, _>>()?;
    let mut dismissed = signal(SignalKind::terminate()).context("cannot listen to signals")?;
    // Events first, questions after: nothing can happen in between.
    let mut events = Events::of_guests(&guests.iter().map(|guest| guest.address()).collect::<Vec<_>>())?;
    let mut waiting = Vec::new();
    let until = Instant::now() + config.migration.timeout;
    for guest in guests {
        // Another claimer that keeps the lock has the guest's tap in sight.
        if let Some(lock) = take_over(guest.address(), events.port)? {
            waiting.push(Guest::new(guest, lock, until));
        }
    }
    let mut claimer = Claimer { config, kernel: Kernel::open()?, log: &common.log, waiting, is_blind: false };
    // A tap that is here already is in sight before the hook that has attached it ends, and its `down` may follow.
    claimer.hear(Event::Lost);
    ready()?;
    while let Some(next) = claimer.next() {
        let event = tokio::select! {
            event = timeout_at(next, events.next()) => event.ok(),
            _ = dismissed.recv() => Some(Event::Dismissed),
        };
        claimer.hear(event.unwrap_or(Event::Lost));
    }
    Ok(Report::default())
}

/// Waits for the guests of one domain.
struct Claimer<'a> {
    config: &'a Config,
    kernel: Kernel,
    log: &'a Log,
    waiting: Vec<Guest>,
    /// The kernel did not answer the last time.
    is_blind: bool,
}

impl Claimer<'_> {
    /// When to look again though nothing is heard; `None` when there is nobody to wait for any more.
    fn next(&self) -> Option<Instant> {
        let next = self.waiting.iter().map(Guest::next).min()?;
        Some(if self.is_blind { next.min(Instant::now() + SOON) } else { next })
    }

    fn hear(&mut self, event: Event) {
        self.is_blind = false;
        for mut guest in std::mem::take(&mut self.waiting) {
            let (mac, tap_mac) = (guest.guest.mac(), guest.guest.tap_mac());
            // The event itself says where: a bridge that filters VLANs has the MAC under one, which we do not know.
            if let Event::Port { mac: learned, port } = event
                && learned == mac
                && guest.tap.is_none_or(|tap| tap == port)
            {
                guest.learned_on = Some(port);
            }
            // Its `down` may have followed already.
            let attached = match event {
                Event::Port { mac: own, port } if own == tap_mac => Some(port),
                _ => None,
            };
            let concerns = match event {
                Event::Port { mac: other, .. } => other == mac || other == tap_mac,
                Event::NoPort { mac: other } => other == tap_mac,
                Event::Lost | Event::Dismissed => true,
                _ => false,
            };
            let is_here = !concerns
                || guest.is_long_over()
                || look(self.config, &self.kernel, &mut guest, attached).unwrap_or_else(|error| {
                    self.is_blind = true;
                    self.log.warn(&format!("arrival of {}: {error:#}", guest.guest));
                    true
                });
            // Of several guests that one claimer waits for those with a tap go on.
            let is_dismissed = event == Event::Dismissed && guest.tap.is_none();
            match guest.claim {
                _ if is_dismissed || !is_here => demote(&self.kernel, &guest, "gone"),
                _ if !guest.is_over() => self.waiting.push(guest),
                Some(_) => demote(&self.kernel, &guest, "settled"),
                None => {
                    self.log.warn(&gave_up(&guest, self.config.migration.timeout));
                    demote(&self.kernel, &guest, "timeout");
                }
            }
        }
    }
}

/// The lock, also from a claimer of an earlier migration that failed before there was a tap.
fn take_over(address: Ipv4Addr, port: u32) -> Result<Option<Lock>> {
    let name = lock_name(address);
    if let Some(lock) = Lock::take(&name, port)? {
        return Ok(Some(lock));
    }
    dismiss(address)?;
    let end = Instant::now() + GIVING_WAY;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
        if let Some(lock) = Lock::take(&name, port)? {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

/// Tells `spawn` that the locks are held, and lets go of the pipe to it, for which it waits.
fn ready() -> Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null").context("/dev/null")?;
    // A hook that was killed meanwhile does not read it.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), READY);
    nix::unistd::dup2_stdout(&null).context("/dev/null as stdout")
}
