//! The task that moves jobs from the primary to the job database.
//!
//! Every instance has one, and each looks at both sides; but only one at a time moves rows: the one that has the lock in
//! the job database, for as long as its connection lives. That saves work, and nothing depends on it: two that moved at
//! once would pass over each other's rows, and the ledger would stop a row that came twice.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    leader::{self, Leader},
    ledger,
    link::{Failure, Link},
    mirror::Mirror,
    queue::{Queue, pause},
    rights,
    state::{Outbox, Settings},
    statements::Statements,
    tables::{self, INSTALLED, Side, former, is_unguarded, missing},
    text::literal,
    told::Told,
};
use crate::pool::ServerPool;

/// How often the tables of both sides are compared.
const COMPARE_EVERY: Duration = Duration::from_secs(60);

/// A server closes a connection of ours that is silent for so long: we have gone, and another one may have the lock.
const SILENCE_LEAST: Duration = Duration::from_secs(30);

/// How soon after a full lot of the ledger's old entries the next one goes.
const LEDGER_PAUSE: Duration = Duration::from_millis(100);

/// Why nothing can be moved now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Failed(#[from] Failure),
    #[error("{0}")]
    NotReady(String),
}

/// The work that is left when a look at everything is over.
enum Next {
    /// Some: there may be more rows.
    AtOnce,
    /// To connect anew: a table has failed, and what is prepared or known may not be so any more.
    Anew,
    /// None until somebody calls, or it is time to look.
    Nothing,
}

/// The relay of one instance.
pub struct Relay {
    outbox: Arc<Outbox>,
    settings: Settings,
    servers: [Arc<ServerPool>; 2],
    primary: Option<Link>,
    jobs: Option<Link>,
    /// The tables that are installed on the primary, as they were last read.
    side: Side,
    tables: Vec<Queue>,
    /// The table whose turn is next.
    turn: usize,
    mirrors: Vec<Mirror>,
    /// Faults that were found when both sides were last compared; `None` if they have never been.
    compared: Option<Vec<String>>,
    compare_at: Instant,
    measure_at: Instant,
    keep_at: Instant,
    /// Whether this one moves rows.
    leads: bool,
    /// Whether somebody has enqueued since the last look.
    woken: bool,
    told: Told,
    /// Trouble that is to be noted on the primary.
    unnoted: Option<String>,
}

impl Relay {
    /// Moves what waits at the server of the first pool to that of the second one.
    pub fn new(
        outbox: Arc<Outbox>,
        settings: Settings,
        primary: Arc<ServerPool>,
        jobs: Arc<ServerPool>,
    ) -> Self {
        let now = Instant::now();
        Self {
            outbox,
            settings,
            servers: [primary, jobs],
            primary: None,
            jobs: None,
            side: Side::default(),
            tables: Vec::new(),
            turn: 0,
            mirrors: Vec::new(),
            compared: None,
            compare_at: now,
            measure_at: now,
            keep_at: now,
            leads: false,
            woken: false,
            told: Told::default(),
            unnoted: None,
        }
    }

