//! What came out: a table for people, and JSON for whoever compares runs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

/// All figures of one bench.
#[derive(Serialize)]
pub(crate) struct Report {
    name: String,
    date: String,
    cores: usize,
    rows: Vec<Row>,
}

/// One figure. What is compared carries the baseline of the same run.
#[derive(Serialize)]
struct Row {
    case: String,
    metric: &'static str,
    value: f64,
    unit: &'static str,
    baseline: Option<f64>,
    /// The value by the baseline.
    ratio: Option<f64>,
    /// The lowest and the highest of the rounds' ratios, or of their values where nothing is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<[f64; 2]>,
    target: Option<f64>,
    pass: Option<bool>,
    /// The target is an aim.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_aim: bool,
}

/// What a figure or a ratio must be. A target that is missed fails the bench. An aim that is missed is only printed.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    AimAtLeast(f64),
    AimAtMost(f64),
    None,
}

impl Target {
    /// The target or the aim, and whether this meets it.
    fn of(self, figure: f64) -> (Option<f64>, Option<bool>) {
        match self {
            Self::AtLeast(target) | Self::AimAtLeast(target) => (Some(target), Some(figure >= target)),
            Self::AtMost(target) | Self::AimAtMost(target) => (Some(target), Some(figure <= target)),
            Self::None => (None, None),
        }
    }

    const fn is_aim(self) -> bool {
        matches!(self, Self::AimAtLeast(_) | Self::AimAtMost(_))
    }
}

impl Row {
    /// Compares this figure of the row with a target or an aim.
    fn hold(&mut self, figure: f64, target: Target) {
        (self.target, self.pass) = target.of(figure);
        self.is_aim = target.is_aim();
    }

    /// The last column of the table.
    const fn verdict(&self) -> &'static str {
        match (self.pass, self.is_aim) {
            (None, _) => "-",
            (Some(true), false) => "yes",
            (Some(false), false) => "NO",
            (Some(true), true) => "aim: yes",
            (Some(false), true) => "aim: no",
        }
    }
}

impl Report {
    pub(crate) fn new(name: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { name: name.to_owned(), date: chrono::Utc::now().to_rfc3339(), cores, rows: Vec::new() }
    }

    /// A figure against its baseline; with a target, the ratio must reach it.
    pub(crate) fn compared(
        &mut self,
        case: &str,
        (metric, unit): (&'static str, &'static str),
        value: f64,
        baseline: f64,
        target: Option<f64>,
    ) {
        let ratio = value / baseline;
        let pass = target.map(|target| ratio >= target);
        let (baseline, ratio) = (Some(baseline), Some(ratio));
        self.rows.push(Row {
            case: case.to_owned(),
            metric,
            value,
            unit,
            baseline,
            ratio,
            spread: None,
            target,
            pass,
            is_aim: false,
        });
    }

    /// Medians of a figure, of its baseline, and of their ratio in each round, which may be so much.
    pub(crate) fn at_most_ratio(
        &mut self,
        case: &str,
        metric: (&'static str, &'static str),
        (value, baseline, ratio): (f64, f64, f64),
        target: f64,
    ) {
        self.compared(case, metric, value, baseline, None);
        if let Some(row) = self.rows.last_mut() {
            (row.ratio, row.target, row.pass) = (Some(ratio), Some(target), Some(ratio <= target));
        }
    }

    /// Medians of a figure, of its baseline, and of their ratio in each round, which must reach the target.
    pub(crate) fn at_least_ratio(
        &mut self,
        case: &str,
        metric: (&'static str, &'static str),
        (value, baseline, ratio): (f64, f64, f64),
        target: f64,
    ) {
        self.compared(case, metric, value, baseline, None);
        if let Some(row) = self.rows.last_mut() {
            (row.ratio, row.target, row.pass) = (Some(ratio), Some(target), Some(ratio >= target));
        }
    }

    /// A figure of each round against its baseline of the same round: medians, the median of the ratios, and their spread.
    pub(crate) fn in_rounds(
        &mut self,
        case: &str,
        metric: (&'static str, &'static str),
        values: &[f64],
        baselines: &[f64],
        target: Target,
    ) {
        let ratios: Vec<f64> = values.iter().zip(baselines).map(|(value, baseline)| value / baseline).collect();
        let ratio = median(&ratios);
        self.compared(case, metric, median(values), median(baselines), None);
        if let Some(row) = self.rows.last_mut() {
            row.ratio = Some(ratio);
            row.spread = Some([quantile(&ratios, 0.0), quantile(&ratios, 1.0)]);
            row.hold(ratio, target);
        }
    }

