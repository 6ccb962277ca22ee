//! Golden cases for everything pure: tests/golden/KIND/CASE/ holds the input files and `expected`, and inherits those
//! that it has not from the case that its `like` names.
//! `UPDATE=1 cargo test --test golden` writes what the code says now; read the diff before you commit it.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use common::case::{Case, chain};
use tap32::addr::{self, GuestMac};
use tap32::checks;
use tap32::checks::facts::{Facts, Saved};
use tap32::checks::row::Row;
use tap32::checks::text::text as doctor_text;
use tap32::cli;
use tap32::config::Config;
use tap32::fabric::answers::Answers;
use tap32::fabric::uplinks;
use tap32::guest::plan::{Wanted, plan};
use tap32::guest::policy;
use tap32::guest::repairs::Repairs;
use tap32::guest::snapshot::Snapshot;
use tap32::guest::state::Status;
use tap32::host::{self, Seen};
use tap32::machine::{libvirt_xml, qemu};
use tap32::verbs::{Verb, render, status_table, uplink};

/// Runs `judge` on every case of a kind and compares.
fn check(kind: &str, judge: impl Fn(&Case) -> String) {
    let mut failures = String::new();
    for case in Case::all(kind) {
        let seen = judge(&case);
        if std::env::var_os("UPDATE").is_some() {
            case.update(&seen);
        }
        let expected = case.read("expected").unwrap_or_default();
        if seen != expected {
            writeln!(failures, "{}\n--- expected\n{expected}\n--- seen\n{seen}", case.folder().display()).unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// The text of a file that every case of the kind has.
fn read(case: &Case, file: &str) -> String {
    case.read(file).unwrap_or_else(|| panic!("{} has no {file}", case.folder().display()))
}

fn config(case: &Case) -> Config {
    case.read("tap32.toml").map_or_else(Config::default, |text| Config::parse(&text).unwrap())
}

/// `arguments`, one a line, the first being argv[0]; run from the case's folder.
#[test]
fn cli() {
    check("cli", |case| {
        let arguments = read(case, "arguments");
        let mut lines = arguments.lines();
        let output = {
            use std::os::unix::process::CommandExt;
            Command::new(env!("CARGO_BIN_EXE_tap32"))
                .arg0(lines.next().unwrap())
                .args(lines)
                .current_dir(case.folder())
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

/// `tap32.toml`: what it says, or what is wrong with it and what is salvaged all the same.
#[test]
fn config_file() {
    check("config", |case| match Config::parse(&read(case, "tap32.toml")) {
        Ok(config) => format!("{config:#?}\nsettled metric {}\n", config.settled_metric()),
        Err(error) => {
            let Config { mac_prefix, protocol, bridges, .. } = Config::salvage(&read(case, "tap32.toml"));
            let bridges: Vec<_> = bridges.iter().map(|bridge| bridge.name.as_str()).collect();
            let guest = GuestMac::from_address([10, 0, 0, 10].into(), mac_prefix);
            format!("error: {error:#}\nsalvaged: {guest}, protocol {protocol}, {}\n", bridges.join(" "))
        }
    });
}

/// `arguments`, one a line, and the name of the `tap`.
#[test]
fn qemu_command_line() {
    check("qemu", |case| {
        let arguments = read(case, "arguments");
        let arguments: Vec<&str> = arguments.lines().collect();
        let tap = case.read("tap").unwrap_or_else(|| "vnet0".into());
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
        let snapshot: Snapshot = toml::from_str(&read(case, "snapshot.toml")).unwrap();
        let wanted = read(case, "wanted");
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
            other => panic!("{other} in {}", case.folder().display()),
        };
        match plan(&config, &wanted, &snapshot) {
            Ok(steps) if steps.is_empty() => "nothing to do\n".into(),
            Ok(steps) => steps.iter().map(|step| format!("{step:#}\n")).collect(),
            Err(refusal) => format!("refused: {refusal}\n"),
        }
    });
}

/// `snapshot.toml`, perhaps `tap32.toml`: the table for people and the JSON for programs.
#[test]
fn status_of_snapshot() {
    check("status", |case| {
        let config = config(case);
        let snapshot: Snapshot = toml::from_str(&read(case, "snapshot.toml")).unwrap();
        let status = Status::of(&config, &snapshot);
        let table = table(&config, &snapshot, &status, false);
        format!("{table}\n{}\n", serde_json::to_string_pretty(&status).unwrap())
    });
}

fn table(config: &Config, snapshot: &Snapshot, status: &Status, all: bool) -> String {
    let steps = plan(config, &Wanted::Everything, snapshot).unwrap();
    status_table::table(status, &Repairs::of(&steps), all, false)
}

/// `snapshot.toml` and `guests`, whose lines stand for many: bridge, first address, how many, and what of
/// them. The table for people, and that with `--all` each has a row.
#[test]
fn status_of_many() {
    check("status_of_many", |case| {
        let mut snapshot = read(case, "snapshot.toml");
        for line in read(case, "guests").lines() {
            let [bridge, first, number, state] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let first = u32::from(first.parse::<Ipv4Addr>().unwrap());
            for address in (first..).take(number.parse().unwrap()).map(Ipv4Addr::from) {
                snapshot += &guest(bridge, address, state);
            }
        }
        let config = config(case);
        let snapshot = toml::from_str(&snapshot).unwrap();
        let status = Status::of(&config, &snapshot);
        let json = serde_json::to_value(&status).unwrap();
        let all = table(&config, &snapshot, &status, true);
        let names = json["taps"].as_array().unwrap().iter().map(|tap| tap["tap"].as_str().unwrap());
        let is_listed = |name: &&str| all.lines().any(|line| line.starts_with(&format!("{name} ")));
        let (listed, not): (Vec<_>, Vec<_>) = names.partition(is_listed);
        let table = table(&config, &snapshot, &status, false);
        format!("{table}--all has a row for {} taps, and for {} none\n", listed.len(), not.len())
    });
}

/// As TOML, a tap that is named after its address, with all that a guest has but for what `state` says; only an orphan's
/// route has no tap.
fn guest(bridge: &str, address: Ipv4Addr, state: &str) -> String {
    let [a, b, c, d] = address.octets();
    let index = 1000 + u32::from(c) * 256 + u32::from(d);
    let prefix = if state == "foreign" { "43" } else { "42" };
    let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let guard = if state == "foreign" { "none".to_owned() } else { format!("02:42:{mac}") };
    let mtu = if state == "wrong-mtu" { 1400 } else { 1500 };
    let (up, isolated) = (state != "down", state != "not-isolated");
    let tap = format!(
        "[[link]]\nname = 't{c}.{d}'\nindex = {index}\nkind = 'tap'\nmac = 'fe:{prefix}:{mac}'\nmtu = {mtu}\nup = {up}\n\
         master = {bridge}\nisolated = {isolated}\nguard = '{guard}'\n"
    );
    let neighbour =
        format!("[[neighbour]]\naddress = '{address}'\nmac = '02:42:{mac}'\ndev = {bridge}\nprotocol = 132\n");
    let route = format!("[[route]]\naddress = '{address}'\nprotocol = 132\nmetric = 4026531940\ndev = {bridge}\n");
    let other =
        format!("[[route]]\naddress = '{address}'\nprotocol = 188\nmetric = 20\ndev = 4\ngateways = ['10.47.1.{d}']\n");
    match state {
        "settled" | "not-isolated" | "wrong-mtu" => tap + &neighbour + &route,
        "no-neighbour" => tap + &route,
        "shadowed" => tap + &neighbour + &route + &other,
        "missing" | "down" | "foreign" => tap + &neighbour,
        "orphan" => route,
        other => panic!("{other}"),
    }
}

/// `domain.xml`: the NICs that could be ours.
#[test]
fn libvirt_domain() {
    check("libvirt", |case| {
        match libvirt_xml::nics(&read(case, "domain.xml"), |network| Some(format!("of {network}"))) {
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
        let seen: Seen = toml::from_str(&read(case, "seen.toml")).unwrap();
        let plan = host::plan(&config(case), &seen);
        if let Some(refusal) = plan.refusal {
            return format!("refused: {refusal}\n");
        }
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
        let what = read(case, "what");
        let arguments = ["tap32", "render"].into_iter().chain(what.split_whitespace()).map(Into::into);
        let Verb::Render(what) = cli::parse(&arguments.collect::<Vec<_>>()).unwrap().verb else { unreachable!() };
        match render::render(&config(case), &what) {
            Ok(text) => text,
            Err(error) => format!("error: {error:#}\n"),
        }
    });
}

/// FRR's answers: a file a question in `frr/`. One that begins with `error: ` is none.
fn frr_answers(case: &Case) -> Option<Answers> {
    let answer = |text: String| match text.strip_prefix("error: ") {
        Some(error) => Err(error.trim_end().to_owned()),
        None => Ok(text),
    };
    case.read_all("frr").map(|files| Answers(files.into_iter().map(|(name, text)| (name, answer(text))).collect()))
}

/// What `nft -j` and iptables-save print: files in `firewall/`.
fn firewall(case: &Case, facts: &mut Facts) {
    for (name, text) in case.read_all("firewall").into_iter().flatten() {
        match name.as_str() {
            "nft.json" => facts.firewall.nft = Some(Ok(text)),
            program => {
                let legacy = program == "iptables-legacy";
                facts.firewall.iptables.push(Saved { program: program.to_owned(), legacy, text: Ok(text) });
            }
        }
    }
}

fn rows_of_doctor(case: &Case) -> Vec<Row> {
    let mut facts: Facts = toml::from_str(&read(case, "facts.toml")).unwrap();
    facts.frr = frr_answers(case);
    firewall(case, &mut facts);
    checks::judge(&config(case), &facts)
}

/// `facts.toml`, perhaps `tap32.toml`, `frr/` and `firewall/`: what people see, then every row. Of a case that is like another, only
/// the rows that the other has not, and the names of those that it alone has.
#[test]
fn doctor_rows() {
    let json = |rows: &[Row]| -> Vec<String> { rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect() };
    check("doctor", |case| {
        let rows = rows_of_doctor(case);
        let Some(like) = case.like() else { return doctor_text(&rows, false) + &json(&rows).join("\n") + "\n" };
        let other = rows_of_doctor(&like);
        let is_gone = |row: &&Row| rows.iter().all(|own| own.check != row.check);
        let gone = other.iter().filter(is_gone).map(|row| format!("without {:?}", row.check));
        let same = json(&other);
        let lines: Vec<_> = json(&rows).into_iter().filter(|row| !same.contains(row)).chain(gone).collect();
        if lines.is_empty() { format!("as {}\n", like.name()) } else { lines.join("\n") + "\n" }
    });
}

/// `tap32.toml` and `frr/`: the table for people and the JSON for programs, without the kernel's routes.
#[test]
fn uplink_list() {
    check("uplink", |case| match uplinks::states(&config(case), &frr_answers(case).unwrap()) {
        Ok(states) => format!("{}{}\n", uplink::table(&states), serde_json::to_string(&states).unwrap()),
        Err(error) => format!("error: {error:#}\n"),
    });
}

/// A changed word should touch one file: what stands in two cases of a kind, one of them inherits.
#[test]
fn no_file_stands_twice() {
    /// A longer one is worth a `like`.
    const LINES: usize = 3;
    let mut twice = String::new();
    for kind in Case::kinds() {
        let mut seen = BTreeMap::new();
        for file in Case::all(&kind).iter().flat_map(Case::own_files) {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.lines().count() > LINES
                && let Some(other) = seen.insert(text, file.clone())
            {
                writeln!(twice, "{} is {}", file.display(), other.display()).unwrap();
            }
        }
    }
    assert!(twice.is_empty(), "of each two cases, one should be `like` the other:\n{twice}");
}

#[test]
fn a_case_inherits_from_more_than_one_and_not_in_a_circle() {
    let like = |name: &str| match name {
        "first" => Some("second\n".to_owned()),
        "second" => Some("third\n".to_owned()),
        "round" => Some("back\n".to_owned()),
        "back" => Some("round\n".to_owned()),
        _ => None,
    };
    assert_eq!(chain("first", like).unwrap(), ["first", "second", "third"]);
    assert_eq!(chain("round", like).unwrap_err(), "a circle: round is like back is like round");
}
