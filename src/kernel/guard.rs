//! The guard on a tap as the kernel has it: a classic BPF program in a filter on the tap's clsact.
//!
//! The numbers are from linux/rtnetlink.h and pkt_cls.h.

use std::collections::BTreeMap;

use anyhow::Result;
use nix::errno::Errno;
use rtnetlink::packet_core::{DefaultNla, NLM_F_ECHO};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::decode::Object;
use super::decode::traffic_control::TrafficControl;
use super::{Denied, Kernel, Outcome, answer, unless};
use crate::guest::guard::{Guard, HANDLE, PREFERENCE, Program};

const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;
const ETH_P_ALL: u16 = 3;

/// Makes room for the guard. libvirt's `ingress` has room too, and the kernel then refuses with EEXIST.
pub fn add_clsact(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewQueueDiscipline(clsact(index))
}

pub fn delete_clsact(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelQueueDiscipline(clsact(index))
}

fn clsact(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.header.parent = TcHandle::CLSACT;
    message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// With NLM_F_CREATE it takes the place of the program that is there, in one step (cls_bpf_change).
pub fn set(index: u32, program: &Program) -> RouteNetlinkMessage {
    let mut message = filter(index);
    let option = |kind, octets| TcOption::Other(DefaultNla::new(kind, octets));
    message.attributes.push(TcAttribute::Options(vec![
        option(TCA_BPF_OPS_LEN, (program.0.len() as u16).to_ne_bytes().to_vec()),
        option(TCA_BPF_OPS, program.to_octets()),
        option(TCA_BPF_FLAGS, DIRECT_ACTION.to_ne_bytes().to_vec()),
    ]));
    RouteNetlinkMessage::NewTrafficFilter(message)
}

pub fn delete(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelTrafficFilter(filter(index))
}

/// The place of the guard: one preference, one handle.
fn filter(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = HANDLE.into();
    message.header.parent = TcHandle { major: u16::MAX, minor: TcHandle::MIN_INGRESS };
    message.header.info = (u32::from(PREFERENCE) << 16) | u32::from(ETH_P_ALL.to_be());
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    message
}

/// Refusals that mean "there is none": no filter, no clsact (tc_get_tfilter), a kernel that has neither, no interface.
const NO_FILTERS: &[Errno] = &[Errno::ENOENT, Errno::EINVAL, Errno::EOPNOTSUPP, Errno::ENODEV];

impl Kernel {
    /// The guards of the taps with these indices; [`Guard::NotAsked`] of one that has gone.
    pub(super) fn guards(&self, taps: &[u32]) -> Result<Vec<Guard>> {
        const WHAT: &str = "look up the guards";
        let question = |tap: &u32| RouteNetlinkMessage::GetTrafficFilter(filter(*tap));
        let guard = |outcome: Outcome| {
            if outcome.as_ref().is_err_and(|denied| denied.errno == Errno::ENODEV) {
                return Ok(Guard::NotAsked);
            }
            let has_room = outcome.as_ref().map_or_else(denied_with_room, |_| true);
            let found = answer(outcome, WHAT, NO_FILTERS)?.and_then(as_traffic_control);
            let none = if has_room { Guard::Room } else { Guard::None };
            Ok(found.and_then(|found| found.guard).unwrap_or(none))
        };
        self.request_each(WHAT, taps, question, guard)
    }

    /// Kind and handle of each filter at the guard's preference that is not the guard.
    pub fn other_filters(&self, tap: u32) -> Result<Vec<(String, u32)>> {
        let is_other = |found: &TrafficControl| found.is_first && found.handle != 0 && found.guard.is_none();
        let all = self.filters(tap, TcHandle::MIN_INGRESS)?.into_iter();
        // u32 tells of each hash table too, before it tells of the filters there.
        let mut others: Vec<_> = all.rev().filter(is_other).map(|found| (found.kind, found.handle)).collect();
        others.dedup_by(|one, other| one.0 == other.0 && one.0 != "bpf");
        Ok(others)
    }

    /// Whether the tap has a clsact, and on it nothing but the guard: tap32 made it then, and may take it away.
    pub(super) fn has_only_guard(&self, tap: u32) -> Result<bool> {
        if self.room(tap)?.is_none_or(|room| room.kind != "clsact") {
            return Ok(false);
        }
        let is_ours = |found: &TrafficControl| found.kind == "bpf" && (found.handle == 0 || found.guard.is_some());
        let (out, in_) = (self.filters(tap, TcHandle::MIN_EGRESS)?, self.filters(tap, TcHandle::MIN_INGRESS)?);
        Ok(out.iter().chain(&in_).all(is_ours))
    }

    /// The filters of one direction. The kernel tells of each preference, with the handle 0, before it tells of the filters
    /// there.
    fn filters(&self, tap: u32, minor: u16) -> Result<Vec<TrafficControl>> {
        const WHAT: &str = "list the tap's filters";
        let mut get = TcMessage::with_index(tap.cast_signed());
        get.header.parent = TcHandle { major: u16::MAX, minor };
        let all = self.dump(WHAT, RouteNetlinkMessage::GetTrafficFilter(get))?;
        Ok(unless(NO_FILTERS, WHAT, all)?.into_iter().flatten().filter_map(as_traffic_control).collect())
    }

    /// The frames that the filters of the tap's clsact, or of libvirt's `ingress`, dropped; `None` without either.
    pub fn dropped(&self, tap: u32) -> Result<Option<u32>> {
        Ok(self.room(tap)?.map(|found| found.drops))
    }

    /// The same of every interface that has one of the two, by index.
    pub fn all_dropped(&self) -> Result<BTreeMap<u32, u32>> {
        let get = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let all = self.list("list the clsacts", get)?.into_iter().filter_map(as_traffic_control);
        Ok(all.filter(has_room).map(|found| (found.index, found.drops)).collect())
    }

    /// What the guard is on, or could be.
    fn room(&self, tap: u32) -> Result<Option<TrafficControl>> {
        const WHAT: &str = "look up the tap's clsact";
        let mut get = TcMessage::with_index(tap.cast_signed());
        get.header.parent = TcHandle::CLSACT;
        // Without it, where a clsact was before, the kernel finds noop_qdisc, and says nothing (tc_qdisc_dump_ignore).
        get.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        // Without NLM_F_ECHO the kernel tells everybody but who asks (qdisc_get_notify).
        let get = (RouteNetlinkMessage::GetQueueDiscipline(get), NLM_F_ECHO);
        let outcome = self.request_batch(WHAT, vec![get])?.pop().unwrap_or_else(|| Ok(Vec::new()));
        Ok(answer(outcome, WHAT, NO_FILTERS)?.and_then(as_traffic_control).filter(has_room))
    }
}

fn has_room(qdisc: &TrafficControl) -> bool {
    matches!(qdisc.kind.as_str(), "clsact" | "ingress")
}

/// Whether a filter is missing where it could be: none at the guard's place, or none at all, "Cannot find specified filter
/// chain" (tc_get_tfilter). In doubt not: a clsact that is there already is no error.
fn denied_with_room(denied: &Denied) -> bool {
    denied.errno == Errno::ENOENT || denied.text.contains("chain")
}

fn as_traffic_control(object: Object) -> Option<TrafficControl> {
    if let Object::TrafficControl(found) = object { Some(found) } else { None }
}
