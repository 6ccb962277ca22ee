//! One seed: batches of operations, each judged at its end.

use std::time::{Duration, Instant};

use crate::common::wait_for;
use crate::guard::random::Random;
use crate::judge::difference;
use crate::model::{BRIDGES, Model, Young};
use crate::operations::{Do, Operation, choose};
use crate::stage::{Stage, toml};

/// How long after the last operation the right state may take to come.
const LIMIT: Duration = Duration::from_millis(300);

/// What a command may meet while `watch` is at work on the same tap, and does not try again: the kernel does not take a
/// clsact away whose filters somebody changes, and a route that is there is gone a moment later.
const RACES: &[&str] = &["ongoing filter requests", "is in the way"];

/// How many guests of a batch are left alone.
const ALONE: usize = 8;

/// What a failure tells of the operations.
struct Record {
    seed: u64,
    start: Instant,
    lines: Vec<String>,
    batch: usize,
    /// Where the batch begins among the lines.
    first: usize,
}

impl Record {
    fn fail(&self, stage: &Stage, what: &str) -> ! {
        let said = stage.watch.said();
        let said: Vec<&str> = said.lines().rev().take(20).collect();
        let file = std::env::temp_dir().join(format!("tap32-random-{}.log", self.seed));
        std::fs::write(&file, self.lines.join("\n") + "\n").unwrap();
        println!("the operations of batch {}, in seconds since the start; all are in {}:", self.batch, file.display());
        self.lines[self.first..].iter().for_each(|line| println!("{line}"));
        println!("what became of routes since its begin:");
        for (at, event) in stage.events() {
            println!("{:9.3}  {event}", (at - self.start).as_secs_f64());
        }
        println!("the last lines of watch:");
        said.iter().rev().for_each(|line| println!("  {line}"));
        let replay = format!("TAP32_SEED={} cargo test --test random -- --include-ignored", self.seed);
        panic!("seed {}, batch {}: {what}\nplay it again: {replay}", self.seed, self.batch);
    }
}

pub fn play(seed: u64, operations: usize) {
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut model = Model::new();
    let mut stage = Stage::new(&toml(model.distance, model.guard));
    let mut record = Record { seed, start: Instant::now(), lines: Vec::new(), batch: 0, first: 0 };
    let (mut count, mut took, mut packets) = (0, Vec::new(), 0);
    while count < operations {
        record.batch += 1;
        record.first = record.lines.len();
        let alone = begin(&mut model, &mut random);
        record.lines.push(format!("{:9.3}  # left alone: {}", record.start.elapsed().as_secs_f64(), names(&model)));
        if random.below(30) == 0 && may_restart(&model) {
            perform(&Operation { what: Do::RestartWatch, succeeds: None }, &mut stage, &mut record);
            count += 1;
            model.restart(Instant::now());
        }
        alone.iter().for_each(|(id, _)| drop(stage.guests(&format!("frame {id}"))));
        stage.events();
        stage.send(&alone.iter().map(|(_, address)| address.clone()).collect::<Vec<_>>());
        let size = 20 + random.below(31);
        let mut done = 0;
        while done < size {
            for step in choose(&mut model, &mut random) {
                perform(&step, &mut stage, &mut record);
                done += 1;
            }
        }
        count += done;
        took.push(settle(&mut model, &mut stage, &record));
        packets += judge_alone(&alone, !model.moved, &mut stage, &record);
        wait_until(model.age());
    }
    end(&mut model, &mut stage, &mut record);
    took.sort();
    let (median, max) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "seed {seed}: {count} operations in {} batches, {:.0} s; right after {} ms (median), {} ms (the longest); {packets} \
         packets to guests that were left alone, none lost",
        took.len(),
        record.start.elapsed().as_secs_f64(),
        median.as_millis(),
        max.as_millis()
    );
}

/// What `watch` alone remembers dies with it.
fn may_restart(model: &Model) -> bool {
    model.taps.iter().all(|tap| tap.was.is_none() && !tap.overwritten)
}

fn names(model: &Model) -> String {
    let alone = model.taps.iter().filter(|tap| tap.alone);
    alone.map(|tap| format!("{} ({})", tap.name, tap.owner.address())).collect::<Vec<_>>().join(", ")
}

