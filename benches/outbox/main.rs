//! What the way of a job from a commit on the primary to a job database costs, in time and in Bulkhead's CPU.
//!
//! - **steady**: a writer commits a thousand jobs a second, each in a transaction of its own, straight at the primary, and
//!   wakes the relay as another instance would. A worker takes jobs as soon as it sees them, asking every millisecond: what
//!   it measures includes that.
//! - **drain**: many jobs wait on the primary when Bulkhead comes.
//!
//! From the environment: `BENCH_SECONDS` (10), `BENCH_RATE` (1000), `BENCH_ROWS` (100000), and `BULKHEAD_TEST_PROGRAM`, the
//! program to measure.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[path = "../../tests/it/support/mod.rs"]
mod support;

use std::{
    collections::HashMap,
    env, fs,
    process::Command,
    str::FromStr,
    time::{Duration, Instant},
};

use support::{Login, Postgres, Proxy, ProxyConfig, Role, Scratch, connect, eventually, oban};

/// Longer than any part takes.
const LONG: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() {
    let primary = Postgres::start(Role::Primary);
    let jobs = Postgres::start(Role::Jobs);
    oban::install(&primary).await;
    oban::install(&jobs).await;
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.jobs", "url", jobs.url(Login::App))
        .pool("jobs", &["jobs"], 10)
        .set("jobs", "presets", vec!["oban"])
        .set("jobs", "outbox", true);
    init(&config);
    drain(&primary, &jobs, &config).await;
    steady(&primary, &jobs, &config).await;
}

fn from_environment<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `bulkhead jobs init`.
fn init(config: &ProxyConfig) {
    let folder = Scratch::new();
    let file = folder.path().join("bulkhead.toml");
    let text = config.to_toml().replace("{listen}", "127.0.0.1:6432").replace("{http}", "127.0.0.1:9930");
    fs::write(&file, text).expect("a writable folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = command.arg("--config").arg(&file).args(["jobs", "init"]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn cpu(proxy: &Proxy) -> f64 {
    let (user, system) = proxy.cpu_seconds();
    user + system
}

async fn drain(primary: &Postgres, jobs: &Postgres, config: &ProxyConfig) {
    let rows: u64 = from_environment("BENCH_ROWS", 100_000);
    let args = "jsonb_build_object('to', n, 'text', repeat('x', 200))";
    primary
        .query(&format!("INSERT INTO oban_jobs (worker, args) SELECT 'Mailer', {args} FROM generate_series(1, {rows}) AS n"))
        .await;
    let proxy = Proxy::start(&config.to_toml());
    let admin = jobs.admin().await;
    let count = async || {
        let row = admin
            .query_one("SELECT sum(relayed)::int8 FROM bulkhead.outbox", &[])
            .await
            .expect("it is there");
        row.get::<_, i64>(0) as u64
    };
    eventually("the first jobs come", LONG, async || (count().await > 0).then_some(())).await;
    let (began, first, used) = (Instant::now(), count().await, cpu(&proxy));
    eventually("all jobs come", LONG, async || (count().await >= rows).then_some(())).await;
    let (seconds, used) = (began.elapsed().as_secs_f64(), cpu(&proxy) - used);
    let moved = (rows - first) as f64;
    println!(
        "drain: {moved:.0} jobs with 200 bytes of text in {seconds:.1} s: {:.0} jobs/s, {:.1} us of Bulkhead's CPU each",
        moved / seconds,
        used / moved * 1e6
    );
    jobs.query("TRUNCATE oban_jobs").await;
}

async fn steady(primary: &Postgres, jobs: &Postgres, config: &ProxyConfig) {
    let rate: u64 = from_environment("BENCH_RATE", 1000);
    let seconds: u64 = from_environment("BENCH_SECONDS", 10);
    let proxy = Proxy::start(&config.to_toml());
    let locked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    eventually("the relay is there", LONG, async || (jobs.value(locked).await == "1").then_some(())).await;
    let writer = connect(&primary.url(Login::App)).await.expect("the primary is there");
    let caller = connect(&jobs.url(Login::App)).await.expect("the job database is there");
    let worker = connect(&jobs.url(Login::App)).await.expect("the job database is there");
    let total = rate * seconds;
    let used = cpu(&proxy);
    let began = Instant::now();
    let taking = tokio::spawn(async move {
        let take = worker.prepare("DELETE FROM oban_jobs RETURNING id").await.expect("it is valid");
        let mut taken = HashMap::new();
        while (taken.len() as u64) < total {
            let rows = worker.query(&take, &[]).await.expect("the job database answers");
            let now = Instant::now();
            taken.extend(rows.iter().map(|row| (row.get::<_, i64>(0), now)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        taken
    });
    let insert = writer
        .prepare("INSERT INTO oban_jobs (worker, args) VALUES ('Mailer', '{\"to\": 1}') RETURNING id")
        .await
        .expect("it is valid");
    let mut committed = HashMap::new();
    for number in 0..total {
        let due = began + Duration::from_nanos(1_000_000_000 / rate * number);
        tokio::time::sleep_until(due.into()).await;
        let id: i64 = writer.query_one(&insert, &[]).await.expect("the primary answers").get(0);
        committed.insert(id, Instant::now());
        caller.batch_execute("NOTIFY bulkhead_outbox").await.expect("the job database answers");
    }
    let wrote = began.elapsed().as_secs_f64();
    let taken = taking.await.expect("it does not panic");
    let used = cpu(&proxy) - used;
    let mut waits: Vec<f64> = committed
        .iter()
        .map(|(id, at)| taken[id].saturating_duration_since(*at).as_secs_f64() * 1000.0)
        .collect();
    waits.sort_by(f64::total_cmp);
    let quantile = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!(
        "steady: {:.0} jobs/s; from the commit on the primary until a worker has it: p50 {:.1}, p95 {:.1}, p99 {:.1}, max \
         {:.1} ms; {:.1} us of Bulkhead's CPU each",
        total as f64 / wrote,
        quantile(0.5),
        quantile(0.95),
        quantile(0.99),
        quantile(1.0),
        used / total as f64 * 1e6
    );
}
