//! libvirt's face: `/etc/libvirt/hooks/qemu.d/50-tap32 DOMAIN OP SUBOP EXTRA`, live XML on stdin.
//!
//! What each operation does is in `run`; tap32-design(7) says when libvirt calls which. Rules of a hook: nothing on
//! stdout (it is an XML filter), never a call to libvirt (deadlock), nobody left who holds our descriptors,
//! and where an exit code would kill a running guest or be ignored it is 0.

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
use crate::machine::libvirt_xml::{self, Attachment, Nic};
use crate::machine::log::{Action, Log};

/// Far above any real domain (some 100 KiB); a text without end must not eat the host.
const XML_LIMIT: u64 = 4 << 20;

/// What libvirt tells its hook; SUBOP and EXTRA say nothing that we need.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub domain: String,
    pub operation: String,
}

/// Runs one hook call.
///
/// # Errors
/// Only of `prepare` and `start`, where libvirt then does not start the guest and shows our line to the user.
pub async fn run(request: &Request, common: &Common) -> Result<Report> {
    let call = Call { request, common, log: &common.log };
    let result = match request.operation.as_str() {
        "prepare" => call.prepare().await,
        "start" => call.start().await,
        "migrate" => call.quietly(call.migrate().await),
        "reconnect" => call.quietly(call.reconnect().await),
        "stopped" | "release" => call.quietly(call.gone().await),
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

impl Call<'_> {
    /// The checks of `start` before anything exists.
    async fn prepare(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        let allowed = async |nic: &Nic, action: &mut Action| {
            if let Attachment::Bridge(bridge) = &nic.attachment {
                action.guest = Some(admit(&config, &kernel, nic, bridge).await?);
            }
            Ok("allowed")
        };
        self.each(&nics, OnFailure::Undo, allowed).await
    }

    /// libvirt has attached the taps; what is missing is added. All NICs or none.
    async fn start(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        let mut planned = Vec::new();
        for nic in nics.iter().filter(|nic| is_attached(nic)) {
            let mut action = self.action(nic);
            match self.plan(&config, &kernel, nic, &mut action).await {
                Ok(steps) => planned.push((action, steps)),
                Err(error) => return self.log.finish(&action, Err(error)),
            }
        }
        let steps: Vec<Step> = planned.iter().flat_map(|(_, steps)| steps.clone()).collect();
        let Applied { done, result } = kernel.apply(&steps, OnFailure::Undo).await;
        for (action, _) in &planned {
            match &result {
                Ok(()) => self.log.finish(action, Ok(up_down::outcome(&done)))?,
                Err(error) => self.log.failed(action, error),
            }
        }
        result
    }

    /// After a restart of the daemon: repair what is missing, one guest's fault is not another's.
    async fn reconnect(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        let repaired = async |nic: &Nic, action: &mut Action| {
            let steps = self.plan(&config, &kernel, nic, action).await?;
            let Applied { done, result } = kernel.apply(&steps, OnFailure::Undo).await;
            result.map(|()| up_down::outcome(&done))
        };
        let attached: Vec<Nic> = nics.into_iter().filter(is_attached).collect();
        self.each(&attached, OnFailure::GoOn, repaired).await
    }

    /// The tap is gone already and the XML does not name it: by MAC.
    async fn gone(&self) -> Result<()> {
        let (config, nics) = self.logged(|| {
            let xml = read_xml()?;
            let config = self.config_or(&xml);
            let nics = managed(&config, &xml)?;
            Ok((config, nics))
        })?;
        let kernel = Kernel::open()?;
        let taken_down = async |nic: &Nic, action: &mut Action| {
            let guest = policy::guest_mac(&config, nic.mac)?;
            action.guest = Some(guest);
            let snapshot = kernel.snapshot(&config, Scope::Down { tap: None, guest: action.guest }).await?;
            let steps = plan(&config, &Wanted::Down { tap: None, guest: action.guest }, &snapshot)?;
            let Applied { done, result } = up_down::take_down(&config, &kernel, &steps).await;
            result.map(|()| up_down::outcome(&done))
        };
        // One that was refused never had a route.
        let guests: Vec<Nic> = nics.into_iter().filter(|nic| policy::guest_mac(&config, nic.mac).is_ok()).collect();
        self.each(&guests, OnFailure::GoOn, taken_down).await
    }

    /// A guest will arrive: the claimer waits for its first frame. What the policy refuses is not waited for;
    /// `prepare` comes next and says so.
    async fn migrate(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        let mut guests: Vec<GuestMac> = Vec::new();
        for nic in &nics {
            let allowed = match &nic.attachment {
                Attachment::Bridge(bridge) => admit(&config, &kernel, nic, bridge).await,
                Attachment::Script => policy::guest_mac(&config, nic.mac).map_err(anyhow::Error::from),
            };
            guests.extend(allowed);
        }
        self.logged(|| arrival::spawn(&config, self.common, &guests))
    }

    /// Does `what` for each NIC, and logs how it ended. The first failure ends it with `Undo`; with `GoOn` each is said
    /// and forgotten.
    async fn each(
        &self,
        nics: &[Nic],
        on_failure: OnFailure,
        what: impl AsyncFn(&Nic, &mut Action) -> Result<&'static str>,
    ) -> Result<()> {
        for nic in nics {
            let mut action = self.action(nic);
            let result = what(nic, &mut action).await;
            let result = self.log.finish(&action, result);
            match on_failure {
                OnFailure::Undo => result?,
                OnFailure::GoOn => self.quietly(result)?,
            }
        }
        Ok(())
    }

    /// The steps of `up` for a NIC that libvirt has attached.
    async fn plan(&self, config: &Config, kernel: &Kernel, nic: &Nic, action: &mut Action) -> Result<Vec<Step>> {
        let guest = policy::guest_mac(config, nic.mac)?;
        action.guest = Some(guest);
        let (tap, bridge) = (nic.tap.as_deref(), action.bridge.as_deref());
        let snapshot = kernel.snapshot(config, Scope::Up { tap, guest: Some(guest) }).await?;
        let target = Target { tap: tap.unwrap_or_default(), guest, bridge, arriving: false };
        up_down::plan_up(config, &snapshot, &target, self.log)
    }

    /// The configuration, and the domain's NICs that are ours.
    fn domain(&self) -> Result<(Config, Vec<Nic>)> {
        self.logged(|| {
            let config = self.config()?;
            let nics = managed(&config, &read_xml()?)?;
            Ok((config, nics))
        })
    }

    /// What fails for the whole domain is in no NIC's line, so it has its own: of some operations libvirt drops
    /// what we say on stderr.
    fn logged<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let domain = Some(self.request.domain.clone());
        let action = Action { action: self.request.operation.clone(), domain, ..Action::default() };
        work().inspect_err(|error| self.log.failed(&action, error))
    }

    fn config(&self) -> Result<Config> {
        self.common.config()
    }

    /// For removing, which must work with a broken file, and can touch nothing but our own routes: the defaults,
    /// with the domain's own bridges.
    fn config_or(&self, xml: &str) -> Config {
        self.config().unwrap_or_else(|error| {
            self.log.warn(&format!("{error:#}; tap32 goes on with the defaults"));
            let mut config = self.common.salvaged_config();
            for nic in nics(xml).unwrap_or_default() {
                if let Attachment::Bridge(name) = nic.attachment
                    && config.bridge(&name).is_none()
                {
                    config.bridges.push(BridgeConfig::named(&name));
                }
            }
            config
        })
    }

    fn action(&self, nic: &Nic) -> Action {
        let bridge = match &nic.attachment {
            Attachment::Bridge(name) => Some(name.clone()),
            Attachment::Script => None,
        };
        let domain = Some(self.request.domain.clone());
        Action { action: self.request.operation.clone(), domain, tap: nic.tap.clone(), bridge, ..Action::default() }
    }

    /// Says an error and forgets it.
    fn quietly(&self, result: Result<()>) -> Result<()> {
        if let Err(error) = result {
            self.log.say(&format!("{} of domain {}: {error:#}", self.request.operation, self.request.domain));
        }
        Ok(())
    }
}

