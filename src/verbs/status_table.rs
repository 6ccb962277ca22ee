//! The table of `status`. A host with few taps has a row for each. On one with many, what is wrong comes first, a few rows
//! of each kind, and taps that are well and differ in nothing but their guest become one row that counts them.

use crate::guest::repairs::Repairs;
use crate::guest::state::{OrphanRow, RouteState, Status, TapRow};
use crate::text::{self, GREEN, PLAIN, RED, YELLOW, plural, printable};

/// So many rows are shown each by itself: with the header and the counts they fit on a terminal of 24 lines.
const FEW: usize = 20;

/// On a host with more, so many of each kind are named.
const NAMED: usize = 5;

type Cells = [String; 8];
const HEADER: [&str; 8] = ["TAP", "GUEST MAC", "ADDRESS", "BRIDGE", "ISOLATED", "GUARDED", "ROUTE", "NEXT HOP"];
/// The columns that say which guest it is; all others say how it stands.
const GUEST_COLUMNS: usize = 3;
/// The column of [`HEADER`] that has a colour.
const ROUTE_COLUMN: usize = 6;

/// One tap, or one orphan.
struct Row {
    cells: Cells,
    colour: &'static str,
    /// `--check` fails because of it.
    is_wrong: bool,
    why: Option<Reason>,
}

/// What there is to say of a row, in a line below the table.
struct Reason {
    /// The same of rows whose sentences differ in names and addresses only.
    kind: String,
    /// The tap, or an orphan's address.
    of: String,
    sentence: String,
}

/// Aligned columns, the reasons, and a last line that counts. `all`: a row for each tap, however many there are.
pub fn table(status: &Status, repairs: &Repairs, all: bool, colour: bool) -> String {
    let taps = status.taps.iter().map(|tap| of_tap(tap, repairs));
    let rows: Vec<Row> = taps.chain(status.orphans.iter().map(of_orphan)).collect();
    let is_short = !all && rows.len() > FEW;
    let text = if is_short { grouped(rows, colour) } else { each(rows, colour) };
    let bridges: String = repairs.of_bridges().map(|sentence| printable(&sentence) + "\n").collect();
    let hint = if is_short { HINT } else { "" };
    format!("{text}{bridges}{hint}{}\n", status.count())
}

fn each(rows: Vec<Row>, colour: bool) -> String {
    let reasons = rows.iter().filter_map(|row| row.why.as_ref());
    let reasons: String = reasons.map(|why| printable(&format!("{}: {}", why.of, why.sentence)) + "\n").collect();
    aligned(rows.into_iter().map(|row| (row.cells, row.colour)).collect(), colour) + &reasons
}

fn grouped(rows: Vec<Row>, colour: bool) -> String {
    let (mut named, well): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.is_wrong || row.why.is_some());
    // Stable: otherwise as the kernel has them.
    named.sort_by_key(|row| !row.is_wrong);
    let (mut lines, mut reasons) = (Vec::new(), String::new());
    for mut kind in kinds(named) {
        let rest = kind.split_off(kind.len().min(NAMED));
        reasons += &sentences(&kind, rest.len());
        lines.extend(kind.into_iter().map(|row| (row.cells, row.colour)));
        lines.extend(cut(rest));
    }
    lines.extend(groups(well));
    aligned(lines, colour) + &reasons
}

/// The rows of each state and kind of cause, in the order of the first of each.
fn kinds(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut kinds: Vec<Vec<Row>> = Vec::new();
    let key = |row: &Row| (row.cells[ROUTE_COLUMN].clone(), row.why.as_ref().map(|why| why.kind.clone()));
    for row in rows {
        match kinds.iter_mut().find(|kind| key(&kind[0]) == key(&row)) {
            Some(kind) => kind.push(row),
            None => kinds.push(vec![row]),
        }
    }
    kinds
}

