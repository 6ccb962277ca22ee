//! Golden cases for everything pure: tests/golden/KIND/CASE/ holds the input files and `expected`.
//! `UPDATE=1 cargo test --test golden` writes what the code says now; read the diff before you commit it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tap32::addr;
use tap32::checks::facts::{Answers, Facts};
use tap32::checks::text::text as doctor_text;
use tap32::cli;
use tap32::config::Config;
use tap32::fabric::render;
use tap32::guest::plan::{Wanted, plan};
use tap32::guest::policy;
use tap32::guest::snapshot::Snapshot;
use tap32::guest::state::Status;
use tap32::host::{self, Seen};
use tap32::machine::{libvirt_xml, qemu};
use tap32::verbs::doctor;
use tap32::verbs::{Verb, status};

/// Runs `judge` on every case of a kind and compares.
fn check(kind: &str, judge: impl Fn(&Path) -> String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", root.display());
    let mut failures = String::new();
    for case in &cases {
        let seen = judge(case);
        let file = case.join("expected");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &seen).unwrap();
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        if seen != expected {
            writeln!(failures, "{}\n--- expected\n{expected}\n--- seen\n{seen}", case.display()).unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn read(case: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(case.join(file)).ok()
}

fn config(case: &Path) -> Config {
    read(case, "tap32.toml").map_or_else(Config::default, |text| Config::parse(&text).unwrap())
}

/// `arguments`, one a line, the first being argv[0]; run from the case's folder.
#[test]
fn cli() {
    check("cli", |case| {
        let arguments = read(case, "arguments").unwrap();
        let mut lines = arguments.lines();
        let output = {
            use std::os::unix::process::CommandExt;
            Command::new(env!("CARGO_BIN_EXE_tap32"))
                .arg0(lines.next().unwrap())
                .args(lines)
                .current_dir(case)
                .env_remove("TAP32_CONFIG")
                .stdin(Stdio::null())
                .output()
                .unwrap()
        };
        let mut seen = format!("exit {}\n", output.status.code().unwrap());
        for (name, bytes) in [("stdout", output.stdout), ("stderr", output.stderr)] {
            if !bytes.is_empty() {
                let text = String::from_utf8(bytes).unwrap().replace(env!("CARGO_PKG_VERSION"), "VERSION");
                write!(seen, "--- {name}\n{text}").unwrap();
            }
        }
        seen
    });
}

#[test]
fn config_file() {
    check("config", |case| match Config::parse(&read(case, "tap32.toml").unwrap()) {
        Ok(config) => format!("{config:#?}\nsettled metric {}\n", config.settled_metric()),
        Err(error) => format!("error: {error:#}\n"),
    });
}

/// `arguments`, one a line, and the name of the `tap`.
#[test]
fn qemu_command_line() {
    check("qemu", |case| {
        let arguments = read(case, "arguments").unwrap();
        let arguments: Vec<&str> = arguments.lines().collect();
        let tap = read(case, "tap").unwrap_or_else(|| "vnet0".into());
        match qemu::guest_of(&arguments, tap.trim()) {
            Ok(qemu::Parent::Guest { mac, incoming }) => {
                format!("{}{}\n", addr::show(mac), if incoming { ", incoming" } else { "" })
            }
            Ok(qemu::Parent::Silent(reason)) => format!("silent: {reason}\n"),
            Err(error) => format!("error: {error:#}\n"),
        }
    });
}

/// `snapshot.toml`, perhaps `tap32.toml`, and what is `wanted`: `up TAP MAC [BRIDGE]`, `down TAP|- MAC|-`, `reconcile`.
#[test]
fn plan_steps() {
    check("plan", |case| {
        let config = config(case);
        let snapshot: Snapshot = toml::from_str(&read(case, "snapshot.toml").unwrap()).unwrap();
        let wanted = read(case, "wanted").unwrap();
        let mut words = wanted.split_whitespace().map(|word| (word != "-").then_some(word));
        let (verb, tap, mac) = (words.next().flatten().unwrap(), words.next().flatten(), words.next().flatten());
        let bridge = words.next().flatten();
        let guest = match mac.map(|mac| policy::guest_mac(&config, addr::parse_mac(mac).unwrap())).transpose() {
            Ok(guest) => guest,
            Err(refusal) => return format!("refused: {refusal}\n"),
        };
        let wanted = match verb {
            "up" => Wanted::Up { tap: tap.unwrap(), guest: guest.unwrap(), bridge },
            "down" => Wanted::Down { tap, guest },
            "reconcile" => Wanted::Everything,
            other => panic!("{other} in {}", case.display()),
        };
        match plan(&config, &wanted, &snapshot) {
            Ok(steps) if steps.is_empty() => "nothing to do\n".into(),
            Ok(steps) => steps.iter().map(|step| format!("{step}\n")).collect(),
            Err(refusal) => format!("refused: {refusal}\n"),
        }
    });
}

/// `snapshot.toml`, perhaps `tap32.toml`: the table for people and the JSON for programs.
#[test]
fn status_of_snapshot() {
    check("status", |case| {
        let config = config(case);
        let snapshot: Snapshot = toml::from_str(&read(case, "snapshot.toml").unwrap()).unwrap();
        let status = Status::of(&config, &snapshot);
        format!("{}\n{}\n", status::table(&status, false), serde_json::to_string_pretty(&status).unwrap())
    });
}

/// `domain.xml`: the NICs that could be ours.
#[test]
fn libvirt_domain() {
    check("libvirt", |case| {
        match libvirt_xml::nics(&read(case, "domain.xml").unwrap(), |network| Some(format!("of {network}"))) {
            Ok(nics) => {
                nics.iter().map(|nic| format!("{} {:?} {:?}\n", addr::show(nic.mac), nic.attachment, nic.tap)).collect()
            }
            Err(error) => format!("error: {error:#}\n"),
        }
    });
}

/// `tap32.toml` and what is `seen.toml`: the changes, then what is wrong and not setup's to change.
#[test]
fn setup_changes() {
    check("setup", |case| {
        let seen: Seen = toml::from_str(&read(case, "seen.toml").unwrap()).unwrap();
        let plan = host::plan(&config(case), &seen);
        let changes = plan.changes.iter().map(|change| format!("{change}\n"));
        let problems = plan.problems.iter().map(|problem| format!("problem: {problem}\n"));
        let text: String = changes.chain(problems).collect();
        if text.is_empty() { "nothing to do\n".into() } else { text }
    });
}

/// `tap32.toml` and `what` to render from it.
#[test]
fn rendered() {
    check("render", |case| {
        let what = read(case, "what").unwrap();
        let arguments = ["tap32", "render"].into_iter().chain(what.split_whitespace()).map(Into::into);
        let Verb::Render(what) = cli::parse(&arguments.collect::<Vec<_>>()).unwrap().verb else { unreachable!() };
        match render::render(&config(case), &what) {
            Ok(text) => text,
            Err(error) => format!("error: {error:#}\n"),
        }
    });
}

/// FRR's answers: a file a question in `frr/`; those that are not there are taken from the case that `frr/like` names.
/// An answer that begins with `error: ` is none.
fn frr_answers(case: &Path) -> Option<BTreeMap<String, Result<String, String>>> {
    let mut answers = BTreeMap::new();
    let folder = case.join("frr");
    for file in std::fs::read_dir(&folder).ok()?.map(|entry| entry.unwrap().path()) {
        let question = file.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        if question == "like" {
            let other = frr_answers(&case.parent().unwrap().join(text.trim())).unwrap();
            other.into_iter().for_each(|(question, answer)| {
                answers.entry(question).or_insert(answer);
            });
        } else {
            let answer =
                text.strip_prefix("error: ").map_or(Ok(text.clone()), |error| Err(error.trim_end().to_owned()));
            answers.insert(question, answer);
        }
    }
    Some(answers)
}

/// `facts.toml`, perhaps `tap32.toml` and `frr/`: what people see, then every row.
#[test]
fn doctor_rows() {
    check("doctor", |case| {
        let mut facts: Facts = toml::from_str(&read(case, "facts.toml").unwrap()).unwrap();
        facts.frr = frr_answers(case).map(Answers);
        let rows = doctor::judge(&config(case), &facts);
        let mut text = doctor_text(&rows, false);
        for row in &rows {
            writeln!(text, "{}", serde_json::to_string(row).unwrap()).unwrap();
        }
        text
    });
}
