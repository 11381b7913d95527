//! The tools that ask PgBouncer: what they send, and how they read the answers, made anew; psql and drivers themselves.

use std::{collections::HashMap, process::Command};

use tokio_postgres::SimpleQueryMessage;

use super::{Site, Table, table};
use crate::support::{RawClient, connect, programs};

async fn busy() -> (Site, RawClient) {
    let site = Site::start();
    let mut client = site.client().await;
    client.ask("CREATE TABLE t (a int)").await;
    client.ask("INSERT INTO t VALUES (1)").await;
    client.ask("SELECT 1").await;
    (site, client)
}

/// The console of this name.
fn url(site: &Site, database: &str) -> String {
    let url = site.proxy.url();
    format!("{}{database}", url.strip_suffix("app").expect("its database is app"))
}

fn number(text: Option<&String>) -> Option<f64> {
    text?.parse().ok()
}

/// prometheus-community/pgbouncer_exporter: by the names of columns, of which text is a label and the rest a number.
#[tokio::test]
async fn the_exporters_queries_give_a_number_for_every_metric() {
    const METRICS: [(&str, &str, &[&str], &[&str]); 3] = [
        (
            "SHOW DATABASES;",
            "name",
            &["name", "host", "port", "database", "force_user", "pool_mode"],
            &["pool_size", "max_connections", "current_connections", "paused", "disabled"],
        ),
        (
            "SHOW STATS_TOTALS;",
            "database",
            &["database"],
            &[
                "query_count",
                "query_time",
                "bytes_received",
                "bytes_sent",
                "wait_time",
                "xact_count",
                "xact_time",
                "client_parse_count",
                "server_parse_count",
                "bind_count",
            ],
        ),
        (
            "SHOW POOLS;",
            "database",
            &["database", "user"],
            &[
                "cl_active",
                "cl_active_cancel_req",
                "cl_waiting",
                "cl_waiting_cancel_req",
                "sv_active",
                "sv_active_cancel",
                "sv_being_canceled",
                "sv_idle",
                "sv_used",
                "sv_tested",
                "sv_login",
                "maxwait",
            ],
        ),
    ];
    let (site, _client) = busy().await;
    let mut console = site.console().await;
    // The check of its connection.
    assert!(!table(&mut console, "SHOW STATS").await.rows.is_empty());
    for (sql, name, labels, metrics) in METRICS {
        let shown = table(&mut console, sql).await;
        let names = shown.names();
        let at = |column: &str| names.iter().position(|known| *known == column).expect("the column is there");
        let mut seen = Vec::new();
        for row in &shown.rows {
            // A metric with the same labels twice fails the whole scrape.
            let labels: Vec<_> = labels.iter().map(|label| row[at(label)].clone()).collect();
            assert!(!seen.contains(&labels), "{sql}: {labels:?} twice");
            seen.push(labels);
            for metric in metrics {
                assert!(number(row[at(metric)].as_ref()).is_some(), "{sql}: {metric} of {row:?}");
            }
        }
        let pools: Vec<_> = shown.rows.iter().filter_map(|row| row[at(name)].as_deref()).collect();
        for pool in ["primary", "replicas", "jobs"] {
            assert!(pools.contains(&pool), "{sql}: {pools:?}");
        }
    }
    let lists = table(&mut console, "SHOW LISTS;").await;
    assert!(lists.columns.len() == 2 && lists.rows.iter().all(|row| number(row[1].as_ref()).is_some()));
    let config = table(&mut console, "SHOW CONFIG;").await;
    assert_eq!(config.columns.len(), 4);
    assert!(config.rows.iter().all(|row| row.iter().all(Option::is_some)), "it takes no NULL: {config:?}");
    for key in ["max_client_conn", "max_user_connections"] {
        assert!(config.value(&[("key", key)], "value").parse::<f64>().is_ok(), "{key}");
    }
    assert_eq!(table(&mut console, "SHOW VERSION;").await.names(), ["version"]);
}

/// pgmetrics: by position, with exactly so many columns.
#[tokio::test]
async fn pgmetrics_finds_what_it_reads_by_position() {
    let (site, _client) = busy().await;
    let mut console = site.console().await;
    let is_int = |table: &Table, columns: std::ops::Range<usize>| {
        table.rows.iter().all(|row| {
            columns.clone().all(|at| row[at].as_ref().is_some_and(|text| text.parse::<i64>().is_ok()))
        })
    };
    let pools = table(&mut console, "SHOW POOLS").await;
    assert!(pools.columns.len() == 17 && is_int(&pools, 2..15), "{pools:?}");
    let clients = table(&mut console, "SHOW CLIENTS").await;
    assert!(clients.columns.len() == 21 && is_int(&clients, 11..14), "{clients:?}");
    assert_eq!(table(&mut console, "SHOW SERVERS").await.columns.len(), 21);
    let stats = table(&mut console, "SHOW STATS").await;
    assert!(stats.columns.len() == 23 && is_int(&stats, 1..23), "{stats:?}");
    let databases = table(&mut console, "SHOW DATABASES").await;
    assert!(databases.columns.len() == 17 && is_int(&databases, 11..17), "{databases:?}");
}

