//! What waits on the primary, what was moved, and who moves, as the servers tell it: whichever instance is asked, or none
//! runs.

use super::{
    leader::{LOCK, holder},
    link::{APPLICATION_NAME, Failure, Link},
    statements::Statements,
    tables::{Side, former, source_literal},
};

/// The state of an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Each table that is moved.
    pub tables: Vec<TableStatus>,
    /// The one that moves rows now, in words; `None` if nobody does, or the job database does not tell.
    pub relay: Option<String>,
    /// Objects that another version has installed, in words.
    pub former: Option<String>,
    /// The last thing that was in the way, and when.
    pub last_error: Option<(String, String)>,
}

/// The state of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStatus {
    /// `schema.table`.
    pub source: String,
    /// Rows that wait on the primary.
    pub waiting: u64,
    /// How long the first of them has waited, in milliseconds, if its table tells.
    pub lag_millis: Option<u64>,
    /// Rows that the job database refused.
    pub refused: u64,
    /// The last one's error.
    pub last_refusal: Option<String>,
    /// Rows that were moved, if the job database tells.
    pub relayed: Option<u64>,
    /// Rows of these that the job database had a job of the same unique key for.
    pub conflicts: Option<u64>,
}

/// Asks both servers; the job database if there is a connection.
pub async fn status(primary: &mut Link, jobs: Option<&mut Link>, side: &Side) -> Result<Status, Failure> {
    let mut status = Status { former: former(side), ..Status::default() };
    for table in side.tables.iter().filter(|table| side.installed.contains(&table.source())) {
        let waiting = primary.ask(&Statements::new(table.clone(), 0).waiting()).await?;
        let refused = primary
            .ask(&format!(
                "SELECT pg_catalog.count(*), (SELECT error FROM bulkhead.refused WHERE source_table = {0} ORDER BY id DESC \
                 LIMIT 1) FROM bulkhead.refused WHERE source_table = {0}",
                source_literal(table)
            ))
            .await?;
        status.tables.push(TableStatus {
            source: table.source(),
            waiting: waiting.number(0),
            lag_millis: waiting.value(0, 2).parse().ok(),
            refused: refused.number(0),
            last_refusal: Some(refused.value(0, 1).to_owned()).filter(|text| !text.is_empty()),
            ..TableStatus::default()
        });
    }
    let last = primary
        .ask(
            "SELECT last_error, last_error_at FROM bulkhead.outbox WHERE last_error IS NOT NULL \
             ORDER BY last_error_at DESC LIMIT 1",
        )
        .await?;
    if !last.rows.is_empty() {
        status.last_error = Some((last.value(0, 0).to_owned(), last.value(0, 1).to_owned()));
    }
    if let Some(jobs) = jobs {
        ask_jobs(jobs, &mut status).await?;
    }
    Ok(status)
}

async fn ask_jobs(jobs: &mut Link, status: &mut Status) -> Result<(), Failure> {
    let counts = jobs.ask("SELECT source_table, relayed, conflicts FROM bulkhead.outbox").await?;
    for at in 0..counts.rows.len() {
        if let Some(table) = status.tables.iter_mut().find(|table| table.source == counts.value(at, 0)) {
            table.relayed = counts.value(at, 1).parse().ok();
            table.conflicts = counts.value(at, 2).parse().ok();
        }
    }
    status.relay = holder(jobs, LOCK).await?.map(|holder| {
        let is_stranger = !holder.is_called(APPLICATION_NAME);
        let stranger =
            is_stranger.then(|| format!(": {}", holder.stranger(LOCK, "the relay's", jobs.server())));
        holder.place() + &stranger.unwrap_or_default()
    });
    Ok(())
}
