//! An application that enqueues jobs, alone and in its own transactions, and workers that run them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_postgres::{Client, Error};

use super::{LONG, Scene};
use crate::support::{connect, eventually, oban};

/// What became of a job that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    Undone,
    /// The answer was lost.
    Unknown,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    fates: Mutex<BTreeMap<String, Fate>>,
    errors: Mutex<Vec<String>>,
}

/// Everybody who uses the job tables.
pub(super) struct Load {
    shared: Arc<Shared>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    workers: oban::Load,
}

impl Load {
    /// All of it goes through this URL.
    pub(super) async fn start(url: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = oban::Load::start(url, 4, Duration::from_millis(3)).await;
        let writers =
            (0..4).map(|writer| tokio::spawn(write(url.to_owned(), writer, Arc::clone(&shared)))).collect();
        Self { shared, writers, workers }
    }

    /// Waits until so many more jobs have been written, and as many run.
    pub(super) async fn goes_on(&self, count: usize) {
        let written = || self.shared.fates.lock().expect("no panic while held").len();
        let (before, completed) = (written(), self.workers.completed());
        eventually("jobs are written and run", LONG, async || {
            let is_on = written() > before + count && self.workers.completed() > completed + count as u64;
            is_on.then_some(())
        })
        .await;
    }

    /// Lets everybody finish, has all jobs run, and checks that each was, once. What has failed, in words.
    pub(super) async fn end(self, scene: &Scene) -> Vec<String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for writer in self.writers {
            writer.await.expect("it does not panic");
        }
        let fates = std::mem::take(&mut *self.shared.fates.lock().expect("no panic while held"));
        let open = "SELECT count(*) FROM oban_jobs WHERE state <> 'completed'";
        eventually("all jobs are run", LONG, async || {
            let left = [scene.primary.value(open).await, scene.jobs.value(open).await];
            (left == ["0", "0"]).then_some(())
        })
        .await;
        let report = self.workers.stop().await;
        let mut runs: BTreeMap<String, u64> = BTreeMap::new();
        for server in [&scene.primary, &scene.jobs] {
            for row in server.query("SELECT worker FROM runs").await {
                *runs.entry(row[0].clone().expect("it is not null")).or_default() += 1;
            }
        }
        let mut rows: BTreeMap<String, u64> = BTreeMap::new();
        for server in [&scene.primary, &scene.jobs] {
            for row in server.query("SELECT worker FROM oban_jobs").await {
                *rows.entry(row[0].clone().expect("it is not null")).or_default() += 1;
            }
        }
        for (worker, fate) in &fates {
            for (what, counts) in [("run", &runs), ("there", &rows)] {
                let count = counts.get(worker).copied().unwrap_or(0);
                let is_right = match fate {
                    Fate::Committed => count == 1,
                    Fate::Undone => count == 0,
                    Fate::Unknown => count <= 1,
                };
                assert!(is_right, "{worker}, {fate:?}, is {what} {count} times");
            }
        }
        let committed = fates.values().filter(|fate| **fate == Fate::Committed).count();
        assert!(committed > 100, "{committed} jobs are too few to tell");
        let mut errors = std::mem::take(&mut *self.shared.errors.lock().expect("no panic while held"));
        errors.extend((0..report.errors).map(|_| "a worker's statement failed".to_owned()));
        errors
    }
}

async fn write(url: String, writer: usize, shared: Arc<Shared>) {
    let mut number = 0_usize;
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(client) = connect(&url).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while !shared.stop.load(Ordering::SeqCst) && !client.is_closed() {
            number += 1;
            let name = format!("{writer}/{number}");
            let (fate, error) = match number % 3 {
                0 => alone(&client, &name).await,
                kind => in_transaction(&client, &name, kind == 1).await,
            };
            shared.fates.lock().expect("no panic while held").insert(name, fate);
            if let Some(error) = error {
                let told = error.as_db_error().map_or_else(
                    || error.to_string(),
                    |error| format!("{} {}", error.code().code(), error.message()),
                );
                shared.errors.lock().expect("no panic while held").push(told);
            }
            tokio::time::sleep(Duration::from_millis(8)).await;
        }
    }
}

const INSERT: &str = "INSERT INTO oban_jobs (worker) VALUES ($1)";

async fn alone(client: &Client, name: &str) -> (Fate, Option<Error>) {
    match client.execute(INSERT, &[&name]).await {
        Ok(_) => (Fate::Committed, None),
        Err(error) if error.as_db_error().is_some() => (Fate::Undone, Some(error)),
        Err(error) => (Fate::Unknown, Some(error)),
    }
}

/// The application's own row, and a job, in one transaction.
async fn in_transaction(client: &Client, name: &str, commits: bool) -> (Fate, Option<Error>) {
    let wrote = async {
        client.batch_execute("BEGIN").await?;
        client.execute("INSERT INTO orders VALUES ($1)", &[&name]).await?;
        client.execute(INSERT, &[&name]).await
    };
    if let Err(error) = wrote.await {
        client.batch_execute("ROLLBACK").await.ok();
        return (Fate::Undone, Some(error));
    }
    if !commits {
        let undone = client.batch_execute("ROLLBACK").await;
        return (Fate::Undone, undone.err());
    }
    match client.batch_execute("COMMIT").await {
        Ok(()) => (Fate::Committed, None),
        Err(error) => (Fate::Unknown, Some(error)),
    }
}
