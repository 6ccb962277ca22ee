//! Hostile text: whatever stands on a command line, in a MAC or in the configuration, nothing panics, errors
//! are one line, and no address outside the policy gets a route. Seeds are the golden cases, mutated; inputs
//! that ever failed are kept in fuzz.proptest-regressions. Bounded: `PROPTEST_CASES` cases a property.

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

fn one_line(error: &anyhow::Error) -> bool {
    !format!("{error:#}").contains('\n')
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn qemu_command_lines(text in mutated("qemu", "arguments")) {
        let arguments: Vec<&str> = text.split('\n').collect();
        if let Err(error) = qemu::guest_of(&arguments, "vnet0") {
            prop_assert!(one_line(&error));
        }
    }

    #[test]
    fn qemu_command_lines_of_anything(arguments in prop::collection::vec("\\PC{0,40}", 0..12)) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _ = qemu::guest_of(&arguments, "vnet0");
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
    fn arguments(argv in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..6)) {
        let argv: Vec<OsString> = argv.into_iter().map(OsString::from_vec).collect();
        if let Err(usage) = cli::parse(&argv) {
            prop_assert!(!usage.to_string().contains('\n'));
        }
    }

    #[test]
    fn arguments_near_the_real_ones(text in mutated("cli", "arguments")) {
        let argv: Vec<OsString> = text.split('\n').map(OsString::from).collect();
        let _ = cli::parse(&argv);
    }

    #[test]
    fn configuration(text in mutated("config", "tap32.toml")) {
        match Config::parse(&text) {
            Ok(config) => prop_assert!(!config.bridges.is_empty()),
            Err(error) => prop_assert!(one_line(&error)),
        }
    }

    #[test]
    fn domains(text in mutated("libvirt", "domain.xml")) {
        if let Err(error) = libvirt_xml::nics(&text, |_| None) {
            prop_assert!(one_line(&error));
        }
    }

    #[test]
    fn macs(text in "[0-9a-fA-F:.\\-]{0,24}|\\PC{0,24}") {
        if let Ok(mac) = parse_mac(&text) {
            prop_assert_eq!(text.to_lowercase().replace('-', ":"), tap32::addr::show(mac));
        }
    }

    #[test]
    fn encode_and_decode_are_inverse(bits in any::<u32>(), first in any::<u8>(), second in any::<u8>()) {
        let Ok(prefix) = format!("{first:02x}:{second:02x}").parse::<MacPrefix>() else { return Ok(()) };
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
            if let Step::AddRoute(route) | Step::MoveRoute { route, .. } = step {
                prop_assert_eq!(route.address, address);
            }
        }
    }
}
