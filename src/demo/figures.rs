//! What a phase has measured, and the table of all phases.

use std::fmt::Write as _;

/// Of one phase.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// What is above the column, line by line.
    pub(super) title: [&'static str; 2],
    pub(super) queries_per_second: f64,
    /// The 50th, 95th and 99th percentile in milliseconds; `None` if no query was answered.
    pub(super) latency_ms: Option<[f64; 3]>,
    pub(super) errors: u64,
    /// `None` without workers.
    pub(super) jobs: Option<Jobs>,
    /// Server connections that Bulkhead may open, all pools together.
    pub(super) connections_max: u32,
}

/// What the workers have done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Jobs {
    pub(super) per_second: f64,
    pub(super) errors: u64,
}

/// The 50th, 95th and 99th percentile, in milliseconds, of latencies in microseconds.
pub(super) fn percentiles(mut micros: Vec<u32>) -> Option<[f64; 3]> {
    micros.sort_unstable();
    let last = micros.len().checked_sub(1)?;
    Some([0.5, 0.95, 0.99].map(|share| f64::from(micros[(last as f64 * share) as usize]) / 1000.0))
}

/// A column for each phase, a line for each figure.
pub(super) fn table(phases: &[Figures]) -> String {
    let mut text = String::new();
    for at in 0..2 {
        line(&mut text, "", phases.iter().map(|phase| phase.title[at].to_owned()));
    }
    let absent = || "-".to_owned();
    for (at, name) in ["user p50, ms", "user p95, ms", "user p99, ms"].into_iter().enumerate() {
        let cell = |phase: &Figures| phase.latency_ms.map_or_else(absent, |ms| number(ms[at]));
        line(&mut text, name, phases.iter().map(cell));
    }
    line(&mut text, "user queries/s", phases.iter().map(|phase| number(phase.queries_per_second.round())));
    line(&mut text, "user errors", phases.iter().map(|phase| grouped(phase.errors)));
    let per_second = |jobs: Jobs| number(jobs.per_second.round());
    line(&mut text, "jobs/s", phases.iter().map(|phase| phase.jobs.map_or_else(absent, per_second)));
    let errors = |jobs: Jobs| grouped(jobs.errors);
    line(&mut text, "job errors", phases.iter().map(|phase| phase.jobs.map_or_else(absent, errors)));
    let connections = |phase: &Figures| grouped(u64::from(phase.connections_max));
    line(&mut text, "server connections", phases.iter().map(connections));
    text
}

fn line(text: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let mut whole = format!("  {name:<20}");
    for cell in cells {
        write!(whole, "{cell:>18}").expect("a String takes any text");
    }
    text.push_str(whole.trim_end());
    text.push('\n');
}

/// Three digits or more, such as 4,312 or 87.4 or 0.31.
fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 || value.fract() == 0.0 => grouped(value.round() as u64),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// 4,312
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        assert_eq!(percentiles(Vec::new()), None);
        assert_eq!(percentiles(vec![7000]), Some([7.0; 3]));
        let hundred: Vec<u32> = (0..=100).rev().map(|ms| ms * 1000).collect();
        assert_eq!(percentiles(hundred), Some([50.0, 95.0, 99.0]));
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(0.0, "0"), (0.314, "0.31"), (87.44, "87.4"), (4311.6, "4,312"), (1e6, "1,000,000")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_phase() {
        let alone = Figures {
            title: ["no workers", "one pool"],
            queries_per_second: 1000.2,
            latency_ms: Some([0.31, 0.5, 12.0]),
            connections_max: 20,
            ..Figures::default()
        };
        let jobs = Some(Jobs { per_second: 131.4, errors: 0 });
        let beside =
            Figures { title: ["60 workers", "one pool"], latency_ms: None, errors: 3, jobs, ..alone.clone() };
        let text = table(&[alone, beside]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["no", "workers", "60", "workers"]);
        assert_eq!(words[3], ["user", "p95,", "ms", "0.50", "-"]);
        assert_eq!(words[5], ["user", "queries/s", "1,000", "1,000"]);
        assert_eq!(words[7], ["jobs/s", "-", "131"]);
        assert!(text.lines().all(|line| line.len() < 80 && line.trim_end() == line), "{text}");
    }
}
