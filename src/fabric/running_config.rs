//! FRR's configuration as text: `show running-config`, and what `tap32 render frr` would have it be, in one shape. What a
//! route-map does with a guest's route, and the vtysh line that enters what is missing.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::vtysh::command_line;

/// One line with those it stands under: `redistribute kernel` under `router ospf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub under: Vec<String>,
    pub text: String,
}

impl Line {
    pub fn new(under: &[&str], text: impl Into<String>) -> Self {
        Self { under: under.iter().map(|&word| word.to_owned()).collect(), text: text.into() }
    }

    /// The same line with `no` before it.
    pub fn no(&self) -> Self {
        Self { under: self.under.clone(), text: format!("no {}", self.text) }
    }
}

#[derive(Debug, Default)]
pub struct Running(pub Vec<Line>);

impl Running {
    /// FRR indents by one space a level, in what it prints and in what we render.
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

    /// The shell line that enters those of `wanted` that are not here; `None` if all are.
    pub fn complete<'a>(&self, wanted: impl IntoIterator<Item = &'a Line>) -> Option<String> {
        let missing: Vec<&Line> = wanted.into_iter().filter(|line| !self.has(line)).collect();
        (!missing.is_empty()).then(|| enter(missing))
    }
}

/// The shell line that enters `lines` in order, each under its own.
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

/// A guest's route as a route-map sees it.
pub struct Guest<'a> {
    pub address: Ipv4Addr,
    pub bridge: &'a str,
    /// zebra hands on the low 24 bits of the kernel's.
    pub metric: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Passage {
    Passes,
    /// By this entry of the route-map.
    Denied(String),
    /// No entry is for it, and what is left over is denied.
    Unmatched,
    /// The route-map uses what we cannot judge.
    Unknown(String),
}

/// What the route-map `map` does with a guest's route (FRR manual, "Route Maps").
pub fn passage(running: &Running, map: &str, guest: &Guest) -> Passage {
    let head = format!("route-map {map} ");
    let mut entries: Vec<(u32, &Line)> = running
        .0
        .iter()
        .filter(|line| line.under.is_empty() && line.text.starts_with(&head))
        .filter_map(|line| Some((line.text.rsplit(' ').next()?.parse().ok()?, line)))
        .collect();
    entries.sort_by_key(|(number, _)| *number);
    for (_, entry) in entries {
        let inside = running.0.iter().filter(|line| line.under.first() == Some(&entry.text));
        let mut matches = true;
        for line in inside {
            match matched(running, &line.text, guest) {
                Some(fits) => matches &= fits,
                None => return Passage::Unknown(format!("{} {}", entry.text, line.text)),
            }
        }
        if matches {
            let permits = entry.text[head.len()..].starts_with("permit");
            return if permits { Passage::Passes } else { Passage::Denied(entry.text.clone()) };
        }
    }
    Passage::Unmatched
}

/// Whether a line of an entry fits the route; what sets, or describes, always does. `None`: it is not known.
fn matched(running: &Running, line: &str, guest: &Guest) -> Option<bool> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["match", "interface", name] => Some(name == guest.bridge),
        ["match", "ip", "address", "prefix-list", name] => Some(permits(running, name, guest.address)),
        ["match", "metric", metric] => Some(metric.parse() == Ok(guest.metric)),
        ["set" | "description", ..] => Some(true),
        _ => None,
    }
}

/// Whether a prefix list lets the /32 of an address through.
fn permits(running: &Running, list: &str, address: Ipv4Addr) -> bool {
    let head = format!("ip prefix-list {list} seq ");
    let mut entries: Vec<_> = running.starting(&head).filter_map(|line| entry(&line.text[head.len()..])).collect();
    entries.sort_by_key(|entry| entry.number);
    entries.iter().find(|entry| entry.fits(address)).is_some_and(|entry| entry.permit)
}

struct Entry {
    number: u32,
    permit: bool,
    prefix: Ipv4Net,
    least: u8,
    most: u8,
}

impl Entry {
    fn fits(&self, address: Ipv4Addr) -> bool {
        self.prefix.contains(&address) && (self.least..=self.most).contains(&32)
    }
}

/// `5 permit 10.0.0.0/24 ge 32`, behind `seq`.
fn entry(text: &str) -> Option<Entry> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [number, kind, prefix, rest @ ..] = &words[..] else { return None };
    let any = *prefix == "any";
    let prefix: Ipv4Net = if any { Ipv4Net::default() } else { prefix.parse().ok()? };
    let bound = |word: &str| rest.iter().position(|w| *w == word).and_then(|at| rest.get(at + 1)?.parse().ok());
    let (ge, le): (Option<u8>, Option<u8>) = (bound("ge"), bound("le"));
    Some(Entry {
        number: number.parse().ok()?,
        permit: *kind == "permit",
        prefix,
        least: ge.unwrap_or(if any { 0 } else { prefix.prefix_len() }),
        most: le.unwrap_or(if any || ge.is_some() { 32 } else { prefix.prefix_len() }),
    })
}
