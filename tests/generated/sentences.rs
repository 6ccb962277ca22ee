//! What tap32(8) says of sentences and words that the program prints: each stands there, and nothing else does.

use tap32::guest::state::RouteState;

/// The entries of a section of the manual: their head lines, several where they share an entry.
fn entries(section: &str) -> Vec<String> {
    let page = super::read("man/tap32.8.in");
    let (_, rest) = page.split_once(&format!(".SH {section}\n")).unwrap();
    let (section, _) = rest.split_once("\n.SH ").unwrap();
    let heads = section.lines().zip(section.lines().skip(1)).filter(|(line, _)| matches!(*line, ".TP" | ".TQ"));
    heads.map(|(_, head)| head.trim_start_matches(".B ").replace('\\', "")).collect()
}

#[test]
fn every_state_of_status() {
    let mut wanted = RouteState::ALL.map(RouteState::name).to_vec();
    let mut there = entries("STATES");
    wanted.sort_unstable();
    there.sort_unstable();
    assert_eq!(there, wanted);
}

/// The sentences of src/guest/refusal.rs, `...` in place of what they fill in; alternatives of one sentence stand one
/// by one.
fn refusals() -> Vec<String> {
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/guest/refusal.rs")).unwrap();
    let sentence = |call: &str| {
        // The first literal of the call; a backslash at the end of its line joins it with the next.
        let literal = call.split_once('"').unwrap().1.replace("\\\"", "\u{1}");
        let literal = literal.split('"').next().unwrap().replace('\u{1}', "\"");
        let joined: String = literal.split("\\\n").map(str::trim_start).collect();
        let mut parts = joined.split('{');
        let first = parts.next().unwrap().to_owned();
        parts.fold(first, |text, part| text + "..." + part.split_once('}').unwrap().1)
    };
    // The first literal is the kind of cause.
    source.split("refusal!(").skip(1).map(|call| sentence(call.splitn(3, '"').nth(2).unwrap())).collect()
}

#[test]
fn every_refusal() {
    let refusals = refusals();
    let entries = entries("REFUSALS");
    assert!(refusals.len() > 10 && entries.len() > 10, "{refusals:#?}");
    let fits = |entry: &str, sentence: &str| {
        let mut rest = Some(sentence);
        for part in entry.split("...").map(str::trim).filter(|part| !part.is_empty()) {
            rest = rest.and_then(|rest| rest.split_once(part)).map(|(_, rest)| rest);
        }
        rest.is_some()
    };
    for entry in &entries {
        assert!(refusals.iter().any(|sentence| fits(entry, sentence)), "tap32.8.in, nobody says: {entry}");
    }
    for sentence in &refusals {
        assert!(entries.iter().any(|entry| fits(entry, sentence)), "tap32.8.in does not explain: {sentence}");
    }
}
