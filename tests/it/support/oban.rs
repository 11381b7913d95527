//! A job table shaped like that of Oban, and workers that live on it as Oban's do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_postgres::{Client, Error, Statement};

use bulkhead::demo::schema::{COMPLETE, ENQUEUE, FETCH};

use super::{Postgres, connect};

/// Types, tables, indexes and the notification of new jobs, in the schema `public`, owned by `app`.
const SCHEMA: &str = "
    SET ROLE app;
    CREATE TYPE oban_job_state AS ENUM
        ('available', 'scheduled', 'executing', 'retryable', 'completed', 'discarded', 'cancelled');
    CREATE TABLE oban_jobs (
        id bigserial PRIMARY KEY,
        state oban_job_state NOT NULL DEFAULT 'available',
        queue text NOT NULL DEFAULT 'default' CHECK (length(queue) BETWEEN 1 AND 127),
        worker text NOT NULL CHECK (length(worker) BETWEEN 1 AND 127),
        args jsonb NOT NULL DEFAULT '{}',
        meta jsonb DEFAULT '{}',
        tags text[] DEFAULT '{}',
        errors jsonb[] NOT NULL DEFAULT '{}',
        attempt integer NOT NULL DEFAULT 0,
        max_attempts integer NOT NULL DEFAULT 20 CHECK (max_attempts > 0),
        priority integer NOT NULL DEFAULT 0 CHECK (priority >= 0),
        attempted_by text[],
        inserted_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        scheduled_at timestamp NOT NULL DEFAULT timezone('UTC', now()),
        attempted_at timestamp,
        completed_at timestamp,
        discarded_at timestamp,
        cancelled_at timestamp
    );
    CREATE INDEX oban_jobs_state_queue_priority_scheduled_at_id_index
        ON oban_jobs (state, queue, priority, scheduled_at, id);
    CREATE INDEX oban_jobs_args_index ON oban_jobs USING gin (args);
    CREATE UNLOGGED TABLE oban_peers (
        name text PRIMARY KEY,
        node text NOT NULL,
        started_at timestamp NOT NULL,
        expires_at timestamp NOT NULL
    );
    CREATE FUNCTION oban_jobs_notify() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.state = 'available' THEN
            PERFORM pg_notify('public.oban_insert', json_build_object('queue', NEW.queue)::text);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER oban_notify AFTER INSERT ON oban_jobs FOR EACH ROW EXECUTE FUNCTION oban_jobs_notify();
    RESET ROLE;
";

/// Creates the schema on a server's database `app`, as superuser straight at the server.
pub(crate) async fn install(server: &Postgres) {
    server.query(SCHEMA).await;
}

/// Adds jobs, straight at the server.
pub(crate) async fn enqueue(server: &Postgres, count: u32) {
    server.admin().await.execute(ENQUEUE, &[&i64::from(count)]).await.expect("the schema is installed");
}

/// Workers that fetch and complete jobs until they are stopped.
pub(crate) struct Load {
    workers: JoinSet<()>,
    shared: Arc<Shared>,
}

/// What a load has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) completed: u64,
    /// Statements that failed, of which each one cost a worker its job.
    pub(crate) errors: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    completed: AtomicU64,
    errors: AtomicU64,
}

impl Load {
    /// Starts workers, each with a connection of its own to `url`. Each one fetches a job, holds its transaction for
    /// `work` (as a job does that works in the database), completes it and commits; with none to fetch it rests for
    /// a moment and asks again. Returns once all are connected.
    pub(crate) async fn start(url: &str, workers: usize, work: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for number in 0..workers {
            let mut client =
                connect(url).await.unwrap_or_else(|error| panic!("worker {number} connects: {error:?}"));
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    match work_once(&mut client, &format!("worker-{number}"), work).await {
                        Ok(0) => tokio::time::sleep(Duration::from_millis(20)).await,
                        Ok(count) => {
                            shared.completed.fetch_add(count, Ordering::Relaxed);
                        }
                        Err(_) => {
                            shared.errors.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            });
        }
        Self { workers: tasks, shared }
    }

    /// Jobs completed so far.
    pub(crate) fn completed(&self) -> u64 {
        self.shared.completed.load(Ordering::Relaxed)
    }

    /// Statements failed so far.
    pub(crate) fn errors(&self) -> u64 {
        self.shared.errors.load(Ordering::Relaxed)
    }

    /// Lets every worker finish its job, and reports.
    pub(crate) async fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.expect("a worker does not panic");
        }
        Report { completed: self.completed(), errors: self.errors() }
    }
}

/// One round of a worker; how many jobs it has completed.
async fn work_once(client: &mut Client, node: &str, work: Duration) -> Result<u64, Error> {
    let transaction = client.transaction().await?;
    let fetch: Statement = transaction.prepare(FETCH).await?;
    let attempted_by = vec![node.to_owned()];
    let jobs = transaction.query(&fetch, &[&"default", &1_i64, &attempted_by]).await?;
    if !jobs.is_empty() {
        tokio::time::sleep(work).await;
    }
    for job in &jobs {
        transaction.execute(COMPLETE, &[&job.get::<_, i64>(0)]).await?;
    }
    transaction.commit().await?;
    Ok(jobs.len() as u64)
}
