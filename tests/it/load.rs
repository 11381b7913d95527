//! What a scrape costs with thousands of clients, and that others do not feel it.
//!
//! The figures are printed. `BULKHEAD_TEST_PROGRAM` names an optimized program: then they are held to what is promised of
//! it, otherwise to what an unoptimized one does on a busy machine.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, http_get};

/// Idle clients.
const CLIENTS: usize = 5_000;

/// What a scrape may take, of an optimized program.
const PROMISED: Duration = Duration::from_millis(5);

/// How much longer an unoptimized one may take.
const UNOPTIMIZED: u32 = 10;

/// Scrapes that are timed.
const SCRAPES: usize = 40;

/// How long each load is measured, and how often: others on the machine disturb the one or the other.
const MEASURED: Duration = Duration::from_secs(1);
const ROUNDS: usize = 4;

/// Lets this process have a descriptor for each client, and some more.
fn raise_descriptors() {
    let wanted = CLIENTS as u64 + 1_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("ulimit -H -n is at least 6000");
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// CPU time that the proxy has used.
fn cpu_of(proxy: &Proxy) -> Duration {
    let (user, system) = proxy.cpu_seconds();
    Duration::from_secs_f64(user + system)
}

/// How long scrapes take, sorted, and the bytes of the last.
async fn scrapes(proxy: &Proxy) -> (Vec<Duration>, usize) {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..SCRAPES {
        let since = Instant::now();
        let (status, text) = http_get(proxy.http_port(), "/metrics").await.expect("it answers");
        times.push(since.elapsed());
        assert_eq!(status, 200);
        bytes = text.len();
    }
    times.sort();
    (times, bytes)
}

/// How long statements of a few clients take, sorted, each with a pause in between.
async fn statements(proxy: &Proxy) -> Vec<Duration> {
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let mut client = RawClient::app(proxy.port()).await;
        let is_over = Arc::clone(&is_over);
        clients.spawn(async move {
            let mut times = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let since = Instant::now();
                client.ask("SELECT 1").await;
                times.push(since.elapsed());
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            times
        });
    }
    tokio::time::sleep(MEASURED).await;
    is_over.store(true, Ordering::Relaxed);
    let mut times = clients.join_all().await.concat();
    times.sort();
    times
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_with_thousands_of_clients_is_cheap() {
    raise_descriptors();
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("auth", "method", "trust");
    let mut proxy = Proxy::start(&config.to_toml());
    let (few, _) = scrapes(&proxy).await;
    let mut idle = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        idle.push(RawClient::app(proxy.port()).await);
    }
    proxy.wait_for_metric("bulkhead_clients", CLIENTS as f64).await;
    let (plain, bytes) = scrapes(&proxy).await;
    proxy.reload_to(&config.set("metrics", "pgbouncer_names", true)).await;
    let before = cpu_of(&proxy);
    let (with_names, more_bytes) = scrapes(&proxy).await;
    let cpu = cpu_of(&proxy).saturating_sub(before);
    for (what, times) in
        [("0 clients", &few), ("5000 clients", &plain), ("5000 clients, pgbouncer_names", &with_names)]
    {
        println!("scrape, {what}: p50 {:?}, max {:?}", at(times, 0.5), at(times, 1.0));
    }
    println!("{bytes} bytes, {more_bytes} with pgbouncer_names");
    println!("CPU of a scrape with pgbouncer_names: {:?}", cpu / SCRAPES as u32);
    let is_optimized = env::var_os("BULKHEAD_TEST_PROGRAM").is_some();
    let bound = if is_optimized { PROMISED } else { PROMISED * UNOPTIMIZED };
    assert!(at(&plain, 0.5) <= bound, "{:?}, more than {bound:?}", at(&plain, 0.5));
    // With these names every client is looked at.
    let bound = PROMISED * UNOPTIMIZED;
    assert!(at(&with_names, 0.5) <= bound, "{:?}, more than {bound:?}", at(&with_names, 0.5));

    // Ten scrapes a second, a hundred times what is usual, beside a load; the quietest round of each counts.
    let [mut alone, mut beside] = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        alone = alone.min(told("alone", &statements(&proxy).await));
        let scraping = Scraping::start(proxy.http_port());
        beside = beside.min(told("beside scrapes", &statements(&proxy).await));
        scraping.stop().await;
    }
    assert!(beside <= alone * 2 + Duration::from_millis(5), "p99 {alone:?}, {beside:?} beside scrapes");
}

/// Prints how long statements took; the 99th percentile.
#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn told(what: &str, times: &[Duration]) -> Duration {
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| at(times, share));
    println!("{} statements {what}: p50 {p50:?}, p95 {p95:?}, p99 {p99:?}", times.len());
    p99
}

/// Ten scrapes a second.
struct Scraping {
    is_over: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<u32>,
}

impl Scraping {
    fn start(port: u16) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let task = tokio::spawn(async move {
            let mut count = 0;
            while !ends.load(Ordering::Relaxed) {
                http_get(port, "/metrics").await.expect("it answers");
                count += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            count
        });
        Self { is_over, task }
    }

    async fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let count = self.task.await.expect("it does not panic");
        assert!(count >= 2, "{count} scrapes");
    }
}
