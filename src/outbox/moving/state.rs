//! How far a move is, as the primary has it noted.

use super::super::{
    link::{Failure, Link},
    text::{array, literal},
};
use super::catalog::SCHEMA;

/// Which way the tables go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the primary to the job database.
    ToJobs,
    /// From the job database to the primary.
    Back,
}

/// A step of a move. Each one is begun again where it was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Triggers and tables are being made.
    Prepare,
    /// Rows are being copied.
    Copy,
    /// Changes are being carried over.
    Follow,
    /// The pause.
    Switch,
    /// The source has given its jobs away; the target does not take writes yet.
    Open,
    /// All is done.
    Moved,
}

/// How far a move is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which way.
    pub direction: Direction,
    /// How far.
    pub step: Step,
    /// The tables, as `schema.table`.
    pub tables: Vec<String>,
    /// When the step was begun.
    pub since: String,
    /// The last thing that was in the way, if anything was.
    pub note: Option<String>,
    /// How long the last switch has kept everybody waiting, in milliseconds.
    pub pause_millis: Option<u64>,
    /// Instances that a move has paused, and not told to go on, by where their consoles are.
    pub paused: Vec<String>,
    /// All that the source's tables had when the move was begun, a line each.
    pub facts: Vec<String>,
    /// Changes that were noted and not carried over yet: those on the primary.
    pub waiting: Option<u64>,
}

const STEPS: [(Step, &str); 6] = [
    (Step::Prepare, "prepare"),
    (Step::Copy, "copy"),
    (Step::Follow, "follow"),
    (Step::Switch, "switch"),
    (Step::Open, "open"),
    (Step::Moved, "moved"),
];

impl Step {
    /// The name that the table on the primary has it by.
    pub fn name(self) -> &'static str {
        STEPS.iter().find(|(step, _)| *step == self).map_or("", |(_, name)| name)
    }
}

impl Direction {
    /// The name that the table on the primary has it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::ToJobs => "to jobs",
            Self::Back => "back",
        }
    }
}

/// Statements that make the schema and the table, and do nothing where they are.
pub(super) fn make() -> [String; 2] {
    [
        format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {SCHEMA}.state (one pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (one), \
             direction pg_catalog.text NOT NULL, step pg_catalog.text NOT NULL, tables pg_catalog.text[] NOT NULL, \
             since pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), note pg_catalog.text, \
             pause_millis pg_catalog.int8, paused pg_catalog.text[] NOT NULL DEFAULT '{{}}', \
             facts pg_catalog.text[] NOT NULL DEFAULT '{{}}')"
        ),
    ]
}

/// A statement that notes the beginning.
pub(super) fn begin(direction: Direction, tables: &[String]) -> String {
    format!(
        "INSERT INTO {SCHEMA}.state (direction, step, tables) VALUES ({}, 'prepare', {}) ON CONFLICT (one) DO UPDATE SET \
         direction = EXCLUDED.direction, step = EXCLUDED.step, tables = EXCLUDED.tables, since = EXCLUDED.since, note = NULL",
        literal(direction.name()),
        array(tables)
    )
}

/// A statement that notes that a step is begun.
pub(super) fn enter(step: Step) -> String {
    format!(
        "UPDATE {SCHEMA}.state SET step = {0}, since = CASE WHEN step = {0} THEN since ELSE pg_catalog.now() END",
        literal(step.name())
    )
}

/// A statement that notes that something was in the way.
pub(super) fn remark(what: &str) -> String {
    format!("UPDATE {SCHEMA}.state SET note = {}", literal(what))
}

/// A statement that notes how long the pause was, and that nothing is in the way any more.
pub(super) fn note_pause(millis: u128) -> String {
    format!("UPDATE {SCHEMA}.state SET pause_millis = {millis}, note = NULL")
}

/// A statement that notes the instances that are paused.
pub(super) fn note_paused(instances: &[String]) -> String {
    format!("UPDATE {SCHEMA}.state SET paused = {}", array(instances))
}

/// A statement that notes what the source's tables have.
pub(super) fn note_facts(facts: &[String]) -> String {
    format!("UPDATE {SCHEMA}.state SET facts = {}", array(facts))
}

