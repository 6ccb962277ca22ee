//! packaging/prometheus-rules.yml: each alert fires where it ought to and else is silent, it names metrics that tap32
//! prints and commands that tap32 takes, and no metric is forgotten. Prometheus' promtool is the judge.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use tap32::cli;
use tap32::config::Config;
use tap32::guest::snapshot::Snapshot;
use tap32::guest::state::Status;
use tap32::verbs::metrics::Metrics;

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus-rules.yml");

/// A host that is well, with one guest.
const HOST: &str = "
    bridge = [{ name = 'br-l2', index = 2, mtu = 1500, up = true, proxy_arp_pvlan = true, addresses = ['10.0.0.1/24'] }]
    link = [{ name = 'vnet0', index = 3, kind = 'tap', mac = 'fe:42:0a:00:00:0a', mtu = 9, up = true, master = 2 }]";
const SETTLED: &str = "{ address = '10.0.0.10', protocol = 132, metric = 4026531940, dev = 2 }";
const CLAIM: &str = "{ address = '10.0.0.10', protocol = 132, metric = 10, dev = 2 }";

/// Metrics that wake nobody, and why.
const NOT_ALARMING: &[(&str, &str)] = &[
    ("taps", "how many guests a host has is its operator's to judge"),
    ("repairs_total", "watch has repaired it; what it cannot repair stays missing"),
    ("pass_duration_seconds", "a slow pass repairs later, and one that is far too slow is not the last success"),
    ("lost_events_total", "watch then looks at everything"),
];

/// The series to change on a host that is well, with which values, in steps of 30 s for 30 minutes, the alert fires at
/// their end, and with which it does not.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("Tap32WatchDead", "tap32_last_success_timestamp_seconds", "0+30x40 1200x20", "0+30x55 1650x5"),
    ("Tap32MetricsGone", "tap32_build_info", "1x40 stale _x19", "1x57 stale _x2"),
    ("Tap32PassFails", "tap32_pass_failures_total", "0+1x60", "0x40 20x20"),
    ("Tap32GuestWithoutRoute", "tap32_guest_routes{state=\"missing\"}", "0x50 1x10", "0x50 1x3 0x7"),
    ("Tap32GuestShadowed", "tap32_guest_routes{state=\"shadowed\"}", "0x50 1x10", "0x57 1x3"),
    ("Tap32GuestRefused", "tap32_guest_routes{state=\"refused\"}", "0x40 1x20", "0x55 1x5"),
    ("Tap32GuestUnguarded", "tap32_unguarded_taps", "0x50 3x10", "0x57 3x3"),
    ("Tap32OrphanRoutes", "tap32_orphan_routes", "0x40 1x20", "0x55 1x5"),
    ("Tap32BridgeBroken", "tap32_bridge_broken{bridge=\"br-l2\"}", "0x50 1x10", "0x57 1x3"),
    ("Tap32ClaimStays", "tap32_oldest_claim_seconds", "0+30x60", "0+1x12 0+1x12 0+1x12 0+1x12 0+1x12"),
    ("Tap32ArrivalStays", "tap32_oldest_arrival_seconds", "2700+30x60", "0+30x60"),
    ("Tap32GuardDropsFrames", "tap32_guard_dropped_frames_total{bridge=\"br-l2\"}", "0+600x60", "0+60x60"),
];

fn snapshot(routes: &[&str]) -> Snapshot {
    toml::from_str(&format!("{HOST}\nroute = [{}]", routes.join(","))).unwrap()
}

/// What `watch` writes after it has looked at these, so many seconds apart.
fn metrics(looks: &[(u64, &[&str], &str)]) -> String {
    let (config, start) = (Config::default(), Instant::now());
    let mut metrics = Metrics::default();
    let mut text = String::new();
    for (seconds, routes, more) in looks {
        let mut snapshot = snapshot(routes);
        let more: Snapshot = toml::from_str(more).unwrap();
        snapshot.arrivals = more.arrivals;
        let status = Status::of(&config, &snapshot);
        metrics.looked(&config, &snapshot, &status, start + Duration::from_secs(*seconds));
        text = metrics.text(&status);
    }
    text
}

fn of_a_host_that_is_well() -> String {
    metrics(&[(0, &[SETTLED], "")])
}

/// The samples of a metrics file.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn rules() -> String {
    std::fs::read_to_string(RULES).unwrap()
}

