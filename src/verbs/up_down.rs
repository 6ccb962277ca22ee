//! `up` and `down`: look, plan, apply, log. Every face that attaches or detaches a tap comes through here.

use anyhow::{Context, Result};
use macaddr::MacAddr6;

use super::{Common, Report, arrival};
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, CLAIM_METRIC, Config};
use crate::guest::link::Link;
use crate::guest::plan::{Step, Wanted, plan};
use crate::guest::policy::{self, Refusal};
use crate::guest::snapshot::Snapshot;
use crate::kernel::{Applied, Kernel, OnFailure, mac_was_set};
use crate::machine::log::{Action, Log};
use crate::machine::qemu::{self, Parent};

/// What `up` and `down` are told; `down` has no bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub tap: String,
    pub mac: Option<MacAddr6>,
    pub bridge: Option<String>,
}

/// A tap and the guest it is for.
pub struct Target {
    pub tap: String,
    pub mac: MacAddr6,
    pub bridge: Option<String>,
    /// The guest still runs on another host: that the fabric has its address is as it should be.
    pub arriving: bool,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Attach the tap, route its guest. Refused by the policy, or all or nothing.
    Up,
    /// Detach the tap, take its guest's routes away. What is gone already is not an error, and a step that
    /// fails does not keep the others from being taken.
    Down,
}

/// Runs `up` or `down`. Returns the text for stdout: with `--dry-run` the steps, else nothing.
///
/// # Errors
/// Refused, or steps failed; as [`Direction`] says.
pub async fn run(direction: Direction, request: &Request, common: &Common) -> Result<Report> {
    let verb = if direction == Direction::Up { "up" } else { "down" };
    let mut action = Action { action: verb.to_owned(), tap: Some(request.tap.clone()), ..Action::default() };
    let mut out = String::new();
    let result = match direction {
        Direction::Up => up(request, common, &mut action, &mut out).await,
        Direction::Down => down(request, common, &mut action, &mut out).await,
    };
    common.log.finish(&action, result).with_context(|| format!("{verb} {}", request.tap))?;
    Ok(out.into())
}

async fn up(request: &Request, common: &Common, action: &mut Action, out: &mut String) -> Result<&'static str> {
    let config = common.config()?;
    let log = &common.log;
    let kernel = Kernel::open()?;
    let snapshot = kernel.look(&config, Some(&request.tap)).await?;
    let (mac, arriving) = find_mac(&config, request, &snapshot, log)?;
    let target = Target { tap: request.tap.clone(), mac, bridge: request.bridge.clone(), arriving };
    let steps = plan_from(&config, &kernel, snapshot, &target, action, log).await?;
    if common.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    let Applied { done, result } = kernel.apply(&steps, OnFailure::Undo).await;
    report(&done, log);
    result?;
    if arriving && let Some(guest) = action.guest {
        // Without a claimer the guest is reached here too, only later: no reason to stop it.
        if let Err(error) = arrival::spawn(&config, common, &[guest]) {
            log.warn(&format!("up {}: {error:#}", request.tap));
        }
    }
    Ok(outcome(&done))
}

/// The steps that attach a tap and route its guest.
///
/// # Errors
/// Refused by the policy, or the kernel does not answer.
pub async fn plan_up(
    config: &Config,
    kernel: &Kernel,
    target: &Target,
    action: &mut Action,
    log: &Log,
) -> Result<Vec<Step>> {
    let snapshot = kernel.look(config, Some(&target.tap)).await?;
    plan_from(config, kernel, snapshot, target, action, log).await
}

async fn plan_from(
    config: &Config,
    kernel: &Kernel,
    mut snapshot: Snapshot,
    target: &Target,
    action: &mut Action,
    log: &Log,
) -> Result<Vec<Step>> {
    let guest = policy::guest_mac(config, target.mac)?;
    action.guest = Some(guest);
    kernel.look_at_subnets(&mut snapshot).await?;
    kernel.look_for(config, guest, &mut snapshot, false).await?;
    let wanted = Wanted::Up { tap: &target.tap, guest, bridge: target.bridge.as_deref() };
    let steps = plan(config, &wanted, &snapshot)?;
    let link = snapshot.link(&target.tap);
    if let Ok((_, bridge)) = policy::bridge_for(config, &snapshot, link, target.bridge.as_deref(), guest) {
        action.bridge = Some(bridge.name.clone());
    }
    if let Some(elsewhere) = snapshot.elsewhere(guest.address())
        && !target.arriving
        && arrival::live(guest.address()).is_none()
    {
        log.warn(&format!(
            "duplicate: the fabric already has {} of {} at {}: another host has this guest, or one with the same \
             MAC, and its route stays in force",
            guest.address(),
            target.tap,
            elsewhere.next_hop()
        ));
    }
    Ok(steps)
}

