//! What is done around a move: saying what it will do, taking one away that has not switched, and what one has left.

use super::super::{install::Plan, link::Failure, tables};
use super::{
    catalog::{Moved, SCHEMA},
    fence,
    mover::Mover,
    schema,
    sides::{MoveError, Sides, transact},
    state::{self, Direction, Step},
};

/// The tables that rows have come into which were on their way back.
const COME_BACK: &str = "SELECT c.oid::pg_catalog.regclass FROM pg_catalog.pg_class AS c \
    WHERE c.relnamespace = pg_catalog.to_regnamespace('bulkhead_move') AND c.relkind = 'r' AND c.relname LIKE 'back\\_%'";

impl Mover<'_> {
    /// Has the outbox refuse what was the primary's own as long as it had the jobs.
    pub(super) async fn guard(&self, sides: &mut Sides) -> Result<(), Failure> {
        let here = tables::read(&mut sides.primary, self.rules.outgoing()).await?;
        for step in Plan::default().with_guards(&here).steps {
            transact(&mut sides.primary, &step.statements).await?;
        }
        Ok(())
    }

    /// Takes away a move that has not switched; the jobs stay where they are.
    pub async fn abort(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let Some(state) = state::read(&mut sides.primary).await? else {
            return Err(MoveError::Refused("no move is under way".to_owned()));
        };
        let tables = self.tables(&mut sides.primary).await?;
        let direction = state.direction;
        let has_switched =
            state.step >= Step::Follow && fence::is_closed(sides.from(direction), &tables).await?;
        if state.step == Step::Moved || has_switched {
            return Err(MoveError::Refused(
                "the switch has happened: run the move to its end, and then the other way".to_owned(),
            ));
        }
        self.instances.remember(state.paused);
        self.go_on_everywhere(&mut sides).await?;
        let take_away = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
        let undoing = schema::undoing(sides.to(direction)).await?;
        let mut target = Vec::new();
        match direction {
            Direction::ToJobs => {
                // Only what is there: it may be that nothing was made yet, or not all.
                let there = self.tables(&mut sides.jobs).await?;
                if !there.rows.is_empty() && fence::is_closed(&mut sides.jobs, &there).await? {
                    target.push(format!("TRUNCATE {}", there.relations()));
                }
                target.extend(fence::noted(&mut sides.jobs, false).await?);
                target.extend(fence::noted(&mut sides.jobs, true).await?);
                target.extend(there.all().map(fence::open));
                target.push(take_away.clone());
                self.undo(&mut sides, direction, &target, &undoing).await?;
                // With what notes changes there, also on tables that were made since.
                transact(&mut sides.primary, &[take_away]).await?;
            }
            Direction::Back => {
                transact(&mut sides.jobs, &[take_away]).await?;
                let come = sides.primary.ask(COME_BACK).await?.rows.into_iter().flatten().flatten();
                target.extend(come.map(|table| format!("DROP TABLE {table}")));
                target.push(format!("DROP TABLE IF EXISTS {SCHEMA}.progress, {SCHEMA}.resting"));
                target.push(schema::forget());
                target.push(state::begin(Direction::ToJobs, &tables.sources()));
                target.push(state::enter(Step::Moved));
                self.undo(&mut sides, direction, &target, &undoing).await?;
            }
        }
        (self.tell)("the move is taken away; the jobs are where they were");
        for instance in self.instances.paused() {
            (self.tell)(&format!(
                "the move has paused the instance at {instance}: RESUME jobs at its console has it go on"
            ));
        }
        Ok(())
    }

    /// Takes away what the move has at the target, and tables that it has made there, unless they are used.
    async fn undo(
        &mut self,
        sides: &mut Sides,
        direction: Direction,
        target: &[String],
        undoing: &[String],
    ) -> Result<(), MoveError> {
        let link = sides.to(direction);
        match transact(link, &[target, undoing].concat()).await {
            // Somebody has added rows, or something that needs them.
            Err(Failure::Server { fields, .. }) if !undoing.is_empty() && fields.code == "2BP01" => {
                transact(link, target).await?;
                let why = [fields.message, fields.detail.into_string()].join("; ");
                (self.tell)(&format!(
                    "the tables that the move has made stay: {}",
                    why.trim_end_matches("; ")
                ));
            }
            done => done?,
        }
        Ok(())
    }

    /// Takes away what a move that is done has left: the fences, the kept copies, the notes.
    pub async fn finish(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let state = state::read(&mut sides.primary).await?;
        if state.is_none_or(|state| state.step != Step::Moved) {
            return Err(MoveError::Refused("no move is done whose traces could be taken away".to_owned()));
        }
        let tables = self.tables(&mut sides.primary).await?;
        let mut statements: Vec<String> = tables.all().map(fence::open).collect();
        statements.push(format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"));
        transact(&mut sides.jobs, &statements).await?;
        transact(&mut sides.primary, &statements).await?;
        (self.tell)(
            "what the move has left is taken away: both sides take writes, and --back is not possible any more",
        );
        Ok(())
    }

    /// Tells what would be done, as SQL; or why it may not be.
    pub async fn plan(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let known = state::read(&mut sides.primary).await?;
        let tables = self.tables(&mut sides.primary).await?;
        let step = self.first_step(known.as_ref(), &tables)?;
        let (mut tables, mut made) = (tables, None);
        if step == Step::Prepare {
            let making = self.look_for_obstacles(&mut sides, &tables).await?;
            tables = self.tables(sides.from(self.direction())).await?;
            made = Some(making);
        }
        let target = self.target_statements(&mut sides, &tables, made.as_ref()).await?;
        let source: Vec<String> = tables.rows.iter().flat_map(Moved::note).collect();
        let (from, to) = match self.direction() {
            Direction::ToJobs => ("the primary", "the job database"),
            Direction::Back => ("the job database", "the primary"),
        };
        let rights = "Needs CREATE on the database, TEMPORARY, and the tables' owner";
        if let Some(making) = made.filter(|making| !making.is_empty()) {
            let statements = making.statements().join(";\n");
            (self.tell)(&format!("-- prepare, on {to}: what is missing there. {rights}.\n{statements};\n"));
        }
        (self.tell)(&format!("-- prepare, on {to}. {rights}.\n{};\n", target.join(";\n")));
        (self.tell)(&format!("-- prepare, on {from}. {rights}.\n{};\n", source.join(";\n")));
        for table in &tables.rows {
            let rows = format!("SELECT pg_catalog.count(*) FROM {}", table.relation());
            let rows = sides.from(self.direction()).ask(&rows).await?.number(0);
            (self.tell)(&format!("-- copy and follow: {}, {rows} rows", table.source()));
        }
        let max_pause = self.options.max_pause;
        (self.tell)(&format!(
            "-- switch: writes wait for {max_pause:?} at most; {from} is emptied, and keeps a copy"
        ));
        Ok(())
    }
}
