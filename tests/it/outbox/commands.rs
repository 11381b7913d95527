//! `bulkhead jobs`: what it says and does, and that it leaves nothing behind.

use super::{Yard, bulkhead, enqueue};
use crate::support::{Postgres, ProxyConfig, Role, oban};

/// Everything that an outbox adds to a server or changes there.
const TRACES: &str = "SELECT nspname FROM pg_namespace WHERE nspname = 'bulkhead' \
    UNION ALL SELECT seqrelid::regclass || ' by ' || seqincrement FROM pg_sequence";

async fn traces(yard: &Yard) -> [Vec<Vec<Option<String>>>; 2] {
    [yard.primary.query(TRACES).await, yard.jobs.query(TRACES).await]
}

#[tokio::test]
async fn installing_twice_does_it_once_and_undo_leaves_nothing() {
    let yard = Yard::bare();
    oban::install(&yard.primary).await;
    oban::install(&yard.jobs).await;
    let config = yard.config();
    let before = traces(&yard).await;
    let (code, planned) = bulkhead(&config, &["jobs", "plan"]);
    assert_eq!(code, Some(0), "{planned}");
    let (code, text) = bulkhead(&config, &["jobs", "init", "--dry-run"]);
    assert_eq!((code, &text), (Some(0), &planned));
    assert_eq!(traces(&yard).await, before, "a plan changes nothing");

    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    // Exactly what was planned.
    assert!(text.starts_with(&planned), "{text}\n{planned}");
    for part in ["-- On the primary", "-- On the job database", "INCREMENT BY 2", "bulkhead.relayed", "GRANT"]
    {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    let installed = traces(&yard).await;
    assert_ne!(installed, before);
    let (code, text) = bulkhead(&config, &["jobs", "init"]);
    assert!(code == Some(0) && text.starts_with("nothing is to be done"), "{text}");
    assert_eq!(traces(&yard).await, installed);

    // The plan's text does the same by hand.
    let (code, text) = bulkhead(&config, &["jobs", "undo", "--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(traces(&yard).await, installed);
    let (code, text) = bulkhead(&config, &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(traces(&yard).await, before);
    for (side, server) in [("-- On the primary", &yard.primary), ("-- On the job database", &yard.jobs)] {
        let part = planned
            .split("-- On ")
            .skip(1)
            .find(|part| side.ends_with(part.split('.').next().unwrap_or_default()));
        let sql = part.and_then(|part| part.split_once('\n')).expect("a part for each side").1;
        server.query(sql).await;
    }
    assert_eq!(traces(&yard).await, installed);
}

#[tokio::test]
async fn init_refuses_rows_that_were_there_before() {
    let yard = Yard::bare();
    oban::install(&yard.primary).await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "init"]);
    assert!(code == Some(64) && text.contains("public.oban_jobs is on the primary, and missing"), "{text}");
    oban::install(&yard.jobs).await;
    yard.primary.query("INSERT INTO oban_jobs (id, worker) VALUES (123456, 'old')").await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "init"]);
    assert!(code == Some(64) && text.contains("--with-rows"), "{text}");
    let (code, text) = bulkhead(&yard.config(), &["jobs", "init", "--with-rows"]);
    assert_eq!(code, Some(0), "{text}");
    // Above every number that there is.
    let last = |server: &Postgres| server.url(crate::support::Login::Admin);
    assert_ne!(last(&yard.primary), last(&yard.jobs));
    let next = "SELECT nextval('oban_jobs_id_seq')";
    let (here, there) = (yard.primary.value(next).await, yard.jobs.value(next).await);
    let [here, there] = [here, there].map(|number| number.parse::<i64>().expect("a number"));
    assert!(here > 123_456 && here % 2 == 1, "{here}");
    assert!(there > 123_456 && there % 2 == 0, "{there}");
}

#[tokio::test]
async fn status_and_verify_tell_what_is_wrong() {
    let yard = Yard::start().await;
    let config = yard.config();
    let (code, text) = bulkhead(&config, &["jobs", "verify"]);
    // The test's own trigger is no column, index or constraint.
    assert!(code == Some(0) && text.starts_with("both sides are alike"), "{text}");
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains("relayed by   nobody"), "{text}");

    let proxy = yard.bulkhead(&config).await;
    enqueue(&yard.primary.admin().await, "w").await;
    yard.wait_until_empty().await;
    let (code, text) = bulkhead(&config, &["jobs", "status"]);
    assert!(code == Some(0) && text.contains("relayed by   process"), "{text}");
    let line = text.lines().find(|line| line.starts_with("public.oban_jobs")).expect("a line for the table");
    let fields: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(fields, ["public.oban_jobs", "0", "-", "1", "0", "0"], "{text}");

    yard.jobs.query("ALTER TABLE oban_jobs ALTER COLUMN queue TYPE varchar(9), ADD COLUMN more text").await;
    yard.primary.query("ALTER TYPE oban_job_state ADD VALUE 'odd'; COMMENT ON TABLE oban_jobs IS '12'").await;
    let (code, text) = bulkhead(&config, &["jobs", "verify"]);
    assert_eq!(code, Some(64), "{text}");
    for part in [
        "public.oban_jobs.queue is text on the primary and character varying(9) in the job database",
        "public.oban_jobs: column more: text in the job database only",
        "public.oban_jobs: comment: 12 on the primary only",
        "cancelled, odd on the primary",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    drop(proxy);
}

#[tokio::test]
async fn without_an_installation_nothing_is_ready_and_with_it_all_is() {
    let yard = Yard::bare();
    oban::install(&yard.primary).await;
    oban::install(&yard.jobs).await;
    let proxy = crate::support::Proxy::start(&yard.config().to_toml());
    proxy.wait_for_log("run `bulkhead jobs init`").await;
    assert_eq!(proxy.metric("bulkhead_outbox_ready").await, Some(0.0));
    let (code, text) = bulkhead(&yard.config(), &["jobs", "init"]);
    assert_eq!(code, Some(0), "{text}");
    proxy.wait_for_metric("bulkhead_outbox_ready", 1.0).await;
    let (code, text) = bulkhead(&yard.config(), &["jobs", "undo"]);
    assert_eq!(code, Some(0), "{text}");
    proxy.wait_for_metric("bulkhead_outbox_ready", 0.0).await;
}

#[tokio::test]
async fn a_job_database_on_the_primary_needs_no_outbox() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("jobs", &["primary"], 5).set(
        "jobs",
        "presets",
        vec!["oban"],
    );
    let (code, text) = bulkhead(&config, &["jobs", "plan"]);
    assert!(code == Some(64) && text.contains("pools.jobs is not on another server"), "{text}");
    let (code, text) = bulkhead(&config.set("jobs", "outbox", true), &["check"]);
    assert!(code == Some(64) && text.contains("jobs.outbox: needs pools.jobs on another server"), "{text}");
}
