//! Both servers of the jobs, as a command finds them, and what is to be done at them.

use std::{fmt::Write as _, sync::Arc, time::Duration};

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
    pub(super) rules: Rules,
    /// The users that Bulkhead logs in as.
    users: [String; 2],
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

pub(super) async fn connect(config: &Config, at: usize) -> Result<Link, JobsError> {
    let server = &config.servers[at];
    let limit = server.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let made: Result<_, _> = server_of(server, &Arc::default(), config.limits.tcp_user_timeout);
    let made = made.map_err(|problem| JobsError::Unfit(problem.to_string()))?;
    Ok(Link::connect(&Arc::new(made), limit, SILENCE, None).await?)
}

impl Sides {
    pub(super) async fn connect(config: &Config) -> Result<Self, JobsError> {
        let rules = all_rules(config)?;
        let places = places(config)?;
        let mut primary = connect(config, places[0]).await?;
        let mut jobs = connect(config, places[1]).await?;
        let here = outbox::read(&mut primary, rules.outgoing()).await?;
        let there = outbox::read(&mut jobs, rules.outgoing()).await?;
        let users = places.map(|at| config.servers[at].user.clone());
        Ok(Self { primary, jobs, here, there, rules, users })
    }

    pub(super) async fn plan(&mut self, with_rows: bool) -> Result<Plan, JobsError> {
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
