//! The first step: what is in the way is told; what is missing at the target, and what a move itself needs, is made.

use super::super::{
    drift::{drift_of, lines_of},
    install::install,
    link::{Failure, Link},
    tables,
    text::literal,
};
use super::{
    catalog::{self, Moved, SCHEMA, Tables},
    fence::{self, Closed},
    mover::Mover,
    schema::{self, Making},
    sides::{MoveError, Sides, transact},
    state::{self, Direction, Step},
};

impl Mover<'_> {
    /// Makes everything ready; gives the tables as they are then.
    pub(super) async fn prepare(&mut self, sides: &mut Sides, tables: Tables) -> Result<Tables, MoveError> {
        // Before they are compared and made: what is changed from here on is noticed in the pause.
        let facts = self.facts(sides.from(self.direction())).await?;
        let making = self.look_for_obstacles(sides, &tables).await?;
        (self.tell)(&format!("prepare   {}", tables.sources().join(", ")));
        let [schema, table] = state::make();
        let begin = state::begin(self.direction(), &tables.sources());
        transact(&mut sides.primary, &[schema, table, begin]).await?;
        let tables = self.make(sides, tables, &making).await?;
        let target = self.target_statements(sides, &tables, None).await?;
        transact(sides.to(self.direction()), &target).await?;
        if self.direction() == Direction::ToJobs && self.options.has_outbox {
            self.install(sides).await?;
        }
        sides.primary.ask(&state::note_facts(&facts)).await?;
        // A table at a time: a writer waits for one lock.
        let mut source = vec![format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}")];
        for table in &tables.rows {
            source.extend(table.note());
            transact(sides.from(self.direction()), &source).await?;
            source.clear();
        }
        sides.primary.ask(&state::enter(Step::Copy)).await?;
        Ok(tables)
    }

    async fn facts(&self, link: &mut Link) -> Result<Vec<String>, Failure> {
        lines_of(link, &|schema, table| self.rules.is_job_table(schema, table)).await
    }

    /// Makes the tables that the target lacks. Going back, the primary has more of them then.
    async fn make(
        &mut self,
        sides: &mut Sides,
        tables: Tables,
        making: &Making,
    ) -> Result<Tables, MoveError> {
        if making.is_empty() {
            return Ok(tables);
        }
        let direction = self.direction();
        let mut statements = making.statements();
        let wanted = self.tables(sides.from(direction)).await?;
        if direction == Direction::Back {
            // Those that are made now have no jobs either, as the others.
            statements.push(fence::make());
            let closed = Closed::Primary { has_outbox: self.options.has_outbox };
            let made = wanted.all().filter(|table| making.has(table));
            statements.extend(made.flat_map(|table| fence::close(table, closed)));
        }
        transact(sides.to(direction), &statements).await?;
        let [of_tables, others] = making.counts();
        (self.tell)(&format!(
            "prepare   made {of_tables} tables and {others} other things that were missing"
        ));
        if direction == Direction::ToJobs {
            return Ok(tables);
        }
        let tables = self.tables(&mut sides.primary).await?;
        sides.primary.ask(&state::begin(direction, &tables.sources())).await?;
        Ok(tables)
    }

    /// Refuses what cannot be moved; tells what is to be made.
    pub(super) async fn look_for_obstacles(
        &self,
        sides: &mut Sides,
        tables: &Tables,
    ) -> Result<Making, MoveError> {
        let direction = self.direction();
        let wanted = self.tables(sides.from(direction)).await?;
        let mut obstacles = catalog::obstacles(sides.from(direction), &wanted).await?;
        obstacles.extend(sides.encodings().await?.into_iter().filter_map(|both| {
            // Of its texts nobody knows what they are in.
            let is_unknown = both.iter().any(|encoding| encoding == "SQL_ASCII");
            let [primary, jobs] = both;
            is_unknown.then(|| format!("the primary's encoding is {primary}, and the job database's {jobs}"))
        }));
        // In the job database triggers and references rest already if it has begun.
        let is_begun = direction == Direction::ToJobs
            && !tables.rows.is_empty()
            && fence::is_closed(&mut sides.jobs, tables).await?;
        let names = match direction {
            Direction::ToJobs => ["on the primary", "in the job database"],
            Direction::Back => ["in the job database", "on the primary"],
        };
        let (from, to) = sides.ends(direction);
        let making = schema::missing(from, to, self.rules, names).await?;
        let there = self.tables(to).await?;
        obstacles.extend(making.problems.iter().cloned());
        if !is_begun {
            obstacles.extend(making.differences.iter().cloned());
            let new: Vec<[String; 2]> = wanted
                .all()
                .filter(|table| making.has(table))
                .map(|table| [table.schema.clone(), table.name.clone()])
                .collect();
            let is_compared = |schema: &str, name: &str| {
                self.rules.is_job_table(schema, name) && !new.iter().any(|[s, n]| s == schema && n == name)
            };
            obstacles.extend(drift_of(&mut sides.primary, &mut sides.jobs, &is_compared).await?.lines);
            // A partition whose queue was deleted over there.
            let gone = there.rows.iter().filter(|table| wanted.find(&table.source).is_none());
            let gone = gone.filter(|_| direction == Direction::Back);
            obstacles.extend(gone.map(|table| format!("{} is missing in the job database", table.source)));
            if direction == Direction::ToJobs && obstacles.is_empty() {
                obstacles.extend(rows_there(&mut sides.jobs, &there).await?);
            }
        }
        if obstacles.is_empty() { Ok(making) } else { Err(MoveError::Refused(obstacles.join("\n"))) }
    }

    /// Statements that make what a move needs at the target; as they will be, if some of its tables are still to be made.
    pub(super) async fn target_statements(
        &self,
        sides: &mut Sides,
        tables: &Tables,
        making: Option<&Making>,
    ) -> Result<Vec<String>, Failure> {
        let mut statements = vec![
            format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {SCHEMA}.progress (source_table pg_catalog.text PRIMARY KEY, \
                 last_key pg_catalog.text[], rows pg_catalog.int8 NOT NULL DEFAULT 0, \
                 is_done pg_catalog.bool NOT NULL DEFAULT false)"
            ),
            fence::make_notes(),
        ];
        for table in &tables.rows {
            statements.push(format!(
                "INSERT INTO {SCHEMA}.progress (source_table) VALUES ({}) ON CONFLICT DO NOTHING",
                literal(&table.source())
            ));
        }
        match self.direction() {
            Direction::ToJobs => {
                statements.push(fence::make());
                statements.extend(tables.all().flat_map(|table| fence::close(table, Closed::JobsBefore)));
                let is_new = |table: &&Moved| making.is_some_and(|making| making.has(table));
                let (new, there): (Vec<&Moved>, Vec<&Moved>) = tables.all().partition(is_new);
                for rest in [
                    fence::rest(&mut sides.jobs, &there).await?,
                    fence::rest(&mut sides.primary, &new).await?,
                ] {
                    statements.extend(rest.note());
                    statements.extend(rest.begin);
                }
            }
            Direction::Back => statements.extend(tables.rows.iter().flat_map(Moved::make_back)),
        }
        Ok(statements)
    }

    /// The outbox, whose relay finds the job database closed until it has the jobs.
    async fn install(&mut self, sides: &mut Sides) -> Result<(), MoveError> {
        let outgoing = self.rules.outgoing();
        let here = tables::read(&mut sides.primary, outgoing).await?;
        let there = tables::read(&mut sides.jobs, outgoing).await?;
        let rows: Vec<String> = here.tables.iter().map(tables::Table::source).collect();
        let users = [self.servers[0].user.as_str(), self.servers[1].user.as_str()];
        let plan = install(&here, &there, users, &rows, true);
        if !plan.problems.is_empty() {
            return Err(MoveError::Refused(plan.problems.join("\n")));
        }
        for step in &plan.steps {
            let link = if step.on_primary { &mut sides.primary } else { &mut sides.jobs };
            transact(link, &step.statements).await?;
        }
        Ok(())
    }
}

/// A target that has jobs of its own.
async fn rows_there(jobs: &mut Link, tables: &Tables) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for table in &tables.rows {
        let any = format!("SELECT EXISTS (SELECT FROM {})", table.relation());
        if jobs.ask(&any).await?.value(0, 0) == "t" {
            found.push(format!("{} has rows in the job database already", table.source()));
        }
    }
    Ok(found)
}
