//! Names that need quotes, and are as long as names may be: schemas, columns, types and sequences of the libraries' tables.

use super::{
    KEYED, LONG, Yard, bulkhead,
    functions::{install_graphile_in, say, texts},
};
use crate::support::{Postgres, ProxyConfig, RawClient, eventually, oban};

const ITEM: &str = "INSERT INTO public.items VALUES ('a')";

/// Each with a quote, a dot, a backslash, upper case, a letter that is not ASCII, a delimiter of ours, and what is a word of
/// ours in braces.
const SCHEMAS: [&str; 3] = ["select", "Of.\"it's\" $bulkhead$ \\{name}\u{fc} {calls}", "a.b"];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn config(yard: &Yard, schema: &str) -> ProxyConfig {
    yard.config().set("auth", "method", "trust").set("jobs", "schemas", vec![schema])
}

async fn in_schema(server: &Postgres, schema: &str) {
    oban::install(server).await;
    let name = quoted(schema);
    server
        .query(&format!(
            "CREATE SCHEMA {name} AUTHORIZATION app; ALTER TABLE oban_jobs SET SCHEMA {name}; \
             ALTER TABLE oban_peers SET SCHEMA {name}; ALTER TYPE oban_job_state SET SCHEMA {name}; \
             ALTER TABLE {name}.oban_jobs ADD \"Odd \"\", (column) \\\" text, ADD \"user\" text; \
             ALTER SEQUENCE {name}.oban_jobs_id_seq RENAME TO \"Odd.'\"\"\\seq\""
        ))
        .await;
}

#[tokio::test]
async fn tables_in_schemas_of_odd_names_are_moved() {
    for schema in SCHEMAS {
        let yard = Yard::bare();
        for server in [&yard.primary, &yard.jobs] {
            in_schema(server, schema).await;
        }
        yard.primary.query("SET ROLE app; CREATE TABLE public.items (name text)").await;
        let table = format!("{}.oban_jobs", quoted(schema));
        yard.jobs.query(&format!("ALTER TABLE {table} ADD CHECK (queue <> 'forbidden')")).await;
        let config = config(&yard, schema);
        let (code, text) = bulkhead(&config, &["jobs", "init"]);
        assert_eq!(code, Some(0), "{text}");
        let (code, text) = bulkhead(&config, &["jobs", "init"]);
        assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
        let proxy = yard.bulkhead(&config).await;
        let mut client = RawClient::app(proxy.port()).await;
        let add = |queue: &str| {
            format!(
                "INSERT INTO {table} (worker, queue, \"user\", \"Odd \"\", (column) \\\") VALUES ('w', '{queue}', 'u', 'it''s')"
            )
        };
        say(&mut client, &["BEGIN", ITEM, &add("later"), &add("forbidden"), "COMMIT"]).await;
        // Carried over.
        say(&mut client, &["BEGIN", &add("first"), ITEM, "COMMIT"]).await;
        let came = format!("SELECT queue, \"user\", \"Odd \"\", (column) \\\" FROM {table} ORDER BY 1");
        eventually(&format!("all have come to {schema}"), LONG, async || {
            (texts(yard.jobs.query(&came).await) == [["first", "u", "it's"], ["later", "u", "it's"]])
                .then_some(())
        })
        .await;
        let source = format!("{schema}.oban_jobs");
        eventually("one is refused", LONG, async || {
            let refused = yard.primary.value("SELECT source_table FROM bulkhead.refused").await;
            (refused == source).then_some(())
        })
        .await;
        drop(proxy);
        yard.primary.query("DELETE FROM bulkhead.refused").await;
        let (code, text) = bulkhead(&config, &["jobs", "undo"]);
        assert_eq!(code, Some(0), "{text}");
    }
}

#[tokio::test]
async fn calls_of_a_library_in_a_schema_of_an_odd_name_are_made() {
    let schema = SCHEMAS[1];
    let name = quoted(schema);
    let yard = Yard { library: KEYED, ..Yard::bare() };
    for server in [&yard.primary, &yard.jobs] {
        install_graphile_in(server, schema).await;
    }
    yard.primary.query("SET ROLE app; CREATE TABLE items (name text)").await;
    let config = config(&yard, schema);
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
    let proxy = yard.bulkhead(&config).await;
    let mut client = RawClient::app(proxy.port()).await;
    let call =
        format!("SELECT {name}.add_job('t', '[1]', job_key => 'k ' || n) FROM generate_series(1, 2) AS n");
    say(&mut client, &["BEGIN", ITEM, &call, &format!("SELECT {name}.add_job('plain')"), "COMMIT"]).await;
    let jobs = format!("SELECT coalesce(key, '-') FROM {name}.jobs ORDER BY 1");
    eventually("all have come", LONG, async || {
        (texts(yard.jobs.query(&jobs).await) == [["-"], ["k 1"], ["k 2"]]).then_some(())
    })
    .await;
    drop(proxy);
    let (code, text) = bulkhead(&config, &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    let left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'bulkhead%'";
    assert_eq!(yard.primary.value(left).await, "0");
}
