//! FRR's configuration in one shape, from `show running-config` and from `tap32 render frr`; and the vtysh line that enters
//! what is missing.

use super::vtysh::command_line;

/// One line, and the lines that it stands under: `redistribute kernel` under `router ospf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub under: Vec<String>,
    pub text: String,
}

impl Line {
    pub fn new(under: &[&str], text: impl Into<String>) -> Self {
        Self { under: under.iter().map(|&word| word.to_owned()).collect(), text: text.into() }
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

#[derive(Debug, Default)]
pub struct Running(pub Vec<Line>);

impl Running {
    /// Both texts indent by one space for each level.
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

    /// All lines under a top line that begins with these words, without those of another VRF's router.
    pub fn under(&self, top: &str) -> impl Iterator<Item = &Line> {
        let is_it = move |first: &String| {
            first.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
                && !(top.starts_with("router ") && first.contains(" vrf "))
        };
        self.0.iter().filter(move |line| line.under.first().is_some_and(is_it))
    }

    /// All lines that begin with these words.
    pub fn starting(&self, words: &str) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(move |line| line.text.starts_with(words))
    }

    pub fn has(&self, wanted: &Line) -> bool {
        self.0.contains(wanted)
    }

    /// Says how a line differs from the wanted one, which begins with `key`; `None` if it does not.
    pub fn differs(&self, wanted: &Line, key: &str) -> Option<String> {
        let mut there = self.0.iter().filter(|line| line.under == wanted.under && line.text.starts_with(key));
        (!self.has(wanted)).then(|| match there.next() {
            Some(found) => format!("`{}` instead of `{}`", found.text, wanted.text),
            None => format!("`{}` is missing", wanted.text),
        })
    }

    /// The shell line that enters the lines of `wanted` that are missing; `None` if none is.
    pub fn complete<'a>(&self, wanted: impl IntoIterator<Item = &'a Line>) -> Option<String> {
        let missing: Vec<&Line> = wanted.into_iter().filter(|line| !self.has(line)).collect();
        (!missing.is_empty()).then(|| enter(missing))
    }
}

/// The shell line that enters `lines` in their order, each under its top lines.
pub fn enter<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    let mut commands = vec!["configure terminal".to_owned()];
    let mut at: Vec<String> = Vec::new();
    let mut last: Option<&Line> = None;
    for line in lines {
        let is_inside = last.is_some_and(|last| line.under.split_last() == Some((&last.text, &last.under[..])));
        if line.under != at && !is_inside {
            commands.extend(at.iter().map(|_| "exit".to_owned()));
            commands.extend(line.under.iter().cloned());
        }
        commands.push(line.text.clone());
        at.clone_from(&line.under);
        last = Some(line);
    }
    command_line(&commands)
}
