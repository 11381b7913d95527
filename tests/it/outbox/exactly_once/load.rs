//! An application that goes on whatever is killed, and a worker that runs its jobs, which is to delete them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, types::ToSql};

use super::{KEY, LONG, Yard};
use crate::support::{Login, Proxy, connect, eventually};

/// How an application enqueues a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// With its own row, in one transaction.
    Within,
    /// Without a transaction, and no row of its own.
    Alone,
    /// As without an outbox: its own row is committed first, and the job is written then. If that fails, so does the
    /// request; nobody comes back to it.
    Behind,
}

const WAYS: [(Way, usize); 3] = [(Way::Within, 4), (Way::Alone, 4), (Way::Behind, 4)];

/// Every so manieth transaction is rolled back.
const UNDONE: u64 = 4;

/// After an error.
const REST: Duration = Duration::from_millis(20);

/// Whatever was killed is back long before this.
const PATIENCE: Duration = Duration::from_secs(90);

const ORDER: &str = "INSERT INTO orders VALUES ($1)";
const JOB: &str = "INSERT INTO oban_jobs (worker, args) VALUES ($1, jsonb_build_object('key', $1::text))";

/// What an application was told of its job, or of the transaction that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    RolledBack,
    /// The answer was lost.
    Unknown,
}

/// All jobs by way and number.
pub(super) type Written = BTreeMap<(Way, u64), Fate>;

/// Everybody.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    url: String,
    /// So many jobs of each way may be written up to now.
    allowed: AtomicU64,
    /// The number of the next one, of each way.
    next: BTreeMap<Way, AtomicU64>,
    over: AtomicBool,
    written: Mutex<Written>,
}

/// The name of a job.
pub(super) fn key(way: Way, number: u64) -> String {
    format!("{KEY}{way:?} {number}")
}

impl Load {
    pub(super) fn start(proxy: &Proxy, yard: &Yard) -> Self {
        let shared = Arc::new(Shared {
            url: proxy.url(),
            allowed: AtomicU64::new(0),
            next: WAYS.map(|(way, _)| (way, AtomicU64::new(0))).into(),
            over: AtomicBool::new(false),
            written: Mutex::default(),
        });
        let clients = WAYS.into_iter().flat_map(|(way, count)| std::iter::repeat_n(way, count));
        let mut tasks: Vec<_> =
            clients.map(|way| tokio::spawn(Arc::clone(&shared).application(way))).collect();
        tasks.push(tokio::spawn(Arc::clone(&shared).worker(yard.jobs.url(Login::App))));
        Self { shared, tasks }
    }

    /// Lets so many jobs of each way be written in all.
    pub(super) fn allow(&self, jobs: u64) {
        self.shared.allowed.store(jobs, Ordering::SeqCst);
    }

    /// The same, and waits until they are.
    pub(super) async fn go_on_to(&self, jobs: u64) {
        self.allow(jobs);
        eventually("the application goes on", PATIENCE, async || {
            let written = self.shared.written.lock().expect("no panic while held").len() as u64;
            (written >= jobs * WAYS.len() as u64).then_some(())
        })
        .await;
    }

    pub(super) async fn end(self) -> Written {
        self.shared.over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            tokio::time::timeout(LONG, task).await.expect("it ends").expect("it does not panic");
        }
        std::mem::take(&mut *self.shared.written.lock().expect("no panic while held"))
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The number of the next job, once it may be written.
    async fn number(&self, way: Way) -> Option<u64> {
        let number = self.next[&way].fetch_add(1, Ordering::SeqCst);
        while !self.is_over() {
            if number < self.allowed.load(Ordering::SeqCst) {
                return Some(number);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    }

    /// One client: a job after the other. What was surely not written is written again.
    async fn application(self: Arc<Self>, way: Way) {
        let mut client = None;
        while let Some(number) = self.number(way).await {
            let fate = loop {
                let open = match client.take().filter(|client: &Client| !client.is_closed()) {
                    Some(open) => Some(open),
                    None => connect(&self.url).await.ok(),
                };
                let Some(open) = open else {
                    tokio::time::sleep(REST).await;
                    continue;
                };
                let fate = enqueue(&open, way, number).await;
                client = Some(open);
                match fate {
                    Some(Fate::Unknown) | None => tokio::time::sleep(REST).await,
                    Some(_) => {}
                }
                if let Some(fate) = fate {
                    break fate;
                }
            };
            self.written.lock().expect("no panic while held").insert((way, number), fate);
        }
    }

    async fn worker(self: Arc<Self>, url: String) {
        while !self.is_over() {
            if let Ok(client) = connect(&url).await {
                while !self.is_over() && client.batch_execute("DELETE FROM oban_jobs").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }
            tokio::time::sleep(REST).await;
        }
    }
}

/// `None` if it is certain that nothing was written.
async fn enqueue(client: &Client, way: Way, number: u64) -> Option<Fate> {
    let key = key(way, number);
    let with_key: &[&(dyn ToSql + Sync)] = &[&key];
    if way == Way::Alone {
        return match client.execute(JOB, with_key).await {
            Ok(_) => Some(Fate::Committed),
            Err(error) if was_not_run(&error) => None,
            Err(_) => Some(Fate::Unknown),
        };
    }
    let wrote = async {
        client.batch_execute("BEGIN").await?;
        client.execute(ORDER, with_key).await?;
        if way == Way::Within {
            client.execute(JOB, with_key).await?;
        }
        Ok::<_, Error>(())
    };
    if wrote.await.is_err() {
        client.batch_execute("ROLLBACK").await.ok();
        return None;
    }
    if number.is_multiple_of(UNDONE) {
        client.batch_execute("ROLLBACK").await.ok();
        return Some(Fate::RolledBack);
    }
    if client.batch_execute("COMMIT").await.is_err() {
        return Some(Fate::Unknown);
    }
    if way == Way::Behind && client.execute(JOB, with_key).await.is_err() {
        // Its user is shown an error, and the row is there.
        tokio::time::sleep(REST).await;
    }
    Some(Fate::Committed)
}

/// Whether an error says that a statement by itself was not run.
fn was_not_run(error: &Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    assert!(!error.code().code().starts_with("42"), "the statement itself is wrong: {error}");
    error.code().code() != "08007" && !error.message().contains("unknown")
}
