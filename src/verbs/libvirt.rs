//! libvirt's hook: `/etc/libvirt/hooks/qemu.d/50-tap32 DOMAIN OP SUBOP EXTRA`, with the domain's XML on stdin.
//!
//! tap32-design(7) says when libvirt calls which operation. A hook prints nothing on stdout (libvirt reads it as XML),
//! never calls libvirt (deadlock), leaves no process behind that holds its descriptors, and ends with 0 where libvirt
//! would kill a running guest or ignore the exit code.

use std::io::Read;

use anyhow::{Context, Result, bail};

use super::up_down::{self, Target};
use super::{Common, Report, arrival};
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config};
use crate::guest::plan::{Step, Wanted, plan};
use crate::guest::policy;
use crate::guest::view::View;
use crate::kernel::{Applied, Kernel, OnFailure, Scope};
use crate::machine::libvirt_xml::{self, Nic};
use crate::machine::log::{Action, Log};

/// Far above any real domain (some 100 KiB); a text without end must not fill the memory.
const XML_LIMIT: u64 = 4 << 20;

/// The hook's first two arguments; tap32 needs neither SUBOP nor EXTRA.
pub struct Request {
    pub domain: String,
    pub operation: String,
}

/// # Errors
/// Only of `prepare` and `start`: libvirt then does not start the guest, and shows the error to the user.
pub fn run(request: &Request, common: &Common) -> Result<Report> {
    let call = Call { request, common, log: &common.log };
    let result = match request.operation.as_str() {
        "prepare" => call.prepare(),
        "start" => call.start(),
        "migrate" => call.quietly(call.migrate()),
        "reconnect" => call.quietly(call.reconnect()),
        "stopped" | "release" => call.quietly(call.gone()),
        _ => Ok(()),
    };
    result.with_context(|| format!("{} of domain {}", request.operation, request.domain))?;
    Ok(Report::default())
}

struct Call<'a> {
    request: &'a Request,
    common: &'a Common,
    log: &'a Log,
}

/// The NICs of a call that tap32 manages, and what every operation needs.
struct Domain {
    config: Config,
    nics: Vec<Nic>,
    kernel: Kernel,
}

