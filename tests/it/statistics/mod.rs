//! What is counted of statements, and what is logged: by real clients of real servers, and nothing of anybody's values.

mod counts;
mod logs;

use std::{collections::HashMap, time::Duration};

use crate::support::{Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Signal, error_of};

/// A proxy whose console `app` may use.
fn of_primary(primary: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(primary).set("console", "admin_users", vec!["app"])
}

fn start() -> (Postgres, Proxy) {
    start_with(|config| config)
}

fn start_with(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> (Postgres, Proxy) {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&change(of_primary(&primary)).to_toml());
    (primary, proxy)
}

async fn console(proxy: &Proxy) -> RawClient {
    RawClient::login(proxy.port(), Login::App, "bulkhead").await
}

/// A row of a SHOW, by its columns' names.
type Row = HashMap<String, String>;

/// The rows of a SHOW.
async fn show(console: &mut RawClient, what: &str) -> Vec<Row> {
    let answer = console.ask(&format!("SHOW {what}")).await;
    assert_eq!(error_of(&answer), None, "SHOW {what}");
    let description = answer.iter().find(|message| message.tag == b'T').expect("it has columns");
    // A name, a zero, and 18 bytes of its type.
    let mut rest = &description.body[2..];
    let mut names = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8(rest[..end].to_vec()).expect("a name in UTF-8"));
        rest = &rest[end + 1 + 18..];
    }
    let rows = answer.iter().filter(|message| message.tag == b'D');
    let row = |values: Vec<Option<String>>| -> Row {
        names.iter().cloned().zip(values.into_iter().map(Option::unwrap_or_default)).collect()
    };
    rows.map(|message| row(message.columns())).collect()
}

/// The rows of `SHOW QUERIES` that are of this text.
async fn queries(console: &mut RawClient, text: &str) -> Vec<Row> {
    show(console, "QUERIES").await.into_iter().filter(|row| row["query"] == text).collect()
}

/// The one row of `SHOW QUERIES` that is of this text, and these of its columns.
async fn query<const N: usize>(console: &mut RawClient, text: &str, columns: [&str; N]) -> [String; N] {
    let rows = queries(console, text).await;
    let [row] = rows.as_slice() else { panic!("{} rows of {text}", rows.len()) };
    columns.map(|column| row[column].clone())
}

/// Waits until these columns of the row of a text have these values: a request is counted behind its answer.
async fn expect<const N: usize>(console: &mut RawClient, text: &str, columns: [(&str, &str); N]) {
    let expected: Vec<&str> = columns.iter().map(|(_, value)| *value).collect();
    let mut last = Vec::new();
    let become_so = async {
        loop {
            let rows = queries(console, text).await;
            last = rows.iter().map(|row| columns.map(|(column, _)| row[column].clone())).collect();
            if matches!(last.as_slice(), [row] if *row == *expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(10), become_so).await;
    assert!(waited.is_ok(), "{text}: {columns:?} are {last:?}");
}
