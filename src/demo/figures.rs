//! What was measured of each set-up, and the table of all of them.

use std::fmt::Write as _;

/// One set-up, measured several times.
#[derive(Clone, Debug, Default)]
pub(super) struct Column {
    /// What is above it, line by line.
    pub(super) title: [&'static str; 2],
    /// One for each run.
    pub(super) runs: Vec<Figures>,
    /// Servers that Bulkhead has connections to.
    pub(super) servers: u32,
    /// How many it may open to each.
    pub(super) connections_max: u32,
}

/// Of one set-up in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) queries_per_second: f64,
    /// The 50th, 95th and 99th percentile in milliseconds; `None` if no query was answered.
    pub(super) latency_ms: Option<[f64; 3]>,
    pub(super) errors: u64,
    /// `None` without workers.
    pub(super) jobs: Option<Jobs>,
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

/// A column for each set-up, a line for each figure: the medians of all runs, and all errors. The first one is what the
/// others are compared with, each with that of the same run.
pub(super) fn table(columns: &[Column]) -> String {
    let mut text = String::new();
    for at in 0..2 {
        line(&mut text, "", columns.iter().map(|column| column.title[at].to_owned()));
    }
    for (at, name) in ["user p50, ms", "user p95, ms", "user p99, ms"].into_iter().enumerate() {
        line(&mut text, name, columns.iter().map(|column| cell(column.latencies(at))));
    }
    let alone = columns.first().map(|column| column.latencies(2)).unwrap_or_default();
    line(&mut text, "  from, to", columns.iter().map(|column| range(&column.latencies(2))));
    let times = columns.iter().map(|column| {
        let pairs = column.latencies(2).into_iter().zip(alone.clone());
        cell(pairs.map(|(own, alone)| own / alone).collect())
    });
    line(&mut text, "  times that alone", times);
    let of_runs =
        |column: &Column, of: fn(&Figures) -> Option<f64>| cell(column.runs.iter().filter_map(of).collect());
    let queries: fn(&Figures) -> Option<f64> = |run| Some(run.queries_per_second.round());
    line(&mut text, "user queries/s", columns.iter().map(|column| of_runs(column, queries)));
    let errors = |column: &Column| grouped(column.runs.iter().map(|run| run.errors).sum());
    line(&mut text, "user errors", columns.iter().map(errors));
    let jobs: fn(&Figures) -> Option<f64> = |run| run.jobs.map(|jobs| jobs.per_second.round());
    line(&mut text, "jobs/s", columns.iter().map(|column| of_runs(column, jobs)));
    let job_errors = |column: &Column| {
        let errors: Vec<u64> = column.runs.iter().filter_map(|run| Some(run.jobs?.errors)).collect();
        if errors.is_empty() { ABSENT.to_owned() } else { grouped(errors.iter().sum()) }
    };
    line(&mut text, "job errors", columns.iter().map(job_errors));
    line(&mut text, "database servers", columns.iter().map(|column| grouped(u64::from(column.servers))));
    let connections = |column: &Column| grouped(u64::from(column.connections_max));
    line(&mut text, "connections to each", columns.iter().map(connections));
    text
}

/// Stands for what was not measured.
const ABSENT: &str = "-";

impl Column {
    /// One of the percentiles, of all runs that have it.
    fn latencies(&self, at: usize) -> Vec<f64> {
        self.runs.iter().filter_map(|run| Some(run.latency_ms?[at])).collect()
    }
}

fn cell(values: Vec<f64>) -> String {
    median(values).map_or_else(|| ABSENT.to_owned(), number)
}

/// The one in the middle; of an even number the upper one of both.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn range(values: &[f64]) -> String {
    let of = |best: fn(f64, f64) -> f64| values.iter().copied().reduce(best);
    let ends = of(f64::min).zip(of(f64::max));
    ends.map_or_else(|| ABSENT.to_owned(), |(from, to)| format!("{}, {}", number(from), number(to)))
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
    fn medians_are_of_all_runs() {
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(3.0));
        assert_eq!((range(&[]), range(&[0.5, 0.25, 12.0])), ("-".to_owned(), "0.25, 12".to_owned()));
    }

    #[test]
    fn the_table_has_a_column_for_each_set_up() {
        let run = |p99, jobs| Figures {
            queries_per_second: 1000.2,
            latency_ms: Some([0.31, 0.5, p99]),
            errors: 3,
            jobs,
        };
        let alone = Column {
            title: ["no workers", "one pool"],
            runs: vec![run(1.0, None), run(2.0, None), run(4.0, None)],
            servers: 1,
            connections_max: 20,
        };
        let with_jobs = |per_second| Some(Jobs { per_second, errors: 1 });
        let silent = Figures { latency_ms: None, ..run(0.0, with_jobs(99.0)) };
        let beside = Column {
            title: ["60 workers", "one pool"],
            runs: vec![run(3.0, with_jobs(131.4)), run(3.0, with_jobs(140.0)), run(6.0, with_jobs(7.0))],
            ..alone.clone()
        };
        let text = table(&[alone.clone(), beside, Column { runs: vec![silent], ..alone }]);
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["no", "workers", "60", "workers", "no", "workers"]);
        assert_eq!(words[4], ["user", "p99,", "ms", "2", "3", "-"]);
        assert_eq!(words[5], ["from,", "to", "1,", "4", "3,", "6", "-"]);
        assert_eq!(words[6], ["times", "that", "alone", "1", "1.50", "-"]);
        assert_eq!(words[8], ["user", "errors", "9", "9", "3"]);
        assert_eq!(words[9], ["jobs/s", "-", "131", "99"]);
        assert_eq!(words[10], ["job", "errors", "-", "3", "1"]);
        assert!(text.lines().all(|line| line.len() < 96 && line.trim_end() == line), "{text}");
    }
}
