//! Servers that are not as one would set them up: roles with settings of their own, objects that shadow those of PostgreSQL,
//! triggers that fail or stand in the way, somebody who has the relay's lock. What comes must be what was written, and what
//! does not come must keep nothing else back, and be named.

use super::{LONG, Yard, bulkhead, functions::texts};
use crate::support::{Postgres, ProxyConfig, RawClient, eventually, oban};

/// Settings of the role and of the database, each of which changes how values are written or read, or what a statement may do.
const SETTINGS: &str = "
    ALTER ROLE app SET DateStyle = 'SQL, DMY'; ALTER ROLE app SET IntervalStyle = 'sql_standard';
    ALTER DATABASE app SET TimeZone = 'Asia/Kathmandu';
    ALTER ROLE app SET extra_float_digits = -15; ALTER ROLE app SET client_encoding = 'LATIN1';
    ALTER ROLE app SET standard_conforming_strings = off; ALTER ROLE app SET quote_all_identifiers = on;
    ALTER ROLE app SET xmloption = document; ALTER ROLE app SET xmlbinary = hex; ALTER ROLE app SET array_nulls = off;
    ALTER ROLE app SET transform_null_equals = on; ALTER ROLE app SET lc_messages = 'C';
    ALTER ROLE app SET default_transaction_isolation = 'serializable'; ALTER ROLE app SET lock_timeout = '1ms';
    ALTER ROLE app SET idle_in_transaction_session_timeout = '1ms'; ALTER ROLE app SET statement_timeout = '100ms';
    ALTER ROLE app SET default_transaction_read_only = on; ALTER DATABASE app SET bytea_output = 'escape'; ALTER DATABASE app SET plpgsql.variable_conflict = 'use_column';
    ALTER ROLE app SET search_path = 'evil', 'pg_catalog', 'public';
";

