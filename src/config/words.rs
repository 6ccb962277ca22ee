//! What is wrong with a file that cannot be read, in tap32's own words: the line, the value, and a line that would be
//! right. The example file that the packages install knows every key, its table and its form.

use std::ops::Range;

use anyhow::{Error, anyhow};
use toml::de::DeTable;

use crate::text::printable;

const EXAMPLE: &str = include_str!("../../packaging/tap32.toml");
/// A longer value, or line, is not repeated.
const LONGEST: usize = 60;

/// The keys before the first table.
const FIRST: &str = "";

/// The error of a file, in one line.
pub(super) fn sentence(text: &str, error: &toml::de::Error) -> Error {
    let Some(span) = error.span().filter(|span| text.get(span.clone()).is_some()) else {
        return anyhow!("{}", printable(error.message()));
    };
    let number = 1 + text[..span.start].matches('\n').count();
    let place = Place::of(text, span);
    let said = match DeTable::parse(text) {
        Err(_) => place.no_toml(error.message()),
        Ok(_) => place.wrong(error.message()),
    };
    anyhow!("line {number}: {}", printable(&said))
}

/// Where the mistake is.
struct Place<'a> {
    /// The text up to the end of the line.
    before: &'a str,
    line: &'a str,
    value: &'a str,
    at: usize,
    /// `[[bridge]]`
    table: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str, span: Range<usize>) -> Self {
        let start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let line = text[start..end].trim();
        let table = text[..start].lines().rev().chain([FIRST]).find_map(header).unwrap_or(FIRST);
        Self { before: &text[..end], line, value: text[span.clone()].trim(), at: span.start, table }
    }

    fn no_toml(&self, message: &str) -> String {
        if message.starts_with("duplicate key") {
            return format!("{} is there twice: keep one", self.value.trim_matches(['[', ']', '"']));
        }
        let form = match self.example(self.first_word()) {
            Some(example) => as_in(example),
            None => "a line is KEY = VALUE, [TABLE] or [[TABLE]], and text stands in quotes".to_owned(),
        };
        format!("{} is not TOML: {form}", shown(self.line))
    }

    fn wrong(&self, message: &str) -> String {
        if let Some(key) = quoted(message, "unknown field `").filter(|key| !key.starts_with("$__")) {
            return self.unknown(key, message);
        }
        if let Some(key) = quoted(message, "missing field `") {
            let inline = || format!("[[{}]]", self.first_word());
            let table = match header(self.line).unwrap_or(self.table) {
                FIRST => &inline(),
                table => table,
            };
            let example = example(table, key).map(|line| format!(": write one, such as {line}")).unwrap_or_default();
            return format!("{table} has no {key}, which tap32 needs{example}");
        }
        if header(self.line).is_some() {
            return "write [[bridge]], [[uplink]] and [[backbone]] in two brackets, and every other table in one"
                .into();
        }
        let key = self.key();
        let what = match message {
            // A sentence of tap32's own, which begins with the value.
            own if own.starts_with('"') => own.to_owned(),
            serdes => format!("{} is not {}", shown(self.value), wanted(serdes, key)),
        };
        match self.example(key) {
            Some(line) if !line.ends_with("= []") => {
                let what = what.split(" such as ").next().unwrap_or_default().trim_end_matches(',');
                format!("{what}: {}", as_in(line))
            }
            _ => format!("{key}: {what}"),
        }
    }

    fn unknown(&self, key: &str, message: &str) -> String {
        if let Some(table) = header(self.line) {
            let tables: Vec<&str> = EXAMPLE.lines().filter_map(|line| header(line.strip_prefix('#')?)).collect();
            return format!("there is no table {table}: tap32 knows {}", tables.join(", "));
        }
        let place = match self.first_word() {
            outer if outer != key && self.example(outer).is_some() => format!("in {outer}"),
            _ => place(self.table),
        };
        let (_, known) = message.split_once("expected ").unwrap_or_default();
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let mut sentence = format!("there is no key {key} {place}: tap32 knows {}", known.join(", "));
        let elsewhere: Vec<String> =
            keys().filter(|(_, line)| is_of(line, key)).map(|(table, _)| self::place(table)).collect();
        if !elsewhere.is_empty() {
            sentence += &format!("; write {key} {}", elsewhere.join(" or "));
        }
        sentence
    }

    fn first_word(&self) -> &'a str {
        self.line.split(|c| !is_of_key(c)).next().unwrap_or_default()
    }

    /// The key whose value is wrong.
    fn key(&self) -> &'a str {
        let before = self.before[..self.at].rsplit_once('=').map_or("", |(before, _)| before.trim_end());
        &before[before.rfind(|c| !is_of_key(c)).map_or(0, |at| at + 1)..]
    }

    fn example(&self, key: &str) -> Option<&'static str> {
        example(self.table, key)
    }
}

/// How a line would be right. Of two values the example has one, which may be the opposite of what is meant.
fn as_in(example: &str) -> String {
    match example.rsplit_once(" = ") {
        Some((key, "true" | "false")) => format!("write {key} = true or {key} = false"),
        _ => format!("write it as in {example}"),
    }
}

fn is_of_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

/// A table's header, if the line is one.
fn header(line: &str) -> Option<&str> {
    let header = line.split('#').next().unwrap_or_default().trim();
    let name = header.strip_prefix('[')?.strip_suffix(']')?.trim_start_matches('[').trim_end_matches(']');
    (!name.is_empty() && name.chars().all(is_of_key)).then_some(header)
}

/// The lines of the example file that have a key, each with its table.
fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut table = FIRST;
    let lines = EXAMPLE.lines().filter_map(|line| line.strip_prefix('#')).filter(|line| !line.starts_with(' '));
    lines.filter_map(move |line| match header(line) {
        Some(header) => {
            table = header;
            None
        }
        None => Some((table, line)),
    })
}

fn is_of(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
}

/// The line of a key, or that of the inline table that has the key.
fn example(table: &str, key: &str) -> Option<&'static str> {
    let here = || keys().filter(|(other, _)| *other == table).map(|(_, line)| line);
    let inner = format!(" {key} = ");
    here().find(|line| is_of(line, key)).or_else(|| here().find(|line| !key.is_empty() && line.contains(&inner)))
}

fn place(table: &str) -> String {
    if table == FIRST { "before the first table".to_owned() } else { format!("under {table}") }
}

/// The word in backquotes that follows `what`.
fn quoted<'a>(message: &'a str, what: &str) -> Option<&'a str> {
    message.strip_prefix(what)?.split('`').next()
}

/// What serde expects, for people.
fn wanted(message: &str, key: &str) -> String {
    let expected = message.rsplit_once("expected ").map_or(message, |(_, expected)| expected);
    match expected {
        "u8" => "a whole number from 0 to 255".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "a boolean" => "true or false".into(),
        "a string" | "path string" => "text in quotes".into(),
        "a sequence" => "a list in brackets".into(),
        "IPv4 address" | "invalid IPv4 address syntax" => "an IPv4 address in quotes".into(),
        "IPv4 network address" | "invalid IP address syntax" => "an IPv4 address and its length in quotes".into(),
        variants if message.starts_with("unknown variant") => variants.replace('`', "\""),
        _ => format!("what {key} takes"),
    }
}

fn shown(text: &str) -> &str {
    if text.is_empty() || text.contains('\n') || text.len() > LONGEST { "this" } else { text }
}
