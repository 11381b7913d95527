//! Reads use a replica that has what they need, and otherwise the primary.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio_postgres::Client;

use super::{Place, Primary, ProxyConfig, Replica, Routed};
use crate::support::{connect, eventually};

const SOON: Duration = Duration::from_secs(10);

/// Numbers the marks.
static MARKS: AtomicU32 = AtomicU32::new(0);

impl Routed {
    /// Runs a read, and tells where it ran and what it gave.
    async fn read(&self, client: &Client, sql: &str) -> (Place, String) {
        let mark = format!("fresh {}", MARKS.fetch_add(1, Ordering::Relaxed));
        let row =
            client.query_one(&format!("{sql} /* {mark} */"), &[]).await.expect("the statement is valid");
        let [place] = self.places(&mark)[..] else { panic!("{sql}: {:?}", self.places(&mark)) };
        (place, row.get::<_, i64>(0).to_string())
    }

    /// Waits until a read is served by the replica.
    async fn read_on_replica(&self, client: &Client, sql: &str) {
        eventually(&format!("{sql} runs on the replica"), SOON, async || {
            (self.read(client, sql).await.0 == Replica).then_some(())
        })
        .await;
    }
}

const ITEMS: &str = "SELECT count(*) FROM items";
const OTHERS: &str = "SELECT count(*) FROM others";

async fn site(consistency: &str) -> (Routed, Client, Client) {
    let site = Routed::configured(|cluster| {
        ProxyConfig::of(cluster).set("pools.replicas", "consistency", consistency)
    })
    .await;
    site.cluster.primary.query("SET ROLE app; CREATE TABLE others (id int)").await;
    site.cluster.wait_for_replay().await;
    let one = connect(&site.proxy.url()).await.expect("the proxy accepts connections");
    let other = connect(&site.proxy.url()).await.expect("the proxy accepts connections");
    for sql in [ITEMS, OTHERS] {
        site.read_on_replica(&one, sql).await;
    }
    (site, one, other)
}

#[tokio::test]
async fn what_anybody_has_written_is_seen_by_everybody() {
    let (site, one, other) = site("tables").await;
    site.cluster.replica.set_replay(false).await;
    one.batch_execute("INSERT INTO items (name) VALUES ('new')").await.expect("valid");
    for client in [&one, &other] {
        assert_eq!(site.read(client, ITEMS).await, (Primary, "21".to_owned()));
        // Nobody has written to this one.
        assert_eq!(site.read(client, OTHERS).await, (Replica, "0".to_owned()));
    }
    site.cluster.replica.set_replay(true).await;
    site.read_on_replica(&other, ITEMS).await;
    assert_eq!(site.read(&other, ITEMS).await, (Replica, "21".to_owned()));
    // A quiet primary does not keep its replica unused.
    site.cluster.primary.query("SELECT pg_switch_wal()").await;
    one.batch_execute("UPDATE items SET name = 'again' WHERE id = 1").await.expect("valid");
    site.read_on_replica(&one, ITEMS).await;
}

#[tokio::test]
async fn a_session_sees_what_it_has_written() {
    let (site, one, other) = site("session").await;
    site.cluster.replica.set_replay(false).await;
    one.batch_execute("INSERT INTO items (name) VALUES ('new')").await.expect("valid");
    assert_eq!(site.read(&one, ITEMS).await, (Primary, "21".to_owned()));
    assert_eq!(site.read(&one, OTHERS).await.0, Primary, "it has seen more than the replica");
    assert_eq!(site.read(&other, ITEMS).await, (Replica, "20".to_owned()), "another session's write");
    // Once it has seen it, it never goes back.
    let seen = site.read(&other, "/* bulkhead: route=primary */ SELECT count(*) FROM items").await;
    assert_eq!(seen, (Primary, "21".to_owned()));
    assert_eq!(site.read(&other, ITEMS).await, (Primary, "21".to_owned()));
    site.cluster.replica.set_replay(true).await;
    site.read_on_replica(&one, ITEMS).await;
    site.read_on_replica(&other, ITEMS).await;
}

#[tokio::test]
async fn a_strong_read_sees_what_was_written_elsewhere() {
    let (site, one, other) = site("strong").await;
    assert_eq!(
        site.read(&one, ITEMS).await,
        (Replica, "20".to_owned()),
        "it waits for the replica to say so"
    );
    site.cluster.replica.set_replay(false).await;
    site.cluster.primary.query("INSERT INTO items (name) VALUES ('past the proxy')").await;
    for client in [&one, &other] {
        assert_eq!(site.read(client, ITEMS).await, (Primary, "21".to_owned()));
    }
    site.cluster.replica.set_replay(true).await;
    site.read_on_replica(&one, ITEMS).await;
}

