//! What is proven to leave nothing on its backend: the texts of applications are, what may reach anything else is not.

use std::collections::HashSet;

use super::rules;
use crate::sql::{Catalog, Class, Classifier, Effects, Explanation, Reading, Rules, explain, judge};

/// What [`Catalog::QUERY`] says of an empty database of PostgreSQL 15.
const EMPTY: &str = include_str!("texts/empty_database.txt");

/// A database of users: tables, and functions of every kind that is proven or is not.
const OWN: &[(&str, &str)] = &[
    ("known relation", "users"),
    ("known relation", "posts"),
    ("known relation", "accounts"),
    ("known relation", "evil_view"),
    ("doubt r", "evil_view"),
    ("known relation", "over_view"),
    ("reach rr", "over_view evil_view"),
    ("known relation", "audited"),
    ("reach wf", "audited evil"),
    ("known relation", "parents"),
    ("reach ww", "parents audited"),
    ("known relation", "stamped"),
    ("reach wf", "stamped touch"),
    ("known relation", "logged"),
    ("reach wf", "logged log_changes"),
    ("known relation", "of_domain"),
    ("reach rt", "of_domain evil_domain"),
    ("known type", "evil_domain"),
    ("reach tf", "evil_domain evil"),
    ("oid 16500", "evil_domain"),
    ("known type", "mood"),
    ("oid 16400", "mood"),
    ("known operator", "<@@>"),
    ("reach of", "<@@> evil"),
    ("function own", "evil"),
    ("body sql", "evil SELECT set_config('app.x', 'y', false)"),
    ("function own", "evil_stable"),
    ("body plpgsql", "evil_stable BEGIN EXECUTE 'SET app.x = 1'; RETURN 1; END"),
    ("function volatile user own", "touch"),
    ("body plpgsql", "touch BEGIN NEW.updated_at = now(); RETURN NEW; END"),
    ("function volatile user own", "log_changes"),
    (
        "body plpgsql",
        "log_changes DECLARE old_row jsonb := to_jsonb(OLD); BEGIN IF TG_OP = 'DELETE' THEN INSERT INTO posts (id, body) \
         VALUES (OLD.id, old_row); RETURN OLD; ELSIF TG_OP = 'UPDATE' THEN UPDATE posts SET body = CASE WHEN old_row IS \
         NULL THEN '{}' ELSE old_row END, n = n + 1 WHERE id = NEW.id; RETURN NEW; END IF; CASE TG_OP WHEN 'X' THEN NULL; \
         ELSE RAISE NOTICE 'x %', NEW.id; END CASE; FOR r IN SELECT * FROM users LOOP PERFORM pg_notify('a', r.id::text); \
         END LOOP; RETURN NULL; EXCEPTION WHEN unique_violation THEN RETURN NULL; END",
    ),
    ("function own", "uid"),
    ("body sql", "uid  SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid; "),
    ("function own", "calls_evil"),
    ("body plpgsql", "calls_evil BEGIN PERFORM Evil(); END"),
    ("function own", "sets_local"),
    ("body plpgsql", "sets_local BEGIN PERFORM set_config('app.x', NEW.id::text, true); RETURN NEW; END"),
    ("function own", "sets_dangerous"),
    ("body plpgsql", "sets_dangerous BEGIN PERFORM set_config('exit_on_error', 'on', true); RETURN NEW; END"),
    ("function own", "locks"),
    ("body sql", "locks SELECT pg_advisory_lock(1)"),
    ("function own", "reads_view"),
    ("body sql", "reads_view SELECT * FROM over_view"),
    ("function own", "in_python"),
    ("body other", "in_python "),
    ("function own", "long"),
    ("body sql long", "long SELECT 1"),
    ("function", "similarity"),
    ("body of pg_trgm", "similarity "),
    ("function volatile user", "set_limit"),
    ("body of pg_trgm", "set_limit "),
    ("function", "crosstab"),
    ("body of tablefunc", "crosstab "),
    ("function own", "no_body"),
    ("function volatile user own", "now"),
    ("body sql", "now INSERT INTO posts VALUES (1)"),
];

