//! What is done around a move: saying what it will do, taking one away that has not switched, and what one has left.

use super::super::{install::Plan, link::Failure, tables};
use super::{
    catalog::{self, Moved, SCHEMA},
    fence,
    mover::Mover,
    sides::{MoveError, Sides, transact},
    state::{self, Direction, Step},
};

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
        let tables = catalog::read(&mut sides.primary, self.rules).await?;
        let direction = state.direction;
        let has_switched =
            state.step >= Step::Follow && fence::is_closed(sides.from(direction), &tables).await?;
        if state.step == Step::Moved || has_switched {
            return Err(MoveError::Refused(
                "the switch has happened: run the move to its end, and then the other way".to_owned(),
            ));
        }
        let source: Vec<String> = tables.iter().flat_map(Moved::forget).collect();
        transact(sides.from(direction), &source).await?;
        let mut target = Vec::new();
        match direction {
            Direction::ToJobs => {
                if fence::is_closed(&mut sides.jobs, &tables).await? {
                    let relations: Vec<String> = tables.iter().map(Moved::relation).collect();
                    target.push(format!("TRUNCATE {}", relations.join(", ")));
                }
                target.extend(fence::noted(&mut sides.jobs, false).await?);
                target.extend(fence::noted(&mut sides.jobs, true).await?);
                target.extend(tables.iter().map(fence::open));
                target.push(format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"));
                transact(&mut sides.jobs, &target).await?;
                sides.primary.ask(&format!("DROP SCHEMA {SCHEMA} CASCADE")).await?;
            }
            Direction::Back => {
                target.extend(tables.iter().map(Moved::drop_back));
                target.push(format!("DROP TABLE IF EXISTS {SCHEMA}.progress, {SCHEMA}.resting"));
                let names: Vec<String> = tables.iter().map(Moved::source).collect();
                target.push(state::begin(Direction::ToJobs, &names));
                target.push(state::enter(Step::Moved));
                transact(&mut sides.primary, &target).await?;
            }
        }
        (self.tell)("the move is taken away; the jobs are where they were");
        Ok(())
    }

    /// Takes away what a move that is done has left: the fences, the kept copies, the notes.
    pub async fn finish(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let state = state::read(&mut sides.primary).await?;
        if state.is_none_or(|state| state.step != Step::Moved) {
            return Err(MoveError::Refused("no move is done whose traces could be taken away".to_owned()));
        }
        let tables = catalog::read(&mut sides.primary, self.rules).await?;
        let mut statements: Vec<String> = tables.iter().map(fence::open).collect();
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
        let tables = catalog::read(&mut sides.primary, self.rules).await?;
        let step = self.first_step(known.as_ref(), &tables)?;
        if step == Step::Prepare {
            self.look_for_obstacles(&mut sides, &tables).await?;
        }
        let target = self.target_statements(&mut sides, &tables).await?;
        let source: Vec<String> = tables.iter().flat_map(Moved::note).collect();
        let (from, to) = match self.direction() {
            Direction::ToJobs => ("the primary", "the job database"),
            Direction::Back => ("the job database", "the primary"),
        };
        let rights = "Needs CREATE on the database, TEMPORARY, and the tables' owner";
        (self.tell)(&format!("-- prepare, on {to}. {rights}.\n{};\n", target.join(";\n")));
        (self.tell)(&format!("-- prepare, on {from}. {rights}.\n{};\n", source.join(";\n")));
        for table in &tables {
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
