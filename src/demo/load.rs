//! The load: users at a bounded rate, and workers that take jobs as fast as they can.
//!
//! Knows nothing of pools: it has one URL, as an application has.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime,
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{
    Failure,
    machines::{Machine, Machines},
    postgres::driven,
    schema,
};

/// Clients of users.
pub(super) const USERS: u32 = 16;
/// Queries a second, of all users together.
pub(super) const RATE: u32 = 1000;
/// Of so many queries of a user, one writes.
pub(super) const WRITE_EVERY: u32 = 5;
/// Background workers, each with a connection of its own, as job libraries have them.
pub(super) const WORKERS: u32 = 60;
/// How long a job takes, within its transaction.
pub(super) const JOB: Duration = Duration::from_millis(150);
/// Jobs for each second of a phase: all workers together cannot do more.
pub(super) const JOBS_PER_SECOND: u64 = (WORKERS as u64) * 1000 / JOB.as_millis() as u64;
/// A client that has met an error, or a worker without a job, rests before it goes on.
const REST: Duration = Duration::from_millis(20);
/// Queries of each user before it counts, so that nobody measures logins.
const WARM_UP: u32 = 5;

/// What a load has done so far; shared by all its clients.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of each answered query, in microseconds. Bounded by rate and time of a phase.
    latencies: Mutex<Vec<u32>>,
    errors: AtomicU64,
    jobs: AtomicU64,
    job_errors: AtomicU64,
    /// Clients that have connected and, if users, warmed up.
    pub(super) ready: AtomicU64,
}

/// What has been counted at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) queries: u64,
    pub(super) errors: u64,
    pub(super) jobs: u64,
    pub(super) job_errors: u64,
}

