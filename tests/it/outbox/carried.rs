//! Jobs that a transaction adds on their own server first: what is carried over to the primary, and relayed from there, is
//! what was written, whatever the session has set; and what the session cannot see is not taken for absent.

use super::{LONG, Yard, functions::say};
use crate::support::{RawClient, error_of, eventually, short};

const ITEM: &str = "INSERT INTO items VALUES ('a')";

const COUNT: &str = "SELECT count(*) FROM oban_jobs";

/// The columns that are added, and a value of each.
const VALUES: [(&str, &str, &str); 8] = [
    ("\"a, b\"", "text", "'it''s \\ \"odd\"'"),
    ("binary_json", "jsonb", "'null'"),
    ("plain_json", "json", "'{\"b\":  1, \"a\": 1e400000, \"a\": \"\\u0000\"}'"),
    ("f8", "float8", "0.1::float8 + 0.2"),
    ("spans", "interval[]", "'{-1 day +02:03:04.000005,NULL}'::text::interval[]"),
    ("grid", "int[]", "'[2:3][-1:0]={{1,NULL},{3,4}}'"),
    ("bits", "bit(5)", "B'10101'"),
    ("at", "timestamptz[]", "'{infinity,2020-03-29 01:30:00.123456+01}'::text::timestamptz[]"),
];

const SETTINGS: [&str; 5] = [
    "SET DateStyle = 'SQL, DMY'",
    "SET IntervalStyle = 'sql_standard'",
    "SET extra_float_digits = -15",
    "SET bytea_output = 'escape'",
    "SET TimeZone = 'Asia/Kathmandu'",
];

async fn yard() -> Yard {
    let yard = Yard::start().await;
    yard.primary.query("SET ROLE app; CREATE TABLE items (name text)").await;
    yard
}

#[tokio::test]
async fn values_that_are_carried_over_stay_what_they_are() {
    let yard = yard().await;
    let add = VALUES.map(|(name, kind, _)| format!("ADD {name} {kind}")).join(", ");
    for server in [&yard.primary, &yard.jobs] {
        server.query(&format!("ALTER TABLE oban_jobs {add}")).await;
    }
    let proxy = yard.bulkhead(&yard.config().set("auth", "method", "trust")).await;
    let columns = VALUES.map(|(name, ..)| name).join(", ");
    let values = VALUES.map(|(.., value)| value).join(", ");
    let insert =
        |worker: &str| format!("INSERT INTO oban_jobs (worker, {columns}) VALUES ('{worker}', {values})");
    let mut client = RawClient::app(proxy.port()).await;
    say(&mut client, &SETTINGS).await;
    say(&mut client, &["BEGIN", &insert("carried")]).await;
    for sql in [ITEM, "COMMIT"] {
        let answer = client.ask(sql).await;
        assert_eq!(error_of(&answer), None, "{sql}");
        assert!(
            answer.iter().all(|message| message.tag != b'S'),
            "settings of ours are not told: {answer:?}"
        );
    }
    yard.wait_until_empty().await;
    yard.jobs.query(&insert("direct")).await;
    let read = |worker: &str| format!("SELECT ROW({columns})::text FROM oban_jobs WHERE worker = '{worker}'");
    let direct = yard.jobs.value(&read("direct")).await;
    eventually("it comes", LONG, async || {
        let carried = yard.jobs.value(&read("carried")).await;
        (!carried.is_empty()).then(|| assert_eq!(carried, direct))
    })
    .await;
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "1");
    // What the session has set holds on.
    for (name, value) in
        [("extra_float_digits", "-15"), ("DateStyle", "SQL, DMY"), ("bytea_output", "escape")]
    {
        for sql in ["SELECT 1", COUNT] {
            say(&mut client, &[sql]).await;
            assert_eq!(say(&mut client, &[&format!("SHOW {name}")]).await, [value]);
        }
    }
}

/// Policies may hide from a user what it has added itself.
#[tokio::test]
async fn jobs_that_policies_hide_are_not_left_out() {
    let yard = yard().await;
    let proxy = yard.bulkhead(&yard.config().set("auth", "method", "trust")).await;
    yard.jobs
        .query(
            "ALTER TABLE oban_jobs ENABLE ROW LEVEL SECURITY; ALTER TABLE oban_jobs FORCE ROW LEVEL SECURITY; \
             CREATE POLICY add_only ON oban_jobs FOR INSERT WITH CHECK (true)",
        )
        .await;
    let mut client = RawClient::app(proxy.port()).await;
    say(&mut client, &["BEGIN", "INSERT INTO oban_jobs (worker) VALUES ('hidden')"]).await;
    let [code, message, _] = error_of(&client.ask(ITEM).await).expect("it is refused");
    assert_eq!(code, "0A000", "{message}");
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "0");
    // The relay is told that it may not see all; so it brings nothing, and says why.
    say(&mut client, &["BEGIN", ITEM, "INSERT INTO oban_jobs (worker) VALUES ('waits')", "COMMIT"]).await;
    proxy.wait_for_log("row-level security").await;
    yard.jobs.query("ALTER TABLE oban_jobs DISABLE ROW LEVEL SECURITY").await;
    yard.wait_until_empty().await;
    eventually("it comes", LONG, async || yard.arrivals().await.contains_key("waits").then_some(())).await;
}

/// A request that adds jobs and names the application's tables goes where these are, although jobs were added elsewhere.
#[tokio::test]
async fn jobs_that_come_with_application_tables_follow_them() {
    let yard = yard().await;
    let proxy = yard.bulkhead(&yard.config().set("auth", "method", "trust")).await;
    let mut client = RawClient::app(proxy.port()).await;
    let both = "INSERT INTO oban_jobs (worker) VALUES ('second'); SELECT count(*) FROM items";
    let script =
        ["BEGIN", "INSERT INTO oban_jobs (worker) VALUES ('first')", "SELECT count(*) FROM items", both];
    say(&mut client, &script).await;
    say(&mut client, &[ITEM, "COMMIT"]).await;
    yard.wait_until_empty().await;
    let arrived =
        async || (yard.arrivals().await.into_keys().collect::<Vec<_>>() == ["first", "second"]).then_some(());
    eventually("both come", LONG, arrived).await;
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "1");
}
