//! Whoever floods a pool waits behind itself: others get their share, and are let in.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, connect};

const FLOODERS: usize = 100;
const PLACES: i64 = 4;

/// Longer than the queue would be if everybody was served in the order of arrival: 100 statements of 20 ms at 4 places.
const SMALL: Duration = Duration::from_millis(250);

/// A pool for two users, who need no password: proving one costs more than all else they do here.
fn start(primary: &Postgres, max_waiting: i64) -> (Proxy, Scratch) {
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n\"app_two\" \"second\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(primary)
        .pool("primary", &["primary"], PLACES)
        .set("pools.primary", "max_waiting", max_waiting)
        .set("auth", "method", "trust")
        .set("auth", "users_file", users.to_str().expect("the path is text"));
    (Proxy::start(&config.to_toml()), folder)
}

/// Clients of one identity that ask without a pause, and come again when they are refused.
struct Flood {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: JoinSet<()>,
}

impl Flood {
    async fn start(proxy: &Proxy) -> Self {
        let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut clients = JoinSet::new();
        for _ in 0..FLOODERS {
            let client = connect(&proxy.url()).await.expect("a client");
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            clients.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match client.simple_query("SELECT pg_sleep(0.02)").await {
                        Ok(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        // Refused is fair for whoever floods.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Self { over, answered, clients }
    }

    async fn stop(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("clients do not panic");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// What the other identity meets with: a login, and then a statement now and then.
async fn be_modest(proxy: &Proxy) -> Vec<Duration> {
    let before = Instant::now();
    let mut client = RawClient::login(proxy.port(), Login::AppTwo, "app").await;
    let mut waits = vec![before.elapsed()];
    for _ in 0..40 {
        let before = Instant::now();
        client.query("SELECT 1").await;
        assert_eq!(client.read_error().await, None, "nobody modest is refused");
        waits.push(before.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    waits
}

async fn others_are_served_in_a_flood(max_waiting: i64) {
    let primary = Postgres::start(Role::Primary);
    let (proxy, _folder) = start(&primary, max_waiting);
    let flood = Flood::start(&proxy).await;
    let mut waits = be_modest(&proxy).await;
    let answered = flood.stop().await;
    waits.sort();
    let median = waits[waits.len() / 2];
    assert!(median < SMALL, "the median of {waits:?}");
    assert!(answered > FLOODERS as u64, "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_hardly_waits() {
    others_are_served_in_a_flood(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_identity_is_let_into_a_full_queue() {
    others_are_served_in_a_flood(10).await;
}

/// As many clients of a user as get in, and what the next one is told.
async fn fill(proxy: &Proxy, login: Login) -> (Vec<RawClient>, String) {
    let mut inside = Vec::new();
    loop {
        match RawClient::try_login(proxy.port(), login, &[("database", "app")]).await {
            Ok(client) => inside.push(client),
            Err(error) => {
                assert_eq!(error.field(b'C').as_deref(), Some("53300"), "{error:?}");
                return (inside, error.field(b'M').unwrap_or_default());
            }
        }
    }
}

/// A hundred clients of one user, which come again and again, leave the door open for another one.
#[tokio::test]
async fn the_last_places_for_clients_are_for_those_who_hold_few() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n\"app_two\" \"second\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary)
        .set("limits", "max_clients", 40)
        .set("auth", "method", "trust")
        .set("auth", "users_file", users.to_str().expect("the path is text"));
    let proxy = Proxy::start(&config.to_toml());
    let over = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for _ in 0..FLOODERS {
        let (port, over) = (proxy.port(), Arc::clone(&over));
        flood.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                if let Ok(mut client) = RawClient::try_login(port, Login::App, &[("database", "app")]).await {
                    while !over.load(Ordering::Relaxed) {
                        client.ask("SELECT 1").await;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }
    proxy.wait_for_metric("bulkhead_clients", 36.0).await;
    for _ in 0..50 {
        let mut other = RawClient::login(proxy.port(), Login::AppTwo, "app").await;
        assert_eq!(other.query_value("SELECT 1").await, "1");
    }
    over.store(true, Ordering::Relaxed);
    while flood.join_next().await.is_some() {}
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    let (all, told) = fill(&proxy, Login::App).await;
    assert_eq!(all.len(), 36);
    assert!(told.contains("\"app\"") && told.contains("last 4 places"), "{told}");
    let (others, told) = fill(&proxy, Login::AppTwo).await;
    assert_eq!(others.len(), 4);
    assert!(told.contains("too many clients already: 40"), "{told}");
}

#[tokio::test]
async fn an_only_user_has_all_places_for_clients() {
    let primary = Postgres::start(Role::Primary);
    let config =
        ProxyConfig::primary_only(&primary).set("limits", "max_clients", 30).set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let (all, told) = fill(&proxy, Login::App).await;
    assert_eq!(all.len(), 30);
    assert!(told.contains("too many clients already: 30"), "{told}");
}

/// Whoever says a user's name and no password takes places from nobody who knows it.
#[tokio::test]
async fn who_proves_nothing_shuts_out_nobody_of_the_same_name() {
    const CLIENTS: usize = 20;
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n\"app_two\" \"second\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary).set("limits", "max_clients", CLIENTS as i64).set(
        "auth",
        "users_file",
        users.to_str().expect("the path is text"),
    );
    let proxy = Proxy::start(&config.to_toml());
    let mut idle = Vec::new();
    for _ in 0..3 * CLIENTS {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup(&[("user", "app"), ("database", "app")]).await;
        // It is asked for its password, unless the one before it has not gone yet, and says nothing.
        assert!(matches!(client.read_message().await.tag, b'R' | b'E'));
        idle.push(client);
    }
    for login in [Login::App, Login::AppTwo] {
        let mut client = RawClient::login(proxy.port(), login, "app").await;
        assert_eq!(client.query_value("SELECT 1").await, "1");
    }
    // The oldest were told to go.
    let told = idle[0].try_read_message().await.and_then(|message| message.field(b'M')).unwrap_or_default();
    assert!(told.contains("too many logins of user \"app\" are under way"), "{told}");
    assert!(proxy.metric("bulkhead_clients").await <= Some(CLIENTS as f64));
}