/// A function that is declared STABLE may write by a volatile one that it calls, and so may whatever reaches it.
#[test]
fn what_writes_through_a_stable_function_is_no_read() {
    let catalog = catalog_with([
        ("known relation", "notes"),
        ("function volatile user own", "writer"),
        ("body plpgsql", "writer BEGIN INSERT INTO notes VALUES (1); RETURN 1; END"),
        ("function own", "wrap"),
        ("body sql", "wrap SELECT writer()"),
        ("function own", "wraps_again"),
        ("body plpgsql", "wraps_again BEGIN RETURN (SELECT wrap()); END"),
        ("function own", "counts"),
        ("body sql", "counts SELECT nextval('notes_id_seq')"),
        ("function own", "reads"),
        ("body sql", "reads SELECT count(*) FROM notes WHERE random() < 1"),
        ("known relation", "shown"),
        ("reach rf", "shown wrap"),
        ("known relation", "over_shown"),
        ("reach rr", "over_shown shown"),
        ("known operator", "<~>"),
        ("reach of", "<~> wrap"),
    ]);
    let class = |text| explained(&catalog, text).verdict.class;
    for text in [
        "SELECT writer()",
        "SELECT wrap()",
        "SELECT wraps_again()",
        "SELECT counts()",
        "SELECT * FROM shown",
        "SELECT * FROM over_shown",
        "SELECT 1 <~> 2",
    ] {
        assert_eq!(class(text), Class::Write, "{text}");
    }
    for text in ["SELECT reads()", "SELECT * FROM notes", "SELECT lower('a')"] {
        assert_eq!(class(text), Class::Read, "{text}");
    }
}

/// An empty database with more in it.
pub(super) fn catalog_with<'r>(more: impl IntoIterator<Item = (&'r str, &'r str)>) -> Catalog {
    let empty = EMPTY.lines().filter_map(|line| line.split_once('|'));
    Catalog::from_rows(1, empty.chain(more))
}

pub(super) fn explained(catalog: &Catalog, text: &str) -> Explanation {
    explain(&rules(), catalog, text.as_bytes())
}

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with("--"))
}

fn is_proven(explanation: &Explanation) -> bool {
    !explanation.verdict.effects.has(Effects::UNPROVEN)
}

#[test]
fn what_reaches_nothing_else_is_proven() {
    let catalog = catalog_with(OWN.iter().copied());
    for text in lines(include_str!("texts/proven.sql")) {
        let explanation = explained(&catalog, text);
        assert!(is_proven(&explanation), "{text}\n{explanation}");
    }
}

#[test]
fn what_reaches_anything_else_is_not() {
    let catalog = catalog_with(OWN.iter().copied());
    let proven: Vec<_> = lines(include_str!("texts/unproven.sql"))
        .filter(|line| is_proven(&explained(&catalog, line)))
        .collect();
    assert!(proven.is_empty(), "{proven:#?}");
}

/// Each clause of the grammar that can hold an expression holds a call that is not proven.
#[test]
fn a_call_is_found_in_every_clause() {
    let catalog = catalog_with(OWN.iter().copied());
    for text in lines(include_str!("texts/clauses.sql")) {
        let with = |call: &str| text.replace('?', call);
        let harmless = explained(&catalog, &with("lower('a')"));
        assert!(is_proven(&harmless), "{}\n{harmless}", with("lower('a')"));
        for evil in [
            "evil('a')",
            "query_to_xml('a', true, true, '')",
            "app.evil_stable()",
            "'a'::evil_domain",
            "(1 <@@> 2)",
            "(SELECT 1 FROM evil_view)",
            "(users).evil",
            "CAST(1 AS evil_domain)",
        ] {
            let text = with(evil);
            // Not every expression fits every clause.
            if judge::judge(&rules(), &catalog, text.as_bytes(), None).reason != crate::sql::Reason::Unparsed
            {
                assert!(!is_proven(&explained(&catalog, &text)), "{text}");
            }
        }
    }
}

