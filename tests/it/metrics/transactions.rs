//! How long transactions take, by the class of their first statement, beside how long their statements do.

use std::time::{Duration, Instant};

use super::{Sample, samples};
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, eventually};

/// Count and sum of a histogram, for a class in the pool `primary`.
async fn of(proxy: &Proxy, histogram: &str, class: &str) -> (u64, f64) {
    let all = samples(&proxy.metrics().await);
    let is_of =
        |sample: &&Sample| sample.label("class") == Some(class) && sample.label("pool") == Some("primary");
    let value = |end: &str| {
        let name = format!("bulkhead_{histogram}_duration_seconds_{end}");
        all.iter().filter(is_of).find(|sample| sample.name == name).map_or(0.0, |sample| sample.value)
    };
    (value("count") as u64, value("sum"))
}

/// Waits until there have been so many, which are counted when the client has its answer already; the sum of their times.
async fn wait_for(proxy: &Proxy, histogram: &str, class: &str, count: u64) -> f64 {
    eventually(&format!("{count} in {histogram} {class}"), Duration::from_secs(10), async || {
        let (now, seconds) = of(proxy, histogram, class).await;
        (now == count).then_some(seconds)
    })
    .await
}

#[tokio::test]
async fn a_transaction_takes_from_its_first_statement_to_its_last() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;

    // Alone, a statement is a transaction of its own.
    client.ask("INSERT INTO t VALUES (1)").await;
    wait_for(&proxy, "request", "write", 1).await;
    let before = wait_for(&proxy, "transaction", "write", 1).await;

    // BEGIN is answered without the server; the pause between statements is a part of the transaction only.
    client.ask("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let since = Instant::now();
    client.ask("INSERT INTO t VALUES (2)").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.ask("SELECT count(*) FROM t").await;
    client.settle().await;
    assert_eq!(of(&proxy, "transaction", "write").await.0, 1, "it is not over");
    client.ask("COMMIT").await;
    // It is over behind the answer.
    client.settle().await;
    let at_most = since.elapsed().as_secs_f64();
    let seconds = wait_for(&proxy, "transaction", "write", 2).await;
    assert!((0.2..=at_most).contains(&(seconds - before)), "{seconds} - {before}, at most {at_most}");
    let of_requests = wait_for(&proxy, "request", "write", 2).await;
    assert!(of_requests < seconds - 0.1, "{of_requests} of {seconds}");
    // COMMIT is a request of its own class, and no transaction.
    wait_for(&proxy, "request", "neutral", 1).await;
    client.settle().await;
    assert_eq!(of(&proxy, "transaction", "neutral").await.0, 0);

    // A pipeline with a Flush in its middle is one transaction; so is a text of several statements.
    let before = 2;
    client.parse("", "INSERT INTO t VALUES (3)").bind("", "", &[]).execute("", 0).flush_message();
    client.flush().await;
    client.expect("12C").await;
    client.parse("", "INSERT INTO t VALUES (4)").bind("", "", &[]).execute("", 0);
    client.finish().await;
    wait_for(&proxy, "transaction", "write", before + 1).await;
    client.ask("INSERT INTO t VALUES (5); INSERT INTO t VALUES (6)").await;
    wait_for(&proxy, "transaction", "write", before + 2).await;

    // A pinned session's transactions end though it keeps its connection, and one that is rolled back ends, too.
    client.ask("CREATE TEMP TABLE u (a int)").await;
    let before = before + 3;
    wait_for(&proxy, "transaction", "write", before).await;
    for end in ["COMMIT", "ROLLBACK"] {
        client.ask("BEGIN").await;
        client.ask("INSERT INTO u VALUES (1)").await;
        client.ask(end).await;
    }
    client.ask("INSERT INTO u VALUES (1)").await;
    wait_for(&proxy, "transaction", "write", before + 3).await;

    // Whose client leaves is rolled back, and counted nowhere.
    client.ask("BEGIN").await;
    client.ask("INSERT INTO t VALUES (7)").await;
    drop(client);
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    assert_eq!(of(&proxy, "transaction", "write").await.0, before + 3);
}
