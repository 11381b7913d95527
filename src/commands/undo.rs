//! `bulkhead jobs undo`: what waits on the primary is moved to the job database, and then the outbox is taken away. A job that
//! was committed is neither lost nor left behind: where one cannot be moved, nothing is taken away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sides::{JobsError, Sides, fit, text};
use crate::{
    config::Config,
    outbox::{self, COUNTED_MAX, Drain, Failure, Plan},
    sql::quote_literal,
};

/// The time within which all that waits is moved.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Instances that still moved jobs find out within their `outbox_poll`, and this; but they are waited for no longer than for
/// the second of these.
const NOTICE: Duration = Duration::from_secs(1);
const NOTICE_MAX: Duration = Duration::from_secs(30);

/// Between two attempts to take it away.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// SQLSTATE `raise_exception`: a step has found rows.
const RAISED: &str = "P0001";

/// Carries it out, or, if it is to be a `dry_run`, tells what would run.
pub(super) async fn undo(sides: &mut Sides, config: &Config, dry_run: bool) -> Result<String, JobsError> {
    let plan = sides.undoing().await?;
    if dry_run {
        return Ok(text(&plan));
    }
    let mut drain = Drain::new(&sides.here, config.jobs.outbox.batch);
    sides.take_away(&plan, &mut drain).await?;
    if drain.has_relay() && sides.here.has_schema {
        sleep((config.jobs.outbox.poll + NOTICE).min(NOTICE_MAX)).await;
        sides.look_behind().await?;
    }
    let moved = match drain.moved() {
        0 => String::new(),
        rows => format!("\nmoved to the job database before: {}", counted(rows, "row")),
    };
    Ok(text(&plan) + &moved + "\nthe outbox is taken away\n")
}

fn counted(count: u64, what: &str) -> String {
    let more = if count >= COUNTED_MAX { " or more" } else { "" };
    format!("{count}{more} {what}{}", if count == 1 { "" } else { "s" })
}

impl Sides {
    /// The plan that takes it away.
    async fn undoing(&mut self) -> Result<Plan, JobsError> {
        let strangers = self.strangers().await?;
        if !strangers.is_empty() {
            return Err(JobsError::Unfit(strangers.join("\n")));
        }
        let mut before = Vec::new();
        for (side, link, on_primary) in
            [(&self.here, &mut self.primary, true), (&self.there, &mut self.jobs, false)]
        {
            if !side.has_schema {
                continue;
            }
            let noted = "SELECT source_table, increment_before FROM bulkhead.outbox WHERE increment_before IS NOT NULL";
            let noted = link.ask(noted).await?;
            for at in 0..noted.rows.len() {
                let increment = noted.value(at, 1).parse().unwrap_or(1);
                before.push((on_primary, noted.value(at, 0).to_owned(), increment));
            }
        }
        fit(outbox::uninstall(&self.here, &self.there, &before))
    }

    /// Tables that were installed, are there, and are none of those that are known.
    async fn strangers(&mut self) -> Result<Vec<String>, JobsError> {
        let known = |source: &String| self.here.tables.iter().any(|table| table.source() == *source);
        let mut strangers = Vec::new();
        for source in self.here.installed.iter().filter(|source| !known(source)) {
            let exists = format!(
                "SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
                 WHERE pg_catalog.concat(n.nspname, '.', c.relname) = {}",
                quote_literal(source)
            );
            if !self.primary.ask(&exists).await?.rows.is_empty() {
                strangers.push(format!(
                    "{source} was installed and is on the primary, but no preset of this configuration has it: name its \
                     library in jobs.presets, so that what waits there can be moved"
                ));
            }
        }
        Ok(strangers)
    }

    /// Moves what waits, and takes the outbox away in the moment in which nothing does.
    async fn take_away(&mut self, plan: &Plan, drain: &mut Drain) -> Result<(), JobsError> {
        let until = Instant::now() + DRAIN_TIMEOUT;
        let problems = outbox::problems(&self.here, &self.there);
        loop {
            if self.here.has_schema {
                if problems.is_empty() {
                    drain.run(&mut self.primary, &mut self.jobs, until).await?;
                }
                let obstacles = self.obstacles(drain).await?;
                if !obstacles.is_empty() {
                    let all: Vec<String> = obstacles.into_iter().chain(problems).collect();
                    return Err(JobsError::Unfit(all.join("\n")));
                }
            }
            match self.carry_out(plan).await {
                // Some have come meanwhile.
                Err(JobsError::Server(Failure::Server { fields, .. }))
                    if fields.code == RAISED && Instant::now() < until =>
                {
                    self.primary.ask("ROLLBACK").await?;
                    sleep(LOOK_EVERY).await;
                }
                done => return done,
            }
        }
    }

    /// Rows that are in the way of taking it away.
    async fn obstacles(&mut self, drain: &Drain) -> Result<Vec<String>, JobsError> {
        let mut found = Vec::new();
        let status = outbox::status(&mut self.primary, None, &self.here).await?;
        for table in status.tables.iter().filter(|table| table.waiting > 0) {
            let by = if drain.has_relay() { "the relay has" } else { "they were" };
            let error = status.last_error.as_ref().map(|(error, at)| format!("; last error, {at}: {error}"));
            found.push(format!(
                "{} has rows that wait on the primary: {}, which {by} not moved within {DRAIN_TIMEOUT:?}; nothing was taken \
                 away{}",
                table.source,
                counted(table.waiting, "row"),
                error.unwrap_or_default()
            ));
        }
        let refused = self.primary.ask("SELECT pg_catalog.count(*) FROM bulkhead.refused").await?.number(0);
        if refused > 0 {
            found.push(format!(
                "bulkhead.refused has rows on the primary: {}, which the job database has refused; put them back, or delete \
                 them. Nothing was taken away",
                counted(refused, "job")
            ));
        }
        Ok(found)
    }

    /// Looks for rows that an instance has added before it has found out.
    async fn look_behind(&mut self) -> Result<(), JobsError> {
        let mut found = Vec::new();
        for table in self.here.tables.iter().filter(|table| table.call.is_none()) {
            if self.here.installed.contains(&table.source())
                && self.primary.ask(&outbox::has_rows(table)).await?.value(0, 0) == "t"
            {
                found.push(table.source());
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        Err(JobsError::Unfit(format!(
            "the outbox is taken away, but jobs were added on the primary behind it, to {}: write outbox = false and reload \
             each instance; then `bulkhead jobs init --with-rows` and `bulkhead jobs undo` move them",
            found.join(", ")
        )))
    }
}
