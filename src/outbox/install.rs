//! What the relay needs at both servers, and what takes it away again: as SQL, made from how both sides are now.
//!
//! Nothing is to be done where everything is there; what is half done is gone on with. The job database comes first, and
//! the mark on the primary last: where it is, everything is.

use super::{
    calls,
    former::MAKE_GUARD,
    statements::Statements,
    tables::{
        Partitions, Sequence, Side, Table, is_strided, is_unguarded, misfits, source_literal, unfit_parents,
    },
    text::{carry_out, literal, name},
};
use crate::sql::Relayed;

/// Numbers above all that were given stay unused, so many: for what is given while this is looked at.
const MARGIN: i64 = 10_000;

/// The steps to be done, in order; or why they cannot be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// On the primary and in the job database, in this order.
    pub steps: Vec<Step>,
    /// Why nothing may be done; empty if it may.
    pub problems: Vec<String>,
}

/// Statements that run in one transaction at one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether it runs on the primary; else in the job database.
    pub on_primary: bool,
    /// The statements.
    pub statements: Vec<String>,
}

const PRIMARY_TABLES: [&str; 3] = [
    "CREATE SCHEMA bulkhead",
    "CREATE TABLE bulkhead.outbox (source_table pg_catalog.text PRIMARY KEY, sequence pg_catalog.text, \
     increment_before pg_catalog.int8, installed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
     last_error pg_catalog.text, last_error_at pg_catalog.timestamptz)",
    "CREATE TABLE bulkhead.refused (id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
     source_table pg_catalog.text NOT NULL, key pg_catalog.text NOT NULL, row pg_catalog.json NOT NULL, \
     error pg_catalog.text NOT NULL, refused_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now())",
];

const JOBS_TABLES: [&str; 4] = [
    "CREATE SCHEMA bulkhead",
    "CREATE TABLE bulkhead.outbox (source_table pg_catalog.text PRIMARY KEY, sequence pg_catalog.text, \
     increment_before pg_catalog.int8, installed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
     relayed pg_catalog.int8 NOT NULL DEFAULT 0, conflicts pg_catalog.int8 NOT NULL DEFAULT 0, \
     relayed_at pg_catalog.timestamptz)",
    "CREATE TABLE bulkhead.relayed (source_table pg_catalog.text, key pg_catalog.text, \
     digest pg_catalog.int8 NOT NULL, relayed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now(), \
     PRIMARY KEY (source_table, key))",
    "CREATE INDEX relayed_relayed_at_idx ON bulkhead.relayed (relayed_at)",
];

/// Everything in the schema, to be taken away.
const PRIMARY_DROPS: [&str; 2] = ["DROP TABLE bulkhead.refused, bulkhead.outbox", "DROP SCHEMA bulkhead"];
const JOBS_DROPS: [&str; 2] = ["DROP TABLE bulkhead.relayed, bulkhead.outbox", "DROP SCHEMA bulkhead"];

