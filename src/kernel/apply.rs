//! Changing the kernel: takes the steps of a plan, and takes them back when a later one fails.

use anyhow::{Result, bail};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;

use super::{Denied, Kernel, message};
use crate::arrival;
use crate::plan::{HostRoute, Step};

/// What `apply` does with the other steps when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Take back the earlier ones, do not try the later ones.
    Undo,
    /// Try the later ones all the same, and report every failure.
    GoOn,
}

impl Kernel {
    /// Takes the steps in order, and returns those that changed something. The only mutation in tap32.
    ///
    /// # Errors
    /// Which step failed and why, and whether taking back the earlier ones failed too.
    pub async fn apply<'a>(&self, steps: &'a [Step], on_failure: OnFailure) -> Result<Vec<&'a Step>> {
        let mut done = Vec::new();
        let mut failures = Vec::new();
        for step in steps {
            match self.take(step).await {
                Ok(true) => done.push(step),
                Ok(false) => {}
                Err(error) => {
                    failures.push(format!("`{step}` failed: {error:#}"));
                    if on_failure == OnFailure::Undo {
                        // The step that failed too: the kernel may have set the MAC and then refused the bridge.
                        Self::undo(done.drain(..).chain([step]).rev(), &mut failures).await;
                        break;
                    }
                }
            }
        }
        if failures.is_empty() { Ok(done) } else { bail!("{}", failures.join("; ")) }
    }

    /// On a socket of its own, for the old one may be what failed.
    async fn undo(steps: impl Iterator<Item = &Step>, failures: &mut Vec<String>) {
        let fresh = match Self::open() {
            Ok(fresh) => fresh,
            Err(error) => return failures.push(format!("nothing was taken back: {error:#}")),
        };
        for step in steps {
            if let Err(error) = fresh.take_back(step).await {
                failures.push(format!("taking back `{step}` failed too: {error:#}"));
            }
        }
    }

    /// Takes one step; `false` if there was nothing left to do.
    async fn take(&self, step: &Step) -> Result<bool> {
        match step {
            Step::Attach { index, bridge_index, mac, mtu, .. } => {
                let set = message::set_link(*index, Some((*mac, *mtu)), Some(*bridge_index), Some(true));
                self.set_link(set).await??;
                Ok(true)
            }
            Step::Confirm { tap, index, bridge, bridge_index, mac } => match self.port_of(*bridge_index, *mac).await? {
                Some(port) if port == *index => Ok(false),
                Some(port) => {
                    let first = self.link_at(port).await?.map_or_else(|| format!("interface {port}"), |l| l.name);
                    bail!("{first} came first with the same guest MAC")
                }
                None => bail!("{tap} is not on bridge {bridge} any more"),
            },
            Step::Isolate { index, on, .. } => {
                self.isolate(*index, *on).await??;
                Ok(true)
            }
            Step::AddRoute(route) => self.add_route(route).await,
            Step::DelRoute(route) => self.del_route(route).await,
            Step::Dismiss { pid } => arrival::dismiss(*pid).map(|()| true),
            Step::SetUp(change) => self.set_up(change).await.map(|()| true),
            Step::Detach { index, .. } => {
                gone(self.set_link(message::set_link(*index, None, Some(0), Some(false))).await?)
            }
        }
    }

    async fn take_back(&self, step: &Step) -> Result<()> {
        match step {
            Step::Attach { index, was, .. } => {
                // Off the bridge first: still a port, its old MTU would pull the bridge's MTU down.
                if !was.attached {
                    gone(self.set_link(message::set_link(*index, None, Some(0), None)).await?)?;
                }
                let back = message::set_link(*index, Some((was.mac, was.mtu)), None, Some(was.up));
                gone(self.set_link(back).await?).map(|_| ())
            }
            Step::Isolate { index, on, .. } => gone(self.isolate(*index, !on).await?).map(|_| ()),
            // Matches nothing but exactly this route, so that one in its way stays.
            Step::AddRoute(route) => self.del_route(route).await.map(|_| ()),
            Step::Confirm { .. } | Step::DelRoute(_) | Step::Detach { .. } | Step::Dismiss { .. } | Step::SetUp(_) => {
                Ok(())
            }
        }
    }

    async fn set_link(&self, set: LinkMessage) -> Result<Result<(), Denied>> {
        self.change("set the tap", RouteNetlinkMessage::SetLink(set), 0).await
    }

    async fn isolate(&self, index: u32, on: bool) -> Result<Result<(), Denied>> {
        let set = RouteNetlinkMessage::NewLink(message::set_isolated(index, on));
        self.change("isolate the tap", set, 0).await
    }

    /// Adds a route that must not be there yet; one that is there already is fine if it is exactly ours.
    async fn add_route(&self, route: &HostRoute) -> Result<bool> {
        let add = RouteNetlinkMessage::NewRoute(message::route(route));
        match self.change("add the route", add, NLM_F_CREATE | NLM_F_EXCL).await? {
            Ok(()) => Ok(true),
            Err(denied) if denied.errno == Errno::EEXIST => {
                if self.has(route).await? {
                    return Ok(false);
                }
                bail!(
                    "a route to {0} with metric {1} that is not ours is in the way: `ip route show exact {0}/32` shows \
                     it, and once it is gone, try again",
                    route.address,
                    route.metric
                )
            }
            Err(denied) => Err(denied.into()),
        }
    }

    async fn del_route(&self, route: &HostRoute) -> Result<bool> {
        gone(self.change("delete the route", RouteNetlinkMessage::DelRoute(message::route(route)), 0).await?)
    }
}

/// Whether there was something to take away. ESRCH: no such route. ENODEV: no such interface, or a route's
/// bridge is gone and took it along.
fn gone(outcome: Result<(), Denied>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(denied) if matches!(denied.errno, Errno::ESRCH | Errno::ENODEV) => Ok(false),
        Err(denied) => Err(denied.into()),
    }
}
