//! `tap32 watch`: reconciles at start, on netlink events, and every `resync`. It ends without a trace: the routes
//! stay, for the guests run on.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Common, Report};
use crate::config::{CLAIM_METRIC, Config};
use crate::guest::policy;
use crate::guest::snapshot::Snapshot;
use crate::guest::state::{Status, TapRow, absent_bridges};
use crate::kernel::{Detail, Event, Events, Kernel};
use crate::machine::heap;
use crate::machine::lock::{self, Lock};
use crate::machine::log::{Action, Log};
use crate::verbs::memory::Memory;
use crate::verbs::metrics::{self, Metrics};
use crate::verbs::reconcile::{self, Pass};

/// Held while it runs.
pub const LOCK: &str = "tap32/watch";

/// A tap that comes up makes some ten events within a millisecond: one pass after the last of them.
const QUIET: Duration = Duration::from_millis(5);

/// But in a storm without a pause the first guest does not wait for the last.
const GATHER: Duration = Duration::from_millis(50);

/// How long to stop after a step that failed.
const HESITATION: Duration = Duration::from_millis(100);

/// When to look again after the kernel did not answer, and while there are claimers at work: one that is killed leaves its
/// claim behind, or its guest without a route, and there is no event.
const SOON: Duration = Duration::from_secs(1);

/// If a pass took more steps than this, or found more wrong, the log has only their number.
const LOGGED: usize = 20;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Another `watch` runs in this network namespace, the configuration is broken at the start, or the kernel cannot
/// be asked at all.
pub async fn run(common: &Common) -> Result<Report> {
    let action = Action { action: "watch".to_owned(), ..Action::default() };
    let result = watch(common).await.map(|()| "stopped");
    common.log.finish(&action, result).context("watch")?;
    Ok(Report::default())
}

async fn watch(common: &Common) -> Result<()> {
    let Some(_lock) = Lock::take(LOCK, 0)? else {
        let kill = match lock::holder(LOCK)?.and_then(|holder| holder.pid) {
            Some(pid) => format!("`kill {pid}`"),
            None => "a kill in its own pid namespace".to_owned(),
        };
        bail!(
            "another one runs in this network namespace: `systemctl stop tap32-watch` ends it, or {kill} where \
             systemd did not start it"
        )
    };
    let mut watcher = Watcher {
        config: common.config()?,
        kernel: Kernel::open()?,
        log: &common.log,
        metrics: Metrics::default(),
        memory: Memory::of_watch(),
        doubtful: BTreeSet::new(),
        resync: Instant::now(),
        shadowed: Vec::new(),
        reported: BTreeSet::new(),
    };
    // Events first, questions after: nothing can happen in between.
    let mut events = Events::of_host(watcher.kernel.port())?;
    let [mut terminated, mut interrupted, mut hangup] = signals()?;
    let mut next = watcher.pass(Trigger::All).context("the first look at the host")?;
    tell(&[NotifyState::Ready]);
    let heartbeat = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let mut beat = heartbeat.map(|period| Instant::now() + period);
    loop {
        let trigger = tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = hangup.recv() => { watcher.reload(common); Trigger::All }
            () = sleep_until(next) => watcher.due(),
            event = events.next() => watcher.gather(event, &mut events).await,
            () = sleep_until(beat.unwrap_or(next)), if beat.is_some() => {
                tell(&[NotifyState::Watchdog]);
                beat = heartbeat.map(|period| Instant::now() + period);
                Trigger::Nothing
            }
        };
        if trigger == Trigger::Nothing {
            continue;
        }
        next = watcher.pass(trigger).unwrap_or_else(|error| {
            watcher.complain([format!("{error:#}; trying again in {} s", SOON.as_secs())]);
            // What that pass was to look at is not known any more.
            watcher.resync = Instant::now() + SOON;
            watcher.resync
        });
    }
    tell(&[NotifyState::Stopping]);
    Ok(())
}

fn signals() -> Result<[Signal; 3]> {
    let listen = |kind| signal(kind).context("cannot listen to signals");
    Ok([listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?])
}