/// Reads it from the primary; `None` if nothing was ever begun.
pub async fn read(primary: &mut Link) -> Result<Option<State>, Failure> {
    let exists = format!("SELECT pg_catalog.to_regclass('{SCHEMA}.state') IS NOT NULL");
    if primary.ask(&exists).await?.value(0, 0) != "t" {
        return Ok(None);
    }
    let reply = primary
        .ask(&format!("SELECT direction, step, since, note, pause_millis FROM {SCHEMA}.state"))
        .await?;
    if reply.rows.is_empty() {
        return Ok(None);
    }
    let direction = if reply.value(0, 0) == "back" { Direction::Back } else { Direction::ToJobs };
    let step =
        STEPS.iter().find(|(_, name)| *name == reply.value(0, 1)).map_or(Step::Prepare, |(step, _)| *step);
    let tables = texts(primary, "tables").await?;
    let paused = texts(primary, "paused").await?;
    let facts = texts(primary, "facts").await?;
    let waiting = waiting(primary, tables.len()).await?;
    Ok(Some(State {
        direction,
        step,
        tables,
        since: reply.value(0, 2).to_owned(),
        note: Some(reply.value(0, 3).to_owned()).filter(|note| !note.is_empty()),
        pause_millis: reply.value(0, 4).parse().ok(),
        paused,
        facts,
        waiting,
    }))
}

/// Texts that are noted, whatever is in them.
async fn texts(primary: &mut Link, column: &str) -> Result<Vec<String>, Failure> {
    let sql = format!(
        "SELECT u.text FROM {SCHEMA}.state, pg_catalog.unnest({column}) WITH ORDINALITY AS u (text, n) ORDER BY u.n"
    );
    Ok(primary.ask(&sql).await?.rows.into_iter().flatten().flatten().collect())
}

async fn waiting(primary: &mut Link, tables: usize) -> Result<Option<u64>, Failure> {
    let mut waiting = None;
    for at in 0..tables {
        let changes = format!("{SCHEMA}.change_{at}");
        let exists = format!("SELECT pg_catalog.to_regclass('{changes}') IS NOT NULL");
        if primary.ask(&exists).await?.value(0, 0) == "t" {
            let count = primary.ask(&format!("SELECT pg_catalog.count(*) FROM {changes}")).await?.number(0);
            waiting = Some(waiting.unwrap_or(0) + count);
        }
    }
    Ok(waiting)
}

impl State {
    /// Whether rows of the primary's tables are on their way to the job database, and not jobs that are there.
    pub fn is_relayed(&self) -> bool {
        match self.direction {
            Direction::ToJobs => self.step >= Step::Open,
            Direction::Back => self.step < Step::Open,
        }
    }
}

impl std::fmt::Display for State {
    /// A line, and one for what is in the way.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match self.direction {
            Direction::ToJobs => "to the job database",
            Direction::Back => "back to the primary",
        };
        write!(f, "move         {way}: {}, since {}", self.step.name(), self.since)?;
        if let Some(waiting) = self.waiting.filter(|_| self.step < Step::Open) {
            write!(f, "; {waiting} changes wait")?;
        }
        if let Some(pause) = self.pause_millis.filter(|_| self.step >= Step::Open) {
            write!(f, "; nobody could write for {pause} ms")?;
        }
        writeln!(f)?;
        if !self.paused.is_empty() {
            writeln!(f, "  paused by the move: {}", self.paused.join(", "))?;
        }
        self.note.as_ref().map_or(Ok(()), |note| writeln!(f, "  in the way: {note}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_told_by_its_step() {
        let state = State {
            direction: Direction::ToJobs,
            step: Step::Follow,
            tables: vec!["public.oban_jobs".to_owned()],
            since: "today".to_owned(),
            note: Some("no lock".to_owned()),
            pause_millis: None,
            paused: Vec::new(),
            facts: Vec::new(),
            waiting: Some(3),
        };
        assert_eq!(
            state.to_string(),
            "move         to the job database: follow, since today; 3 changes wait\n  in the way: no lock\n"
        );
        let moved = State { step: Step::Moved, note: None, pause_millis: Some(41), ..state };
        assert_eq!(
            moved.to_string(),
            "move         to the job database: moved, since today; nobody could write for 41 ms\n"
        );
    }
}
