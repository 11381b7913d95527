//! Which tables a statement may change, and which a read reaches.

use super::proven::{catalog_with, explained};
use crate::sql::{Class, Tables, reach::definitions};

/// A database with everything that leads from one table to another.
const OWN: &[(&str, &str)] = &[
    ("known relation", "users"),
    ("known relation", "orders"),
    ("known relation", "lines"),
    ("known relation", "log"),
    ("known relation", "open_orders"),
    ("reach rr", "open_orders orders"),
    ("reach ww", "open_orders orders"),
    ("refers ca", "orders users"),
    ("refers ac", "lines orders"),
    ("known relation", "pg_search_documents"),
    ("known pg_", "pg_search_documents"),
    ("known relation", "found_documents"),
    ("reach rr", "found_documents pg_search_documents"),
    ("known relation", "watched"),
    ("reach wf", "watched notes_change"),
    ("function volatile user own", "notes_change"),
    ("body plpgsql", "notes_change BEGIN INSERT INTO log VALUES (NEW.id); RETURN NEW; END"),
    ("known relation", "events"),
    ("known relation", "events_1"),
    ("heir", "events events_1"),
    ("known relation", "secret"),
    ("reach rr", "secret users"),
    ("function own", "recent"),
    ("body sql", "recent SELECT count(*) FROM orders"),
    ("function volatile user own", "adds"),
    ("body sql", "adds INSERT INTO log VALUES (1)"),
    ("function volatile user own", "in_python"),
    ("body other", "in_python "),
    ("function own", "shows_where"),
    ("body sql", "shows_where SELECT to_regclass('x')::text"),
];

/// Statements, and the tables that they change; `*` for all.
const CHANGES: &[(&str, &str)] = &[
    ("SELECT * FROM users", ""),
    ("BEGIN", ""),
    ("COMMIT", ""),
    ("SET work_mem = '8MB'", ""),
    ("SELECT pg_advisory_lock(1)", ""),
    ("INSERT INTO users VALUES (1)", "users"),
    ("INSERT INTO s.users VALUES (1) ON CONFLICT DO NOTHING", "users"),
    ("UPDATE orders SET id = 2", "orders lines"),
    ("DELETE FROM users", "users orders lines"),
    ("DELETE FROM lines", "lines"),
    ("INSERT INTO watched VALUES (1)", "watched log"),
    ("INSERT INTO open_orders VALUES (1)", "open_orders orders lines"),
    ("INSERT INTO events_1 VALUES (1)", "events"),
    ("UPDATE events SET id = 1", "events"),
    ("WITH gone AS (DELETE FROM log RETURNING *) INSERT INTO lines SELECT * FROM gone", "log lines"),
    ("INSERT INTO log SELECT * FROM users", "log users"),
    ("SELECT adds()", "log"),
    ("SELECT * FROM lines FOR UPDATE", "lines"),
    ("COPY lines FROM STDIN", "lines"),
    ("TRUNCATE lines, log", "lines log"),
    ("TRUNCATE lines CASCADE", "*"),
    ("MERGE INTO lines USING log ON true WHEN MATCHED THEN DELETE", "lines log"),
    ("UPDATE log SET id = 1; SELECT * FROM users; DELETE FROM lines", "log users lines"),
    ("SELECT * FROM users; INSERT INTO log VALUES (1)", "users log"),
    ("INSERT INTO public.pg_search_documents VALUES (1)", "pg_search_documents"),
    ("DELETE FROM public.pg_search_documents", "pg_search_documents"),
    ("BEGIN; INSERT INTO log VALUES (1); COMMIT", "log"),
    ("CREATE TABLE made (id int)", "made DEFINITIONS"),
    ("CREATE TABLE made (id int REFERENCES users)", "*"),
    ("CREATE INDEX ON lines (id)", "lines DEFINITIONS"),
    ("DROP TABLE lines", "lines DEFINITIONS"),
    ("CREATE SCHEMA other", "DEFINITIONS"),
    ("DROP FUNCTION recent", "*"),
    ("ALTER TABLE lines ADD COLUMN x int", "*"),
    ("CREATE VIEW v AS SELECT 1", "*"),
    ("GRANT SELECT ON lines TO app", "*"),
    ("REFRESH MATERIALIZED VIEW lines", "lines"),
    ("COMMIT PREPARED 'x'", "*"),
    ("DO $$ BEGIN END $$", "*"),
    ("CALL somewhere()", "*"),
    ("SELECT in_python()", "*"),
    ("SELECT unknown_function()", "*"),
    ("INSERT INTO unknown_table VALUES (1)", "*"),
    ("EXECUTE prepared", "*"),
    ("not a statement", "*"),
];

/// Reads, and the tables that they reach; `*` for all.
const READS: &[(&str, &str)] = &[
    ("SELECT 1", ""),
    ("SELECT * FROM users", "users"),
    ("SELECT * FROM public.pg_search_documents", "pg_search_documents"),
    ("SELECT * FROM found_documents", "found_documents pg_search_documents"),
    ("SELECT * FROM orders JOIN lines ON true WHERE EXISTS (SELECT FROM log)", "orders lines log"),
    ("SELECT * FROM open_orders", "open_orders orders"),
    ("SELECT recent()", "orders"),
    ("SELECT * FROM secret", "secret users"),
    ("SELECT * FROM events_1", "events"),
    ("WITH users AS (SELECT * FROM log) SELECT * FROM users", "log"),
    ("COPY (SELECT * FROM lines) TO STDOUT", "lines"),
    ("EXPLAIN SELECT * FROM lines", "lines"),
    ("SELECT * FROM pg_temp.users", "users"),
    ("SELECT to_regclass('lines')", "DEFINITIONS"),
    ("SELECT 'lines'::regclass", "DEFINITIONS"),
    ("SELECT current_schema(), pg_size_pretty(1)", "DEFINITIONS"),
    ("SELECT shows_where() FROM log", "log DEFINITIONS"),
    ("SELECT * FROM a, b, c, d, e, f, g, h, i, j, k", "*"),
];

fn set(names: &str) -> Tables {
    if names == "*" {
        return Tables::ALL;
    }
    let one = |name| if name == "DEFINITIONS" { definitions() } else { Tables::named(name) };
    names.split_whitespace().fold(Tables::NONE, |all, name| all.with(one(name)))
}

/// Whether both are the same set, in whatever order.
fn same(one: Tables, other: Tables) -> bool {
    one.with(other) == one && other.with(one) == other
}

#[test]
fn statements_change_tables() {
    let catalog = catalog_with(OWN.iter().copied());
    for (text, names) in CHANGES {
        let changes = explained(&catalog, text).verdict.changes();
        assert!(same(changes, set(names)), "{text}: {changes:?}, not {names}: {:?}", set(names));
    }
}

#[test]
fn reads_reach_tables() {
    let more = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|name| ("known relation", name));
    let catalog = catalog_with(OWN.iter().copied().chain(more));
    for (text, names) in READS {
        let verdict = explained(&catalog, text).verdict;
        assert_eq!(verdict.class, Class::Read, "{text}");
        assert!(
            same(verdict.reads(), set(names)),
            "{text}: {:?}, not {names}: {:?}",
            verdict.reads(),
            set(names)
        );
    }
}
