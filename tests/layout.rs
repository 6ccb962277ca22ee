//! Keeps the plan of src/: which room may import which, who alone may touch what, what only computes, how long a file is.
//! A room is a folder of src/, or a file that stands alone there. CONTRIBUTING.md says what lives in each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each room and the rooms that it may import. A room stands below all that import it, so no circle is possible.
const ROOMS: &[(&str, &[&str])] = &[
    ("addr", &[]),
    ("text", &[]),
    ("config", &["addr", "text"]),
    ("guest", &["addr", "config", "text"]),
    ("host", &["addr", "config", "guest"]),
    ("fabric", &["addr", "config", "machine", "text"]),
    ("machine", &["addr", "guest", "host", "text"]),
    ("kernel", &["addr", "config", "guest", "host", "machine"]),
    ("checks", &["addr", "config", "guest", "host", "fabric", "text"]),
    ("verbs", &["addr", "config", "guest", "host", "fabric", "machine", "kernel", "checks", "text"]),
    ("cli", &["addr", "config", "text", "verbs"]),
    ("main", &["cli", "verbs", "machine"]),
];

/// Words that only these files, or files in these folders, may hold.
const ALONE: &[(&str, &[&str])] = &[
    ("rtnetlink", &["kernel/"]),
    ("Command::new", &["machine/program.rs", "verbs/arrival.rs"]),
    // `config::file()` is the file that this process reads.
    ("/etc/tap32.toml", &["config/mod.rs", "cli/options.rs"]),
    // Descriptors that a hook inherited and Rust does not own; memory that the allocator would keep. Each says there why.
    ("unsafe", &["machine/heap.rs", "verbs/arrival.rs"]),
];

/// Rooms and files that only compute, and the words by which a file would do more.
const PURE: &[&str] = &[
    "addr.rs",
    "text.rs",
    "guest/",
    "host/",
    "checks/",
    "fabric/answers/",
    "fabric/render/",
    "fabric/drain.rs",
    "fabric/running_config.rs",
    "fabric/uplinks.rs",
];
const IMPURE: &[&str] = &["std::fs", "std::process", "std::env", "std::io", "tokio::", "Instant::now", "nix::"];

/// A longer file asks to be two.
const LINES: usize = 350;
/// rustfmt wraps code at 120, but no text inside a literal.
const COLUMNS: usize = 124;

/// Files by their path below src/ (tests/ keeps its folder's name).
type Files = BTreeMap<String, String>;

/// All that is wrong with a tree, one sentence each.
fn faults(files: &Files) -> Vec<String> {
    let rooms: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let mut wrong = Vec::new();
    let mut imports = BTreeMap::new();
    for (file, text) in files {
        if text.lines().count() > LINES {
            wrong.push(format!("{file} is longer than {LINES} lines"));
        }
        // Tests hold shell lines, which are clearer in one piece.
        let lines = if file.starts_with("tests/") { "" } else { text };
        let wide = lines.lines().position(|line| line.chars().count() > COLUMNS);
        wrong.extend(wide.map(|at| format!("{file}:{} is wider than {COLUMNS} columns", at + 1)));
        if file.starts_with("tests/") || file == "lib.rs" {
            continue;
        }
        let code = without_comments(text);
        let paths = paths(&module(file), &code);
        let room = file.split('/').next().unwrap().trim_end_matches(".rs");
        match rooms.get(room) {
            Some(may) => {
                let named: BTreeSet<_> = paths.iter().filter_map(|path| path.first().map(String::as_str)).collect();
                let foreign = named.into_iter().filter(|name| *name != room && rooms.contains_key(name));
                let forbidden = foreign.filter(|name| !may.contains(name));
                wrong.extend(forbidden.map(|name| format!("{file} imports {name}")));
            }
            None => wrong.push(format!("{file} is in no room of the plan")),
        }
        let owners = ALONE.iter().filter(|(word, owners)| code.contains(word) && !is_in(file, owners));
        wrong.extend(owners.map(|(word, _)| format!("{file} holds {word}")));
        let impure = IMPURE.iter().filter(|word| is_in(file, PURE) && code.contains(**word));
        wrong.extend(impure.map(|word| format!("{file} only computes, and holds {word}")));
        imports.insert(module(file), paths);
    }
    wrong.extend(circles(&imports));
    wrong
}

fn is_in(file: &str, places: &[&str]) -> bool {
    places.iter().any(|place| file.starts_with(place))
}

/// `guest/view.rs` is `["guest", "view"]`, `guest/mod.rs` is `["guest"]`.
fn module(file: &str) -> Vec<String> {
    let parts = file.trim_end_matches(".rs").split('/').map(str::to_owned);
    parts.filter(|part| part != "mod").collect()
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path that the code of a module takes from its own crate, from the crate's root on.
fn paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let parent = &module[..module.len().saturating_sub(1)];
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (head, root) in [("crate::", &[][..]), ("tap32::", &[]), ("super::", parent)] {
        for (at, _) in code.match_indices(head) {
            if !code[..at].ends_with(is_word) {
                tree(&code[at + head.len()..], root, &mut found);
            }
        }
    }
    // What a file names by the bare name of a child or a sibling that it declares.
    for line in code.lines() {
        let line = line.trim().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let child = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        found.extend(child.map(|child| [module, &[child.to_owned()]].concat()));
    }
    found
}