#[test]
fn an_operator_that_is_everywhere_takes_all_with_it() {
    let evil = [("reach of", "= evil"), ("function own", "evil"), ("body other", "evil ")];
    let catalog = catalog_with(OWN.iter().copied().chain(evil));
    assert!(!is_proven(&explained(&catalog, "SELECT CASE 1 WHEN 2 THEN 3 END")));
    assert!(is_proven(&explained(&catalog, "BEGIN")));
}

#[test]
fn nothing_is_proven_without_a_catalog() {
    for text in
        ["SELECT 1", "SELECT * FROM users", "SELECT now()", "TRUNCATE users", "CREATE TABLE t (a int)"]
    {
        assert!(!is_proven(&explained(&Catalog::empty(), text)), "{text}");
    }
    for text in ["BEGIN", "SET a = 1", "LISTEN a", ""] {
        assert!(is_proven(&explained(&Catalog::empty(), text)), "{text}");
    }
}

#[test]
fn event_triggers_run_with_definitions() {
    let catalog = catalog_with(OWN.iter().copied().chain([("doubt ddl", "")]));
    for text in
        ["CREATE TABLE t (a int)", "DROP TABLE users", "SELECT 1 INTO t", "CREATE TEMP TABLE t AS SELECT 1"]
    {
        assert!(!is_proven(&explained(&catalog, text)), "{text}");
    }
    assert!(is_proven(&explained(&catalog, "SELECT 1")));
}

/// What is made and can run no code, and what is like it but can, or changes what is there.
#[test]
fn additions_are_told_from_other_definitions() {
    let catalog = catalog_with(OWN.iter().copied());
    let effects = |text: &str| explained(&catalog, text).verdict.effects;
    for text in [
        "CREATE TABLE t (a int PRIMARY KEY, b text NOT NULL DEFAULT lower('A') CHECK (b <> ''), c mood, UNIQUE (a, b))",
        "CREATE UNLOGGED TABLE IF NOT EXISTS s.t (id bigserial, LIKE users INCLUDING ALL)",
        "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a int GENERATED ALWAYS AS (1 + 1) STORED)",
        "CREATE TABLE t AS SELECT * FROM users",
        "SELECT * INTO t FROM users UNION SELECT * FROM users",
        "CREATE INDEX CONCURRENTLY i ON users (a, b DESC)",
        "CREATE SEQUENCE s START 7",
        "CREATE SCHEMA s",
        "CREATE TABLE t (a int); CREATE TABLE u (b int); INSERT INTO users VALUES (1)",
    ] {
        let effects = effects(text);
        assert!(effects.has(Effects::ADDS), "{text}: {effects:?}");
        assert!(!effects.has(Effects::DDL.with(Effects::UNPROVEN)), "{text}: {effects:?}");
    }
    for text in [
        "CREATE TABLE t (a int DEFAULT evil())",
        "CREATE TABLE t (a int CHECK (a <@@> 1))",
        "CREATE TABLE t (a evil_domain)",
        "CREATE TABLE t (a unknown_type)",
        "CREATE TABLE t (LIKE audited)",
        "CREATE TABLE t (LIKE unknown)",
        "CREATE TABLE t (a int) INHERITS (users)",
        "CREATE TABLE t PARTITION OF users FOR VALUES IN (1)",
        "CREATE TABLE t (a int) PARTITION BY LIST (a)",
        "CREATE TABLE t OF mood",
        "CREATE TABLE t (a int REFERENCES users)",
        "CREATE TABLE t (a int, FOREIGN KEY (a) REFERENCES users (id))",
        "CREATE TABLE t (a int) USING heap",
        "CREATE TABLE t (a int, EXCLUDE USING gist (a WITH =))",
        "CREATE TABLE t AS SELECT evil()",
        "CREATE TABLE t AS EXECUTE p",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM users",
        "CREATE VIEW v AS SELECT 1",
        "CREATE INDEX ON users (lower(a))",
        "CREATE INDEX ON users (a text_pattern_ops)",
        "CREATE INDEX ON users (a) WHERE evil() = 1",
        "CREATE INDEX ON audited (a)",
        "CREATE SCHEMA s CREATE VIEW v AS SELECT 1",
        "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE t AS (a int)",
        "CREATE TABLE t (a int); ALTER TABLE users ADD a int",
        "ALTER TABLE users ATTACH PARTITION posts FOR VALUES IN (1)",
        "ALTER TABLE users INHERIT posts",
    ] {
        let effects = effects(text);
        assert!(effects.has(Effects::DDL), "{text}: {effects:?}");
    }
    // Proven one by one, and not as a whole: whoever notes it takes it for any definition.
    let reset = effects("RESET search_path; CREATE TABLE t (a int)");
    assert!(reset.has(Effects::ADDS) && reset.has(Effects::UNPROVEN));
}

