//! What a real server's catalog says: which texts are proven to leave nothing on their backend. Definitions of every
//! kind over a function that sets a parameter, and their harmless siblings.

use std::collections::HashSet;

use bulkhead::sql::{Catalog, Effects, Explanation, Rules, explain};

use crate::support::{Postgres, Role};

async fn rows(server: &Postgres, sql: &str) -> Vec<(String, String)> {
    let rows = server.query(sql).await.into_iter();
    let pairs = rows.map(|row| {
        let mut columns = row.into_iter().map(Option::unwrap_or_default);
        (columns.next().unwrap_or_default(), columns.next().unwrap_or_default())
    });
    pairs.collect()
}

fn explained(catalog: &Catalog, text: &str) -> Explanation {
    explain(&Rules::default(), catalog, text.as_bytes())
}

fn is_proven(explanation: &Explanation) -> bool {
    !explanation.verdict.effects.has(Effects::UNPROVEN)
}

/// Definitions over `evil()`, and the same over `lower()`, `abs()` and the like.
const DEFINITIONS: &str = include_str!("proven/definitions.sql");

/// What reaches a function that sets a parameter.
const REACHING: &str = include_str!("proven/reaching.sql");

/// What does not.
const HARMLESS: &str = include_str!("proven/harmless.sql");

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with("--"))
}

#[tokio::test]
async fn what_reaches_a_setting_is_not_proven_and_its_siblings_are() {
    let server = Postgres::start(Role::Primary);
    server.query(DEFINITIONS).await;
    let catalog = Catalog::from_rows(1, rows(&server, Catalog::QUERY).await);
    let wrong: Vec<_> = lines(REACHING).filter(|text| is_proven(&explained(&catalog, text))).collect();
    assert!(wrong.is_empty(), "proven, though each sets a parameter: {wrong:#?}");
    let wrong: Vec<_> = lines(HARMLESS)
        .map(|text| (text, explained(&catalog, text)))
        .filter(|(_, explanation)| !is_proven(explanation))
        .map(|(text, explanation)| format!("{text}: {:?}", explanation.unproven))
        .collect();
    assert!(wrong.is_empty(), "not proven: {wrong:#?}");
    types_are_told_by_their_ids(&server, &catalog).await;
}

/// An event trigger runs with every definition, whatever it defines.
#[tokio::test]
async fn no_definition_is_proven_where_there_is_an_event_trigger() {
    let server = Postgres::start(Role::Primary);
    server.query(DEFINITIONS).await;
    let definitions = [
        "CREATE TABLE t (a int)",
        "CREATE INDEX ON users (name)",
        "DROP TABLE app.sales",
        "CREATE SEQUENCE s",
    ];
    let is_every_proven = async |expected: bool| {
        let catalog = Catalog::from_rows(1, rows(&server, Catalog::QUERY).await);
        for text in definitions {
            assert_eq!(is_proven(&explained(&catalog, text)), expected, "{text}");
        }
        assert!(is_proven(&explained(&catalog, "SELECT * FROM users")), "a read defines nothing");
    };
    is_every_proven(true).await;
    server
        .query(
            "CREATE FUNCTION evil_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil(); END $$; \
             CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION evil_event()",
        )
        .await;
    is_every_proven(false).await;
    server.query("ALTER EVENT TRIGGER e DISABLE").await;
    is_every_proven(true).await;
}

async fn types_are_told_by_their_ids(server: &Postgres, catalog: &Catalog) {
    for (name, is_proven) in [
        ("mood", true),
        ("mood[]", true),
        ("bad_domain", false),
        ("bad_domain[]", false),
        ("good_domain", true),
    ] {
        let id = server.value(&format!("SELECT '{name}'::regtype::oid")).await;
        let id = id.parse().expect("it is an id");
        assert_eq!(catalog.proves_parameter_type(id), is_proven, "{name}");
    }
}

fn listed(list: &str) -> HashSet<&str> {
    let lines = list.lines().filter(|line| !line.starts_with("--"));
    lines.flat_map(|line| line.split('\'').skip(1).step_by(2)).collect()
}

