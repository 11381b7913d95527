//! Every alert fires on a real Prometheus for what it is for; there, too, the dashboard's panels and the queries of
//! pgbouncer's mixin have data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    dashboard, names, rules,
    stage::{Stage, watch},
};
use crate::support::{
    Cluster, Login, Postgres, Prometheus, Proxy, ProxyConfig, RawClient, eventually, http_get,
};

/// The alert that needs two primaries, which would end what is needed for the others: it has a place of its own.
const RIVALS: &str = "BulkheadRivalPrimaries";

/// Alerts that only the loss of the primary brings about, which would end what is needed for the others.
const AT_LAST: [&str; 1] = ["BulkheadPrimaryDown"];

/// How long the others may take: 15 seconds of lag, and as long again for a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// What each alert that has fired was about: pools or servers.
type Fired = BTreeMap<String, BTreeSet<String>>;

async fn look(prometheus: &Prometheus, fired: &mut Fired) {
    let data = prometheus.ask("/api/v1/alerts").await;
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
async fn wait_for(prometheus: &Prometheus, fired: &mut Fired, wanted: &BTreeSet<String>, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        look(prometheus, fired).await;
        let missing: Vec<&String> = wanted.iter().filter(|name| !fired.contains_key(*name)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{missing:?} do not fire; {fired:?}\n{}", prometheus.log());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_fire_and_panels_have_data_on_a_real_prometheus() {
    let mut stage = Stage::set().await;
    let all: BTreeSet<String> = rules::alerts().into_iter().collect();
    let is_later = |name: &&str| AT_LAST.contains(name) || *name == RIVALS;
    let wanted: BTreeSet<String> = all.iter().filter(|name| !is_later(&name.as_str())).cloned().collect();
    assert_eq!(all.len(), wanted.len() + AT_LAST.len() + 1);

    // Before anything has happened to the first Bulkhead, only the replica is missed.
    let mut fired = Fired::new();
    check_targets(&stage).await;
    look(&stage.prometheus, &mut fired).await;
    for name in ["BulkheadPoolFull", "BulkheadRequestsRefused", "BulkheadReplicaLag", "BulkheadOutboxLag"] {
        assert!(!fired.contains_key(name), "{fired:?}");
    }
    // Told for ten seconds here: not while all the rest is brought about.
    stage.refuse_a_job().await;
    let first = BTreeSet::from(["BulkheadOutboxJobsRefused".to_owned()]);
    wait_for(&stage.prometheus, &mut fired, &first, Duration::from_secs(20)).await;
    stage.everything().await;
    wait_for(&stage.prometheus, &mut fired, &wanted, WITHIN).await;
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
    wait_for(&stage.prometheus, &mut fired, &last, Duration::from_secs(30)).await;
}

/// A standby is promoted while its primary goes on: the alert fires, what it says is so, and what it says to do ends it.
#[tokio::test]
async fn rival_primaries_are_told_of_until_the_former_one_is_stopped() {
    let cluster = Cluster::start();
    let (former, promoted) = (&cluster.primary, &cluster.replica);
    former.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    cluster.wait_for_replay().await;
    let url = Login::App.url_of_hosts(&[former.port(), promoted.port()], "?target_session_attrs=read-write");
    let config = ProxyConfig::primary_only(former).set("servers.primary", "url", url);
    let proxy = Proxy::start(&config.to_toml());
    let prometheus = watch(&[proxy.http_port()]).await;
    eventually("Prometheus has scraped", Duration::from_secs(20), async || {
        (!prometheus.query("bulkhead_server_rival_hosts == 0").await.is_empty()).then_some(())
    })
    .await;
    let mut fired = Fired::new();
    look(&prometheus, &mut fired).await;
    assert!(fired.is_empty(), "one of both is a standby: {fired:?}");

    promoted.promote().await;
    wait_for(&prometheus, &mut fired, &BTreeSet::from([RIVALS.to_owned()]), WITHIN).await;
    assert_eq!(fired[RIVALS], BTreeSet::from(["primary".to_owned()]));
    let host = |postgres: &Postgres| format!("127.0.0.1:{}", postgres.port());
    let (_, readyz) = http_get(proxy.http_port(), "/readyz").await.expect("it answers");
    let named: Value = serde_json::from_str(&readyz).expect("JSON");
    let named = &named["servers"][0]["rivals"];
    assert_eq!(named, &serde_json::json!([host(former)]), "{readyz}");
    for _ in 0..4 {
        let mut client = RawClient::app(proxy.port()).await;
        let at = client.query_value("INSERT INTO t VALUES (1) RETURNING inet_server_port()").await;
        assert_eq!(at, promoted.port().to_string());
    }
    assert_eq!(former.value("SELECT count(*) FROM t").await, "0");

    former.kill();
    eventually("the alert ends", WITHIN, async || {
        let mut fired = Fired::new();
        look(&prometheus, &mut fired).await;
        fired.is_empty().then_some(())
    })
    .await;
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
