//! A drill: every fault that is known is brought about on real servers while clients of every kind are at work. What
//! each was told is compared with the rows that are there afterwards, straight at the server: nothing that was
//! acknowledged is lost, nothing is there twice, nothing is there that was said not to be, and nobody waits for longer
//! than the configuration says.
//!
//! | file | holds |
//! |---|---|
//! | `faults/` | the faults: what happens, what each kind of client may see, the bound of its wait |
//! | `stage.rs` | the servers, relays and the proxy that they happen to |
//! | `load.rs`, `units.rs`, `session.rs` | the clients, what each kind does, how it hears |
//! | `ledger.rs` | what they were told, compared with what is there |
//! | `table.rs` | all of it as the table in README.md |
//!
//! The tests of `make test` bring each fault about once, with one client of each kind. `make drill` does so many times,
//! at random moments, with three of each: `BULKHEAD_DRILL_ROUNDS` says how often, `BULKHEAD_DRILL_ONLY` names a part of
//! the names of the faults to take, `BULKHEAD_DRILL_SEED` other moments. After the faults of the table come as many rounds of
//! [`ENQUEUE`], which is not a line of it: its clients write jobs.

mod faults;
mod ledger;
mod load;
mod session;
mod stage;
mod table;
mod units;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use faults::{Fault, GROUPS, Group};
use load::{Report, Seen};
use stage::{Shape, Stage};
use table::Row;

use crate::outbox::exactly_once;

/// The name of the drill that is not about faults, but about jobs of transactions ([`exactly_once`]).
const ENQUEUE: &str = "enqueue";

/// Jobs of each way of enqueuing in a round of that.
const ENQUEUED: u64 = 1000;

/// Within which every client has success again.
const RECOVERY: Duration = Duration::from_secs(15);

/// What a machine that is busy with other tests adds to any wait.
const MACHINE: Duration = Duration::from_secs(1);

/// Within so many milliseconds a fault of a long drill begins.
const MOMENT_MS: u64 = 60;

/// How much of a drill: the short one of `make test`, or the long one.
#[derive(Clone, Copy, Debug)]
struct Extent {
    rounds: u64,
    /// Clients of each kind.
    each: usize,
    seed: u64,
}

const SHORT: Extent = Extent { rounds: 1, each: 1, seed: 0 };

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Brings about all faults of a group that `wanted` takes; a row for each.
async fn drill(group: &Group, extent: Extent, wanted: impl Fn(&Fault) -> bool) -> Vec<Row> {
    let mut stage = None;
    let mut rows = Vec::new();
    for fault in group.faults.iter().filter(|fault| wanted(fault)) {
        let mut row = Row::new(fault);
        for round in 0..extent.rounds {
            let seed = extent.seed + round;
            let mut ready = match stage.take() {
                Some(stage) => stage,
                None => Stage::start(group.shape, extent.each, seed).await,
            };
            let run = format!("r{round}");
            let report = bring_about(&mut ready, fault, &run, extent).await;
            row.add(fault, &judge(&ready, fault, report).await);
            // What was promoted stays so.
            if group.shape == Shape::Replicated {
                stage = Some(ready);
            }
        }
        tell(&row.progress());
        rows.push(row);
    }
    rows
}

/// What one fault came to.
struct Finding {
    verdict: ledger::Verdict,
    seen: Seen,
    /// With whose it was, and for what.
    longest: (Duration, String),
    /// With the name of the last client that had to recover.
    recovery: (Duration, String),
    /// What must not be, in words.
    wrong: Vec<String>,
}

async fn bring_about(stage: &mut Stage, fault: &Fault, run: &str, extent: Extent) -> Report {
    let run = format!("{}-{run}", fault.key());
    stage.begin(run, extent.each).await;
    if extent.rounds > 1 {
        tokio::time::sleep(stage.random.pause(MOMENT_MS)).await;
    }
    (fault.bring)(stage).await;
    stage.take_load().finish(RECOVERY).await
}

