//! The pause: from the lock on the source's tables to its commit, by which the jobs are the target's.
//!
//! The servers themselves keep it within its bound: the lock is waited for no longer than a part of it, each statement ends
//! with it, and so does a transaction that nobody speaks in any more. Whatever ends before the commit leaves the source as
//! it was.

use std::time::{Duration, Instant};

use super::super::{
    calls,
    drift::lines_of,
    link::{Failure, Link},
    text::literal,
};
use super::{
    carry::{self, Within},
    catalog::{self, Moved, Tables, go_on, numbers},
    fence::{self, Closed},
    sides::{MoveError, Sides, is_too_late},
    state::Direction,
};
use crate::sql::Rules;

/// How a pause has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The source has given its jobs away.
    Switched,
    /// The pause was let go, and nothing has changed.
    LetGo(String),
}

/// The tables, and how they change sides.
pub(super) struct Switch<'m> {
    pub(super) direction: Direction,
    pub(super) tables: &'m Tables,
    /// All that they had when the move was begun.
    pub(super) facts: &'m [String],
    /// The rules that tell them.
    pub(super) rules: &'m Rules,
    /// How long everybody may be kept waiting.
    pub(super) max_pause: Duration,
    /// Why the source refuses from then on.
    pub(super) closed: Closed,
    /// Statements that have the target take writes, made ready before the source commits, so that it is within the bound.
    pub(super) opening: Vec<String>,
    /// The primary's copies of tables stay.
    pub(super) has_outbox: bool,
    /// The servers keep texts in different encodings.
    pub(super) is_recoded: bool,
}

/// The sessions that hold locks on tables, the one with the oldest transaction first.
const HOLDERS: &str = "SELECT a.pid, a.state, pg_catalog.date_part('epoch', pg_catalog.now() - a.xact_start)::pg_catalog.int8 \
    FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid \
    WHERE l.granted AND l.locktype = 'relation' AND l.relation IN ({relations}) AND l.pid <> pg_catalog.pg_backend_pid() \
    ORDER BY a.xact_start LIMIT 1";