/// The plan that installs the outbox for the tables that both sides have. `users` are those that the relay logs in as, on the
/// primary and in the job database. `with_rows`: rows that are on the primary already may be moved, too.
pub fn install(primary: &Side, jobs: &Side, users: [&str; 2], rows: &[String], with_rows: bool) -> Plan {
    let mut plan = Plan::default();
    let pairs = pairs(primary, jobs, &mut plan.problems);
    for Pair { from, to, .. } in &pairs {
        plan.problems.extend(misfits(from, to));
        plan.problems.extend(unfit_parents(from, primary, jobs));
        if from.sequence.is_some() != to.sequence.is_some() {
            plan.problems.push(format!("{} is numbered by a sequence on one side only", from.source()));
        }
        if !with_rows && !primary.installed.contains(&from.source()) && rows.contains(&from.source()) {
            plan.problems.push(format!(
                "{} on the primary has rows, which would be moved to the job database as they are: --with-rows allows \
                 that; else move them elsewhere",
                from.source()
            ));
        }
    }
    let mut there = Vec::new();
    let mut here = Vec::new();
    if !jobs.has_schema {
        there.extend(JOBS_TABLES.map(str::to_owned));
        there.extend(grants(users[1], "relayed"));
    }
    if !primary.has_schema {
        here.extend(PRIMARY_TABLES.map(str::to_owned));
        here.extend(grants(users[0], "refused"));
    }
    for source in gone(primary, jobs) {
        let source = literal(source);
        for (statements, side) in [(&mut there, jobs), (&mut here, primary)] {
            if side.has_schema {
                statements.push(format!("DELETE FROM bulkhead.outbox WHERE source_table = {source}"));
            }
        }
        if jobs.has_schema {
            there.push(format!("DELETE FROM bulkhead.relayed WHERE source_table = {source}"));
        }
    }
    let calls = tables_of_calls(primary, jobs, users);
    for (statements, making) in [&mut here, &mut there].into_iter().zip(calls) {
        statements.extend(making);
    }
    for Pair { from, to, making } in &pairs {
        here.extend(making.clone());
        let start = highest(from, to) + MARGIN;
        // Even, and the odd one behind it.
        let even = start + start.rem_euclid(2);
        there.extend(stride(to, even, false));
        here.extend(stride(from, even + 1, true));
        if !jobs.installed.contains(&to.source()) {
            there.push(mark(to));
        }
        if from.partitions == Partitions::Open {
            let (partition, relation) = (partition(from), relation(from));
            here.push(format!("CREATE TABLE {partition} PARTITION OF {relation} DEFAULT"));
        }
        if !primary.installed.contains(&from.source()) {
            here.push(mark(from));
        }
    }
    plan.add(false, there);
    plan.add(true, here);
    plan
}

/// The plan that takes the outbox away.
pub fn uninstall(primary: &Side, jobs: &Side, before: &[(bool, String, i64)]) -> Plan {
    let mut plan = Plan::default();
    for (side, on_primary, drops) in [(primary, true, PRIMARY_DROPS), (jobs, false, JOBS_DROPS)] {
        if !side.has_schema {
            continue;
        }
        let (mut statements, mut drop_calls) = (Vec::new(), Vec::new());
        for table in side.tables.iter().filter(|table| side.installed.contains(&table.source())) {
            if table.call.is_some() {
                drop_calls.push(format!("DROP TABLE {}", relation(table)));
            }
            if on_primary {
                statements.push(lock(table));
                if table.is_guarded {
                    statements.push(unguard(&relation(table)));
                }
                statements.push(Statements::new(table.clone(), 0).refuse_rows());
                statements.extend(unnote(&table.schema, table.relayed));
                if table.partitions == Partitions::Default {
                    statements.push(format!("DROP TABLE IF EXISTS {}", partition(table)));
                }
            }
            let increment =
                before.iter().find(|(of, source, _)| *of == on_primary && *source == table.source());
            if let (Some(sequence), Some((.., increment))) = (&table.sequence, increment) {
                statements.push(format!("ALTER SEQUENCE {} INCREMENT BY {increment}", sequence.name));
            }
        }
        if on_primary {
            statements.push(NO_REFUSED.to_owned());
            statements.push(format!("DROP FUNCTION IF EXISTS {GUARD}"));
        }
        statements.extend(drop_calls);
        statements.extend(drops.map(str::to_owned));
        plan.add(on_primary, statements);
    }
    plan
}

/// Nothing that was set aside is thrown away.
const NO_REFUSED: &str = "DO $bulkhead$ BEGIN IF EXISTS (SELECT FROM bulkhead.refused) THEN \
    RAISE EXCEPTION 'bulkhead.refused has rows: jobs that the job database has refused' \
    USING HINT = 'Put them back, or delete them.'; END IF; END $bulkhead$";

/// The function of the triggers that refuse rows which are not to be moved.
const GUARD: &str = "bulkhead.refuse()";

/// The statements for both sides that make the tables of calls which are missing, for libraries that have such calls on both:
/// for the primary, and for the job database. `users` are the relay's.
fn tables_of_calls(primary: &Side, jobs: &Side, users: [&str; 2]) -> [Vec<String>; 2] {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for from in primary.tables.iter().filter(|table| !table.noting.is_empty()) {
        let is_same = |to: &&Table| to.source() == from.source() && !to.noting.is_empty();
        if !jobs.tables.iter().any(|to| is_same(&to)) {
            continue;
        }
        let (relation, source) = (calls::relation(&from.schema), calls::source(&from.schema));
        let has = |side: &Side| side.tables.iter().any(|table| table.source() == source);
        if !has(jobs) {
            there.push(calls::make(&relation, 2));
            there.push(format!("GRANT SELECT, INSERT ON {relation} TO {}", name(users[1])));
        }
        if !has(primary) {
            if jobs.has_schema {
                there.push(format!("DELETE FROM bulkhead.relayed WHERE source_table = {}", literal(&source)));
            }
            here.push(calls::make(&relation, 1));
            here.push(format!("GRANT SELECT, UPDATE, DELETE ON {relation} TO {}", name(users[0])));
            here.push(calls::let_write(&self::relation(from), &relation));
        }
        for (statements, side) in [(&mut here, primary), (&mut there, jobs)] {
            if !side.installed.contains(&source) {
                statements.push(calls::mark(&source));
            }
        }
    }
    [here, there]
}