/// Tells systemd, where there is one.
fn tell(state: &[NotifyState]) {
    // Who does not listen need not know.
    let _ = sd_notify::notify(state);
}

/// Why to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trigger {
    /// Nothing that concerns us.
    Nothing,
    /// Something of ours may have changed.
    Change,
    /// Everything may have, routes of others included.
    All,
}

struct Watcher<'a> {
    config: Config,
    kernel: Kernel,
    log: &'a Log,
    metrics: Metrics,
    memory: Memory,
    /// Interfaces of which the next pass looks at the guard: those that something happened to, and those that had none.
    doubtful: BTreeSet<u32>,
    /// When to look at everything, whatever happens until then.
    resync: Instant,
    /// Whose routes win over ours: only a pass over everything looks, and what it saw holds until the next.
    shadowed: Vec<String>,
    /// What is wrong and watch cannot fix, as it was reported last: reported again only after it was right.
    reported: BTreeSet<String>,
}

impl Watcher<'_> {
    /// Takes the events that come right behind the first one along.
    async fn gather(&mut self, first: Event, events: &mut Events) -> Trigger {
        let mut trigger = self.trigger(first);
        let end = Instant::now() + GATHER;
        while let Ok(event) = timeout_at(end.min(Instant::now() + QUIET), events.next()).await {
            trigger = trigger.max(self.trigger(event));
        }
        trigger
    }

    fn trigger(&mut self, event: Event) -> Trigger {
        match event {
            Event::Link(index) => {
                self.doubtful.insert(index);
                self.memory.comes(index);
                Trigger::Change
            }
            Event::NoPort { mac } => {
                // A tap's own MAC ends in its guest's address.
                let [_, _, address @ ..] = mac.into_array();
                self.doubtful.extend(self.memory.tap_of(address.into()));
                Trigger::Change
            }
            Event::Address => Trigger::Change,
            Event::NoNeighbour(address) => match self.memory.tap_of(address) {
                Some(tap) => {
                    self.doubtful.insert(tap);
                    Trigger::Change
                }
                None => Trigger::Nothing,
            },
            Event::Ingress(tap) => {
                self.doubtful.insert(tap);
                self.memory.leave_to_hook(tap);
                Trigger::Change
            }
            Event::Filter { tap, guard: true } if !self.memory.has_tap(tap) => {
                self.memory.guarded_by_hook(tap);
                Trigger::Nothing
            }
            Event::Filter { tap, .. } if self.memory.has_tap(tap) => {
                self.doubtful.insert(tap);
                Trigger::Change
            }
            Event::Route { protocol, .. } if protocol == self.config.protocol => Trigger::Change,
            Event::Route { address, .. } if self.memory.tap_of(address).is_some() => Trigger::All,
            Event::Route { .. } | Event::Port { .. } | Event::Filter { .. } | Event::Dismissed => Trigger::Nothing,
            Event::Lost => {
                self.metrics.lost();
                Trigger::All
            }
        }
    }

    /// What to look at when nothing has happened: for claimers alone not at each tap, since a guest may arrive for hours.
    fn due(&self) -> Trigger {
        let due = self.memory.next().into_iter().fold(self.resync, Instant::min);
        if Instant::now() >= due { Trigger::All } else { Trigger::Change }
    }

    /// One pass, and when to make the next if nothing happens.
    fn pass(&mut self, trigger: Trigger) -> Result<Instant> {
        let doubtful = std::mem::take(&mut self.doubtful);
        let detail = if trigger == Trigger::All { Detail::All } else { Detail::Of(&doubtful) };
        let passed = reconcile::pass(&self.config, &self.kernel, detail, &mut self.memory);
        let Pass { snapshot, done, result, took } = passed.inspect_err(|_| self.metrics.failed())?;
        self.metrics.passed(&done, took, SystemTime::now());
        for step in done.iter().take(LOGGED) {
            self.log.note(&format!("action=watch result=fixed step={:?}", format!("{step:#}")));
        }
        if done.len() > LOGGED {
            self.log.note(&format!("action=watch result=fixed steps={} shown={LOGGED}", done.len()));
        }
        let has_claims = snapshot.owned_routes(self.config.protocol).any(|route| route.metric == CLAIM_METRIC);
        let is_awaited = snapshot.arrivals.iter().any(|arrival| self.memory.tap_of(arrival.address).is_some());
        let mut wrong = Vec::new();
        if let Err(error) = result {
            self.metrics.failed();
            wrong.push(format!("{error:#}"));
            // A step that fails may make an event all the same, and the next pass would follow at once, without end.
            std::thread::sleep(HESITATION);
        }
        // The steps changed the host, and what is published must be true.
        let snapshot = if done.is_empty() {
            snapshot
        } else {
            reconcile::look(&self.config, &self.kernel, detail, &mut self.memory)?
        };
        wrong.extend(self.publish(snapshot, trigger, &doubtful)?);
        wrong.extend(self.shadowed.iter().cloned());
        wrong.extend(self.memory.strife());
        self.complain(wrong);
        let now = Instant::now();
        if trigger == Trigger::All {
            self.resync = now + self.config.watch.resync;
        }
        let soon = (has_claims || is_awaited).then(|| now + SOON);
        Ok(soon.into_iter().chain(self.memory.next()).fold(self.resync, Instant::min))
    }

    /// Tells systemd and Prometheus how the host stands; returns what is wrong and watch cannot fix.
    /// Of the taps that the pass looked at, those that it could not judge stay doubtful: their bridge may have been down.
    fn publish(&mut self, mut snapshot: Snapshot, trigger: Trigger, looked_at: &BTreeSet<u32>) -> Result<Vec<String>> {
        let file = self.config.watch.metrics.as_deref();
        if trigger == Trigger::All || file.is_some() {
            self.kernel.add_foreign_routes(&self.config, &mut snapshot)?;
        }
        let status = Status::of(&self.config, &snapshot);
        self.doubtful.extend(status.unguarded().map(|row| row.index));
        let was_asked = |row: &&TapRow| trigger == Trigger::All || looked_at.contains(&row.index);
        let unjudged = status.taps.iter().filter(|row| !row.is_admitted).filter(was_asked);
        self.doubtful.extend(unjudged.map(|row| row.index));
        if trigger == Trigger::All {
            self.shadowed = status.shadowed().collect();
            if file.is_some() {
                self.metrics.dropped(&status, self.kernel.all_dropped()?);
            }
        }
        let mut wrong: Vec<String> = absent_bridges(&self.config, &snapshot).chain(status.refused()).collect();
        wrong.extend(policy::other_ports(&self.config, &snapshot).map(|(_, sentence)| sentence));
        if let Some(file) = file {
            self.metrics.looked(&self.config, &snapshot, &status, Instant::now().into_std());
            if let Err(error) = metrics::write(file, &self.metrics.text(&status)) {
                wrong.push(format!("{error:#}"));
            }
        }
        tell(&[NotifyState::Status(&status.count())]);
        drop((snapshot, status));
        heap::give_back();
        Ok(wrong)
    }

    /// Reports what is wrong, each thing once while it lasts.
    fn complain(&mut self, wrong: impl IntoIterator<Item = String>) {
        let wrong: BTreeSet<String> = wrong.into_iter().collect();
        let new: Vec<&String> = wrong.difference(&self.reported).collect();
        for sentence in new.iter().take(LOGGED) {
            self.log.warn(&format!("watch: {sentence}"));
        }
        // A bridge that goes down makes a sentence for each of its taps.
        if new.len() > LOGGED {
            self.log.warn(&format!("watch: and {} more: see `tap32 status`", new.len() - LOGGED));
        }
        self.reported = wrong;
    }

    /// A broken file is reported, and what was in force stays.
    fn reload(&mut self, common: &Common) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
        match common.config() {
            Ok(config) => {
                self.config = config;
                self.log.note("action=watch result=reloaded");
            }
            Err(error) => self.log.warn(&format!("watch: {error:#}; the old configuration stays in force")),
        }
        tell(&[NotifyState::Ready]);
    }
}