impl Call<'_> {
    /// The checks of `start`, before there is a tap.
    fn prepare(&self) -> Result<()> {
        let domain = self.domain()?;
        let allowed = |nic: &Nic, action: &mut Action| {
            if let Some(bridge) = nic.bridge() {
                action.guest = Some(domain.admit(nic, bridge)?);
            }
            Ok("allowed")
        };
        self.each(&domain.nics, OnFailure::Undo, allowed)
    }

    /// libvirt has attached the taps; what is missing is added, for all NICs or none.
    fn start(&self) -> Result<()> {
        let domain = self.domain()?;
        let mut planned = Vec::new();
        for nic in domain.nics.iter().filter(|nic| is_attached(nic)) {
            let mut action = self.action(nic);
            match self.plan(&domain, nic, &mut action) {
                Ok(steps) => planned.push((action, steps)),
                Err(error) => return self.log.finish(&action, Err(error)),
            }
        }
        let steps: Vec<Step> = planned.iter().flat_map(|(_, steps)| steps.clone()).collect();
        let Applied { done, result } = domain.kernel.apply(&steps, OnFailure::Undo);
        for (action, _) in &planned {
            match &result {
                Ok(()) => self.log.finish(action, Ok(up_down::outcome(&done)))?,
                Err(error) => self.log.failed(action, error),
            }
        }
        result
    }

    /// After a restart of the daemon: adds what is missing, but not to a tap that somebody set down. A NIC that fails does
    /// not stop the others.
    fn reconnect(&self) -> Result<()> {
        let domain = self.domain()?;
        let repaired = |nic: &Nic, action: &mut Action| {
            let steps = self.plan(&domain, nic, action)?;
            if steps.iter().any(|step| matches!(step, Step::Attach(_, was) if !was.up)) {
                return Ok("unchanged");
            }
            up_down::ended(domain.kernel.apply(&steps, OnFailure::Undo), self.log)
        };
        self.each(domain.nics.iter().filter(|nic| is_attached(nic)), OnFailure::GoOn, repaired)
    }

    /// The tap is gone and the XML does not name it, so the MAC identifies the guest.
    fn gone(&self) -> Result<()> {
        let Domain { config, nics, kernel } = &self.logged(|| {
            let nics = nics()?;
            Domain::of(self.config_or_salvaged(&nics), nics)
        })?;
        let taken_down = |nic: &Nic, action: &mut Action| {
            action.guest = Some(policy::guest_mac(config, nic.mac)?);
            let snapshot = kernel.snapshot(config, Scope::Down { tap: None, guest: action.guest })?;
            let steps = plan(config, &Wanted::Down { tap: None, guest: action.guest }, &snapshot)?;
            up_down::ended(up_down::take_down(config, kernel, &steps), self.log)
        };
        // A guest that was refused never had a route.
        let guests = nics.iter().filter(|nic| policy::guest_mac(config, nic.mac).is_ok());
        self.each(guests, OnFailure::GoOn, taken_down)
    }

    /// A guest will arrive: starts the claimer. It does not wait for a guest that the policy refuses; `prepare` comes
    /// next and says why.
    fn migrate(&self) -> Result<()> {
        let domain = self.domain()?;
        let mut guests: Vec<GuestMac> = Vec::new();
        for nic in &domain.nics {
            let allowed = match nic.bridge() {
                Some(bridge) => domain.admit(nic, bridge),
                None => policy::guest_mac(&domain.config, nic.mac).map_err(anyhow::Error::from),
            };
            guests.extend(allowed);
        }
        self.logged(|| arrival::spawn(&domain.config, self.common, &guests))
    }

    /// Does `what` for each NIC and logs it. With `Undo` the first failure ends it; with `GoOn` each is only printed.
    fn each<'a>(
        &self,
        nics: impl IntoIterator<Item = &'a Nic>,
        on_failure: OnFailure,
        what: impl Fn(&Nic, &mut Action) -> Result<&'static str>,
    ) -> Result<()> {
        for nic in nics {
            let mut action = self.action(nic);
            let result = what(nic, &mut action);
            let result = self.log.finish(&action, result);
            match on_failure {
                OnFailure::Undo => result?,
                OnFailure::GoOn => self.quietly(result)?,
            }
        }
        Ok(())
    }

    /// The steps of `up` for a NIC that libvirt has attached.
    fn plan(&self, domain: &Domain, nic: &Nic, action: &mut Action) -> Result<Vec<Step>> {
        let guest = policy::guest_mac(&domain.config, nic.mac)?;
        action.guest = Some(guest);
        let (tap, bridge) = (nic.tap.as_deref(), action.bridge.as_deref());
        let snapshot = domain.kernel.snapshot(&domain.config, Scope::Up { tap, guest: Some(guest) })?;
        let target = Target { tap: tap.unwrap_or_default(), guest, bridge, arriving: false };
        up_down::plan_up(&domain.config, &snapshot, &target, self.log)
    }

    /// The domain's NICs that tap32 manages.
    ///
    /// # Errors
    /// A broken file is one only for a guest that could be ours: it has a NIC on a bridge that the file may name.
    fn domain(&self) -> Result<Domain> {
        self.logged(|| {
            let nics = nics()?;
            let error = match self.common.config() {
                Ok(config) => return Domain::of(config, nics),
                Err(error) => error,
            };
            let salvaged = self.common.salvaged_config();
            let bridges: Vec<&str> = nics.iter().filter_map(Nic::bridge).collect();
            if bridges.iter().any(|bridge| salvaged.bridge(bridge).is_some()) {
                return Err(error);
            }
            if !bridges.is_empty() {
                let (domain, others) = (&self.request.domain, bridges.join(", "));
                self.log.warn(&format!("{error:#}; tap32 leaves domain {domain} alone, whose bridge is {others}"));
            }
            // Where the script of type='ethernet' is tap32, it says by itself that the file is broken.
            Domain::of(salvaged, Vec::new())
        })
    }

    /// Logs a failure that concerns the whole domain: no NIC's line has it, and libvirt drops some operations' stderr.
    fn logged<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|error| self.log.failed(&self.action_on_domain(), error))
    }

    /// For deleting routes, which must work with a broken file: what can be read of it, with the domain's own bridges.
    fn config_or_salvaged(&self, nics: &[Nic]) -> Config {
        self.common.config().unwrap_or_else(|error| {
            self.log.warn(&format!("{error:#}; tap32 goes on with the defaults and what it can read of the file"));
            let mut config = self.common.salvaged_config();
            for bridge in nics.iter().filter_map(Nic::bridge) {
                if config.bridge(bridge).is_none() {
                    config.bridges.push(BridgeConfig::named(bridge));
                }
            }
            config
        })
    }

    fn action(&self, nic: &Nic) -> Action {
        let bridge = nic.bridge().map(str::to_owned);
        Action { tap: nic.tap.clone(), bridge, ..self.action_on_domain() }
    }

    fn action_on_domain(&self) -> Action {
        let Request { domain, operation } = self.request;
        Action { action: operation.clone(), domain: Some(domain.clone()), ..Action::default() }
    }

    /// Prints an error, which the exit code must not show.
    fn quietly(&self, result: Result<()>) -> Result<()> {
        if let Err(error) = result {
            self.log.say(&format!("{} of domain {}: {error:#}", self.request.operation, self.request.domain));
        }
        Ok(())
    }
}

impl Domain {
    fn of(config: Config, mut nics: Vec<Nic>) -> Result<Self> {
        nics.retain(|nic| nic.bridge().is_none_or(|bridge| config.bridge(bridge).is_some()));
        Ok(Self { config, nics, kernel: Kernel::open()? })
    }

    /// The policy for a NIC whose tap does not exist yet.
    fn admit(&self, nic: &Nic, bridge: &str) -> Result<GuestMac> {
        let guest = policy::guest_mac(&self.config, nic.mac)?;
        let snapshot = self.kernel.snapshot(&self.config, Scope::Up { tap: None, guest: Some(guest) })?;
        let (wanted, bridge) = policy::bridge_for(&self.config, &snapshot, None, Some(bridge), guest)?;
        View::new(&self.config, &snapshot).admit_guest(wanted, bridge, guest, None)?;
        Ok(guest)
    }
}

/// Whether libvirt has attached the NIC's tap. For a NIC with a script, the script calls `up`.
fn is_attached(nic: &Nic) -> bool {
    nic.tap.is_some() && nic.bridge().is_some()
}

/// The NICs of the XML on stdin.
fn nics() -> Result<Vec<Nic>> {
    libvirt_xml::nics(&read_xml()?, libvirt_xml::bridge_of_network)
}

fn read_xml() -> Result<String> {
    let mut xml = String::new();
    std::io::stdin().lock().take(XML_LIMIT + 1).read_to_string(&mut xml).context("the domain's XML on stdin")?;
    if xml.len() as u64 > XML_LIMIT {
        bail!("the domain's XML on stdin is longer than {} MiB", XML_LIMIT >> 20);
    }
    Ok(xml)
}
