//! Text for people and for shells: text from outside made harmless, aligned tables, colours, plurals, quoted words.

pub(crate) const GREEN: &str = "\x1b[32m";
pub(crate) const YELLOW: &str = "\x1b[33m";
pub(crate) const RED: &str = "\x1b[31m";
/// In place of a colour.
pub(crate) const PLAIN: &str = "";
const END: &str = "\x1b[0m";

/// Text from outside (arguments, names of interfaces and domains, files, other programs' answers) as it may be shown or
/// logged: each character that commands a terminal, forges a line of a log or turns the writing around is escaped.
pub fn printable(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Aligned columns, two spaces apart, one line a row. Each row has a colour, in which the column `painted` is printed.
pub(crate) fn table<const N: usize>(rows: &[([String; N], &str)], painted: Option<usize>) -> String {
    let rows: Vec<_> =
        rows.iter().map(|(cells, colour)| (cells.each_ref().map(|cell| printable(cell)), *colour)).collect();
    let width = |column: usize| rows.iter().map(|(cells, _)| cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |(cells, colour): &([String; N], &str)| {
        let cells = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            let padded = format!("{cell:width$}");
            if painted == Some(column) && *colour != PLAIN { format!("{colour}{padded}{END}") } else { padded }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// `1 tap`, `3 taps`
pub(crate) fn plural(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A word for a POSIX shell, in single quotes where it needs them.
pub(crate) fn quote(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
