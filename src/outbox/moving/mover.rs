//! The steps of a move, in order, each of which may be begun again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::super::{
    install::unguard,
    leader::{LOCK, holder},
    link::{Failure, Link},
};
use super::{
    carry::{self, Within},
    catalog::{self, Moved, SCHEMA, Tables},
    fence::{self, APPLICATION_NAME, Closed},
    instances::Instances,
    schema,
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

    /// The job tables of a side.
    pub(super) async fn tables(&self, link: &mut Link) -> Result<Tables, Failure> {
        catalog::read(link, self.rules, self.options.has_outbox).await
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
                    return Err(MoveError::Refused(in_the_way(link).await?));
                }
                sleep(BETWEEN / 2).await;
            }
        }
        Ok(sides)
    }

    async fn go_on(&mut self) -> Result<(), MoveError> {
        let mut sides = self.connect().await?;
        let known = state::read(&mut sides.primary).await?;
        let mut tables = self.tables(&mut sides.primary).await?;
        let step = self.first_step(known.as_ref(), &tables)?;
        self.instances.remember(known.map(|state| state.paused).unwrap_or_default());
        if step == Step::Moved {
            (self.tell)("nothing is to be done: the jobs are there");
            return Ok(());
        }
        if step == Step::Prepare {
            tables = self.prepare(&mut sides, tables).await?;
        }
        let has_switched =
            step >= Step::Follow && fence::is_closed(sides.from(self.direction()), &tables).await?;
        if !has_switched {
            self.go_on_everywhere(&mut sides).await?;
            carry::distrust(&mut sides, self.direction(), &tables.rows).await?;
            self.stage(&mut sides, &tables).await?;
            sides = self.copy(sides, &tables).await?;
            let facts = state::read(&mut sides.primary).await?.map(|state| state.facts).unwrap_or_default();
            sides = self.switch(sides, &tables, &facts).await?;
        }
        self.open(&mut sides, &tables).await
    }

    /// Where to go on.
    pub(super) fn first_step(&self, known: Option<&State>, tables: &Tables) -> Result<Step, MoveError> {
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
        if state.tables != tables.sources() && state.step > Step::Prepare && state.step < Step::Moved {
            return Err(MoveError::Refused(format!(
                "the job tables are not those that the move began with ({}): `bulkhead jobs move --abort`, and begin anew",
                state.tables.join(", ")
            )));
        }
        Ok(state.step)
    }

    // === Copy and follow ===

    /// Where rows come in, on a new connection.
    async fn stage(&self, sides: &mut Sides, tables: &Tables) -> Result<(), Failure> {
        for table in &tables.rows {
            sides.to(self.direction()).ask(&table.make_stage()).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, mut sides: Sides, tables: &Tables) -> Result<Sides, MoveError> {
        let begun = Instant::now();
        let mut copied = 0;
        for table in &tables.rows {
            copied += carry::copy(&mut sides, self.direction(), table).await?;
        }
        if copied > 0 {
            (self.tell)(&format!("copy      {copied} rows in {:.1} s", begun.elapsed().as_secs_f64()));
        }
        sides.primary.ask(&state::enter(Step::Follow)).await?;
        Ok(sides)
    }

    /// Carries changes over until few are left.
    async fn follow(&mut self, sides: &mut Sides, tables: &Tables) -> Result<(), MoveError> {
        let mut carried = 0;
        for _ in 0..ROUNDS {
            let rows = carry::all_changes(sides, self.direction(), &tables.rows, Within::Itself).await?;
            if carry::begin_anew(sides, self.direction(), &tables.rows).await? {
                for table in &tables.rows {
                    carry::copy(sides, self.direction(), table).await?;
                }
                continue;
            }
            carried += rows;
            // Of large rows few are carried at once, however many wait.
            let from = sides.from(self.direction());
            if rows <= CALM && carry::waiting(from, &tables.rows).await? <= CALM {
                (self.tell)(&format!("follow    {carried} changed rows"));
                return Ok(());
            }
        }
        Err(MoveError::Refused(format!(
            "changes come faster than they can be carried over: {carried} changed rows in {ROUNDS} rounds"
        )))
    }

    // === Switch ===

    async fn switch(
        &mut self,
        mut sides: Sides,
        tables: &Tables,
        facts: &[String],
    ) -> Result<Sides, MoveError> {
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
            let opening = self.opening(&mut sides, tables).await?;
            let (rules, has_outbox) = (self.rules, self.options.has_outbox);
            let is_recoded = sides.encodings().await?.is_some();
            let switch = Switch {
                direction,
                tables,
                facts,
                rules,
                max_pause,
                closed,
                opening,
                has_outbox,
                is_recoded,
            };
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
        let mut guard = self.link(usize::from(self.direction() == Direction::ToJobs)).await?;
        if let Err(problem) = self.instances.reach().await {
            return Err(MoveError::Refused(problem));
        }
        sides.primary.ask(&state::enter(Step::Switch)).await?;
        // Noted before: who comes behind one that is killed now has them go on.
        let to_be_paused = self.instances.to_be_paused().await.map_err(MoveError::Refused)?;
        sides.primary.ask(&state::note_paused(&to_be_paused)).await?;
        let begun = Instant::now();
        if let Err(problem) = self.instances.pause(switch.max_pause / 2).await {
            self.go_on_everywhere(sides).await?;
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
            // If the primary is lost, who connects again finds it noted, and has them go on once more.
            self.note_paused(sides).await.or_else(|lost| if ended.is_err() { Ok(()) } else { Err(lost) })?;
        }
        ended
    }

    /// Instances that a move has paused go on.
    pub(super) async fn go_on_everywhere(&mut self, sides: &mut Sides) -> Result<(), Failure> {
        if self.instances.any_paused() {
            self.instances.resume().await;
            self.note_paused(sides).await?;
        }
        Ok(())
    }

    /// Notes those that are paused still.
    pub(super) async fn note_paused(&mut self, sides: &mut Sides) -> Result<(), Failure> {
        sides.primary.ask(&state::note_paused(&self.instances.paused())).await.map(drop)
    }

    /// Statements that have the target take writes.
    async fn opening(&self, sides: &mut Sides, tables: &Tables) -> Result<Vec<String>, Failure> {
        let mut statements = vec![fence::make_notes()];
        match self.direction() {
            Direction::ToJobs => statements.extend(fence::noted(&mut sides.jobs, false).await?),
            Direction::Back => {
                let rest = fence::rest(&mut sides.primary, &tables.all().collect::<Vec<_>>()).await?;
                statements.extend(rest.note());
                statements.extend(rest.begin);
                // It is the library's own again.
                statements.extend(tables.all().map(|table| unguard(&table.relation())));
                statements.extend(tables.all().flat_map(Moved::make_calls_again));
                statements.extend(tables.rows.iter().map(Moved::put_back));
                statements.extend(rest.end);
                statements.extend(tables.rows.iter().map(Moved::drop_back));
            }
        }
        statements.extend(tables.all().map(fence::open));
        statements.push(fence::forget_notes());
        statements.push(format!("DROP TABLE IF EXISTS {SCHEMA}.progress"));
        Ok(statements)
    }

    /// The target takes writes. In the pause, `guard` has all that ready.
    async fn let_write(
        &self,
        sides: &mut Sides,
        guard: Option<Link>,
        tables: &Tables,
    ) -> Result<(), Failure> {
        sides.primary.ask(&state::enter(Step::Open)).await?;
        if let Some(mut guard) = guard
            && guard.ask("COMMIT").await.is_ok_and(|reply| reply.tag == "COMMIT")
        {
            return Ok(());
        }
        if !fence::is_closed(sides.to(self.direction()), tables).await? {
            return Ok(());
        }
        let statements = self.opening(sides, tables).await?;
        let done = transact(sides.to(self.direction()), &statements).await;
        // By the last words of one that was killed.
        if done.is_err() && !fence::is_closed(sides.to(self.direction()), tables).await? {
            Ok(())
        } else {
            done
        }
    }

    // === Open ===

    /// The rest of the way once the source has given its jobs away.
    async fn open(&mut self, sides: &mut Sides, tables: &Tables) -> Result<(), MoveError> {
        let direction = self.direction();
        self.let_write(sides, None, tables).await?;
        if direction == Direction::ToJobs && self.options.has_outbox {
            self.guard(sides).await?;
        }
        for problem in self.instances.reload().await {
            (self.tell)(&format!("open      {problem}"));
        }
        self.note_paused(sides).await?;
        for check in fence::noted(sides.to(direction), true).await? {
            transact(sides.to(direction), &[check]).await?;
        }
        // What the target has kept from when it gave its jobs away is old.
        let mut left: Vec<String> = tables.rows.iter().map(Moved::drop_kept).collect();
        left.push(format!("DROP TABLE IF EXISTS {SCHEMA}.resting"));
        left.push(schema::forget());
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

/// Tells who has the lock of a move.
async fn in_the_way(link: &mut Link) -> Result<String, Failure> {
    let holder = holder(link, MOVE_LOCK).await?;
    let server = link.server();
    Ok(match holder {
        Some(holder) if !holder.is_called(APPLICATION_NAME) => holder.stranger(MOVE_LOCK, "a move's", server),
        Some(holder) => {
            format!("another `bulkhead jobs move` is at work at server \"{server}\": {}", holder.place())
        }
        None => format!("another `bulkhead jobs move` was at work at server \"{server}\": try again"),
    })
}

/// Whether another try may succeed.
fn is_passing(failure: &Failure) -> bool {
    let class = code(failure).get(..2).unwrap_or_default();
    matches!(failure, Failure::Lost(_)) || is_too_late(failure) || matches!(class, "08" | "40" | "53" | "57")
}