/// Telegraf: every column of SHOW STATS and SHOW POOLS but three must be a whole number, or the gathering fails.
#[tokio::test]
async fn telegraf_gathers_whole_numbers() {
    let (site, _client) = busy().await;
    let client = connect(&url(&site, "pgbouncer")).await.expect("the console");
    for sql in ["SHOW STATS", "SHOW POOLS"] {
        for message in client.simple_query(sql).await.expect("rows") {
            let SimpleQueryMessage::Row(row) = message else { continue };
            for (at, column) in row.columns().iter().enumerate() {
                let is_text =
                    ["database", "user", "pool_mode", "load_balance_hosts"].contains(&column.name());
                let value = row.get(at);
                assert!(
                    is_text || value.is_some_and(|value| value.parse::<i64>().is_ok()),
                    "{column:?}: {value:?}"
                );
            }
        }
    }
}

/// Datadog: the version is `\d+\.\d+\.\d+`, times are parsed, and rows are read by name.
#[tokio::test]
async fn datadog_reads_version_and_times() {
    let (site, _client) = busy().await;
    let mut console = site.console().await;
    let version = console.query_value("SHOW VERSION").await;
    let digits = version.split(|c: char| !c.is_ascii_digit() && c != '.').find(|word| word.contains('.'));
    assert_eq!(digits.map(|version| version.split('.').count()), Some(3), "{version}");
    for sql in ["SHOW CLIENTS", "SHOW SERVERS"] {
        let shown = table(&mut console, sql).await;
        let names = shown.names();
        for column in ["connect_time", "request_time"] {
            let at = names.iter().position(|name| *name == column).expect("the column is there");
            for row in &shown.rows {
                let text = row[at].as_deref().expect("a time");
                let form =
                    time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
                let time = time::PrimitiveDateTime::parse(text, form).expect("a time");
                let ago = time::OffsetDateTime::now_utc() - time.assume_utc();
                assert!((-2..120).contains(&ago.whole_seconds()), "{column} of {sql}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn psql_shows_every_table() {
    let (site, _client) = busy().await;
    let url = url(&site, "bulkhead");
    let psql = |arguments: &[&str]| {
        let output = Command::new(programs().path("psql"))
            .arg("-X")
            .args(arguments)
            .arg(&url)
            .output()
            .expect("psql runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
    };
    let (ok, text) = psql(&["-c", "SHOW POOLS"]);
    assert!(ok && text.contains("cl_active") && text.contains("replicas"), "{text}");
    let (ok, text) = psql(&["-At", "-c", "SHOW VERSION; SHOW STATE;", "-c", "SHOW HELP"]);
    assert!(ok && text.contains("suspended|no") && text.contains("SHOW HELP|VERSION|CONFIG"), "{text}");
    let (ok, text) = psql(&["-c", "nonsense"]);
    assert!(!ok && text.contains("HINT:  SHOW HELP lists the commands."), "{text}");
}

#[tokio::test]
async fn tokio_postgres_prepares_and_reads_binary() {
    let (site, _client) = busy().await;
    let client = connect(&url(&site, "pgbouncer")).await.expect("the console");
    let statement = client.prepare("SHOW POOLS").await.expect("it is prepared");
    assert_eq!(statement.columns().len(), 17);
    for _ in 0..2 {
        let rows = client.query(&statement, &[]).await.expect("rows");
        let row = rows.iter().find(|row| row.get::<_, &str>("database") == "replicas").expect("a row");
        assert_eq!((row.get::<_, i32>("sv_idle"), row.get::<_, &str>("pool_mode")), (1, "transaction"));
        assert_eq!(row.get::<_, Option<&str>>("load_balance_hosts"), None);
    }
    let reasons = client.query("SHOW REASONS", &[]).await.expect("rows");
    let counts: HashMap<&str, i64> =
        reasons.iter().map(|row| (row.get("pool"), row.get("requests"))).collect();
    assert!(counts["primary"] > 0, "{counts:?}");
    let error = client.query("SHOW NOTHING", &[]).await.expect_err("no such thing");
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("42601"));
    assert!(client.query_one("SHOW VERSION", &[]).await.is_ok(), "the connection goes on");
}
