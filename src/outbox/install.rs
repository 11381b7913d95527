//! What the relay needs at both servers, and what takes it away again: as SQL, made from how both sides are now.
//!
//! Nothing is to be done where everything is there; what is half done is gone on with. The job database comes first, and
//! the mark on the primary last: where it is, everything is.

use super::{
    statements::Statements,
    tables::{Partitions, Sequence, Side, Table, is_strided, misfits, source_literal},
    text::{carry_out, literal, name},
};

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
     source_table pg_catalog.text NOT NULL, key pg_catalog.text NOT NULL, row pg_catalog.jsonb NOT NULL, \
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
    for (from, to) in &pairs {
        plan.problems.extend(misfits(from, to));
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
    for (from, to) in &pairs {
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
        let mut statements = Vec::new();
        for table in side.tables.iter().filter(|table| side.installed.contains(&table.source())) {
            if on_primary {
                statements.push(lock(table));
                statements.push(Statements::new(table.clone(), 0).refuse_rows());
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
        }
        statements.extend(drops.map(str::to_owned));
        plan.add(on_primary, statements);
    }
    plan
}

/// Nothing that was set aside is thrown away.
const NO_REFUSED: &str = "DO $bulkhead$ BEGIN IF EXISTS (SELECT FROM bulkhead.refused) THEN \
    RAISE EXCEPTION 'bulkhead.refused has rows: jobs that the job database has refused' \
    USING HINT = 'Put them back, or delete them.'; END IF; END $bulkhead$";

impl Plan {
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

/// Tables that both sides have. A side that lacks one of them has another version of the library, or none.
fn pairs<'a>(primary: &'a Side, jobs: &'a Side, problems: &mut Vec<String>) -> Vec<(&'a Table, &'a Table)> {
    let mut pairs = Vec::new();
    for to in &jobs.tables {
        match primary.tables.iter().find(|from| from.source() == to.source()) {
            Some(from) => pairs.push((from, to)),
            None => problems.push(format!(
                "{} is in the job database, and missing on the primary: run the library's migrations there, too",
                to.source()
            )),
        }
    }
    for from in &primary.tables {
        if jobs.tables.iter().all(|to| to.source() != from.source()) {
            problems.push(format!("{} is on the primary, and missing in the job database", from.source()));
        }
    }
    if pairs.is_empty() && problems.is_empty() {
        problems.push("no table of the presets is there that could be moved".to_owned());
    }
    pairs
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
