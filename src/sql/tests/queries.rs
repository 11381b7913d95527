//! Reads and writes.

use super::{catalog, verdict};
use crate::sql::{
    Catalog,
    Class::{self, Neutral, Read, Write},
    Effects, Explanation, Hint,
    Reason::{
        self, Catalog as SystemCatalog, CatalogMissing, Empty, Function, Modifies, NoObject, Operator,
        ReadOnly, Relation, RowLocks, Unparsed, Utility,
    },
    Rules, explain, judge,
};

fn table(class: Class, cases: &[(Reason, &str)]) {
    for (reason, text) in cases {
        let verdict = verdict(text);
        assert_eq!((verdict.class, verdict.reason), (class, *reason), "{text}");
    }
}

#[test]
fn reads() {
    let texts = [
        "SELECT 1",
        "SELECT abalance FROM pgbench_accounts WHERE aid = 5;",
        "VALUES (1), (2)",
        "TABLE users",
        "(SELECT 1) UNION ALL (SELECT 2 ORDER BY 1)",
        "SELECT u.*, count(*) FROM users u LEFT JOIN posts p ON p.user_id = u.id AND p.x IN (1,2) GROUP BY u.id HAVING count(*) > 1",
        "WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n+1 FROM t WHERE n < 9) SELECT sum(n) FROM t",
        "SELECT random(), now(), clock_timestamp(), gen_random_uuid(), uuid_generate_v4()",
        "SELECT current_user, session_user, current_date, localtime, CURRENT_TIMESTAMP(3), current_schema",
        "SELECT pg_catalog.lower(name) FROM public.users",
        "SELECT CASE WHEN a THEN 1 ELSE 2 END, coalesce(a, b), greatest(a, 1), NULLIF(a, b), (ARRAY[1,2])[1], (x).y FROM t",
        "SELECT x::int, CAST(y AS numeric(10,2)), 'a'::text COLLATE \"C\", extract(year from z), ROW(1,2) FROM t",
        "SELECT * FROM generate_series(1, 10) g, LATERAL (SELECT g) s",
        "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
        "SELECT a FROM t ORDER BY b USING < LIMIT 10 OFFSET 5",
        "SELECT * FROM t TABLESAMPLE system (10)",
        "SELECT 'for update; delete from x' FROM t",
        "SELECT \"delete\" FROM \"update\"",
        "SELECT EXISTS (SELECT 1 FROM a WHERE b = ANY ($1)), NOT (a > ALL (SELECT 1))",
        "SELECT a AT TIME ZONE 'utc', a IS NULL, a IS TRUE, a LIKE 'x%', a BETWEEN 1 AND 2, a IN ('x'), -1 FROM t",
        "SELECT JSON_OBJECT('a': 1), JSON_VALUE(x, '$.a'), x IS JSON FROM t",
        "SELECT * FROM JSON_TABLE('[]'::jsonb, '$[*]' COLUMNS (a int PATH '$.a')) j",
        "SELECT XMLELEMENT(NAME a, b) FROM t",
        "SELECT * FROM t WHERE a NOT /* between */ IN (1)",
        "SELECT * FROM t -- trailing",
        "SELECT 1 WHERE a NOT -- x\n LIKE 'b'",
        "EXPLAIN SELECT * FROM t",
        "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM t",
        "COPY (SELECT * FROM t) TO STDOUT",
        "COPY t TO STDOUT",
        "COPY t (a, b) TO STDOUT WITH (FORMAT binary)",
        "DECLARE c CURSOR FOR SELECT * FROM t",
        "SELECT 1; SELECT 2",
        "SELECT my_stable(1)",
        "WITH nextval AS (SELECT 1 AS a) SELECT nextval.a FROM nextval",
        "SELECT $1::uuid, $2::text[]",
        "SELECT 'users'::regclass",
        "SELECT to_regclass('users') IS NOT NULL",
        "SELECT lower($1) FROM t WHERE x @> '{}'::jsonb AND y ->> 'a' = 'b'",
        "WITH pg_class AS (SELECT 1 AS a) SELECT a FROM pg_class",
    ];
    for text in texts {
        let verdict = verdict(text);
        assert_eq!((verdict.class, verdict.reason), (Read, ReadOnly), "{text}");
        assert_eq!(
            verdict.effects.without(Effects::BIND_DECIDES.with(Effects::APP_OBJECTS).with(Effects::UNPROVEN)),
            Effects::NONE,
            "{text}"
        );
    }
}

