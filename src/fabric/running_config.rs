//! FRR's configuration, of `show running-config` or `tap32 render frr`, and the vtysh line that enters what is missing.

use super::vtysh::command_line;

/// One line with those it stands under: `redistribute kernel` under `router ospf`.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    pub under: Vec<String>,
    pub text: String,
}

impl Line {
    pub fn new(under: &[&str], text: impl Into<String>) -> Self {
        Self { under: under.iter().map(|&word| word.to_owned()).collect(), text: text.into() }
    }

    /// The line without indentation that it stands under, or itself.
    pub fn top(&self) -> &str {
        self.under.first().unwrap_or(&self.text)
    }

    /// In backquotes, with the line that it stands under.
    pub fn shown(&self) -> String {
        let top = self.under.last().map_or_else(String::new, |top| format!(" in `{top}`"));
        format!("`{}`{top}", self.text)
    }

    /// The same line with `no` before it.
    pub fn no(&self) -> Self {
        Self { under: self.under.clone(), text: format!("no {}", self.text) }
    }
}

pub struct Running(pub Vec<Line>);

impl Running {
    /// FRR indents by one space a level, and so does `render frr`.
    pub fn parse(text: &str) -> Self {
        let mut lines = Vec::new();
        let mut stack: Vec<String> = Vec::new();
        for raw in text.lines() {
            let text = raw.trim();
            if text.is_empty() || text.starts_with('!') || matches!(text, "exit" | "end" | "exit-address-family") {
                continue;
            }
            stack.truncate(raw.len() - raw.trim_start().len());
            lines.push(Line { under: stack.clone(), text: text.to_owned() });
            stack.push(text.to_owned());
        }
        Self(lines)
    }

    /// Lines directly or deeper under a top line that begins with these words; not of another VRF's router.
    pub fn under(&self, top: &str) -> impl Iterator<Item = &Line> {
        let is_it = move |first: &String| {
            first.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
                && !(top.starts_with("router ") && first.contains(" vrf "))
        };
        self.0.iter().filter(move |line| line.under.first().is_some_and(is_it))
    }

    /// Lines that begin with these words.
    pub fn starting(&self, words: &str) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.text.starts_with(words))
    }

    pub fn has(&self, wanted: &Line) -> bool {
        self.0.contains(wanted)
    }

    /// Says how a line differs from the wanted one, which begins with `key`; `None` if it does not.
    pub fn differs(&self, wanted: &Line, key: &str) -> Option<String> {
        let found = self.starting(key).find(|line| line.under == wanted.under);
        (!self.has(wanted)).then(|| match found {
            Some(found) => format!("`{}` instead of `{}`", found.text, wanted.text),
            None => format!("`{}` is missing", wanted.text),
        })
    }

    /// The shell line that enters those of `wanted` that are not here; `None` if all are.
    pub fn complete<'a>(&self, wanted: impl IntoIterator<Item = &'a Line>) -> Option<String> {
        let missing: Vec<&Line> = wanted.into_iter().filter(|line| !self.has(line)).collect();
        (!missing.is_empty()).then(|| enter(missing))
    }
}

/// The shell line that enters `lines` in order, each under its own.
pub fn enter<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    let mut commands = vec!["configure terminal"];
    // Where vtysh stands: below this line's parents, or also inside it.
    let mut last: Option<&Line> = None;
    for line in lines {
        let is_there = last.is_some_and(|last| {
            line.under == last.under || line.under.split_last() == Some((&last.text, &last.under[..]))
        });
        if !is_there {
            commands.extend(last.into_iter().flat_map(|last| &last.under).map(|_| "exit"));
            commands.extend(line.under.iter().map(String::as_str));
        }
        commands.push(&line.text);
        last = Some(line);
    }
    command_line(&commands)
}
