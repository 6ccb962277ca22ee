//! packaging/tap32.toml: every key that there is, commented out with its default. Which keys there are is asked
//! from the configuration itself: the error for an unknown key lists those that would have been right.

use tap32::config::Config;

/// One commented line of code: `key = value` under its table's header.
struct Line {
    table: String,
    key: String,
    code: String,
    /// The comment says that it shows an example.
    no_default: bool,
}

fn lines() -> Vec<Line> {
    let (mut table, mut table_has_default, mut lines) = (String::new(), true, Vec::new());
    for paragraph in super::read("tap32.toml").split("\n\n").skip(1) {
        let no_default = paragraph.contains("No default.");
        for code in paragraph.lines().filter(|line| !line.starts_with("# ")) {
            let code = code.strip_prefix('#').unwrap_or_else(|| panic!("not commented out: {code}"));
            if code.starts_with('[') {
                (table, table_has_default) = (code.to_owned(), !no_default);
            } else {
                let key = code.split(" = ").next().unwrap().to_owned();
                let no_default = no_default || !table_has_default;
                lines.push(Line { table: table.clone(), key, code: code.to_owned(), no_default });
            }
        }
    }
    assert!(lines.len() > 15, "{} keys", lines.len());
    lines
}

/// The keys that a table of the configuration takes.
fn known_keys(table: &str) -> Vec<String> {
    let error = Config::parse(&format!("{table}\nno-such-key = 1\n")).unwrap_err().to_string();
    let (_, listed) = error.split_once("tap32 knows ").expect(&error);
    listed.split(", ").map(str::to_owned).collect()
}

#[test]
fn as_it_is_it_says_nothing() {
    assert_eq!(Config::parse(&super::read("tap32.toml")).unwrap(), Config::default());
}

#[test]
fn every_key_is_there() {
    let lines = lines();
    let named = |table: &str| {
        let mut keys: Vec<String> = lines.iter().filter(|l| l.table == table).map(|l| l.key.clone()).collect();
        keys.sort();
        keys
    };
    let mut tables = vec![String::new()];
    tables.extend(lines.iter().map(|line| line.table.clone()).filter(|table| !table.is_empty()));
    tables.dedup();
    for table in &tables {
        let mut known = known_keys(table);
        // At the top a table counts as a key, and stands there as its header.
        known.retain(|key| !table.is_empty() || !tables.iter().any(|table| table.trim_matches(['[', ']']) == key));
        known.sort();
        assert_eq!(named(table), known, "packaging/tap32.toml, {table:?}");
    }
    // An inline table's own keys.
    for line in lines.iter().filter(|line| line.code.contains(" = {")) {
        let table = format!("[{}.{}]", line.table.trim_matches(['[', ']']), line.key);
        for key in known_keys(&table) {
            assert!(line.code.contains(&format!("{key} = ")), "packaging/tap32.toml: {key} of {table}");
        }
    }
}

#[test]
fn uncommented_every_key_says_its_default() {
    // A link needs more than one key.
    for line in lines().iter().filter(|line| !["[[uplink]]", "[[backbone]]"].contains(&line.table.as_str())) {
        // A bridge needs its name, whatever else is said of it.
        let name = if line.table == "[[bridge]]" && line.key != "name" { "name = \"br-l2\"\n" } else { "" };
        let text = format!("{}\n{name}{}\n", line.table, line.code);
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        assert_eq!(config == Config::default(), !line.no_default, "{text}{config:#?}");
    }
}

#[test]
fn uncommented_as_a_whole_it_is_valid() {
    let lines = lines();
    let mut text = String::new();
    let mut table = "";
    for line in &lines {
        if line.table != table {
            table = &line.table;
            text.push_str(&format!("{table}\n"));
        }
        text.push_str(&format!("{}\n", line.code));
    }
    let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
    assert_eq!(config.uplinks.len(), 1);
}
