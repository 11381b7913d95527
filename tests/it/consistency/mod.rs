//! What reads of replicas promise, checked from outside: clients write in every form there is and read in every form,
//! while replicas fall behind, stop and crash. Of each read it is known what it must find at least, before it is sent.
//!
//! | file | holds |
//! |---|---|
//! | `forms.rs`, `hidden.rs`, `reads.rs` | the forms of writes and of reads |
//! | `world.rs` | the servers, and what happens to replicas |
//! | `session.rs`, `load.rs` | the clients |
//! | `definitions.rs` | what lies between statements and tables |
//! | `servers.rs` | servers that come back as others than they were |
//! | `ledger.rs` | what was acknowledged and seen |
//! | `share.rs` | how many reads stay on a replica that is behind |
//! | `traps.rs` | each form by itself, with replicas that stand still |
//! | `moments.rs`, `ways.rs` | the same at certain moments, and for whoever comes another way |
//!
//! | promise | no read finds less than |
//! |---|---|
//! | `tables` | what any client of this Bulkhead was told before to be done |
//! | `strong` | the same, and what was written past Bulkhead |
//! | `session` | what its own session has written and seen |
//! | `eventual` | nothing: it shows that faults are found |
//!
//! And in all but the last no session goes back. The tests of `make test` take ten seconds for each promise.
//! `make check-consistency` reads as often as `BULKHEAD_CHECK_READS` says, with other moments for another
//! `BULKHEAD_CHECK_SEED`.

mod definitions;
mod forms;
mod hidden;
mod ledger;
mod load;
mod moments;
mod reads;
mod servers;
mod session;
mod share;
mod traps;
mod ways;
mod world;

use std::time::Duration;

use crate::support::{Certificates, Postgres, Role};
use load::Report;
use world::{Mode, World, number};

/// How long a test of `make test` takes.
const SHORT: Duration = Duration::from_secs(10);

/// A long one ends by itself.
const LONG: Duration = Duration::from_secs(3600);

/// At least one of so many reads is answered by a replica, or the promise would be kept by not using them.
const SHARE: u64 = 10;

async fn short(mode: Mode) -> Report {
    run_short(&World::start(mode, load::WRITERS).await, mode).await
}

async fn run_short(world: &World, mode: Mode) -> Report {
    let report = load::run(world, mode, u64::MAX, SHORT, 1).await;
    tell(&format!("{}\n{}", report.row(mode), report.counted));
    report
}

#[expect(clippy::print_stderr, reason = "the figures are of interest when it fails, and in a long run")]
fn tell(text: &str) {
    eprintln!("{text}");
}

impl Report {
    /// Nothing was wrong, and replicas were used.
    fn check(&self, mode: Mode) {
        let wrong = self.stale + self.backward + self.invented;
        let (row, told) = (self.row(mode), self.told.join("\n"));
        assert_eq!(wrong, 0, "{row}\n{told}");
        assert!(self.on_replicas * SHARE >= self.reads, "replicas are hardly used: {row}\n{}", self.counted);
        self.check_work(mode);
    }

    /// Enough was done for this to say something.
    fn check_work(&self, mode: Mode) {
        let row = self.row(mode);
        let failed: u64 = self.failed.values().map(|(count, _)| count).sum();
        assert!(self.reads >= 1_000 && self.writes >= 100, "{row}");
        assert!(failed * 20 <= self.reads + self.writes, "{row}");
    }

    fn row(&self, mode: Mode) -> String {
        let per_second = self.reads as f64 / self.took.as_secs_f64().max(0.001);
        let share = 100.0 * self.on_replicas as f64 / self.reads.max(1) as f64;
        let failed: Vec<String> =
            self.failed.iter().map(|(code, (count, one))| format!("{count} x {code} ({one:.90})")).collect();
        format!(
            "{mode:8} {:>9} reads, {share:4.1} % on replicas, {:>7} writes in {} forms, {} stale, {} backward, \
             {} invented, {per_second:.0} reads/s; failed: {}",
            self.reads,
            self.writes,
            self.forms.len(),
            self.stale,
            self.backward,
            self.invented,
            failed.join(", ")
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_shows_what_every_client_was_told_to_be_done() {
    short(Mode::Tables).await.check(Mode::Tables);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_never_goes_back() {
    short(Mode::Session).await.check(Mode::Session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_shows_what_was_written_past_it_too() {
    short(Mode::Strong).await.check(Mode::Strong);
}

/// Positions and sessions are on several threads, and there are more replicas for a session to go between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_are_kept_on_two_threads_with_four_replicas_over_tls() {
    let certificates = Certificates::new();
    let primary = Postgres::builder(Role::Primary).setting("max_prepared_transactions", 20);
    let primary = primary.tls(&certificates).start();
    let world =
        World::of(primary, 4, load::WRITERS, "?sslmode=require", |config| config.set("listen", "threads", 2))
            .await;
    run_short(&world, Mode::Tables).await.check(Mode::Tables);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_finds_faults_in_eventual() {
    let report = short(Mode::Eventual).await;
    let row = report.row(Mode::Eventual);
    assert!(report.stale > 0 && report.backward > 0, "{row}");
    assert_eq!(report.invented, 0, "{row}");
    report.check_work(Mode::Eventual);
}

/// All promises, with many reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes long; `make check-consistency` runs it"]
async fn long() {
    let reads = number("BULKHEAD_CHECK_READS").unwrap_or(1_000_000);
    let seed = number("BULKHEAD_CHECK_SEED").unwrap_or(1);
    let mut reports = Vec::new();
    for mode in [Mode::Tables, Mode::Session, Mode::Strong, Mode::Eventual] {
        let world = World::start(mode, load::WRITERS).await;
        let report = load::run(&world, mode, reads, LONG, seed).await;
        tell(&format!("{}\n{}", report.row(mode), report.told.join("\n")));
        reports.push((mode, report));
    }
    print(&reports);
    for (mode, report) in reports.iter().filter(|(mode, _)| *mode != Mode::Eventual) {
        report.check(*mode);
    }
}

#[expect(clippy::print_stdout, reason = "it is what the run is for")]
fn print(reports: &[(Mode, Report)]) {
    println!(
        "\n| consistency | reads | on replicas | writes | stale | backward | reads/s |\n|---|---|---|---|---|---|---|"
    );
    for (mode, report) in reports {
        let Report { reads, writes, stale, backward, .. } = report;
        let share = 100 * report.on_replicas / (*reads).max(1);
        let per_second = *reads as f64 / report.took.as_secs_f64().max(0.001);
        println!("| `{mode}` | {reads} | {share} % | {writes} | {stale} | {backward} | {per_second:.0} |");
    }
}
