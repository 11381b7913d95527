//! `bulkhead jobs undo` neither loses nor strands a job that was committed.

use std::collections::BTreeMap;

use super::{LONG, Yard, bulkhead, enqueue};
use crate::support::eventually;

const INSTALLED: &str = "SELECT count(*) FROM pg_namespace WHERE nspname = 'bulkhead'";

fn once(names: impl IntoIterator<Item = String>) -> BTreeMap<String, u64> {
    names.into_iter().map(|name| (name, 1)).collect()
}

async fn expect_installed(yard: &Yard, count: &str) {
    assert_eq!([yard.primary.value(INSTALLED).await, yard.jobs.value(INSTALLED).await], [count; 2]);
}

/// As the configuration without an outbox leaves it that was loaded before.
#[tokio::test]
async fn undo_moves_what_waits_where_nobody_does() {
    let yard = Yard::start().await;
    yard.primary.query("INSERT INTO oban_jobs (worker) SELECT 'w' || n FROM generate_series(1, 250) n").await;
    let config = yard.config().set("jobs", "outbox", false).set("jobs", "outbox_batch", 100);
    let (code, text) = bulkhead(&config, &["jobs", "undo", "--dry-run"]);
    assert_eq!((code, yard.waiting().await.as_str()), (Some(0), "250"), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("moved to the job database before: 250 rows\n"), "{text}");
    assert_eq!(yard.waiting().await, "0");
    assert_eq!(yard.arrivals().await, once((1..=250).map(|n| format!("w{n}"))));
    expect_installed(&yard, "0").await;
}

#[tokio::test]
async fn undo_waits_for_a_relay_and_for_transactions_that_have_added_jobs() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    let client = yard.primary.admin().await;
    client.batch_execute("BEGIN").await.expect("it begins");
    enqueue(&client, "late").await;
    let config = yard.config();
    let undoing = tokio::task::spawn_blocking(move || bulkhead(&config, &["jobs", "undo"]));
    let locks = "SELECT count(*) FROM pg_locks WHERE relation = 'oban_jobs'::regclass AND NOT granted";
    eventually("it waits for the table", LONG, async || {
        (yard.primary.value(locks).await == "1").then_some(())
    })
    .await;
    client.batch_execute("COMMIT").await.expect("it commits");
    let (code, text) = undoing.await.expect("it does not panic");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((yard.waiting().await.as_str(), yard.arrivals().await), ("0", once(["late".to_owned()])));
    expect_installed(&yard, "0").await;
    drop(proxy);
}

#[tokio::test]
async fn undo_takes_nothing_away_while_a_job_is_refused() {
    let yard = Yard::start().await;
    yard.jobs.query("ALTER TABLE oban_jobs ADD CHECK (worker <> 'bad')").await;
    let admin = yard.primary.admin().await;
    for worker in ["good", "bad", "fine"] {
        enqueue(&admin, worker).await;
    }
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("bulkhead.refused has rows on the primary: 1 job,"), "{text}");
    assert_eq!(yard.arrivals().await, once(["good".to_owned(), "fine".to_owned()]));
    let kept = "SELECT string_agg(row ->> 'worker', ' ') FROM bulkhead.refused";
    assert_eq!(yard.primary.value(kept).await, "bad");
    expect_installed(&yard, "1").await;
    yard.primary.query("DELETE FROM bulkhead.refused").await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test]
async fn undo_names_what_it_cannot_move() {
    let yard = Yard::start().await;
    let admin = yard.primary.admin().await;
    for worker in ["one", "two"] {
        enqueue(&admin, worker).await;
    }
    // Both sides are not alike.
    yard.jobs.query("ALTER TABLE oban_jobs RENAME COLUMN worker TO other").await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!(code, Some(64), "{text}");
    for part in ["public.oban_jobs has rows that wait on the primary: 2 rows", "oban_jobs.worker is missing"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    yard.jobs.query("ALTER TABLE oban_jobs RENAME COLUMN other TO worker").await;
    // The table is none of this configuration's.
    let (code, text) = bulkhead(&yard.config().set("jobs", "presets", vec!["que"]), &["jobs", "undo"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("public.oban_jobs was installed") && text.contains("jobs.presets"), "{text}");
    assert_eq!(yard.waiting().await, "2");
    expect_installed(&yard, "1").await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!((code, yard.waiting().await.as_str()), (Some(0), "0"), "{text}");
}

/// Somebody adds a job before an instance has found out.
#[tokio::test]
async fn undo_tells_of_jobs_that_came_behind_it() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    yard.primary
        .query(
            "CREATE FUNCTION late() RETURNS event_trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.oban_jobs (worker) VALUES ('late'); END $$;
             CREATE EVENT TRIGGER late ON ddl_command_end WHEN TAG IN ('DROP SCHEMA') EXECUTE FUNCTION late()",
        )
        .await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("behind it, to public.oban_jobs: write outbox = false"), "{text}");
    drop(proxy);
    yard.primary.query("DROP EVENT TRIGGER late").await;
    for (arguments, waiting) in [(&["jobs", "init", "--with-rows"][..], "1"), (&["jobs", "undo"], "0")] {
        let (code, text) = bulkhead(&yard.config(), arguments);
        assert_eq!((code, yard.waiting().await.as_str()), (Some(0), waiting), "{text}");
    }
    assert_eq!(yard.arrivals().await, once(["late".to_owned()]));
    expect_installed(&yard, "0").await;
}
