//! One guest that a claimer waits for (`arrival`): where it is, whether its wait is over, its claim and the end of that.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::addr::GuestMac;
use crate::config::{Config, file};
use crate::guest::plan::{self, Step};
use crate::guest::route::HostRoute;
use crate::guest::view::View;
use crate::kernel::{Kernel, OnFailure, Scope};
use crate::machine::claimers::come_lock_name;
use crate::machine::lock::Lock;
use crate::machine::log::{Action, Log};

/// How often to see whether a tap that is here is still open; nothing in a bridge's FDB tells.
const LOOK: Duration = Duration::from_secs(5);

/// How one guest's arrival stands.
pub struct Guest {
    pub guest: GuestMac,
    /// Its tap, once it is there.
    pub tap: Option<u32>,
    /// The port on which the bridge has learned its MAC, which the bridge may have forgotten since.
    pub learned_on: Option<u32>,
    /// Somebody has had its tap open.
    is_open: bool,
    pub claim: Option<HostRoute>,
    /// All its routes could be added.
    is_routed: bool,
    /// When the claim is to be taken back, or else the wait is over, unless the tap is open.
    until: Instant,
    /// That it waits, and from the first frame on that this has come.
    locks: Vec<Lock>,
}

impl Guest {
    /// With the lock that tells that it waits.
    pub fn new(guest: GuestMac, lock: Lock, until: Instant) -> Self {
        let locks = vec![lock];
        Self { guest, tap: None, learned_on: None, is_open: false, claim: None, is_routed: false, until, locks }
    }

    /// Whether there is no end to its wait.
    fn is_endless(&self) -> bool {
        self.is_open && self.claim.is_none()
    }

    pub fn is_over(&self) -> bool {
        !self.is_endless() && Instant::now() >= self.until
    }

    /// Somebody stopped this process (SIGSTOP, a frozen cgroup) past the end. What is here now may be a later start's.
    pub fn is_long_over(&self) -> bool {
        self.is_over() && self.until.elapsed() > LOOK
    }

    /// When to look at it though nothing is heard.
    pub fn next(&self) -> Instant {
        let soon = Instant::now() + LOOK;
        match (&self.claim, self.tap) {
            (None, Some(_)) if self.is_open => soon,
            (None, Some(_)) => self.until.min(soon),
            _ => self.until,
        }
    }
}

/// Looks where the guest is, and claims if its first frame has come, which an event may have told; `false` once its
/// tap has gone, or QEMU from its tap, which can outlive QEMU.
pub fn look(config: &Config, kernel: &Kernel, guest: &mut Guest, attached: Option<u32>) -> Result<bool> {
    let log = Log::new(false);
    let bridges = kernel.bridges(config)?;
    for bridge in &bridges {
        let Some(port) = kernel.port_with(bridge.index, guest.guest.tap_mac())? else { continue };
        if is_of_another_start(kernel, guest, attached, port)? {
            return Ok(false);
        }
        guest.tap = Some(port);
        let Some(link) = kernel.link_at(port)? else { return Ok(false) };
        // The carrier of one that is down does not show.
        if link.up {
            let was_open = std::mem::replace(&mut guest.is_open, link.carrier);
            if was_open && !link.carrier {
                return Ok(false);
            }
        }
        if !guest.is_routed
            && (guest.learned_on == Some(port) || kernel.port_of(bridge.index, guest.guest.mac())? == Some(port))
            && link.guest(config.mac_prefix) == Some(guest.guest)
        {
            // Since the hook allowed it, the host or the configuration may have changed.
            let scope = Scope::Up { tap: Some(&link.name), guest: Some(guest.guest) };
            let snapshot = kernel.snapshot(config, scope)?;
            let view = View::new(config, &snapshot);
            if let Err(refusal) = view.admit(&link, guest.guest, Some(&bridge.name)) {
                let _ = log.finish(&action("claim", Some(guest.guest), Some(&bridge.name)), Err(refusal.into()));
                return Ok(true);
            }
            let claim = HostRoute::claim(config, guest.guest.address(), bridge);
            let steps = plan::arrived(&view, guest.guest, bridge);
            let result = kernel.apply(&steps, OnFailure::GoOn).result.map(|()| "done");
            guest.is_routed = result.is_ok();
            let is_first = guest.claim.replace(claim).is_none();
            let logged = log.finish(&action("claim", Some(guest.guest), Some(&bridge.name)), result);
            if is_first {
                guest.until = Instant::now() + config.migration.settle;
                guest.locks.extend(Lock::take(&come_lock_name(guest.guest.address()), 0)?);
            }
            logged?;
        }
        return Ok(true);
    }
    let Some(tap) = guest.tap.or(attached) else { return Ok(true) };
    let tap = kernel.link_at(tap)?;
    let is_managed = |master: u32| bridges.iter().any(|bridge| bridge.index == master);
    let is_elsewhere = tap.as_ref().is_some_and(|tap| !tap.master.is_none_or(is_managed));
    if guest.tap.is_none() && is_elsewhere {
        return Ok(true);
    }
    // Another program may have changed the tap's MAC, or have taken it off its bridge: `watch` puts both right. One that
    // nobody has opened yet has no carrier.
    Ok(!is_elsewhere && tap.is_some_and(|tap| tap.up && (tap.carrier || !guest.is_open)))
}

/// Whether the guest's tap of now, `port`, is another than the one that its migration came to: while somebody had stopped
/// this process the migration ended, and the guest was started anew. `attached` is the tap that an event tells of.
fn is_of_another_start(kernel: &Kernel, guest: &Guest, attached: Option<u32>, port: u32) -> Result<bool> {
    let Some(before) = guest.tap.or(attached).filter(|before| *before != port) else { return Ok(false) };
    // An idle tap, which the guest's last QEMU left, gives way to that of the migration (`plan::corpses`).
    let was_used = guest.is_open || guest.learned_on == Some(before);
    Ok(was_used || kernel.link_at(before)?.is_none())
}

/// Takes the claim back, if there is one, and says why the wait is over.
pub fn demote(kernel: &Kernel, guest: &Guest, why: &'static str) {
    let log = Log::new(false);
    let bridge = guest.claim.as_ref().map(|claim| claim.bridge.name.clone());
    let steps: Vec<Step> = guest.claim.iter().map(|claim| Step::DelRoute(claim.clone())).collect();
    let result = kernel.apply(&steps, OnFailure::GoOn).result.map(|()| why);
    // Nobody reads a claimer's exit code; the log has it.
    let _ = log.finish(&action("demote", Some(guest.guest), bridge.as_deref()), result);
}

pub fn gave_up(guest: &Guest, timeout: Duration) -> String {
    let (what, route) = match guest.tap {
        Some(_) => ("no QEMU has opened its tap", ", and `tap32 reconcile` gives it its route"),
        None => ("its tap has not come", ""),
    };
    format!(
        "arrival of {}: {what} in {}, so tap32 waits for it no longer{route}: should it come after all, its packets reach \
         it only once its old host has taken its route away; a longer timeout = under [migration] in {} avoids that",
        guest.guest,
        humantime::format_duration(timeout),
        file()
    )
}

pub fn action(action: &str, guest: Option<GuestMac>, bridge: Option<&str>) -> Action {
    Action { action: action.to_owned(), guest, bridge: bridge.map(str::to_owned), ..Action::default() }
}
