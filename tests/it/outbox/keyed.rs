//! graphile-worker's jobs with a `job_key`: what such a call does depends on the jobs that are there, so it is noted in the
//! application's transaction, and made in the job database.

use std::time::Duration;

use super::{
    LONG, Yard, bulkhead,
    functions::{install_graphile, say, texts},
};
use crate::support::{Postgres, Proxy, Random, RawClient, Role, error_of, eventually, short, values};

const ITEM: &str = "INSERT INTO items VALUES (gen_random_uuid()::text)";
const CALLS: &str = "SELECT count(*) FROM bulkhead.calls_of_graphile_worker";

/// All that a job is, but for its number and its times.
const STATE: &str = "SELECT task_identifier, coalesce(queue_name, '-'), p.payload, coalesce(j.key, '-'), j.revision, \
    j.priority, j.attempts, j.max_attempts, p.flags, j.locked_at IS NULL, \
    round(extract(epoch FROM j.run_at)) FROM graphile_worker.jobs AS j \
    JOIN graphile_worker._private_jobs AS p USING (id) ORDER BY 4, 3::text, 1, 5";

/// The calls made, of which the last one is in a transaction that is rolled back.
const HISTORY: [&str; 20] = [
    "add_job('a', '{\"n\":  1}', job_key => 'k', run_at => '2040-01-02', priority => 3, flags => ARRAY['x', 'y'])",
    "add_job('b', '{\"n\": 2}', queue_name => 'q', job_key => 'k', run_at => '2040-01-03')",
    "add_job('b', '{\"n\": 3}', job_key => 'k', run_at => '2040-01-04', job_key_mode => 'preserve_run_at', max_attempts => 7)",
    "add_job('c', '{\"n\": 4}', job_key => 'k', run_at => '2040-01-05', job_key_mode => 'unsafe_dedupe')",
    "add_job('c', job_key => 'new', run_at => '2040-01-06', job_key_mode => 'unsafe_dedupe', flags => ARRAY['z'])",
    "add_job('d', 'null', job_key => 'it''s \u{fc}', run_at => '2040-01-06', job_key_mode => NULL)",
    "add_job('e', '[1]', job_key => 'list', run_at => '2040-01-07')",
    "add_job('e', '[2, \"\\u00e4\"]', job_key => 'list', run_at => '2040-01-07')",
    "add_job('e', '[\"\\u0000\", 1e400000,  {\"a\": 1, \"a\": 2}]', job_key => 'odd', run_at => 'infinity')",
    "add_job('plain', '{\"n\": 5}', run_at => '2040-01-08')",
    "add_jobs(ARRAY[('f', '[3]', NULL, '2040-01-09', 3, 'list', 2, ARRAY['w']), ('plain', '{}', 'q', '2040-01-09', \
     NULL, NULL, NULL, NULL), ('g', NULL, 'r', '2040-01-09', NULL, 'g', NULL, NULL)]::graphile_worker.job_spec[])",
    "add_jobs(ARRAY[('g', '{}', 's', '2040-01-10', 4, 'g', -1, NULL)]::graphile_worker.job_spec[], true)",
    // Its worker has begun: the job stays, and another one takes the key.
    "add_job('held', '{\"n\": 6}', job_key => 'held', run_at => '2040-01-11')",
    "LOCK held",
    "add_job('held', '{\"n\": 7}', job_key => 'held', run_at => '2040-01-12')",
    "LOCK new",
    "add_job('c', '{\"n\": 8}', job_key => 'new', run_at => '2040-01-13', job_key_mode => 'unsafe_dedupe')",
    "LOCK k",
    "add_job('a', '{\"n\": 9}', job_key => 'k', run_at => '2040-01-14', job_key_mode => 'preserve_run_at')",
    "add_job('rolled back', job_key => 'k')",
];

/// What a call, or a worker, does at a server that has the jobs.
fn worked(step: &str) -> String {
    step.strip_prefix("LOCK ").map_or_else(
        || format!("SELECT graphile_worker.{step}"),
        |key| {
            format!(
                "UPDATE graphile_worker._private_jobs SET locked_at = now(), attempts = 1 WHERE key = '{key}'"
            )
        },
    )
}

async fn wait_for_calls(yard: &Yard) {
    eventually("all calls were made", LONG, async || (yard.primary.value(CALLS).await == "0").then_some(()))
        .await;
}