#[test]
fn writes() {
    table(Write, WRITES);
}

const WRITES: &[(Reason, &str)] = &[
    (Modifies, "INSERT INTO t VALUES (1)"),
    (Modifies, "INSERT INTO t SELECT * FROM u ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b RETURNING a"),
    (Modifies, "UPDATE t SET a = 1 FROM u WHERE t.id = u.id"),
    (Modifies, "DELETE FROM t USING u WHERE t.id = u.id"),
    (Modifies, "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE"),
    (Modifies, "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d"),
    (Modifies, "SELECT * FROM (WITH d AS (UPDATE t SET a = 1 RETURNING a) SELECT a FROM d) x"),
    (Modifies, "COPY t FROM STDIN"),
    (Modifies, "EXPLAIN INSERT INTO t VALUES (1)"),
    (Modifies, "EXPLAIN ANALYZE DELETE FROM t"),
    (Modifies, "COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT"),
    (Modifies, "SELECT 1; UPDATE t SET a = 1; SELECT 2"),
    (RowLocks, "SELECT * FROM t FOR UPDATE"),
    (RowLocks, "SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED"),
    (RowLocks, "SELECT * FROM (SELECT * FROM t FOR SHARE) s"),
    (RowLocks, "WITH a AS (SELECT * FROM t FOR KEY SHARE NOWAIT) SELECT * FROM a"),
    (Utility, "SELECT * INTO u FROM t"),
    (Utility, "CREATE TABLE t (a int)"),
    (Utility, "CREATE TABLE t AS SELECT 1"),
    (Utility, "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1"),
    (Utility, "EXPLAIN EXECUTE p"),
    (Utility, "ALTER TABLE t ADD b int"),
    (Utility, "DROP TABLE IF EXISTS a, b CASCADE"),
    (Utility, "TRUNCATE t"),
    (Utility, "VACUUM ANALYZE t"),
    (Utility, "REINDEX TABLE t"),
    (Utility, "GRANT SELECT ON t TO x"),
    (Utility, "GRANT USAGE ON SCHEMA s TO x"),
    (Utility, "REVOKE EXECUTE ON FUNCTION f(int) FROM x"),
    (Utility, "COMMENT ON TABLE t IS 'x'"),
    (Utility, "LOCK TABLE t IN SHARE MODE"),
    (Utility, "CHECKPOINT"),
    (Utility, "LOAD 'auto_explain'"),
    (Utility, "REFRESH MATERIALIZED VIEW v"),
    (Utility, "NOTIFY c, 'x'"),
    (Utility, "PREPARE p AS SELECT 1"),
    (Utility, "EXECUTE p"),
    (Utility, "DO $$ BEGIN NULL; END $$"),
    (Utility, "DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
    (Utility, "COPY t TO '/tmp/x'"),
    (Utility, "COPY t TO PROGRAM 'cat'"),
    (Utility, "PREPARE TRANSACTION 'x'"),
    (Utility, "ALTER SYSTEM SET a = 1"),
    (Utility, "CREATE EXTENSION hstore"),
    (Utility, "IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c"),
    (Utility, "SECURITY LABEL ON TABLE t IS 'x'"),
    (Function, "SELECT nextval('s')"),
    (Function, "SELECT a, my_volatile(a) FROM t"),
    (Function, "SELECT * FROM my_volatile()"),
    (Function, "SELECT * FROM t WHERE x = my_volatile()"),
    (Function, "SELECT unknown_function(1)"),
    (Function, "SELECT t.my_volatile FROM t"),
    (Function, "SELECT (t).my_volatile FROM t"),
    (Function, "CALL p()"),
    (Function, "SELECT pg_notify('c', 'x')"),
    (Function, "SELECT currval('s'), lastval()"),
    (Function, "SELECT pg_backend_pid()"),
    (Function, "SELECT inet_server_addr()"),
    (Function, "SELECT current_setting('x')"),
    (Function, "SELECT txid_current()"),
    (Function, "SELECT pg_current_xact_id()"),
    (Function, "SELECT pg_is_in_recovery()"),
    (Function, "SELECT pg_export_snapshot()"),
    (Function, "SELECT pg_terminate_backend(1)"),
    (Function, "SELECT pg_create_logical_replication_slot('a', 'b')"),
    (Function, "SELECT pg_read_file('x')"),
    (Function, "SELECT lo_create(0)"),
    (Function, "SELECT * FROM dblink('x', 'y') AS t(a int)"),
    (Function, "SELECT pg_advisory_lock(1) FROM users"),
    (Function, "SELECT 1 WHERE EXISTS (SELECT 1 FROM pg_listening_channels() AS a(c) WHERE c = $1)"),
    (Function, "SELECT count(*) FILTER (WHERE my_volatile()) FROM t"),
    (Function, "SELECT sum(a ORDER BY my_volatile()) FROM t"),
    (Function, "SELECT sum(a) OVER (ORDER BY my_volatile()) FROM t"),
    (Function, "SELECT 1 LIMIT my_volatile()"),
    (Function, "SELECT * FROM ROWS FROM (my_volatile(), lower('x')) AS r"),
    (Function, "SELECT CASE my_volatile() WHEN 1 THEN 2 END"),
    (Function, "SELECT ARRAY[my_volatile()], x[my_volatile()] FROM t"),
    (Function, "SELECT JSON_OBJECT('a': my_volatile())"),
    (Function, "SELECT * FROM a JOIN b ON my_volatile()"),
    (Function, "SELECT DISTINCT ON (my_volatile()) 1"),
    (Function, "SELECT 1 GROUP BY GROUPING SETS ((my_volatile()))"),
    (Function, "SELECT lower(x => my_volatile()::text)"),
    (Function, "SELECT pg_catalog.\"my_volatile\"()"),
    (Relation, "SELECT * FROM my_unlogged"),
    (Relation, "SELECT * FROM public.my_unlogged"),
    (Operator, "SELECT 1 <@@> 2"),
    (Operator, "SELECT 1 OPERATOR(public.<@@>) 2"),
    (Operator, "SELECT 1 <@@> ANY (SELECT 1)"),
    (Operator, "SELECT 1 ORDER BY 1 USING <@@>"),
    (Operator, "SELECT 1::my_domain"),
    (Operator, "SELECT '{1}'::my_domain[]"),
    (SystemCatalog, "SELECT * FROM pg_class"),
    (SystemCatalog, "SELECT * FROM pg_catalog.pg_type WHERE oid = $1"),
    (SystemCatalog, "SELECT * FROM information_schema.tables"),
    (SystemCatalog, "SELECT * FROM pg_stat_activity"),
    (SystemCatalog, "SELECT 1 WHERE EXISTS (SELECT FROM PG_LOCKS)"),
    (SystemCatalog, "SELECT pg_stat_get_activity(1)"),
    (Unparsed, "SELEC 1"),
    (Unparsed, "SELECT 'open"),
    (Unparsed, "SELECT 1; SELEC 2"),
];

#[test]
fn neutral_and_empty() {
    table(
        Neutral,
        &[
            (Empty, ""),
            (Empty, " ; ;"),
            (Empty, "-- nothing"),
            (Empty, "/* nothing */"),
            (NoObject, "BEGIN"),
            (NoObject, "SHOW search_path"),
            (NoObject, "SELECT pg_advisory_lock(1)"),
            (NoObject, "SELECT pg_try_advisory_xact_lock($1)"),
            (
                NoObject,
                "SELECT pg_advisory_xact_lock(('x' || md5('a' || current_database()))::bit(64)::bigint)",
            ),
            (NoObject, "SELECT key FROM UNNEST($1::int[]) key WHERE NOT pg_try_advisory_xact_lock($2, key)"),
            (NoObject, "SELECT pg_advisory_unlock_all()"),
            (NoObject, "SELECT set_config('jit', 'off', false)"),
            (NoObject, "SELECT pg_try_advisory_xact_lock($1) FROM set_config('lock_timeout', $2, true)"),
            (NoObject, "FETCH 10 FROM c"),
            (NoObject, "CLOSE c"),
            (NoObject, "DEALLOCATE ALL"),
            (NoObject, "LISTEN app"),
            (NoObject, "UNLISTEN *"),
        ],
    );
}

#[test]
fn without_a_catalog_only_what_names_nothing_is_a_read() {
    let verdict = |text: &str| judge::judge(&Rules::default(), &Catalog::empty(), text.as_bytes(), None);
    for text in ["SELECT 1", "VALUES (1)", "SELECT 1 + 2, now()", "SELECT $1::int4"] {
        assert_eq!(verdict(text).class, Read, "{text}");
    }
    for text in
        ["SELECT * FROM t", "SELECT lower('x')", "SELECT 1 <@@> 2", "COPY t TO STDOUT", "SELECT '1'::mine"]
    {
        let verdict = verdict(text);
        assert_eq!((verdict.class, verdict.reason), (Write, CatalogMissing), "{text}");
    }
    assert_eq!(verdict("SELECT pg_advisory_lock(1)").class, Neutral);
    assert_eq!(verdict("BEGIN").class, Neutral);
}

#[test]
fn hints() {
    for (text, hint) in [
        ("/* bulkhead: route=primary */ SELECT 1", Some(Hint::Primary)),
        ("  /*bulkhead:route=read*/SELECT 1", Some(Hint::Read)),
        ("-- bulkhead: route=job\nSELECT 1", Some(Hint::Job)),
        ("/* bulkhead: route=reports */ SELECT 1", Some(Hint::Pool(1))),
        ("/* bulkhead: route=nowhere */ SELECT 1", None),
        ("/* another */ /* bulkhead: route=job */ SELECT 1", None),
        ("SELECT 1 /* bulkhead: route=job */", None),
        ("SELECT '/* bulkhead: route=job */'", None),
    ] {
        assert_eq!(verdict(text).hint, hint, "{text}");
        assert_eq!(verdict(text).class, Read, "{text}");
    }
}

#[test]
fn common_table_expressions_have_scopes() {
    let tables = |text: &str| {
        let Explanation { app_tables, .. } = explain(&Rules::default(), &catalog(), text.as_bytes());
        app_tables.join(" ")
    };
    for (text, expected) in [
        ("WITH a AS (SELECT 1) SELECT * FROM a", ""),
        ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a"),
        ("WITH RECURSIVE a AS (SELECT * FROM a) SELECT * FROM a", ""),
        ("WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b", ""),
        ("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "b"),
        ("WITH a AS (SELECT 1) SELECT * FROM public.a", "public.a"),
        ("SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) x, a", "a"),
        ("WITH a AS (SELECT 1) UPDATE a SET b = 1 FROM a AS other", "a"),
        ("WITH a AS (SELECT 1) MERGE INTO t USING a ON true WHEN MATCHED THEN DELETE", "t"),
        ("WITH a AS (SELECT 1) SELECT (SELECT count(*) FROM a)", ""),
        ("SELECT * FROM t FOR UPDATE OF t", "t"),
    ] {
        assert_eq!(tables(text), expected, "{text}");
    }
}

#[test]
fn an_explanation_reads_well() {
    let text = "INSERT INTO posts SELECT lower(a) FROM drafts";
    let explanation = explain(&Rules::default(), &catalog(), text.as_bytes()).to_string();
    assert_eq!(
        explanation,
        "class      write, because it modifies rows\n\
         app        posts, drafts\n\
         reads      drafts\n\
         writes     posts\n\
         calls      lower\n\
         replicas   reads of any table wait for it to be replayed\nstate      not proven to leave nothing on its backend: posts, drafts\n"
    );
    let text = "SELECT pg_advisory_lock(1); SELECT 1";
    let explanation = explain(&Rules::default(), &catalog(), text.as_bytes()).to_string();
    let no_replica = "replicas   none: it ties the session to its connection, or is to meet others\n";
    assert!(explanation.contains(no_replica), "{explanation}");
}
