//! Hostile text: whatever stands on a command line, in a MAC, in a domain's XML or in the configuration, nothing panics,
//! an error is one line that commands no terminal, and no address outside the policy gets a route. Seeds are the golden
//! cases, mutated; inputs that ever failed are kept in fuzz.proptest-regressions. `tests/run --fuzz N` runs N cases a
//! property.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use tap32::addr::{GuestMac, MacPrefix, parse_mac};
use tap32::cli;
use tap32::config::Config;
use tap32::guest::plan::{Step, Wanted, plan};
use tap32::guest::snapshot::Snapshot;
use tap32::machine::{libvirt_xml, qemu};

fn seeds(kind: &str, file: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
    let mut cases: Vec<_> = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join(file)).collect();
    cases.sort();
    cases.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

/// A seed with a few pieces cut out, doubled, or replaced by what parsers trip over.
fn mutated(kind: &'static str, file: &'static str) -> impl Strategy<Value = String> {
    let seeds = seeds(kind, file);
    let piece = prop_oneof![
        Just(",".to_owned()),
        Just(",,".to_owned()),
        Just("=".to_owned()),
        Just("\n".to_owned()),
        Just("-netdev\ntap,".to_owned()),
        Just("{\"type\":\"tap\"".to_owned()),
        Just("\"".to_owned()),
        Just("\u{fffd}ä".to_owned()),
        Just("\x1b[2J".to_owned()),
        Just("\r".to_owned()),
        Just("[[bridge]]\n".to_owned()),
        "\\PC{0,8}",
    ];
    let edits = prop::collection::vec((any::<Index>(), 0usize..12, piece), 0..6);
    (any::<Index>(), edits).prop_map(move |(seed, edits)| {
        let mut text: Vec<char> = seeds[seed.index(seeds.len())].chars().collect();
        for (at, cut, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + cut).min(text.len());
            text.splice(start..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

/// It can neither forge a line of a log nor command a terminal.
fn one_line(said: &str) -> Result<(), TestCaseError> {
    prop_assert!(!said.is_empty() && !said.contains(char::is_control), "{said:?}");
    Ok(())
}

fn one_line_if_wrong<T>(result: Result<T, impl Into<anyhow::Error>>) -> Result<(), TestCaseError> {
    result.map_or_else(|error| one_line(&format!("{:#}", error.into())), |_| Ok(()))
}

fn one_line_if_no_guest(arguments: &[&str]) -> Result<(), TestCaseError> {
    match qemu::guest_of(arguments, "vnet0") {
        Ok(qemu::Parent::Silent(reason)) => one_line(&reason),
        result => one_line_if_wrong(result),
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(2000, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn qemu_command_lines(text in mutated("qemu", "arguments")) {
        let arguments: Vec<&str> = text.split('\n').collect();
        one_line_if_no_guest(&arguments)?;
    }

    #[test]
    fn qemu_command_lines_of_anything(arguments in prop::collection::vec("\\PC{0,40}|[\\x01-\\x7f]{0,40}", 0..12)) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        one_line_if_no_guest(&arguments)?;
    }

    /// A value that looks like an option must not hide the NIC that the guest really has.
    #[test]
    fn a_guests_name_changes_nothing(name in "\\PC{0,40}", option in prop::sample::select(vec!["-name", "-append", "-uuid", "-k"])) {
        let rest = ["-netdev", "tap,id=n0,ifname=vnet0", "-device", "e1000,netdev=n0,mac=02:42:0a:00:00:0a"];
        let arguments: Vec<&str> = ["qemu-system-x86_64", option, &name].into_iter().chain(rest).collect();
        let expected = qemu::Parent::Guest { mac: parse_mac("02:42:0a:00:00:0a").unwrap(), incoming: false };
        prop_assert_eq!(qemu::guest_of(&arguments, "vnet0").unwrap(), expected);
    }

    #[test]
    fn arguments(argv in prop::collection::vec(prop::collection::vec(1u8.., 0..12), 0..6)) {
        let argv: Vec<OsString> = argv.into_iter().map(OsString::from_vec).collect();
        one_line_if_wrong(cli::parse(&argv))?;
    }

    #[test]
    fn arguments_near_the_real_ones(text in mutated("cli", "arguments")) {
        let argv: Vec<OsString> = text.split('\n').map(OsString::from).collect();
        one_line_if_wrong(cli::parse(&argv))?;
    }

    #[test]
    fn configuration(text in mutated("config", "tap32.toml")) {
        let salvaged = Config::salvage(&text);
        prop_assert!(!salvaged.bridges.is_empty());
        match Config::parse(&text) {
            // What is salvaged of a file before somebody breaks it.
            Ok(config) => {
                let has = |name: &str| salvaged.bridges.iter().any(|bridge| bridge.name == name);
                prop_assert!(!config.bridges.is_empty());
                prop_assert!(config.bridges.iter().all(|bridge| has(&bridge.name)), "{salvaged:#?}");
                prop_assert_eq!((config.mac_prefix, config.protocol), (salvaged.mac_prefix, salvaged.protocol));
            }
            Err(error) => one_line(&format!("{error:#}"))?,
        }
    }

    #[test]
    fn domains(text in mutated("libvirt", "domain.xml")) {
        one_line_if_wrong(libvirt_xml::nics(&text, |_| None))?;
    }

    #[test]
    fn macs(text in "[0-9a-fA-F:.\\-]{0,24}|\\PC{0,24}|[\\x01-\\x7f]{0,24}") {
        match parse_mac(&text) {
            Ok(mac) => prop_assert_eq!(text.to_lowercase().replace('-', ":"), tap32::addr::show(mac)),
            wrong => one_line_if_wrong(wrong)?,
        }
    }

    #[test]
    fn encode_and_decode_are_inverse(bits in any::<u32>(), first in any::<u8>(), second in any::<u8>()) {
        let Ok(prefix) = MacPrefix::try_from(format!("{first:02x}:{second:02x}")) else { return Ok(()) };
        let address = Ipv4Addr::from(bits);
        let guest = GuestMac::from_address(address, prefix);
        prop_assert_eq!(guest.address(), address);
        prop_assert_eq!(GuestMac::new(parse_mac(&guest.to_string()).unwrap(), prefix), Some(guest));
        prop_assert_eq!(GuestMac::from_tap_mac(guest.tap_mac(), prefix), Some(guest));
    }

    /// Whatever MAC comes: a route is planned for hosts of 10.0.0.0/24 and for nothing else.
    #[test]
    fn no_route_outside_the_policy(bits in prop_oneof![any::<u32>(), 0x0a00_0000u32..0x0a00_0200]) {
        let snapshot: Snapshot = toml::from_str(&std::fs::read_to_string(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan/up-new/snapshot.toml")).unwrap()).unwrap();
        let config = Config::default();
        let address = Ipv4Addr::from(bits);
        let guest = GuestMac::from_address(address, config.mac_prefix);
        let steps = plan(&config, &Wanted::Up { tap: "vnet0", guest, bridge: None }, &snapshot);
        let last = address.octets()[3];
        let allowed = address.octets()[..3] == [10, 0, 0] && !matches!(last, 0 | 1 | 255);
        prop_assert_eq!(steps.is_ok(), allowed, "{}", address);
        for step in steps.into_iter().flatten() {
            if let Step::AddRoute(route) | Step::MoveRoute(route, _) = step {
                prop_assert_eq!(route.address, address);
            }
        }
    }
}