#[tokio::test]
async fn calls_with_a_key_do_in_the_end_what_they_do_on_one_server() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.bulkhead(&yard.graphile()).await;
    let one = Postgres::start(Role::Primary);
    install_graphile(&one).await;
    let mut client = RawClient::app(proxy.port()).await;
    for (at, step) in HISTORY.iter().enumerate() {
        let is_last = at + 1 == HISTORY.len();
        if !is_last {
            one.query(&worked(step)).await;
        }
        if step.starts_with("LOCK") {
            yard.jobs.query(&worked(step)).await;
            continue;
        }
        let end = if is_last { "ROLLBACK" } else { "COMMIT" };
        say(&mut client, &["BEGIN", ITEM, "SAVEPOINT s", &worked(step), "ROLLBACK TO s"]).await;
        if !is_last {
            say(&mut client, &[&worked(step)]).await;
        }
        say(&mut client, &[end]).await;
        wait_for_calls(&yard).await;
        yard.wait_until_empty().await;
    }
    assert_eq!(texts(yard.jobs.query(STATE).await), texts(one.query(STATE).await));
    assert_eq!(yard.primary.value("SELECT count(*) FROM graphile_worker._private_jobs").await, "0");
    yard.has_refused_nothing().await;

    // As the library says it. The number is not known: it may come to be another job.
    let call = "SELECT * FROM graphile_worker.add_job(identifier => $1::text, payload => $2::json, job_key => $3::text)";
    say(&mut client, &["BEGIN", ITEM]).await;
    let arguments = [Some("a"), Some("{\"n\":  10}"), Some("by value")];
    client.parse("", call).bind("", "", &arguments).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!(error_of(&answer), None);
    let row = answer.iter().find(|message| message.tag == b'D').expect("a row").columns();
    assert!(row.contains(&Some("by value".to_owned())) && row.contains(&Some("{\"n\":  10}".to_owned())));
    assert_eq!(row[0], None, "{row:?}");
    say(&mut client, &["COMMIT"]).await;
    let came = "SELECT payload, run_at <= now() FROM graphile_worker.jobs JOIN graphile_worker._private_jobs USING (id) \
        WHERE jobs.key = 'by value'";
    let came = came.replace("payload", "_private_jobs.payload").replace("run_at", "jobs.run_at");
    eventually("it came", LONG, async || {
        (texts(yard.jobs.query(&came).await) == [["{\"n\":  10}", "t"]]).then_some(())
    })
    .await;
}

/// Whoever adds a key that an open transaction has added waits for that, as at the library's unique index.
#[tokio::test]
async fn the_last_commit_of_a_key_counts() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.bulkhead(&yard.graphile()).await;
    let (mut first, mut second) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    let call = |n: usize| format!("SELECT graphile_worker.add_job('t', '{{\"n\": {n}}}', job_key => 'k')");
    say(&mut first, &["BEGIN", ITEM, &call(1)]).await;
    say(&mut second, &["BEGIN", ITEM]).await;
    let late = async {
        let answer = second.ask(&call(2)).await;
        assert_eq!(error_of(&answer), None);
        say(&mut second, &["COMMIT"]).await;
    };
    let early = async {
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'";
        eventually("the other one waits", LONG, async || {
            (yard.primary.value(waits).await == "1").then_some(())
        })
        .await;
        say(&mut first, &["COMMIT"]).await;
    };
    tokio::join!(late, early);
    wait_for_calls(&yard).await;
    let state = "SELECT payload, revision FROM graphile_worker._private_jobs";
    eventually("both have come", LONG, async || {
        (texts(yard.jobs.query(state).await) == [["{\"n\": 2}", "1"]]).then_some(())
    })
    .await;
}

/// Two numbers from a name and a key are what an application takes for its own locks.
#[tokio::test]
async fn a_lock_of_the_application_s_own_keeps_no_call_waiting() {
    let yard = Yard::of_graphile().await;
    let holder = yard.primary.admin().await;
    let lock = "SELECT pg_advisory_lock(hashtext('graphile_worker'), hashtext('k')), pg_advisory_lock(hashtext('k')), \
        pg_advisory_lock(hashtextextended('k', 0))";
    holder.batch_execute(lock).await.expect("it can");
    let call = "SET statement_timeout = '5s'; SELECT graphile_worker.add_job('t', job_key => 'k')";
    yard.primary.query(call).await;
    assert_eq!(yard.primary.value(CALLS).await, "1");
}