/// Things that have the names of PostgreSQL's own, and are found first.
const SHADOWS: &str = "
    CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
    CREATE FUNCTION evil.never(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE FUNCTION evil.never(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE FUNCTION evil.never(a uuid, b uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE FUNCTION evil.sum(a bigint, b bigint) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'shadowed'; END $$;
    CREATE OPERATOR evil.= (FUNCTION = evil.never, LEFTARG = bigint, RIGHTARG = bigint);
    CREATE OPERATOR evil.= (FUNCTION = evil.never, LEFTARG = text, RIGHTARG = text);
    CREATE OPERATOR evil.= (FUNCTION = evil.never, LEFTARG = uuid, RIGHTARG = uuid);
    CREATE OPERATOR evil.<> (FUNCTION = evil.never, LEFTARG = bigint, RIGHTARG = bigint);
    CREATE OPERATOR evil.<> (FUNCTION = evil.never, LEFTARG = text, RIGHTARG = text);
    CREATE OPERATOR evil.+ (FUNCTION = evil.sum, LEFTARG = bigint, RIGHTARG = bigint);
    CREATE OPERATOR evil.- (FUNCTION = evil.sum, LEFTARG = bigint, RIGHTARG = bigint);
    CREATE TABLE evil.oban_jobs (id int); CREATE TABLE evil.pg_class (oid int);
    CREATE DOMAIN evil.text AS pg_catalog.text CHECK (false); CREATE DOMAIN evil.uuid AS pg_catalog.uuid CHECK (false);
    CREATE DOMAIN evil.json AS pg_catalog.json CHECK (false);
";

/// A second library, whose keys are no numbers.
const GOOD_JOB: &str = "SET ROLE app; CREATE TABLE public.good_jobs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), \
    queue_name text, scheduled_at timestamptz, created_at timestamptz NOT NULL DEFAULT now(), serialized_params json)";

const TYPES: &str = "SET ROLE app; CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'a \"quoted\\ one'); \
    CREATE DOMAIN public.small AS numeric(9, 3) CHECK (VALUE <> 0); CREATE TYPE public.pair AS (a text, b timestamptz)";

/// The columns that are added, and a value of each.
const VALUES: [(&str, &str, &str); 23] = [
    (
        "when_tz",
        "timestamptz[]",
        "ARRAY['infinity', '-infinity', NULL, '2020-03-29 01:30:00.123456+01', '0044-03-15 BC']::timestamptz[]",
    ),
    (
        "when_no",
        "timestamp[]",
        "ARRAY['infinity', '1999-02-03 04:05:06.000001', '294276-12-31 23:59:59.999999']::timestamp[]",
    ),
    ("days", "date[]", "ARRAY['infinity', '2024-03-04', '4713-01-01 BC']::date[]"),
    (
        "f8",
        "float8[]",
        "ARRAY['NaN', 'Infinity', '-0', 0.1::float8 + 0.2, 5e-324, 1.7976931348623157e308, NULL]::float8[]",
    ),
    ("f4", "float4[]", "ARRAY['NaN', '-Infinity', 1.17549435e-38, 16777217]::float4[]"),
    ("n", "numeric[]", "ARRAY['NaN', 1e-1000, 1.10, 12345678901234567890.123456789]::numeric[]"),
    ("b", "bytea", "'\\x00ff5c5c270a09'::bytea"),
    ("plain_json", "json", "'{\"b\":  1, \"a\": 1e400, \"a\": \"\\u0000\"}'::json"),
    ("binary_json", "jsonb", "'null'::jsonb"),
    ("spans", "interval[]", "ARRAY['-1 day +02:03:04.000005', '1 year -2 mons', '-00:00:01']::interval[]"),
    (
        "names",
        "text[]",
        "ARRAY[NULL, 'NULL', 'null', '', '{\"\\}', E'a\\tb\\n\\\\.', U&'\\00fc\\+01f600']::text[]",
    ),
    ("grid", "int[]", "'[2:3][-1:0]={{1,NULL},{3,4}}'::int[]"),
    ("fragment", "xml", "'a<b/>c'::xml"),
    ("spells", "tstzrange", "'(2020-01-02 03:04:05.5+00,2021-03-04 00:00:00+00]'::tstzrange"),
    ("moods", "public.mood[]", "ARRAY['sad', 'a \"quoted\\ one', NULL]::public.mood[]"),
    ("little", "public.small", "-0.001"),
    ("couple", "public.pair", "ROW('it''s (a), \"b\"', '2020-01-01 00:00:00+00')::public.pair"),
    ("bits", "varbit", "B'10101'"),
    ("net", "inet", "'::ffff:1.2.3.4/99'"),
    ("padded", "char(7)", "'a  '"),
    ("\"Upper \"\"and\"\" .dot\\\"", "text", "E'\\\\.'"),
    ("\"select\"", "text", "'\\N'"),
    ("much", "text", "repeat(U&'\\00fc\\\\' || chr(10), 3000000)"),
];

/// The columns are there in another order, one was dropped, and there is one more.
async fn add_columns(server: &Postgres, is_primary: bool) {
    server.query(TYPES).await;
    let add = |(name, kind, _): &(&str, &str, &str)| format!("ADD {name} {kind}");
    let mut added: Vec<String> = VALUES.iter().map(add).collect();
    if !is_primary {
        added.reverse();
        server.query("ALTER TABLE public.oban_jobs ADD gone text, ADD more text DEFAULT 'more'").await;
    }
    server.query(&format!("ALTER TABLE public.oban_jobs {}", added.join(", "))).await;
    let generated =
        "ALTER TABLE public.oban_jobs ADD twice text GENERATED ALWAYS AS (worker || worker) STORED";
    server.query(generated).await;
    if !is_primary {
        server.query("ALTER TABLE public.oban_jobs DROP gone").await;
    }
}

/// Two libraries' tables on both servers.
pub(super) async fn yard_of_two() -> Yard {
    let yard = Yard::bare();
    for server in [&yard.primary, &yard.jobs] {
        oban::install(server).await;
        server.query(GOOD_JOB).await;
    }
    yard.jobs.query(super::ARRIVALS).await;
    yard
}

pub(super) fn config_of_two(yard: &Yard) -> ProxyConfig {
    yard.config().set("jobs", "presets", vec!["oban", "good_job"])
}

pub(super) fn init(config: &ProxyConfig) {
    let (code, text) = bulkhead(config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn values_come_as_they_are_whatever_the_role_has_set() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    for server in [&yard.primary, &yard.jobs] {
        add_columns(server, server.port() == yard.primary.port()).await;
        // The library's trigger names things as its role finds them.
        server.query("DROP TRIGGER oban_notify ON public.oban_jobs").await;
        server.query(SHADOWS).await;
        server.query(SETTINGS).await;
    }
    yard.jobs
        .query(
            "ALTER TABLE public.oban_jobs ADD CHECK (queue <> 'forbidden'); \
             ALTER TABLE public.good_jobs ADD CHECK (queue_name <> 'forbidden')",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    let columns = VALUES.map(|(name, ..)| name).join(", ");
    let values = VALUES.map(|(.., value)| value).join(", ");
    let neutral = "SET DateStyle = ISO; SET TimeZone = 'UTC'; SET extra_float_digits = 3; SET IntervalStyle = postgres; \
        SET bytea_output = hex";
    let read = format!("{neutral}; SELECT ROW({columns})::text FROM public.oban_jobs WHERE twice = 'ww'");
    // It stays until it has been read.
    let insert = format!("INSERT INTO public.oban_jobs (worker, {columns}) VALUES ('w', {values})");
    let kept = yard.primary.value(&format!("BEGIN; {insert}; {read}; COMMIT")).await;
    yard.primary.query("INSERT INTO public.good_jobs (queue_name) VALUES ('q'), ('forbidden')").await;
    yard.wait_until_empty().await;
    let came = yard.jobs.value(&read).await;
    assert_eq!(came.len(), kept.len());
    let at = came.bytes().zip(kept.bytes()).position(|(one, other)| one != other);
    let around =
        at.map(|at| (came.get(at.saturating_sub(60)..at + 60), kept.get(at.saturating_sub(60)..at + 60)));
    assert_eq!(around, None);
    assert_eq!(yard.jobs.value("SELECT more FROM public.oban_jobs").await, "more");
    // What is refused is set aside, however its key is written.
    let refused = "SELECT string_agg(source_table || ' ' || (row->>'queue_name'), ' ') FROM bulkhead.refused";
    eventually("it is set aside", LONG, async || {
        (yard.primary.value(refused).await == "public.good_jobs forbidden").then_some(())
    })
    .await;
    assert_eq!(yard.jobs.value("SELECT queue_name FROM public.good_jobs").await, "q");
    drop(proxy);
}

/// What a library's function or a trigger raises is told by where it comes from: its class may be any that is not the
/// server's own.
#[tokio::test]
async fn what_is_raised_with_a_code_of_its_own_is_the_row_s_fault() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs
        .query(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.worker = 'custom' THEN RAISE 'no' USING ERRCODE = 'GWBID'; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER refuse BEFORE INSERT ON oban_jobs FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('custom'), ('other')").await;
    yard.wait_until_empty().await;
    assert_eq!(yard.arrivals().await.keys().collect::<Vec<_>>(), ["other"]);
    let refused = texts(yard.primary.query("SELECT row->>'worker', error FROM bulkhead.refused").await);
    assert!(
        refused.len() == 1 && refused[0][0] == "custom" && refused[0][1].contains("GWBID"),
        "{refused:?}"
    );
    drop(proxy);
}

#[tokio::test]
async fn what_is_refused_at_the_commit_is_set_aside() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs
        .query(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             IF NEW.worker = 'late' THEN RAISE 'no'; END IF; RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON oban_jobs DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('one'), ('late'), ('other')").await;
    yard.wait_until_empty().await;
    assert_eq!(yard.arrivals().await.into_keys().collect::<Vec<_>>(), ["one", "other"]);
    assert_eq!(yard.primary.value("SELECT row->>'worker' FROM bulkhead.refused").await, "late");
    drop(proxy);
}

#[tokio::test]
async fn a_row_that_jsonb_cannot_hold_is_set_aside_as_it_is() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs.query("ALTER TABLE good_jobs ADD CHECK (queue_name <> 'forbidden')").await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    let odd = "{\"b\":  1, \"a\": 1e400000, \"a\": \"\\u0000\"}";
    yard.primary
        .query(&format!(
            "INSERT INTO good_jobs (queue_name, serialized_params) VALUES ('forbidden', '{odd}'), ('q', '{odd}')"
        ))
        .await;
    let came = "SELECT string_agg(serialized_params::text, ' ') FROM good_jobs";
    eventually("the other one comes", LONG, async || (yard.jobs.value(came).await == odd).then_some(()))
        .await;
    let aside = format!("SELECT count(*) FROM bulkhead.refused WHERE strpos(row::text, '{odd}') > 0");
    eventually("it is set aside", LONG, async || (yard.primary.value(&aside).await == "1").then_some(()))
        .await;
    drop(proxy);
}

#[tokio::test]
async fn a_table_whose_rows_cannot_come_keeps_no_other_waiting() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs
        .query(
            "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM FROM is_missing; RETURN NEW; END $$; \
             CREATE TRIGGER broken BEFORE INSERT ON good_jobs FOR EACH ROW EXECUTE FUNCTION broken()",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    yard.primary.query("INSERT INTO good_jobs (queue_name) VALUES ('q')").await;
    proxy.wait_for_log("is_missing").await;
    for n in 1..=3 {
        yard.primary.query(&format!("INSERT INTO oban_jobs (worker) VALUES ('w {n}')")).await;
        eventually("the other table's come", LONG, async || (yard.arrivals().await.len() == n).then_some(()))
            .await;
    }
    assert_eq!(yard.primary.value("SELECT count(*) FROM good_jobs").await, "1");
    yard.jobs.query("CREATE TABLE is_missing (a int); GRANT SELECT ON is_missing TO app").await;
    eventually("in the end it comes", LONG, async || {
        (yard.jobs.value("SELECT count(*) FROM good_jobs").await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_trigger_that_keeps_rows_on_the_primary_is_named() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.primary
        .query(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
             CREATE TRIGGER keep BEFORE DELETE ON good_jobs FOR EACH ROW EXECUTE FUNCTION keep()",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    yard.primary.query("INSERT INTO good_jobs (queue_name) VALUES ('q')").await;
    proxy.wait_for_log("public.good_jobs on the primary keeps").await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('w')").await;
    eventually("the other table's come", LONG, async || (yard.arrivals().await.len() == 1).then_some(()))
        .await;
    yard.primary.query("DROP TRIGGER keep ON good_jobs").await;
    eventually("it comes", LONG, async || {
        (yard.jobs.value("SELECT count(*) FROM good_jobs").await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_column_that_is_computed_on_the_primary_only_does_not_fit() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.primary
        .query("ALTER TABLE oban_jobs ADD twice text GENERATED ALWAYS AS (worker || worker) STORED")
        .await;
    yard.jobs.query("ALTER TABLE oban_jobs ADD twice text").await;
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(
        code == Some(64) && text.contains("public.oban_jobs.twice is generated on the primary only"),
        "{text}"
    );
}

/// The relay's lock is one that anybody may take.
#[tokio::test]
async fn whoever_else_has_the_relay_s_lock_is_named() {
    let yard = Yard::start().await;
    let mut holder = RawClient::app(yard.jobs.port()).await;
    holder
        .ask("SET application_name = 'of somebody else'; SELECT pg_advisory_lock(7094695996560859492)")
        .await;
    let config = yard.config();
    let proxy = crate::support::Proxy::start(&config.to_toml());
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('w')").await;
    proxy.wait_for_log("of somebody else").await;
    // Also one without a name.
    holder.ask("SET application_name = ''").await;
    proxy.wait_for_log("(application \\\"\\\", user").await;
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    let part = "(application \"\", user \"app\"): it must not be taken by others; end that process";
    assert!(code == Some(0) && text.contains(part), "{text}");
    holder.ask("SELECT pg_advisory_unlock_all()").await;
    yard.wait_until_empty().await;
    proxy.wait_for_log("jobs are moved from the primary to the job database again").await;
}
