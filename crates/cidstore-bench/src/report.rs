//! Figures: medians and spread of several runs, each beside its floor, and what is promised of them.

use crate::promise::{Limit, Verdict};
use crate::stats::{median, quantile, sorted_micros};
use crate::table;
use serde_json::{Value, json};

/// Unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Triples a second: more is better.
    TriplesPerSecond,
    /// Requests a second: more is better.
    RequestsPerSecond,
    /// Microseconds: less is better.
    Micros,
    /// Milliseconds: less is better.
    Millis,
    /// MiB: less is better.
    Mebibytes,
    /// Bytes for each triple: less is better.
    BytesPerTriple,
    /// How many times something else.
    Times,
    /// How often something happened.
    Count,
}

impl Unit {
    const ALL: [Self; 8] = [
        Self::TriplesPerSecond,
        Self::RequestsPerSecond,
        Self::Micros,
        Self::Millis,
        Self::Mebibytes,
        Self::BytesPerTriple,
        Self::Times,
        Self::Count,
    ];

    /// As it stands in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::TriplesPerSecond => "triples/s",
            Self::RequestsPerSecond => "requests/s",
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Mebibytes => "MiB",
            Self::BytesPerTriple => "B/triple",
            Self::Times => "times",
            Self::Count => "count",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }
}

/// One measured quantity, a value per run.
#[derive(Debug, Clone)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Triples in the store it was measured on, where that matters.
    pub size: Option<u64>,
    /// Of the values.
    pub unit: Unit,
    /// One for each run.
    pub values: Vec<f64>,
    /// Name of the figure that is its floor (or ceiling, for rates).
    floor: Option<String>,
}

/// All figures of a session, in the order in which they were first measured.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) figures: Vec<Figure>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) notes: Vec<String>,
    size: Option<u64>,
}

impl Report {
    /// What is added, judged and asked for from now on is about a store of so many triples, or of no
    /// store in particular.
    pub fn about(&mut self, size: Option<u64>) {
        self.size = size;
    }

    /// Adds the value of one run to a figure. `floor` names the figure to compare it with.
    pub fn add(&mut self, name: &str, unit: Unit, value: f64, floor: Option<&str>) {
        let size = self.size;
        if let Some(figure) = self.figures.iter_mut().find(|f| f.name == name && f.size == size) {
            figure.values.push(value);
            return;
        }
        let floor = floor.map(str::to_owned);
        self.figures.push(Figure { name: name.into(), size, unit, values: vec![value], floor });
    }

    /// Adds p50, p99 and p99.9 of one run's latencies (nanoseconds); only p50 has a floor.
    pub fn add_latencies(&mut self, name: &str, nanos: &[u64], floor: Option<&str>) {
        let micros = sorted_micros(nanos);
        for (label, q, floor) in [("p50", 0.5, floor), ("p99", 0.99, None), ("p99.9", 0.999, None)] {
            self.add(&format!("{name} {label}"), Unit::Micros, quantile(&micros, q), floor);
        }
    }

    /// Adds a remark, printed below the table; once, however often it is made.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Median of a figure of this size, or else of one of no size; `None` if it was not measured.
    pub fn median_of(&self, name: &str) -> Option<f64> {
        self.find(name, self.size).map(|figure| median(&figure.values))
    }

    /// The value of the last run, likewise.
    pub fn last_of(&self, name: &str) -> Option<f64> {
        self.find(name, self.size).and_then(|figure| figure.values.last().copied())
    }

    fn find(&self, name: &str, size: Option<u64>) -> Option<&Figure> {
        let of = |size| self.figures.iter().find(move |f| f.name == name && f.size == size);
        of(size).or_else(|| of(None))
    }

    pub(crate) fn floor_of(&self, figure: &Figure) -> Option<(String, f64)> {
        let floor = self.find(figure.floor.as_deref()?, figure.size)?;
        Some((floor.name.clone(), median(&floor.values)))
    }

    /// Sets a figure of this size beside its limit; nothing if it was not measured.
    pub fn judge(&mut self, name: &str, limit: Limit, why: &str) {
        let size = self.size;
        let Some(figure) = self.figures.iter().find(|f| f.name == name && f.size == size) else { return };
        let (figure, unit, found) = (figure.name.clone(), figure.unit, limit.of(&figure.values));
        self.verdicts.push(Verdict { figure, size, unit, found, limit, why: why.into() });
    }

    /// Takes over the figures and notes of another program's report, as figures of this size.
    ///
    /// # Errors
    /// What is missing in it.
    pub fn absorb(&mut self, report: &Value) -> Result<(), String> {
        let figures = report["figures"].as_array().ok_or("a report without `figures`")?;
        for figure in figures {
            let missing = |what: &str| format!("a figure without {what}: {figure}");
            let name = figure["name"].as_str().ok_or_else(|| missing("name"))?;
            let unit =
                figure["unit"].as_str().and_then(Unit::of_name).ok_or_else(|| missing("known unit"))?;
            let runs = figure["runs"].as_array().ok_or_else(|| missing("runs"))?;
            for value in runs {
                let value = value.as_f64().ok_or_else(|| missing("a number for each run"))?;
                self.add(name, unit, value, figure["floor"]["name"].as_str());
            }
        }
        for note in report["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.note(note);
        }
        Ok(())
    }

