//! Completions of verbs, options and interface names, for bash, zsh and fish.

use std::fmt::Write as _;

use tap32::cli::VERBS;
use tap32::cli::options::{COMMON, Opt};
use tap32::cli::table::Spec;

const MADE: &str = "# Made from src/cli/table.rs: UPDATE=1 cargo test --test generated\n";

/// What the shell can offer in the place of a word of the usage line; by the words that the table uses.
enum Offer {
    Files,
    Interfaces,
    Nothing,
}

fn offer(word: &str) -> Offer {
    match word {
        "FILE" => Offer::Files,
        "IFNAME" | "BR" => Offer::Interfaces,
        _ => Offer::Nothing,
    }
}

/// The verb's own options and those of every verb.
fn options(spec: &Spec) -> impl Iterator<Item = &'static Opt> {
    spec.options.iter().chain(COMMON).copied()
}

fn first_argument(spec: &Spec) -> &'static str {
    spec.arguments.split_whitespace().next().unwrap_or_default().trim_matches(['[', ']'])
}

fn long_names(options: impl Iterator<Item = &'static Opt>) -> String {
    options.map(|option| format!("--{}", option.long)).collect::<Vec<_>>().join(" ")
}

pub fn bash() -> String {
    let mut values = String::new();
    let mut seen: Vec<&str> = Vec::new();
    for option in VERBS.iter().flat_map(options).filter(|option| !option.value.is_empty()) {
        if seen.contains(&option.long) {
            continue;
        }
        seen.push(option.long);
        let action = match offer(option.value) {
            Offer::Files => "compopt -o filenames\n            mapfile -t COMPREPLY < <(compgen -f -- \"$word\")",
            Offer::Interfaces => "mapfile -t COMPREPLY < <(cd /sys/class/net && compgen -f -- \"$word\")",
            Offer::Nothing => "COMPREPLY=()",
        };
        // Writing to a String cannot fail; here and below.
        let _ =
            writeln!(values, "        --{})\n            {action}\n            return\n            ;;", option.long);
    }
    let mut verbs = String::new();
    for spec in VERBS {
        let _ = writeln!(verbs, "        {}) words=\"{}\" ;;", spec.name, long_names(options(spec)));
    }
    let interfaces: Vec<&str> = VERBS
        .iter()
        .filter(|spec| matches!(offer(first_argument(spec)), Offer::Interfaces))
        .map(|spec| spec.name)
        .collect();
    let names: Vec<&str> = VERBS.iter().map(|spec| spec.name).collect();
    format!(
        "{MADE}# shellcheck shell=bash
_tap32() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words
    case ${{COMP_WORDS[COMP_CWORD - 1]}} in
{values}    esac
    if [ \"$COMP_CWORD\" = 1 ]; then
        words=\"{} {}\"
        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")
        return
    fi
    case ${{COMP_WORDS[1]}} in
{verbs}        *) words= ;;
    esac
    case ${{COMP_WORDS[1]}}:$word in
        *:-*) ;;
        {}) words=$(cd /sys/class/net && compgen -f) ;;
        *) words= ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")
}}
complete -F _tap32 tap32
",
        names.join(" "),
        long_names(COMMON.iter().copied()),
        interfaces.iter().map(|name| format!("{name}:*")).collect::<Vec<_>>().join(" | "),
    )
}

pub fn zsh() -> String {
    let quote = |text: &str| text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]");
    let action = |word: &str| match offer(word) {
        Offer::Files => "_files",
        Offer::Interfaces => "_net_interfaces",
        Offer::Nothing => "",
    };
    let mut names = String::new();
    let mut verbs = String::new();
    for spec in VERBS {
        let _ = writeln!(names, "            '{}:{}'", spec.name, quote(spec.summary));
        let mut arguments: Vec<String> = options(spec)
            .map(|option| {
                let value = match option.value {
                    "" => String::new(),
                    value => format!(":{value}:{}", action(value)),
                };
                let name = match option.short {
                    Some(short) => format!("'(-{short} --{})'{{-{short},--{}}}", option.long, option.long),
                    None => format!("--{}", option.long),
                };
                format!("{name}'[{}]{value}'", quote(option.help))
            })
            .collect();
        if !spec.arguments.is_empty() {
            arguments.push(format!("'*:{}:{}'", spec.arguments, action(first_argument(spec))));
        }
        let _ =
            writeln!(verbs, "        {})\n            _arguments \\\n                {}\n            ;;", spec.name, {
                arguments.join(" \\\n                ")
            });
    }
    format!(
        "#compdef tap32
{MADE}
_tap32() {{
    if (( CURRENT == 2 )); then
        local -a verbs=(
{names}        )
        _describe verb verbs
        return
    fi
    local verb=$words[2]
    shift words
    (( CURRENT-- ))
    case $verb in
{verbs}    esac
}}

_tap32 \"$@\"
"
    )
}

pub fn fish() -> String {
    let quote = |text: &str| text.replace('\'', "\\'");
    let option = |condition: &str, option: &Opt| {
        let short = option.short.map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = match (option.value, offer(option.value)) {
            ("", _) => "",
            (_, Offer::Files) => " -r -F",
            (_, Offer::Interfaces) => " -x -a '(__fish_print_interfaces)'",
            (_, Offer::Nothing) => " -x",
        };
        format!("complete -c tap32{condition}{short} -l {}{value} -d '{}'\n", option.long, quote(option.help))
    };
    let mut text = format!("{MADE}complete -c tap32 -f\n");
    for common in COMMON {
        text.push_str(&option("", common));
    }
    for spec in VERBS {
        let _ =
            writeln!(text, "complete -c tap32 -n __fish_use_subcommand -a {} -d '{}'", spec.name, quote(spec.summary));
        let condition = format!(" -n '__fish_seen_subcommand_from {}'", spec.name);
        if let Offer::Interfaces = offer(first_argument(spec)) {
            let _ = writeln!(text, "complete -c tap32{condition} -a '(__fish_print_interfaces)'");
        }
        for own in spec.options {
            text.push_str(&option(&condition, own));
        }
    }
    text
}
