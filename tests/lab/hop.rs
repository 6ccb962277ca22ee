//! One migration under load: what it cost, and how much it may.

use serde_json::Value;

use crate::harness::{Lab, Probe, crashed, lost_times, sleep};

/// `[migration] settle` of the labs, in seconds (fabric.sh).
pub const SETTLE: u64 = 5;

/// How long a move is watched after its claim has ended, in seconds, and a little longer: virsh comes back after the first
/// frame. ospfd looks at external routes again within one second (OSPF_ASE_CALC_INTERVAL).
pub const AFTER: u64 = 1;

/// The bound: what a migration may cost beyond the guest's own downtime, in ms.
pub const BOUND: f64 = 60.0;

/// What BGP costs more: bgpd lets a route wait for 50 ms before it looks at it (bgp_process_queue_init), at the
/// host, the switch and the core. No command changes that in FRR 8.4.
pub const BGP_QUEUES: f64 = 3.0 * 50.0;

/// The bound in the lab of MDUs: from each host to where the ways part there are three queues, as in the flat lab.
/// With a leaf between host and border there would be four, which take 204 ms alone (measured, `ip -ts monitor route`).
pub const ACROSS: f64 = 200.0;

/// One migration under load.
pub struct Hop {
    pub gap: f64,
    pub downtime: f64,
    pub window: f64,
    pub lost: Vec<f64>,
}

impl Hop {
    /// Of what the probe saw.
    pub fn of(seen: &Value, downtime: f64) -> Self {
        let number = |key: &str| seen[key].as_f64().unwrap();
        Self { gap: number("longest_gap_ms"), downtime, window: number("window_ms"), lost: lost_times(seen) }
    }

    fn beyond(&self) -> f64 {
        self.gap - self.downtime
    }
}

/// A move of g1.
pub struct Move {
    pub from: &'static str,
    pub to: &'static str,
    /// What the hosts' hooks do meanwhile: `hook_mode` of lib.sh.
    pub hooks: String,
    /// How long it is watched afterwards, in seconds.
    pub after: u64,
    /// See [`within_bound`]; none where packets are to be lost.
    pub bound: Option<f64>,
}

/// From each host to the next one, with the hooks as installed, within the lab's bound, and watched until the claim has ended.
pub fn moves(lab: &Lab, hosts: &[&'static str]) -> Vec<Move> {
    let step = |pair: &[&'static str]| {
        let hooks = "tap32".to_owned();
        Move { from: pair[0], to: pair[1], hooks, after: SETTLE + AFTER, bound: Some(bound(lab)) }
    };
    hosts.windows(2).map(step).collect()
}

/// Starts g1 where the first move begins, makes one move after another under load, each of them looked at afterwards, and
/// ends it. What each move cost.
pub fn journey(lab: &Lab, address: &str, moves: &[Move], mut then: impl FnMut(&Move)) -> Vec<Hop> {
    let hops = moves.iter().enumerate().map(|(number, step)| {
        lab.sh(&format!("hook_mode {}", step.hooks));
        let mut at = (number > 0).then_some(step.from);
        let hop = within_bound(step.bound, || {
            if at != Some(step.from) {
                // It crashed, or its move is measured again.
                if let Some(at) = at {
                    lab.end(at, "g1", address);
                }
                lab.start(step.from, "g1", address, "");
            }
            at = Some(step.to);
            hop(lab, address, step)
        });
        let Move { from, to, hooks, .. } = step;
        println!("    {from} to {to}, {hooks}: gap {:.0} ms, the guest's own downtime {:.0} ms", hop.gap, hop.downtime);
        then(step);
        hop
    });
    let hops = hops.collect();
    lab.end(moves[moves.len() - 1].to, "g1", address);
    lab.sh("hook_mode tap32");
    hops
}

/// Moves the running g1 under load; `None` if it crashed, or if a link was lost: this machine's two cores sometimes starve
/// a BFD for its 200 ms, which is not what is measured.
fn hop(lab: &Lab, address: &str, step: &Move) -> Option<Hop> {
    let links_lost = lab.links_lost();
    let probe = Probe::new(lab, address);
    sleep(1);
    lab.sh(&lab.migrate_to(step.from, step.to, "g1", ""));
    let downtime = lab.downtime(step.from, "g1");
    sleep(step.after);
    let seen = probe.stop();
    if crashed(&lab.console("g1")) {
        println!("    the guest crashed after a migration under TCG");
        return None;
    }
    if lab.links_lost() != links_lost {
        println!("    BFD lost a link meanwhile; packets lost at {:.0?} ms", spans(&lost_times(&seen)));
        return None;
    }
    Some(Hop::of(&seen, downtime))
}

/// From when to when packets were lost, without a break of more than two echoes.
pub fn spans(lost: &[f64]) -> Vec<(f64, f64)> {
    let mut spans: Vec<(f64, f64)> = Vec::new();
    for &time in lost {
        match spans.last_mut() {
            Some((_, until)) if time - *until <= 25.0 => *until = time,
            _ => spans.push((time, time)),
        }
    }
    spans
}

/// What a hop may cost beyond the guest's own downtime, in ms.
pub fn bound(lab: &Lab) -> f64 {
    match lab.shape {
        "ospf" => BOUND,
        "bgp" => BOUND + BGP_QUEUES,
        _ => ACROSS,
    }
}

/// A hop within the bound, and all that was lost lost in one gap: not before the switch-over, not when the claim is
/// demoted. Of the bound's 60 ms tap32 takes half a millisecond (`ip -ts monitor`: first frame 48.8077 s, claim 48.8082 s,
/// the core's route 48.8295 and 48.8404 s); the rest is six FRRs on two cores that they share with the guests, so a hop
/// that misses it, or in which the guest crashed, is made again, at most twice.
pub fn within_bound(bound: Option<f64>, mut hop: impl FnMut() -> Option<Hop>) -> Hop {
    for _ in 0..3 {
        let Some(hop) = hop() else { continue };
        let Some(bound) = bound else { return hop };
        // Two paths may switch an echo apart.
        assert!(hop.window <= hop.gap + 20.0, "longest gap {} ms, but lost at {:.0?} ms", hop.gap, spans(&hop.lost));
        if hop.beyond() <= bound {
            return hop;
        }
        println!("    {:.0} ms over the guest's own downtime", hop.beyond());
    }
    panic!(
        "three times more than {bound:?} ms beyond the guest's own downtime, or the guest crashed, or BFD lost a link"
    );
}
