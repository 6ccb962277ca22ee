//! What the tests promise of themselves. They need root: `sudo tests/run`.

mod common;

use std::process::Command;

use common::{Background, Host, text, wait_for};

/// A namespace must go, with the processes in it, also when its test fails.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_host_leaves_nothing_behind() {
    let host = Host::bare();
    let name = host.name.clone();
    let mut sleeper = Background(host.command("sleep").arg("60").spawn().unwrap());
    wait_for("sleeper", 5, || !host.ok(&format!("ip netns pids {name}")).trim().is_empty());
    drop(host);
    assert!(!sleeper.0.wait().unwrap().success());
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    assert!(!text(&list.stdout).contains(&name));
}
