//! tap32 on two hosts in two racks with real libvirt, QEMU and FRR: `sudo tests/run` builds what it needs.
//!
//! One lab for all scenarios with OSPF, one for some with BGP, and one of two MDUs; each judged by what the client behind the core
//! sees, and by `ip -j`, `virsh` and `vtysh`. `LAB_ONLY='life round'` runs those whose names hold one of the words.

mod common;
#[path = "lab/dhcp.rs"]
mod dhcp;
#[path = "lab/guard.rs"]
mod guard;
#[path = "lab/guests.rs"]
mod guests;
#[path = "lab/harness.rs"]
mod harness;
#[path = "lab/hop.rs"]
mod hop;
#[path = "lab/mdu.rs"]
mod mdu;
#[path = "lab/migration.rs"]
mod migration;
#[path = "lab/upgrade.rs"]
mod upgrade;
#[path = "lab/uplinks.rs"]
mod uplinks;

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use harness::Finds::{G1, NoGuest};
use harness::{Finds, Lab, Scenario};

const SCENARIOS: &[Scenario] = &[
    ("life", NoGuest, guests::life),
    ("only_guests_are_announced", NoGuest, guests::only_guests_are_announced),
    ("sigkill_of_qemu", NoGuest, guests::sigkill_of_qemu),
    ("a_refused_mac", NoGuest, guests::a_refused_mac),
    ("ethernet_with_scripts", NoGuest, guests::ethernet_with_scripts),
    ("a_guest_of_a_libvirt_network", NoGuest, guests::a_guest_of_a_libvirt_network),
    ("guests_that_are_told_nothing", NoGuest, dhcp::guests_that_are_told_nothing),
    ("plain_qemu_incoming", NoGuest, migration::plain_qemu_incoming),
    ("the_table_of_the_three_ways", NoGuest, migration::the_table_of_the_three_ways),
    ("live_migration_under_load", NoGuest, migration::live_migration_under_load),
    ("guests_of_one_subnet_reach_each_other", G1, guests::guests_of_one_subnet_reach_each_other),
    ("libvirtd_restarted", G1, guests::libvirtd_restarted),
    ("a_cancelled_migration", G1, migration::a_cancelled_migration),
    ("a_second_guest_with_a_taken_address", G1, guests::a_second_guest_with_a_taken_address),
    ("guarded_before_it_arrives", G1, guard::guarded_before_it_arrives),
    ("a_neighbour_on_the_bridge_notices_nothing", G1, migration::a_neighbour_on_the_bridge_notices_nothing),
    ("watch_sees_what_hooks_miss", NoGuest, guests::watch_sees_what_hooks_miss),
    ("guarded_as_long_as_it_runs", NoGuest, guard::guarded_as_long_as_it_runs),
    ("bandwidth_then_guard", NoGuest, guard::bandwidth_then_guard),
    ("guard_then_bandwidth", NoGuest, guard::guard_then_bandwidth),
    ("domiftune_beside_watch", NoGuest, guard::domiftune_beside_watch),
    ("bandwidth_beside_watch", NoGuest, guard::bandwidth_beside_watch),
];

const UPGRADE: &[Scenario] = &[("frr_upgraded_under_guests", NoGuest, upgrade::frr_upgraded_under_guests)];

/// What the fabric has a part in, again with BGP.
const WITH_BGP: &[Scenario] = &[
    ("life", NoGuest, guests::life),
    ("only_guests_are_announced", NoGuest, guests::only_guests_are_announced),
    ("a_host_is_never_transit", NoGuest, guests::a_host_is_never_transit),
    ("somebodys_route_map_stays", NoGuest, uplinks::somebodys_route_map_stays),
    ("live_migration_under_load", NoGuest, migration::live_migration_under_load),
    ("a_cancelled_migration", G1, migration::a_cancelled_migration),
    ("a_second_guest_with_a_taken_address", G1, guests::a_second_guest_with_a_taken_address),
];

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lab_with_ospf() {
    run("ospf", SCENARIOS, &[uplinks::SCENARIOS, UPGRADE].concat());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lab_with_bgp() {
    run("bgp", WITH_BGP, &[uplinks::SCENARIOS, UPGRADE].concat());
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn lab_with_mdus() {
    run("mdu", mdu::SCENARIOS, mdu::CUTS);
}

/// One lab at a time: they would take each other's cores.
static LAB: Mutex<()> = Mutex::new(());

/// Runs scenarios, and those that cut links, in one lab.
fn run(shape: &'static str, scenarios: &[Scenario], cuts: &[Scenario]) {
    let _one = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    // Words, of which a scenario's name holds one.
    let only = std::env::var("LAB_ONLY").unwrap_or_default();
    let chosen = |name: &str| only.is_empty() || only.split(' ').any(|word| name.contains(word));
    let all = scenarios.iter().map(|scenario| (scenario, false));
    let all = all.chain(cuts.iter().map(|scenario| (scenario, true)));
    let all: Vec<_> = all.filter(|((name, ..), _)| chosen(name)).collect();
    assert!(!all.is_empty(), "{shape}: no scenario has one of these words in its name: {only}");
    let lab = Lab::up(shape);
    let mut failed = Vec::new();
    let mut found = NoGuest;
    for ((name, finds, scenario), cuts_links) in all {
        println!("lab, {shape}: {name}");
        let start = Instant::now();
        if found == G1 && *finds == NoGuest {
            lab.end("h1", "g1", "10.0.0.10");
        }
        found = *finds;
        let passed = passes(&lab, *finds, *scenario, cuts_links);
        let word = if passed { "ok" } else { "FAILED" };
        println!("lab, {shape}: {name} ... {word} ({:.1} s)", start.elapsed().as_secs_f64());
        if !passed {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// One that failed while BFD lost a link that nobody cut is run again, at most twice: this machine's two cores
/// sometimes starve a BFD for its 200 ms, which is not what is shown.
fn passes(lab: &Lab, finds: Finds, scenario: fn(&Lab), cuts_links: bool) -> bool {
    let whole = || {
        if finds == G1 {
            lab.have_g1();
        }
        scenario(lab);
    };
    for _ in 0..3 {
        let links_lost = lab.links_lost();
        if std::panic::catch_unwind(AssertUnwindSafe(whole)).is_ok() {
            return true;
        }
        lab.clean_up();
        if cuts_links || lab.links_lost() == links_lost {
            return false;
        }
        println!("    BFD lost a link meanwhile");
    }
    false
}
