//! The reference of all metrics as Markdown: `docs/metrics.md`, and `bulkhead metrics`.

use std::fmt::Write as _;

use super::{
    super::pgbouncer,
    list::{ALL, Described, Kind, USERS_MAX, Values},
};

const HEAD: &str = "\
# Metrics

`bulkhead metrics` prints this page; a test keeps the file equal to it, and another one what `/metrics` shows.

They are at `http://ADDRESS/metrics`, with the address of `listen.http`, in Prometheus' text format. Alerts are in
`config/prometheus/alerts.yml`, a dashboard is `config/grafana/bulkhead.json`.

All counters begin at zero with the process. A request's or statement's text, a client's `application_name` or address,
and a database's name are never a label. The number of series is bounded by the configuration: a metric has at most the
product of the values of its labels, and of a pool and a server only the pairs that there are. A histogram has, for each
of these, a series for each of its buckets, a sum and a count. What has not occurred yet has no series where `class` is a
label.

";

const PGBOUNCER_HEAD: &str = "
## With `metrics.pgbouncer_names`

The names and labels of [pgbouncer_exporter](https://github.com/prometheus-community/pgbouncer_exporter), with what the
console has in PgBouncer's columns: a database of PgBouncer's is a pool here. There is no `pgbouncer_client_connections`:
one of its labels is what clients call themselves.

";

const TABLE: &str = "| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n";

/// All of it.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    table(&mut page, ALL.iter().copied());
    page.push_str("\n## Values of labels\n\n| label | of | values |\n|---|---|---|\n");
    values(&mut page);
    page.push_str(PGBOUNCER_HEAD);
    table(&mut page, pgbouncer::all());
    page
}

fn table(page: &mut String, metrics: impl Iterator<Item = Described>) {
    page.push_str(TABLE);
    for Described { name, kind, labels, unit, meaning } in metrics {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let kind = kind.name();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {} | {meaning} |", labels.join(", "), unit.name());
    }
}

/// A row for each label that has the same values wherever it is, or for each metric that has words of its own.
fn values(page: &mut String) {
    let mut told: Vec<(&str, String, Vec<&str>)> = Vec::new();
    for metric in ALL {
        for label in metric.labels {
            let values = match label.values {
                Values::Pools => "names of pools in the configuration".to_owned(),
                Values::Servers => "names of servers in the configuration".to_owned(),
                Values::One => "one, that of the program".to_owned(),
                Values::Users => format!("{USERS_MAX} users, and one for all others"),
                Values::Words(words) => {
                    let words: Vec<String> = words().iter().map(|word| format!("`{word}`")).collect();
                    words.join(", ")
                }
            };
            match told.iter_mut().find(|(name, known, _)| *name == label.name && *known == values) {
                Some((.., metrics)) => metrics.push(metric.name),
                None => told.push((label.name, values, vec![metric.name])),
            }
        }
    }
    for (label, values, metrics) in told {
        let of: Vec<String> = match metrics.len() {
            1..4 => metrics.iter().map(|metric| format!("`{metric}`")).collect(),
            _ => vec!["several".to_owned()],
        };
        let _ = writeln!(page, "| `{label}` | {} | {values} |", of.join(", "));
    }
    let buckets = ALL.iter().filter(|metric| metric.kind == Kind::Histogram);
    let names: Vec<String> = buckets.map(|metric| format!("`{}`", metric.name)).collect();
    let _ = writeln!(page, "| `le` | {} | upper bounds of the buckets, in seconds |", names.join(", "));
}