/// The library appends to a list that waits under the key: so it tells how often each call was made, and in which order.
#[tokio::test]
async fn each_call_is_made_once_and_in_the_order_of_the_commits_though_connections_are_cut() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let yard = Yard::of_graphile().await;
    let proxy = yard.bulkhead(&yard.graphile()).await;
    yard.primary.query("SET ROLE app; CREATE TABLE added (at bigserial, key text, element text)").await;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let mut client = RawClient::app(yard.primary.port()).await;
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(writer as u64 + 1);
            for n in 0..EACH {
                let (key, element) = (random.below(3), format!("{writer}/{n}"));
                let call = format!(
                    "SELECT graphile_worker.add_job('t', '[\"{element}\"]', job_key => 'k {key}', run_at => '2040-01-01')"
                );
                // Behind the call nobody else has the key.
                let note = format!("INSERT INTO added (key, element) VALUES ('k {key}', '{element}')");
                let end = if random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
                say(&mut client, &["BEGIN", &call, &note, end]).await;
            }
        }));
    }
    let mut round = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        round += 1;
        let cut = if round % 2 == 0 { &yard.to_primary } else { &yard.to_jobs };
        cut.cut();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    for task in tasks {
        task.await.expect("no writer fails");
    }
    wait_for_calls(&yard).await;
    let wanted = "SELECT key, jsonb_agg(element ORDER BY at) FROM added GROUP BY key ORDER BY key";
    let found = "SELECT key, payload::jsonb FROM graphile_worker._private_jobs ORDER BY key";
    assert_eq!(texts(yard.jobs.query(found).await), texts(yard.primary.query(wanted).await));
    yard.has_refused_nothing().await;
    drop(proxy);
}

#[tokio::test]
async fn a_call_that_has_to_wait_keeps_no_other_table_waiting() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.bulkhead(&yard.graphile()).await;
    let mut holder = RawClient::app(yard.jobs.port()).await;
    say(&mut holder, &["BEGIN", "SELECT graphile_worker.add_job('t', job_key => 'held')"]).await;
    let mut client = RawClient::app(proxy.port()).await;
    for keyed in ["'first', job_key => 'free'", "'second', job_key => 'held'"] {
        say(&mut client, &["BEGIN", ITEM, &format!("SELECT graphile_worker.add_job({keyed})"), "COMMIT"])
            .await;
    }
    let plain = "SELECT graphile_worker.add_job('plain')";
    let names = "SELECT string_agg(worker, ' ' ORDER BY worker) FROM arrivals";
    say(&mut client, &["BEGIN", ITEM, plain, "COMMIT"]).await;
    for expected in ["first plain", "first plain plain"] {
        eventually("the others come", LONG, async || {
            (yard.jobs.value(names).await == expected).then_some(())
        })
        .await;
        if expected == "first plain" {
            say(&mut client, &["BEGIN", ITEM, plain, "COMMIT"]).await;
        }
    }
    assert_eq!(yard.primary.value(CALLS).await, "1");
    say(&mut holder, &["COMMIT"]).await;
    wait_for_calls(&yard).await;
    let held = "SELECT task_identifier, revision FROM graphile_worker.jobs WHERE key = 'held'";
    assert_eq!(texts(yard.jobs.query(held).await), [["second", "1"]]);
}

#[tokio::test]
async fn calls_that_nobody_may_take_keep_no_other_table_waiting() {
    let yard = Yard::of_graphile().await;
    let calls = "bulkhead.calls_of_graphile_worker";
    yard.primary.query("SELECT graphile_worker.add_job('keyed', job_key => 'k')").await;
    let holder = yard.primary.admin().await;
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {calls} IN SHARE MODE")).await.expect("it can");
    let proxy = yard.bulkhead(&yard.graphile()).await;
    let relays = "SELECT string_agg(pid || ' ' || backend_start, ', ') FROM pg_stat_activity \
        WHERE application_name = 'bulkhead outbox'";
    let before = yard.primary.value(relays).await;
    proxy.wait_for_log(&format!("{calls} waits: ")).await;
    let mut client = RawClient::app(proxy.port()).await;
    for n in 1..=10 {
        say(&mut client, &["BEGIN", ITEM, "SELECT graphile_worker.add_job('plain')", "COMMIT"]).await;
        let count = "SELECT count(*) FROM arrivals WHERE worker = 'plain'";
        eventually("the others come", LONG, async || {
            (yard.jobs.value(count).await == n.to_string()).then_some(())
        })
        .await;
    }
    assert_eq!(yard.primary.value(relays).await, before);
    holder.batch_execute("COMMIT").await.expect("it can");
    let keyed = "SELECT string_agg(key, ' ') FROM graphile_worker.jobs WHERE task_identifier = 'keyed'";
    eventually("it comes", LONG, async || (yard.jobs.value(keyed).await == "k").then_some(())).await;
}