    /// A figure of each round that nothing is compared with: its median and its spread.
    pub(crate) fn of_rounds(
        &mut self,
        case: &str,
        metric: (&'static str, &'static str),
        values: &[f64],
        target: Target,
    ) {
        self.at_most(case, metric, median(values), None);
        if let Some(row) = self.rows.last_mut() {
            row.spread = Some([quantile(values, 0.0), quantile(values, 1.0)]);
            row.hold(median(values), target);
        }
    }

    /// A figure that must reach the target.
    pub(crate) fn at_least(&mut self, case: &str, metric: (&'static str, &'static str), value: f64, target: f64) {
        self.at_most(case, metric, value, None);
        if let Some(row) = self.rows.last_mut() {
            (row.target, row.pass) = (Some(target), Some(value >= target));
        }
    }

    /// A figure that must be at most the target, if there is one.
    pub(crate) fn at_most(
        &mut self,
        case: &str,
        (metric, unit): (&'static str, &'static str),
        value: f64,
        target: Option<f64>,
    ) {
        let pass = target.map(|target| value <= target);
        self.rows.push(Row {
            case: case.to_owned(),
            metric,
            value,
            unit,
            baseline: None,
            ratio: None,
            spread: None,
            target,
            pass,
            is_aim: false,
        });
    }

    /// Prints, writes, and says whether all targets were met.
    pub(crate) fn finish(&self) -> ExitCode {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let case = self.width(&self.name, |row| row.case.as_str());
        let metric = self.width("metric", |row| row.metric);
        let unit = self.width("unit", |row| row.unit);
        println!(
            "{:case$} {:metric$} {:>10} {:unit$} {:>10} {:>6} {:>13} {:>7}  pass",
            self.name, "metric", "value", "unit", "baseline", "ratio", "spread", "target"
        );
        for row in &self.rows {
            let spread = row.spread.map_or_else(|| "-".to_owned(), |[low, high]| format!("{low:.2}-{high:.2}"));
            println!(
                "{:case$} {:metric$} {:>10} {:unit$} {:>10} {:>6} {spread:>13} {:>7}  {}",
                row.case,
                row.metric,
                shown(Some(row.value)),
                row.unit,
                shown(row.baseline),
                shown(row.ratio),
                shown(row.target),
                row.verdict(),
            );
        }
        if let Some(folder) = std::env::var_os("FREEHOLD_BENCH_OUT") {
            let path = PathBuf::from(folder).join(format!("{}.json", self.name));
            std::fs::write(&path, serde_json::to_string_pretty(self).unwrap()).unwrap();
            println!("written to {}", path.display());
        }
        if self.is_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The width of a column of text: that of its longest entry.
    fn width(&self, head: &str, entry: fn(&Row) -> &str) -> usize {
        self.rows.iter().map(|row| entry(row).chars().count()).fold(head.len(), usize::max)
    }

    /// Whether no target is missed. Aims do not count.
    fn is_met(&self) -> bool {
        self.rows.iter().all(|row| row.is_aim || row.pass != Some(false))
    }
}

/// The middle one of several figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure that this part of all is not above; for ever, if there are none.
pub(crate) fn quantile(figures: &[f64], part: f64) -> f64 {
    if figures.is_empty() {
        return f64::INFINITY;
    }
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_figures_that_were_seen() {
        let figures: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((quantile(&figures, 0.99) - 198.0).abs() < f64::EPSILON);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((quantile(&[1.0], 0.99) - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_aim_that_is_missed_is_printed_and_fails_nothing() {
        let mut report = Report::new("test");
        for (target, verdict, is_met) in [
            (Target::AimAtMost(13.0), "aim: yes", true),
            (Target::AimAtMost(10.0), "aim: no", true),
            (Target::AimAtLeast(13.0), "aim: no", true),
            (Target::None, "-", true),
            (Target::AtLeast(10.0), "yes", true),
            (Target::AtMost(10.0), "NO", false),
        ] {
            report.of_rounds("a case", ("p50", "ms"), &[12.0], target);
            assert_eq!(report.rows.last().map(Row::verdict), Some(verdict));
            assert_eq!(report.is_met(), is_met);
        }
    }
}
