//! What becomes of rows: those that are rolled back, refused, already there, or waiting for a server that is away.

use super::{LONG, Yard, enqueue};
use crate::support::{Proxy, RawClient, Stop, eventually};

#[tokio::test]
async fn committed_jobs_come_and_others_never() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    let mut client = yard.primary.admin().await;
    for number in 0..50 {
        let transaction = client.transaction().await.expect("a transaction");
        let sql = "INSERT INTO oban_jobs (worker, args) VALUES ($1, '{\"a\": \"tab\\t, \\\\ and \\n\"}')";
        let worker = if number % 2 == 0 { format!("kept {number}") } else { format!("undone {number}") };
        transaction.execute(sql, &[&worker]).await.expect("a job can be written");
        if number % 2 == 0 {
            transaction.commit().await.expect("it commits");
        } else {
            transaction.rollback().await.expect("it is undone");
        }
    }
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    assert_eq!(arrivals.len(), 25, "{arrivals:?}");
    assert!(arrivals.iter().all(|(worker, count)| worker.starts_with("kept") && *count == 1), "{arrivals:?}");
    // As they were written, with numbers of the primary.
    let same = "SELECT count(*) FROM oban_jobs WHERE args->>'a' = E'tab\\t, \\\\ and \\n' AND id % 2 = 1 AND state = 'available'";
    assert_eq!(yard.jobs.value(same).await, "25");
    proxy.wait_for_metric("bulkhead_outbox_relayed_total", 25.0).await;
    proxy.wait_for_metric("bulkhead_outbox_waiting_rows", 0.0).await;
    assert_eq!(yard.jobs.value("SELECT sum(relayed) FROM bulkhead.outbox").await, "25");
    assert_eq!(yard.jobs.value("SELECT count(*) FROM bulkhead.relayed").await, "25");
}

#[tokio::test]
async fn numbers_of_both_sides_never_meet() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    let (here, there) = (yard.primary.admin().await, yard.jobs.admin().await);
    for number in 0..20 {
        enqueue(&here, &format!("here {number}")).await;
        let id = enqueue(&there, &format!("there {number}")).await;
        assert_eq!(id % 2, 0);
    }
    yard.wait_until_empty().await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM oban_jobs").await, "40");
    drop(proxy);
}

#[tokio::test]
async fn workers_hear_of_jobs_that_have_come() {
    let yard = Yard::start().await;
    // Without the trigger that old versions of the library have, the relay has to tell.
    yard.jobs.query("DROP TRIGGER oban_notify ON oban_jobs").await;
    let proxy = yard.bulkhead(&yard.config()).await;
    let mut listener = RawClient::app(yard.jobs.port()).await;
    listener.ask("LISTEN \"public.oban_insert\"").await;
    let client = yard.primary.admin().await;
    client
        .batch_execute(
            "INSERT INTO oban_jobs (worker, queue, state) \
             VALUES ('a', 'mails', 'available'), ('b', 'mails', 'available'), ('c', 'later', 'scheduled')",
        )
        .await
        .expect("jobs can be written");
    let told = listener.read_message().await;
    assert_eq!(told.tag, b'A', "{told:?}");
    let told = String::from_utf8_lossy(&told.body).into_owned();
    assert!(told.contains("public.oban_insert\0{\"queue\" : \"mails\"}\0"), "{told:?}");
    // One for both jobs of a queue, and none for what is not to run yet.
    let rest = listener.ask("SELECT pg_sleep(0.2)").await;
    assert!(rest.iter().all(|message| message.tag != b'A'), "{rest:?}");
    drop(proxy);
}

#[tokio::test]
async fn a_unique_job_that_is_there_already_is_counted() {
    let yard = Yard::start().await;
    for side in [&yard.primary, &yard.jobs] {
        side.query("CREATE UNIQUE INDEX unique_jobs ON oban_jobs ((meta->>'unique')) WHERE meta ? 'unique'")
            .await;
    }
    let unique = "INSERT INTO oban_jobs (worker, meta) VALUES ('one', '{\"unique\": \"x\"}')";
    yard.jobs.query(unique).await;
    let proxy = yard.bulkhead(&yard.config()).await;
    yard.primary.query(unique).await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('other')").await;
    yard.wait_until_empty().await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM oban_jobs WHERE worker = 'one'").await, "1");
    assert_eq!(yard.arrivals().await.get("other"), Some(&1));
    proxy.wait_for_metric("bulkhead_outbox_conflicts_total", 1.0).await;
    proxy.wait_for_metric("bulkhead_outbox_refused_total", 0.0).await;
    assert_eq!(yard.jobs.value("SELECT sum(conflicts) FROM bulkhead.outbox").await, "1");
}

