//! The README's examples are run, so that they cannot go stale: what stands in a `console` block is done in a
//! namespace and must print what the block shows; of a `sh` block every program must be one we know how to
//! check; the `toml` must be the defaults.

mod common;

use std::path::Path;

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
    let host = Host::new();
    let mut commands = 0;
    for block in blocks().iter().filter(|block| block.kind == "console") {
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").unwrap_or_else(|| panic!("not a command: {line}"));
            let mut shown = String::new();
            while let Some(output) = lines.next_if(|line| !line.starts_with("$ ")) {
                shown.push_str(output.trim_end());
                shown.push('\n');
            }
            let output = host.run(&command.replacen("tap32 ", &format!("{TAP32} "), 1));
            let seen = text(&output.stdout) + &text(&output.stderr);
            let seen: String = seen.lines().map(|line| format!("{}\n", line.trim_end())).collect();
            assert_eq!(seen, shown, "$ {command}");
            commands += 1;
        }
    }
    assert!(commands > 10, "{commands}");
}

/// Every command line of a shell block: ours must parse, scripts of ours must exist, QEMU's must give its MAC.
#[test]
fn shell_blocks_hold_commands_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for block in blocks().iter().filter(|block| block.kind == "sh") {
        let script = block.lines.join("\n").replace("\\\n", " ");
        for line in script.lines() {
            let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
            let words = words.strip_prefix(&["sudo"]).unwrap_or(&words);
            match words {
                [] | ["cargo", "build", ..] | ["install" | "ln" | "mkdir" | "ip" | "sysctl" | "systemctl", ..] => {}
                // What they do to a host is what tests/packages is about; here only that packaging/build names them so.
                ["apt", "install", "./tap32_*.deb"] | ["dnf", "install", "./tap32-*.rpm"] => {}
                [script] if script.starts_with("tests/") => assert!(root.join(script).exists(), "{line}"),
                ["qemu-system-x86_64", ..] => {
                    let guest = tap32::qemu::guest_of(words, "vnet0").unwrap();
                    assert!(matches!(guest, tap32::qemu::Parent::Guest { .. }), "{line}");
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
    let toml = blocks().into_iter().find(|block| block.kind == "toml").unwrap().lines.join("\n");
    assert_eq!(Config::parse(&toml).unwrap(), Config::default());
    // What is commented out must be right too.
    let uncommented = toml.replace("# gateway", "gateway").replace("# prefixes", "prefixes");
    assert!(Config::parse(&uncommented).is_ok());
}
