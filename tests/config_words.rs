//! What tap32 says of a mistake in its configuration file: the line, the key, what the key takes, and a line that would be
//! right. In its own words: those of the libraries that read the file are for programmers.

use tap32::config::Config;

const EXAMPLE: &str = include_str!("../packaging/tap32.toml");

/// Each key of the example file: its table's header, its name and its line.
fn keys() -> Vec<(String, String, String)> {
    let mut header = String::new();
    let mut keys = Vec::new();
    for line in EXAMPLE.lines().filter(|line| !line.starts_with("# ")).filter_map(|line| line.strip_prefix('#')) {
        match line.split_once(" = ") {
            Some((key, _)) => keys.push((header.clone(), key.to_owned(), line.to_owned())),
            None => line.clone_into(&mut header),
        }
    }
    keys
}

/// The words of toml, serde, humantime and Rust's own parsers.
const FOREIGN: &[&str] = &[
    "invalid type",
    "invalid value",
    "invalid length",
    "expected",
    "sequence",
    "a map",
    "unknown field",
    "unknown variant",
    "missing field",
    "duplicate",
    "syntax",
    "u8",
    "u16",
    "u32",
    "struct",
    "variant",
    "time unit",
    "`,",
];

fn said(text: &str) -> Option<String> {
    Config::parse(text).err().map(|error| format!("{error:#}"))
}

fn assert_own_words(text: &str, said: &str) {
    let foreign: Vec<_> = FOREIGN.iter().filter(|words| said.contains(**words)).collect();
    assert!(foreign.is_empty(), "{foreign:?} of\n{text}\n{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_value_of_another_kind() {
    let mut refused = 0;
    for (header, key, right) in keys() {
        for value in [
            "true",
            "-1",
            "99999999999",
            "7.5",
            "\"nonsense!\"",
            "[]",
            "[7]",
            "[[\"x\"]]",
            "{}",
            "{ a = 1 }",
            "1979-05-27",
        ] {
            let text = format!("{header}\n{key} = {value}\n");
            let Some(said) = said(&text) else { continue };
            assert_own_words(&text, &said);
            // Values that are of the right kind and cannot be meant have sentences of their own, and so have whole tables.
            if !said.starts_with("line ") || said.contains("[[bridge]], [[uplink]]") {
                continue;
            }
            refused += 1;
            let is_missing = said.starts_with("line 1: ") && said.contains("which tap32 needs");
            // Of true and false the example has one, which may be the opposite of what is meant.
            let forms = [format!(": write it as in {right}"), format!(": write {key} = true or {key} = false")];
            let has_form = forms.iter().any(|form| said.ends_with(form)) || right.ends_with("[]");
            assert!(is_missing || said.starts_with("line 2: ") && said.contains(&key), "{text}{said}");
            assert!(is_missing || has_form || said.contains("there is no key"), "{text}{said}");
        }
    }
    assert!(refused > 150, "{refused}");
}

#[test]
fn a_key_that_is_not_there() {
    for (header, wanted) in [
        ("", "line 2: there is no key nonsense before the first table: tap32 knows mac-prefix, protocol, distance"),
        ("[[bridge]]", "line 2: there is no key nonsense under [[bridge]]: tap32 knows name, gateway, mac"),
        ("[watch]", "line 2: there is no key nonsense under [watch]: tap32 knows resync, metrics"),
    ] {
        let text = format!("{header}\nnonsense = 1\n");
        let said = said(&text).unwrap();
        assert!(said.starts_with(wanted), "{said}");
        assert_own_words(&text, &said);
    }
    // Below a header that ends the table to which it belongs.
    let astray = said("[[bridge]]\ndistance = 200\n").unwrap();
    assert!(astray.ends_with("write distance before the first table"), "{astray}");
    let astray = said("settle = \"5s\"\n").unwrap();
    assert!(astray.ends_with("write settle under [migration]"), "{astray}");
    let table = said("[migrate]\nsettle = \"5s\"\n").unwrap();
    assert!(table.starts_with("line 1: there is no table [migrate]: tap32 knows "), "{table}");
}

#[test]
fn a_key_that_is_missing_and_one_that_is_there_twice() {
    let missing = said("[[uplink]]\nname = \"eth0\"\npeer = \"10.0.0.1\"\n").unwrap();
    assert_eq!(
        missing,
        "line 1: [[uplink]] has no address, which tap32 needs: write one, such as address = \"10.47.175.10/30\""
    );
    let missing = said("uplink = [{ peer = \"10.0.0.1\", address = \"10.0.0.2/30\" }]\n").unwrap();
    assert_eq!(missing, "line 1: [[uplink]] has no name, which tap32 needs: write one, such as name = \"eth0\"");
    let inline = said("[fabric]\nbfd = { interval = 50 }\n").unwrap();
    assert_eq!(inline, "line 2: there is no key interval in bfd: tap32 knows interval-ms, multiplier");
    let inline = said("[fabric]\nbfd = { interval-ms = \"50\" }\n").unwrap();
    let form = "write it as in bfd = { interval-ms = 50, multiplier = 4 }";
    assert_eq!(inline, format!("line 2: \"50\" is not a whole number from 0 to 4294967295: {form}"));
    let twice = said("distance = 200\n\ndistance = 220\n").unwrap();
    assert_eq!(twice, "line 3: distance is there twice: keep one");
    let twice = said("[watch]\n[fabric]\n[watch]\n").unwrap();
    assert_eq!(twice, "line 3: watch is there twice: keep one");
}

#[test]
fn what_is_not_toml() {
    for (text, line, right) in [
        ("distance 240", 1, "distance = 240"),
        ("[[bridge]]\nname = br-l2\n", 2, "name = \"br-l2\""),
        ("[[bridge]]\nisolate = yes\n", 2, "write isolate = true or isolate = false"),
        ("\n[watch]\nresync = 60s\n", 3, "resync = \"60s\""),
        ("[[bridge]\n", 1, ""),
        ("[migration]\nsettle = \"10s\n", 2, "settle = \"10s\""),
        ("distance == 240", 1, "distance = 240"),
        ("[[bridge]]\nprefixes = [\"10.0.0.0/24\"\n", 2, "prefixes = "),
        ("[[bridge]]\nname: br-l2\n", 2, "name = \"br-l2\""),
    ] {
        let said = said(text).unwrap();
        println!("{said}");
        assert!(said.starts_with(&format!("line {line}: ")), "{text}\n{said}");
        assert!(said.contains("KEY = VALUE") || (!right.is_empty() && said.contains(right)), "{text}\n{said}");
    }
}