impl Switch<'_> {
    /// Tries once. `guard` is another connection to the target.
    pub(super) async fn attempt(&self, sides: &mut Sides, guard: &mut Link) -> Result<Ending, MoveError> {
        let deadline = Instant::now() + self.max_pause;
        let ended = self.within(sides, guard, deadline).await;
        match ended {
            Ok(Ending::Switched) => Ok(Ending::Switched),
            Ok(let_go) => {
                self.let_go(sides, guard).await?;
                Ok(let_go)
            }
            Err(MoveError::Failed(failure)) if is_too_late(&failure) => {
                self.let_go(sides, guard).await?;
                Ok(Ending::LetGo(failure.to_string()))
            }
            Err(error) => {
                // What is lost undoes by itself.
                let _ = self.let_go(sides, guard).await;
                Err(error)
            }
        }
    }

    async fn let_go(&self, sides: &mut Sides, guard: &mut Link) -> Result<(), Failure> {
        sides.from(self.direction).ask("ROLLBACK").await?;
        guard.ask("ROLLBACK").await?;
        Ok(())
    }

    async fn within(
        &self,
        sides: &mut Sides,
        guard: &mut Link,
        deadline: Instant,
    ) -> Result<Ending, MoveError> {
        if self.direction == Direction::Back
            && let Some(why) = self.lock_primary(guard).await?
        {
            return Ok(Ending::LetGo(why));
        }
        if let Some(why) = self.lock(sides.from(self.direction)).await? {
            return Ok(Ending::LetGo(why));
        }
        self.look_for_changes(sides.from(self.direction)).await?;
        if carry::any_truncated(sides.from(self.direction), &self.tables.rows).await? {
            return Ok(Ending::LetGo("a table was emptied at once meanwhile".to_owned()));
        }
        carry::all_changes(sides, self.direction, &self.tables.rows, Within::Pause).await?;
        self.go_on_counting(sides).await?;
        self.compare(sides, deadline).await?;
        if let Some(why) = self.make_ready(guard, deadline).await? {
            return Ok(Ending::LetGo(why));
        }
        self.give_away(sides.from(self.direction), deadline).await
    }

    /// Has the target ready to take writes, with its commit; why not, if that does not come about. Going back, `guard` is in
    /// its transaction already.
    async fn make_ready(&self, guard: &mut Link, deadline: Instant) -> Result<Option<String>, Failure> {
        let begin = match self.direction {
            Direction::ToJobs => format!(
                "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{}ms'; ",
                self.max_pause.as_millis().max(1)
            ),
            Direction::Back => String::new(),
        };
        match guard.ask(&format!("{begin}{}; {}", bound(deadline), self.opening.join("; "))).await {
            Ok(_) => Ok(None),
            Err(failure) if is_too_late(&failure) => {
                guard.ask("ROLLBACK").await?;
                let who = self.holder(guard).await?;
                Ok(Some(format!("server \"{}\" cannot take writes in time{who}", guard.server())))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The session that holds a lock on the tables, in words.
    async fn holder(&self, link: &mut Link) -> Result<String, Failure> {
        let known: Vec<String> = self
            .tables
            .all()
            .map(|table| format!("{}::pg_catalog.regclass", literal(&table.relation())))
            .collect();
        let holder = link.ask(&HOLDERS.replace("{relations}", &known.join(", "))).await?;
        if holder.rows.is_empty() {
            return Ok(String::new());
        }
        let [process, state, seconds] = [0, 1, 2].map(|column| holder.value(0, column));
        Ok(format!(": process {process} ({state}) holds a lock, in a transaction of {seconds} s"))
    }

    /// Locks tables; why not, if that does not come about.
    async fn lock(&self, link: &mut Link) -> Result<Option<String>, Failure> {
        // The others wait behind this: half of the pause is for the work.
        let lock_timeout = self.max_pause / 2;
        let begin = format!(
            "BEGIN; SET LOCAL lock_timeout = '{}ms'; SET LOCAL statement_timeout = '{pause}ms'; \
             SET LOCAL idle_in_transaction_session_timeout = '{pause}ms'; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            lock_timeout.as_millis().max(1),
            self.tables.relations(),
            pause = self.max_pause.as_millis().max(1),
        );
        match link.ask(&begin).await {
            Ok(_) => Ok(None),
            Err(failure) if is_too_late(&failure) => {
                link.ask("ROLLBACK").await?;
                let who = self.holder(link).await?;
                let within = lock_timeout.as_millis();
                Ok(Some(format!("no lock on {} within {within} ms{who}", self.tables.relations())))
            }
            Err(failure) => Err(failure),
        }
    }

    /// Going back, the primary's own tables must be empty: what is in them is on its way to the job database.
    async fn lock_primary(&self, guard: &mut Link) -> Result<Option<String>, Failure> {
        if let Some(why) = self.lock(guard).await? {
            return Ok(Some(why));
        }
        for table in self.tables.all().filter(|table| table.calls.is_some()) {
            let calls = calls::relation(&table.schema);
            let is_there = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&calls));
            if guard.ask(&is_there).await?.value(0, 0) != "t" {
                continue;
            }
            guard.ask(&format!("LOCK TABLE {calls} IN ACCESS EXCLUSIVE MODE")).await?;
            if guard.ask(&format!("SELECT EXISTS (SELECT FROM {calls})")).await?.value(0, 0) == "t" {
                return Ok(Some(format!("calls in {calls} wait on the primary to be relayed")));
            }
        }
        let waits = |table: &&Moved| !(table.is_parent || self.has_outbox && table.is_mirrored);
        for table in self.tables.all().filter(waits) {
            let any = format!("SELECT EXISTS (SELECT FROM {})", table.relation());
            if guard.ask(&any).await?.value(0, 0) == "t" {
                let source = table.source();
                return Ok(Some(format!("rows of {source} wait on the primary to be relayed")));
            }
        }
        Ok(None)
    }

    /// Locked, the tables are looked at once more: what was changed in them since would stay behind.
    async fn look_for_changes(&self, from: &mut Link) -> Result<(), MoveError> {
        let now = catalog::read(from, self.rules, self.has_outbox).await?;
        let is_compared = |schema: &str, table: &str| self.rules.is_job_table(schema, table);
        let facts = lines_of(from, &is_compared).await?;
        let is_in = |facts: &[String], line: &&String| facts.binary_search(line).is_ok();
        let gone = self.facts.iter().find(|line| !is_in(&facts, line));
        let new = facts.iter().find(|line| !is_in(self.facts, line));
        let change = self.tables.change(&now);
        let change = change.or_else(|| gone.map(|line| format!("{line}: gone or changed")));
        let change = change.or_else(|| new.map(|line| format!("{line}: added")));
        change.map_or(Ok(()), |what| {
            Err(MoveError::Refused(format!(
                "{what} since the move was begun; nothing was switched. Make both sides alike; then `bulkhead jobs move --abort`, \
                 and begin anew"
            )))
        })
    }

    async fn go_on_counting(&self, sides: &mut Sides) -> Result<(), Failure> {
        let (from, to) = sides.ends(self.direction);
        let given = numbers(from, self.tables).await?;
        let known = numbers(to, self.tables).await?;
        for from in &given {
            let same = known.iter().find(|to| to.name == from.name);
            let same = same.or_else(|| known.iter().find(|to| to.of == from.of));
            if let Some(sql) = same.and_then(|to| go_on(from, to)) {
                sides.to(self.direction).ask(&sql).await?;
            }
        }
        Ok(())
    }

    /// Compares both sides' rows.
    async fn compare(&self, sides: &mut Sides, deadline: Instant) -> Result<(), MoveError> {
        for table in &self.tables.rows {
            let (from, to) = sides.ends(self.direction);
            let bound = bound(deadline);
            let here = format!("{bound}; {}", self.digest(table, &table.relation()));
            let there =
                format!("BEGIN; {bound}; {}; COMMIT", self.digest(table, &table.target(self.direction)));
            let (here, there) = tokio::join!(from.ask(&here), to.ask(&there));
            if there.as_ref().is_err_and(|failure| matches!(failure, Failure::Server { .. })) {
                to.ask("ROLLBACK").await?;
            }
            let (here, there) = (here?, there?);
            if here.rows != there.rows {
                return Err(MoveError::Refused(format!(
                    "{} differs: {} rows at the source, {} at the target{}; nothing was switched. `bulkhead jobs move --abort` \
                     takes the copy away",
                    table.source(),
                    here.value(0, 0),
                    there.value(0, 0),
                    if here.value(0, 0) == there.value(0, 0) { ", and not the same ones" } else { "" }
                )));
            }
        }
        Ok(())
    }

    /// The source keeps a copy, refuses whoever writes, is emptied, and commits: all of it, or nothing.
    async fn give_away(&self, from: &mut Link, deadline: Instant) -> Result<Ending, MoveError> {
        let too_late = || Ending::LetGo(format!("it would take longer than {:?}", self.max_pause));
        let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        else {
            return Ok(too_late());
        };
        let mut statements = vec![format!("SET LOCAL statement_timeout = '{}ms'", left.as_millis().max(1))];
        statements.push(fence::make());
        for table in &self.tables.rows {
            statements.extend(table.keep());
            statements.extend(table.forget());
        }
        statements.extend(self.tables.all().flat_map(|table| fence::close(table, self.closed)));
        // A copy stays as it is: from now on it is renewed from the job database.
        let stays =
            |table: &&Moved| self.direction == Direction::ToJobs && self.has_outbox && table.is_mirrored;
        let emptied = self.tables.rows.iter().filter(|table| !stays(table)).map(Moved::relation);
        statements.push(format!("TRUNCATE {}", emptied.collect::<Vec<_>>().join(", ")));
        from.ask(&statements.join("; ")).await?;
        if Instant::now() > deadline {
            return Ok(too_late());
        }
        if from.ask("COMMIT").await?.tag == "COMMIT" {
            return Ok(Ending::Switched);
        }
        Ok(Ending::LetGo("the source did not commit".to_owned()))
    }

    fn digest(&self, table: &Moved, relation: &str) -> String {
        table.digest(relation, self.is_recoded)
    }

    fn too_long(&self, takes: Duration) -> MoveError {
        MoveError::Refused(format!(
            "comparing both sides takes {takes:.1?} or more, and --max-pause is {:?}: raise it, or delete jobs that are done",
            self.max_pause
        ))
    }

    /// How long comparing takes, which is most of the pause, without keeping anybody waiting.
    pub(super) async fn rehearse(&self, sides: &mut Sides) -> Result<Duration, MoveError> {
        let begun = Instant::now();
        for table in &self.tables.rows {
            let (from, to) = sides.ends(self.direction);
            let (here, there) =
                (self.digest(table, &table.relation()), self.digest(table, &table.target(self.direction)));
            let (here, there) = tokio::join!(from.ask(&here), to.ask(&there));
            for reply in [here, there] {
                match reply {
                    Err(failure) if is_too_late(&failure) => return Err(self.too_long(begun.elapsed())),
                    reply => reply?,
                };
            }
        }
        let takes = begun.elapsed();
        if takes > self.max_pause { Err(self.too_long(takes)) } else { Ok(takes) }
    }
}

/// Has the transaction's statements end with the pause.
fn bound(deadline: Instant) -> String {
    let left = deadline.saturating_duration_since(Instant::now());
    format!("SET LOCAL statement_timeout = '{}ms'", left.as_millis().max(1))
}
