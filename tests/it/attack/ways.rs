//! The ways in which a session leaves state behind on its connection. All that leave a tenant leave `t3`.

use super::way::{Deed, Way, of, sql};

const LONG: &str = "app.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// Long names, as [`super::look`] asks for them: 70 characters behind the dot, and the 63 that are left of them.
pub(super) const LONG_NAMES: [&str; 2] =
    [LONG, "app.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"];

pub(super) const WAYS: &[Way] = &[
    // Plainly.
    sql("set", &["SET app.tenant = 't3'"]),
    sql("set to, quoted", &[r#"SET "App"."TENANT" TO 't3'"#]),
    sql("set unicode name", &[r#"SET U&"app"."tenant" = t3"#]),
    sql("set path", &["SET search_path = other"]),
    sql("set schema", &["SET SCHEMA 'other'"]),
    sql("set names", &["SET NAMES 'LATIN1'"]),
    sql("set time zone", &["SET TIME ZONE 'Asia/Tokyo'"]),
    sql("set role", &["SET ROLE reader"]),
    sql(
        "set long name",
        &["SET app.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx = 'long'"],
    ),
    sql("characteristics", &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"]),
    sql("exit_on_error", &["SET exit_on_error = on"]),
    sql("exit_on_error bound late", &["SELECT set_config('exit' || '_on_error', 'on', false)"]),
    sql("timeout", &["SET statement_timeout = 1"]),
    sql("temp table", &["CREATE TEMP TABLE left_here (a int)"]),
    sql("lock", &["SELECT pg_advisory_lock({n})"]),
    sql("lock by computed key", &["SELECT pg_try_advisory_lock(100 + {n}, length('abc'))"]),
    sql("lock shared", &["SELECT pg_try_advisory_lock_shared(n) FROM generate_series(4711, 4713) n"]),
    sql("holdable cursor", &["DECLARE left_here CURSOR WITH HOLD FOR SELECT 1"]),
    sql("prepare", &["PREPARE left_here AS SELECT 1"]),
    sql("discard all", &["SET work_mem = '77kB'", "DISCARD ALL"]).traceless(),
    sql("deallocate all", &["PREPARE left_here AS SELECT 1", "DEALLOCATE ALL"]).traceless(),
    sql("reset all", &["SET work_mem = '77kB'", "RESET ALL"]).traceless(),
    // set_config, by names and values that do not show.
    sql("set_config", &["SELECT set_config('app.tenant', 't3', false)"]),
    sql("set_config, other case", &["SELECT SET_CONFIG('APP.Tenant', 't' || 3, 1 > 2)"]),
    sql("set_config, computed name", &["SELECT set_config('app.' || 'tenant', 't3', false)"]),
    sql(
        "set_config, name from rows",
        &["SELECT set_config(n, 't3', false) FROM (VALUES ('app.tenant')) v(n)"],
    ),
    sql(
        "set_config, name from pg_settings",
        &["SELECT set_config(name, '77kB', false) FROM pg_settings WHERE name = 'work_mem'"],
    ),
    sql("set_config, qualified", &["SELECT \"pg_catalog\".\"set_config\"('app.tenant', 't3', false)"]),
    sql("set_config, in WHERE", &["SELECT 1 FROM place WHERE set_config('app.tenant', 't3', false) <> ''"]),
    sql("set_config, in LIMIT", &["SELECT 1 FROM place LIMIT length(set_config('app.tenant', 't3', false))"]),
    sql("set_config, in FROM", &["SELECT * FROM set_config('app.tenant', 't3', false)"]),
    sql(
        "set_config, in ROWS FROM",
        &["SELECT * FROM ROWS FROM (set_config('app.tenant', 't3', false), now())"],
    ),
    sql("set_config, in VALUES", &["VALUES (set_config('app.tenant', 't3', false))"]),
    sql(
        "set_config, in WITH",
        &["WITH w AS MATERIALIZED (SELECT set_config('app.tenant', 't3', false) x) SELECT * FROM w"],
    ),
    sql("set_config, in ORDER BY", &["SELECT 1 FROM place ORDER BY set_config('app.tenant', 't3', false)"]),
    sql(
        "set_config, in an aggregate's FILTER",
        &["SELECT count(*) FILTER (WHERE set_config('app.tenant', 't3', false) = 'x') FROM place"],
    ),
    sql(
        "set_config, in RETURNING",
        &["INSERT INTO t_alter VALUES ('t3') RETURNING set_config('app.tenant', a, false)"],
    ),
    sql("set_config, in INSERT", &["INSERT INTO t_alter SELECT set_config('app.tenant', 't3', false)"]),
    sql(
        "set_config, in ON CONFLICT",
        &["DELETE FROM t_alter WHERE set_config('app.tenant', 't3', false) = 'x'"],
    ),
    sql(
        "set_config, in MERGE",
        &[
            "MERGE INTO t_alter USING (SELECT set_config('app.tenant', 't3', false) x) s ON a = x WHEN NOT MATCHED THEN DO NOTHING",
        ],
    ),
    of("bound value", Deed::Bound("SELECT set_config('app.tenant', $1, false)", &[b"t3"])),
    of("bound name", Deed::Bound("SELECT set_config($1, $2, false)", &[b"app.tenant", b"t3"])),
    of("bound name, other case", Deed::Bound("SELECT set_config($1, $2, $3)", &[b"APP.TENANT", b"t3", b"f"])),
    of("bound long name", Deed::Bound("SELECT set_config($1, $2, false)", &[LONG.as_bytes(), b"long"])),
    of("bound role", Deed::Bound("SELECT set_config($1, $2, false)", &[b"role", b"reader"])),
    of("bound lock", Deed::Bound("SELECT pg_try_advisory_lock($1::int8)", &[b"4711"])),
    of(
        "bound into EXECUTE",
        Deed::Bound("SELECT f_execute_stable($1)", &[b"SELECT set_config('app.tenant', 't3', false)"]),
    ),
    of("50 kB", Deed::Large("app.name", 50_000)),
    of("1 MB", Deed::Large("app.name", 1_000_000)),
    // Code.
    sql("do", &["DO $$ BEGIN PERFORM set_config('app.tenant', 't3', false); END $$"]),
    sql("do execute", &["DO $$ BEGIN EXECUTE 'SET app.ten' || 'ant = ''t3'''; END $$"]),
    sql("do lock", &["DO $$ BEGIN PERFORM pg_try_advisory_lock({n}); END $$"]),
    sql("do temp table", &["DO $$ BEGIN CREATE TEMP TABLE left_here (a int); END $$"]),
    sql("do old strings", &["DO $$ BEGIN SET standard_conforming_strings = off; END $$"]),
    sql("do discard plans", &["DO $$ BEGIN DISCARD PLANS; END $$"]).traceless(),
    sql("call", &["CALL p_set('t3')"]),
    sql("call that commits", &["CALL p_commit('t3')"]),
    sql("function", &["SELECT f_set('t3')"]),
    sql("function, stable", &["SELECT f_set_stable('t3')"]),
    sql("function, immutable", &["SELECT f_set_fixed('t3')"]),
    sql("function, immutable, when planned", &["EXPLAIN SELECT f_set_fixed('t3')"]),
    sql("function, sql", &["SELECT f_set_sql('t3')"]),
    sql("function, sql, stable", &["SELECT f_set_sql_stable('t3')"]),
    sql("function, sql body", &["SELECT f_set_body('t3')"]),
    sql("function, rows", &["SELECT * FROM f_set_rows('t3')"]),
    sql("function, lateral", &["SELECT * FROM (VALUES ('t3')) v(x), LATERAL f_set_stable(x)"]),
    sql("function, default argument", &["SELECT f_defaulted()"]),
    sql(
        "function, stable, execute",
        &["SELECT f_execute_stable('SELECT set_config(''app.tenant'', ''t3'', false)')"],
    ),
    sql("function, execute SET", &["SELECT f_execute('SET app.tenant = t3')"]),
    sql("function, execute temp", &["SELECT f_execute('CREATE TEMP TABLE left_here (a int)')"]),
    sql("function, execute PREPARE", &["SELECT f_execute('PREPARE left_here AS SELECT 1')"]),
    sql("function, lock", &["SELECT f_lock({n})"]),
    sql("function, lock, stable", &["SELECT f_lock_stable({n})"]),
    sql("function, temp", &["SELECT f_temp()"]),
    sql("function, role", &["SELECT f_role()"]),
    sql("function, path", &["SELECT f_path()"]),
    sql("function, timeout", &["SELECT f_timeout()"]),
    sql(
        "function made now",
        &[
            "CREATE FUNCTION f_{n}() RETURNS text STABLE LANGUAGE sql AS $$ SELECT set_config('app.tenant', 't3', false) $$",
            "SELECT f_{n}()",
        ],
    ),
    sql(
        "function replaced",
        &[
            "CREATE FUNCTION f_{n}() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'harmless'::text $$",
            "SELECT f_{n}()",
            "CREATE OR REPLACE FUNCTION f_{n}() RETURNS text STABLE LANGUAGE sql AS $$ SELECT set_config('app.tenant', 't3', false) $$",
            "SELECT f_{n}()",
        ],
    ),
    sql(
        "function, temporary",
        &[
            "CREATE FUNCTION pg_temp.f() RETURNS text STABLE LANGUAGE sql AS $$ SELECT set_config('app.tenant', 't3', false) $$",
            "SELECT pg_temp.f()",
        ],
    ),
    // Views, rules, operators, casts, domains, aggregates.
    sql("view", &["SELECT * FROM v_set"]),
    sql("view, nested", &["SELECT x FROM v_nested"]),
    sql("view, over a function", &["SELECT * FROM v_function"]),
    sql("view, in WHERE", &["TABLE v_where"]),
    sql("view, lock", &["SELECT * FROM v_lock"]),
    sql("view, role", &["SELECT * FROM v_role"]),
    sql("view, path", &["SELECT * FROM v_path"]),
    sql("view, timeout", &["SELECT * FROM v_timeout"]),
    sql("view, temp", &["SELECT * FROM v_temp"]),
    sql("view, old strings", &["SELECT * FROM v_old_strings"]),
    sql(
        "view, temporary",
        &[
            "CREATE TEMP VIEW left_here AS SELECT set_config('app.tenant', 't3', false) x",
            "SELECT * FROM left_here",
        ],
    ),
    sql(
        "view, temporary, of a table's name",
        &[
            "CREATE TEMP VIEW place AS SELECT set_config('app.tenant', 't3', false) AS place",
            "SELECT place FROM place",
        ],
    ),
    sql(
        "view, made now",
        &["CREATE VIEW v_{n} AS SELECT set_config('app.tenant', 't3', false) x", "SELECT * FROM v_{n}"],
    ),
    sql(
        "view, replaced",
        &[
            "CREATE VIEW v_{n} AS SELECT 'x'::text AS x",
            "SELECT * FROM v_{n}",
            "CREATE OR REPLACE VIEW v_{n} AS SELECT set_config('app.tenant', 't3', false) x",
            "SELECT * FROM v_{n}",
        ],
    ),
    sql("rule, update", &["UPDATE u_rule SET one = 2"]),
    sql("rule, insert", &["INSERT INTO u_rule VALUES (2)"]),
    sql("rule, also", &["INSERT INTO t_rule VALUES (2)"]),
    sql("operator", &["SELECT 't3'::text @!@ 1"]),
    sql("operator, qualified", &["SELECT 't3'::text OPERATOR(public.@!@) 1"]),
    sql("cast", &["SELECT 't3'::text::carrier"]),
    sql("cast, CAST", &["SELECT CAST(v::text AS carrier) FROM (VALUES ('t3')) s(v)"]),
    sql("domain", &["SELECT 't3'::d_set"]),
    sql("domain, fixed", &["SELECT d_fixed 't3'"]),
    sql("domain, in a record", &["SELECT * FROM json_to_record('{\"a\": \"t3\"}') AS x(a d_set)"]),
    of("domain, bound", Deed::Bound("SELECT $1::text::d_set", &[b"t3"])),
    sql("aggregate", &["SELECT a_set('t3')"]),
    sql("aggregate, final", &["SELECT a_final('x')"]),
    sql("aggregate, window", &["SELECT a_set('t3') OVER ()"]),
    // Writes.
    sql("trigger", &["INSERT INTO t_trigger VALUES ('x')"]),
    sql("trigger, copy", &["COPY t_trigger FROM STDIN"]).simple(),
    sql("trigger, truncate", &["TRUNCATE t_trigger"]),
    sql("trigger, delete locks", &["DELETE FROM t_trigger WHERE a = 'none'"]),
    sql("trigger, deferred", &["INSERT INTO t_deferred VALUES ('x')"]),
    sql("trigger, instead", &["UPDATE v_instead SET a = 2"]),
    sql("trigger, event", &["CREATE SEQUENCE s_{n}"]),
    sql("default", &["INSERT INTO t_default (b) VALUES (1)"]),
    sql("default, DEFAULT", &["INSERT INTO t_default VALUES (DEFAULT, 1)"]),
    sql("default, copy", &["COPY t_default (b) FROM STDIN"]).simple(),
    sql("generated", &["INSERT INTO t_generated VALUES ('t3')"]),
    sql("index", &["INSERT INTO t_index VALUES ('t3')"]),
    sql("index, partial", &["INSERT INTO t_partial VALUES ('t3')"]),
    sql("check", &["INSERT INTO t_check VALUES ('t3')"]),
    sql("domain of a column", &["INSERT INTO t_domain VALUES ('t3')"]),
    sql("policy", &["SELECT * FROM t_policy"]),
    sql("partition key", &["INSERT INTO t_part_key VALUES ('t3')"]),
    sql(
        "partition bounds",
        &["CREATE TABLE t_part_{n} PARTITION OF t_part FOR VALUES IN (f_set('t3') || {n})"],
    ),
    sql("update pg_settings", &["UPDATE pg_settings SET setting = 'other' WHERE name = 'search_path'"]),
    sql(
        "update pg_settings, timeout",
        &["UPDATE pg_catalog.pg_settings SET setting = '1' WHERE name = 'statement_timeout'"],
    ),
    sql(
        "update pg_settings, WITH",
        &["WITH x AS (SELECT 'work_mem' AS n) UPDATE pg_settings SET setting = '77' FROM x WHERE name = n"],
    ),
    // Statements over queries.
    sql(
        "query_to_xml",
        &["SELECT query_to_xml('SELECT set_config(''app.tenant'', ''t3'', false)', true, true, '')"],
    ),
    sql(
        "query_to_xml_and_xmlschema",
        &[
            "SELECT query_to_xml_and_xmlschema('SELECT set_config(''app.tenant'', ''t3'', false)', true, true, '')",
        ],
    ),
    sql("query_to_xml, lock", &["SELECT query_to_xml('SELECT pg_try_advisory_lock(4711)', true, true, '')"]),
    sql("table_to_xml", &["SELECT table_to_xml('v_set', true, true, '')"]),
    sql(
        "cursor_to_xml",
        &[
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT set_config('app.tenant', 't3', false)",
            "SELECT cursor_to_xml('c', 1, true, true, '')",
            "COMMIT",
        ],
    ),
    sql(
        "ts_stat",
        &["SELECT * FROM ts_stat('SELECT to_tsvector(set_config(''app.tenant'', ''t3'', false))')"],
    ),
    sql(
        "ts_rewrite",
        &[
            "SELECT ts_rewrite('a'::tsquery, 'SELECT ''a''::tsquery, plainto_tsquery(set_config(''app.tenant'', ''t3'', false))')",
        ],
    ),
    sql("copy to", &["COPY (SELECT set_config('app.tenant', 't3', false)) TO STDOUT"]),
    sql(
        "copy returning",
        &["COPY (INSERT INTO t_alter VALUES ('t3') RETURNING set_config('app.tenant', a, false)) TO STDOUT"],
    ),
    sql("explain analyze", &["EXPLAIN ANALYZE SELECT set_config('app.tenant', 't3', false)"]),
    sql("explain (analyze)", &["EXPLAIN (COSTS off, ANALYZE on) SELECT f_set_stable('t3')"]),
    sql("create table as", &["CREATE TABLE c_{n} AS SELECT set_config('app.tenant', 't3', false) x"]),
    sql(
        "create temp table as",
        &["CREATE TEMP TABLE c_{n} AS SELECT set_config('app.tenant', 't3', false) x", "DROP TABLE c_{n}"],
    ),
    sql("select into", &["SELECT set_config('app.tenant', 't3', false) x INTO c_{n}"]),
    sql(
        "cursor",
        &["BEGIN", "DECLARE c CURSOR FOR SELECT set_config('app.tenant', 't3', false)", "FETCH c", "COMMIT"],
    ),
    sql(
        "cursor, moved",
        &["BEGIN", "DECLARE c SCROLL CURSOR FOR SELECT f_set_stable('t3')", "MOVE ALL FROM c", "COMMIT"],
    ),
    sql(
        "cursor, held",
        &["DECLARE c CURSOR WITH HOLD FOR SELECT set_config('app.tenant', 't3', false)", "CLOSE c"],
    ),
    sql(
        "prepared in SQL",
        &["PREPARE p AS SELECT set_config('app.tenant', 't3', false)", "EXECUTE p", "DEALLOCATE p"],
    ),
    sql(
        "prepared in SQL, explained",
        &["PREPARE p AS SELECT f_set_stable('t3')", "EXPLAIN ANALYZE EXECUTE p", "DEALLOCATE p"],
    ),
    sql(
        "prepared in SQL, long name",
        &[
            "PREPARE xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxyyyy AS SELECT set_config('app.tenant', 't3', false)",
            "EXECUTE xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxzzzz",
        ],
    ),
    sql(
        "execute's argument",
        &["PREPARE p(text) AS SELECT $1", "EXECUTE p(set_config('app.tenant', 't3', false))", "DEALLOCATE p"],
    ),
    sql("alter using", &["ALTER TABLE t_alter ALTER a TYPE text USING f_set(a)"]),
    sql(
        "alter add default",
        &["ALTER TABLE t_alter ADD c_{n} text DEFAULT f_set('t3')", "ALTER TABLE t_alter DROP c_{n}"],
    ),
    sql(
        "alter add check",
        &[
            "ALTER TABLE t_alter ADD CONSTRAINT k_{n} CHECK (f_set_bool('t3'))",
            "ALTER TABLE t_alter DROP CONSTRAINT k_{n}",
        ],
    ),
    sql(
        "alter domain",
        &[
            "CREATE DOMAIN d_{n} AS text",
            "CREATE TABLE t_d{n} (a d_{n})",
            "INSERT INTO t_d{n} VALUES ('t3')",
            "ALTER DOMAIN d_{n} ADD CHECK (f_set_bool(VALUE))",
        ],
    ),
    // What is resolved elsewhere than it seems.
    sql("hidden built-in", &["SET search_path = evil, pg_catalog, public", "SELECT lower('t3')"]),
    sql("hidden built-in, no arguments", &["SELECT evil.now()"]),
    sql("hidden operator", &["SET search_path = evil, pg_catalog, public", "SELECT 1 + 2"]),
    sql("hidden table", &["SET search_path = evil, public", "SELECT place FROM place"]),
    sql(
        "hidden by SET LOCAL",
        &["BEGIN", "SET LOCAL search_path = evil, pg_catalog, public", "SELECT lower('t3')", "COMMIT"],
    ),
    // FunctionCall.
    of("call message", Deed::Call("set_config(text,text,boolean)", &["app.tenant", "t3", "f"])),
    of("call message, lock", Deed::Call("pg_try_advisory_lock(bigint)", &["4711"])),
    of("call message, two keys", Deed::Call("pg_try_advisory_lock(int,int)", &["47", "11"])),
    of("call message, role", Deed::Call("set_config(text,text,boolean)", &["role", "reader", "f"])),
    of("call message, own function", Deed::Call("f_set(text)", &["t3"])),
    of("call message, temp", Deed::Call("f_temp()", &[])),
    // Strings that are read by other rules.
    sql(
        "old strings",
        &[
            "SET standard_conforming_strings = off",
            r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'",
        ],
    ),
    sql(
        "old strings, local",
        &[
            "BEGIN",
            "SET LOCAL standard_conforming_strings = off",
            r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'",
            "COMMIT",
        ],
    ),
    sql(
        "old strings, hidden",
        &["SELECT * FROM v_old_strings", r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'"],
    ),
    sql(
        "old strings, bound late",
        &[
            "SELECT set_config('standard' || '_conforming_strings', 'off', false)",
            r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'",
        ],
    ),
    sql(
        "old strings, computed local",
        &[
            "BEGIN",
            "SELECT set_config('standard' || '_conforming_strings', 'off', true)",
            r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'",
            "COMMIT",
        ],
    ),
    sql("old strings, of the role", &[r"SELECT 'a\'', set_config($$app.tenant$$, $$t3$$, false) --'"]).old(),
    sql("old strings, of the role, lock", &[r"SELECT 'a\'', pg_try_advisory_lock(4711) --'"]).old(),
    of(
        "trail byte, GBK",
        Deed::Bytes(&[
            b"SELECT E'x'",
            b"SELECT E'\xe4\xb8\xad\x5c', set_config($$app.tenant$$, $$t3$$, false) --'",
        ]),
    )
    .tongue("GBK"),
    of(
        "trail byte, GBK, not UTF-8",
        Deed::Bytes(&[b"SELECT E'x'", b"SELECT E'\x81\x5c', set_config($$app.tenant$$, $$t3$$, false) --'"]),
    )
    .tongue("GBK"),
    of(
        "trail byte, BIG5",
        Deed::Bytes(&[
            b"SELECT E'x'",
            b"SELECT E'\xe4\xb8\xad\x5c', set_config($$app.tenant$$, $$t3$$, false) --'",
        ]),
    )
    .tongue("BIG5"),
    of(
        "trail byte, SJIS",
        Deed::Bytes(&[
            b"SELECT E'x'",
            b"SELECT E'\xe4\xb8\x81\x5c', set_config($$app.tenant$$, $$t3$$, false) --'",
        ]),
    )
    .tongue("SJIS"),
    of(
        "trail byte, BIG5, not UTF-8",
        Deed::Bytes(&[b"SELECT E'x'", b"SELECT E'\xa5\x5c', set_config($$app.tenant$$, $$t3$$, false) --'"]),
    )
    .tongue("BIG5"),
    of(
        "trail byte, SJIS, not UTF-8",
        Deed::Bytes(&[b"SELECT E'x'", b"SELECT E'\x95\x5c', set_config($$app.tenant$$, $$t3$$, false) --'"]),
    )
    .tongue("SJIS"),
    of(
        "trail byte, GB18030",
        Deed::Bytes(&[
            b"SELECT E'x'",
            b"SELECT E'\xe4\xb8\xad\x5c', set_config($$app.tenant$$, $$t3$$, false) --'",
        ]),
    )
    .tongue("GB18030"),
    of("value, GBK", Deed::Bound("SELECT set_config('app.name', $1, false)", &[b"\xe4\xb8\xad\x5c"]))
        .tongue("GBK"),
    of("value, SJIS", Deed::Bound("SELECT set_config('app.name', $1, false)", &[b"\xe4\xb8\x81\x5c"]))
        .tongue("SJIS"),
    of("value, LATIN1", Deed::Bytes(&[b"SET app.name = 'x'", b"SET app.name = 'caf\xe9'"])).tongue("LATIN1"),
    of("value, LATIN1, bound", Deed::Bound("SELECT set_config('app.name', $1, false)", &[b"zo\xeb"]))
        .tongue("LATIN1"),
    of("value, UTF8", Deed::Bytes(&[b"SET app.name = 'x'", b"SET app.name = 'zo\xc3\xab'"])).tongue("UTF8"),
    of(
        "text, LATIN1",
        Deed::Bytes(&[b"SELECT 'cafe', f_set_stable('t3')", b"SELECT 'caf\xe9', f_set_stable('t3')"]),
    )
    .tongue("LATIN1"),
];