#[tokio::test]
async fn what_cannot_be_made_is_refused_or_set_aside() {
    let yard = Yard::of_graphile().await;
    let proxy = yard.bulkhead(&yard.graphile()).await;
    let mut client = RawClient::app(proxy.port()).await;
    for (call, code) in [
        ("add_job('t', job_key => 'k', job_key_mode => 'other')", "GWBKM"),
        (
            "add_jobs(ARRAY[('t', '{}', NULL, NULL, NULL, 'k', NULL, NULL), ('u', '{}', NULL, NULL, NULL, 'k', \
             NULL, NULL)]::graphile_worker.job_spec[])",
            "21000",
        ),
        ("remove_job('k')", "0A000"),
        ("complete_jobs(ARRAY[2])", "0A000"),
        ("reschedule_jobs(ARRAY[2])", "0A000"),
    ] {
        say(&mut client, &["BEGIN", ITEM]).await;
        let error = error_of(&client.ask(&format!("SELECT graphile_worker.{call}")).await);
        assert_eq!(error.map(|[code, ..]| code).as_deref(), Some(code), "{call}");
        assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I", "{call}");
    }
    // The library's own check, which the job database makes.
    let long = "SELECT graphile_worker.add_job('t', job_key => repeat('k', 600))";
    let fits = "SELECT graphile_worker.add_job('t', job_key => 'k')";
    say(&mut client, &["BEGIN", ITEM, long, fits, "COMMIT"]).await;
    wait_for_calls(&yard).await;
    let refused = "SELECT source_table, error FROM bulkhead.refused";
    let refused = texts(yard.primary.query(refused).await);
    assert!(refused.len() == 1 && refused[0][0] == "bulkhead.calls_of_graphile_worker", "{refused:?}");
    assert!(refused[0][1].contains("check constraint"), "{refused:?}");
    assert_eq!(yard.jobs.value("SELECT string_agg(key, ' ') FROM graphile_worker.jobs").await, "k");
    // Put back once the cause is gone.
    yard.jobs.query("ALTER TABLE graphile_worker._private_jobs DROP CONSTRAINT jobs_key_check").await;
    yard.primary
        .query(
            "INSERT INTO bulkhead.calls_of_graphile_worker (arguments) SELECT (row->'arguments')::json FROM bulkhead.refused; \
             DELETE FROM bulkhead.refused",
        )
        .await;
    let lengths = "SELECT string_agg(length(key)::text, ' ' ORDER BY length(key)) FROM graphile_worker.jobs";
    eventually("it comes", LONG, async || (yard.jobs.value(lengths).await == "1 600").then_some(())).await;
}

/// A migration of the library puts its own functions back into their places.
#[tokio::test]
async fn functions_that_were_made_anew_are_refused_by_the_table_until_init() {
    let yard = Yard::of_graphile().await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    let definition = "SELECT pg_get_functiondef(to_regproc('graphile_worker.add_jobs'))";
    let own = yard.jobs.value(definition).await;
    yard.primary.query(&format!("SET ROLE app; {own}")).await;
    let proxy: Proxy = yard.bulkhead(&yard.graphile()).await;
    let mut client = RawClient::app(proxy.port()).await;
    let call = "SELECT graphile_worker.add_job('t', job_key => 'k')";
    say(&mut client, &["BEGIN", ITEM]).await;
    let [code, message, hint] = error_of(&client.ask(call).await).expect("it is refused");
    assert!(code == "0A000" && message.contains("a job with a key"), "{code} {message}");
    assert!(hint.contains("run bulkhead jobs init again"), "{hint}");
    say(&mut client, &["ROLLBACK"]).await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "init"]);
    assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
    assert_eq!(values(&client.ask("SELECT 1").await), ["1"]);
    say(&mut client, &["BEGIN", ITEM, call, "COMMIT"]).await;
    wait_for_calls(&yard).await;
    assert_eq!(yard.jobs.value("SELECT key FROM graphile_worker.jobs").await, "k");
    yard.primary.query(&format!("SET ROLE app; {own}")).await;
    let (code, text) = bulkhead(&yard.graphile(), &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(yard.primary.value(definition).await, own);
    let left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'bulkhead%'";
    assert_eq!(yard.primary.value(left).await, "0");
}
