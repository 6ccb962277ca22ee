//! The examples of the README, of its neighbours and of the man pages are run, so that none can go stale. Each kind of
//! block has its check:
//!
//! | kind | check |
//! |---|---|
//! | `console` | runs on a host with the bridge br-l2, and prints what the block shows |
//! | `console bare` | the same on a host with two cards, configured as the last `toml host` above says |
//! | `toml host` | is that configuration |
//! | `toml defaults` | is the configuration of an empty file, and stays valid with every `# key` uncommented |
//! | `sh` | holds only commands that exist, in the form that they take |
//! | `text` | the same for its `$ ` lines; the rest is a picture, or what the lab printed |
//!
//! Markdown names the kind behind the fence, the source of a man page in a comment above `.EX`.
//! `UPDATE=1` writes what the commands print now; read the diff before you commit it.

mod common;

use std::ops::Range;
use std::path::Path;

use common::setup::{self, Folder};
use common::{Host, TAP32, text};
use tap32::config::Config;

const DOCUMENTS: &[&str] = &[
    "README.md",
    "CONTRIBUTING.md",
    "hooks/README.md",
    "packaging/man/tap32.8.in",
    "packaging/man/tap32.toml.5.in",
    "packaging/man/tap32-fabric.7",
    "packaging/man/tap32-design.7",
];

const KINDS: &[&str] = &["console", "console bare", "toml host", "toml defaults", "sh", "text"];

struct Document {
    path: &'static str,
    lines: Vec<String>,
    blocks: Vec<Block>,
}

struct Block {
    kind: String,
    /// Where it stands in the document.
    place: Range<usize>,
    /// What a reader sees.
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> impl Iterator<Item = Document> {
    DOCUMENTS.iter().map(|path| Document::read(path))
}

impl Document {
    fn read(path: &'static str) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut document = Self { path, lines, blocks: Vec::new() };
        let mut open: Option<(String, usize)> = None;
        for (number, line) in document.lines.iter().enumerate() {
            match (&open, document.kind_of(number)) {
                (None, Some(kind)) => open = Some((kind, number + 1)),
                (Some((kind, first)), _) if line == if document.is_man() { ".EE" } else { "```" } => {
                    let place = *first..number;
                    let lines = document.lines[place.clone()].iter().map(|line| document.shown(line)).collect();
                    document.blocks.push(Block { kind: kind.clone(), place, lines });
                    open = None;
                }
                _ => {}
            }
        }
        assert!(open.is_none(), "{path}: a block without an end");
        document
    }

    fn is_man(&self) -> bool {
        !self.path.ends_with(".md")
    }

    /// The kind of the block that this line opens; empty where none is named.
    fn kind_of(&self, number: usize) -> Option<String> {
        let line = &self.lines[number];
        if !self.is_man() {
            return line.strip_prefix("```").map(str::to_owned);
        }
        let before = number.checked_sub(1).map_or("", |number| &self.lines[number]);
        (line == ".EX").then(|| before.strip_prefix(".\\\" ").unwrap_or_default().to_owned())
    }

    /// A line of a block as a reader sees it.
    fn shown(&self, line: &str) -> String {
        if !self.is_man() {
            return line.to_owned();
        }
        let line = line.strip_prefix("\\&").unwrap_or(line);
        ROFF.iter().rev().fold(line.to_owned(), |line, (character, escape)| line.replace(escape, character))
    }

    /// The inverse.
    fn source(&self, line: &str) -> String {
        if !self.is_man() {
            return line.to_owned();
        }
        let line = ROFF.iter().fold(line.to_owned(), |line, (character, escape)| line.replace(character, escape));
        if line.starts_with('.') { format!("\\&{line}") } else { line }
    }

