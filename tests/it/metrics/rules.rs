//! The alerts and their tests, by promtool.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use super::read;
use crate::support::{Scratch, promtool};

const ALERTS: &str = "config/prometheus/alerts.yml";

/// The names of all alerts.
pub(super) fn alerts() -> Vec<String> {
    let text = read(ALERTS);
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(ToOwned::to_owned));
    let names: Vec<String> = names.collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

/// Runs the tests beside the alerts on these alerts; what promtool says if they fail.
fn test(alerts: &str) -> Result<(), String> {
    let folder = Scratch::new();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is writable");
    write("alerts.yml", alerts);
    write("alerts_test.yml", &read("config/prometheus/alerts_test.yml"));
    let output = promtool(&["test", "rules", "alerts_test.yml"], folder.path(), "");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(told.into_owned()) }
}

/// How often each alert is expected, and how often it fires, where tests fail on these alerts.
fn expected_and_got(alerts: &str) -> BTreeMap<String, (usize, usize)> {
    let told = test(alerts).expect_err("the tests notice nothing");
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in told.lines().map(str::trim) {
        for name in line.split("alertname=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let count = counts.entry(name.to_owned()).or_default();
            count.0 += usize::from(line.starts_with("exp:"));
            count.1 += usize::from(line.starts_with("got:"));
        }
    }
    counts
}

/// The alerts with other thresholds, and the names of those that have one.
fn with_thresholds(change: impl Fn(f64) -> f64) -> (String, BTreeSet<String>) {
    let (mut changed, mut name, mut names) = (String::new(), "", BTreeSet::new());
    let alerts = read(ALERTS);
    for line in alerts.lines() {
        name = line.trim().strip_prefix("- alert: ").unwrap_or(name);
        let threshold = line.rsplit_once(" > ").and_then(|(of, value)| Some((of, value.parse().ok()?)));
        match threshold {
            Some((of, threshold)) => {
                names.insert(name.to_owned());
                writeln!(changed, "{of} > {}", change(threshold)).expect("text");
            }
            None => writeln!(changed, "{line}").expect("text"),
        }
    }
    assert!(names.len() > 12, "{names:?}");
    (changed, names)
}

#[test]
fn rules_and_configuration_are_as_prometheus_wants_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus");
    for check in [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]] {
        let output = promtool(&check, &folder, "");
        assert!(output.status.success(), "{check:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    test(&read(ALERTS)).unwrap_or_else(|told| panic!("{told}"));
}

/// The tests are worth something: they notice if any one of the alerts is not there, and if its threshold is another one.
#[test]
fn tests_of_rules_notice_each_alert_and_each_threshold() {
    let renamed = expected_and_got(&read(ALERTS).replace("- alert: ", "- alert: No"));
    for name in alerts() {
        assert!(renamed.get(&name).is_some_and(|count| count.0 > 0), "no test looks for {name}");
    }
    let (higher, names) = with_thresholds(|threshold| threshold * 10.0 + 100.0);
    let counts = expected_and_got(&higher);
    for name in &names {
        assert!(counts.get(name).is_some_and(|(wanted, got)| wanted > got), "nothing is above {name}'s");
    }
    // A percentile's buckets are what tells it from the bound.
    let (lower, names) = with_thresholds(|threshold| threshold * 0.4 - 0.01);
    let counts = expected_and_got(&lower);
    for name in &names {
        assert!(counts.get(name).is_some_and(|(wanted, got)| wanted < got), "nothing is below {name}'s");
    }
}

/// Each says in one line what is the matter, and then what to do, and pages or warns.
#[test]
fn alerts_say_what_to_do() {
    let text = read(ALERTS);
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    for rule in &rules {
        let name = rule.lines().next().expect("its name");
        assert!(rule.contains("severity: page") || rule.contains("severity: warn"), "{name}");
        let summary = rule.split("summary: ").nth(1).and_then(|rest| rest.lines().next()).expect("a summary");
        assert!((20..120).contains(&summary.len()), "{name}: {summary}");
        let description = rule.split("description: ").nth(1).expect("a description");
        assert!(description.len() > 60, "{name}: {description}");
    }
    let names: BTreeSet<String> = alerts().into_iter().collect();
    assert_eq!(names.len(), rules.len(), "a name is there twice");
    let readme = read("README.md");
    let untold: Vec<_> = names.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(untold.is_empty(), "README.md says nothing of {untold:?}");
}
