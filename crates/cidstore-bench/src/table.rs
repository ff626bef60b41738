//! The report as text.

use crate::report::{Report, Unit};
use crate::stats::median;
use std::fmt::Write;

/// `1234567` as `1 234 567`.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A number of triples as people say it: `10 M`.
fn short(size: u64) -> String {
    match size {
        n if n >= 1_000_000 && n.is_multiple_of(100_000) => format!("{} M", n as f64 / 1e6),
        n => grouped(n),
    }
}

fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::TriplesPerSecond | Unit::RequestsPerSecond | Unit::Count => grouped(value.round() as u64),
        _ if value.abs() < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

fn named(name: &str, size: Option<u64>) -> String {
    size.map_or_else(|| name.to_owned(), |size| format!("{name} at {}", short(size)))
}

/// See [`Report::table`].
pub fn text(report: &Report) -> String {
    let mut rows = vec![["figure", "median", "min", "max", "unit", "floor", "ratio"].map(str::to_owned)];
    for figure in &report.figures {
        let show = |value| show(figure.unit, value);
        let least = figure.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = figure.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let middle = median(&figure.values);
        let (floor, ratio) = report.floor_of(figure).map_or_else(
            || (String::new(), String::new()),
            |(name, value)| (format!("{} ({name})", show(value)), format!("{:.2}", middle / value)),
        );
        rows.push([
            named(&figure.name, figure.size),
            show(middle),
            show(least),
            show(most),
            figure.unit.name().into(),
            floor,
            ratio,
        ]);
    }
    let mut text = aligned(&rows);
    for verdict in &report.verdicts {
        let met = if verdict.met() { "met" } else { "MISSED" };
        let show = |value| show(verdict.unit, value);
        let (side, limit) = verdict.limit.parts();
        let name = named(&verdict.figure, verdict.size);
        let (found, unit, limit) = (show(verdict.found), verdict.unit.name(), show(limit));
        let why = if verdict.why.is_empty() { String::new() } else { format!(" ({})", verdict.why) };
        let _ = writeln!(text, "{met}: {name} {found} {unit}, {side} {limit}{why}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

fn aligned(rows: &[[String; 7]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            // Names and units to the left, numbers to the right.
            let cell =
                if matches!(column, 0 | 4 | 5) { format!("{cell}{pad}") } else { format!("{pad}{cell}") };
            let _ = write!(line, "{cell}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1 234 567".into())
        );
        assert_eq!((short(100_000_000), short(1_500_000)), ("100 M".into(), "1.5 M".into()));
        assert_eq!((short(100_000), short(1_234_567)), ("100 000".into(), "1 234 567".into()));
        assert_eq!((show(Unit::Micros, 1.234), show(Unit::Micros, 123.45)), ("1.23".into(), "123.5".into()));
        assert_eq!(show(Unit::TriplesPerSecond, 1e6), "1 000 000");
    }
}