#[tokio::test]
async fn what_is_refused_is_set_aside_and_keeps_nothing_back() {
    let yard = Yard::start().await;
    yard.jobs.query("ALTER TABLE oban_jobs ADD CHECK (queue <> 'forbidden')").await;
    yard.primary.query("ALTER TYPE oban_job_state ADD VALUE 'unheard_of'").await;
    let client = yard.primary.admin().await;
    client
        .batch_execute(
            "INSERT INTO oban_jobs (worker, queue, state) \
             SELECT 'w ' || n, CASE WHEN n IN (7, 60) THEN 'forbidden' ELSE 'default' END, \
             (CASE WHEN n = 30 THEN 'unheard_of' ELSE 'available' END)::oban_job_state \
             FROM generate_series(1, 100) AS n",
        )
        .await
        .expect("jobs can be written");
    let proxy = yard.bulkhead(&yard.config()).await;
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    assert_eq!(arrivals.len(), 97, "{arrivals:?}");
    assert!(arrivals.values().all(|count| *count == 1), "{arrivals:?}");
    proxy.wait_for_metric("bulkhead_outbox_refused_total", 3.0).await;
    let refused = yard.primary.query("SELECT row->>'worker', error FROM bulkhead.refused ORDER BY id").await;
    let refused: Vec<Vec<String>> =
        refused.into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect();
    let workers: Vec<&str> = refused.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(workers, ["w 7", "w 30", "w 60"], "{refused:?}");
    assert!(refused[0][1].contains("violates check constraint"), "{refused:?}");
    assert!(refused[1][1].contains("unheard_of"), "{refused:?}");
    // What is put back when the cause is gone, comes.
    yard.jobs.query("ALTER TABLE oban_jobs DROP CONSTRAINT oban_jobs_queue_check1").await;
    yard.primary
        .query(
            "WITH back AS (DELETE FROM bulkhead.refused WHERE key <> '' AND row->>'worker' = 'w 7' RETURNING row) \
             INSERT INTO oban_jobs SELECT (json_populate_record(NULL::oban_jobs, row)).* FROM back",
        )
        .await;
    yard.wait_until_empty().await;
    assert_eq!(yard.arrivals().await.get("w 7"), Some(&1));
}

#[tokio::test]
async fn a_number_that_is_given_again_is_not_dropped_in_silence() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    let client = yard.primary.admin().await;
    let id = enqueue(&client, "first").await;
    yard.wait_until_empty().await;
    yard.jobs.query("DELETE FROM oban_jobs").await;
    // A primary that has lost its last commits gives the number to another job.
    client
        .execute("INSERT INTO oban_jobs (id, worker) OVERRIDING SYSTEM VALUE VALUES ($1, 'second')", &[&id])
        .await
        .expect("the number is free");
    // And a job of the job database may have a number by mistake.
    yard.jobs.query("INSERT INTO oban_jobs (id, worker) VALUES (77, 'theirs')").await;
    client.execute("INSERT INTO oban_jobs (id, worker) VALUES (77, 'third')", &[]).await.expect("it is free");
    yard.wait_until_empty().await;
    proxy.wait_for_metric("bulkhead_outbox_refused_total", 2.0).await;
    let refused = yard.primary.query("SELECT row->>'worker' FROM bulkhead.refused ORDER BY key").await;
    assert_eq!(refused, [[Some("second".to_owned())], [Some("third".to_owned())]]);
    assert_eq!(yard.arrivals().await.get("second"), None);
}