/// What was added is known to run nothing, unless there is something worse of its name; and is no read.
#[test]
fn what_was_added_is_known() {
    let catalog = catalog_with(OWN.iter().copied());
    let names = ["fresh", "evil_view", "evil", "evil_domain", "nobody"];
    let added = catalog.with_additions(2, names.map(Into::into));
    for text in [
        "SELECT * FROM fresh",
        "INSERT INTO fresh VALUES (1)",
        "SELECT '(1)'::fresh",
        "CREATE INDEX ON fresh (a)",
    ] {
        assert!(!is_proven(&explained(&catalog, text)), "{text}");
        let explanation = explained(&added, text);
        assert!(is_proven(&explanation), "{text}\n{explanation}");
        assert_eq!(explanation.verdict.class, crate::sql::Class::Write, "{text}");
        assert_eq!((catalog.epoch_of(text.as_bytes()), added.epoch_of(text.as_bytes())), (1, 2));
    }
    for text in [
        "SELECT * FROM evil_view",
        "SELECT * FROM over_view",
        "SELECT evil()",
        "SELECT x.evil FROM fresh AS x",
        "SELECT 1::evil_domain",
        "INSERT INTO audited VALUES (1)",
        "SELECT * FROM other",
        "SELECT calls_evil()",
    ] {
        assert!(!is_proven(&explained(&added, text)), "{text}");
    }
    let other = "SELECT * FROM users";
    assert_eq!(
        (added.epoch_of(other.as_bytes()), explained(&added, other).verdict.class),
        (1, crate::sql::Class::Read)
    );
}

#[test]
fn readings_that_differ_in_plain_relations_contradict_nothing() {
    let catalog = catalog_with(OWN.iter().copied());
    let with =
        |more: &[(&'static str, &'static str)]| catalog_with(OWN.iter().copied().chain(more.iter().copied()));
    for more in [
        &[("known relation", "fresh")][..],
        &[("known relation", "fresh"), ("relation", "fresh")],
        &[("known type", "fresh")],
    ] {
        let other = with(more);
        assert!(!other.says_the_same(&catalog), "{more:?}");
        assert!(
            catalog.differs_in_plain_relations(&other) && other.differs_in_plain_relations(&catalog),
            "{more:?}"
        );
    }
    for more in [
        &[("known relation", "fresh"), ("reach rf", "fresh evil")][..],
        &[("reach wf", "users evil")],
        &[("function own", "fresh")],
        &[("doubt ddl", "")],
        &[("known operator", "<@@@>")],
        &[("known type", "fresh"), ("doubt t", "fresh")],
        &[("function own", "set_config"), ("body sql", "set_config SELECT 1")],
    ] {
        let other = with(more);
        assert!(
            !catalog.differs_in_plain_relations(&other) && !other.differs_in_plain_relations(&catalog),
            "{more:?}"
        );
    }
    assert!(!Catalog::empty().differs_in_plain_relations(&catalog));
}

