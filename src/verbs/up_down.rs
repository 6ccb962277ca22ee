//! `up` and `down`: look, plan, apply, log. libvirt's hook uses the same parts.

use anyhow::{Context, Error, Result, anyhow};
use macaddr::MacAddr6;

use super::{Common, Report, arrival};
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, CLAIM_METRIC, Config};
use crate::guest::link::Link;
use crate::guest::plan::{Step, Wanted, plan};
use crate::guest::policy;
use crate::guest::refusal::{self, Refusal};
use crate::guest::snapshot::{Arrival, Snapshot};
use crate::kernel::{Applied, Kernel, OnFailure, Scope, mac_was_set};
use crate::machine::claimers;
use crate::machine::log::{Action, Log};
use crate::machine::qemu::{self, Caller, Parent};
use crate::text::printable;

/// `down` has no bridge.
pub struct Request {
    pub tap: String,
    pub mac: Option<MacAddr6>,
    pub bridge: Option<String>,
}

/// A tap and its guest.
pub struct Target<'a> {
    pub tap: &'a str,
    pub guest: GuestMac,
    pub bridge: Option<&'a str>,
    /// The guest still runs on another host, whose route is not a duplicate.
    pub arriving: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Attach the tap and route its guest, or change nothing.
    Up,
    /// Detach the tap and delete its guest's routes. Something that is gone already is not an error, and after a step that
    /// fails the others are taken too.
    Down,
}

/// Runs `up` or `down`. With `--dry-run` the text is the steps, else empty.
pub fn run(direction: Direction, request: &Request, common: &Common) -> Result<Report> {
    let verb = if direction == Direction::Up { "up" } else { "down" };
    let mut action = Action { action: verb.to_owned(), tap: Some(request.tap.clone()), ..Action::default() };
    let mut out = String::new();
    let result = match direction {
        Direction::Up => up(request, common, &mut action, &mut out).map_err(|error| match action.guest {
            None => with_displaced_script(error),
            Some(_) => error,
        }),
        Direction::Down => down(request, common, &mut action, &mut out),
    };
    common.log.finish(&action, result).with_context(|| format!("{verb} {}", request.tap))?;
    Ok(out.into())
}

/// A QEMU that is not for tap32 called it because it stands in the place of the script that QEMU relied on.
fn with_displaced_script(error: Error) -> Error {
    let Some(script) = qemu::displaced_script() else { return error };
    let hint = format!("for a guest that is not tap32's, the script that QEMU called here before is script={script}");
    match error.downcast::<Refusal>() {
        Ok(refusal) => refusal.and(&hint).into(),
        Err(error) => anyhow!("{error:#}; {hint}"),
    }
}

fn up(request: &Request, common: &Common, action: &mut Action, out: &mut String) -> Result<&'static str> {
    let config = common.config()?;
    let log = &common.log;
    let kernel = Kernel::open()?;
    let caller = if request.mac.is_none() { Some(qemu::caller(&request.tap)) } else { None };
    let named = match &caller {
        Some(Ok(Caller::Says(Parent::Guest { mac, .. }))) => Some(*mac),
        _ => request.mac,
    };
    let guest = named.and_then(|mac| GuestMac::new(mac, config.mac_prefix));
    let mut snapshot = kernel.snapshot(&config, Scope::Up { tap: Some(&request.tap), guest })?;
    let (mac, arriving) = guest_of(&config, request, caller, &snapshot, log)?;
    let guest = policy::guest_mac(&config, mac)?;
    action.guest = Some(guest);
    let arriving = arriving && arrival::is_awaited(&config);
    if arriving && snapshot.arrivals.is_empty() {
        snapshot.arrivals.push(Arrival::of(guest.address(), None));
    }
    let target = Target { tap: &request.tap, guest, bridge: request.bridge.as_deref(), arriving };
    let mut steps = plan_up(&config, &snapshot, &target, log)?;
    action.bridge = bridge_of(&config, &snapshot, &target);
    if common.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    // Before there is a port: who sees that without a claimer gives it its route.
    if arriving && let Err(error) = arrival::spawn(&config, common, &[guest]) {
        log.warn(&format!("up {}: {error:#}; the guest gets its route before it is here", request.tap));
        snapshot.arrivals.clear();
        steps = plan_up(&config, &snapshot, &target, log)?;
    }
    let applied = ended(kernel.apply(&steps, OnFailure::Undo), log);
    if arriving
        && applied.is_err()
        && let Err(error) = claimers::dismiss(guest.address())
    {
        log.warn(&format!("up {}: {error:#}", request.tap));
    }
    applied
}