    /// Puts other lines in the place of blocks.
    fn write(mut self, blocks: Vec<(Range<usize>, Vec<String>)>) {
        for (place, shown) in blocks.into_iter().rev() {
            let source: Vec<String> = shown.iter().map(|line| self.source(line)).collect();
            self.lines.splice(place, source);
        }
        std::fs::write(root().join(self.path), self.lines.join("\n") + "\n").unwrap();
    }
}

/// What an example needs in roff to be copied from a terminal as it was written (groff_char(7)); backslashes first.
const ROFF: [(&str, &str); 6] =
    [("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti")];

#[test]
fn every_block_has_a_kind_and_every_character_its_escape() {
    for document in documents() {
        for block in &document.blocks {
            let at = format!("{}:{}", document.path, block.place.start);
            assert!(KINDS.contains(&block.kind.as_str()), "{at}: {:?} is not a kind that is checked", block.kind);
            for (source, shown) in document.lines[block.place.clone()].iter().zip(&block.lines) {
                assert_eq!(*source, document.source(shown), "{at}");
            }
        }
        let unmarked = document.lines.iter().find(|line| document.is_man() && *line == ".nf");
        assert!(unmarked.is_none(), "{}: an example stands between .EX and .EE", document.path);
    }
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn console_blocks_print_what_they_show() {
    let is_update = std::env::var_os("UPDATE").is_some();
    let mut commands = 0;
    for document in documents() {
        let mut host: Option<Host> = None;
        let mut bare: Option<(Host, Folder, String)> = None;
        let mut now = Vec::new();
        for block in &document.blocks {
            let transcript = match block.kind.as_str() {
                "console" => run(block, host.get_or_insert_with(Host::new), TAP32),
                "console bare" => {
                    let (host, _, tap32) = bare.as_ref().unwrap_or_else(|| panic!("{}: no toml host", document.path));
                    run(block, host, tap32)
                }
                "toml host" => {
                    let (host, folder, _) = bare.take().unwrap_or_else(setup::bare);
                    let file = folder.write("tap32.toml", &block.lines.join("\n"));
                    bare = Some((host, folder, format!("env TAP32_CONFIG={file} {TAP32}")));
                    continue;
                }
                _ => continue,
            };
            commands += transcript.iter().filter(|line| line.starts_with("$ ")).count();
            if !is_update {
                let at = format!("{}:{}", document.path, block.place.start);
                assert_eq!(transcript.join("\n"), block.lines.join("\n"), "{at}: UPDATE=1 writes what is printed now");
            }
            now.push((block.place.clone(), transcript));
        }
        if is_update {
            document.write(now);
        }
    }
    assert!(commands > 15, "{commands}");
}

/// Runs a block's commands, `tap32` as given, and returns the block as it should be.
fn run(block: &Block, host: &Host, tap32: &str) -> Vec<String> {
    let mut transcript = Vec::new();
    assert!(block.lines[0].starts_with("$ "), "not a command: {}", block.lines[0]);
    for command in block.lines.iter().filter(|line| line.starts_with("$ ")) {
        transcript.push(command.clone());
        let words = command[2..].strip_prefix("sudo ").unwrap_or(&command[2..]);
        let line = words.strip_prefix("tap32 ").map(|rest| format!("{tap32} {rest}"));
        let output = host.command("sh").args(["-c", line.as_deref().unwrap_or(words)]).output().unwrap();
        let seen = text(&output.stdout) + &text(&output.stderr);
        transcript.extend(seen.lines().map(|line| line.trim_end().to_owned()));
    }
    transcript
}

#[test]
fn shell_blocks_hold_commands_that_exist() {
    for document in documents() {
        for block in &document.blocks {
            let script = block.lines.join("\n").replace("\\\n", " ");
            let lines = script.lines().map(|line| match block.kind.as_str() {
                "sh" => Some(line),
                "text" | "console" | "console bare" => line.strip_prefix("$ "),
                _ => None,
            });
            for line in lines.flatten() {
                let code = line.split(" #").next().unwrap();
                for command in code.split("; ").flat_map(|part| part.split(" | ")) {
                    check_command(command, &format!("{}: {line}", document.path));
                }
            }
        }
    }
}

/// One of ours must parse, a script of ours must exist, a unit of ours too, and QEMU's line must give its guest's MAC.
fn check_command(line: &str, at: &str) {
    let words: Vec<&str> = line.split('>').next().unwrap().split_whitespace().collect();
    let is_assignment = |word: &&&str| word.split_once('=').is_some_and(|(name, _)| name == name.to_uppercase());
    let words = &words[words.iter().take_while(is_assignment).count()..];
    match words.strip_prefix(&["sudo"]).unwrap_or(words) {
        []
        | ["cargo", "build" | "fmt" | "clippy" | "test", ..]
        | ["git", "clone" | "log", ..]
        | ["install" | "ln" | "mkdir" | "ip" | "sysctl" | "sed" | "cd" | "ping" | "grep" | "cut" | "mandoc", ..] => {}
        ["systemctl", words @ ..] => {
            for unit in words.iter().filter(|word| word.starts_with("tap32")) {
                assert!(root().join(format!("packaging/systemd/{unit}.service")).exists(), "{at}");
            }
        }
        words @ ["tap32", ..] => {
            let words: Vec<_> = words.iter().map(Into::into).collect();
            assert!(tap32::cli::parse(&words).is_ok(), "{at}");
        }
        // Another's package.
        ["apt", "install", "dnsmasq-base"] => {}
        // What they do to a host is what tests/packages is about; here only that packaging/build names them so.
        ["apt", "install", "./target/packages/tap32_*.deb"] | ["dnf", "install", "./target/packages/tap32-*.rpm"] => {}
        [script, ..] if ["tests/", "packaging/"].iter().any(|folder| script.starts_with(folder)) => {
            assert!(root().join(script).exists(), "{at}");
        }
        words @ ["qemu-system-x86_64", ..] => {
            let guest = tap32::machine::qemu::guest_of(words, "vnet0").unwrap();
            assert!(matches!(guest, tap32::machine::qemu::Parent::Guest { .. }), "{at}");
        }
        _ => panic!("nothing checks this command. {at}"),
    }
}

/// `setup` prints each change as the command that a person would type: typed on another host they leave nothing to do.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_host_set_up_by_hand_needs_no_setup() {
    for document in documents() {
        let mut above: Option<&Block> = None;
        for block in &document.blocks {
            let Some(toml) = above.filter(|_| block.kind == "console bare") else {
                above = if block.kind == "toml host" { Some(block) } else { above };
                continue;
            };
            let mut lines = block.lines.iter();
            if !lines.next().is_some_and(|line| line.ends_with("tap32 setup")) {
                continue;
            }
            let (host, folder, _) = setup::bare();
            lines.take_while(|line| !line.starts_with("$ ")).for_each(|line| drop(host.ok(line)));
            let file = folder.write("tap32.toml", &toml.lines.join("\n"));
            assert_eq!(host.tap32(&format!("setup --config {file}")), "", "{}", document.path);
            host.add_tap("vnet0");
            host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
            assert!(host.isolated("vnet0") && host.owned().len() == 1);
            above = None;
        }
    }
}

#[test]
fn the_configurations_shown_are_valid_and_the_defaults_are_the_defaults() {
    let blocks: Vec<Block> = documents().flat_map(|document| document.blocks).collect();
    let of = |kind: &'static str| blocks.iter().filter(move |block| block.kind == kind);
    assert!(of("toml host").count() > 1 && of("toml defaults").count() > 0);
    for block in of("toml host") {
        assert_ne!(Config::parse(&block.lines.join("\n")).unwrap(), Config::default());
    }
    for block in of("toml defaults") {
        assert_eq!(Config::parse(&block.lines.join("\n")).unwrap(), Config::default());
        // What is commented out must be right too: a key, or a table.
        let is_off =
            |rest: &&str| rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let on = |line: &String| line.strip_prefix("# ").filter(is_off).unwrap_or(line).to_owned();
        let uncommented = block.lines.iter().map(on).collect::<Vec<_>>().join("\n");
        assert_ne!(Config::parse(&uncommented).unwrap(), Config::default(), "{uncommented}");
    }
}

const COMING: &str = "src/fabric/answers/";

/// Files of the source that a document names, and what it says is in one: "`WORDS` in `src/FILE`".
#[test]
fn the_source_is_where_the_documents_say() {
    for path in DOCUMENTS {
        let text = std::fs::read_to_string(root().join(path)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        for (at, _) in text.match_indices("`src/") {
            let file = text[at + 1..].split('`').next().unwrap();
            // It is being written.
            let is_coming = file.starts_with(COMING) && !root().join(COMING).exists();
            if is_coming || !file.ends_with(".rs") {
                continue;
            }
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("{path}: no {file}"));
            if let Some(words) = text[..at].strip_suffix("` in ") {
                let words = words.rsplit('`').next().unwrap();
                assert!(source.contains(words), "{path}: no `{words}` in {file}");
            }
        }
    }
}
