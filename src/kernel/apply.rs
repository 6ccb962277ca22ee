//! Changing the kernel: takes the steps of a plan, and takes them back when a later one fails.

use anyhow::{Result, anyhow, bail};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;

use super::{BATCH, Denied, Kernel, encode, guard, neighbour};
use crate::config::file;
use crate::guest::link::Device;
use crate::guest::plan::{Port, Step};
use crate::machine::claimers;

/// What `apply` does with the other steps when one fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Take back the earlier ones, do not try the later ones.
    Undo,
    /// Try the later ones all the same, and report every failure.
    GoOn,
}

/// What `apply` did.
pub struct Applied<'a> {
    /// The steps that changed something.
    pub done: Vec<&'a Step>,
    /// Which steps failed and why, and whether taking back the earlier ones failed too.
    pub result: Result<()>,
}

impl Kernel {
    /// Takes the steps in order. The only mutation in tap32.
    pub fn apply<'a>(&self, steps: &'a [Step], on_failure: OnFailure) -> Applied<'a> {
        let (mut done, mut failed, mut failures) = (Vec::new(), Vec::new(), Vec::new());
        let mut rest = steps;
        while !rest.is_empty() {
            let size = match (on_failure, rest) {
                (OnFailure::GoOn, _) => BATCH,
                // The kernel refuses a guard whose clsact it refused.
                (OnFailure::Undo, [Step::Clsact(_), Step::Guard(..), ..]) => 2,
                // Of a plan that is taken back as a whole each step must have been taken before the next is sent.
                (OnFailure::Undo, _) => 1,
            };
            let requests = rest.iter().take(size).take_while(|step| request(step).is_some()).count();
            let (batch, after) = rest.split_at(requests.max(1));
            rest = after;
            for (step, outcome) in batch.iter().zip(self.take(batch)) {
                match outcome {
                    Ok(true) => done.push(step),
                    Ok(false) => {}
                    Err(error) => {
                        failed.push(step);
                        // Of two that were sent together the first one says why.
                        if on_failure == OnFailure::GoOn || failed.len() == 1 {
                            failures.push(format!("`{step:#}` failed: {error:#}"));
                        }
                    }
                }
            }
            if !failed.is_empty() && on_failure == OnFailure::Undo {
                // The step that failed too: the kernel may have set the MAC and then refused the bridge.
                Self::undo(done.drain(..).chain(failed).rev(), &mut failures);
                break;
            }
        }
        let result = if failures.is_empty() { Ok(()) } else { Err(anyhow!("{}", some(&failures))) };
        Applied { done, result }
    }

    /// On a socket of its own, for the old one may be what failed.
    fn undo<'a>(steps: impl Iterator<Item = &'a Step>, failures: &mut Vec<String>) {
        let fresh = match Self::open() {
            Ok(fresh) => fresh,
            Err(error) => return failures.push(format!("tap32 could not take the earlier steps back: {error:#}")),
        };
        for step in steps {
            if let Err(error) = fresh.take_back(step) {
                failures.push(format!("tap32 could not take `{step:#}` back either: {error:#}"));
            }
        }
    }

    /// Takes steps of one request each in one datagram, or one step that is none; of each, `false` if there was
    /// nothing left to do.
    fn take(&self, batch: &[Step]) -> Vec<Result<bool>> {
        let requests: Vec<_> = batch.iter().filter_map(request).collect();
        if requests.is_empty() {
            let mut outcomes = Vec::new();
            for step in batch {
                outcomes.push(self.take_without_request(step));
            }
            return outcomes;
        }
        match self.request_batch("change the kernel's tables", requests) {
            Ok(outcomes) => {
                let mut taken = Vec::with_capacity(batch.len());
                for (step, outcome) in batch.iter().zip(outcomes) {
                    taken.push(self.conclude(step, outcome.map(|_| ())));
                }
                taken
            }
            Err(error) => batch.iter().map(|_| Err(anyhow!("{error:#}"))).collect(),
        }
    }

    fn take_without_request(&self, step: &Step) -> Result<bool> {
        match step {
            Step::Confirm(Port { tap, bridge, mac, .. }) => match self.port_with(bridge.index, *mac)? {
                Some(port) if port == tap.index => Ok(false),
                Some(port) => {
                    let first = self.link_at(port)?.map_or_else(|| format!("interface {port}"), |l| l.name);
                    bail!("{first} came first with the same guest MAC: give one of the two guests another")
                }
                None => {
                    bail!("{tap} is no longer a port of bridge {bridge}: another program took it off, so try again")
                }
            },
            Step::Dismiss(arrival) => claimers::dismiss(arrival.address).map(|()| true),
            _ => bail!("tap32 has no way to take this step"),
        }
    }

    /// What the kernel's answer to a step's request means.
    fn conclude(&self, step: &Step, outcome: Result<(), Denied>) -> Result<bool> {
        match (step, outcome) {
            (Step::AddRoute(route), Err(denied)) if denied.errno == Errno::EEXIST => {
                if self.route_exists(route)? {
                    return Ok(false);
                }
                bail!(
                    "another program's route to {0} with metric {1} is in the way: `ip route show exact {0}/32` shows it; \
                     delete it and try again",
                    route.address,
                    route.metric
                )
            }
            // libvirt's `ingress` is there, or another program's clsact.
            (Step::Clsact(_), Err(denied)) if denied.errno == Errno::EEXIST => Ok(false),
            (Step::Clsact(tap) | Step::Guard(tap, ..), Err(denied)) => Err(unguarded(denied, tap)),
            (Step::Unguard(tap, _, true), Err(denied)) if denied.errno == Errno::EBUSY => self.delete_busy_clsact(tap),
            (Step::Isolate(tap, _), Err(denied)) if is_no_port(&denied) => {
                bail!(
                    "{tap} is no longer a port of a bridge: another program took it off or deleted the bridge, so try again"
                )
            }
            (Step::Unguard(..) | Step::DelNeighbour(_), outcome) => none(outcome),
            (Step::DelRoute(_) | Step::Detach(_) | Step::Forget(_), outcome) => gone(outcome),
            (_, outcome) => Ok(outcome.map(|()| true)?),
        }
    }

    /// Another program, `watch` perhaps, is just asking for the filters of the clsact (qdisc_destroy's EBUSY).
    fn delete_busy_clsact(&self, tap: &Device) -> Result<bool> {
        const TRIES: usize = 20;
        let mut outcome = Ok(());
        for _ in 0..TRIES {
            std::thread::sleep(std::time::Duration::from_millis(5));
            outcome = self.change("delete the clsact", guard::delete_clsact(tap.index), 0)?;
            if !matches!(&outcome, Err(denied) if denied.errno == Errno::EBUSY) {
                break;
            }
        }
        none(outcome)
    }

    fn take_back(&self, step: &Step) -> Result<()> {
        match step {
            Step::Attach(Port { tap, .. }, was) => {
                // Off the bridge first: still a port, its old MTU would pull the bridge's MTU down.
                if !was.attached {
                    gone(self.set_link(encode::set_link(tap.index, None, Some(0), None))?)?;
                }
                let back = encode::set_link(tap.index, Some((was.mac, was.mtu)), None, Some(was.up));
                gone(self.set_link(back)?).map(|_| ())
            }
            Step::Clsact(tap) if self.has_only_guard(tap.index)? => {
                none(self.change("delete the clsact", guard::delete_clsact(tap.index), 0)?).map(|_| ())
            }
            Step::Guard(tap, _, None) => {
                none(self.change("delete the guard", guard::delete(tap.index), 0)?).map(|_| ())
            }
            Step::Guard(tap, _, Some(was)) | Step::Unguard(tap, was, _) => {
                gone(self.change("put the guard back", guard::set(tap.index, was), NLM_F_CREATE)?).map(|_| ())
            }
            Step::Isolate(tap, on) => match self.change("isolate the tap", encode::set_isolated(tap.index, !on), 0)? {
                Err(denied) if is_no_port(&denied) => Ok(()),
                outcome => gone(outcome).map(|_| ()),
            },
            Step::AddNeighbour(entry) => {
                none(self.change("delete the neighbour entry", neighbour::delete(entry), 0)?).map(|_| ())
            }
            // Without a metric the kernel would take away whatever it finds first.
            Step::AddRoute(route) if route.metric == 0 && !self.route_exists(route)? => Ok(()),
            Step::MoveRoute(_, from) => {
                let back = RouteNetlinkMessage::NewRoute(encode::route(from));
                gone(self.change("move the route back", back, NLM_F_CREATE | NLM_F_REPLACE)?).map(|_| ())
            }
            // Matches nothing but exactly this route, so that one in its way stays.
            Step::AddRoute(route) => {
                let delete = RouteNetlinkMessage::DelRoute(encode::route(route));
                gone(self.change("delete the route", delete, 0)?).map(|_| ())
            }
            // What a flush deleted by mistake stays, and what the bridge has forgotten it learns anew.
            Step::OwnEntry(..) | Step::Forget(_) => Ok(()),
            Step::DelNeighbour(_)
            | Step::Clsact(_)
            | Step::Confirm(_)
            | Step::DelRoute(_)
            | Step::Detach(_)
            | Step::Dismiss(_) => Ok(()),
        }
    }

    fn set_link(&self, set: LinkMessage) -> Result<Result<(), Denied>> {
        self.change("set the tap", RouteNetlinkMessage::SetLink(set), 0)
    }
}

