//! The lock of the one instance that moves rows: an advisory lock of the job database, held for as long as its connection
//! lives. Anybody who may connect may take it; who else has it is named.

use super::{
    link::{APPLICATION_NAME, Failure, Link, Reply},
    text::literal,
};

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

/// The question who has the lock: the process, where it comes from, since when it is connected, and its name if that is not
/// an instance's.
pub(super) fn holder() -> String {
    format!(
        "SELECT l.pid, pg_catalog.host(a.client_addr), a.backend_start, \
         CASE WHEN a.application_name <> {} THEN a.application_name END, a.usename FROM pg_catalog.pg_locks AS l \
         LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::pg_catalog.int8 = {} \
         AND l.objid::pg_catalog.int8 = {} \
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
        literal(APPLICATION_NAME),
        LOCK >> 32,
        LOCK & 0xffff_ffff,
    )
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
    let holder = jobs.ask(&holder()).await?;
    let is_stranger = holder.rows.first().is_some_and(|row| row.get(3).is_some_and(Option::is_some));
    Ok(if is_stranger { Leader::Stranger(stranger(&holder, jobs.server())) } else { Leader::Another })
}

fn stranger(holder: &Reply, server: &str) -> String {
    format!(
        "the advisory lock {LOCK} of server \"{server}\", which is the relay's, is held by process {} (application \"{}\", user \
         \"{}\"): it must not be taken by others; end that process, or have it unlock",
        holder.value(0, 0),
        holder.value(0, 3),
        holder.value(0, 4),
    )
}
