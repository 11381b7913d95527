//! What sessions leave on a server, or take from it piece by piece: cursors, COPY, channels, settings, prepared statements,
//! temporary tables and advisory locks. Each kind is a table of its own.

use super::super::{
    acts::{
        Act,
        Piece::{self, Bind, ClosePortal, DescribePortal, Execute, Parse, Sync},
    },
    statements::choose,
};
use crate::support::Random;

/// Cursors of application tables are called `a`, those of job tables `j`.
const DECLARES: &[&str] = &[
    "DECLARE a{n} CURSOR FOR SELECT id, name FROM own{i} ORDER BY id",
    "DECLARE a{n} SCROLL CURSOR FOR SELECT id, name FROM own{i} ORDER BY id",
    "DECLARE a{n} CURSOR WITH HOLD FOR SELECT id, name FROM own{i} ORDER BY id",
    "DECLARE j{n} CURSOR FOR SELECT worker, state FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker",
    "DECLARE j{n} NO SCROLL CURSOR FOR SELECT worker FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker",
    "DECLARE j{n} CURSOR WITH HOLD FOR SELECT worker, state FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker",
    "DECLARE n{n} CURSOR FOR SELECT generate_series(1, 9)",
];

const FETCHES: &[&str] = &[
    "FETCH {n} FROM a{n}",
    "FETCH ALL FROM a{n}",
    "FETCH {n} FROM j{n}",
    "FETCH NEXT IN j{n}",
    "MOVE 1 IN a{n}",
    "MOVE 1 IN j{n}",
    "FETCH 2 FROM n{n}",
    "CLOSE a{n}",
    "CLOSE j{n}",
    "CLOSE ALL",
];

/// What the servers are sent is the same two rows for each, of which one may be there already.
const COPIES: &[&str] = &[
    "COPY own{i} TO STDOUT",
    "COPY (SELECT id, name FROM own{i} ORDER BY id) TO STDOUT (FORMAT csv)",
    "COPY own{i} (id, name) FROM STDIN",
    "COPY own{i} (id, name) FROM STDIN",
    "COPY (SELECT worker, queue FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker) TO STDOUT",
    "COPY oban_jobs (priority, worker) FROM STDIN",
    "COPY oban_jobs (priority, worker) FROM STDIN",
];

/// Channels of the application, and of the jobs; what a payload says is said once.
const CHANNELS: &[&str] = &[
    "LISTEN c{n}",
    "LISTEN \"public.oban_gossip\"",
    "LISTEN \"public.oban_insert\"",
    "NOTIFY c{n}, '{u}'",
    "SELECT pg_notify('c{n}', '{u}')",
    "SELECT pg_notify('public.oban_gossip', '{u}')",
    "NOTIFY \"public.oban_gossip\", '{u}'",
    "SELECT pg_notify('c{n}', name) FROM own{i} WHERE id = {n}",
];

const SETTINGS: &[&str] = &[
    "SHOW work_mem",
    "SHOW application_name",
    "SET SESSION statement_timeout = '{n}00s'",
    "SET LOCAL statement_timeout = '{n}01s'",
    "SHOW statement_timeout",
    "RESET ALL",
    "SET app.mine = 'm{u}'",
    "SELECT set_config('app.mine', 'l{u}', true)",
    "SELECT nullif(current_setting('app.mine', true), '')",
    "SELECT nullif(current_setting('app.mine', true), ''), current_setting('work_mem') FROM own{i} WHERE id = 1",
    "SELECT nullif(current_setting('app.mine', true), ''), current_setting('work_mem'), \
     current_setting('statement_timeout') FROM oban_jobs LIMIT 1",
];

const PREPARES: &[&str] = &[
    "PREPARE a{n} AS SELECT id, name FROM own{i} ORDER BY id",
    "PREPARE a{n} AS INSERT INTO own{i} VALUES ({d}, 'x{u}')",
    "PREPARE j{n} AS SELECT worker, state FROM oban_jobs WHERE queue = 'q{i}' ORDER BY worker",
    "PREPARE j{n} AS INSERT INTO oban_jobs (worker, queue) VALUES ('w{i}_{u}_', 'q{i}')",
    "PREPARE n{n} AS SELECT {d} AS n",
    "EXECUTE a{n}",
    "EXECUTE a{n}",
    "EXECUTE j{n}",
    "EXECUTE j{n}",
    "EXECUTE n{n}",
    "DEALLOCATE a{n}",
    "DEALLOCATE j{n}",
    "DEALLOCATE ALL",
];