/// Reads one path, or a tree in braces, and returns what is behind it.
fn tree<'a>(text: &'a str, root: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = root.to_vec();
    let mut rest = text;
    loop {
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = tree(rest, &path, found).trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            // A glob, or the end of the file.
            found.push(path);
            return rest.strip_prefix('*').unwrap_or(rest.get(1..).unwrap_or_default());
        }
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => {
                found.push(path);
                return rest;
            }
        }
    }
}

/// Files that reach each other by their imports. A mod.rs and the files of its folder are one house, and no circle.
fn circles(imports: &BTreeMap<Vec<String>, Vec<Vec<String>>>) -> Vec<String> {
    let is_house =
        |module: &Vec<String>| imports.keys().any(|other| other.len() > module.len() && other.starts_with(module));
    let to_file =
        |path: &Vec<String>| (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|m| imports.contains_key(m));
    let edges: BTreeMap<_, BTreeSet<_>> = imports
        .iter()
        .filter(|(module, _)| !is_house(module))
        .map(|(module, paths)| {
            (module, paths.iter().filter_map(to_file).filter(|to| to != module && !is_house(to)).collect())
        })
        .collect();
    let reach = |from: &Vec<String>| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(at) = next.pop() {
            next.extend(edges.get(&at).into_iter().flatten().filter(|to| seen.insert((*to).clone())).cloned());
        }
        seen
    };
    let reached: BTreeMap<_, _> = edges.keys().map(|module| (*module, reach(module))).collect();
    let circle = |at: &Vec<String>| -> Vec<String> {
        let back = reached[at].iter().filter(|other| reached.get(other).is_some_and(|others| others.contains(at)));
        back.map(|module| module.join("::")).collect()
    };
    let all: BTreeSet<_> = edges.keys().map(|module| circle(module)).filter(|circle| !circle.is_empty()).collect();
    all.iter().map(|circle| format!("{} import each other", circle.join(", "))).collect()
}

fn read(root: &Path, folder: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(root, &path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            files.insert(name.trim_start_matches("src/").to_owned(), std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_house_is_as_planned() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Files::new();
    for folder in ["src", "tests"] {
        read(root, &root.join(folder), &mut files);
    }
    let faults = faults(&files);
    assert!(faults.is_empty(), "against the plan:\n{}", faults.join("\n"));
}

/// A checker that cannot fail checks nothing: each rule is broken once.
#[test]
fn each_rule_can_be_broken() {
    let broken = |files: &[(&str, &str)], fault: &str| {
        let files = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
        assert_eq!(faults(&files), [fault]);
    };
    broken(&[("guest/plan.rs", "use crate::kernel::Kernel;")], "guest/plan.rs imports kernel");
    broken(
        &[("guest/plan.rs", "use crate::{\n    addr,\n    fabric::{vtysh, render::frr},\n};")],
        "guest/plan.rs imports fabric",
    );
    broken(&[("config/mod.rs", "fn f() { crate::host::plan() }")], "config/mod.rs imports host");
    broken(&[("verbs/up_down.rs", "use crate::cli::Command;")], "verbs/up_down.rs imports cli");
    broken(&[("shed/tool.rs", "")], "shed/tool.rs is in no room of the plan");
    broken(&[("verbs/watch.rs", "use rtnetlink::Handle;")], "verbs/watch.rs holds rtnetlink");
    broken(&[("machine/qemu.rs", "std::process::Command::new(\"ip\")")], "machine/qemu.rs holds Command::new");
    broken(&[("kernel/read.rs", "unsafe { f() }")], "kernel/read.rs holds unsafe");
    broken(&[("checks/frr.rs", "std::fs::read(file)")], "checks/frr.rs only computes, and holds std::fs");
    broken(&[("verbs/watch.rs", &"\n".repeat(LINES + 1))], "verbs/watch.rs is longer than 350 lines");
    broken(&[("tests/watch.rs", &"\n".repeat(LINES + 1))], "tests/watch.rs is longer than 350 lines");
    broken(&[("verbs/watch.rs", &"x".repeat(COLUMNS + 1))], "verbs/watch.rs:1 is wider than 124 columns");
    let pair = "guest::plan, guest::view import each other";
    broken(&[("guest/plan.rs", "use super::view::View;"), ("guest/view.rs", "use crate::guest::plan::Step;")], pair);
    // Over a third file; and a mod.rs with its own files is no circle.
    broken(
        &[
            ("guest/plan.rs", "use super::{view, route};"),
            ("guest/route.rs", ""),
            ("guest/view.rs", "use super::policy::Refusal;"),
            ("guest/policy.rs", "use super::plan;"),
            ("kernel/mod.rs", "mod apply;"),
            ("kernel/apply.rs", "use super::Kernel;"),
        ],
        "guest::plan, guest::policy, guest::view import each other",
    );
}
