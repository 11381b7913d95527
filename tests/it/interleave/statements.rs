//! What sessions say: statements made from templates with few names, so that they meet what was done before.

use crate::support::Random;

/// What a statement may leave behind. A session that may hold a backend takes one of the pool's places in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaves {
    /// Settings and protocol-level statements only: they move with the session.
    Nothing,
    /// A transaction, if it is not in one.
    Transaction,
    /// What pins the session until DISCARD ALL.
    Pin,
    /// What pins the session until it goes.
    LastingPin,
}

/// Templates with the same standing.
type Group = (Leaves, &'static [&'static str]);

use Leaves::{LastingPin, Nothing, Pin, Transaction};

/// Every group is chosen as often as another. What is in braces is filled in by [`fill`].
const GROUPS: &[Group] = &[
    (
        Nothing,
        &[
            "SET {name} = {value}",
            "SET {name} TO {value}",
            "SET SESSION {name} = {value}",
            "SET {name} TO DEFAULT",
            "RESET {name}",
            "RESET {name}",
            "SELECT set_config('{name}', {text}, false)",
            "SET app.a{n} = '{key}'",
            "RESET app.a{n}",
            "RESET ALL",
            "DISCARD ALL",
            "DISCARD PLANS",
        ],
    ),
    (
        Nothing,
        &[
            "SET LOCAL {name} = {value}",
            "SELECT set_config('{name}', {text}, true)",
            "SET LOCAL app.a{n} = '{key}'",
            "SET LOCAL ROLE reader",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "SET TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
        ],
    ),
    (
        Nothing,
        &[
            "SET ROLE reader",
            "SET ROLE app",
            "SET ROLE NONE",
            "RESET ROLE",
            "SET SESSION AUTHORIZATION app",
            "SET SESSION AUTHORIZATION DEFAULT",
            "RESET SESSION AUTHORIZATION",
            "SET SESSION AUTHORIZATION app_two",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SELECT current_user, session_user",
        ],
    ),
    (
        Nothing,
        &[
            "SHOW {name}",
            "SELECT current_setting('{name}')",
            "SELECT coalesce(current_setting('app.a{n}', true), '')",
            "SELECT name, setting FROM pg_settings WHERE name IN ('work_mem', 'search_path', 'DateStyle', 'TimeZone', \
             'bytea_output', 'application_name', 'default_transaction_read_only', 'client_min_messages') ORDER BY 1",
            "SELECT timestamptz '2024-01-02 03:04+00', interval '1 day 2 hours', 1::float8 / 3, '\\x00ff'::bytea",
            "SELECT 'a\\nb'",
            "SHOW transaction_isolation",
            "SHOW transaction_read_only",
            "SELECT current_schemas(false)",
        ],
    ),
    (
        Nothing,
        &[
            "SELECT * FROM place",
            "SELECT * FROM own{i} ORDER BY id LIMIT 5",
            "SELECT * FROM own{i} ORDER BY id LIMIT 5",
            "INSERT INTO shared (who, key) VALUES ({i}, '{key}') RETURNING *",
            "INSERT INTO own{i} VALUES ({key}, 'k') RETURNING *",
            "UPDATE own{i} SET name = '{key}' WHERE id = {n}",
            "DELETE FROM own{i} WHERE id > 10{n}",
            "SELECT count(*) FROM shared",
            "SELECT generate_series(1, {n}0)",
            "SELECT nextval('counter')",
            "VALUES (1, 'one'), (2, NULL)",
            "CREATE TABLE IF NOT EXISTS place (text text)",
            "DROP TABLE IF EXISTS no_such",
            "EXPLAIN (COSTS off) SELECT 1",
        ],
    ),
    (
        Nothing,
        &[
            "SELECT 1 / 0",
            "SELECT * FROM no_such",
            "SELEKT",
            "SET no_such = 1",
            "SELECT 'x'::int",
            "INSERT INTO own{i} VALUES (NULL, 'null')",
            "SELECT raises('{key}')",
            "SELECT warns('{key}')",
            "DO $$ BEGIN RAISE NOTICE 'in a block'; END $$",
            "DO $$ BEGIN RAISE EXCEPTION 'in a block'; END $$",
            "",
            "-- nothing",
            ";;",
        ],
    ),
    (
        Pin,
        &[
            "CREATE TEMP TABLE tt{n} (id int)",
            "CREATE TEMP TABLE tt{n} (id int) ON COMMIT DROP",
            "CREATE TEMP TABLE tt{n} (id int) ON COMMIT DELETE ROWS",
            "CREATE TABLE pg_temp.tt{n} (id int)",
            "CREATE TEMP VIEW tt{n} AS SELECT {key} AS id",
            "CREATE TEMP SEQUENCE ts{n}",
            "SELECT {key} AS id INTO TEMP tt{n}",
            "CREATE TEMP TABLE tt{n} AS SELECT {key} AS id",
            "CREATE FUNCTION pg_temp.tf() RETURNS int LANGUAGE sql AS 'SELECT {key}'",
            "CREATE TEMP TABLE place AS SELECT 'temp'::text AS text",
            "DO $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS tt{n} (id int); END $$",
            "SELECT leaves_table()",
        ],
    ),
    (
        Nothing,
        &[
            "INSERT INTO tt{n} VALUES ({key})",
            "SELECT * FROM tt{n} ORDER BY 1",
            "SELECT * FROM pg_temp.tt{n} ORDER BY 1",
            "SELECT nextval('ts{n}')",
            "SELECT pg_temp.tf()",
            "DROP TABLE tt{n}",
            "DROP TABLE IF EXISTS tt{n}",
            "DROP VIEW IF EXISTS tt{n}",
            "DISCARD TEMP",
            "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() ORDER BY 1",
        ],
    ),
    (
        Pin,
        &[
            "SELECT pg_advisory_lock({i}00 + {n})",
            "SELECT pg_advisory_lock_shared({n})",
            "SELECT pg_try_advisory_lock({n})",
            "SELECT pg_try_advisory_lock({i}00 + id) FROM own{i} WHERE id <= {n}",
            "DO $$ BEGIN PERFORM pg_try_advisory_lock({n}); END $$",
            "SELECT leaves_lock({n})",
        ],
    ),
    (
        Nothing,
        &[
            "SELECT pg_advisory_unlock({i}00 + {n})",
            "SELECT pg_advisory_unlock({n})",
            "SELECT pg_advisory_unlock_shared({n})",
            "SELECT pg_advisory_unlock_all()",
            "SELECT pg_try_advisory_xact_lock({n})",
            "SELECT classid, objid, mode FROM pg_locks JOIN pg_database d ON d.oid = database \
             WHERE locktype = 'advisory' AND datname = current_database() ORDER BY 1, 2, 3",
        ],
    ),
    (
        Pin,
        &[
            "PREPARE p{n} AS SELECT {key} AS a",
            "PREPARE p{n} (int) AS SELECT $1 + {n} AS b",
            "PREPARE p{n} AS SELECT * FROM own{i} ORDER BY id",
            "DO $$ BEGIN EXECUTE 'PREPARE p{n} AS SELECT {key} AS c'; END $$",
        ],
    ),
    (
        Nothing,
        &[
            "EXECUTE p{n}",
            "EXECUTE p{n}",
            "EXECUTE p{n} ({key})",
            "DEALLOCATE p{n}",
            "DEALLOCATE PREPARE p{n}",
            "DEALLOCATE ALL",
            "SELECT name, statement FROM pg_prepared_statements WHERE from_sql ORDER BY 1",
        ],
    ),
    (
        Pin,
        &[
            "DECLARE k{n} CURSOR WITH HOLD FOR SELECT generate_series({n}, 20)",
            "DECLARE k{n} SCROLL CURSOR WITH HOLD FOR SELECT * FROM own{i} ORDER BY id",
        ],
    ),
    (
        Nothing,
        &[
            "DECLARE k{n} CURSOR FOR SELECT generate_series({n}, 20)",
            "DECLARE k{n} SCROLL CURSOR FOR SELECT generate_series({n}, 20)",
            "FETCH {n} FROM k{n}",
            "FETCH BACKWARD 1 FROM k{n}",
            "MOVE 2 FROM k{n}",
            "CLOSE k{n}",
            "CLOSE ALL",
            "SELECT name, is_holdable FROM pg_cursors WHERE name LIKE 'k%' ORDER BY 1",
        ],
    ),
    (
        Transaction,
        &[
            "BEGIN",
            "BEGIN",
            "START TRANSACTION",
            "BEGIN READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
            "BEGIN TRANSACTION READ WRITE",
        ],
    ),
    (Transaction, ENDS),
    (Transaction, ENDS),
    (
        Nothing,
        &[
            "SAVEPOINT s{n}",
            "SAVEPOINT s{n}",
            "ROLLBACK TO s{n}",
            "ROLLBACK TO SAVEPOINT s{n}",
            "RELEASE s{n}",
            "PREPARE TRANSACTION 'x'",
        ],
    ),
    (
        Nothing,
        &[
            "COPY own{i} TO STDOUT",
            "COPY (SELECT {n}, 'x') TO STDOUT",
            "COPY own{i} (id, name) FROM STDIN",
            "COPY own{i} (id, name) FROM STDIN",
            "COPY no_such FROM STDIN",
            "COPY shared (who, key) FROM STDIN",
        ],
    ),
    (
        Nothing,
        &[
            "SELECT lo_create(70000 + {i}0 + {n}) > 0",
            "SELECT lo_put(70000 + {i}0 + {n}, 0, 'bytes')",
            "SELECT lo_get(70000 + {i}0 + {n})",
            "SELECT lo_unlink(70000 + {i}0 + {n})",
            "SELECT lo_open(70000 + {i}0 + {n}, 393216)",
            "SELECT lowrite({n}, 'written')",
            "SELECT lo_lseek({n}, 0, 0), loread({n}, 100)",
            "SELECT lo_close({n})",
        ],
    ),
    (
        Nothing,
        &[
            "ALTER TABLE own{i} ADD COLUMN IF NOT EXISTS extra int DEFAULT {n}",
            "ALTER TABLE own{i} DROP COLUMN IF EXISTS extra",
            "CREATE INDEX IF NOT EXISTS own{i}_name ON own{i} (name)",
            "DROP INDEX IF EXISTS own{i}_name",
            "TRUNCATE own{i}",
            "CREATE OR REPLACE VIEW own_view{i} AS SELECT id FROM own{i}",
            "COMMENT ON TABLE own{i} IS '{key}'",
        ],
    ),
    (
        LastingPin,
        &[
            "SELECT set_config('{na' || 'me}', {text}, false)",
            "DO $$ BEGIN PERFORM set_config('{name}', {text}, false); END $$",
            "DO $$ BEGIN EXECUTE 'SET work_mem = {n}000'; END $$",
            "DO $$ BEGIN SET LOCAL work_mem = {n}000; END $$",
            "SELECT leaves_setting('{key}')",
            // From then on the session keeps every backend on which it may have called nextval.
            "SELECT nextval('counter'), currval('counter'), lastval()",
        ],
    ),
];

