//! The steps of a move, in order, each of which may be begun again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::super::{
    drift::drift,
    install::{install, unguard},
    link::{Failure, Link},
    relay::LOCK,
    tables,
    text::literal,
};
use super::{
    carry::{self, Within},
    catalog::{self, Moved, SCHEMA},
    fence::{self, APPLICATION_NAME, Closed},
    instances::Instances,
    sides::{MoveError, Sides, code, is_too_late, transact},
    state::{self, Direction, State, Step},
    switch::{Ending, Switch},
};
use crate::{backend::Server, sql::Rules};

/// The advisory lock of a move, on both servers.
const MOVE_LOCK: i64 = LOCK + 1;

/// How often the switch is tried, with a pause in between in which everybody gets on.
const SWITCHES: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// Connections are made anew so often in a row.
const RECONNECTS: u32 = 10;

/// Changes that may still wait when the pause begins.
const CALM: u64 = 50;

/// Rounds in which changes must become fewer.
const ROUNDS: usize = 500;

/// The move that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which way.
    pub direction: Direction,
    /// How long everybody may be kept waiting.
    pub max_pause: Duration,
    /// Jobs are written on the primary in an application's transaction, and relayed.
    pub has_outbox: bool,
}

/// A move, as a command carries it out.
pub struct Mover<'m> {
    /// The primary, and the job database.
    pub servers: [Arc<Server>; 2],
    /// One login.
    pub connect_timeout: Duration,
    /// A connection of a command that has vanished is closed after this.
    pub silence: Duration,
    /// The rules that tell job tables.
    pub rules: &'m Rules,
    /// The move that is asked for.
    pub options: Options,
    /// Instances that hold job statements back.
    pub instances: Instances,
    /// Told what is done.
    pub tell: &'m mut dyn FnMut(&str),
}

