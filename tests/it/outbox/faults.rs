//! Whose fault an error is: a row whose values are refused is set aside, whatever else keeps a table's rows lets them wait,
//! is told of, and keeps no other table's.

use super::{
    LONG, Yard, bulkhead,
    hostile::{config_of_two, init, yard_of_two},
};
use crate::support::{Postgres, Proxy, eventually};

/// The relay's connections.
const RELAYS: &str = "SELECT string_agg(pid || ' ' || backend_start, ', ') FROM pg_stat_activity \
    WHERE application_name = 'bulkhead outbox'";

async fn good_jobs_come(yard: &Yard, count: &str) {
    let came = "SELECT count(*) FROM good_jobs";
    eventually("good_job's come", LONG, async || (yard.jobs.value(came).await == count).then_some(())).await;
}

#[tokio::test]
async fn a_value_that_an_index_cannot_hold_is_set_aside() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs.query("CREATE INDEX ON good_jobs (queue_name)").await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    let long = "SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) AS n";
    yard.primary.query(&format!("INSERT INTO good_jobs (queue_name) VALUES (({long})), ('q')")).await;
    good_jobs_come(&yard, "1").await;
    let aside = "SELECT string_agg(error, ' ') FROM bulkhead.refused";
    let error = eventually("it is set aside", LONG, async || {
        Some(yard.primary.value(aside).await).filter(|error| !error.is_empty())
    })
    .await;
    assert!(error.contains("(54000)"), "{error}");
    drop(proxy);
}

/// PostgreSQL calls it a data exception.
#[tokio::test]
async fn a_sequence_without_further_numbers_is_no_row_s_fault() {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    yard.jobs
        .query(
            "SET ROLE app; CREATE SEQUENCE few MAXVALUE 2; SELECT setval('few', 2); \
             CREATE FUNCTION number() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             PERFORM nextval('few'); RETURN NEW; END $$; \
             CREATE TRIGGER number BEFORE INSERT ON good_jobs FOR EACH ROW EXECUTE FUNCTION number()",
        )
        .await;
    init(&config);
    let proxy = yard.bulkhead(&config).await;
    yard.primary.query("INSERT INTO good_jobs (queue_name) VALUES ('q')").await;
    proxy.wait_for_log("reached maximum value of sequence").await;
    yard.primary.query("INSERT INTO oban_jobs (worker) VALUES ('w')").await;
    eventually("the other table's come", LONG, async || (yard.arrivals().await.len() == 1).then_some(()))
        .await;
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains("reached maximum value of sequence \"few\""), "{text}");
    yard.jobs.query("ALTER SEQUENCE few MAXVALUE 100").await;
    good_jobs_come(&yard, "1").await;
    assert_eq!(yard.primary.value("SELECT count(*) FROM bulkhead.refused").await, "0");
}

/// Somebody has good_job's table locked at one of the servers, from before the relay begins.
async fn a_lock_keeps_no_other_table_waiting(at: impl Fn(&Yard) -> &Postgres, mode: &str) {
    let yard = yard_of_two().await;
    let config = config_of_two(&yard);
    init(&config);
    yard.primary.query("INSERT INTO good_jobs (queue_name) VALUES ('q')").await;
    let holder = at(&yard).admin().await;
    holder.batch_execute(&format!("BEGIN; LOCK TABLE good_jobs IN {mode} MODE")).await.expect("it can");
    let proxy = Proxy::start(&config.to_toml());
    yard.wait_for_leader().await;
    let relays = [yard.primary.value(RELAYS).await, yard.jobs.value(RELAYS).await];
    proxy.wait_for_log("public.good_jobs waits: ").await;
    for n in 1..=10 {
        yard.primary.query(&format!("INSERT INTO oban_jobs (worker) VALUES ('w {n}')")).await;
        eventually("the other table's come", LONG, async || (yard.arrivals().await.len() == n).then_some(()))
            .await;
    }
    // By the same connections.
    assert_eq!([yard.primary.value(RELAYS).await, yard.jobs.value(RELAYS).await], relays);
    let told = yard.primary.value("SELECT last_error FROM bulkhead.outbox LIMIT 1").await;
    assert!(told.contains("public.good_jobs waits: ") && told.contains("55P03"), "{told}");
    holder.batch_execute("COMMIT").await.expect("it can");
    good_jobs_come(&yard, "1").await;
    proxy.wait_for_log("jobs are moved from the primary to the job database again").await;
}

/// As `CREATE INDEX` does: rows can be counted.
#[tokio::test]
async fn a_table_that_nobody_may_write_to_on_the_primary_keeps_no_other_waiting() {
    a_lock_keeps_no_other_table_waiting(|yard| &yard.primary, "SHARE").await;
}

#[tokio::test]
async fn a_table_that_nobody_may_read_on_the_primary_keeps_no_other_waiting() {
    a_lock_keeps_no_other_table_waiting(|yard| &yard.primary, "ACCESS EXCLUSIVE").await;
}

#[tokio::test]
async fn a_table_that_is_locked_in_the_job_database_keeps_no_other_waiting() {
    a_lock_keeps_no_other_table_waiting(|yard| &yard.jobs, "ACCESS EXCLUSIVE").await;
}
