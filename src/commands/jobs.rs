//! `bulkhead jobs`: what the outbox needs at both servers, and how it does.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use super::undo::undo;
use crate::{
    config::{Config, PRIMARY},
    outbox::{self, Failure, Link, Plan, Side},
    sql::Rules,
    startup::build::{rules, server_of},
};

/// One login, unless the server's URL says otherwise.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A session of this command ends by itself if nobody hears of it for so long.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

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

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// The configuration has no use for it, or the servers are not as they must be.
    #[error("{0}")]
    Unfit(String),
    /// A server did not do it.
    #[error("{0}")]
    Server(#[from] Failure),
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Both servers, and what is moved between them.
pub(super) struct Sides {
    pub(super) primary: Link,
    pub(super) jobs: Link,
    pub(super) here: Side,
    pub(super) there: Side,
    rules: Rules,
    /// The users that Bulkhead logs in as.
    users: [String; 2],
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

/// The places of the primary and of the job database among the servers.
pub(super) fn places(config: &Config) -> Result<[usize; 2], JobsError> {
    let place = |name: &str| {
        let pool = config.pools.iter().find(|pool| pool.name == name)?;
        pool.servers.first().copied()
    };
    match (place(PRIMARY), place("jobs")) {
        (Some(primary), Some(jobs)) if primary != jobs => Ok([primary, jobs]),
        _ => Err(JobsError::Unfit(
            "pools.jobs is not on another server than pools.primary: there is nothing to move between them"
                .to_owned(),
        )),
    }
}

pub(super) fn all_rules(config: &Config) -> Result<Rules, JobsError> {
    rules(config).map_err(|error| JobsError::Unfit(error.to_string()))
}

async fn connect(config: &Config, at: usize) -> Result<Link, JobsError> {
    let server = &config.servers[at];
    let limit = server.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let made: Result<_, _> = server_of(server, &Arc::default(), config.limits.tcp_user_timeout);
    let made = made.map_err(|problem| JobsError::Unfit(problem.to_string()))?;
    Ok(Link::connect(&Arc::new(made), limit, SILENCE, None).await?)
}

impl Sides {
    async fn connect(config: &Config) -> Result<Self, JobsError> {
        let rules = all_rules(config)?;
        let places = places(config)?;
        let mut primary = connect(config, places[0]).await?;
        let mut jobs = connect(config, places[1]).await?;
        let here = outbox::read(&mut primary, rules.outgoing()).await?;
        let there = outbox::read(&mut jobs, rules.outgoing()).await?;
        let users = places.map(|at| config.servers[at].user.clone());
        Ok(Self { primary, jobs, here, there, rules, users })
    }

    async fn plan(&mut self, with_rows: bool) -> Result<Plan, JobsError> {
        let mut rows = Vec::new();
        for table in &self.here.tables {
            let exists = outbox::has_rows(table);
            if self.primary.ask(&exists).await?.value(0, 0) == "t" {
                rows.push(table.source());
            }
        }
        let [primary, jobs] = &self.users;
        let plan = outbox::install(&self.here, &self.there, [primary, jobs], &rows, with_rows);
        fit(plan.with_guards(&self.here))
    }

    pub(super) async fn carry_out(&mut self, plan: &Plan) -> Result<(), JobsError> {
        for step in &plan.steps {
            let link = if step.on_primary { &mut self.primary } else { &mut self.jobs };
            link.ask(&step.sql()).await?;
        }
        Ok(())
    }
}

pub(super) fn fit(plan: Plan) -> Result<Plan, JobsError> {
    if plan.problems.is_empty() { Ok(plan) } else { Err(JobsError::Unfit(plan.problems.join("\n"))) }
}

/// A plan as SQL.
pub(super) fn text(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing is to be done\n".to_owned();
    }
    let mut text = String::new();
    for step in &plan.steps {
        let (side, rights) = if step.on_primary {
            (
                "the primary",
                "SELECT, UPDATE and DELETE on the tables that are moved, SELECT on their sequences and on tables that they name rows of",
            )
        } else {
            (
                "the job database",
                "SELECT and INSERT on the tables that are moved and on those that they name rows of, SELECT on their sequences, TEMPORARY on the database",
            )
        };
        let _ = writeln!(
            text,
            "-- On {side}. Needs CREATE on the database and the tables' owner; the relay's user needs {rights}.\n{}\n",
            step.sql()
        );
    }
    text
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
