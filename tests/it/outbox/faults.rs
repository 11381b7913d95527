//! Whose fault an error is: a row whose values are refused is set aside, whatever else keeps a table's rows lets them wait,
//! is told of, and keeps no other table's.

use super::{
    LONG, Yard, bulkhead,
    hostile::{config_of_two, init, yard_of_two},
};
use crate::support::eventually;

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