/// The steps that attach a tap and route its guest, from a snapshot of [`Scope::Up`]. Warns if another host announces
/// the guest.
///
/// # Errors
/// The policy refuses.
pub fn plan_up(config: &Config, snapshot: &Snapshot, target: &Target, log: &Log) -> Result<Vec<Step>> {
    let address = target.guest.address();
    let wanted = Wanted::Up { tap: target.tap, guest: target.guest, bridge: target.bridge };
    let steps = plan(config, &wanted, snapshot).map_err(|refusal| {
        let first = snapshot.carrier(target.guest, config.mac_prefix, Some(target.tap)).filter(|_| target.arriving);
        first.map_or(refusal, |first| refusal::second_qemu(target.guest, &first.name))
    })?;
    if let Some(elsewhere) = snapshot.elsewhere(address)
        && snapshot.arrivals.iter().all(|arrival| arrival.address != address)
    {
        log.warn(&format!(
            "duplicate: another host already announces {address} of {} (next hop {}): it has this guest, or a guest with \
             the same MAC, and its route wins: stop one of the two, or give it another MAC",
            target.tap,
            elsewhere.next_hop()
        ));
    }
    Ok(steps)
}

fn bridge_of(config: &Config, snapshot: &Snapshot, target: &Target) -> Option<String> {
    let link = snapshot.link(target.tap);
    let found = policy::bridge_for(config, snapshot, link, target.bridge, target.guest);
    found.ok().map(|(_, bridge)| bridge.name.clone())
}

fn down(request: &Request, common: &Common, action: &mut Action, out: &mut String) -> Result<&'static str> {
    let kernel = Kernel::open()?;
    let log = &common.log;
    let tap = Some(request.tap.as_str());
    let config = match common.config() {
        Ok(config) => config,
        // A guest must be able to go while somebody edits the file.
        Err(error) => {
            log.warn(&format!(
                "down {}: {error:#}; tap32 goes on with the defaults and what it can read of the file",
                request.tap
            ));
            config_for_broken_file(common, &kernel, &request.tap)?
        }
    };
    let named = request.mac.map(|mac| policy::guest_mac(&config, mac)).transpose()?;
    let mut snapshot = kernel.snapshot(&config, Scope::Down { tap, guest: named })?;
    let link = snapshot.link(&request.tap);
    action.bridge = link.and_then(|link| snapshot.bridge_at(link.master)).map(|bridge| bridge.name.clone());
    let mut guest = named.or_else(|| link?.guest(config.mac_prefix));
    // QEMU's command line only if the tap's MAC does not identify a guest.
    if guest.is_none()
        && let Ok(Parent::Guest { mac, .. }) = qemu::parent(&request.tap)
    {
        guest = GuestMac::new(mac, config.mac_prefix);
        snapshot = kernel.snapshot(&config, Scope::Down { tap, guest })?;
    }
    action.guest = guest;
    if guest.is_none() {
        log.detail(&format!("tap32 does not know which guest {} had: to delete its route, give --mac", request.tap));
    }
    let steps = plan(&config, &Wanted::Down { tap, guest }, &snapshot)?;
    if common.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    ended(take_down(&config, &kernel, &steps), log)
}

