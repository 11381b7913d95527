//! `bulkhead jobs`: what the outbox needs at both servers, and how it does.

use std::fmt::Write as _;

pub use super::sides::JobsError;
use super::{
    sides::{Sides, all_rules, connect, places, text},
    undo::undo,
};
use crate::{config::Config, outbox};

/// The task of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Print what [`Task::Init`] would run.
    Plan {
        /// Rows that are on the primary already may be moved.
        with_rows: bool,
    },
    /// Make what the outbox needs.
    Init {
        /// The same as for the plan.
        with_rows: bool,
    },
    /// Tell how it does.
    Status,
    /// Compare what the library has on both sides.
    Verify,
    /// Take it away.
    Undo {
        /// Only print what would run.
        dry_run: bool,
    },
}

/// Carries it out; returns what is to be told.
pub fn run(config: &Config, task: Task) -> Result<String, JobsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match task {
            Task::Status => status(config).await,
            Task::Plan { with_rows } => Ok(text(&Sides::connect(config).await?.plan(with_rows).await?)),
            Task::Init { with_rows } => {
                let mut sides = Sides::connect(config).await?;
                let plan = sides.plan(with_rows).await?;
                sides.carry_out(&plan).await?;
                Ok(text(&plan) + &ending(config, "the outbox is installed"))
            }
            Task::Verify => verify(config).await,
            Task::Undo { dry_run } => undo(&mut Sides::connect(config).await?, config, dry_run).await,
        }
    })
}

fn ending(config: &Config, done: &str) -> String {
    let hint = if config.jobs.outbox.enabled { "" } else { "; write outbox = true in [jobs] to use it" };
    format!("\n{done}{hint}\n")
}

async fn status(config: &Config) -> Result<String, JobsError> {
    let rules = all_rules(config)?;
    let [primary, jobs] = places(config)?;
    let mut link = connect(config, primary).await?;
    let moving = outbox::moving::read_state(&mut link).await?;
    let is_relayed = moving.as_ref().is_none_or(outbox::moving::State::is_relayed);
    let moving = moving.map_or(String::new(), |state| state.to_string());
    let side = outbox::read(&mut link, rules.outgoing()).await?;
    if !is_relayed || (side.installed.is_empty() && !moving.is_empty()) {
        return Ok(moving);
    }
    if side.installed.is_empty() {
        return Err(JobsError::Unfit("the outbox is not installed: run `bulkhead jobs init`".to_owned()));
    }
    let (mut jobs, away) = match connect(config, jobs).await {
        Ok(link) => (Some(link), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let status = outbox::status(&mut link, jobs.as_mut(), &side).await?;
    Ok(table(&status, away.as_deref()) + &moving)
}

fn table(status: &outbox::Status, away: Option<&str>) -> String {
    let mut text = format!(
        "{:<32} {:>10} {:>10} {:>12} {:>10} {:>8}\n",
        "table", "waiting", "oldest", "relayed", "conflicts", "refused"
    );
    let known = |number: Option<u64>| number.map_or("?".to_owned(), |number| number.to_string());
    for of in &status.tables {
        let oldest = match (of.waiting, of.lag_millis) {
            (0, _) => "-".to_owned(),
            (_, Some(lag)) => format!("{:.1} s", lag as f64 / 1000.0),
            (_, None) => "?".to_owned(),
        };
        let more = if of.waiting >= outbox::COUNTED_MAX { "+" } else { "" };
        let _ = writeln!(
            text,
            "{:<32} {:>10} {oldest:>10} {:>12} {:>10} {:>8}",
            of.source,
            format!("{}{more}", of.waiting),
            known(of.relayed),
            known(of.conflicts),
            of.refused
        );
        if let Some(refusal) = &of.last_refusal {
            let _ = writeln!(text, "  last refused: {refusal}");
        }
    }
    let nobody = || if away.is_some() { "not known" } else { "nobody" }.to_owned();
    let _ = writeln!(text, "relayed by   {}", status.relay.clone().unwrap_or_else(nobody));
    if let Some(former) = &status.former {
        let _ = writeln!(text, "outdated     {former}");
    }
    if let Some((error, at)) = &status.last_error {
        let _ = writeln!(text, "last error   {at}: {error}");
    }
    if let Some(away) = away {
        let _ = writeln!(text, "job database {away}");
    }
    text
}

async fn verify(config: &Config) -> Result<String, JobsError> {
    let mut sides = Sides::connect(config).await?;
    let drift = outbox::drift(&mut sides.primary, &mut sides.jobs, &sides.rules).await?;
    let mut found = outbox::problems(&sides.here, &sides.there);
    if sides.here.installed.is_empty() {
        found.push("the outbox is not installed".to_owned());
    }
    found.extend(outbox::former(&sides.here));
    found.extend(drift.lines);
    if found.is_empty() {
        Ok(format!(
            "both sides are alike: {} columns, indexes, constraints and types compared\n",
            drift.compared
        ))
    } else {
        Err(JobsError::Unfit(found.join("\n")))
    }
}
