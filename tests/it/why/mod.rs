//! `bulkhead why`, `SHOW WHY` and `/api/v1/why` in incidents that are staged on real servers: the cause is named first,
//! within five seconds.

mod asking;
mod pools;
mod servers;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{Message, Proxy, ProxyConfig, RawClient, Site, http_get};

/// An incident is named within this.
const SOON: Duration = Duration::from_secs(5);

/// The report, as JSON.
async fn report(proxy: &Proxy) -> Value {
    let (status, text) = http_get(proxy.http_port(), "/api/v1/why").await.expect("it answers HTTP");
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until what comes first is of this cause and has all of these words in its title, and gives it as one text. Then
/// the page says the same.
async fn comes_first(proxy: &Proxy, cause: &str, words: &[&str]) -> String {
    let began = Instant::now();
    let found = loop {
        let report = report(proxy).await;
        let first = &report["findings"][0];
        let title = first["title"].as_str().unwrap_or_default();
        if first["cause"] == cause && words.iter().all(|word| title.contains(word)) {
            break text_of(first);
        }
        assert!(began.elapsed() < SOON, "{cause} does not come first, with {words:?}: {report:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (code, page, errors) = command(proxy, &[]);
    assert_eq!((code, errors.as_str()), (Some(1), ""), "{page}");
    let first = page.split("\n2. ").next().unwrap_or_default();
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(first.contains(word), "{word} in the first of:\n{page}");
    }
    for line in page.lines() {
        assert!(line.chars().count() <= 80 && !line.contains(char::is_control), "{line:?}");
    }
    found
}

/// A finding in one text.
fn text_of(finding: &Value) -> String {
    let lines = finding["evidence"].as_array().into_iter().flatten();
    let all = [&finding["title"]].into_iter().chain(lines).chain([&finding["next"]]);
    all.filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// Exit code, output and errors of `bulkhead why`.
fn command(proxy: &Proxy, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(proxy.config_path()).arg("why").args(arguments).output();
    let output = output.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The rows of `SHOW WHY`.
async fn console(proxy: &Proxy) -> Vec<Message> {
    let mut console = RawClient::open(proxy.port()).await;
    console.startup(&[("user", "app"), ("database", "bulkhead")]).await;
    assert_eq!(console.authenticate("app", "secret").await, None, "the console lets app in");
    console.ask("SHOW WHY").await
}

/// A server and a pool of so many connections, for which clients wait for long.
fn site(connections: i64, change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Site {
    Site::configured(|config| change(patient(config).pool("primary", &["primary"], connections)))
}

/// Nobody is refused while the test looks.
fn patient(config: ProxyConfig) -> ProxyConfig {
    config.set("pools.primary", "wait_timeout", "60s").set("console", "stats_users", vec!["app"]).set(
        "limits",
        "catalog_refresh",
        "1h",
    )
}

/// A client of this name.
async fn named(site: &Site, application_name: &str) -> RawClient {
    site.client_with(&[("application_name", application_name)]).await
}

/// A client that asks for something and does not get it yet.
async fn waiting(site: &Site) -> RawClient {
    let mut client = named(site, "web").await;
    client.query("SELECT 'waits'").await;
    site.proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0).await;
    client
}
