//! Moving at once all that waits on the primary, up to the last row: before the outbox is taken away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    leader::LOCK,
    link::{Failure, Link},
    queue::Queue,
    state::Outbox,
    tables::Side,
};

/// Between two looks at what somebody else moves.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Moves rows from the primary to the job database until none waits.
pub struct Drain {
    outbox: Outbox,
    tables: Vec<Queue>,
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
        let batch = batch.max(1);
        let tables = installed.enumerate().map(|(at, table)| Queue::new(table.clone(), at, batch)).collect();
        Self { outbox: Outbox::default(), tables, batch, leads: false, moved: 0 }
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
        for table in &self.tables {
            if primary.ask(&table.statements.waiting()).await?.number(0) > 0 {
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
        for table in &mut self.tables {
            // Once at least: what is locked, or waits for another transaction, may not be so any more.
            table.has_rows = true;
            while table.has_rows && Instant::now() < until {
                match table.step(&self.outbox, primary, jobs, self.batch).await {
                    Ok(rows) => self.moved += rows,
                    Err(failure) if failure.is_passing() => break,
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain")
            .field("leads", &self.leads)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}
