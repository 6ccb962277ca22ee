//! libvirt's face: `/etc/libvirt/hooks/qemu.d/50-tap32 DOMAIN OP SUBOP EXTRA`, live XML on stdin.
//!
//! What each operation does is in `run`; FACTS.md has when libvirt calls which. Rules of a hook: nothing on
//! stdout (it is an XML filter), never a call to libvirt (deadlock), nobody left who holds our descriptors,
//! and where an exit code would kill a running guest or be ignored it is 0.

use std::io::Read;

use anyhow::{Context, Result, bail};

use super::up_down::{self, Target};
use super::{Common, Report, arrival};
use crate::addr::GuestMac;
use crate::config::{BridgeConfig, Config};
use crate::guest::policy;
use crate::guest::view::View;
use crate::kernel::{Applied, Kernel, OnFailure};
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
        for nic in nics {
            let mut action = self.action(&nic);
            let result = self.check(&config, &nic, &mut action).await.map(|()| "allowed");
            self.log.finish(&action, result)?;
        }
        Ok(())
    }

    async fn check(&self, config: &Config, nic: &Nic, action: &mut Action) -> Result<()> {
        let Attachment::Bridge(bridge) = &nic.attachment else { return Ok(()) };
        let guest = policy::guest_mac(config, nic.mac)?;
        action.guest = Some(guest);
        let kernel = Kernel::open()?;
        let mut snapshot = kernel.look(config, None).await?;
        kernel.look_at_subnets(&mut snapshot).await?;
        kernel.look_for(config, guest, &mut snapshot, false).await?;
        let (wanted, bridge) = policy::bridge_for(config, &snapshot, None, Some(bridge), guest)?;
        Ok(View::new(config, &snapshot).admit_guest(wanted, bridge, guest, None)?)
    }

    /// libvirt has attached the taps; what is missing is added. All NICs or none.
    async fn start(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        let mut steps = Vec::new();
        let mut actions = Vec::new();
        for nic in nics {
            let Some(target) = self.target(&nic) else { continue };
            let mut action = self.action(&nic);
            match up_down::plan_up(&config, &kernel, &target, &mut action, self.log).await {
                Ok(more) => steps.extend(more),
                Err(error) => return self.log.finish(&action, Err(error)),
            }
            actions.push(action);
        }
        let Applied { done, result } = kernel.apply(&steps, OnFailure::Undo).await;
        let outcome = result.as_ref().map(|()| up_down::outcome(&done)).map_err(|error| format!("{error:#}"));
        for action in &actions {
            let outcome = outcome.as_ref().map(|text| *text).map_err(|error| anyhow::anyhow!("{error}"));
            self.log.finish(action, outcome)?;
        }
        result
    }

    /// After a restart of the daemon: repair what is missing, one guest's fault is not another's.
    async fn reconnect(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let kernel = Kernel::open()?;
        for nic in nics {
            let Some(target) = self.target(&nic) else { continue };
            let mut action = self.action(&nic);
            let result = async {
                let steps = up_down::plan_up(&config, &kernel, &target, &mut action, self.log).await?;
                let Applied { done, result } = kernel.apply(&steps, OnFailure::Undo).await;
                result.map(|()| up_down::outcome(&done))
            }
            .await;
            let _ = self.quietly(self.log.finish(&action, result));
        }
        Ok(())
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
        for nic in nics {
            let Ok(guest) = policy::guest_mac(&config, nic.mac) else { continue };
            let mut action = self.action(&nic);
            action.guest = Some(guest);
            let result = async {
                let steps = up_down::plan_down(&config, &kernel, guest).await?;
                let Applied { done, result } = up_down::take_down(&config, &kernel, &steps).await;
                result.map(|()| up_down::outcome(&done))
            }
            .await;
            let _ = self.quietly(self.log.finish(&action, result));
        }
        Ok(())
    }

    /// A guest will arrive: the claimer waits for its first frame. What the policy refuses is not waited for;
    /// `prepare` comes next and says so.
    async fn migrate(&self) -> Result<()> {
        let (config, nics) = self.domain()?;
        let mut guests: Vec<GuestMac> = Vec::new();
        for nic in nics {
            if self.check(&config, &nic, &mut self.action(&nic)).await.is_ok() {
                guests.extend(GuestMac::new(nic.mac, config.mac_prefix));
            }
        }
        self.logged(|| arrival::spawn(&config, self.common, &guests))
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
            self.log.warn(&format!("{error:#}; going on with the defaults"));
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

    /// What `up` needs of a NIC that libvirt attached; one with a script gets its `up` from there.
    fn target(&self, nic: &Nic) -> Option<Target> {
        match (&nic.attachment, &nic.tap) {
            (Attachment::Bridge(bridge), Some(tap)) => {
                Some(Target { tap: tap.clone(), mac: nic.mac, bridge: Some(bridge.clone()), arriving: false })
            }
            _ => None,
        }
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
