//! The README's examples are run, so that they cannot go stale: what stands in a `console` block is done in a
//! namespace and must print what the block shows, and what stands in a `console bare` block in one with two cards,
//! configured as the `toml host` block says; of a `sh` block every program must be one we know how to
//! check; the `toml` must be the defaults.

mod common;

use std::path::Path;

use common::setup::Folder;
use common::{Host, TAP32, text};
use tap32::config::Config;

struct Block {
    kind: String,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in readme.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(kind), None) => open = Some(Block { kind: kind.into(), lines: Vec::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.into()),
            (None, None) => {}
        }
    }
    blocks
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn console_blocks_print_what_they_show() {
    assert!(run_console(&Host::new(), "console", TAP32) > 10);
}

#[test]
#[ignore = "needs root: sudo tests/run"]
fn a_bare_host_becomes_what_the_readme_shows() {
    let host = Host::bare();
    host.ok("ip link set lo down");
    for (card, switch) in [("eth0", "sw0"), ("eth1", "sw1")] {
        host.ok(&format!("ip link add {card} type veth peer name {switch}"));
    }
    let folder = Folder::new(&host);
    let toml = blocks().into_iter().find(|block| block.kind == "toml host").unwrap().lines.join("\n");
    let config = folder.write("tap32.toml", &toml);
    assert!(run_console(&host, "console bare", &format!("env TAP32_CONFIG={config} {TAP32}")) > 3);
}

/// Runs the blocks of a kind, `tap32` as given, and returns how many commands that were.
fn run_console(host: &Host, kind: &str, tap32: &str) -> usize {
    let mut commands = 0;
    for block in blocks().iter().filter(|block| block.kind == kind) {
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("not a command: {line}"));
            let mut shown = String::new();
            while let Some(output) = lines.next_if(|line| !line.starts_with("$ ")) {
                shown.push_str(output.trim_end());
                shown.push('\n');
            }
            let command_line = command.strip_prefix("tap32 ").map(|rest| format!("{tap32} {rest}"));
            let output = host.run(command_line.as_deref().unwrap_or(command));
            let seen = text(&output.stdout) + &text(&output.stderr);
            let seen: String = seen.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            assert_eq!(seen, shown, "$ {command}");
            commands += 1;
        }
    }
    commands
}

/// Every command line of a shell block: ours must parse, scripts of ours must exist, QEMU's must give its MAC.
#[test]
fn shell_blocks_hold_commands_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for block in blocks().iter().filter(|block| block.kind == "sh") {
        let script = block.lines.join("\n").replace("\\\n", " ");
        for line in script.lines() {
            let words: Vec<&str> = line.split(['#', '|', '>']).next().unwrap().split_whitespace().collect();
            let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
            match words {
                []
                | ["cargo", "build", ..]
                | ["install" | "ln" | "mkdir" | "ip" | "sysctl" | "systemctl" | "sed", ..] => {}
                ["tap32", ..] => {
                    let words: Vec<_> = words.iter().map(Into::into).collect();
                    assert!(tap32::cli::parse(&words).is_ok(), "{line}");
                }
                // What they do to a host is what tests/packages is about; here only that packaging/build names them so.
                ["apt", "install", "./tap32_*.deb"] | ["dnf", "install", "./tap32-*.rpm"] => {}
                [script] if script.starts_with("tests/") => assert!(root.join(script).exists(), "{line}"),
                ["qemu-system-x86_64", ..] => {
                    let guest = tap32::machine::qemu::guest_of(words, "vnet0").unwrap();
                    assert!(matches!(guest, tap32::machine::qemu::Parent::Guest { .. }), "{line}");
                }
                _ => panic!("nothing checks this line of the README: {line}"),
            }
        }
    }
}

/// The bridge that the README sets up by hand is the one that the namespace tests use.
#[test]
#[ignore = "needs root: sudo tests/run"]
fn the_host_set_up_by_hand_works() {
    let host = Host::bare();
    let lines: Vec<String> = blocks()
        .into_iter()
        .filter(|block| block.kind == "sh" && block.lines[0].starts_with("ip link add br-l2"))
        .flat_map(|block| block.lines)
        .collect();
    assert!(lines.len() > 5);
    for line in lines {
        host.ok(&line);
    }
    host.add_tap("vnet0");
    host.tap32("up vnet0 --mac 02:42:0a:00:00:0a");
    assert!(host.isolated("vnet0") && host.owned().len() == 1);
}

#[test]
fn the_configuration_shown_is_the_default() {
    let shown = |kind: &str| blocks().into_iter().find(|block| block.kind == kind).unwrap().lines.join("\n");
    for toml in [shown("toml"), shown("toml fabric")] {
        assert_eq!(Config::parse(&toml).unwrap(), Config::default());
        // What is commented out must be right too: a key, or a table.
        let is_off =
            |rest: &&str| rest.starts_with('[') || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
        let on = |line: &str| line.strip_prefix("# ").filter(is_off).unwrap_or(line).to_owned();
        let uncommented = toml.lines().map(on).collect::<Vec<_>>().join("\n");
        assert_ne!(Config::parse(&uncommented).unwrap(), Config::default(), "{uncommented}");
    }
}
