//! FRR on a host is upgraded, or restarted, under guests that run and beside `watch`: what each guest loses.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::common::{Background, wait_for};
use crate::guard::watch;
use crate::harness::{Lab, Probe, sleep};

/// Seconds. FRR's start, and two sessions with OSPF's hellos of 1 s or BGP's connect timer.
const LIMIT: f64 = 20.0;

const GUESTS: [(&str, &str); 2] = [("g1", "10.0.0.10"), ("g2", "10.0.0.11")];

pub fn frr_upgraded_under_guests(lab: &Lab) {
    let next = lab.sh("next_frr 2>/dev/null");
    let next = next.trim();
    for (name, address) in GUESTS {
        lab.start("h1", name, address, "");
    }
    let _watch = watch(lab);
    let routes = || GUESTS.map(|(_, address)| lab.owned("h1", address));
    let before = routes();
    let events = lab.dir.join("upgrade.events");
    let mut monitor = Command::new("ip");
    monitor.args(["-n", &format!("tap32lab-{}-h1", lab.id), "monitor", "route"]).stdin(Stdio::null());
    let monitor = Background(monitor.stdout(File::create(&events).unwrap()).spawn().unwrap());

    let probes = GUESTS.map(|(_, address)| Probe::new(lab, address));
    sleep(1);
    lab.sh(&format!("frr h1 stop && FRR_ROOT={next} frr_start h1"));
    wait_for("both neighbours", 60, || lab.try_sh("neighbours h1 2").0);
    wait_for("both guests", 60, || GUESTS.iter().all(|(_, address)| lab.answers(address)));
    // What is lost a little later counts, too.
    sleep(3);
    let root = lab.sh("readlink /proc/$(cat $dir/h1/zebra.pid)/root");
    assert_eq!(root.trim(), if next.is_empty() { "/" } else { next });
    println!("    {}", lab.sh(&format!("FRR_ROOT={next} frr h1 vtysh -c 'show version' | head -1")).trim());
    for (probe, (name, address)) in probes.into_iter().zip(GUESTS) {
        let seen = probe.stop();
        let seconds = seen["window_ms"].as_f64().unwrap() / 1000.0;
        println!(
            "    {name} {address}: unreachable for {seconds:.1} s, {} of {} lost",
            seen["lost_count"], seen["sent"]
        );
        assert!(seconds < LIMIT, "{seen}");
    }
    drop(monitor);
    // The guests' own routes stay; neither FRR's end nor its start touches them.
    assert_eq!(routes(), before);
    let events = std::fs::read_to_string(events).unwrap();
    assert!(!events.lines().any(|line| line.starts_with("Deleted 10.0.0.1")), "{events}");
    lab.sh("frr h1 stop && frr_start h1");
    wait_for("both neighbours", 60, || lab.try_sh("neighbours h1 2").0);
    for (name, address) in GUESTS {
        lab.end("h1", name, address);
    }
}
