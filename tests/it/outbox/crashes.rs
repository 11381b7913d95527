//! `kill -9` of Bulkhead, of the primary, and of the job database, again and again while jobs are written, run and
//! deleted. In the end every job whose commit was confirmed has come once, and none that was undone.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{LONG, Yard};
use crate::support::{Login, Proxy, Random, connect, eventually};

/// What became of the transaction that wrote a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Undone,
    /// The answer to COMMIT was lost.
    Unknown,
}

/// Clients of both servers that go on whatever happens to these.
struct Load {
    stop: Arc<AtomicBool>,
    fates: Arc<Mutex<BTreeMap<String, Fate>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(yard: &Yard) -> Self {
        let (stop, fates) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let mut tasks: Vec<_> = (0..3)
            .map(|writer| {
                let (stop, fates) = (Arc::clone(&stop), Arc::clone(&fates));
                tokio::spawn(write(yard.primary.url(Login::App), yard.library.add, writer, stop, fates))
            })
            .collect();
        tasks.push(tokio::spawn(consume(yard.jobs.url(Login::App), yard.library.table, Arc::clone(&stop))));
        Self { stop, fates, tasks }
    }

    fn written(&self) -> usize {
        self.fates.lock().expect("no panic while held").len()
    }

    async fn end(self) -> BTreeMap<String, Fate> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("it does not panic");
        }
        std::mem::take(&mut *self.fates.lock().expect("no panic while held"))
    }
}

/// Writes jobs, a few in a transaction, of which every third is undone.
async fn write(
    url: String,
    sql: &str,
    writer: usize,
    stop: Arc<AtomicBool>,
    fates: Arc<Mutex<BTreeMap<String, Fate>>>,
) {
    let mut number = 0_usize;
    while !stop.load(Ordering::SeqCst) {
        let Ok(client) = connect(&url).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            let workers: Vec<String> = (0..3).map(|n| format!("{writer}/{number}/{n}")).collect();
            let wrote =
                client.batch_execute("BEGIN").await.is_ok() && client.execute(sql, &[&workers]).await.is_ok();
            let fate = if !wrote {
                Fate::Undone
            } else if number.is_multiple_of(3) {
                client.batch_execute("ROLLBACK").await.ok();
                Fate::Undone
            } else if client.batch_execute("COMMIT").await.is_ok() {
                Fate::Committed
            } else {
                Fate::Unknown
            };
            let written = workers.into_iter().map(|worker| (worker, fate));
            fates.lock().expect("no panic while held").extend(written);
            if client.is_closed() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Runs jobs, which is to delete them.
async fn consume(url: String, table: &str, stop: Arc<AtomicBool>) {
    let delete = format!("DELETE FROM {table}");
    while !stop.load(Ordering::SeqCst) {
        if let Ok(client) = connect(&url).await {
            while !stop.load(Ordering::SeqCst) && client.batch_execute(&delete).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Bulkhead,
    Primary,
    Jobs,
}

fn kill(victim: Victim, yard: &Yard, proxy: &mut Proxy) {
    match victim {
        Victim::Bulkhead => {
            proxy.kill();
            proxy.boot();
        }
        Victim::Primary => {
            yard.primary.kill();
            yard.primary.boot();
        }
        Victim::Jobs => {
            yard.jobs.kill();
            yard.jobs.boot();
        }
    }
}

async fn survive(victim: Victim, yard: Yard) {
    let mut proxy = yard.bulkhead(&yard.config().set("jobs", "outbox_batch", 20)).await;
    let load = Load::start(&yard);
    let mut random = Random::new(victim as u64);
    for round in 0..8 {
        let before = load.written();
        eventually("the load goes on", LONG, async || (load.written() > before + 60).then_some(())).await;
        let arrived = yard.arrivals().await.len();
        eventually("jobs come", LONG, async || (yard.arrivals().await.len() > arrived).then_some(())).await;
        tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
        kill(victim, &yard, &mut proxy);
        assert!(proxy.is_running(), "round {round}");
    }
    let fates = load.end().await;
    yard.wait_for_leader().await;
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    for (worker, fate) in &fates {
        let count = arrivals.get(worker).copied().unwrap_or(0);
        let is_right = match fate {
            Fate::Committed => count == 1,
            Fate::Undone => count == 0,
            Fate::Unknown => count <= 1,
        };
        assert!(is_right, "{worker}, {fate:?}, came {count} times");
    }
    assert!(arrivals.keys().all(|worker| fates.contains_key(worker)));
    let committed = fates.values().filter(|fate| **fate == Fate::Committed).count();
    assert!(committed > 300, "{committed} jobs are too few to tell");
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
}

#[tokio::test]
async fn jobs_come_once_though_bulkhead_is_killed() {
    survive(Victim::Bulkhead, Yard::start().await).await;
}

#[tokio::test]
async fn jobs_come_once_though_the_primary_is_killed() {
    survive(Victim::Primary, Yard::start().await).await;
}

#[tokio::test]
async fn jobs_come_once_though_the_job_database_is_killed() {
    survive(Victim::Jobs, Yard::start().await).await;
}

#[tokio::test]
async fn jobs_that_name_others_come_once_though_the_job_database_is_killed() {
    survive(Victim::Jobs, Yard::of_graphile().await).await;
}

#[tokio::test]
async fn jobs_that_name_others_come_once_though_bulkhead_is_killed() {
    survive(Victim::Bulkhead, Yard::of_graphile().await).await;
}

/// Calls with a key, which the relay makes in the job database.
#[tokio::test]
async fn calls_are_made_once_though_bulkhead_is_killed() {
    survive(Victim::Bulkhead, Yard::of_keys().await).await;
}

#[tokio::test]
async fn calls_are_made_once_though_the_primary_is_killed() {
    survive(Victim::Primary, Yard::of_keys().await).await;
}

#[tokio::test]
async fn calls_are_made_once_though_the_job_database_is_killed() {
    survive(Victim::Jobs, Yard::of_keys().await).await;
}
