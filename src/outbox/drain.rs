//! Moving at once all that waits on the primary, up to the last row: before the outbox is taken away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    leader::LOCK,
    link::{Failure, Link},
    round::{Outcome, round},
    state::Outbox,
    statements::Statements,
    tables::Side,
};

/// Between two looks at what somebody else moves.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Moves rows from the primary to the job database until none waits.
#[derive(Debug)]
pub struct Drain {
    outbox: Outbox,
    /// Each table, and rows that have passed through its stage since that was emptied.
    tables: Vec<(Statements, u64)>,
    /// Rows of a round.
    batch: usize,
    /// Whether this one moves rows, as no relay does.
    leads: bool,
    /// Rows that it has moved itself.
    moved: u64,
}

impl Drain {
    /// For the tables that are installed on this side, the primary, by rounds of so many rows.
    pub fn new(side: &Side, batch: usize) -> Self {
        let installed = side.tables.iter().filter(|table| side.installed.contains(&table.source()));
        let tables =
            installed.enumerate().map(|(at, table)| (Statements::new(table.clone(), at), 0)).collect();
        Self { outbox: Outbox::default(), tables, batch: batch.max(1), leads: false, moved: 0 }
    }

    /// Rows that it has moved itself.
    pub const fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether a relay has moved rows meanwhile, so that sessions may still add some.
    pub const fn has_relay(&self) -> bool {
        !self.leads
    }

    /// Moves rows, or waits for the relay that does, until none waits, but not beyond this time. A row that the job database
    /// refuses is set aside, as the relay does. After a failure both connections are to be closed.
    pub async fn run(&mut self, primary: &mut Link, jobs: &mut Link, until: Instant) -> Result<(), Failure> {
        loop {
            let leads = self.leads || self.lead(primary, jobs).await?;
            if !self.has_rows(primary).await? || Instant::now() >= until {
                return Ok(());
            }
            let before = self.moved;
            if leads {
                self.move_rows(primary, jobs, until).await?;
            }
            // Others move the rows, or have them locked.
            if self.moved == before {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    async fn has_rows(&self, primary: &mut Link) -> Result<bool, Failure> {
        for (statements, _) in &self.tables {
            if primary.ask(&statements.waiting()).await?.number(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes the place of the relay, if there is none.
    async fn lead(&mut self, primary: &mut Link, jobs: &mut Link) -> Result<bool, Failure> {
        let locked = jobs.ask(&format!("SELECT pg_catalog.pg_try_advisory_lock({LOCK})")).await?;
        if locked.value(0, 0) != "t" {
            return Ok(false);
        }
        primary.ask("SET enable_hashjoin = off").await?;
        for (statements, _) in &self.tables {
            jobs.ask(&statements.prepare()).await?;
        }
        self.leads = true;
        Ok(true)
    }

    /// Moves what each table has.
    async fn move_rows(
        &mut self,
        primary: &mut Link,
        jobs: &mut Link,
        until: Instant,
    ) -> Result<(), Failure> {
        for (statements, staged) in &mut self.tables {
            let mut limit = self.batch;
            while Instant::now() < until {
                match round(&self.outbox, primary, jobs, statements, limit, staged).await? {
                    Outcome::Moved(rows) => {
                        self.moved += rows;
                        if rows < limit as u64 {
                            break;
                        }
                        limit = (limit * 2).min(self.batch);
                    }
                    Outcome::PutOff | Outcome::Refused { .. } if limit > 1 => limit = limit.div_ceil(2),
                    Outcome::Refused { key: Some(key), error } => {
                        primary.ask(&statements.set_aside(&key, &error)).await?;
                    }
                    // Another transaction of the job database may be in its way.
                    Outcome::PutOff | Outcome::Refused { key: None, .. } => {
                        sleep(LOOK_EVERY).await;
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}