#[test]
fn bound_names_of_settings_are_told() {
    let catalog = catalog_with(OWN.iter().copied());
    let effects = |text: &str| explained(&catalog, text).verdict.effects;
    let two = effects("SELECT set_config($1, $2, false), set_config($3, 'a', true)");
    assert!(two.has(Effects::BOUND_SETTING) && !two.has(Effects::UNPROVEN));
    assert_eq!([0, 1, 2, 3].map(|number| two.names_setting(number)), [true, false, true, false]);
    assert!(effects("SELECT set_config($17, 'a', false)").has(Effects::UNPROVEN));
    assert!(!effects("SELECT set_config('app.x', $1, false)").has(Effects::BOUND_SETTING));
}

#[test]
fn types_of_parameters_are_known_by_their_ids() {
    let catalog = catalog_with(OWN.iter().copied());
    assert!(catalog.proves_parameter_type(0) && catalog.proves_parameter_type(25));
    assert!(catalog.proves_parameter_type(16400));
    assert!(!catalog.proves_parameter_type(16500) && !catalog.proves_parameter_type(99_999));
}

#[test]
fn a_text_that_is_no_utf_8_has_no_verdict_of_another() {
    let catalog = catalog_with(OWN.iter().copied());
    let classifier = Classifier::new(Rules::default(), 100, 10_000);
    let proves = |text: &[u8]| !classifier.classify(&catalog, text).effects.has(Effects::UNPROVEN);
    assert!(proves(b"SELECT 'a'") && proves("SELECT 'é'".as_bytes()));
    assert!(!proves(b"SELECT '\xe9'"));
    assert!(proves(b"SELECT 'b'"));
}

#[test]
fn a_text_read_otherwise_proves_nothing() {
    let catalog = catalog_with(OWN.iter().copied());
    let classifier = Classifier::new(Rules::default(), 100, 10_000);
    let proves = |reading, text: &[u8]| {
        let unread = Classifier::unread(reading, text);
        let verdict = unread.unwrap_or_else(|| classifier.classify(&catalog, text));
        !verdict.effects.has(Effects::UNPROVEN)
    };
    let (ascii, text) = (b"SELECT 'a'".as_slice(), "SELECT 'é'".as_bytes());
    assert!(proves(Reading::Utf8, ascii) && proves(Reading::Utf8, text));
    assert!(proves(Reading::OtherEncoding, text) && !proves(Reading::OtherEncoding, "SELECT é".as_bytes()));
    assert!(proves(Reading::UnsafeEncoding, ascii) && !proves(Reading::UnsafeEncoding, text));
    assert!(!proves(Reading::OldStrings, ascii));
}

/// How many of the texts of applications are proven, in a database that has their tables and nothing else.
#[test]
fn texts_of_applications_are_proven() {
    let libraries = include_str!("jobs.rs").lines().filter_map(|line| {
        let text = line.trim().strip_prefix('"')?.strip_suffix("\",")?;
        Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
    });
    let is_text = |text: &String| text.contains(' ') && text.starts_with(|c: char| c.is_ascii_uppercase());
    let libraries: Vec<String> = libraries.filter(is_text).collect();
    let orms: Vec<String> = lines(include_str!("texts/applications.sql")).map(str::to_owned).collect();
    for (title, texts, least) in [("job libraries", libraries, 81), ("pgbench and ORMs", orms, 100)] {
        let names = names_of(&texts);
        let known =
            names.iter().flat_map(|name| [("known relation", name.as_str()), ("known type", name.as_str())]);
        let catalog = catalog_with(known);
        let unproven: Vec<_> = texts.iter().filter(|text| !is_proven(&explained(&catalog, text))).collect();
        let share = (texts.len() - unproven.len()) * 100 / texts.len();
        let list: Vec<_> = unproven
            .iter()
            .map(|text| format!("{text}\n    {:?}", explained(&catalog, text).unproven))
            .collect();
        assert!(share >= least, "{title}: {share} % of {}\n{}", texts.len(), list.join("\n"));
    }
}

fn names_of(texts: &[String]) -> HashSet<String> {
    let last = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
    let explanations = texts.iter().map(|text| explained(&Catalog::empty(), text));
    explanations
        .flat_map(|one| [one.job_tables, one.app_tables, one.read_tables, one.written_tables].concat())
        .filter(|name| !name.ends_with("()"))
        .map(|name| last(&name))
        .collect()
}