/// Chooses what a batch may break, and whom it leaves alone: their taps and addresses.
fn begin(model: &mut Model, random: &mut Random) -> Vec<(usize, String)> {
    model.resting.clear();
    model.moved = false;
    model.storm = (random.below(10) < 3).then(|| random.below(BRIDGES.len()));
    let is_fit = |model: &Model, i: usize| {
        let tap = &model.taps[i];
        let is_busy = model.arrivals.contains_key(&tap.owner) || model.elsewhere.contains(&tap.owner);
        let is_settled = tap.known
            && tap.has_room
            && !tap.doubled
            && tap.young.is_none()
            && !is_busy
            && Some(tap.owner.bridge) != model.storm;
        is_settled && tap.open > 0 && model.is_routed(tap)
    };
    let mut alone = Vec::new();
    for i in 0..model.taps.len() {
        let chosen = alone.len() < ALONE && is_fit(model, i) && random.below(2) == 0;
        model.taps[i].alone = chosen;
        if chosen {
            alone.push((model.taps[i].id, model.taps[i].owner.address()));
        }
    }
    alone
}

fn perform(operation: &Operation, stage: &mut Stage, record: &mut Record) {
    let at = record.start.elapsed().as_secs_f64();
    record.lines.push(format!("{at:9.3}  {operation}"));
    let (succeeded, said) = match &operation.what {
        Do::Shell(line) => stage.shell(line),
        Do::Guests(line) => {
            let said = stage.guests(line);
            (said == "ok", said)
        }
        Do::Reload(config, is_broken) => {
            if *is_broken {
                stage.configure("distance = many\n");
                stage.reload();
            }
            stage.configure(config);
            if !is_broken {
                stage.reload();
            }
            (true, String::new())
        }
        Do::RestartWatch => {
            stage.restart_watch();
            (true, String::new())
        }
        Do::KillClaimer(guest) => {
            stage.kill_claimer(*guest);
            (true, String::new())
        }
    };
    let is_race = RACES.iter().any(|race| said.contains(race));
    if operation.succeeds.is_some_and(|succeeds| succeeds != succeeded && !is_race) {
        record.fail(stage, &format!("`{operation}` {}: {said}", if succeeded { "succeeded" } else { "failed" }));
    }
}

fn wait_until(end: Option<Instant>) {
    wait_for("what takes its time", 5, || end.is_none_or(|end| Instant::now() > end));
}

/// Once `watch` has looked at everything, nothing is left of what it may oversee or put off.
fn end(model: &mut Model, stage: &mut Stage, record: &mut Record) {
    wait_until(model.taps.iter().filter_map(|tap| tap.young).map(Young::end).max());
    let config = toml(model.distance, model.guard);
    perform(&Operation { what: Do::Reload(config, false), succeeds: None }, stage, record);
    model.look();
    settle(model, stage, record);
}

/// Waits until all is as it should be; how long that took.
fn settle(model: &mut Model, stage: &mut Stage, record: &Record) -> Duration {
    let last = Instant::now();
    // The look that sees all right begins when tap32 has done, or later.
    let took = loop {
        let now = Instant::now();
        match difference(&model.expected(now), stage) {
            None => break now - last,
            Some(what) if now - last > LIMIT => {
                record.fail(stage, &format!("{} ms after the last operation: {what}", LIMIT.as_millis()))
            }
            Some(_) => {}
        }
    };
    let guard = model.guard;
    let routed: Vec<bool> = model.taps.iter().map(|tap| model.is_routed(tap)).collect();
    for (tap, routed) in model.taps.iter_mut().zip(routed) {
        tap.overwritten &= !routed;
        tap.stripped = false;
        tap.unlisted &= !routed;
    }
    for tap in &mut model.taps {
        tap.known = true;
        tap.moving = false;
        tap.has_room |= guard && tap.young.is_none() && tap.bridge.is_some();
    }
    took
}

/// No guest that was left alone may have lost a packet or its route; how many packets they got.
fn judge_alone(alone: &[(usize, String)], same_metric: bool, stage: &mut Stage, record: &Record) -> u64 {
    let sent = stage.stop();
    let start = Instant::now();
    let lost = loop {
        let received = stage.received();
        let of = |id: &usize| received.get(&id.to_string()).copied().unwrap_or(0);
        let lost: Vec<String> = alone
            .iter()
            .filter(|(id, address)| of(id) != sent.get(address).copied().unwrap_or(0))
            .map(|(id, address)| format!("{address} got {} of {} packets", of(id), sent.get(address).unwrap_or(&0)))
            .collect();
        if lost.is_empty() || start.elapsed() > LIMIT {
            break lost;
        }
    };
    if !lost.is_empty() {
        record.fail(stage, &format!("a guest that was left alone: {}", lost.join(", ")));
    }
    // A claim that somebody takes back is no loss, nor is a route with the distance of before.
    let is_its = |event: &String| alone.iter().any(|(_, address)| event.starts_with(&format!("Deleted {address} ")));
    let is_loss = |event: &String| is_its(event) && !event.ends_with("metric 10") && same_metric;
    if let Some((_, gone)) = stage.events().into_iter().find(|(_, event)| is_loss(event)) {
        record.fail(stage, &format!("the route of a guest that was left alone went: {gone}"));
    }
    sent.values().sum()
}
