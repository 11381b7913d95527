//! The lock of the one instance that moves rows: an advisory lock of the job database, held for as long as its connection
//! lives. Anybody who may connect may take it; who else has it is named.

use super::link::{APPLICATION_NAME, Failure, Link};

/// The advisory lock of the one that moves rows: "bulkhead" in ASCII.
pub(super) const LOCK: i64 = 0x6275_6c6b_6865_6164;

/// The channel on which the one that moves rows is told that there are some. In the job database.
const CHANNEL: &str = "bulkhead_outbox";

/// The one that moves rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// The instance that has asked, from now on.
    This,
    /// The one that was before: some other instance.
    Another,
    /// Somebody who has the lock and is no instance, in words: nobody moves rows.
    Stranger(String),
}

/// The session that has a lock of ours.
#[derive(Debug)]
pub(super) struct Holder {
    process: String,
    /// The address that it comes from; `None` for this machine's socket, or where this user may not know.
    host: Option<String>,
    since: String,
    application: String,
    user: String,
}

/// Asks who has this advisory lock in the server's database.
pub(super) async fn holder(link: &mut Link, lock: i64) -> Result<Option<Holder>, Failure> {
    let holder = link
        .ask(&format!(
            "SELECT l.pid, pg_catalog.host(a.client_addr), a.backend_start, a.application_name, a.usename \
             FROM pg_catalog.pg_locks AS l LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::pg_catalog.int8 = {} \
             AND l.objid::pg_catalog.int8 = {} \
             AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            lock >> 32,
            lock & 0xffff_ffff,
        ))
        .await?;
    let value = |column| holder.value(0, column).to_owned();
    Ok((!holder.rows.is_empty()).then(|| Holder {
        process: value(0),
        host: Some(value(1)).filter(|host| !host.is_empty()),
        since: value(2),
        application: value(3),
        user: value(4),
    }))
}

impl Holder {
    /// Whether its session has the name of one of ours.
    pub(super) fn is_called(&self, application: &str) -> bool {
        self.application == application
    }

    /// Where it is, in words.
    pub(super) fn place(&self) -> String {
        let Self { process, host, since, .. } = self;
        let host = host.as_deref().unwrap_or("the same machine");
        let since = if since.is_empty() { String::new() } else { format!(", since {since}") };
        format!("process {process} there, from {host}{since}")
    }

    /// Names a session that has a lock for which it has no use, and tells what can be done.
    pub(super) fn stranger(&self, lock: i64, whose: &str, server: &str) -> String {
        let Self { process, application, user, .. } = self;
        format!(
            "the advisory lock {lock} of server \"{server}\", which is {whose}, is held by process {process} (application \
             \"{application}\", user \"{user}\"): it must not be taken by others; end that process, or have it unlock"
        )
    }
}

/// Tries to be the one that moves rows; else tells the one that is, if somebody has enqueued (`wakes`).
pub(super) async fn lead(jobs: &mut Link, wakes: bool) -> Result<Leader, Failure> {
    let locked = jobs.ask(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK})")).await?;
    if locked.value(0, 0) == "t" {
        jobs.ask(&format!("LISTEN {CHANNEL}")).await?;
        return Ok(Leader::This);
    }
    if wakes {
        jobs.ask(&format!("NOTIFY {CHANNEL}")).await?;
    }
    let holder = holder(jobs, LOCK).await?;
    Ok(match holder.filter(|holder| !holder.is_called(APPLICATION_NAME)) {
        Some(holder) => Leader::Stranger(holder.stranger(LOCK, "the relay's", jobs.server())),
        None => Leader::Another,
    })
}
