//! A cancel hits the statement of its own session and nothing else, whenever it comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Relay, Role, eventually};

const CANCELED: &str = "57014";

/// A pool of so many connections; nobody needs a password, so that logging in costs nothing.
fn pooler(primary: &Postgres, bound: i64) -> ProxyConfig {
    ProxyConfig::primary_only(primary).pool("primary", &["primary"], bound).set("auth", "method", "trust")
}

/// Waits until the server runs so many statements that contain `text`.
async fn wait_for_running(primary: &Postgres, text: &str, count: usize) {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%{text}%'"
    );
    eventually(&format!("{count} statements like {text} run"), Duration::from_secs(10), async || {
        (primary.value(&sql).await == count.to_string()).then_some(())
    })
    .await;
}

async fn canceled(client: &mut RawClient) -> bool {
    client.read_error().await.is_some_and(|[code, ..]| code == CANCELED)
}

#[tokio::test]
async fn a_cancel_hits_its_own_session_only() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&pooler(&primary, 10).to_toml());
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = RawClient::app(proxy.port()).await;
        client.query("SELECT pg_sleep(1.5)").await;
        clients.push(client);
    }
    wait_for_running(&primary, "pg_sleep", 6).await;
    let (pid, secret) = clients[3].key().clone();

    // Neither a wrong secret nor a wrong process, nor a secret that only begins rightly.
    let mut wrong = secret.to_vec();
    wrong[0] ^= 1;
    RawClient::cancel(proxy.port(), pid, &wrong).await;
    RawClient::cancel(proxy.port(), pid, &[&secret[..], &secret[..]].concat()).await;
    RawClient::cancel(proxy.port(), pid ^ 1, &secret).await;
    RawClient::cancel(proxy.port(), 0, &[0; 4]).await;
    assert_eq!(proxy.metric("bulkhead_cancel_requests_total").await, Some(0.0));

    let before = Instant::now();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert!(canceled(&mut clients[3]).await, "the statement was cancelled");
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert_eq!(proxy.metric("bulkhead_cancel_requests_total").await, Some(1.0));
    assert_eq!(clients[3].query_value("SELECT 1").await, "1", "its session goes on");
    for (number, client) in clients.iter_mut().enumerate() {
        if number != 3 {
            assert_eq!(client.read_error().await, None, "session {number} was not meant");
        }
    }
}

#[tokio::test]
async fn an_idle_session_survives_its_cancel_and_hands_it_to_nobody() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&pooler(&primary, 1).to_toml());
    let mut idle = RawClient::app(proxy.port()).await;
    idle.query_value("SELECT 1").await;
    let mut other = RawClient::app(proxy.port()).await;
    other.query("SELECT pg_sleep(0.5)").await;
    wait_for_running(&primary, "pg_sleep", 1).await;
    let (pid, secret) = idle.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(
        other.read_error().await,
        None,
        "the connection that the idle session had last is another's now"
    );
    assert_eq!(idle.query_value("SELECT 2").await, "2");

    // Idle in a transaction it holds a connection, and PostgreSQL forgets a cancel that finds nothing to do.
    idle.ask("BEGIN").await;
    idle.query_value("SELECT 3").await;
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(idle.query_value("SELECT 4").await, "4");
    idle.ask("COMMIT").await;
    assert_eq!(other.query_value("SELECT 5").await, "5");
}

#[tokio::test]
async fn a_session_in_the_queue_can_be_cancelled() {
    let primary = Postgres::start(Role::Primary);
    let config = pooler(&primary, 1).set("pools.primary", "wait_timeout", "30s");
    let proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    holder.ask("BEGIN").await;
    holder.query_value("SELECT 1").await;
    let mut waiter = RawClient::app(proxy.port()).await;
    waiter.query("SELECT 2").await;
    let waiting = "bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}";
    proxy.wait_for_metric(waiting, 1.0).await;
    let (pid, secret) = waiter.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    let [code, message, _] = waiter.read_error().await.expect("the wait is over");
    assert_eq!((code.as_str(), message.as_str()), (CANCELED, "canceling statement due to user request"));
    proxy.wait_for_metric(waiting, 0.0).await;

    // Inside a transaction that exists here only, it fails as it would on the server.
    waiter.ask("BEGIN").await;
    waiter.query("SELECT 3").await;
    proxy.wait_for_metric(waiting, 1.0).await;
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert_eq!(waiter.read_status().await, 'E');
    waiter.ask("ROLLBACK").await;

    holder.ask("COMMIT").await;
    assert_eq!(waiter.query_value("SELECT 4").await, "4", "the cancels are spent");
}