#[tokio::test]
async fn statements_and_sessions_ask_for_a_consistency() {
    let (site, one, other) = site("tables").await;
    site.cluster.replica.set_replay(false).await;
    one.batch_execute("INSERT INTO items (name) VALUES ('new')").await.expect("valid");
    let asks = |consistency: &str| format!("/* bulkhead: consistency={consistency} */ {ITEMS}");
    assert_eq!(site.read(&other, &asks("eventual")).await, (Replica, "20".to_owned()));
    assert_eq!(site.read(&other, &asks("strong")).await, (Primary, "21".to_owned()));
    assert_eq!(site.read(&other, &asks("session")).await.0, Primary, "what it has seen was not noted");
    other.batch_execute("SET bulkhead.consistency = 'eventual'").await.expect("any value may be set");
    assert_eq!(site.read(&other, ITEMS).await, (Replica, "20".to_owned()));
    other.batch_execute("RESET bulkhead.consistency").await.expect("it was set");
    assert_eq!(site.read(&other, ITEMS).await, (Primary, "21".to_owned()));
    let url = format!("{}?options=-c%20bulkhead.consistency%3Deventual", site.proxy.url());
    let third = connect(&url).await.expect("the proxy accepts connections");
    assert_eq!(site.read(&third, ITEMS).await, (Replica, "20".to_owned()));
    site.cluster.replica.set_replay(true).await;
}

#[tokio::test]
async fn a_text_that_a_replica_has_refused_goes_to_the_primary() {
    let (site, one, _) = site("tables").await;
    let make = |body: &str| {
        format!(
            "SET ROLE app; CREATE OR REPLACE FUNCTION next_number() RETURNS bigint LANGUAGE plpgsql STABLE \
             AS $$ BEGIN RETURN {body}; END $$"
        )
    };
    let refused = || async { site.proxy.metric("bulkhead_repeats_total{reason=\"read_only_server\"}").await };
    // Past Bulkhead it becomes another one, which the catalog does not know yet.
    let mut tries = 0;
    eventually("the function is taken for what it was", SOON, async || {
        site.cluster.primary.query(&make("0")).await;
        let before = tries;
        loop {
            tries += 1;
            one.simple_query(&format!("SELECT next_number() + {tries} /* read {tries} */"))
                .await
                .expect("it runs");
            if site.places(&format!("read {tries}")) == [Replica] || tries > before + 200 {
                break;
            }
        }
        site.cluster.primary.query(&make("nextval('numbers')")).await;
        site.cluster.wait_for_replay().await;
        let sql = format!("SELECT next_number() + {tries} /* taken {tries} */");
        one.simple_query(&sql).await.expect("the client notices nothing");
        (site.places(&format!("taken {tries}")) == [Primary, Replica]).then_some(())
    })
    .await;
    assert_eq!(refused().await, Some(1.0));
    let statement = one.prepare("SELECT next_number() + 1 /* prepared */").await.expect("valid");
    for _ in 0..3 {
        one.query_one(&statement, &[]).await.expect("valid");
    }
    one.simple_query("SELECT next_number() + 7 /* once more */").await.expect("valid");
    assert_eq!((site.places("once more"), site.places("prepared")), (vec![Primary], vec![Primary]));
    assert_eq!(refused().await, Some(1.0), "it is remembered");
}

#[tokio::test]
async fn reads_on_a_replica_that_hangs_are_run_on_the_primary() {
    let (site, one, other) = site("tables").await;
    let read = tokio::spawn(async move {
        let row = one
            .query_one("SELECT count(*), pg_sleep(2)::text FROM items", &[])
            .await
            .expect("it is run once more");
        (row.get::<_, i64>(0), one)
    });
    site.cluster.replica.wait_for_app_backends("query LIKE '%pg_sleep(2)%' AND state = 'active'", 1).await;
    site.cluster.replica.pause();
    let paused = std::time::Instant::now();
    // Others keep reading; whatever waits for the replica goes on as soon as it is known to hang.
    let mut longest = Duration::ZERO;
    while paused.elapsed() < Duration::from_secs(4) {
        let began = std::time::Instant::now();
        other.query_one(ITEMS, &[]).await.expect("it runs somewhere");
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    let (count, one) = read.await.expect("no panic");
    assert_eq!(count, 20);
    assert_eq!(site.read(&one, ITEMS).await.0, Primary);
    site.cluster.replica.resume();
    site.read_on_replica(&one, ITEMS).await;
}