/// The request of a step that is one, with its flags.
fn request(step: &Step) -> Option<(RouteNetlinkMessage, u16)> {
    let (message, flags) = match step {
        Step::Attach(Port { tap, bridge, mac, mtu }, _) => {
            let set = encode::set_link(tap.index, Some((*mac, *mtu)), Some(bridge.index), Some(true));
            (RouteNetlinkMessage::SetLink(set), 0)
        }
        Step::Detach(tap) => (RouteNetlinkMessage::SetLink(encode::set_link(tap.index, None, Some(0), Some(false))), 0),
        Step::OwnEntry(bridge, mac) => (encode::add_own_entry(bridge.index, *mac), NLM_F_CREATE),
        Step::Clsact(tap) => (guard::add_clsact(tap.index), NLM_F_CREATE | NLM_F_EXCL),
        Step::Guard(tap, program, _) => (guard::set(tap.index, program), NLM_F_CREATE),
        Step::Forget(tap) => (encode::forget_learned(tap.index), 0),
        Step::Unguard(tap, _, true) => (guard::delete_clsact(tap.index), 0),
        Step::Unguard(tap, _, false) => (guard::delete(tap.index), 0),
        Step::Isolate(tap, on) => (encode::set_isolated(tap.index, *on), 0),
        // With EXCL: one that is there already is fine only if it is exactly ours.
        Step::AddNeighbour(entry) => (neighbour::set(entry), NLM_F_CREATE | NLM_F_REPLACE),
        Step::DelNeighbour(entry) => (neighbour::delete(entry), 0),
        Step::AddRoute(route) => (RouteNetlinkMessage::NewRoute(encode::route(route)), NLM_F_CREATE | NLM_F_EXCL),
        // With CREATE too: the old one may have gone meanwhile.
        Step::MoveRoute(route, _) => {
            (RouteNetlinkMessage::NewRoute(encode::route(route)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Step::DelRoute(route) => (RouteNetlinkMessage::DelRoute(encode::route(route)), 0),
        Step::Confirm(_) | Step::Dismiss(_) => return None,
    };
    Some((message, flags | NLM_F_ACK))
}

/// What the kernel says of a port's flag where the interface is on no bridge: its master has to take it
/// (rtnl_bridge_setlink).
fn is_no_port(denied: &Denied) -> bool {
    denied.errno == Errno::EOPNOTSUPP
}

/// Why a tap has no guard, and what fixes it.
fn unguarded(denied: Denied, tap: &Device) -> anyhow::Error {
    let fix = match denied.errno {
        // No such qdisc, no such classifier; a kernel without traffic control (qdisc_create, tc_new_tfilter).
        Errno::ENOENT | Errno::EOPNOTSUPP if !denied.text.contains("shared") => {
            format!(
                "; run `modprobe -a sch_ingress cls_bpf`, or write `guard = false` under [[bridge]] in {} if guests need \
                 no guard",
                file()
            )
        }
        // Another kind or protocol has the preference (tcf_chain_tp_find, tc_new_tfilter), or taps share a block.
        Errno::EINVAL | Errno::EEXIST | Errno::EOPNOTSUPP => format!(
            "; another program's filter or block may have the guard's place: `tc filter show dev {tap} ingress` and \
             `tc qdisc show dev {tap}` show it, and with `guard = false` under [[bridge]] in {} guests need no guard",
            file()
        ),
        _ => String::new(),
    };
    anyhow!("{denied}{fix}")
}

/// As `gone`, of a filter, its clsact or a neighbour entry. ENOENT: no such entry (neigh_delete). ENOENT and EINVAL: no
/// such filter, or no clsact (tc_del_tfilter, tc_get_qdisc).
fn none(outcome: Result<(), Denied>) -> Result<bool> {
    match outcome {
        Err(denied) if matches!(denied.errno, Errno::ENOENT | Errno::EINVAL) => Ok(false),
        outcome => gone(outcome),
    }
}

/// All failures in one line, but of a plan for thousands only the first few.
fn some(failures: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text = failures.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    if failures.len() > SHOWN {
        text.push_str(&format!("; and {} more", failures.len() - SHOWN));
    }
    text
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