const ENDS: &[&str] =
    &["COMMIT", "COMMIT", "END", "ROLLBACK", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"];

/// What LISTEN and NOTIFY say; only with the switch.
pub(super) const CHANNELS: &[&str] = &[
    "LISTEN c{n}",
    "UNLISTEN c{n}",
    "UNLISTEN *",
    "NOTIFY c{n}, '{key}'",
    "SELECT pg_notify('c{n}', '{key}')",
];

/// Names of settings with values as SET takes them. Those that are reported come first. `temp_buffers` is not among
/// them: a backend that has had temporary tables, whoever's, does not change it any more.
const SETTINGS: &[(&str, &[&str])] = &[
    ("DateStyle", &["'German'", "'ISO, MDY'", "'SQL, DMY'"]),
    ("TimeZone", &["'Asia/Tokyo'", "'UTC'", "'America/New_York'", "'No/Such'"]),
    ("IntervalStyle", &["'postgres'", "'iso_8601'"]),
    ("client_encoding", &["'UTF8'", "'LATIN1'", "'SQL_ASCII'"]),
    ("application_name", &["'one'", "'two'", "''"]),
    ("standard_conforming_strings", &["on", "off"]),
    ("search_path", &["one, public", "two, public", "''", "'\"$user\", public'"]),
    ("work_mem", &["'1MB'", "'2MB'", "777", "'x'"]),
    ("bytea_output", &["'escape'", "'hex'"]),
    ("extra_float_digits", &["0", "-3", "1"]),
    ("statement_timeout", &["'60s'", "0"]),
    ("client_min_messages", &["warning", "notice", "error"]),
    ("default_transaction_read_only", &["on", "off"]),
    ("default_transaction_isolation", &["'repeatable read'", "'read committed'"]),
    ("app.b", &["'x'", "''", "'it''s'"]),
    ("role", &["'reader'", "'none'"]),
];

/// A random statement that leaves at most `most`; how much it may leave.
pub(super) fn statement(random: &mut Random, session: usize, most: Leaves) -> (String, Leaves) {
    loop {
        let (leaves, templates) = choose(random, GROUPS);
        if *leaves <= most && (*leaves < LastingPin || random.below(4) == 0) {
            return (fill(choose::<&str>(random, templates), random, session), *leaves);
        }
    }
}

/// One of a list that is not empty.
pub(super) fn choose<'a, T>(random: &mut Random, list: &'a [T]) -> &'a T {
    &list[random.below(list.len() as u64) as usize]
}

/// Fills in the braces: `{i}` the session's number, `{n}` 1 to 3, `{key}` a number, `{name}` a setting with its
/// `{value}`, and the same value as a literal, `{text}`.
pub(super) fn fill(template: &str, random: &mut Random, session: usize) -> String {
    let (name, values) = choose(random, SETTINGS);
    let value = *choose(random, values);
    let text = if value.starts_with('\'') { value.to_owned() } else { format!("'{value}'") };
    let (number, key) = (1 + random.below(3), 100 + random.below(10));
    template
        .replace("{i}", &session.to_string())
        .replace("{n}", &number.to_string())
        .replace("{key}", &key.to_string())
        .replace("{na' || 'me}", &name.replacen('e', "' || 'e", 1))
        .replace("{name}", name)
        .replace("{value}", value)
        .replace("{text}", &text)
}