/// A new major that adds a volatile function makes this fail: it belongs on one of the lists.
#[tokio::test]
async fn every_built_in_function_that_could_leave_something_is_audited() {
    let server = Postgres::start(Role::Primary);
    let risky = listed(include_str!("../../src/sql/audit/risky.txt"));
    let harmless = listed(include_str!("../../src/sql/audit/harmless.txt"));
    let visible = listed(include_str!("../../src/sql/audit/visible.txt"));
    let volatile =
        rows(&server, "SELECT DISTINCT proname, '' FROM pg_proc WHERE oid < 16384 AND provolatile = 'v'")
            .await;
    let is_listed = |name: &str| [&risky, &harmless, &visible].iter().any(|list| list.contains(name));
    let unaudited: Vec<_> = volatile.iter().map(|row| &row.0).filter(|name| !is_listed(name)).collect();
    assert!(unaudited.is_empty() && volatile.len() > 200, "audit these: {unaudited:?}");
    // Those that are not volatile and run what they are given by a name or text.
    let running = rows(
        &server,
        "SELECT DISTINCT proname, '' FROM pg_proc WHERE oid < 16384 AND (proname ~ '_to_xml(schema|_and|$)' \
         OR 'cstring'::regtype = ANY (proargtypes) AND 'oid'::regtype = ANY (proargtypes) AND 'int4'::regtype = ANY \
         (proargtypes) AND proname ~ '^(domain|record|array|range|multirange)_' OR proname ~ '^(ts_stat|ts_rewrite|set_config)$' \
         OR proname !~ '^pg_' AND proargnames && ARRAY['query', 'sql', 'tbl', 'cursor'])",
    )
    .await;
    let unaudited: Vec<_> =
        running.iter().map(|row| &row.0).filter(|name| !risky.contains(name.as_str())).collect();
    assert!(unaudited.is_empty() && running.len() > 20, "audit these: {unaudited:?}");
    // Operators, casts, types and aggregates that come with the server reach none of them.
    let reached = rows(
        &server,
        "SELECT p.proname, '' FROM pg_proc p WHERE p.oid < 16384 AND p.provolatile = 'v' AND (EXISTS (SELECT FROM \
         pg_operator o WHERE p.oid IN (o.oprcode, o.oprrest, o.oprjoin)) OR EXISTS (SELECT FROM pg_cast c WHERE \
         c.castfunc = p.oid) OR EXISTS (SELECT FROM pg_aggregate a WHERE p.oid IN (a.aggtransfn, a.aggfinalfn)) OR \
         EXISTS (SELECT FROM pg_type t WHERE p.oid IN (t.typinput, t.typoutput, t.typreceive, t.typsend)))",
    )
    .await;
    assert!(reached.is_empty(), "{reached:?}");
}

/// Operators, functions and types of the same names as those of the server, each of which fails when it is called.
const HIJACKING: &str = "\
CREATE SCHEMA hijack; \
CREATE FUNCTION hijack.fails() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$; \
DO $do$ DECLARE r record; n int := 0; BEGIN \
 FOR r IN SELECT o.oprname, oprleft::regtype AS l, oprright::regtype AS r, oprresult::regtype AS res FROM pg_operator o \
  WHERE oid < 16384 AND oprleft <> 0 LOOP \
  BEGIN n := n + 1; \
   EXECUTE format('CREATE FUNCTION hijack.f%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''hijacked''; \
    END $$', n, r.l, r.r, r.res); \
   EXECUTE format('CREATE OPERATOR hijack.%s (FUNCTION = hijack.f%s, LEFTARG = %s, RIGHTARG = %s)', r.oprname, n, r.l, r.r); \
  EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; \
 FOR r IN SELECT proname, pg_get_function_identity_arguments(oid) AS args, pg_get_function_result(oid) AS res FROM pg_proc \
  WHERE oid < 16384 AND prokind = 'f' AND proname ~ '^(concat|regexp|bool|quote|json|to_json|length|left|array_to)' LOOP \
  BEGIN EXECUTE format('CREATE FUNCTION hijack.%I(%s) RETURNS %s LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''hijacked''; \
   END $$', r.proname, r.args, r.res); \
  EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; \
 FOR r IN SELECT unnest(ARRAY['oid', 'text', 'regclass', 'int2', 'char', 'name']) AS name LOOP \
  EXECUTE format('CREATE DOMAIN hijack.%I AS pg_catalog.%I CHECK (hijack.fails() IS NULL)', r.name, r.name); END LOOP; \
 FOR r IN SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') LOOP \
  EXECUTE format('CREATE VIEW hijack.%I AS SELECT hijack.fails()', r.relname); END LOOP; \
END $do$";

#[tokio::test]
async fn nobody_can_hijack_the_catalogs_questions() {
    let server = Postgres::start(Role::Primary);
    server.query(DEFINITIONS).await;
    server.query(HIJACKING).await;
    let count =
        server.value("SELECT count(*) FROM pg_operator WHERE oprnamespace = 'hijack'::regnamespace").await;
    assert!(count.parse::<u32>().is_ok_and(|count| count > 500), "{count} operators");
    for question in [Catalog::QUERY, Catalog::PROGRAMS] {
        let plain: HashSet<_> = rows(&server, question).await.into_iter().collect();
        let hijacked = format!("SET search_path = hijack, pg_catalog; {question}");
        let hijacked: HashSet<_> = rows(&server, &hijacked).await.into_iter().collect();
        assert_eq!(plain, hijacked);
    }
    // They would be called, were they looked up.
    let admin = server.admin().await;
    for bare in [
        "SELECT 1 = 1",
        "SELECT * FROM pg_class",
        "SELECT 'a'::text",
        "SELECT quote_ident('a'::pg_catalog.text)",
    ] {
        let error = admin.simple_query(&format!("SET search_path = hijack, pg_catalog; {bare}")).await.err();
        let message = error.and_then(|error| Some(error.as_db_error()?.message().to_owned()));
        assert_eq!(message.as_deref(), Some("hijacked"), "{bare}");
    }
}
