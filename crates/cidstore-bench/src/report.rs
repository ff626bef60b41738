//! Figures: medians and spread of several runs, each beside its floor, as a table and as JSON.

use serde_json::{Value, json};
use std::fmt::Write;

/// Unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Triples a second: more is better.
    TriplesPerSecond,
    /// Microseconds: less is better.
    Micros,
    /// Milliseconds: less is better.
    Millis,
    /// MiB: less is better.
    Mebibytes,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::TriplesPerSecond => "triples/s",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Mebibytes => "MiB",
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::TriplesPerSecond => grouped(value.round() as u64),
            Self::Micros | Self::Millis | Self::Mebibytes => format!("{value:.1}"),
        }
    }
}

/// `1234567` as `1 234 567`.
pub fn grouped(value: u64) -> String {
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

/// One measured quantity, a value per run.
#[derive(Debug, Clone)]
struct Figure {
    name: String,
    unit: Unit,
    values: Vec<f64>,
    /// Name of the figure that is its floor (or ceiling, for rates).
    floor: Option<String>,
}

/// All figures of a session, in the order in which they were first measured.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// The value below which the fraction `q` of sorted `values` lies (nearest rank); 0 for none.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

/// Middle of the values, the mean of the two middle ones for an even number; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

impl Report {
    /// Adds the value of one run to a figure. `floor` names the figure to compare it with.
    pub fn add(&mut self, name: &str, unit: Unit, value: f64, floor: Option<&str>) {
        if let Some(figure) = self.figures.iter_mut().find(|figure| figure.name == name) {
            figure.values.push(value);
            return;
        }
        let floor = floor.map(str::to_owned);
        self.figures.push(Figure { name: name.into(), unit, values: vec![value], floor });
    }

    /// Adds p50, p99 and p99.9 of one run's latencies (nanoseconds); only p50 has a floor.
    pub fn add_latencies(&mut self, name: &str, nanos: &[u64], floor: Option<&str>) {
        let mut micros: Vec<f64> = nanos.iter().map(|n| *n as f64 / 1e3).collect();
        micros.sort_by(f64::total_cmp);
        for (label, q, floor) in [("p50", 0.5, floor), ("p99", 0.99, None), ("p99.9", 0.999, None)] {
            self.add(&format!("{name} {label}"), Unit::Micros, quantile(&micros, q), floor);
        }
    }

    /// Adds a remark, printed below the table.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Median of a figure; `None` if it was not measured.
    pub fn median_of(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| median(&figure.values))
    }

    fn floor_of(&self, figure: &Figure) -> Option<(String, f64)> {
        let name = figure.floor.clone()?;
        let value = self.median_of(&name)?;
        Some((name, value))
    }

    /// The table: median, least and greatest of the runs, floor, ratio of median to floor.
    pub fn table(&self) -> String {
        let mut rows = vec![["figure", "median", "min", "max", "unit", "floor", "ratio"].map(str::to_owned)];
        for figure in &self.figures {
            let show = |value| figure.unit.show(value);
            let least = figure.values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = figure.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let middle = median(&figure.values);
            let (floor, ratio) = self.floor_of(figure).map_or_else(
                || (String::new(), String::new()),
                |(name, value)| (format!("{} ({name})", show(value)), format!("{:.2}", middle / value)),
            );
            rows.push([
                figure.name.clone(),
                show(middle),
                show(least),
                show(most),
                figure.unit.name().into(),
                floor,
                ratio,
            ]);
        }
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<_> = (0..7).map(width).collect();
        let mut text = String::new();
        for row in &rows {
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
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        text
    }

    /// The same for programs; every run's value is kept.
    pub fn json(&self) -> Value {
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                let middle = median(&figure.values);
                let floor = self
                    .floor_of(figure)
                    .map(|(name, value)| json!({"name": name, "median": value, "ratio": middle / value}));
                json!({
                    "name": figure.name, "unit": figure.unit.name(), "median": middle,
                    "runs": figure.values, "floor": floor,
                })
            })
            .collect();
        json!({ "figures": figures, "notes": self.notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_medians() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            (quantile(&sorted, 0.5), quantile(&sorted, 0.99), quantile(&sorted, 0.999)),
            (500.0, 990.0, 999.0)
        );
        assert_eq!((quantile(&[7.0], 0.999), quantile(&[], 0.5)), (7.0, 0.0));
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.0, 2.5, 0.0));
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1 234 567".into())
        );
    }

    #[test]
    fn a_figure_stands_beside_its_floor() {
        let mut report = Report::default();
        for value in [100.0, 80.0, 90.0] {
            report.add_latencies("echo", &[value as u64 * 1000], None);
            report.add_latencies("query sp", &[value as u64 * 1200], Some("echo p50"));
        }
        assert_eq!(report.median_of("echo p50"), Some(90.0));
        let json = report.json();
        let figure =
            json["figures"].as_array().unwrap().iter().find(|f| f["name"] == "query sp p50").unwrap();
        assert!((figure["floor"]["ratio"].as_f64().unwrap() - 1.2).abs() < 1e-9, "{figure}");
        assert_eq!(figure["runs"].as_array().unwrap().len(), 3);
        let table = report.table();
        let row = table.lines().find(|line| line.starts_with("query sp p50")).unwrap();
        assert!(row.contains("108.0") && row.contains("90.0 (echo p50)") && row.ends_with("1.20"), "{row}");
    }
}