async fn down(request: &Request, common: &Common, action: &mut Action, out: &mut String) -> Result<&'static str> {
    let kernel = Kernel::open()?;
    let log = &common.log;
    let config = match common.config() {
        Ok(config) => config,
        // A guest must be able to go while somebody is editing the file.
        Err(error) => {
            log.warn(&format!("down {}: {error:#}; going on with the defaults", request.tap));
            config_for_broken_file(common, &kernel, &request.tap).await?
        }
    };
    let snapshot = kernel.look(&config, Some(&request.tap)).await?;
    let link = snapshot.link(&request.tap);
    action.bridge = link.and_then(|link| snapshot.bridge_at(link.master)).map(|bridge| bridge.name.clone());
    let own = link.and_then(|link| link.guest(config.mac_prefix));
    let named = request.mac.map(|mac| policy::guest_mac(&config, mac)).transpose()?;
    // The tap itself knows best whom it carries; only where it says nothing the calling QEMU is asked.
    let asked = || match qemu::parent(&request.tap) {
        Ok(Parent::Guest { mac, .. }) => GuestMac::new(mac, config.mac_prefix),
        _ => None,
    };
    let guest = named.or(own).or_else(asked);
    action.guest = guest;
    if guest.is_none() {
        log.detail(&format!("nothing says which guest {} had: a route left behind needs --mac", request.tap));
    }
    let steps = plan_down_from(&config, &kernel, snapshot, Some(&request.tap), guest).await?;
    if common.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    let Applied { done, result } = take_down(&config, &kernel, &steps).await;
    report(&done, log);
    result?;
    Ok(outcome(&done))
}

/// Takes the steps of a `down`, all that can be taken.
pub async fn take_down<'a>(config: &Config, kernel: &Kernel, steps: &'a [Step]) -> Applied<'a> {
    let Applied { done, result } = kernel.apply(steps, OnFailure::GoOn).await;
    let given_back = restore_route_of_new_tap(config, kernel, &done).await;
    Applied { done, result: result.and(given_back) }
}

/// Another tap of the guest may have come between the look and the deletion, and its `up` have seen the route there
/// still: it gets it back.
async fn restore_route_of_new_tap(config: &Config, kernel: &Kernel, done: &[&Step]) -> Result<()> {
    for step in done {
        let Step::DelRoute(route) = step else { continue };
        let tap_mac = GuestMac::from_address(route.address, config.mac_prefix).tap_mac();
        if route.metric != CLAIM_METRIC && kernel.port_of(route.bridge_index, tap_mac).await?.is_some() {
            kernel.apply(&[Step::AddRoute(route.clone())], OnFailure::GoOn).await.result?;
        }
    }
    Ok(())
}

/// The steps that take a guest's routes away when its tap is gone.
pub async fn plan_down(config: &Config, kernel: &Kernel, guest: GuestMac) -> Result<Vec<Step>> {
    let snapshot = kernel.look(config, None).await?;
    plan_down_from(config, kernel, snapshot, None, Some(guest)).await
}

async fn plan_down_from(
    config: &Config,
    kernel: &Kernel,
    mut snapshot: Snapshot,
    tap: Option<&str>,
    guest: Option<GuestMac>,
) -> Result<Vec<Step>> {
    let own = tap.and_then(|tap| snapshot.link(tap)).and_then(|link| link.guest(config.mac_prefix));
    for guest in guest.into_iter().chain(own.filter(|own| Some(*own) != guest)) {
        kernel.look_for(config, guest, &mut snapshot, true).await?;
        snapshot.arrivals.extend(arrival::live(guest.address()));
    }
    Ok(plan(config, &Wanted::Down { tap, guest }, &snapshot)?)
}

/// What is left of the file, and as the managed bridge the one that the tap is on.
async fn config_for_broken_file(common: &Common, kernel: &Kernel, tap: &str) -> Result<Config> {
    let mut config = common.salvaged_config();
    let snapshot = kernel.look(&config, Some(tap)).await?;
    if let Some(master) = snapshot.link(tap).and_then(|link| link.master) {
        config.bridges = vec![BridgeConfig::named(&snapshot.name_of(master))];
    }
    Ok(config)
}

/// The guest MAC, from the first of the contract's sources that has one, and whether the guest is arriving.
fn find_mac(config: &Config, request: &Request, snapshot: &Snapshot, log: &Log) -> Result<(MacAddr6, bool)> {
    let tap = &request.tap;
    let link = policy::tap(snapshot, tap)?;
    if let Some(mac) = request.mac {
        return Ok((mac, false));
    }
    let parent = match qemu::parent(tap)? {
        Parent::Guest { mac, incoming } => {
            log.detail(&format!("guest MAC of {tap} from the calling QEMU's command line"));
            return Ok((mac, incoming));
        }
        Parent::Silent(reason) => reason,
    };
    match own_mac(config, link) {
        Some(mac) => {
            log.detail(&format!("guest MAC of {tap} from the tap's own MAC, which somebody set"));
            Ok((mac, false))
        }
        None => Err(Refusal::NoMac { tap: tap.clone(), parent }.into()),
    }
}

/// The guest that the tap's own MAC names, in the tap's form or the guest's: never a MAC that the kernel drew
/// at random, even one that begins with fe (FACTS.md).
fn own_mac(config: &Config, link: &Link) -> Option<MacAddr6> {
    let guest = link.guest(config.mac_prefix).or_else(|| GuestMac::new(link.mac, config.mac_prefix))?;
    (mac_was_set(link) == Some(true)).then(|| guest.mac())
}

/// The steps as the commands a person would type.
pub fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

fn report(done: &[&Step], log: &Log) {
    for step in done {
        log.detail(&format!("done: {step}"));
    }
}

/// For the log: whether anything had to be done.
pub fn outcome<T>(done: &[T]) -> &'static str {
    if done.is_empty() { "unchanged" } else { "done" }
}
