//! Users beside workers: 16 clients with 1,000 short queries a second, alone and beside 60 workers that hold
//! transactions as jobs do, all on one URL and one server. PgBouncer has one pool of 20; Bulkhead has 10 for the users
//! and 10 for the jobs.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Plan,
    contender::{Contender, Kind, plain_config},
    cpu::bench_server,
    support::{Postgres, Scratch, oban, programs},
};

const WORKERS: usize = 60;
const WORK: Duration = Duration::from_millis(150);
const JOBS: u32 = 20_000;

pub(crate) fn run(plan: &Plan) {
    let seconds = plan.seconds * 4;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let server = bench_server();
    runtime.block_on(async {
        oban::install(&server).await;
        server.query("GRANT ALL ON oban_jobs TO app_trust").await;
    });
    println!(
        "\nUsers (16 clients, 1,000 queries/s, {seconds} s) alone and beside {WORKERS} workers: p50/p95/p99 in ms"
    );
    println!("| | alone | beside | jobs/s | failed jobs |");
    println!("|---|---|---|---|---|");
    for kind in &plan.contenders {
        let contender = start(*kind, &server);
        let name = contender.name();
        if !contender.knows_prepared() {
            println!("| {name} | too old: no prepared statements in transaction pooling | | | |");
            continue;
        }
        users(&contender, 1);
        let alone = users(&contender, seconds);
        let (load, before) = runtime.block_on(async {
            server.query("TRUNCATE oban_jobs").await;
            oban::enqueue(&server, JOBS).await;
            server.query("VACUUM ANALYZE oban_jobs").await;
            let load = oban::Load::start(&contender.url(), WORKERS, WORK).await;
            // Once every worker has had a turn.
            tokio::time::sleep(WORK * 2).await;
            let before = load.completed();
            (load, before)
        });
        let url = contender.url();
        let (beside, rate, report) = runtime.block_on(async {
            let start = Instant::now();
            let beside =
                tokio::task::spawn_blocking(move || users_at(&url, seconds)).await.expect("pgbench runs");
            let rate = (load.completed() - before) as f64 / start.elapsed().as_secs_f64();
            (beside, rate, load.stop().await)
        });
        println!("| {name} | {alone} | {beside} | {rate:.0} | {} |", report.errors);
    }
}

fn start(kind: Kind, server: &Postgres) -> Contender {
    match kind {
        Kind::Bulkhead => Contender::bulkhead(
            &plain_config(server)
                .pool("jobs", &["primary"], 10)
                .set("pools.jobs", "wait_timeout", "60s")
                .set("jobs", "presets", vec!["oban"]),
        ),
        Kind::Direct | Kind::PgBouncer => kind.start(server, 20),
    }
}

fn users(contender: &Contender, seconds: u64) -> String {
    users_at(&contender.url(), seconds)
}

/// `p50/p95/p99` of the users' latency, counted from when each query was due.
fn users_at(url: &str, seconds: u64) -> String {
    let folder = Scratch::new();
    let output = Command::new(programs().path("pgbench"))
        .args(["--select-only", "--no-vacuum", "--client=16", "--jobs=1", "--rate=1000", "--log"])
        .arg(format!("--time={seconds}"))
        .arg(format!("--log-prefix={}", folder.path().join("log").display()))
        .arg(url)
        .output()
        .expect("pgbench runs");
    assert!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder.path()).expect("the folder is there").flatten() {
        let text = fs::read_to_string(entry.path()).expect("pgbench has written a log");
        // client, transaction, microseconds, ...
        let of_line =
            |line: &str| line.split_whitespace().nth(2).and_then(|number| number.parse::<f64>().ok());
        latencies.extend(text.lines().filter_map(of_line));
    }
    latencies.sort_by(f64::total_cmp);
    assert!(!latencies.is_empty(), "pgbench finished no query");
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] / 1000.0;
    format!("{:.2}/{:.2}/{:.2}", percentile(0.5), percentile(0.95), percentile(0.99))
}