#[tokio::test]
async fn rows_wait_while_the_job_database_is_away() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config()).await;
    yard.jobs.stop(Stop::Immediate);
    let client = yard.primary.admin().await;
    for number in 0..30 {
        enqueue(&client, &format!("w {number}")).await;
    }
    proxy.wait_for_metric("bulkhead_outbox_waiting_rows", 30.0).await;
    eventually("the oldest has waited for a while", LONG, async || {
        proxy.metric("bulkhead_outbox_lag_seconds").await.filter(|lag| *lag > 0.2)
    })
    .await;
    // Enqueuing goes on.
    assert_eq!(proxy.metric("bulkhead_outbox_ready").await, Some(1.0));
    let (code, text) = super::bulkhead(&yard.config(), &["jobs", "status"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("public.oban_jobs") && text.contains(" 30 ") && text.contains("cannot be reached"),
        "{text}"
    );
    yard.jobs.boot();
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    assert_eq!(arrivals.len(), 30, "{arrivals:?}");
    assert!(arrivals.values().all(|count| *count == 1), "{arrivals:?}");
    proxy.wait_for_metric("bulkhead_outbox_waiting_rows", 0.0).await;
}

#[tokio::test]
async fn a_restarted_bulkhead_is_ready_while_the_job_database_is_away() {
    let yard = Yard::start().await;
    yard.jobs.stop(Stop::Immediate);
    let proxy = Proxy::start(&yard.config().to_toml());
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    yard.jobs.boot();
    yard.wait_for_leader().await;
    enqueue(&yard.primary.admin().await, "w").await;
    yard.wait_until_empty().await;
    assert_eq!(yard.arrivals().await.get("w"), Some(&1));
}

#[tokio::test]
async fn two_instances_move_nothing_twice_and_the_other_one_takes_over() {
    let yard = Yard::start().await;
    let one = yard.bulkhead(&yard.config()).await;
    let other = yard.bulkhead(&yard.config()).await;
    let client = yard.primary.admin().await;
    for number in 0..100 {
        enqueue(&client, &format!("w {number}")).await;
        if number == 50 {
            one.kill();
        }
    }
    yard.wait_until_empty().await;
    let arrivals = yard.arrivals().await;
    assert_eq!(arrivals.len(), 100, "{arrivals:?}");
    assert!(arrivals.values().all(|count| *count == 1), "{arrivals:?}");
    assert!(other.metric("bulkhead_outbox_relayed_total").await.is_some_and(|count| count > 0.0));
}

#[tokio::test]
async fn the_ledger_forgets_what_is_old_and_keeps_what_is_on_the_primary() {
    let yard = Yard::start().await;
    let client = yard.primary.admin().await;
    // As a round leaves it that ended between the two commits, long ago.
    let stuck = enqueue(&client, "stuck").await;
    let proxy = {
        yard.jobs
            .query(&format!(
                "INSERT INTO bulkhead.relayed (source_table, key, digest, relayed_at) \
                 SELECT 'public.oban_jobs', n::text, 0, now() - interval '2 hours' FROM generate_series(1, 5000) AS n \
                 UNION ALL SELECT 'public.oban_jobs', '{stuck}', 0, now() - interval '2 hours' \
                 UNION ALL SELECT 'public.oban_jobs', 'young', 0, now()"
            ))
            .await;
        // The row stays: somebody has it locked.
        let locker = yard.primary.admin().await;
        locker.batch_execute("BEGIN; SELECT FROM oban_jobs FOR UPDATE").await.expect("the row is there");
        let proxy = yard.bulkhead(&yard.config()).await;
        eventually("the old ones are gone", LONG, async || {
            let left =
                yard.jobs.value("SELECT string_agg(key, ' ' ORDER BY key) FROM bulkhead.relayed").await;
            (left == format!("{stuck} young")).then_some(())
        })
        .await;
        proxy
    };
    drop(proxy);
}

#[tokio::test]
async fn what_rows_leave_behind_on_their_way_does_not_pile_up() {
    let yard = Yard::start().await;
    let proxy = yard.bulkhead(&yard.config().set("jobs", "outbox_batch", 50)).await;
    yard.primary
        .query("INSERT INTO oban_jobs (worker) SELECT 'job ' || n FROM generate_series(1, 6000) AS n")
        .await;
    yard.wait_until_empty().await;
    assert_eq!(yard.jobs.value("SELECT count(*) FROM oban_jobs").await, "6000");
    let size = "SELECT pg_relation_size(oid) FROM pg_class WHERE relname = 'bulkhead_stage_0'";
    let bytes: u64 = yard.jobs.value(size).await.parse().expect("the relay has a stage");
    // Of 500 rows and a batch, at most.
    assert!(bytes > 0 && bytes < 200_000, "{bytes} bytes");
    drop(proxy);
}
