//! Every alert fires on a real Prometheus for what it is for; there, too, the dashboard's panels and the queries of
//! pgbouncer's mixin have data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{dashboard, names, rules, stage::Stage};
use crate::support::eventually;

/// Alerts that are not brought about here, with the reason.
const ELSEWHERE: [(&str, &str); 1] =
    [("BulkheadRivalPrimaries", "its metric is looked at in `hosts`, with two servers that take writes")];

/// Alerts that only the loss of the primary brings about, which would end what is needed for the others.
const AT_LAST: [&str; 1] = ["BulkheadPrimaryDown"];

/// How long the others may take: 15 seconds of lag, and as long again for a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// What each alert that has fired was about: pools or servers.
type Fired = BTreeMap<String, BTreeSet<String>>;

async fn look(stage: &Stage, fired: &mut Fired) {
    let data = stage.prometheus.ask("/api/v1/alerts").await;
    for alert in data["alerts"].as_array().expect("a list") {
        check_words(alert);
        if alert["state"] == "firing" {
            let labels = &alert["labels"];
            let about = [&labels["pool"], &labels["server"]].into_iter().find_map(Value::as_str);
            let name = labels["alertname"].as_str().expect("it has a name").to_owned();
            fired.entry(name).or_default().insert(about.unwrap_or("").to_owned());
        }
    }
}

/// The texts are whole: their templates have found what they name.
fn check_words(alert: &Value) {
    for text in ["summary", "description"] {
        let words = alert["annotations"][text].as_str().unwrap_or_default();
        let is_whole = !["{{", "<no value>", "error expanding", "%!"].iter().any(|bad| words.contains(bad));
        assert!(words.len() > 15 && is_whole && !words.contains("  "), "{alert}");
    }
}

/// Looks until all of these have fired.
async fn wait_for(stage: &Stage, fired: &mut Fired, wanted: &BTreeSet<String>, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        look(stage, fired).await;
        let missing: Vec<&String> = wanted.iter().filter(|name| !fired.contains_key(*name)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{missing:?} do not fire; {fired:?}\n{}", stage.prometheus.log());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_fire_and_panels_have_data_on_a_real_prometheus() {
    let mut stage = Stage::set().await;
    let all: BTreeSet<String> = rules::alerts().into_iter().collect();
    let is_later = |name: &&str| AT_LAST.contains(name) || ELSEWHERE.iter().any(|(other, _)| other == name);
    let wanted: BTreeSet<String> = all.iter().filter(|name| !is_later(&name.as_str())).cloned().collect();
    assert_eq!(all.len(), wanted.len() + AT_LAST.len() + ELSEWHERE.len());

    // Before anything has happened to the first Bulkhead, only the replica is missed.
    let mut fired = Fired::new();
    check_targets(&stage).await;
    look(&stage, &mut fired).await;
    for name in ["BulkheadPoolFull", "BulkheadRequestsRefused", "BulkheadReplicaLag", "BulkheadOutboxLag"] {
        assert!(!fired.contains_key(name), "{fired:?}");
    }
    // Told for ten seconds here: not while all the rest is brought about.
    stage.refuse_a_job().await;
    let first = BTreeSet::from(["BulkheadOutboxJobsRefused".to_owned()]);
    wait_for(&stage, &mut fired, &first, Duration::from_secs(20)).await;
    stage.everything().await;
    wait_for(&stage, &mut fired, &wanted, WITHIN).await;
    dashboard::check(&stage.prometheus).await;
    names::check(&stage.prometheus).await;

    // Each for what it is about, and for nothing else.
    let about = |name: &str| fired[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(about("BulkheadRequestsRefused"), ["full", "jobs"]);
    assert_eq!(about("BulkheadPoolFull"), ["full", "slow"]);
    assert_eq!(about("BulkheadVerySlowQueries"), ["long"]);
    assert_eq!(about("BulkheadPinsNearBound"), ["pinned"]);
    assert_eq!(about("BulkheadPinsRefused"), ["pinned"]);
    assert_eq!(about("BulkheadReplicaDown"), ["replica_2"]);
    assert_eq!(about("BulkheadReplicaLag"), ["replica_1"]);
    assert_eq!(about("BulkheadJobDatabaseDown"), ["jobs"]);
    assert!(about("BulkheadSlowWait").contains(&"slow") && !about("BulkheadSlowWait").contains(&"primary"));

    for name in AT_LAST {
        assert!(!fired.contains_key(name), "{name}: {fired:?}");
    }
    stage.cluster.primary.kill();
    let last = AT_LAST.iter().map(|name| (*name).to_owned()).collect();
    wait_for(&stage, &mut fired, &last, Duration::from_secs(30)).await;
}

/// Both Bulkheads are scraped, the third target is down, and all rules are loaded and well.
async fn check_targets(stage: &Stage) {
    eventually("all targets have been scraped", Duration::from_secs(20), async || {
        let data = stage.prometheus.ask("/api/v1/targets").await;
        let targets = data["activeTargets"].as_array().expect("a list");
        let of = |health: &str| targets.iter().filter(|target| target["health"] == health).count();
        (of("up") == 3 && of("down") == 1).then_some(())
    })
    .await;
    let data = stage.prometheus.ask("/api/v1/rules").await;
    let groups = data["groups"].as_array().expect("a list").iter();
    let rules: Vec<&Value> = groups.flat_map(|group| group["rules"].as_array().expect("a list")).collect();
    assert_eq!(rules.len(), rules::alerts().len());
    assert!(rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
}
