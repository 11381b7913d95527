//! What sessions say about the application's tables and about jobs.

use super::{
    super::{
        acts::{Act, Piece},
        statements::choose,
    },
    state,
};
use crate::support::Random;

use Piece::{Bind, CloseStatement, DescribePortal, DescribeStatement, Execute, Flush, Parse, Sync};

const APP_READS: &[&str] = &[
    "SELECT id, name FROM own{i} ORDER BY id",
    "SELECT count(*) FROM own{i}",
    "SELECT name FROM own{i} WHERE id = {n}",
    "SELECT name FROM own{i} WHERE id = {n} FOR UPDATE",
    "SELECT adds_up(id) FROM own{i} WHERE id < {n}",
];

const APP_WRITES: &[&str] = &[
    "INSERT INTO own{i} VALUES ({d}, 'x{u}')",
    "INSERT INTO own{i} VALUES ({d}, 'x{u}')",
    "INSERT INTO own{i} VALUES ({d}, 'x{u}') ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id, name",
    "UPDATE own{i} SET name = 'x{u}' WHERE id = {n} RETURNING id, name",
    "DELETE FROM own{i} WHERE id = {d}",
    "WITH gone AS (DELETE FROM own{i} WHERE id = {d} RETURNING id) SELECT count(*) FROM gone",
    // A function alone names no table, and is looked for where the transaction is.
    "SELECT writes_own{i}({d}, 'x{u}') FROM own{i} WHERE id = 1",
];

const SHARED: &[&str] = &[
    "INSERT INTO shared VALUES ('k{d}')",
    "DELETE FROM shared WHERE key = 'k{d}'",
    "SELECT key FROM shared ORDER BY key",
    "INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'common')",
    "SELECT worker, state FROM oban_jobs WHERE queue = 'common' ORDER BY worker",
    "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1 WHERE id IN (SELECT id FROM oban_jobs WHERE \
     state = 'available' AND queue = 'common' ORDER BY worker LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING worker, attempt",
];

const JOB_ADDS: &[&str] = &[
    "INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'q{i}')",
    "INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'q{i}')",
    "INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'q{i}') RETURNING worker, queue, state, attempt",
    "INSERT INTO \"public\".\"oban_jobs\" (\"worker\", \"queue\") VALUES ('w{i}_{u}_1', 'q{i}'), ('w{i}_{u}_2', 'q{i}') \
     ON CONFLICT DO NOTHING RETURNING worker",
    "INSERT INTO oban_jobs (worker, queue) SELECT 'w{i}_{u}_' || g, 'q{i}' FROM generate_series(1, {n}) g",
    "WITH inserted AS (INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'q{i}') RETURNING queue, state) \
     SELECT queue, state FROM inserted",
    "INSERT INTO oban_jobs (worker, queue, args) VALUES ('w{i}_{u}_', 'q{i}', '{\"key\": \"k{i}_{n}\"}') ON CONFLICT DO NOTHING",
    "INSERT INTO oban_jobs (worker, queue, args) VALUES ('w{i}_{u}_', 'q{i}', '{\"key\": \"k{i}_{n}\"}') \
     ON CONFLICT ((args->>'key')) DO NOTHING RETURNING worker",
    "INSERT INTO oban_jobs (worker, queue) VALUES ('', 'q{i}')",
    "INSERT INTO oban_jobs (worker, queue, state) VALUES ('w{i}_{u}_', 'q{i}', 'nonsense')",
];

const JOB_READS: &[&str] = &[
    "SELECT worker, queue, state, attempt, priority FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker",
    "SELECT worker, args FROM oban_jobs WHERE args->>'key' = 'k{i}_{n}'",
    "SELECT 1 / 0 FROM oban_jobs GROUP BY ()",
];

