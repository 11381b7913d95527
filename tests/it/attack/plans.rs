//! Statements whose columns were described, and DDL afterwards: the client is told an error, as by the server, and never
//! values of another type.

use crate::support::{RawClient, Site, error_code, values};

const TABLE: &str = "SET ROLE app; CREATE TABLE w (a int); INSERT INTO w VALUES (1)";

/// What the described statement answers when so many connections are held by others.
async fn after_ddl(site: &Site, holders: usize, described_in: &str) -> (Option<String>, Vec<String>) {
    let mut owner = site.client().await;
    owner.ask("DROP TABLE IF EXISTS w; CREATE TABLE w (a int); INSERT INTO w VALUES (1)").await;
    let mut client = site.client().await;
    client.ask(described_in).await;
    client.parse("s", "SELECT a FROM w").describe(b'S', "s");
    assert_eq!(error_code(&client.finish().await), None);
    client.bind("", "s", &[]).execute("", 0);
    assert_eq!(values(&client.finish().await), ["1"]);
    if !described_in.is_empty() {
        client.ask("COMMIT").await;
    }
    owner.ask("ALTER TABLE w ALTER a TYPE text USING 'ABCD'").await;
    let mut held = Vec::new();
    for _ in 0..holders {
        let mut holder = site.client().await;
        holder.ask("BEGIN").await;
        holder.ask("LOCK TABLE pg_class IN ACCESS SHARE MODE").await;
        held.push(holder);
    }
    client.bind("", "s", &[]).execute("", 0);
    let answer = client.finish().await;
    for mut holder in held {
        holder.ask("ROLLBACK").await;
        holder.terminate().await;
    }
    let code = error_code(&answer);
    assert_ne!(code.as_deref(), Some("53300"), "{answer:?}");
    (code, values(&answer))
}

#[tokio::test]
async fn a_described_column_is_never_answered_with_another_type() {
    let site = Site::with_objects(TABLE, 4).await;
    let mut wrong = Vec::new();
    for described_in in ["", "BEGIN"] {
        for holders in 0..4 {
            for round in 0..2 {
                let (code, seen) = after_ddl(&site, holders, described_in).await;
                if code.as_deref() != Some("0A000") || !seen.is_empty() {
                    wrong.push(format!("{holders} held, {described_in:?}, round {round}: {code:?} {seen:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Two sessions parse one text, one of them under a path or in a transaction where it means another thing.
#[tokio::test]
async fn one_text_that_means_two_things_is_two_statements() {
    let objects = "SET ROLE app; CREATE SCHEMA one; CREATE SCHEMA two; \
        CREATE TABLE one.t AS SELECT 'one'::text AS v; CREATE TABLE two.t AS SELECT 2 AS v; CREATE TABLE t (v bool); \
        INSERT INTO t VALUES (true)";
    let site = Site::with_objects(objects, 1).await;
    let mut wrong = Vec::new();
    for round in 0..4 {
        for path in ["one", "two", "public"] {
            let expected = match path {
                "one" => "one",
                "two" => "2",
                _ => "t",
            };
            let mut client = site.client().await;
            client.ask("BEGIN").await;
            client.ask(&format!("SET LOCAL search_path = {path}")).await;
            client.parse("s", "SELECT v FROM t").describe(b'S', "s").bind("", "s", &[]).execute("", 0);
            let answer = client.finish().await;
            if values(&answer) != [expected] {
                wrong.push(format!("round {round}, {path}: {:?} {:?}", error_code(&answer), values(&answer)));
            }
            client.ask("COMMIT").await;
            client.terminate().await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A fresh Parse of a known text means what it means now, not what it meant when it was parsed first.
#[tokio::test]
async fn a_fresh_parse_never_meets_an_old_plan() {
    let site = Site::with_objects(TABLE, 2).await;
    let run = async |client: &mut RawClient, name: &str| {
        client.parse(name, "SELECT * FROM w").describe(b'S', name).bind("", name, &[]).execute("", 0);
        let answer = client.finish().await;
        (error_code(&answer), values(&answer).len())
    };
    let mut first = site.client().await;
    assert_eq!(run(&mut first, "s").await, (None, 1));
    // Past the proxy, then in a transaction of one's own.
    site.primary.query("ALTER TABLE w ADD b int").await;
    let mut second = site.client().await;
    assert_eq!(run(&mut second, "s").await, (None, 2), "in a new session");
    second.ask("BEGIN").await;
    second.ask("ALTER TABLE w ADD c int").await;
    assert_eq!(run(&mut second, "other").await, (None, 3), "in the transaction that has changed the table");
    second.ask("ROLLBACK").await;
    assert_eq!(run(&mut second, "third").await, (None, 2), "after its end");
}
