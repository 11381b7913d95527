//! A primary, a streaming replica of it, and a job database on a server of its own.

use std::thread;

use super::postgres::{Login, Postgres, Role};

/// Three servers. They take well under a second to start, so every test has its own.
pub(crate) struct Cluster {
    // Dropped first: without its primary it would fill its log with complaints.
    pub(crate) replica: Postgres,
    pub(crate) primary: Postgres,
    pub(crate) jobs: Postgres,
}

impl Cluster {
    /// Starts all three with room for 100 connections each.
    pub(crate) fn start() -> Self {
        Self::with_max_connections(100)
    }

    /// Starts all three with room for so many connections each.
    pub(crate) fn with_max_connections(count: u32) -> Self {
        thread::scope(|scope| {
            let jobs = scope.spawn(|| Postgres::builder(Role::Jobs).max_connections(count).start());
            let primary = Postgres::builder(Role::Primary).max_connections(count).start();
            let replica = Postgres::start(Role::ReplicaOf(&primary));
            Self { primary, replica, jobs: jobs.join().expect("the job database starts") }
        })
    }

    /// URLs of the database `app` on primary, replica and job server.
    pub(crate) fn urls(&self, login: Login) -> [String; 3] {
        [self.primary.url(login), self.replica.url(login), self.jobs.url(login)]
    }

    /// Waits until the replica has all that the primary has.
    pub(crate) async fn wait_for_replay(&self) {
        self.replica.wait_for_replay(&self.primary).await;
    }
}
