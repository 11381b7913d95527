//! The alerts and their tests, by promtool.

use std::{collections::BTreeSet, fs, path::Path};

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

#[test]
fn rules_and_configuration_are_as_prometheus_wants_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/prometheus");
    for check in [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"]] {
        let output = promtool(&check, &folder, "");
        assert!(output.status.success(), "{check:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    test(&read(ALERTS)).unwrap_or_else(|told| panic!("{told}"));
}

/// The tests are worth something: they fail without any one of the alerts, and with a threshold that is met already.
#[test]
fn tests_of_rules_notice_each_alert_and_each_threshold() {
    let text = read(ALERTS);
    for name in alerts() {
        let without = text.replace(&format!("- alert: {name}\n"), &format!("- alert: No{name}\n"));
        assert!(test(&without).is_err(), "no test looks for {name}");
    }
    let mut thresholds = 0;
    for (at, _) in text.match_indices(" > ") {
        let end = text[at + 3..].find('\n').map_or(text.len(), |length| at + 3 + length);
        let Ok(threshold) = text[at + 3..end].trim().parse::<f64>() else { continue };
        thresholds += 1;
        // For quantiles the buckets' bounds are what tells them apart.
        let lower = format!("{} > {}{}", &text[..at], threshold * 0.4 - 0.01, &text[end..]);
        assert!(test(&lower).is_err(), "no test has a value below {threshold}: {}", &text[at - 60..end]);
        let higher = format!("{} > {}{}", &text[..at], threshold * 10.0 + 100.0, &text[end..]);
        assert!(test(&higher).is_err(), "no test has a value above {threshold}: {}", &text[at - 60..end]);
    }
    assert!(thresholds > 12, "{thresholds}");
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
