//! What the steps of `reconcile` repair, for each tap: a tap whose route is well may lack something else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::plan::Step;
use super::state::TapRow;
use crate::config::CLAIM_METRIC;

/// What is not as it should be, in a few words each.
#[derive(Debug, Default)]
pub struct Repairs {
    taps: BTreeMap<u32, Vec<&'static str>>,
    addresses: BTreeMap<Ipv4Addr, Vec<&'static str>>,
    /// By the bridge's name.
    bridges: BTreeSet<(String, &'static str)>,
}

impl Repairs {
    /// Of the steps of a plan for everything.
    pub fn of(steps: &[Step]) -> Self {
        let mut repairs = Self::default();
        for step in steps {
            repairs.add(step);
        }
        repairs
    }

    fn add(&mut self, step: &Step) {
        let mut tap = |index, what| self.taps.entry(index).or_default().push(what);
        let mut address = |address, what| self.addresses.entry(address).or_default().push(what);
        match step {
            Step::Attach(port, was) => tap(
                port.tap.index,
                match was {
                    _ if !was.attached => "the tap is on no bridge",
                    _ if was.mac != port.mac => "the tap has another MAC than its guest's",
                    _ if was.mtu != port.mtu => "the tap has another MTU than its bridge",
                    _ if !was.up => "the tap is down",
                    _ => "the bridge's FDB lacks the tap's MAC",
                },
            ),
            Step::Guard(device, _, None) => tap(device.index, "the guard is missing"),
            Step::Guard(device, _, Some(_)) => tap(device.index, "the guard is another guest's"),
            Step::Unguard(device, ..) => tap(device.index, "there is a guard, and the configuration wants none"),
            Step::Isolate(device, true) => tap(device.index, "the port is not isolated"),
            Step::Isolate(device, false) => {
                tap(device.index, "the port is isolated on a bridge whose proxy_arp_pvlan is 0");
            }
            Step::Detach(device) => tap(device.index, "another tap has the guest"),
            Step::AddNeighbour(entry) => address(entry.address, "the permanent neighbour entry is missing"),
            Step::AddRoute(route) => address(route.address, "the route is missing"),
            Step::MoveRoute(route, _) => address(route.address, "the route leads to another bridge"),
            Step::DelRoute(route) if route.metric == CLAIM_METRIC => address(route.address, "a claim has no claimer"),
            Step::DelRoute(route) => address(route.address, "an old route is there too"),
            Step::OwnEntry(bridge, _) => {
                self.bridges.insert((bridge.name.clone(), "the FDB lacks the bridge's own MAC"));
            }
            Step::DelNeighbour(entry) => {
                self.bridges
                    .insert((entry.bridge.name.clone(), "there are neighbour entries of guests that do not run"));
            }
            // Parts of other steps, and of `down`.
            Step::Confirm(_) | Step::Clsact(_) | Step::Forget(_) | Step::Dismiss(_) => {}
        }
    }

    /// What is wrong with a tap, besides what its own sentence says: the same text for taps with the same faults.
    pub(crate) fn of_tap(&self, tap: &TapRow) -> Option<String> {
        // Of two taps with one guest, the admitted one has the route.
        let of_guest = tap.address.filter(|_| tap.is_admitted).and_then(|address| self.addresses.get(&address));
        let faults: Vec<&str> = self.taps.get(&tap.index).into_iter().chain(of_guest).flatten().copied().collect();
        (!faults.is_empty()).then(|| format!("{}: {FIX}", faults.join(", ")))
    }

    /// A sentence for each fault of a managed bridge.
    pub(crate) fn of_bridges(&self) -> impl Iterator<Item = String> {
        self.bridges.iter().map(|(bridge, what)| format!("bridge {bridge}: {what}: {FIX}"))
    }
}

const FIX: &str = "`tap32 reconcile` fixes it, or says why it cannot";
