//! The two servers of a move, and transactions that wait for no lock for long.

use std::time::Duration;

use tokio::time::sleep;

use super::super::link::{Failure, Link};
use super::state::Direction;

/// A definition waits for its lock no longer than this, since everybody else waits behind it.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// How often it is tried.
const TRIES: u32 = 10;

/// The pause between two tries, in which others get on.
const BETWEEN: Duration = Duration::from_millis(500);

/// Why a move does not go on.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// The move may not be made, or not like this.
    #[error("{0}")]
    Refused(String),
    /// A server did not do it.
    #[error("{0}")]
    Failed(#[from] Failure),
}

/// Connections to both servers.
pub(super) struct Sides {
    pub(super) primary: Link,
    pub(super) jobs: Link,
}

impl Sides {
    /// The source and the target.
    pub(super) fn ends(&mut self, direction: Direction) -> (&mut Link, &mut Link) {
        match direction {
            Direction::ToJobs => (&mut self.primary, &mut self.jobs),
            Direction::Back => (&mut self.jobs, &mut self.primary),
        }
    }

    pub(super) fn from(&mut self, direction: Direction) -> &mut Link {
        self.ends(direction).0
    }

    /// The encodings that the primary and the job database keep texts in, if these are not the same.
    pub(super) async fn encodings(&mut self) -> Result<Option<[String; 2]>, Failure> {
        let mut both = [String::new(), String::new()];
        for (link, encoding) in [&mut self.primary, &mut self.jobs].into_iter().zip(&mut both) {
            link.ask("SHOW server_encoding").await?.value(0, 0).clone_into(encoding);
        }
        Ok(Some(both).filter(|[primary, jobs]| primary != jobs))
    }

    pub(super) fn to(&mut self, direction: Direction) -> &mut Link {
        self.ends(direction).1
    }
}

/// The SQLSTATE, if the server has refused.
pub(super) fn code(failure: &Failure) -> &str {
    match failure {
        Failure::Server { fields, .. } => &fields.code,
        Failure::Lost(_) => "",
    }
}

/// Whether it is a lock that did not come in time, or a statement that took too long.
pub(super) fn is_too_late(failure: &Failure) -> bool {
    matches!(code(failure), "55P03" | "57014" | "40P01")
}

/// Carries statements out in one transaction, and again if a lock does not come: nobody is kept waiting for long.
pub(super) async fn transact(link: &mut Link, statements: &[String]) -> Result<(), Failure> {
    let sql = format!(
        "BEGIN; SET LOCAL lock_timeout = '{}ms'; {}; COMMIT",
        LOCK_TIMEOUT.as_millis(),
        statements.join("; ")
    );
    let mut tries = 0;
    loop {
        match link.ask(&sql).await {
            Ok(_) => return Ok(()),
            Err(failure @ Failure::Server { .. }) => {
                link.ask("ROLLBACK").await?;
                tries += 1;
                if tries == TRIES || !is_too_late(&failure) {
                    return Err(failure);
                }
            }
            Err(lost) => return Err(lost),
        }
        sleep(BETWEEN).await;
    }
}