const JOB_CHANGES: &[&str] = &[
    "UPDATE oban_jobs SET state = 'executing', attempt = attempt + 1 WHERE id IN (SELECT id FROM oban_jobs WHERE \
     state = 'available' AND queue = 'q{i}' ORDER BY worker LIMIT {n} FOR UPDATE SKIP LOCKED) RETURNING worker, attempt",
    "UPDATE oban_jobs SET state = 'completed', completed_at = now() WHERE state = 'executing' AND queue = 'q{i}'",
    "SELECT worker FROM oban_jobs WHERE queue = 'q{i}' AND state = 'available' ORDER BY worker FOR UPDATE SKIP LOCKED",
    "DELETE FROM oban_jobs WHERE id IN (SELECT id FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker LIMIT 1) RETURNING worker",
    "DELETE FROM oban_jobs WHERE queue = 'q{i}' AND state = 'completed'",
    "INSERT INTO oban_jobs (worker, queue, args) VALUES ('w{i}_{u}_', 'q{i}', '{\"key\": \"k{i}_{n}\"}') \
     ON CONFLICT ((args->>'key')) DO UPDATE SET priority = oban_jobs.priority + 1 RETURNING priority",
];

const BOTH: &[&str] = &[
    "INSERT INTO oban_jobs (worker, queue) SELECT 'w{i}_{u}_' || id, 'q{i}' FROM own{i}",
    "WITH new AS (INSERT INTO own{i} VALUES ({d}, 'x{u}') RETURNING id) \
     INSERT INTO oban_jobs (worker, queue) SELECT 'w{i}_{u}_' || id, 'q{i}' FROM new",
    "SELECT count(*) FROM own{i}, oban_jobs",
];

const NEUTRAL: &[&str] = &[
    "SELECT 1",
    "SELECT 1 / 0",
    "SELEKT",
    "",
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    "SELECT current_setting('work_mem'), current_setting('application_name')",
    "SELECT pg_try_advisory_xact_lock({i}00 + {n})",
    "SELECT generate_series(1, {n})",
    "SELECT now() = transaction_timestamp()",
];

const SETTINGS: &[&str] = &[
    "SET application_name = 'a{n}'",
    "SET work_mem = '{n}MB'",
    "RESET work_mem",
    "SET LOCAL work_mem = '1{n}MB'",
    "SELECT set_config('work_mem', '2{n}MB', true)",
    "SELECT set_config('application_name', 'b{n}', false)",
    "SET LOCAL application_name = 'c{n}'",
    "SET TRANSACTION READ ONLY",
];

const BEGINS: &[&str] = &[
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "BEGIN TRANSACTION READ WRITE",
];

const ENDS: &[&str] =
    &["COMMIT", "COMMIT", "COMMIT", "END", "ROLLBACK", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"];

const SAVEPOINTS: &[&str] = &[
    "SAVEPOINT s{n}",
    "SAVEPOINT s{n}",
    "ROLLBACK TO s{n}",
    "ROLLBACK TO SAVEPOINT s{n}",
    "RELEASE s{n}",
    "RELEASE SAVEPOINT s{n}",
];

/// What is known of the session that says something next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    pub(super) session: usize,
    pub(super) in_transaction: bool,
    pub(super) has_failed: bool,
    /// It sees what was there when its transaction began: its own things only, then.
    pub(super) is_repeatable: bool,
    /// Steps so far.
    pub(super) step: usize,
}

/// A random step.
pub(super) fn act(random: &mut Random, chance: Chance) -> Act {
    match random.below(22) {
        0..9 => Act::Query(statement(random, chance)),
        9..11 => {
            let chance = Chance { is_repeatable: true, ..chance };
            let texts: Vec<_> = (0..2 + random.below(3)).map(|_| statement_beside(random, chance)).collect();
            Act::Query(texts.join("; "))
        }
        11..14 => {
            let sql = statement(random, chance);
            Act::Messages(unnamed(random, sql))
        }
        14..16 => {
            let sql = statement(random, chance);
            // How a transaction begins is not known of a request that does more.
            let begins = sql.starts_with("BEGIN") || sql.starts_with("START");
            Act::Messages(if begins { unnamed(random, sql) } else { named(random, sql) })
        }
        20 if chance.in_transaction => {
            let list = *choose(random, &[APP_READS, JOB_READS]);
            let sql = fill(choose::<&str>(random, list), random, chance);
            state::opens_portal(random, sql)
        }
        21 if chance.in_transaction => state::uses_portal(random),
        _ => pipeline(random, chance),
    }
}