impl Mover<'_> {
    /// Moves the tables, from wherever an earlier move was left.
    pub async fn run(&mut self) -> Result<(), MoveError> {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            match self.go_on().await {
                Err(MoveError::Failed(failure)) if is_passing(&failure) && failures < RECONNECTS => {
                    failures = if begun.elapsed() > BETWEEN * 10 { 1 } else { failures + 1 };
                    (self.tell)(&format!("{failure}; again"));
                    sleep(BETWEEN).await;
                }
                ended => return ended,
            }
        }
    }

    pub(super) fn direction(&self) -> Direction {
        self.options.direction
    }

    /// The source's state when it has given its jobs away.
    fn closed_source(&self) -> Closed {
        match self.direction() {
            Direction::ToJobs => Closed::Primary { has_outbox: self.options.has_outbox },
            Direction::Back => Closed::JobsAfter,
        }
    }

    async fn link(&self, side: usize) -> Result<Link, Failure> {
        let mut link = Link::connect(&self.servers[side], self.connect_timeout, self.silence, None).await?;
        // Whole tables are read here.
        let settings = format!("SET application_name = '{APPLICATION_NAME}'; SET enable_seqscan = on");
        link.ask(&settings).await?;
        Ok(link)
    }

    /// Both servers, if no other move is under way.
    pub(super) async fn connect(&self) -> Result<Sides, MoveError> {
        let mut sides = Sides { primary: self.link(0).await?, jobs: self.link(1).await? };
        for link in [&mut sides.primary, &mut sides.jobs] {
            let mut tries = 0;
            while link.ask(&format!("SELECT pg_catalog.pg_try_advisory_lock({MOVE_LOCK})")).await?.value(0, 0)
                != "t"
            {
                tries += 1;
                if tries == 10 {
                    let server = link.server();
                    return Err(MoveError::Refused(format!(
                        "another `bulkhead jobs move` is at work at server \"{server}\""
                    )));
                }
                sleep(BETWEEN / 2).await;
            }
        }
        Ok(sides)
    }

    async fn go_on(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let known = state::read(&mut sides.primary).await?;
        let tables = catalog::read(&mut sides.primary, self.rules).await?;
        let step = self.first_step(known.as_ref(), &tables)?;
        if step == Step::Moved {
            (self.tell)("nothing is to be done: the jobs are there");
            return Ok(());
        }
        if step == Step::Prepare {
            self.prepare(&mut sides, &tables).await?;
        }
        let has_switched =
            step >= Step::Follow && fence::is_closed(sides.from(self.direction()), &tables).await?;
        if !has_switched {
            self.stage(&mut sides, &tables).await?;
            sides = self.copy(sides, &tables).await?;
            sides = self.switch(sides, &tables).await?;
        }
        self.open(&mut sides, &tables).await
    }

    /// Where to go on.
    pub(super) fn first_step(&self, known: Option<&State>, tables: &[Moved]) -> Result<Step, MoveError> {
        let direction = self.direction();
        let Some(state) = known else {
            return match direction {
                Direction::ToJobs => Ok(Step::Prepare),
                Direction::Back => {
                    Err(MoveError::Refused("nothing was moved: nothing can be moved back".to_owned()))
                }
            };
        };
        if state.direction != direction {
            if state.step == Step::Moved {
                return Ok(Step::Prepare);
            }
            let (way, step) = (state.direction.name(), state.step.name());
            return Err(MoveError::Refused(format!(
                "a move {way} is under way (step {step}): run it to its end, or `bulkhead jobs move --abort`"
            )));
        }
        let sources: Vec<String> = tables.iter().map(Moved::source).collect();
        if state.tables != sources && state.step > Step::Prepare && state.step < Step::Moved {
            return Err(MoveError::Refused(format!(
                "the job tables are not those that the move began with ({}): `bulkhead jobs move --abort`, and begin anew",
                state.tables.join(", ")
            )));
        }
        Ok(state.step)
    }

    // === Prepare ===

    async fn prepare(&mut self, sides: &mut Sides, tables: &[Moved]) -> Result<(), MoveError> {
        self.look_for_obstacles(sides, tables).await?;
        let names: Vec<String> = tables.iter().map(Moved::source).collect();
        (self.tell)(&format!("prepare   {}", names.join(", ")));
        let [schema, table] = state::make();
        transact(&mut sides.primary, &[schema, table, state::begin(self.direction(), &names)]).await?;
        let target = self.target_statements(sides, tables).await?;
        transact(sides.to(self.direction()), &target).await?;
        if self.direction() == Direction::ToJobs && self.options.has_outbox {
            self.install(sides).await?;
        }
        // A table at a time: a writer waits for one lock.
        let mut source = vec![format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}")];
        for table in tables {
            source.extend(table.note());
            transact(sides.from(self.direction()), &source).await?;
            source.clear();
        }
        sides.primary.ask(&state::enter(Step::Copy)).await?;
        Ok(())
    }

    /// Refuses what cannot be moved.
    pub(super) async fn look_for_obstacles(
        &self,
        sides: &mut Sides,
        tables: &[Moved],
    ) -> Result<(), MoveError> {
        let mut obstacles = catalog::obstacles(&mut sides.primary, tables).await?;
        if self.direction() == Direction::ToJobs {
            let is_begun =
                !tables.is_empty() && fence::is_closed(&mut sides.jobs, tables).await.unwrap_or(false);
            if !is_begun {
                obstacles.extend(drift(&mut sides.primary, &mut sides.jobs, self.rules).await?.lines);
            }
            if !is_begun && obstacles.is_empty() {
                obstacles.extend(rows_there(&mut sides.jobs, tables).await?);
            }
        }
        if obstacles.is_empty() { Ok(()) } else { Err(MoveError::Refused(obstacles.join("\n"))) }
    }

    /// Statements that make what a move needs at the target.
    pub(super) async fn target_statements(
        &self,
        sides: &mut Sides,
        tables: &[Moved],
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
        for table in tables {
            statements.push(format!(
                "INSERT INTO {SCHEMA}.progress (source_table) VALUES ({}) ON CONFLICT DO NOTHING",
                literal(&table.source())
            ));
        }
        match self.direction() {
            Direction::ToJobs => {
                statements.push(fence::make());
                for table in tables {
                    statements.extend(fence::close(table, Closed::JobsBefore));
                }
                let rest = fence::rest(&mut sides.jobs, tables).await?;
                statements.extend(rest.note());
                statements.extend(rest.begin);
            }
            Direction::Back => statements.extend(tables.iter().flat_map(Moved::make_back)),
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

    // === Copy and follow ===

    /// Where rows come in, on a new connection.
    async fn stage(&self, sides: &mut Sides, tables: &[Moved]) -> Result<(), Failure> {
        for table in tables {
            sides.to(self.direction()).ask(&table.make_stage()).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, mut sides: Sides, tables: &[Moved]) -> Result<Sides, MoveError> {
        let begun = Instant::now();
        let mut copied = 0;
        for table in tables {
            copied += carry::copy(&mut sides, self.direction(), table).await?;
        }
        if copied > 0 {
            (self.tell)(&format!("copy      {copied} rows in {:.1} s", begun.elapsed().as_secs_f64()));
        }
        sides.primary.ask(&state::enter(Step::Follow)).await?;
        Ok(sides)
    }

    /// Carries changes over until few are left.
    async fn follow(&mut self, sides: &mut Sides, tables: &[Moved]) -> Result<(), MoveError> {
        let mut carried = 0;
        for _ in 0..ROUNDS {
            let rows = carry::all_changes(sides, self.direction(), tables, Within::Itself).await?;
            if carry::begin_anew(sides, self.direction(), tables).await? {
                for table in tables {
                    carry::copy(sides, self.direction(), table).await?;
                }
                continue;
            }
            carried += rows;
            if rows <= CALM {
                (self.tell)(&format!("follow    {carried} changed rows"));
                return Ok(());
            }
        }
        Err(MoveError::Refused(format!(
            "changes come faster than they can be carried over: {carried} changed rows in {ROUNDS} rounds"
        )))
    }

    // === Switch ===

    async fn switch(&mut self, mut sides: Sides, tables: &[Moved]) -> Result<Sides, MoveError> {
        let max_pause = self.options.max_pause;
        let mut why = String::new();
        for attempt in 0..SWITCHES {
            if attempt > 0 {
                sides.primary.ask(&state::remark(&why)).await?;
                sides.primary.ask(&state::enter(Step::Follow)).await?;
                // What was cut off is undone with its connection.
                drop(sides);
                sleep(BETWEEN).await;
                sides = self.connect().await?;
                self.stage(&mut sides, tables).await?;
            }
            self.follow(&mut sides, tables).await?;
            let (direction, closed) = (self.direction(), self.closed_source());
            let opening = match direction {
                Direction::ToJobs => Vec::new(),
                Direction::Back => self.opening(&mut sides, tables).await?,
            };
            let switch = Switch { direction, tables, max_pause, closed, opening };
            if attempt == 0 {
                let takes = switch.rehearse(&mut sides).await?;
                (self.tell)(&format!("follow    comparing both sides takes {takes:.1?}"));
                self.follow(&mut sides, tables).await?;
            }
            match self.pause(&mut sides, &switch).await? {
                Ending::Switched => return Ok(sides),
                Ending::LetGo(reason) => {
                    (self.tell)(&format!("switch    let go: {reason}"));
                    why = reason;
                }
            }
        }
        sides.primary.ask(&format!("{}; {}", state::remark(&why), state::enter(Step::Follow))).await?;
        Err(MoveError::Refused(format!(
            "{why}. The switch was tried {SWITCHES} times within --max-pause {max_pause:?} each, and nothing was switched: \
             the jobs are where they were, and running this again goes on from here"
        )))
    }

    /// One pause, with the instances holding job statements back. Unless it ends with the switch, they go on.
    async fn pause(&mut self, sides: &mut Sides, switch: &Switch<'_>) -> Result<Ending, MoveError> {
        let mut guard = self.link(0).await?;
        if let Err(problem) = self.instances.reach().await {
            return Err(MoveError::Refused(problem));
        }
        sides.primary.ask(&state::enter(Step::Switch)).await?;
        let begun = Instant::now();
        if let Err(problem) = self.instances.pause(switch.max_pause / 2).await {
            self.instances.resume().await;
            return Ok(Ending::LetGo(problem));
        }
        let ended = switch.attempt(sides, &mut guard).await;
        if matches!(ended, Ok(Ending::Switched)) {
            self.let_write(sides, Some(guard), switch.tables).await?;
            let taken = begun.elapsed();
            sides.primary.ask(&state::note_pause(taken.as_millis())).await?;
            (self.tell)(&format!("switch    nobody could write for {} ms", taken.as_millis()));
        } else {
            self.instances.resume().await;
        }
        ended
    }

    /// Statements that have the target take writes.
    async fn opening(&self, sides: &mut Sides, tables: &[Moved]) -> Result<Vec<String>, Failure> {
        let mut statements = vec![fence::make_notes()];
        match self.direction() {
            Direction::ToJobs => statements.extend(fence::noted(&mut sides.jobs, false).await?),
            Direction::Back => {
                let rest = fence::rest(&mut sides.primary, tables).await?;
                statements.extend(rest.note());
                statements.extend(rest.begin);
                // It is the library's own again.
                statements.extend(tables.iter().map(|table| unguard(&table.relation())));
                statements.extend(tables.iter().map(Moved::put_back));
                statements.extend(rest.end);
                statements.extend(tables.iter().map(Moved::drop_back));
            }
        }
        statements.extend(tables.iter().map(fence::open));
        statements.push(fence::forget_notes());
        statements.push(format!("DROP TABLE IF EXISTS {SCHEMA}.progress"));
        Ok(statements)
    }

    /// The target takes writes. Going back, `guard` has all that ready.
    async fn let_write(
        &self,
        sides: &mut Sides,
        guard: Option<Link>,
        tables: &[Moved],
    ) -> Result<(), Failure> {
        sides.primary.ask(&state::enter(Step::Open)).await?;
        let is_back = self.direction() == Direction::Back;
        if let (true, Some(mut guard)) = (is_back, guard)
            && guard.ask("COMMIT").await.is_ok_and(|reply| reply.tag == "COMMIT")
        {
            return Ok(());
        }
        if is_back && !fence::is_closed(&mut sides.primary, tables).await? {
            return Ok(());
        }
        let statements = self.opening(sides, tables).await?;
        let done = transact(sides.to(self.direction()), &statements).await;
        if done.is_err() && is_back {
            // By the last words of one that was killed.
            let is_done = !fence::is_closed(&mut sides.primary, tables).await?;
            return if is_done { Ok(()) } else { done };
        }
        done
    }

    // === Open ===

    /// The rest of the way once the source has given its jobs away.
    async fn open(&mut self, sides: &mut Sides, tables: &[Moved]) -> Result<(), MoveError> {
        let direction = self.direction();
        self.let_write(sides, None, tables).await?;
        if direction == Direction::ToJobs && self.options.has_outbox {
            self.guard(sides).await?;
        }
        for problem in self.instances.reload().await {
            (self.tell)(&format!("open      {problem}"));
        }
        for check in fence::noted(sides.to(direction), true).await? {
            transact(sides.to(direction), &[check]).await?;
        }
        // What the target has kept from when it gave its jobs away is old.
        let mut left: Vec<String> = tables.iter().map(Moved::drop_kept).collect();
        left.push(format!("DROP TABLE IF EXISTS {SCHEMA}.resting"));
        transact(sides.to(direction), &left).await?;
        sides.primary.ask(&state::enter(Step::Moved)).await?;
        let (where_to, pool) = match direction {
            Direction::ToJobs => ("in the job database", "jobs"),
            Direction::Back => ("on the primary", "primary"),
        };
        (self.tell)(&format!("moved     the jobs are {where_to}"));
        if self.instances.count() == 0 {
            (self.tell)(&format!(
                "          reload every instance now, with pools.jobs on the server of {pool}: until then its job statements \
                 are refused (55000)"
            ));
        }
        Ok(())
    }
}

/// A target that has jobs of its own.
async fn rows_there(jobs: &mut Link, tables: &[Moved]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for table in tables {
        let any = format!("SELECT EXISTS (SELECT FROM {})", table.relation());
        if jobs.ask(&any).await?.value(0, 0) == "t" {
            found.push(format!("{} has rows in the job database already", table.source()));
        }
    }
    Ok(found)
}

/// Whether another try may succeed.
fn is_passing(failure: &Failure) -> bool {
    let class = code(failure).get(..2).unwrap_or_default();
    matches!(failure, Failure::Lost(_)) || is_too_late(failure) || matches!(class, "08" | "40" | "53" | "57")
}