impl Tally {
    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (errors, jobs, job_errors) = (read(&self.errors), read(&self.jobs), read(&self.job_errors));
        let queries = self.latencies.lock().expect("no panic while held").len() as u64;
        Counts { queries, errors, jobs, job_errors }
    }

    /// All latencies so far, in microseconds.
    pub(super) fn latencies(&self) -> Vec<u32> {
        self.latencies.lock().expect("no panic while held").clone()
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Users that warm up, wait for `start` to be sent, and then ask until they are dropped.
pub(super) fn users(url: &str, tally: &Arc<Tally>, start: &watch::Receiver<Option<Instant>>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..USERS {
        let (url, tally, mut start) = (url.to_owned(), Arc::clone(tally), start.clone());
        tasks.spawn(async move {
            let mut user = User { number, asked: 0, start: None };
            // Each round is one connection; a lost one is an error, and replaced.
            loop {
                if connected(&url, "web", async |client| user.ask(client, &tally, &mut start).await)
                    .await
                    .is_err()
                {
                    Tally::count(&tally.errors);
                }
                sleep(REST).await;
            }
        });
    }
    tasks
}

/// Workers, on their machine, until they are dropped.
pub(super) struct Workers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Workers {
    /// On a thread of their own: users do not wait for it.
    pub(super) fn start(url: &str, tally: &Arc<Tally>, machines: &Machines) -> Result<Self, Failure> {
        let (stop, stopped) = oneshot::channel();
        let (url, tally, machines) = (url.to_owned(), Arc::clone(tally), machines.clone());
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let _there = machines.enter(Machine::Workers);
            runtime.block_on(async {
                let _working = workers(&url, &tally);
                // An error is as good: who would stop them is gone.
                stopped.await.ok();
            });
        };
        let thread = thread::Builder::new().name("workers".to_owned()).spawn(work)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Workers that take and complete jobs until they are dropped.
fn workers(url: &str, tally: &Arc<Tally>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for number in 0..WORKERS {
        let (url, tally) = (url.to_owned(), Arc::clone(tally));
        tasks.spawn(async move {
            let name = format!("worker-{number}");
            let mut is_first = true;
            loop {
                let worked = connected(&url, "worker", async |client| {
                    if std::mem::take(&mut is_first) {
                        Tally::count(&tally.ready);
                    }
                    work(client, &name, &tally).await
                });
                if worked.await.is_err() {
                    Tally::count(&tally.job_errors);
                }
                sleep(REST).await;
            }
        });
    }
    tasks
}

/// Adds jobs, through Bulkhead as an application does, where others have been.
pub(super) async fn enqueue(url: &str, jobs: u64) -> Result<(), Error> {
    connected(url, "web", async |client| {
        client.batch_execute("TRUNCATE public.oban_jobs").await?;
        client.execute(schema::ENQUEUE, &[&(jobs as i64)]).await?;
        client.batch_execute("ANALYZE public.oban_jobs").await
    })
    .await
}

/// Runs `work` on a connection of its own.
async fn connected<T>(
    url: &str,
    application_name: &str,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut config: Config = url.parse()?;
    config.application_name(application_name).connect_timeout(Duration::from_secs(30));
    let (mut client, connection) = config.connect(NoTls).await?;
    driven(connection, work(&mut client)).await
}

struct User {
    number: u32,
    /// Queries since the start, which also tells when the next one is due.
    asked: u32,
    start: Option<Instant>,
}

impl User {
    async fn ask(
        &mut self,
        client: &Client,
        tally: &Tally,
        start: &mut watch::Receiver<Option<Instant>>,
    ) -> Result<(), Error> {
        let read = client.prepare(schema::READ).await?;
        let write = client.prepare(schema::WRITE).await?;
        let ask = async |asked: u32, number: u32| {
            // Spread over the table, the same in every phase.
            let account = (asked.wrapping_mul(7919).wrapping_add(number * 613) % schema::ACCOUNTS) as i32 + 1;
            if asked % WRITE_EVERY == WRITE_EVERY - 1 {
                client.execute(&write, &[&account]).await
            } else {
                client.query(&read, &[&account]).await.map(|rows| rows.len() as u64)
            }
        };
        let started = if let Some(started) = self.start {
            started
        } else {
            for query in 0..WARM_UP {
                ask(query, self.number).await?;
            }
            Tally::count(&tally.ready);
            let Ok(started) = start.wait_for(Option::is_some).await.map(|at| *at) else { return Ok(()) };
            *self.start.insert(started.expect("waited for"))
        };
        loop {
            let due = started + due(self.number, self.asked);
            let from = if Instant::now() < due {
                sleep_until(due).await;
                // The timer wakes up to a millisecond late, which is nobody's latency.
                Instant::now()
            } else {
                // The query before has taken too long: this one waits since it was due.
                due
            };
            let asked = self.asked;
            self.asked += 1;
            match ask(asked, self.number).await {
                Ok(_) => {
                    let micros = from.elapsed().as_micros().min(u128::from(u32::MAX)) as u32;
                    tally.latencies.lock().expect("no panic while held").push(micros);
                }
                Err(error) if error.is_closed() => return Err(error),
                Err(_) => {
                    Tally::count(&tally.errors);
                    sleep(REST).await;
                }
            }
        }
    }
}

/// When a user's query is due, from the start: users take turns.
fn due(user: u32, query: u32) -> Duration {
    Duration::from_secs(1) * (query * USERS + user) / RATE
}

/// Takes a job, works in its transaction, completes it; again and again.
async fn work(client: &mut Client, name: &str, tally: &Tally) -> Result<(), Error> {
    let fetch = client.prepare(schema::FETCH).await?;
    let complete = client.prepare(schema::COMPLETE).await?;
    let attempted_by = vec![name.to_owned()];
    loop {
        let round = async {
            let transaction = client.transaction().await?;
            let jobs = transaction.query(&fetch, &[&"default", &1_i64, &attempted_by]).await?;
            let Some(job) = jobs.first() else {
                transaction.commit().await?;
                return Ok(false);
            };
            sleep(JOB).await;
            transaction.execute(&complete, &[&job.get::<_, i64>(0)]).await?;
            transaction.commit().await?;
            Ok(true)
        };
        match round.await {
            Ok(true) => Tally::count(&tally.jobs),
            Ok(false) => sleep(REST).await,
            Err(error) if Error::is_closed(&error) => return Err(error),
            Err(_) => {
                Tally::count(&tally.job_errors);
                sleep(REST).await;
            }
        }
    }
}
