//! roff, see man(7) and groff_man_style(7).

use std::fmt::Write as _;
use std::time::Instant;

use tap32::cli::VERBS;
use tap32::cli::options::{COMMON, Opt};
use tap32::config::Config;
use tap32::guest::snapshot::Snapshot;
use tap32::guest::state::Status;
use tap32::verbs::metrics::Metrics;

/// tap32(8): what the template says, with the verbs and options of the table, and the metrics as `watch` writes them.
pub fn program(template: &str) -> String {
    let mut verbs = String::new();
    for spec in VERBS {
        let (summary, mut details) = (escape(spec.summary), escape(spec.details));
        // Columns stay as they are; prose is filled.
        if details.contains("   ") {
            details = format!(".nf\n{details}\n.fi");
        }
        // Writing to a String cannot fail; here and below.
        let _ = writeln!(verbs, ".SS \"{}\"\n{summary}.\n.PP\n{details}", escape(&spec.usage()));
        verbs.push_str(&options(spec.options));
    }
    template.replace("@VERBS@\n", &verbs).replace("@OPTIONS@\n", &options(COMMON)).replace("@METRICS@\n", &metrics())
}

/// Each metric of a host with one guest, by its own line of help.
fn metrics() -> String {
    let snapshot: Snapshot = toml::from_str(
        "bridge = [{ name = 'br-l2', index = 2, mtu = 1500, up = true, proxy_arp_pvlan = true, addresses = [] }]
         link = [{ name = 'vnet0', index = 3, kind = 'tap', mac = 'fe:42:0a:00:00:0a', mtu = 9, up = true, master = 2 }]",
    )
    .unwrap();
    let (config, mut metrics) = (Config::default(), Metrics::default());
    let status = Status::of(&config, &snapshot);
    metrics.looked(&config, &snapshot, &status, Instant::now());
    let file = metrics.text(&status);
    let mut text = String::new();
    for family in file.split("# HELP ").skip(1) {
        let (name, rest) = family.split_once(' ').unwrap();
        let help = rest.lines().next().unwrap();
        let kind = rest.lines().nth(1).unwrap().rsplit(' ').next().unwrap();
        // The labels of the first sample, without their values.
        let sample = rest.lines().nth(2).unwrap();
        let label = sample.split_once('{').and_then(|(_, labels)| labels.split_once('='));
        let label = label.map(|(label, _)| format!("{{{label}=...}}")).unwrap_or_default();
        let _ = writeln!(text, ".TP\n\\fB{name}\\fR{label} ({kind})\n{}", escape(help));
    }
    text
}

fn options(options: &[&Opt]) -> String {
    options.iter().fold(String::new(), |mut text, option| {
        let short = option.short.map(|short| format!("-{short}, ")).unwrap_or_default();
        let names = escape(&format!("{short}--{}", option.long));
        let value = if option.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", option.value) };
        let _ = writeln!(text, ".TP\n\\fB{names}\\fR{value}\n{}", escape(option.help));
        text
    })
}

/// tap32.toml(5): the example file's tables and keys, each with its default and what its comment says.
pub fn configuration(template: &str, example: &str) -> String {
    let mut keys = String::from(".SS \"before the first table\"\n");
    // The first paragraph of the file is about the file itself.
    let paragraphs: Vec<&str> = example.split("\n\n").skip(1).collect();
    for paragraph in paragraphs {
        let (prose, code): (Vec<&str>, Vec<&str>) = paragraph.lines().partition(|line| line.starts_with("# "));
        let prose: Vec<&str> = prose.iter().map(|line| line.trim_start_matches("# ")).collect();
        let prose = escape(&prose.join("\n"));
        for code in code {
            let code = escape(code.trim_start_matches('#'));
            let _ = match code.starts_with('[') {
                true => writeln!(keys, ".SS {code}\n{prose}"),
                false => writeln!(keys, ".TP\n.B {code}\n{prose}"),
            };
        }
    }
    template.replace("@KEYS@\n", &keys)
}

/// Backslash and hyphen as roff wants them; no line may begin with a dot or a quote.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let line = |line: &str| match line.starts_with(['.', '\'']) {
        true => format!("\\&{line}"),
        false => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_page_is_named_in_the_others() {
    let pages = ["tap32.8", "tap32.toml.5", "tap32-fabric.7", "tap32-design.7"];
    let in_folder = std::fs::read_dir(super::packaging("man")).unwrap();
    let names = in_folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| !name.ends_with(".in")).count(), pages.len());
    for page in pages {
        let text = super::read(&format!("man/{page}"));
        let (_, see_also) = text.split_once(".SH SEE ALSO\n").unwrap();
        for other in pages.iter().filter(|other| **other != page) {
            let (name, section) = other.rsplit_once('.').unwrap();
            let wanted = format!(".BR {} ({section})", escape(name));
            assert!(see_also.contains(&wanted), "{page} does not name {other}");
        }
    }
}
