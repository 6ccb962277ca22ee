//! Random operations on a host with `watch` running, against a model: guests come and go, are killed, arrive from other
//! hosts and leave to them; other programs and people do what they do to taps, bridges and routes. After each batch the
//! host must look as the model says within 300 ms, and no guest that was left alone may have lost a packet or its route.
//!
//! The seeds are printed, and one is played again by `TAP32_SEED=N cargo test --test random -- --include-ignored`. Needs
//! root: `sudo tests/run`.

mod breaking;
mod coming;
#[path = "../common/mod.rs"]
mod common;
mod cutting;
#[path = "../guard/mod.rs"]
mod guard;
mod judge;
mod model;
mod operations;
mod play;
mod programs;
mod stage;
mod storms;

use std::time::{SystemTime, UNIX_EPOCH};

use play::play;

/// So many seeds, each for so many operations.
const SEEDS: u64 = 4;
const OPERATIONS: usize = 5_200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn whatever_happens_the_right_state_comes_at_once() {
    let operations = number("TAP32_OPERATIONS").map_or(OPERATIONS, |number| number as usize);
    match number("TAP32_SEED") {
        Some(seed) => play(seed, operations),
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 % 100_000_000;
            (0..SEEDS).for_each(|i| play(now + i, operations));
        }
    }
}
