//! Bringing rows over: chunks in the order of their keys, and rows of keys that were noted as changed, as they are now.
//!
//! The target commits first. What the source had forgotten by then and does not commit comes again, which changes nothing:
//! a row is put as it is, whatever was there. After a failure both connections are to be closed.

use super::super::{
    link::{Failure, Link, Reply},
    text::literal,
};
use super::{
    catalog::{Moved, SCHEMA},
    sides::Sides,
    state::Direction,
    texts::CHANGES,
};
use crate::wire::message;

/// How often rows are brought over again that meet a unique key of a row which has changed since.
const CONFLICTS: usize = 20;

/// Whether the source's transaction is that of the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// One of its own.
    Itself,
    /// The pause's, which goes on.
    Pause,
}

/// Has the target take what was opened there, behind rows that have come; gives the reply to `sql`.
async fn put(to: &mut Link, sql: &str) -> Result<Reply, Failure> {
    let mut request = Vec::new();
    message::raw(&mut request, b'c', &[]);
    message::query(&mut request, sql.as_bytes());
    // Behind an error it undoes.
    message::query(&mut request, b"COMMIT");
    let replies = to.exchange(&request, 3).await?;
    if let Some(fields) = replies.iter().find_map(|reply| reply.error.clone()) {
        return Err(to.error(fields));
    }
    if replies.last().is_none_or(|last| last.tag != "COMMIT") {
        return Err(Failure::Lost(format!("server \"{}\" did not commit", to.server())));
    }
    Ok(replies.into_iter().nth(1).unwrap_or_default())
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure, Failure::Server { fields, .. } if ["23505", "23P01"].contains(&fields.code.as_str()))
}

/// Copies the next rows; the last one's key, or `None` if there are no more.
pub(super) async fn chunk(
    sides: &mut Sides,
    direction: Direction,
    table: &Moved,
    behind: Option<&[String]>,
) -> Result<Option<(Vec<String>, usize)>, Failure> {
    for _ in 0..CONFLICTS {
        let (from, to) = sides.ends(direction);
        let passed = from.pass(&table.chunk(behind), to, &table.opening()).await?;
        if passed.rows == 0 {
            return Ok(None);
        }
        match put(to, &table.put_chunk(direction)).await {
            Ok(reply) => {
                let key = reply.rows.into_iter().next().unwrap_or_default();
                let key = key.into_iter().map(Option::unwrap_or_default).collect();
                return Ok(Some((key, passed.rows as usize)));
            }
            // A row that is there has given its unique key away since: its change is noted.
            Err(failure) if is_conflict(&failure) => {
                changes(sides, direction, table, Within::Itself).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Lost(format!("{} has rows whose unique keys change all the time", table.source())))
}

/// Carries over what has changed; how many rows that were.
pub(super) async fn changes(
    sides: &mut Sides,
    direction: Direction,
    table: &Moved,
    within: Within,
) -> Result<u64, Failure> {
    let mut limit = Some(CHANGES).filter(|_| within == Within::Itself);
    loop {
        let (from, to) = sides.ends(direction);
        let mut take = table.changes(limit);
        if within == Within::Pause {
            take = take.trim_start_matches("BEGIN; ").to_owned();
        }
        let passed = from.pass(&take, to, &table.opening()).await?;
        let put =
            if passed.rows == 0 { Ok(()) } else { put(to, &table.put_changes(direction)).await.map(drop) };
        match put {
            Ok(()) => {
                if within == Within::Itself {
                    from.ask("COMMIT").await?;
                }
                return Ok(passed.rows);
            }
            // With all that has changed, unique keys are those of one moment.
            Err(failure) if is_conflict(&failure) && limit.is_some() => {
                from.ask("ROLLBACK").await?;
                limit = None;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Carries all tables' changes over, once; how many rows that were.
pub(super) async fn all_changes(
    sides: &mut Sides,
    direction: Direction,
    tables: &[Moved],
    within: Within,
) -> Result<u64, Failure> {
    let mut rows = 0;
    for table in tables {
        if was_truncated(sides.from(direction), table).await? {
            // Its copy begins anew.
            return Ok(rows);
        }
        rows += changes(sides, direction, table, within).await?;
    }
    Ok(rows)
}

async fn was_truncated(from: &mut Link, table: &Moved) -> Result<bool, Failure> {
    Ok(from.ask(&table.was_truncated()).await?.value(0, 0) == "t")
}

/// How many changes wait to be carried over.
pub(super) async fn waiting(from: &mut Link, tables: &[Moved]) -> Result<u64, Failure> {
    let mut waiting = 0;
    for table in tables {
        waiting += from.ask(&table.waiting()).await?.number(0);
    }
    Ok(waiting)
}

/// Whether any of these tables was emptied at once since.
pub(super) async fn any_truncated(from: &mut Link, tables: &[Moved]) -> Result<bool, Failure> {
    for table in tables {
        if was_truncated(from, table).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Begins the copy of tables anew that were emptied at once; whether there were any.
pub(super) async fn begin_anew(
    sides: &mut Sides,
    direction: Direction,
    tables: &[Moved],
) -> Result<bool, Failure> {
    let mut any = false;
    for table in tables {
        let (from, to) = sides.ends(direction);
        if was_truncated(from, table).await? {
            from.ask(&table.forget_truncation()).await?;
            to.ask(&table.copy_anew(direction)).await?;
            from.ask("COMMIT").await?;
            any = true;
        }
    }
    Ok(any)
}

/// Begins the copy of tables anew that a crash of either server may have emptied: those without a log.
pub(super) async fn distrust(
    sides: &mut Sides,
    direction: Direction,
    tables: &[Moved],
) -> Result<(), Failure> {
    for table in tables.iter().filter(|table| table.is_unlogged) {
        sides.to(direction).ask(&table.copy_anew(direction)).await?;
    }
    Ok(())
}

/// Copies a table, from where its copy was left; how many rows have come.
pub(super) async fn copy(sides: &mut Sides, direction: Direction, table: &Moved) -> Result<usize, Failure> {
    let source = literal(&table.source());
    let last: Vec<String> = (1..=table.key.len()).map(|at| format!("last_key[{at}]")).collect();
    let noted =
        format!("SELECT is_done, {} FROM {SCHEMA}.progress WHERE source_table = {source}", last.join(", "));
    let noted = sides.to(direction).ask(&noted).await?;
    if noted.value(0, 0) == "t" {
        return Ok(0);
    }
    let row = noted.rows.into_iter().next().unwrap_or_default();
    let mut behind: Option<Vec<String>> = row.into_iter().skip(1).collect();
    let mut copied = 0;
    while let Some((key, rows)) = chunk(sides, direction, table, behind.as_deref()).await? {
        copied += rows;
        behind = Some(key);
    }
    let done = format!("UPDATE {SCHEMA}.progress SET is_done = true WHERE source_table = {source}");
    sides.to(direction).ask(&done).await?;
    Ok(copied)
}
