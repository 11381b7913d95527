//! The queries of the dashboard's panels, as Grafana sends them.

use serde_json::Value;

use super::read;
use crate::support::Prometheus;

/// Every target of every panel: the panel's title and the expression, with Grafana's variables filled in.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("config/grafana/bulkhead.json")).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title");
        let targets = panel["targets"].as_array().expect("targets").iter();
        targets.map(move |target| (title.to_owned(), target["expr"].as_str().expect("a query").to_owned()))
    });
    let filled = targets.map(|(title, query)| {
        let query = query.replace("$instance", ".*").replace("$__rate_interval", "20s");
        assert!(!query.contains('$'), "{title}: {query} has a variable that this does not know");
        (title, query)
    });
    filled.collect()
}

/// Each of them has data.
pub(super) async fn check(prometheus: &Prometheus) {
    let queries = queries();
    assert!(queries.len() > 25, "{queries:?}");
    let mut empty = Vec::new();
    for (title, query) in queries {
        let samples = prometheus.query(&query).await;
        // A quantile of nothing is NaN.
        let has_data = samples.iter().any(|sample| sample["value"][1].as_str().is_some_and(|it| it != "NaN"));
        if !has_data {
            empty.push(format!("{title}: {query}: {samples:?}"));
        }
    }
    assert!(empty.is_empty(), "panels without data:\n{}", empty.join("\n"));
}