/// One row that counts those of a kind that are not named, with what is the same of all.
fn cut(rest: Vec<Row>) -> Option<(Cells, &'static str)> {
    let number = rest.len();
    let mut rows = rest.into_iter();
    let Row { mut cells, colour, .. } = rows.next()?;
    for row in rows {
        let differ = cells.iter_mut().zip(&row.cells).filter(|(cell, other)| cell != other);
        differ.for_each(|(cell, _)| *cell = dash());
    }
    cells[..GUEST_COLUMNS].clone_from_slice(&[format!("{number} more"), dash(), dash()]);
    Some((cells, colour))
}

/// A line for each sentence about the named rows of a kind, and one that says where the others are.
fn sentences(named: &[Row], more: usize) -> String {
    let mut sentences: Vec<(&str, Vec<&str>)> = Vec::new();
    for why in named.iter().filter_map(|row| row.why.as_ref()) {
        match sentences.iter_mut().find(|(other, _)| *other == why.sentence) {
            Some((_, of)) => of.push(&why.of),
            None => sentences.push((&why.sentence, vec![&why.of])),
        }
    }
    let mut lines: Vec<String> =
        sentences.iter().map(|(sentence, of)| format!("{}: {sentence}", of.join(", "))).collect();
    if let Some((_, of)) = sentences.last().filter(|_| more > 0) {
        lines.push(format!("{more} more like {}: `tap32 status --all` lists them", of[of.len() - 1]));
    }
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn aligned(mut lines: Vec<(Cells, &str)>, colour: bool) -> String {
    lines.insert(0, (HEADER.map(str::to_owned), PLAIN));
    text::table(&lines, colour.then_some(ROUTE_COLUMN))
}

/// All but the columns that say which guest it is.
fn how_it_stands(row: &Row) -> &[String] {
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

const DASH: &str = "-";

const HINT: &str = "`tap32 status --all` has a row for each, `tap32 status TAP` explains one\n";
const TWO_HOSTS: &str = "if its guest runs too, stop one of the two or give it another MAC";

fn dash() -> String {
    DASH.to_owned()
}

fn yes_or_no(it: bool) -> String {
    if it { "yes" } else { "no" }.to_owned()
}

fn of_tap(tap: &TapRow, repairs: &Repairs) -> Row {
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
    let fault = repairs.of_tap(tap);
    let is_wrong = tap.is_wrong() || tap.unguarded || fault.is_some();
    Row { cells, colour: colour_of(tap.route), is_wrong, why: reason(tap, fault) }
}

/// What cuts the guest off is said alone; otherwise what `reconcile` repairs is said too.
fn reason(tap: &TapRow, fault: Option<String>) -> Option<Reason> {
    let own = match tap.route {
        RouteState::Shadowed if tap.next_hop.is_some() => Some(("", format!("{}; {TWO_HOSTS}", tap.shadowed_by()))),
        _ => tap.kind.zip(tap.why.clone()),
    };
    let (kind, sentence) = match (own, fault) {
        (Some((kind, why)), None) => (kind.to_owned(), why),
        (Some((kind, why)), Some(_)) if tap.is_wrong() => (kind.to_owned(), why),
        (Some((kind, why)), Some(fault)) => (format!("{kind} {fault}"), format!("{why}; {fault}")),
        (None, fault) => fault.map(|fault| (fault.clone(), fault))?,
    };
    Some(Reason { kind, of: tap.tap.clone(), sentence })
}

fn of_orphan(orphan: &OrphanRow) -> Row {
    let route = format!("orphan, {}", orphan.route.name());
    let of = orphan.address.to_string();
    let cells = [dash(), dash(), of.clone(), orphan.bridge.clone(), dash(), dash(), route, dash()];
    let sentence =
        format!("no running guest on {} has this address: `tap32 reconcile` deletes the route", orphan.bridge);
    Row { cells, colour: RED, is_wrong: true, why: Some(Reason { kind: String::new(), of, sentence }) }
}

fn colour_of(state: RouteState) -> &'static str {
    match state {
        RouteState::Settled | RouteState::Claimed => GREEN,
        RouteState::Arriving | RouteState::Shadowed | RouteState::Idle => YELLOW,
        RouteState::Missing | RouteState::Refused => RED,
    }
}