    /// The table: median, least and greatest of the runs, floor, ratio of median to floor; then what
    /// is promised, and the notes.
    pub fn table(&self) -> String {
        table::text(self)
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
                    "name": figure.name, "size": figure.size, "unit": figure.unit.name(), "median": middle,
                    "runs": figure.values, "floor": floor,
                })
            })
            .collect();
        let verdicts: Vec<_> = self.verdicts.iter().map(Verdict::json).collect();
        json!({ "figures": figures, "verdicts": verdicts, "notes": self.notes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_stands_beside_its_floor() {
        let mut report = Report::default();
        for value in [100.0, 80.0, 90.0] {
            report.add_latencies("echo", &[value as u64 * 1000], None);
            report.add_latencies("query sp", &[value as u64 * 1200], Some("echo p50"));
        }
        assert_eq!((report.median_of("echo p50"), report.last_of("echo p50")), (Some(90.0), Some(90.0)));
        let json = report.json();
        let figure =
            json["figures"].as_array().unwrap().iter().find(|f| f["name"] == "query sp p50").unwrap();
        assert!((figure["floor"]["ratio"].as_f64().unwrap() - 1.2).abs() < 1e-9, "{figure}");
        assert_eq!(figure["runs"].as_array().unwrap().len(), 3);
        let table = report.table();
        let row = table.lines().find(|line| line.starts_with("query sp p50")).unwrap();
        assert!(row.contains("108.0") && row.contains("90.0 (echo p50)") && row.ends_with("1.20"), "{row}");
    }

    #[test]
    fn figures_of_one_size_are_not_mixed_with_those_of_another() {
        let mut report = Report::default();
        report.add("echo p50", Unit::Micros, 100.0, None);
        for (size, value) in [(1_000_000, 120.0), (10_000_000, 150.0)] {
            report.about(Some(size));
            report.add("query sp p50", Unit::Micros, value, Some("echo p50"));
        }
        report.judge("query sp p50", Limit::AtMost(130.0), "");
        report.about(Some(1_000_000));
        assert_eq!(report.median_of("query sp p50"), Some(120.0));
        assert_eq!(report.median_of("echo p50"), Some(100.0), "of no size in particular");
        report.judge("query sp p50", Limit::AtMost(130.0), "");
        report.judge("never measured", Limit::AtLeast(1.0), "");
        let met: Vec<_> = report.verdicts.iter().map(|v| (v.size, v.met())).collect();
        assert_eq!(met, [(Some(10_000_000), false), (Some(1_000_000), true)]);
        for stalls in [0.0, 0.0, 1.0] {
            report.add("stalls", Unit::Count, stalls, None);
        }
        report.judge("stalls", Limit::AtMost(0.0), "");
        report.judge("stalls", Limit::NeverAbove(0.0), "");
        let met: Vec<_> = report.verdicts[2..].iter().map(Verdict::met).collect();
        assert_eq!(met, [true, false], "the median hides what one run saw");
        assert_eq!(report.json()["figures"][2]["floor"]["ratio"], 1.5);
        let table = report.table();
        assert!(table.contains("MISSED: query sp p50 at 10 M 150.0 µs, at most 130.0"), "{table}");
        assert!(table.contains("met: query sp p50 at 1 M 120.0 µs, at most 130.0"), "{table}");
    }

    #[test]
    fn another_programs_report_is_taken_over_as_it_is() {
        let mut other = Report::default();
        other.add("scan", Unit::TriplesPerSecond, 5e6, None);
        other.add("scan", Unit::TriplesPerSecond, 7e6, None);
        other.add("bytes", Unit::BytesPerTriple, 120.5, None);
        other.note("warm");
        let mut report = Report::default();
        report.about(Some(10));
        for _ in 0..2 {
            report.absorb(&other.json()).unwrap();
        }
        assert_eq!(report.figures[0].values, [5e6, 7e6, 5e6, 7e6]);
        assert_eq!((report.figures[1].size, report.figures[1].unit), (Some(10), Unit::BytesPerTriple));
        assert_eq!(report.notes, ["warm"]);
        assert!(report.absorb(&json!({})).is_err());
        let odd = json!({"figures": [{"name": "x", "unit": "furlongs", "runs": [1.0]}]});
        assert!(report.absorb(&odd).unwrap_err().contains("known unit"));
    }

    #[test]
    fn every_unit_is_known_by_its_name() {
        for unit in Unit::ALL {
            assert_eq!(Unit::of_name(unit.name()), Some(unit));
        }
    }
}
