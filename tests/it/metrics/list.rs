//! What `/metrics` shows is what `docs/metrics.md` lists: names, types, labels and their values; and clients can add no
//! series.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use super::{read, samples};
use crate::support::{Cluster, Login, Proxy, ProxyConfig, RawClient, eventually, oban, promtool};

/// Type and labels, by name.
type Listed = BTreeMap<String, (String, BTreeSet<String>)>;

/// The rows of a table of the page that begin with a name.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    page.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let inner = line.trim_start_matches("| ").trim_end_matches(" |");
        inner.split(" | ").map(str::trim).collect()
    })
}

fn words(cell: &str) -> BTreeSet<String> {
    let words = cell.split(", ").map(|word| word.trim_matches('`').to_owned());
    words.filter(|word| !word.is_empty()).collect()
}

fn listed() -> Listed {
    let page = read("docs/metrics.md");
    let metrics = rows(&page).filter_map(|cells| match cells[..] {
        [name, kind, labels, ..] if cells.len() == 5 => {
            Some((name.trim_matches('`').to_owned(), (kind.to_owned(), words(labels))))
        }
        _ => None,
    });
    metrics.collect()
}

/// Words that a label may have, by the label's name; those of labels with names from the configuration are not there.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let mut allowed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for cells in rows(&page) {
        if let [label, _, values] = cells[..]
            && values.starts_with('`')
        {
            allowed.entry(label.trim_matches('`').to_owned()).or_default().extend(words(values));
        }
    }
    assert!(allowed["reason"].contains("temp_objects") && allowed["class"].len() == 4, "{allowed:?}");
    allowed
}

fn shown(text: &str) -> Listed {
    let mut shown = Listed::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        shown.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
    }
    for sample in samples(text) {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.name.strip_suffix(end));
        let name = histogram.filter(|name| shown.contains_key(*name)).unwrap_or(&sample.name);
        let labels = sample.labels.iter().map(|(label, _)| label.clone()).filter(|label| label != "le");
        shown.get_mut(name).unwrap_or_else(|| panic!("{name} has no type")).1.extend(labels);
    }
    shown
}

/// A primary with a replica, a job database with an outbox, and the names of pgbouncer_exporter.
async fn full() -> (Cluster, Proxy) {
    let cluster = Cluster::start();
    oban::install(&cluster.primary).await;
    oban::install(&cluster.jobs).await;
    let config =
        ProxyConfig::of(&cluster).set("jobs", "outbox", true).set("metrics", "pgbouncer_names", true);
    let proxy = Proxy::start(&config.to_toml());
    (cluster, proxy)
}

/// Something of every kind.
async fn work(proxy: &Proxy) {
    let mut client = RawClient::app(proxy.port()).await;
    for sql in [
        "CREATE TABLE IF NOT EXISTS t (a int)",
        "BEGIN; INSERT INTO t VALUES (1); COMMIT",
        "SELECT count(*) FROM t",
        "SELECT count(*) FROM oban_jobs",
        "CREATE TEMP TABLE u (a int); DROP TABLE u",
        "SELECT 1/0",
    ] {
        client.ask(sql).await;
    }
    client.terminate().await;
}

#[tokio::test]
async fn what_is_shown_is_what_is_listed() {
    let (_cluster, proxy) = full().await;
    let listed = listed();
    assert!(listed.len() > 80, "{listed:?}");
    // Positions of replicas are asked for while somebody reads and writes.
    let text = eventually("everything has been told once", Duration::from_secs(20), async || {
        work(&proxy).await;
        let text = proxy.metrics().await;
        (shown(&text).len() == listed.len()).then_some(text)
    })
    .await;
    assert_eq!(shown(&text), listed);
    let allowed = allowed();
    check_words(&text, &allowed);
    for sample in samples(&text) {
        assert!(sample.value >= 0.0 && sample.value.is_finite(), "{sample:?}");
    }
    check_by_promtool(&text);

    // Other texts, names and errors of clients are no labels: there are new series at most of words that are there already.
    let before = words_of_configuration(&text, &allowed);
    for round in 0..20 {
        let name = format!("evil_{round}");
        let parameters = [("database", "app"), ("application_name", name.as_str())];
        let mut client =
            RawClient::try_login(proxy.port(), Login::App, &parameters).await.expect("it is let in");
        client.ask(&format!("SELECT {round} AS evil_{round}")).await;
        client.ask(&format!("SELECT evil_{round}()")).await;
        client.ask(&format!("INSERT INTO t /* evil_{round} */ VALUES ({round})")).await;
        client.ask(&format!("LISTEN evil_{round}")).await;
        client.ask(&format!("SELECT set_config('evil.a{round}', 'x', false)")).await;
    }
    let refused = RawClient::try_login(proxy.port(), Login::App, &[("database", "app@evil")]).await;
    assert!(refused.is_err(), "there is no such pool");
    let text = proxy.metrics().await;
    assert_eq!(words_of_configuration(&text, &allowed), before);
    check_words(&text, &allowed);
    assert!(!text.contains("evil"), "a client's text is a label:\n{text}");
    check_by_promtool(&text);
}

/// Labels whose words the page lists have no others.
fn check_words(text: &str, allowed: &BTreeMap<String, BTreeSet<String>>) {
    for sample in samples(text) {
        for (label, value) in &sample.labels {
            assert!(allowed.get(label).is_none_or(|words| words.contains(value)), "{label} of {sample:?}");
        }
    }
}

/// The words of each other label, which come from the configuration.
fn words_of_configuration(
    text: &str,
    allowed: &BTreeMap<String, BTreeSet<String>>,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut words: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (label, value) in samples(text).into_iter().flat_map(|sample| sample.labels) {
        if !allowed.contains_key(&label) {
            words.entry(label).or_default().insert(value);
        }
    }
    words
}

/// promtool has nothing to say: neither that it cannot be read, nor of names, units and help.
fn check_by_promtool(text: &str) {
    let output = promtool(&["check", "metrics"], Path::new("."), text);
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_command_prints_the_page() {
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead")).arg("metrics").output().expect("it runs");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), read("docs/metrics.md"));
}

#[tokio::test]
async fn names_of_pgbouncer_come_and_go_with_a_reload() {
    let cluster = Cluster::start();
    let config = ProxyConfig::of(&cluster);
    let mut proxy = Proxy::start(&config.to_toml());
    assert!(!proxy.metrics().await.contains("pgbouncer"), "they are there by option only");
    proxy.reload_to(&config.clone().set("metrics", "pgbouncer_names", true)).await;
    assert!(proxy.metrics().await.contains("\npgbouncer_up 1\n"));
    proxy.reload_to(&config).await;
    assert!(!proxy.metrics().await.contains("pgbouncer"));
}