const TEMPORARY: &[&str] = &[
    "CREATE TEMP TABLE t{n} AS SELECT id FROM own{i}",
    "CREATE TEMP TABLE t{n} (id int)",
    "CREATE TEMP TABLE t{n} (id int) ON COMMIT DROP",
    "INSERT INTO t{n} VALUES ({d})",
    "SELECT id FROM t{n} ORDER BY id",
    "SELECT t.id, o.name FROM t{n} t JOIN own{i} o ON o.id = t.id ORDER BY 1",
    "SELECT count(*) FROM t{n} t, oban_jobs j WHERE j.priority = t.id",
    "DROP TABLE t{n}",
];

/// Each session has its own, and `{i}00` may be had of the transaction and of the session.
const LOCKS: &[&str] = &[
    "SELECT pg_advisory_lock({i}00 + {n})",
    "SELECT pg_try_advisory_lock({i}00 + {n})",
    "SELECT pg_try_advisory_lock_shared({i}00 + {n})",
    "SELECT pg_advisory_unlock({i}00 + {n})",
    "SELECT pg_advisory_unlock({i}00 + {n})",
    "SELECT pg_advisory_unlock_shared({i}00 + {n})",
    "SELECT pg_advisory_unlock_all()",
    "SELECT pg_try_advisory_xact_lock({i}00 + {n})",
    "SELECT id, pg_try_advisory_xact_lock({i}00 + id) FROM own{i} WHERE id = {n}",
];

/// A function that writes to both. What it adds on the primary stays there without an outbox.
const FUNCTIONS: &[&str] = &["SELECT enqueues{i}(id, 'w{i}_{u}_') FROM own{i} WHERE id = {n}"];

/// Only outside of a transaction: within one a server answers all but the first with an error, and may tell meanwhile what it
/// has told already.
const OUTSIDE: &[&str] = &["DISCARD ALL", "DISCARD PLANS", "UNLISTEN c{n}", "UNLISTEN *"];

/// One of these kinds. Kinds that begin something come twice as often within a transaction.
pub(super) fn list(random: &mut Random, in_transaction: bool) -> &'static [&'static str] {
    match random.below(if in_transaction { 13 } else { 11 }) {
        0 => COPIES,
        1 => CHANNELS,
        2 | 3 => SETTINGS,
        4 => PREPARES,
        5 => TEMPORARY,
        6 => LOCKS,
        7 if super::has_outbox() => FUNCTIONS,
        10 if !in_transaction => OUTSIDE,
        9..12 => DECLARES,
        _ => FETCHES,
    }
}

/// Whether a statement stands in a request of its own: what it is about may be on the other server than what is beside it.
pub(super) fn stands_alone(sql: &str) -> bool {
    let there = ["FETCH", "MOVE", "CLOSE", "SELECT pg_advisory_unlock"];
    let whole = ["FROM STDIN", "DISCARD", "DEALLOCATE ALL", "RESET"];
    there.iter().any(|start| sql.starts_with(start)) || whole.iter().any(|part| sql.contains(part))
}

/// Makes a portal with a name, of a statement with rows, and takes some of them.
pub(super) fn opens_portal(random: &mut Random, sql: String) -> Act {
    let of_jobs = sql.contains("oban_jobs");
    let portal = PORTALS[2 * usize::from(of_jobs) + random.below(2) as usize];
    Act::Messages(vec![
        Parse("", sql),
        Bind(portal, "", Vec::new()),
        DescribePortal(portal),
        Execute(portal, 1),
        Sync,
    ])
}

/// Goes on with a portal, or closes it.
pub(super) fn uses_portal(random: &mut Random) -> Act {
    let portal = *choose(random, PORTALS);
    let piece: Piece = match random.below(4) {
        0 => ClosePortal(portal),
        1 => DescribePortal(portal),
        _ => Execute(portal, 1 + random.below(3) as i32),
    };
    Act::Messages(vec![piece, Sync])
}

/// Those of the application's tables, and of jobs.
const PORTALS: &[&str] = &["c1", "c2", "d1", "d2"];