async fn judge(stage: &Stage, fault: &Fault, report: Report) -> Finding {
    // A server takes longer than we do to find out that the other end has vanished.
    for pid in &stage.stranded {
        stage.primary().end_app_backends(&format!("pid = {pid}")).await;
    }
    // What clients had sent whole before their end runs to its own.
    for server in [stage.primary(), &stage.cluster.jobs] {
        server.wait_for_app_backends("state <> 'idle'", 0).await;
    }
    let tables = [(stage.primary(), "drill_all"), (&stage.cluster.jobs, "drill_jobs")];
    let verdict = report.ledger.compare(&report.run, &tables).await;
    let mut wrong = report.wrong;
    if verdict.lost + verdict.doubled > 0 {
        wrong.push(format!("{} lost, {} doubled:\n{}", verdict.lost, verdict.doubled, verdict.words));
    }
    let (longest, whose) = &report.longest;
    if *longest > fault.bound.within() + MACHINE {
        wrong.push(format!("waited {longest:?} for `{whose}`, more than {}", fault.bound.name()));
    }
    wrong.extend(fault.unexpected(&report.seen));
    Finding { verdict, seen: report.seen, longest: report.longest, recovery: report.recovery, wrong }
}

#[expect(clippy::print_stderr, reason = "a long drill is followed as it goes")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Every fault of a group once.
async fn once(group: &Group) {
    let rows = drill(group, SHORT, |_| true).await;
    let wrong: Vec<&str> = rows.iter().flat_map(|row| row.wrong.iter().map(String::as_str)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_connections_are_lost() {
    once(&faults::BACKENDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_ended_by_the_server() {
    once(&faults::STATEMENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_stop_and_start() {
    once(&faults::SERVERS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_takes_over() {
    once(&faults::PROMOTIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_misbehave() {
    once(&faults::NETWORKS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_misbehave() {
    once(&faults::CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_are_reached_and_logins_refused() {
    once(&faults::BOUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_change_things() {
    once(&faults::OPERATORS).await;
}

/// All faults, many times.
#[test]
#[ignore = "it takes long; `make drill` runs it"]
fn long() {
    let extent = Extent {
        rounds: number("BULKHEAD_DRILL_ROUNDS").unwrap_or(20),
        each: 3,
        seed: number("BULKHEAD_DRILL_SEED").unwrap_or(1),
    };
    let only = env::var("BULKHEAD_DRILL_ONLY").unwrap_or_default();
    let next = AtomicUsize::new(0);
    let made: Vec<Mutex<Vec<Row>>> = GROUPS.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((group, rows)) = {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    GROUPS.get(number).zip(made.get(number))
                } {
                    let runtime =
                        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                    let runtime = runtime.expect("a runtime starts");
                    let drilled = drill(group, extent, |fault| fault.name.contains(&only));
                    *rows.lock().expect("nobody panics") = runtime.block_on(drilled);
                }
            });
        }
    });
    let rows: Vec<Row> =
        made.into_iter().flat_map(|rows| rows.into_inner().expect("nobody panics")).collect();
    let is_enqueue = ENQUEUE.contains(&only);
    assert!(!rows.is_empty() || is_enqueue, "no fault has `{only}` in its name");
    if !rows.is_empty() {
        table::print(&rows, extent.rounds);
    }
    let wrong: Vec<&str> = rows.iter().flat_map(|row| row.wrong.iter().map(String::as_str)).collect();
    assert!(wrong.is_empty(), "{} faults of Bulkhead:\n{}", wrong.len(), wrong.join("\n"));
    if is_enqueue {
        enqueue(extent);
    }
}

/// Jobs of transactions, with Bulkhead and both servers killed at every point of the relay.
fn enqueue(Extent { rounds, seed, .. }: Extent) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let say = |round: u64| {
        if round.is_multiple_of(10) {
            tell(&format!("{ENQUEUE}: {round} of {rounds} rounds"));
        }
    };
    let drilled = exactly_once::drill(exactly_once::Extent { rounds, jobs: ENQUEUED, seed }, say);
    let verdict = runtime.expect("a runtime starts").block_on(drilled);
    tell(&format!("{ENQUEUE}, {rounds} rounds:\n{verdict}"));
    assert!(verdict.wrong.is_empty(), "faults of Bulkhead:\n{}", verdict.wrong.join("\n"));
}
