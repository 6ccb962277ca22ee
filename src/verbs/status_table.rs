//! The table of `status`. A host with few taps has a row for each. On one with many, what is wrong comes first, and rows
//! that differ in nothing but their guest become one row that counts them.

use std::collections::BTreeMap;

use crate::guest::state::{OrphanRow, RouteState, Status, TapRow};
use crate::text::{self, GREEN, PLAIN, RED, YELLOW, plural, printable};

/// So many rows are shown each by itself: with the header and the counts they fit on a terminal of 24 lines.
const FEW: usize = 20;

/// On a host with more, so many of those that are wrong in the same way are named.
const NAMED: usize = 5;

type Cells = [String; 8];
const HEADER: [&str; 8] = ["TAP", "GUEST MAC", "ADDRESS", "BRIDGE", "ISOLATED", "GUARDED", "ROUTE", "NEXT HOP"];
/// The columns that say which guest it is; all others say how it stands.
const GUEST_COLUMNS: usize = 3;
/// The column of [`HEADER`] that has a colour.
const ROUTE_COLUMN: usize = 6;

/// One tap, or one orphan.
struct Row<'a> {
    cells: Cells,
    colour: &'static str,
    is_wrong: bool,
    /// Its tap, and what there is to say of it.
    why: Option<(&'a str, &'a str)>,
}

/// Aligned columns, the reasons, and a last line that counts. `all`: a row for each tap, however many there are.
pub fn table(status: &Status, all: bool, colour: bool) -> String {
    let rows: Vec<Row> = status.taps.iter().map(of_tap).chain(status.orphans.iter().map(of_orphan)).collect();
    let text = if all || rows.len() <= FEW { each(rows, colour) } else { grouped(rows, colour) };
    text + &status.count() + "\n"
}

fn each(rows: Vec<Row>, colour: bool) -> String {
    let reasons: String =
        rows.iter().filter_map(|row| row.why).map(|(tap, why)| printable(&format!("{tap}: {why}")) + "\n").collect();
    aligned(rows.into_iter().map(|row| (row.cells, row.colour)).collect(), colour) + &reasons
}

fn grouped(mut rows: Vec<Row>, colour: bool) -> String {
    // Stable: otherwise as the kernel has them.
    rows.sort_by_key(|row| !row.is_wrong);
    let reasons = reasons(rows.iter().filter(|row| row.is_wrong));
    let (mut lines, mut rest, mut alike): (Vec<_>, Vec<_>, BTreeMap<_, usize>) = Default::default();
    for row in rows {
        let so_far = alike.entry((how_it_stands(&row).to_vec(), row.why.map(|(_, why)| why))).or_default();
        *so_far += 1;
        if row.is_wrong && *so_far <= NAMED && lines.len() < FEW {
            lines.push((row.cells, row.colour));
        } else {
            rest.push(row);
        }
    }
    lines.extend(groups(rest));
    let hint = "`tap32 status --all` has a row for each, `tap32 status TAP` explains one\n";
    aligned(lines, colour) + &reasons + hint
}

fn aligned(mut lines: Vec<(Cells, &str)>, colour: bool) -> String {
    lines.insert(0, (HEADER.map(str::to_owned), PLAIN));
    text::table(&lines, colour.then_some(ROUTE_COLUMN))
}

/// All but the columns that say which guest it is.
fn how_it_stands<'a>(row: &'a Row) -> &'a [String] {
    &row.cells[GUEST_COLUMNS..]
}

/// A row for those that differ only in their guest, in the order of the first of each. One alone stays as it is.
fn groups(rows: Vec<Row>) -> impl Iterator<Item = (Cells, &'static str)> {
    let mut groups: Vec<(Row, usize)> = Vec::new();
    for row in rows {
        match groups.iter_mut().find(|(first, _)| how_it_stands(first) == how_it_stands(&row)) {
            Some((_, number)) => *number += 1,
            None => groups.push((row, 1)),
        }
    }
    groups.into_iter().map(|(Row { mut cells, colour, .. }, number)| {
        if number > 1 {
            let what = if cells[0] == DASH { "route" } else { "tap" };
            let counted = [plural(number, what), dash(), dash()];
            cells[..GUEST_COLUMNS].clone_from_slice(&counted);
        }
        (cells, colour)
    })
}

/// A line for each reason, with the taps that it is true of.
fn reasons<'a>(rows: impl Iterator<Item = &'a Row<'a>>) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (tap, why) in rows.filter_map(|row| row.why) {
        match reasons.iter_mut().find(|(other, _)| *other == why) {
            Some((_, taps)) => taps.push(tap),
            None => reasons.push((why, vec![tap])),
        }
    }
    let line = |(why, taps): (&str, Vec<&str>)| {
        let more = taps.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        printable(&format!("{}{more}: {why}", taps[..taps.len().min(NAMED)].join(", "))) + "\n"
    };
    reasons.into_iter().take(FEW).map(line).collect()
}

const DASH: &str = "-";

fn dash() -> String {
    DASH.to_owned()
}

fn yes_or_no(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn of_tap(tap: &TapRow) -> Row<'_> {
    let cells = [
        tap.tap.clone(),
        tap.guest_mac.map_or_else(dash, |guest| guest.to_string()),
        tap.address.map_or_else(dash, |address| address.to_string()),
        tap.bridge.clone().unwrap_or_else(dash),
        yes_or_no(tap.isolated),
        yes_or_no(tap.guarded),
        tap.route.name().to_owned(),
        tap.next_hop.clone().unwrap_or_else(dash),
    ];
    let why = tap.why.as_deref().map(|why| (tap.tap.as_str(), why));
    Row { cells, colour: colour_of(tap.route), is_wrong: tap.is_wrong() || tap.unguarded, why }
}

fn of_orphan(orphan: &OrphanRow) -> Row<'_> {
    let route = format!("orphan, {}", orphan.route.name());
    let cells = [dash(), dash(), orphan.address.to_string(), orphan.bridge.clone(), dash(), dash(), route, dash()];
    Row { cells, colour: RED, is_wrong: true, why: None }
}

fn colour_of(state: RouteState) -> &'static str {
    match state {
        RouteState::Settled | RouteState::Claimed => GREEN,
        RouteState::Arriving | RouteState::Shadowed | RouteState::Idle => YELLOW,
        RouteState::Missing | RouteState::Refused => RED,
    }
}
