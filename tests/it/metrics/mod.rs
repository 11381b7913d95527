//! `/metrics` against its list and promtool's rules; the alerts and the dashboard on a real Prometheus.

mod alerts;
mod dashboard;
mod evictions;
mod list;
mod names;
mod rules;
mod stage;
mod transactions;

use std::{fs, path::Path};

/// A file of the project.
fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A sample: name, labels in their order, value.
#[derive(Debug)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// The samples of a scrape.
fn samples(text: &str) -> Vec<Sample> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').trim_end_matches('"');
            let pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
            Sample {
                name: name.to_owned(),
                labels: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                value: value.parse().expect("a number"),
            }
        })
        .collect()
}
