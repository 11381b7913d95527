//! Pools that are full, each for a reason of its own.

use super::{comes_first, named, patient, report, site, waiting};
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, error_code, eventually, oban};

/// Waits until the primary has as many processes of `app` that a condition holds for.
async fn wait_for(primary: &Postgres, condition: &str, count: usize) {
    primary.wait_for_app_backends(condition, count).await;
}

#[tokio::test]
async fn slow_jobs_fill_their_pool() {
    let primary = Postgres::start(Role::Primary);
    oban::install(&primary).await;
    let config = patient(ProxyConfig::primary_only(&primary))
        .pool("jobs", &["primary"], 2)
        .set("pools.jobs", "wait_timeout", "60s")
        .set("jobs", "presets", vec!["oban"])
        .set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let mut workers = Vec::new();
    for at in 0..4 {
        let mut worker = RawClient::open(proxy.port()).await;
        let name = ("application_name", "worker");
        worker.startup(&[("user", "app"), ("database", "app"), name]).await;
        assert_eq!(worker.authenticate("app", "secret").await, None);
        worker
            .query(&format!("SELECT pg_sleep(6{at}), count(*) FROM oban_jobs WHERE queue = 'secret{at}'"))
            .await;
        workers.push(worker);
    }
    proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"jobs\",server=\"primary\"}", 2.0).await;
    let words = ["pool \"jobs\" on \"primary\" is full of running statements", "\"worker\"", "2 of 2"];
    let found = comes_first(&proxy, "pool_full", &words).await;
    assert!(found.contains("2 clients wait"), "{found}");
    assert!(found.contains("2 x application \"worker\", user \"app\", class job, running for"), "{found}");
    assert!(found.contains("SELECT pg_sleep(?), count(*) FROM oban_jobs WHERE queue = ?"), "{found}");
    assert!(!found.contains("secret"), "{found}");
}

#[tokio::test]
async fn transactions_that_nobody_ends_fill_a_pool() {
    let site = site(3, |config| config);
    let mut leaky = Vec::new();
    for _ in 0..3 {
        let mut client = named(&site, "leaky").await;
        client.ask("BEGIN").await;
        client.query_value("SELECT count(*) FROM pg_class WHERE relname = 'secret'").await;
        leaky.push(client);
    }
    let mut last = waiting(&site).await;
    let words =
        ["pool \"primary\" is full of transactions in which clients", "application \"leaky\"", "3 of 3"];
    let found = comes_first(&site.proxy, "pool_full", &words).await;
    assert!(found.contains("3 x application \"leaky\", user \"app\", class "), "{found}");
    assert!(found.contains(", idle in a transaction for "), "{found}");
    assert!(found.contains("last ran SELECT count(*) FROM pg_class WHERE relname = ?"), "{found}");
    assert!(found.contains("the longest are clients ") && !found.contains("secret"), "{found}");
    for client in &mut leaky {
        client.ask("COMMIT").await;
    }
    last.read_until_ready().await;
    eventually("all is well again", super::SOON, async || {
        (report(&site.proxy).await["well"] == true).then_some(())
    })
    .await;
}

#[tokio::test]
async fn pinned_sessions_fill_a_pool() {
    let site = site(2, |config| {
        config.set("pools.primary", "max_pinned", 2).set("pools.primary", "pinned_idle_timeout", "0s")
    });
    let mut pinned = Vec::new();
    for lock in 0..2 {
        let mut client = named(&site, "singleton").await;
        client.query_value(&format!("SELECT pg_advisory_lock({lock})")).await;
        pinned.push(client);
    }
    site.wait_for_pinned("advisory_locks", 2.0).await;
    let _last = waiting(&site).await;
    let words = ["pool \"primary\" is full of pinned sessions", "application \"singleton\"", "2 of 2"];
    let found = comes_first(&site.proxy, "pool_full", &words).await;
    assert!(
        found.contains("2 x application \"singleton\", user \"app\", kept by advisory_locks, idle for"),
        "{found}"
    );
}

#[tokio::test]
async fn places_for_pins_are_taken() {
    let site = site(4, |config| config.set("pools.primary", "max_pinned", 1));
    let mut first = named(&site, "singleton").await;
    first.query_value("SELECT pg_advisory_lock(1)").await;
    site.wait_for_pinned("advisory_locks", 1.0).await;
    let mut second = named(&site, "web").await;
    second.query("SELECT pg_advisory_lock(2)").await;
    let found = comes_first(&site.proxy, "pins_full", &["pool \"primary\"", "1 of 1"]).await;
    assert!(found.contains("1 x application \"singleton\", user \"app\", kept by advisory_locks"), "{found}");
}

/// A table that two clients of three want, and cannot have; the third takes the last connection, and a fourth waits.
async fn locked(site: &super::Site) -> Vec<RawClient> {
    let mut victims = Vec::new();
    for _ in 0..2 {
        let mut victim = named(site, "web").await;
        victim.query("SELECT count(*) FROM items WHERE name = 'secret'").await;
        victims.push(victim);
    }
    wait_for(&site.primary, "wait_event_type = 'Lock'", 2).await;
    victims.push(waiting(site).await);
    victims
}

