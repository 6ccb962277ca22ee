//! roff, see man(7) and groff_man_style(7).

use std::fmt::Write as _;

use tap32::cli::VERBS;
use tap32::cli::options::{COMMON, Opt};

/// tap32(8): what the template says, with the verbs and options of the table.
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
    template.replace("@VERBS@\n", &verbs).replace("@OPTIONS@\n", &options(COMMON))
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
