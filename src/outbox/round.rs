//! One round: some rows of one table go from the primary to the job database.
//!
//! ```text
//!  primary                                   job database
//!  BEGIN, DELETE .. RETURNING  ── rows ──►   BEGIN, COPY into a temporary table
//!                                            keys into the ledger; rows whose key was not there into the table
//!                                            NOTIFY
//!                                      ◄──   COMMIT                       (1)
//!  COMMIT                                                                 (2)
//! ```
//!
//! Whatever ends before (1) has happened leaves the rows on the primary, and nothing in the job database. Between (1) and
//! (2) the rows are on both sides; if (2) does not happen, the next round finds their keys in the ledger, inserts nothing,
//! and takes them away. That holds where a worker has run and deleted a job meanwhile, too. An answer to a COMMIT that is
//! lost is one of these two cases; which one, nobody needs to know.

use std::sync::atomic::Ordering;

use super::{
    fault::is_of_rows,
    link::{Failure, Link, Reply},
    state::Outbox,
    statements::Statements,
    text::first_field,
};
use crate::wire::{message, read::ErrorFields};

/// How a round ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Rows have gone over, so many; fewer than were asked for, if there were no more.
    Moved(u64),
    /// A call has to wait for another transaction of the job database, and nothing was changed: those in front of it go
    /// first, and then the others wait until it is time to look.
    PutOff,
    /// The job database does not take these rows, and nothing was changed.
    Refused {
        /// The first row's key.
        key: Option<String>,
        /// Why.
        error: ErrorFields,
    },
}

/// The job database's word on the rows that it was given.
struct Given {
    fresh: u64,
    put: u64,
    /// New ones whose key a job has.
    taken: u64,
    /// Known ones that were others.
    reused: u64,
    /// New ones that name something which was taken away meanwhile.
    lost: u64,
}

/// The stage is emptied once so many rows have passed through it.
const STAGED_MAX: u64 = 500;

/// Moves up to `limit` rows. After a server's error, what is open on either side is to be undone; after another failure, both
/// connections are to be closed. `staged` is how many rows have passed through the stage since it was emptied.
pub(super) async fn round(
    outbox: &Outbox,
    primary: &mut Link,
    jobs: &mut Link,
    statements: &Statements,
    limit: usize,
    staged: &mut u64,
) -> Result<Outcome, Failure> {
    let empties = *staged >= STAGED_MAX;
    let passed = primary.pass(&statements.take(limit), jobs, &statements.opening(empties)).await?;
    if passed.rows == 0 {
        primary.ask("COMMIT").await?;
        return Ok(Outcome::Moved(0));
    }
    *staged = passed.rows + if empties { 0 } else { *staged };
    let mut request = Vec::new();
    message::raw(&mut request, b'c', &[]);
    for sql in statements.put() {
        message::query(&mut request, sql.as_bytes());
    }
    let replies = jobs.exchange(&request, 3).await?;
    let given = match judge(&replies) {
        Ok(given) => given,
        Err(error) => {
            jobs.ask("ROLLBACK").await?;
            primary.ask("ROLLBACK").await?;
            if statements.table.call.is_some() && error.code == "55P03" {
                return Ok(Outcome::PutOff);
            }
            if !is_of_rows(&error) {
                return Err(jobs.error(error));
            }
            return Ok(Outcome::Refused { key: first_field(&passed.first), error });
        }
    };
    match commit(jobs).await {
        // A constraint or a trigger that is deferred: it has undone what was put.
        Err(Failure::Server { fields, .. }) if is_of_rows(&fields) => {
            primary.ask("ROLLBACK").await?;
            return Ok(Outcome::Refused { key: first_field(&passed.first), error: *fields });
        }
        committed => committed?,
    }
    outbox.moved.relayed.fetch_add(given.fresh, Ordering::Relaxed);
    outbox.moved.conflicts.fetch_add(given.fresh - given.put.min(given.fresh), Ordering::Relaxed);
    commit(primary).await?;
    Ok(Outcome::Moved(passed.rows))
}

/// Reads the replies to COPY, to the rows' insertion, and to the notification.
fn judge(replies: &[Reply]) -> Result<Given, ErrorFields> {
    if let Some(error) = replies.iter().find_map(|reply| reply.error.clone()) {
        return Err(error);
    }
    let number = |column: usize| replies.get(1).map_or(0, |reply| reply.number(column));
    let given =
        Given { fresh: number(0), put: number(1), taken: number(2), reused: number(3), lost: number(4) };
    let error = |code: &str, message: &str| {
        let (severity, code, message) = ("ERROR".to_owned(), code.to_owned(), message.to_owned());
        Err(ErrorFields { severity, code, message, ..ErrorFields::default() })
    };
    let unfit = replies.get(1).map_or("", |reply| reply.value(0, 5));
    if given.reused > 0 {
        return error("23505", "another job of this key was relayed before: has the primary lost commits?");
    }
    if given.taken > 0 {
        return error(
            "23505",
            "another job of this key is in the job database: do both sequences give different numbers?",
        );
    }
    if !unfit.is_empty() {
        return error("23514", unfit);
    }
    if given.lost > 0 {
        return error("40001", "what jobs name was taken away from the job database while they came in");
    }
    Ok(given)
}

async fn commit(link: &mut Link) -> Result<(), Failure> {
    let reply = link.ask("COMMIT").await?;
    if reply.tag == "COMMIT" {
        Ok(())
    } else {
        Err(Failure::Lost(format!("server \"{}\" answered {} to COMMIT", link.server(), reply.tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(numbers: [&str; 6]) -> Vec<Reply> {
        let row = numbers.iter().map(|number| Some((*number).to_owned())).collect();
        vec![Reply::default(), Reply { rows: vec![row], ..Reply::default() }, Reply::default()]
    }

    #[test]
    fn no_row_is_dropped_for_its_key() {
        assert!(judge(&replies(["2", "1", "0", "0", "0", ""])).is_ok());
        let is_refused = |numbers| judge(&replies(numbers)).err().is_some_and(|error| is_of_rows(&error));
        assert!(is_refused(["2", "1", "1", "0", "0", ""]));
        assert!(is_refused(["2", "2", "0", "1", "0", ""]));
        assert!(is_refused(["2", "1", "0", "0", "0", "it has a key"]));
    }

    #[test]
    fn what_is_taken_away_meanwhile_is_no_row_s_fault() {
        let error = judge(&replies(["2", "1", "0", "0", "1", ""])).err().expect("it is not done");
        assert!(!is_of_rows(&error), "{error:?}");
    }

    #[test]
    fn an_error_of_any_part_counts() {
        for at in 0..3 {
            let mut replies = replies(["1", "1", "0", "0", "0", ""]);
            replies[at].error = Some(ErrorFields { code: "22P02".to_owned(), ..ErrorFields::default() });
            assert_eq!(judge(&replies).err().map(|error| error.code).as_deref(), Some("22P02"));
        }
    }
}