#[tokio::test]
async fn somebody_past_bulkhead_locks_a_table() {
    let site = site(2, |config| config);
    site.primary.query("CREATE TABLE items (name text); GRANT ALL ON items TO app").await;
    let outside = site.primary.admin().await;
    outside.batch_execute("SET application_name = 'psql'; BEGIN; LOCK TABLE items").await.expect("it may");
    let _victims = locked(&site).await;
    let words = [
        "\"psql\", user \"postgres\"",
        "which is not Bulkhead's client",
        "blocks 2 others on server \"primary\"",
    ];
    let found = comes_first(&site.proxy, "lock", &words).await;
    let pid = outside.query_one("SELECT pg_backend_pid()", &[]).await.expect("it runs").get::<_, i32>(0);
    assert!(found.contains(&format!("process {pid} (")), "{found}");
    assert!(found.contains(&format!("pg_terminate_backend({pid})")), "{found}");
    // Of another role's connection nothing more is known.
    assert!(found.contains("the server does not tell what it does"), "{found}");
    assert!(found.contains("2 of them through Bulkhead"), "{found}");
    assert!(
        found.contains(
            "waits: 2 x application \"web\", user \"app\": SELECT count(*) FROM items WHERE name = ?"
        ),
        "{found}"
    );
    assert!(!found.contains("secret"), "{found}");
    // Who may read all statistics knows.
    site.primary.query("GRANT pg_read_all_stats TO app").await;
    let words = ["\"psql\", user \"postgres\"", "it has been idle in a transaction for"];
    let found = comes_first(&site.proxy, "lock", &words).await;
    assert!(found.contains("idle_in_transaction_session_timeout"), "{found}");
}

#[tokio::test]
async fn a_client_locks_a_table() {
    let site = site(3, |config| config);
    site.primary
        .query("CREATE TABLE items (name text); GRANT ALL ON items TO app; ALTER TABLE items OWNER TO app")
        .await;
    let mut migration = named(&site, "migration").await;
    migration.ask("BEGIN").await;
    migration.ask("ALTER TABLE items ADD COLUMN more text DEFAULT 'secret'").await;
    let _victims = locked(&site).await;
    let client = migration.key().0;
    let words = [
        "application \"migration\", user \"app\"",
        "blocks 2 others",
        "it has been idle in a transaction for",
    ];
    let found = comes_first(&site.proxy, "lock", &words).await;
    assert!(found.starts_with(&format!("client {client} (")), "{found}");
    assert!(found.contains(&format!("KILL_CLIENT {client} on the console")), "{found}");
    assert!(found.contains("it ran last: ALTER TABLE items ADD COLUMN more text DEFAULT ?"), "{found}");
    assert!(!found.contains("secret"), "{found}");
}

#[tokio::test]
async fn clients_that_do_not_read_fill_a_pool() {
    let site = site(2, |config| config);
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let mut client = named(&site, "report").await;
        client.query("SELECT repeat('x', 10000) FROM generate_series(1, 1000000)").await;
        deaf.push(client);
    }
    wait_for(&site.primary, "wait_event = 'ClientWrite'", 2).await;
    let _last = waiting(&site).await;
    let words =
        ["pool \"primary\" is full of answers that clients", "application \"report\"", "do not read: 2 of 2"];
    let found = comes_first(&site.proxy, "pool_full", &words).await;
    assert!(found.contains("2 x application \"report\", user \"app\", class "), "{found}");
    assert!(found.contains(", taking nothing of their answers for "), "{found}");
    assert!(found.contains("SELECT repeat(?, ..) FROM generate_series(?, ..)"), "{found}");
}

#[tokio::test]
async fn as_many_wait_as_may() {
    let site = site(1, |config| config.set("pools.primary", "max_waiting", 1));
    let mut slow = named(&site, "report").await;
    slow.query("SELECT pg_sleep(60)").await;
    wait_for(&site.primary, "wait_event = 'PgSleep'", 1).await;
    let _first = waiting(&site).await;
    let mut refused = named(&site, "web").await;
    for _ in 0..3 {
        assert_eq!(error_code(&refused.ask("SELECT 1").await).as_deref(), Some("53300"));
    }
    let words = ["pool \"primary\" is full of running statements", "\"report\""];
    let found = comes_first(&site.proxy, "pool_full", &words).await;
    assert!(found.contains("1 client waits"), "{found}");
    assert!(found.contains("3 requests refused in the last"), "{found}");
    assert!(found.contains("as many waited as may (pools.primary.max_waiting = 1)"), "{found}");
}

#[tokio::test]
async fn there_are_as_many_clients_as_may_be() {
    let site = site(2, |config| config.set("limits", "max_clients", 4));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(named(&site, "web").await);
    }
    let error = site.try_client(&[("application_name", "one more")]).await.err().expect("there is no place");
    assert_eq!(error.field(b'C').as_deref(), Some("53300"));
    let words = ["clients are refused: 4 of 4 places for clients are taken (limits.max_clients)"];
    let found = comes_first(&site.proxy, "clients_full", &words).await;
    assert!(found.contains("1 client refused in the last"), "{found}");
    assert!(found.contains("4 clients of application \"web\", user \"app\", 4 of them idle"), "{found}");
}