/// Takes all steps of a `down` that can be taken.
pub fn take_down<'a>(config: &Config, kernel: &Kernel, steps: &'a [Step]) -> Applied<'a> {
    let Applied { done, result } = kernel.apply(steps, OnFailure::GoOn);
    let given_back = restore_route_of_new_tap(config, kernel, &done);
    Applied { done, result: result.and(given_back) }
}

/// Another tap of the guest may have come between the look and the deletion. Its `up` saw the route and did not add it.
fn restore_route_of_new_tap(config: &Config, kernel: &Kernel, done: &[&Step]) -> Result<()> {
    for step in done {
        let Step::DelRoute(route) = step else { continue };
        let tap_mac = GuestMac::from_address(route.address, config.mac_prefix).tap_mac();
        if route.metric == CLAIM_METRIC {
            continue;
        }
        let Some(port) = kernel.port_with(route.bridge.index, tap_mac)? else { continue };
        let is_in_service = kernel.link_at(port)?.is_some_and(|tap| tap.is_in_service());
        if is_in_service && claimers::live(route.address)?.is_none() {
            kernel.apply(&[Step::AddRoute(route.clone())], OnFailure::GoOn).result?;
        }
    }
    Ok(())
}

/// The salvaged configuration, with the bridge of which the tap is a port as the managed one.
fn config_for_broken_file(common: &Common, kernel: &Kernel, tap: &str) -> Result<Config> {
    let mut config = common.salvaged_config();
    let snapshot = kernel.snapshot(&config, Scope::Down { tap: Some(tap), guest: None })?;
    if let Some(master) = snapshot.link(tap).and_then(|link| link.master) {
        config.bridges = vec![BridgeConfig::named(&snapshot.name_of(master))];
    }
    Ok(config)
}

/// The guest MAC, from the first source of tap32(8) that has one, and whether the guest is arriving.
fn guest_of(
    config: &Config,
    request: &Request,
    caller: Option<Result<Caller>>,
    snapshot: &Snapshot,
    log: &Log,
) -> Result<(MacAddr6, bool)> {
    let tap = &request.tap;
    let link = policy::tap(snapshot, tap)?;
    if let Some(mac) = request.mac {
        return Ok((mac, false));
    }
    let mut own = own_mac(config, link);
    let unknown = match caller.transpose()? {
        Some(Caller::Says(Parent::Guest { mac, incoming })) => {
            log.detail(&format!("the guest MAC of {tap} comes from the command line of the calling QEMU"));
            return Ok((mac, incoming));
        }
        Some(Caller::Says(Parent::Silent(reason))) => refusal::no_mac(tap, &reason, config.mac_prefix),
        Some(Caller::PluggedIn(macs)) => {
            // The MAC of a NIC that QEMU was started with may have been left on the tap by the netdev before this one.
            own = own.filter(|mac| !macs.contains(mac));
            refusal::plugged_in(tap, config.mac_prefix)
        }
        None => refusal::no_mac(tap, "", config.mac_prefix),
    };
    let mac = own.ok_or(unknown)?;
    log.detail(&format!("the guest MAC of {tap} comes from the tap's own MAC, which was set"));
    Ok((mac, false))
}

/// The guest of the tap's own MAC, unless the kernel chose that at random: it can begin with 02:42 or fe:42 too (measured).
fn own_mac(config: &Config, link: &Link) -> Option<MacAddr6> {
    let guest = link.named_guest(config.mac_prefix)?;
    (mac_was_set(link) == Some(true)).then(|| guest.mac())
}

/// The steps as the commands a person would type.
pub fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| printable(&step.to_string()) + "\n").collect()
}

/// Prints the steps taken, with `-v`, and returns the outcome for the log.
pub fn ended(applied: Applied, log: &Log) -> Result<&'static str> {
    for step in &applied.done {
        log.detail(&format!("done: {step:#}"));
    }
    applied.result.map(|()| outcome(&applied.done))
}

/// For the log: whether anything had to be done.
pub fn outcome<T>(done: &[T]) -> &'static str {
    if done.is_empty() { "unchanged" } else { "done" }
}