    /// Moves rows for ever.
    ///
    /// Dropped at any point, both connections are closed, and what was not committed on both sides is done again by
    /// whoever comes next, or was done.
    pub async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            self.outbox.looks();
            match self.look().await {
                Ok(next) => {
                    failures = 0;
                    self.tell(self.kept()).await;
                    if matches!(next, Next::Nothing) {
                        self.rest().await;
                    }
                }
                Err(trouble) => {
                    if matches!(trouble, Trouble::Failed(_)) {
                        self.tables.iter_mut().for_each(Queue::fewer_rows);
                    }
                    self.tell(Some(trouble.to_string())).await;
                    sleep(pause(failures, self.settings.poll)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Waits until there is something to do.
    async fn rest(&mut self) {
        let again_at = self.tables.iter().filter_map(Queue::again_at);
        let until = again_at.chain([self.keep_at]).filter(|_| self.leads).fold(self.measure_at, Instant::min);
        self.woken = false;
        let heard = async {
            match &mut self.jobs {
                Some(jobs) if self.leads => jobs.notified().await,
                _ => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            // Cancel safe, all of them.
            () = self.outbox.woken() => Ok(()),
            () = tokio::time::sleep_until(until) => return,
            heard = heard => heard,
        };
        match heard {
            Ok(()) => {
                self.woken = true;
                self.tables.iter_mut().for_each(|table| table.has_rows = true);
            }
            Err(_) => self.leave_jobs(),
        }
    }

    /// Looks at everything once.
    async fn look(&mut self) -> Result<Next, Trouble> {
        self.reach_primary().await?;
        self.note().await;
        if self.measure_at <= Instant::now() {
            self.measure().await?;
        }
        self.reach_jobs().await?;
        self.compare().await?;
        if !self.leads {
            self.follow().await?;
        }
        if !self.leads {
            return Ok(Next::Nothing);
        }
        let moved = self.move_rows().await;
        if !matches!(moved, Ok(Next::AtOnce | Next::Nothing)) {
            // Undoes what is open on either side.
            self.leave_primary();
            self.leave_jobs();
            return moved;
        }
        let next = moved?;
        if self.keep_at <= Instant::now() {
            let kept = self.keep_up().await;
            if kept.is_err() {
                self.leave_primary();
                self.leave_jobs();
            }
            kept?;
        }
        Ok(next)
    }

    // === The two sides ===

    /// Connects to the primary, if that is to be done, and sees what is installed there.
    async fn reach_primary(&mut self) -> Result<(), Trouble> {
        let server = self.servers[0].server();
        if self.primary.as_ref().is_some_and(|link| !link.is_of_use(&server)) {
            self.leave_primary();
        }
        if self.primary.is_some() {
            return Ok(());
        }
        let mut link = self.connect(0).await?;
        // A round looks its rows up by their keys, however many others have been there.
        link.ask("SET enable_hashjoin = off").await?;
        let side = tables::read_shape(&mut link, &self.settings.outgoing).await?;
        self.take_up(side)?;
        self.primary = Some(link);
        Ok(())
    }

    /// From now on the primary's tables are these.
    fn take_up(&mut self, side: Side) -> Result<(), Trouble> {
        if side.installed.is_empty() {
            self.outbox.set_ready(false);
            self.tables.clear();
            self.side = side;
            let hint = "run `bulkhead jobs init`";
            return Err(Trouble::NotReady(format!("the outbox is not installed on the primary: {hint}")));
        }
        // As long as the job database has not been seen, the primary's word is taken.
        let fits = self.compared.as_ref().is_none_or(Vec::is_empty);
        let is_guarded = !side.tables.iter().any(is_unguarded);
        self.outbox.set_ready(fits && is_guarded && missing(&side).is_empty());
        if self.side.is_alike(&side) {
            self.side = side;
            return Ok(());
        }
        self.tables.clear();
        let installed = side.tables.iter().filter(|table| side.installed.contains(&table.source()));
        for (at, table) in installed.enumerate() {
            self.tables.push(Queue::new(table.clone(), at, self.settings.batch));
        }
        let first = self.tables.len();
        let mirrored = side.mirrored.iter().enumerate();
        self.mirrors =
            mirrored.map(|(at, table)| Mirror::new(Statements::new(table.clone(), first + at))).collect();
        self.side = side;
        Ok(())
    }

    /// Connects to the job database, if that is to be done.
    async fn reach_jobs(&mut self) -> Result<(), Trouble> {
        let server = self.servers[1].server();
        if self.jobs.as_ref().is_some_and(|link| !link.is_of_use(&server)) {
            self.leave_jobs();
        }
        if self.jobs.is_none() {
            self.jobs = Some(self.connect(1).await?);
            self.compare_at = Instant::now();
        }
        Ok(())
    }

    async fn connect(&self, side: usize) -> Result<Link, Failure> {
        let member = &self.servers[side];
        let server = member.server();
        let place = member.take_check_place();
        if place.is_none() {
            return Err(Failure::Lost(format!(
                "server \"{0}\" has no place for the relay's connection: raise servers.{0}.max_connections",
                server.name
            )));
        }
        let silence = SILENCE_LEAST.max(self.settings.poll * 3);
        Link::connect(&server, member.limits().connect_timeout, silence, place).await
    }

    fn leave_primary(&mut self) {
        self.primary = None;
    }

    fn leave_jobs(&mut self) {
        self.jobs = None;
        self.leads = false;
        self.tables.iter_mut().for_each(|table| table.is_prepared = false);
    }

    /// Compares both sides, if it is time.
    async fn compare(&mut self) -> Result<(), Trouble> {
        if Instant::now() < self.compare_at {
            return Ok(());
        }
        let (Some(primary), Some(jobs)) = (&mut self.primary, &mut self.jobs) else { return Ok(()) };
        let read = rights::compare(primary, jobs, &self.settings.outgoing).await;
        if read.is_err() {
            self.leave_primary();
            self.leave_jobs();
        }
        let (here, found) = read?;
        let is_same = self.side.is_alike(&here);
        self.compared = Some(found.clone());
        self.take_up(here)?;
        if !found.is_empty() {
            self.leave_jobs();
            return Err(Trouble::NotReady(found.join("; ")));
        }
        // What is prepared there was for the tables as they were.
        if self.leads && !is_same {
            self.leave_jobs();
            self.reach_jobs().await?;
        }
        self.compare_at = Instant::now() + COMPARE_EVERY;
        Ok(())
    }

    // === Moving ===

    /// Tries to be the one that moves rows; else tells the one that is, if somebody has enqueued.
    async fn follow(&mut self) -> Result<(), Trouble> {
        let Some(jobs) = &mut self.jobs else { return Ok(()) };
        match leader::lead(jobs, self.woken).await {
            Ok(Leader::This) => {
                tracing::info!("this instance moves jobs from the primary to the job database");
                self.tables.iter_mut().for_each(|table| table.has_rows = true);
                self.leads = true;
                Ok(())
            }
            Ok(Leader::Another) => Ok(()),
            Ok(Leader::Stranger(who)) => Err(Trouble::NotReady(who)),
            Err(failure) => {
                self.leave_jobs();
                Err(failure.into())
            }
        }
    }

    /// Makes a round for each table that has rows, and is not put off. The one that fails comes last the next time.
    async fn move_rows(&mut self) -> Result<Next, Trouble> {
        let (Some(primary), Some(jobs)) = (&mut self.primary, &mut self.jobs) else {
            return Ok(Next::Nothing);
        };
        let Settings { batch, poll, .. } = self.settings;
        let mut next = Next::Nothing;
        let (count, first) = (self.tables.len(), self.turn);
        for at in (first..first + count).map(|at| at % count) {
            let table = &mut self.tables[at];
            let began = Instant::now();
            if !table.is_due(began) {
                continue;
            }
            self.turn = at + 1;
            match table.step(&self.outbox, primary, jobs, batch).await {
                Ok(_) => {}
                Err(failure @ Failure::Server { .. }) => {
                    table.put_off(&failure, began.elapsed(), poll);
                    if !failure.is_passing() {
                        next = Next::Anew;
                    }
                }
                Err(lost) => return Err(lost.into()),
            }
            if table.is_due(Instant::now()) && matches!(next, Next::Nothing) {
                next = Next::AtOnce;
            }
        }
        Ok(next)
    }

    /// Why some rows do not get on, if nothing else is in the way.
    fn kept(&self) -> Option<String> {
        let missing = missing(&self.side);
        if !missing.is_empty() {
            return Some(format!("{} is not installed: run `bulkhead jobs init`", missing.join(", ")));
        }
        let troubles: Vec<String> =
            self.tables.iter().filter_map(Queue::trouble).chain(former(&self.side)).collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Counts what waits on the primary.
    async fn measure(&mut self) -> Result<(), Trouble> {
        let Some(primary) = &mut self.primary else { return Ok(()) };
        let (mut waiting, mut lag) = (0, 0);
        let now = Instant::now();
        let measured = async {
            let is_installed = primary.ask(INSTALLED).await?.value(0, 0) == "t";
            let count = "SELECT pg_catalog.count(*) FROM bulkhead.outbox";
            let installed = if is_installed { Some(primary.ask(count).await?.number(0)) } else { None };
            for table in &mut self.tables {
                let (rows, waits) = table.measure(primary).await?;
                waiting += rows;
                lag = lag.max(waits);
            }
            Ok(installed)
        };
        let measured: Result<Option<u64>, Failure> = measured.await;
        match measured {
            Ok(Some(installed)) => {
                if installed != self.side.installed.len() as u64 {
                    self.compare_at = now;
                }
            }
            Ok(None) => {
                self.leave_primary();
                self.take_up(Side::default())?;
            }
            Err(failure) => {
                self.leave_primary();
                return Err(failure.into());
            }
        }
        self.outbox.set_waiting(waiting, lag);
        self.measure_at = Instant::now() + self.settings.poll;
        Ok(())
    }

    /// Does what is to be done now and then beside moving rows.
    async fn keep_up(&mut self) -> Result<(), Trouble> {
        let (Some(primary), Some(jobs)) = (&mut self.primary, &mut self.jobs) else { return Ok(()) };
        let tables = self.tables.iter().map(|table| &table.statements);
        let is_all = ledger::forget(primary, jobs, tables, self.settings.keep).await?;
        self.keep_at = Instant::now() + if is_all { self.settings.poll } else { LEDGER_PAUSE };
        for mirror in &mut self.mirrors {
            mirror.renew(primary, jobs).await?;
        }
        Ok(())
    }

    /// Says what is in the way, or that nothing is any more: once each, in the log and on the primary.
    async fn tell(&mut self, trouble: Option<String>) {
        if self.told.tell(trouble.as_deref()) {
            self.outbox.set_trouble(trouble.clone());
            self.unnoted = trouble;
        }
        self.note().await;
    }

    /// Notes on the primary what was in the way, as soon as it is reached: a failure may have cost the connection.
    async fn note(&mut self) {
        let (Some(trouble), Some(primary), false) =
            (&self.unnoted, &mut self.primary, self.side.installed.is_empty())
        else {
            return;
        };
        let note = format!(
            "UPDATE bulkhead.outbox SET last_error = {}, last_error_at = pg_catalog.now()",
            literal(trouble)
        );
        match primary.ask(&note).await {
            Ok(_) => self.unnoted = None,
            Err(_) => self.primary = None,
        }
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("settings", &self.settings)
            .field("leads", &self.leads)
            .finish_non_exhaustive()
    }
}