/// A statement that may be one of several of a request.
fn statement_beside(random: &mut Random, chance: Chance) -> String {
    loop {
        let sql = statement(random, chance);
        if !state::stands_alone(&sql) {
            return sql;
        }
    }
}

fn statement(random: &mut Random, chance: Chance) -> String {
    let list = if !chance.in_transaction && random.below(2) == 0 {
        BEGINS
    } else if chance.has_failed && random.below(2) == 0 {
        *choose(random, &[ENDS, SAVEPOINTS])
    } else {
        loop {
            let list = match random.below(50) {
                0..4 => APP_READS,
                4..9 => APP_WRITES,
                9..14 => JOB_ADDS,
                14..17 => JOB_READS,
                17..20 => JOB_CHANGES,
                20 => BOTH,
                21..23 => NEUTRAL,
                23..25 => SETTINGS,
                25..27 if chance.in_transaction => SAVEPOINTS,
                27..30 if chance.in_transaction => ENDS,
                30 if !chance.is_repeatable => SHARED,
                31 if random.below(4) == 0 => *choose(random, &[BEGINS, ENDS, SAVEPOINTS]),
                32.. => state::list(random, chance.in_transaction),
                _ => continue,
            };
            break list;
        }
    };
    fill(choose::<&str>(random, list), random, chance)
}

/// `{i}` the session's number, `{n}` 1 to 3, `{d}` 1 to 12, `{u}` a number that nothing else has, and that comes behind those of
/// earlier steps.
fn fill(template: &str, random: &mut Random, chance: Chance) -> String {
    let unique = chance.step * 100_000 + random.below(100_000) as usize;
    template
        .replace("{i}", &chance.session.to_string())
        .replace("{n}", &(1 + random.below(3)).to_string())
        .replace("{d}", &(1 + random.below(12)).to_string())
        .replace("{u}", &format!("{unique:08}"))
}

fn unnamed(random: &mut Random, sql: String) -> Vec<Piece> {
    // What has no rows cannot be run again.
    let has_rows = sql.starts_with("SELECT");
    let mut list = vec![Parse("", sql), Bind("", "", Vec::new()), DescribePortal("")];
    if has_rows && random.below(3) == 0 {
        list.extend([Execute("", 1), Execute("", 0)]);
    } else {
        list.push(Execute("", 0));
    }
    list.push(Sync);
    list
}

fn named(random: &mut Random, sql: String) -> Vec<Piece> {
    let mut list = vec![CloseStatement("m1"), Parse("m1", sql)];
    if random.below(2) == 0 {
        list.push(DescribeStatement("m1"));
    }
    if random.below(2) == 0 {
        list.push(Sync);
    }
    list.extend([Bind("", "m1", Vec::new()), Execute("", 0), Sync]);
    list
}

/// Several statements up to one Sync.
fn pipeline(random: &mut Random, chance: Chance) -> Act {
    let mut list = Vec::new();
    let flushes = super::super::number("BULKHEAD_TEST_FLUSH") == Some(1) && random.below(4) == 0;
    // One may begin a transaction that sees no more than its own.
    let chance = Chance { is_repeatable: true, ..chance };
    for _ in 0..2 + random.below(4) {
        let sql = statement_beside(random, chance);
        let mut part = unnamed(random, sql);
        part.pop();
        list.extend(part);
        if flushes && random.below(2) == 0 {
            list.push(Flush);
        }
    }
    list.push(Sync);
    Act::Messages(list)
}