/// The policy for a NIC whose tap does not exist yet.
async fn admit(config: &Config, kernel: &Kernel, nic: &Nic, bridge: &str) -> Result<GuestMac> {
    let guest = policy::guest_mac(config, nic.mac)?;
    let snapshot = kernel.snapshot(config, Scope::Up { tap: None, guest: Some(guest) }).await?;
    let (wanted, bridge) = policy::bridge_for(config, &snapshot, None, Some(bridge), guest)?;
    View::new(config, &snapshot).admit_guest(wanted, bridge, guest, None)?;
    Ok(guest)
}

/// Whether libvirt has attached its tap; one with a script gets its `up` from there.
fn is_attached(nic: &Nic) -> bool {
    nic.tap.is_some() && matches!(nic.attachment, Attachment::Bridge(_))
}

/// The NICs on managed bridges, and those with a script.
fn managed(config: &Config, xml: &str) -> Result<Vec<Nic>> {
    let ours = |nic: &Nic| match &nic.attachment {
        Attachment::Bridge(name) => config.bridge(name).is_some(),
        Attachment::Script => true,
    };
    Ok(nics(xml)?.into_iter().filter(ours).collect())
}

fn nics(xml: &str) -> Result<Vec<Nic>> {
    libvirt_xml::nics(xml, libvirt_xml::bridge_of_network)
}

fn read_xml() -> Result<String> {
    let mut xml = String::new();
    std::io::stdin().lock().take(XML_LIMIT + 1).read_to_string(&mut xml).context("the domain's XML on stdin")?;
    if xml.len() as u64 > XML_LIMIT {
        bail!("the domain's XML on stdin is longer than {} MiB", XML_LIMIT >> 20);
    }
    Ok(xml)
}
