//! The bound of a pool holds at every moment, as its server counts; who gets no place is told so, and stays.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, Random, RawClient, Role, Scratch, connect, eventually,
};

/// The pool of the storm.
const BOUND: u64 = 8;

const OURS: &str = "SELECT count(*) FROM pg_stat_activity \
                    WHERE backend_type = 'client backend' AND usename IN ('app', 'app_two')";

/// A configuration of one pool for the users `app` and `app_two`, who need no password here: proving one costs a
/// client more than all it does in these tests. The file of users lives as long as the folder.
fn two_users(primary: &Postgres, bound: u64) -> (ProxyConfig, Scratch) {
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n\"app_two\" \"second\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(primary)
        .set("pools.primary", "max_connections", bound as i64)
        // The health check takes a free place then, and has none of its own.
        .set("servers.primary", "max_connections", bound as i64)
        .set("auth", "method", "trust")
        .set("auth", "users_file", users.to_str().expect("the path is text"));
    (config, folder)
}

/// Polls the server, straight, for connections of the users that only Bulkhead uses.
struct Sampler {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<(i64, u64)>,
}

impl Sampler {
    async fn start(primary: &Postgres) -> Self {
        let admin = primary.admin().await;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let count = admin.prepare(OURS).await.expect("the view is there");
            let (mut highest, mut samples) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                let row = admin.query_one(&count, &[]).await.expect("the server answers");
                highest = highest.max(row.get::<_, i64>(0));
                samples += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (highest, samples)
        });
        Self { stop, task }
    }

    /// The highest count, and how often it was looked at.
    async fn stop(self) -> (i64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the sampler does not panic")
    }
}

/// What a storm's clients share.
struct Storm {
    until: Instant,
    /// Statements answered, by identity.
    answered: [AtomicU64; 2],
}

/// A client whose socket closes without a goodbye when its task is aborted.
async fn abrupt(url: &str) -> Result<(Client, tokio::task::JoinHandle<()>), tokio_postgres::Error> {
    let config: Config = url.parse()?;
    let (client, connection) = config.connect(NoTls).await?;
    let task = tokio::spawn(async move {
        connection.await.ok();
    });
    Ok((client, task))
}

/// One client of the storm: connects, does a few things at random, goes in one way or another.
async fn weather(storm: &Storm, identity: usize, url: &str, mut random: Random) {
    while Instant::now() < storm.until {
        // Refused is fair in a storm: what counts is what happens to the bound.
        let Ok((client, connection)) = abrupt(url).await else {
            tokio::time::sleep(random.pause(20)).await;
            continue;
        };
        for _ in 0..random.below(12) {
            if Instant::now() >= storm.until {
                break;
            }
            let ok = match random.below(10) {
                0..=3 => client.simple_query("SELECT 1").await.is_ok(),
                4 => client.query("SELECT $1::int", &[&7_i32]).await.is_ok(),
                5 | 6 => client.simple_query("SELECT pg_sleep(0.05)").await.is_ok(),
                7 => {
                    let begun = client.simple_query("BEGIN").await.is_ok();
                    let asked = client.simple_query("SELECT pg_sleep(0.01)").await.is_ok();
                    let end = if random.below(2) == 0 { "COMMIT" } else { "ROLLBACK" };
                    client.simple_query(end).await.is_ok() && begun && asked
                }
                8 => {
                    let token = client.cancel_token();
                    let pause = random.pause(60);
                    let cancel = async {
                        tokio::time::sleep(pause).await;
                        token.cancel_query(NoTls).await.ok();
                    };
                    tokio::join!(client.simple_query("SELECT pg_sleep(0.05)"), cancel).0.is_ok()
                }
                _ => {
                    let statement = client.simple_query("SELECT pg_sleep(5)");
                    tokio::time::timeout(random.pause(50), statement).await.ok();
                    connection.abort();
                    false
                }
            };
            storm.answered[identity].fetch_add(u64::from(ok), Ordering::Relaxed);
            if client.is_closed() || connection.is_finished() {
                break;
            }
        }
        if random.below(2) == 0 {
            connection.abort();
        }
    }
}

/// Ends random backends of the pool until the storm is over.
async fn executioner(storm: &Storm, admin: Client) -> u64 {
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                WHERE usename IN ('app', 'app_two') ORDER BY random() LIMIT 1) AS victim";
    let mut killed = 0;
    while Instant::now() < storm.until {
        let row = admin.query_one(kill, &[]).await.expect("the server answers");
        killed += row.get::<_, i64>(0) as u64;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    killed
}