#[tokio::test]
async fn protocol_3_2_has_a_long_secret() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&pooler(&primary, 2).to_toml());
    let mut client = RawClient::open(proxy.port()).await;
    client.startup_minor(2, &[("user", "app"), ("database", "app")]).await;
    assert_eq!(client.authenticate("app", "secret").await, None);
    let (pid, secret) = client.key().clone();
    assert!(secret.len() >= 16, "{} bytes", secret.len());
    client.query("SELECT pg_sleep(20)").await;
    wait_for_running(&primary, "pg_sleep", 1).await;
    RawClient::cancel(proxy.port(), pid, &secret[..4]).await;
    RawClient::cancel(proxy.port(), pid, &secret[..secret.len() - 1]).await;
    assert_eq!(proxy.metric("bulkhead_cancel_requests_total").await, Some(0.0));
    RawClient::cancel(proxy.port(), pid, &secret).await;
    assert!(canceled(&mut client).await);

    let old = RawClient::app(proxy.port()).await;
    assert_eq!(old.key().1.len(), 4, "protocol 3.0 has no room for more");
}

/// Sessions on a pool smaller than they are many; the victims are cancelled at random moments around the ends of
/// their tiny statements, the others must never notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_comes_late_hits_nobody_else() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Arc::new(Proxy::start(&pooler(&primary, 3).set("listen", "threads", 2).to_toml()));
    let stop = Arc::new(AtomicBool::new(false));
    let (hits, answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut bystanders = JoinSet::new();
    for number in 0..6 {
        let (proxy, stop, answered) = (Arc::clone(&proxy), Arc::clone(&stop), Arc::clone(&answered));
        bystanders.spawn(async move {
            let mut client = RawClient::app(proxy.port()).await;
            let mut random = Random::new(1000 + number);
            while !stop.load(Ordering::Relaxed) {
                let sql = ["SELECT 1", "SELECT pg_sleep(0.003)"][random.below(2) as usize];
                client.query(sql).await;
                assert_eq!(client.read_error().await, None, "a bystander was hit");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut victims = JoinSet::new();
    for number in 0..4 {
        let (proxy, stop, hits) = (Arc::clone(&proxy), Arc::clone(&stop), Arc::clone(&hits));
        victims.spawn(async move {
            let mut client = RawClient::app(proxy.port()).await;
            let (pid, secret) = client.key().clone();
            let mut random = Random::new(number);
            while !stop.load(Ordering::Relaxed) {
                let sql = ["SELECT 1", "SELECT pg_sleep(0.002)"][random.below(2) as usize];
                let (pause, port) = (random.pause(4), proxy.port());
                let cancel = async {
                    tokio::time::sleep(pause).await;
                    RawClient::cancel(port, pid, &secret).await;
                };
                client.query(sql).await;
                let (error, ()) = tokio::join!(client.read_error(), cancel);
                if let Some([code, message, _]) = error {
                    assert_eq!(code, CANCELED, "{message}");
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.store(true, Ordering::Relaxed);
    for tasks in [&mut bystanders, &mut victims] {
        while let Some(ended) = tasks.join_next().await {
            ended.expect("nobody panics");
        }
    }
    let (hits, answered) = (hits.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    assert!(hits > 20, "only {hits} statements were cancelled: the race was not run");
    assert!(answered > 500, "only {answered} statements were answered");
}

/// The network holds a cancel back until its session has long given up its connection.
#[tokio::test]
async fn a_cancel_that_the_network_held_back_hits_nobody_else() {
    let primary = Postgres::start(Role::Primary);
    let relay = Relay::start(primary.port());
    let config = pooler(&primary, 1).set("servers.primary", "url", Login::App.url(relay.port(), "app")).set(
        "pools.primary",
        "wait_timeout",
        "60s",
    );
    let proxy = Proxy::start(&config.to_toml());
    let mut victim = RawClient::app(proxy.port()).await;
    let mut next = RawClient::app(proxy.port()).await;
    victim.query("SELECT pg_sleep(1)").await;
    wait_for_running(&primary, "pg_sleep", 1).await;
    next.query("SELECT pg_sleep(1.001)").await;
    // Only new bytes are held back: the answer to the victim's statement, and the cancel.
    relay.stall(true);
    let (pid, secret) = victim.key().clone();
    RawClient::cancel(proxy.port(), pid, &secret).await;
    proxy.wait_for_log("a cancel was not answered in time").await;
    relay.stall(false);
    assert_eq!(victim.read_error().await, None, "the statement had ended before");
    assert_eq!(next.read_error().await, None, "another session's statement was hit");
}
