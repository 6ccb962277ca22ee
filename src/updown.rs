//! `up` and `down`: look, plan, apply, log. Every face that attaches or detaches a tap comes through here.

use anyhow::{Context, Result};
use macaddr::MacAddr6;

use crate::addr::GuestMac;
use crate::cli::{Command, Request};
use crate::config::{BridgeConfig, Config};
use crate::kernel::{Kernel, OnFailure, mac_was_set};
use crate::log::{Action, Log};
use crate::plan::{Step, Wanted, plan};
use crate::policy::{self, Refusal};
use crate::qemu::{self, Parent};
use crate::snapshot::{Link, Snapshot};

/// Attaches a tap and routes its guest. Returns the text for stdout: with `--dry-run` the steps, else nothing.
///
/// # Errors
/// Refused by the policy, or a step failed and the earlier ones were taken back.
pub async fn up(command: &Command, request: &Request, log: &Log) -> Result<String> {
    let mut action = Action { action: "up", tap: Some(request.tap.clone()), ..Action::default() };
    let mut out = String::new();
    let result = try_up(command, request, log, &mut action, &mut out).await;
    log.finish(&action, result).with_context(|| format!("up {}", request.tap))?;
    Ok(out)
}

async fn try_up(
    command: &Command,
    request: &Request,
    log: &Log,
    action: &mut Action,
    out: &mut String,
) -> Result<&'static str> {
    let config = Config::load(command.config.as_deref())?;
    let kernel = Kernel::open()?;
    let mut snapshot = kernel.look(&config, &request.tap).await?;
    let (mac, incoming) = find_mac(&config, request, &snapshot, log)?;
    let guest = policy::guest_mac(&config, mac)?;
    action.guest = Some(guest);
    kernel.look_at_subnets(&mut snapshot).await?;
    kernel.look_for(&config, guest, &mut snapshot).await?;
    let wanted = Wanted::Up { tap: &request.tap, guest, bridge: request.bridge.as_deref() };
    let steps = plan(&config, &wanted, &snapshot)?;
    let link = snapshot.link(&request.tap);
    if let Ok((_, bridge)) = policy::bridge_for(&config, &snapshot, link, request.bridge.as_deref(), guest) {
        action.bridge = Some(bridge.name.clone());
    }
    if !incoming && let Some(elsewhere) = next_hop(&snapshot, guest) {
        log.warn(&format!(
            "up {}: the fabric already has {} at {elsewhere}: another host has this guest, or one with the same MAC, \
             and its route stays in force",
            request.tap,
            guest.address()
        ));
    }
    if command.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    let done = kernel.apply(&steps, OnFailure::Undo).await?;
    Ok(report(&done, log))
}

/// Detaches a tap and takes its guest's routes away; what is gone already is not an error.
///
/// # Errors
/// The interface is not a tap, or steps failed; the others were taken all the same.
pub async fn down(command: &Command, request: &Request, log: &Log) -> Result<String> {
    let mut action = Action { action: "down", tap: Some(request.tap.clone()), ..Action::default() };
    let mut out = String::new();
    let result = try_down(command, request, log, &mut action, &mut out).await;
    log.finish(&action, result).with_context(|| format!("down {}", request.tap))?;
    Ok(out)
}

async fn try_down(
    command: &Command,
    request: &Request,
    log: &Log,
    action: &mut Action,
    out: &mut String,
) -> Result<&'static str> {
    let kernel = Kernel::open()?;
    let config = match Config::load(command.config.as_deref()) {
        Ok(config) => config,
        // A guest must be able to go while somebody is editing the file.
        Err(error) => {
            log.warn(&format!("down {}: {error:#}; going on with the defaults", request.tap));
            without_file(&kernel, &request.tap).await?
        }
    };
    let mut snapshot = kernel.look(&config, &request.tap).await?;
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
    for guest in guest.into_iter().chain(own.filter(|own| Some(*own) != guest)) {
        kernel.look_for(&config, guest, &mut snapshot).await?;
    }
    if guest.is_none() {
        log.detail(&format!("nothing says which guest {} had: a route left behind needs --mac", request.tap));
    }
    let steps = plan(&config, &Wanted::Down { tap: Some(&request.tap), guest }, &snapshot)?;
    if command.dry_run {
        out.push_str(&lines(&steps));
        return Ok("dry-run");
    }
    let done = kernel.apply(&steps, OnFailure::GoOn).await?;
    Ok(report(&done, log))
}

/// The defaults, and as the managed bridge the one that the tap is on.
async fn without_file(kernel: &Kernel, tap: &str) -> Result<Config> {
    let mut config = Config::default();
    let snapshot = kernel.look(&config, tap).await?;
    if let Some(master) = snapshot.link(tap).and_then(|link| link.master) {
        config.bridges = vec![BridgeConfig::named(&snapshot.name_of(master))];
    }
    Ok(config)
}

/// The guest MAC, from the first of the contract's sources that has one, and whether the guest is arriving.
fn find_mac(config: &Config, request: &Request, snapshot: &Snapshot, log: &Log) -> Result<(MacAddr6, bool)> {
    let tap = &request.tap;
    let link = snapshot.link(tap).ok_or_else(|| Refusal::NoInterface { tap: tap.clone() })?;
    if !link.is_tap() {
        return Err(Refusal::NotATap { tap: tap.clone(), kind: link.kind.clone() }.into());
    }
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

/// Where the fabric has the guest's /32, if another host announces it.
fn next_hop(snapshot: &Snapshot, guest: GuestMac) -> Option<String> {
    snapshot.elsewhere(guest.address()).map(|route| route.next_hop())
}

fn lines(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

fn report(done: &[&Step], log: &Log) -> &'static str {
    for step in done {
        log.detail(&format!("done: {step}"));
    }
    if done.is_empty() { "unchanged" } else { "done" }
}