/// The rules' names, each with its text, which ends where the next begins.
fn alerts() -> Vec<(String, String)> {
    let rules = rules();
    let alerts = rules.split("- alert: ").skip(1).map(|rule| rule.split_once('\n').unwrap());
    alerts.map(|(name, rule)| (name.to_owned(), rule.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// The names after `tap32_` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let after = text.split("tap32_").skip(1);
    after.map(|rest| rest.split(|c| !is_of_name(c)).next().unwrap().to_owned()).collect()
}

#[test]
fn every_metric_has_an_alert_or_a_reason_for_none() {
    let printed: BTreeSet<String> = of_a_host_that_is_well()
        .split("# HELP tap32_")
        .skip(1)
        .map(|family| family.split(' ').next().unwrap().to_owned())
        .collect();
    let alarming = alerts().iter().flat_map(|(_, rule)| names(rule.split("labels:").next().unwrap())).collect();
    let quiet: BTreeSet<String> = NOT_ALARMING.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert!(quiet.is_disjoint(&alarming), "{quiet:?} are said to wake nobody, and {alarming:?} have an alert");
    assert_eq!(alarming.union(&quiet).cloned().collect::<BTreeSet<_>>(), printed);
}

/// Without a claim, an arrival or a fault each of these is there and 0.
#[test]
fn a_claim_and_an_arrival_age_while_they_last() {
    let age =
        |looks: &[(u64, &[&str], &str)], what: &str| samples(&metrics(looks))[&format!("tap32_oldest_{what}_seconds")];
    let waits = "arrival = [{ address = '10.0.0.10' }]";
    let claimed: (u64, &[&str], &str) = (0, &[SETTLED, CLAIM], "");
    let arriving: (u64, &[&str], &str) = (0, &[], waits);
    let at = |seconds, (_, routes, more)| (seconds, routes, more);
    let well: (u64, &[&str], &str) = (0, &[SETTLED], "");
    for (what, it) in [("claim", claimed), ("arrival", arriving)] {
        assert_eq!(age(&[well], what), 0.0);
        assert_eq!(age(&[it, at(7, it), at(90, it)], what), 90.0, "{what}");
        assert_eq!(age(&[it, at(7, well), at(8, it), at(90, it)], what), 82.0, "{what} that went and came again");
        assert_eq!(age(&[it, at(7, well)], what), 0.0, "{what} that is gone");
    }
    assert_eq!(age(&[arriving, at(90, arriving)], "claim"), 0.0);
}

#[test]
fn a_broken_bridge() {
    let broken = |change: &dyn Fn(&mut Snapshot)| {
        let (config, mut snapshot) = (Config::default(), snapshot(&[SETTLED]));
        change(&mut snapshot);
        let status = Status::of(&config, &snapshot);
        let mut metrics = Metrics::default();
        metrics.looked(&config, &snapshot, &status, Instant::now());
        samples(&metrics.text(&status))["tap32_bridge_broken{bridge=\"br-l2\"}"]
    };
    let other = || toml::from_str("name = 'eth0'").unwrap();
    assert_eq!(broken(&|_| ()), 0.0);
    assert_eq!(broken(&|snapshot| snapshot.bridges.clear()), 1.0);
    assert_eq!(broken(&|snapshot| snapshot.bridges[0].up = false), 1.0);
    assert_eq!(broken(&|snapshot| snapshot.bridges[0].master = Some(other())), 1.0);
    assert_eq!(broken(&|snapshot| snapshot.bridges[0].other_ports.push(other())), 1.0);
}

#[test]
fn each_alert_says_for_how_long_how_bad_what_and_what_to_type() {
    for (name, rule) in alerts() {
        for key in [" for: ", " labels: { severity: ", " summary: \"", " description: "] {
            assert!(rule.contains(key), "{name} has no{key}");
        }
        let commands: Vec<&str> = rule.split('`').skip(1).step_by(2).collect();
        let own: Vec<_> = commands.iter().filter(|command| command.starts_with("tap32 ")).collect();
        assert!(!own.is_empty(), "{name} names no command of tap32's");
        for command in own {
            let words: Vec<OsString> = command.split(' ').map(OsString::from).collect();
            assert!(cli::parse(&words).is_ok(), "{name}: tap32 does not take `{command}`");
        }
    }
}

#[test]
#[ignore = "needs promtool: sudo tests/run"]
fn each_fires_where_it_ought_to_and_else_is_silent() {
    let well = samples(&of_a_host_that_is_well());
    let named: BTreeSet<_> = CASES.iter().map(|(alert, ..)| (*alert).to_owned()).collect();
    assert_eq!(named, alerts().into_iter().map(|(name, _)| name).collect());
    let mut test = format!("rule_files: ['{RULES}']\nevaluation_interval: 30s\ntests:\n");
    case(&mut test, &well, "", "", "{}");
    for (alert, series, fires, silent) in CASES {
        assert!(well.contains_key(*series) || *series == "tap32_build_info", "tap32 prints no {series}");
        case(&mut test, &well, series, fires, &format!("{{alertname=\"{alert}\"}}"));
        case(&mut test, &well, series, silent, "{}");
    }
    let folder = std::env::temp_dir().join(format!("tap32-alerts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("test.yml"), &test).unwrap();
    for words in [["check", "rules", RULES], ["test", "rules", folder.join("test.yml").to_str().unwrap()]] {
        let output = Command::new("promtool").args(words).output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "promtool {}: {said}", words.join(" "));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// A host that is well but for one series, and the alert that it fires, as labels; `{}` for none.
fn case(test: &mut String, well: &BTreeMap<String, f64>, changed: &str, values: &str, alert: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(test, "- name: '{changed} {values}'\n  interval: 30s\n  input_series:");
    let _ = writeln!(test, "  - {{ series: 'up{{instance=\"host1\"}}', values: '1x60' }}");
    for (series, value) in well {
        let name = series.split('{').next().unwrap();
        let values = match name {
            _ if series == changed || name == changed => values.to_owned(),
            "tap32_last_success_timestamp_seconds" => "0+30x60".to_owned(),
            _ => format!("{value}x60"),
        };
        let labelled = match series.strip_suffix('}') {
            Some(labels) => format!("{labels},instance=\"host1\"}}"),
            None => format!("{series}{{instance=\"host1\"}}"),
        };
        let _ = writeln!(test, "  - {{ series: '{labelled}', values: '{values}' }}");
    }
    let fires = if alert == "{}" { String::new() } else { format!("{{ labels: '{alert}', value: 1 }}") };
    let expression = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
    let _ =
        writeln!(test, "  promql_expr_test:\n  - {{ expr: '{expression}', eval_time: 30m, exp_samples: [{fires}] }}");
}