/// The statements that have the library's own functions back in their places.
fn unnote(schema: &str, relayed: Option<&Relayed>) -> Vec<String> {
    relayed.and_then(|of| of.calls.as_ref()).map_or_else(Vec::new, |calls| calls::forget(schema, calls))
}

/// The statement that has the table take all rows again.
pub(super) fn unguard(relation: &str) -> String {
    format!("DROP TRIGGER IF EXISTS bulkhead_refuse ON {relation}")
}

impl Plan {
    /// Has the primary note the calls that would add rows which are not to be moved, and refuse such rows, in the transaction
    /// that adds them. Where the primary's tables are the library's home, it works with such rows. What another version has
    /// made there is made anew.
    #[must_use]
    pub fn with_guards(mut self, primary: &Side) -> Self {
        let mut statements: Vec<String> =
            primary.former.iter().map(|former| former.renew.to_owned()).collect();
        let mut has_guard = statements.iter().any(|statement| statement == MAKE_GUARD);
        for table in primary.tables.iter().filter(|table| is_unguarded(table)) {
            let Some(column) = table.relayed.and_then(|relayed| relayed.absent) else { continue };
            let relation = relation(table);
            if !has_guard {
                statements.push(MAKE_GUARD.to_owned());
                has_guard = true;
            }
            statements.push(unguard(&relation));
            statements.push(format!(
                "CREATE TRIGGER bulkhead_refuse BEFORE INSERT OR UPDATE ON {relation} FOR EACH ROW \
                 WHEN (NEW.{} IS NOT NULL) EXECUTE FUNCTION bulkhead.refuse({})",
                name(column),
                literal(column)
            ));
        }
        for table in &primary.tables {
            let Some(calls) = calls::calls(&table.schema, table.relayed) else { continue };
            let source = calls::source(&table.schema);
            let mark = calls::mark(&source);
            let will_be = self.steps.iter().any(|step| step.on_primary && step.statements.contains(&mark));
            if will_be || primary.installed.contains(&source) {
                statements.extend(calls::note(&table.schema, calls, &table.noting));
            }
        }
        match self.steps.last_mut() {
            Some(last) if last.on_primary => last.statements.extend(statements),
            _ => self.add(true, statements),
        }
        self
    }

    fn add(&mut self, on_primary: bool, statements: Vec<String>) {
        if !statements.is_empty() {
            self.steps.push(Step { on_primary, statements });
        }
    }
}

impl Step {
    /// All of it, as it runs.
    pub fn sql(&self) -> String {
        let mut sql = "BEGIN;\nSET LOCAL lock_timeout = '5s';\n".to_owned();
        for statement in &self.statements {
            sql.push_str(statement);
            sql.push_str(";\n");
        }
        sql.push_str("COMMIT;");
        sql
    }
}

/// A table of both sides.
struct Pair<'a> {
    from: Table,
    to: &'a Table,
    /// The statement that makes the primary's, if it is not there.
    making: Option<String>,
}