/// The pool's places by state, in the order active, idle, connecting, closing.
async fn places(proxy: &Proxy) -> [f64; 4] {
    let text = proxy.metrics().await;
    ["active", "idle", "connecting", "closing"].map(|state| {
        let of_state = format!("state=\"{state}\"");
        let line = text
            .lines()
            .find(|line| line.starts_with("bulkhead_pool_connections{") && line.contains(&of_state))
            .unwrap_or_else(|| panic!("no places in state {state}:\n{text}"));
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a sample is a number")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_never_exceeds_the_bound_and_leaves_no_trace() {
    let primary = Postgres::start(Role::Primary);
    let (config, _folder) = two_users(&primary, BOUND);
    let proxy = Proxy::start(&config.set("listen", "threads", 2).to_toml());
    let urls = [proxy.url(), Login::AppTwo.url(proxy.port(), "app_two")];
    let watch = Sampler::start(&primary).await;
    let storm = Arc::new(Storm {
        until: Instant::now() + Duration::from_secs(5),
        answered: [AtomicU64::new(0), AtomicU64::new(0)],
    });
    let mut clients = JoinSet::new();
    for number in 0..100_usize {
        let (storm, identity) = (Arc::clone(&storm), number % 2);
        let (url, random) = (urls[identity].clone(), Random::new(number as u64));
        clients.spawn(async move { weather(&storm, identity, &url, random).await });
    }
    let killed = executioner(&storm, primary.admin().await).await;
    while let Some(ended) = tokio::time::timeout(Duration::from_secs(20), clients.join_next())
        .await
        .expect("the storm ends: nobody waits for ever")
    {
        ended.expect("clients do not panic");
    }
    // What the storm has left is still being cleared away, within the bound.
    eventually("all places are free or idle", Duration::from_secs(15), async || {
        let [active, _, connecting, closing] = places(&proxy).await;
        (active + connecting + closing < 0.5).then_some(())
    })
    .await;
    let (highest, samples) = watch.stop().await;
    assert!(samples > 200, "only {samples} samples");
    assert!(killed > 20, "only {killed} backends were killed");
    assert!((1..=BOUND as i64).contains(&highest), "{highest} connections, the bound is {BOUND}");
    let answered = storm.answered.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert!(answered.iter().all(|count| *count > 20), "statements answered by identity: {answered:?}");

    // One may be in use by Bulkhead itself, which reads the catalog.
    eventually("the places are the server's connections", Duration::from_secs(15), async || {
        let counted: f64 = places(&proxy).await.iter().sum();
        let on_server = primary.value(OURS).await.parse::<f64>().expect("a count");
        assert!(counted.max(on_server) <= BOUND as f64, "{counted} places, {on_server} on the server");
        ((counted - on_server).abs() < 0.5).then_some(())
    })
    .await;
    for url in &urls {
        let mut users = JoinSet::new();
        for _ in 0..20 {
            let url = url.clone();
            users.spawn(async move {
                let client = connect(&url).await.expect("clients are let in");
                client.simple_query("SELECT pg_sleep(0.01)").await.expect("statements run");
            });
        }
        while let Some(ended) = users.join_next().await {
            ended.expect("everything still works");
        }
    }
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
}

#[tokio::test]
async fn an_identity_that_hogs_the_pool_does_not_starve_another() {
    let primary = Postgres::start(Role::Primary);
    let (config, _folder) = two_users(&primary, 2);
    let proxy = Proxy::start(&config.to_toml());
    let stop = Arc::new(AtomicBool::new(false));
    let mut hogs = JoinSet::new();
    for _ in 0..10 {
        let (url, stop) = (proxy.url(), Arc::clone(&stop));
        hogs.spawn(async move {
            let client = connect(&url).await.expect("clients are let in");
            while !stop.load(Ordering::Relaxed) {
                client.simple_query("SELECT pg_sleep(0.01)").await.expect("statements run");
            }
        });
    }
    let other = connect(&proxy.url_of(Login::AppTwo)).await.expect("the other is let in");
    let mut longest = Duration::ZERO;
    for _ in 0..30 {
        let before = Instant::now();
        other.simple_query("SELECT 1").await.expect("the other is served");
        longest = longest.max(before.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = hogs.join_next().await {
        ended.expect("the hogs are served too");
    }
    // Many times its turn in a queue of eleven, for slow machines: less than the timeout of the queue.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

/// A pool of 1, and a client that holds it in a transaction.
async fn held_pool(primary: &Postgres, keys: &[(&str, toml::Value)]) -> (Proxy, RawClient) {
    let mut config = ProxyConfig::primary_only(primary).pool("primary", &["primary"], 1);
    for (key, value) in keys {
        config = config.set("pools.primary", key, value.clone());
    }
    let proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    holder.ask("BEGIN").await;
    holder.query_value("SELECT 1").await;
    (proxy, holder)
}

async fn wait_for_waiting(proxy: &Proxy, count: f64) {
    eventually(&format!("{count} clients wait"), Duration::from_secs(10), async || {
        let text = proxy.metrics().await;
        let line = text.lines().find(|line| line.starts_with("bulkhead_pool_waiting{"))?;
        let now: f64 = line.rsplit(' ').next()?.parse().ok()?;
        ((now - count).abs() < 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_more_than_may_wait_is_refused_at_once_and_stays() {
    let primary = Postgres::start(Role::Primary);
    let keys = [("max_waiting", 2.into()), ("wait_timeout", "30s".into())];
    let (proxy, mut holder) = held_pool(&primary, &keys).await;
    let mut waiters = Vec::new();
    for number in 0..2_u8 {
        let mut waiter = RawClient::app(proxy.port()).await;
        waiter.query(&format!("SELECT {number}")).await;
        wait_for_waiting(&proxy, f64::from(number + 1)).await;
        waiters.push(waiter);
    }

    let mut third = RawClient::app(proxy.port()).await;
    let before = Instant::now();
    third.query("SELECT 3").await;
    let [code, message, hint] = third.read_error().await.expect("the third is refused");
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
    assert_eq!(code, "53300");
    assert_eq!(message, "pool \"primary\" is full: 1 of 1 connections busy, 2 waiting");
    assert!(hint.contains("pools.primary.max_connections"), "{hint}");
    assert!(hint.contains("pools.primary.max_waiting"), "{hint}");

    // In the extended protocol all up to Sync is refused with one error.
    third.parse("s", "SELECT 4").bind("", "s", &[]).execute("", 0).sync();
    third.flush().await;
    let answer = third.read_until_ready().await;
    assert_eq!(RawClient::tags(&answer), "EZ");
    assert_eq!(answer[0].field(b'C').as_deref(), Some("53300"));
    assert_eq!(answer[0].field(b'S').as_deref(), Some("ERROR"));

    // A BEGIN is answered without a connection; the refusal makes it a failed transaction.
    third.ask("BEGIN").await;
    third.query("SELECT 5").await;
    let answer = third.read_until_ready().await;
    assert_eq!(answer[0].field(b'C').as_deref(), Some("53300"));
    assert_eq!(answer[1].body[0], b'E', "the transaction has failed");
    third.query("SELECT 6").await;
    let answer = third.read_until_ready().await;
    assert_eq!(answer[0].field(b'C').as_deref(), Some("25P02"));
    third.query("COMMIT").await;
    let answer = third.read_until_ready().await;
    assert_eq!((answer[0].tag, &answer[0].body[..]), (b'C', &b"ROLLBACK\0"[..]));
    assert_eq!(answer[1].body[0], b'I');

    holder.ask("COMMIT").await;
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let answer = waiter.read_until_ready().await;
        assert_eq!(answer[1].columns(), [Some(number.to_string())]);
    }
    assert_eq!(third.query_value("SELECT 7").await, "7", "a refused client is still connected");
    third.bind("", "s", &[]).execute("", 0).sync();
    third.flush().await;
    let answer = third.read_until_ready().await;
    assert_eq!(answer[0].field(b'C').as_deref(), Some("26000"), "a refused Parse has prepared nothing");
}

#[tokio::test]
async fn who_has_waited_for_the_timeout_is_refused() {
    let primary = Postgres::start(Role::Primary);
    let (mut proxy, mut holder) = held_pool(&primary, &[("wait_timeout", "30s".into())]).await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 1);
    proxy.reload_to(&config.clone().set("pools.primary", "wait_timeout", "300ms")).await;
    let mut waiter = RawClient::app(proxy.port()).await;
    let before = Instant::now();
    waiter.query("SELECT 1").await;
    let [code, message, hint] = waiter.read_error().await.expect("the waiter is refused");
    let took = before.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(2)).contains(&took), "{took:?}");
    assert_eq!(code, "53300");
    assert!(message.starts_with("pool \"primary\" had no free connection within 0.3 s: 1 of 1"), "{message}");
    assert!(hint.contains("pools.primary.wait_timeout"), "{hint}");
    wait_for_waiting(&proxy, 0.0).await;
    proxy.reload_to(&config.set("pools.primary", "wait_timeout", "30s")).await;
    holder.ask("COMMIT").await;
    assert_eq!(waiter.query_value("SELECT 2").await, "2");
}

#[tokio::test]
async fn waiters_are_served_in_the_order_they_came() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE SEQUENCE turn; GRANT ALL ON SEQUENCE turn TO app").await;
    let (proxy, mut holder) = held_pool(&primary, &[("wait_timeout", "30s".into())]).await;
    let mut waiters = Vec::new();
    for number in 1..=6_u8 {
        let mut waiter = RawClient::app(proxy.port()).await;
        waiter.query("SELECT nextval('turn')").await;
        wait_for_waiting(&proxy, f64::from(number)).await;
        waiters.push(waiter);
    }
    // One in the middle leaves the queue: the others keep their order.
    let (process, secret) = waiters[2].key().clone();
    RawClient::cancel(proxy.port(), process, &secret).await;
    drop(waiters.remove(2));
    wait_for_waiting(&proxy, 5.0).await;
    holder.ask("COMMIT").await;
    for (turn, waiter) in waiters.iter_mut().enumerate() {
        let answer = waiter.read_until_ready().await;
        assert_eq!(answer[1].columns(), [Some((turn + 1).to_string())]);
    }
}