/// Tables that both sides have. A side that lacks one of them has another version of the library, or none; or it is one of
/// those that the library makes for each queue, which is made then.
fn pairs<'a>(primary: &Side, jobs: &'a Side, problems: &mut Vec<String>) -> Vec<Pair<'a>> {
    let mut pairs = Vec::new();
    // Where calls are noted, neither is the library's.
    for to in jobs.tables.iter().filter(|to| to.call.is_none()) {
        let from = primary.tables.iter().find(|from| from.source() == to.source()).cloned();
        let pair = match from {
            Some(from) => Some(Pair { from, to, making: None }),
            None => made(primary, to),
        };
        match pair {
            Some(pair) => pairs.push(pair),
            None => problems.push(format!(
                "{} is in the job database, and missing on the primary: run the library's migrations there, too",
                to.source()
            )),
        }
    }
    for from in primary.tables.iter().filter(|from| from.call.is_none()) {
        if jobs.tables.iter().all(|to| to.source() != from.source()) {
            problems.push(format!("{} is on the primary, and missing in the job database", from.source()));
        }
    }
    if pairs.is_empty() && problems.is_empty() {
        problems.push("no table of the presets is there that could be moved".to_owned());
    }
    pairs
}

/// A table that the primary does not have, as the library's function will make it there.
fn made<'a>(primary: &Side, to: &'a Table) -> Option<Pair<'a>> {
    let maker = to.relayed?.made_by.as_ref()?;
    let queue = to.name.strip_prefix(maker.prefix)?;
    if !primary.functions.contains(&format!("{}.{}", to.schema, maker.function)) {
        return None;
    }
    let making = format!("SELECT {}.{}({})", name(&to.schema), name(maker.function), literal(queue));
    let sequence = to.sequence.clone().map(|of| Sequence { increment: 1, last: 0, highest: 0, ..of });
    let from = Table { sequence, partitions: Partitions::Without, ..to.clone() };
    Some(Pair { from, to, making: Some(making) })
}

/// Tables that were installed, and that neither side has any more.
fn gone<'a>(primary: &'a Side, jobs: &'a Side) -> Vec<&'a String> {
    let has = |side: &Side, source: &String| side.tables.iter().any(|table| table.source() == *source);
    let mut gone: Vec<&String> = primary.installed.iter().chain(&jobs.installed).collect();
    gone.retain(|source| !has(primary, source) && !has(jobs, source));
    gone.sort_unstable();
    gone.dedup();
    gone
}

fn highest(from: &Table, to: &Table) -> i64 {
    let last = |table: &Table| table.sequence.as_ref().map_or(0, |sequence| sequence.highest);
    last(from).max(last(to))
}

/// Has the key's sequence give only odd, or only even numbers from `start` on, which must be above all that there are.
fn stride(table: &Table, start: i64, odd: bool) -> Vec<String> {
    let Some(Sequence { name: sequence, column, .. }) =
        table.sequence.as_ref().filter(|sequence| !is_strided(sequence, odd))
    else {
        return Vec::new();
    };
    let relation = relation(table);
    let column = name(column);
    let source = table.source();
    vec![
        lock(table),
        format!("ALTER SEQUENCE {sequence} INCREMENT BY 2 RESTART WITH {start}"),
        carry_out(&format!(
            "BEGIN IF (SELECT pg_catalog.max({column}) FROM {relation}) >= {start} THEN \
             RAISE EXCEPTION '% has numbers from {start} on', {source} USING HINT = 'Try again.'; END IF; END",
            source = literal(&source)
        )),
    ]
}

fn relation(table: &Table) -> String {
    format!("{}.{}", name(&table.schema), name(&table.name))
}

/// The primary's partition for all rows that no other is made for: nobody makes one there for each queue.
fn partition(table: &Table) -> String {
    format!("{}.{}", name(&table.schema), name(&format!("bulkhead_{}", table.name)))
}

/// Nobody writes while this is looked at.
fn lock(table: &Table) -> String {
    format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", relation(table))
}

fn mark(table: &Table) -> String {
    let source = source_literal(table);
    match &table.sequence {
        Some(sequence) => format!(
            "INSERT INTO bulkhead.outbox (source_table, sequence, increment_before) VALUES ({source}, {}, {})",
            literal(&sequence.name),
            if sequence.increment == 2 { 1 } else { sequence.increment }
        ),
        None => format!("INSERT INTO bulkhead.outbox (source_table) VALUES ({source})"),
    }
}

/// The least that the relay's user needs in the schema.
fn grants(user: &str, table: &str) -> [String; 3] {
    let user = name(user);
    [
        format!("GRANT USAGE ON SCHEMA bulkhead TO {user}"),
        format!("GRANT SELECT, UPDATE ON bulkhead.outbox TO {user}"),
        format!("GRANT SELECT, INSERT, DELETE ON bulkhead.{table} TO {user}"),
    ]
}
