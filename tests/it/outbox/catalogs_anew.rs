//! Migrations right behind a definition of job objects, while nothing is known of the catalog until it has been read again: what
//! they ask counts as what it is.

use std::time::Duration;

use super::starters::bare_config;
use crate::support::{Proxy, RawClient, error_code, error_of};

const ROUNDS: usize = 6;

const CREATE: &str = "CREATE TABLE oban_jobs (n int)";
const DROP: &str = "DROP TABLE oban_jobs";
const LOOK: &str = "SELECT to_regclass('oban_jobs')";
const VERSION: &str = "INSERT INTO schema_migrations VALUES (1)";

#[tokio::test]
async fn a_migration_behind_a_drop_is_not_refused_for_what_it_asks() {
    let (yard, config) = bare_config().await;
    yard.primary.query("CREATE TABLE schema_migrations (n int); GRANT ALL ON schema_migrations TO app").await;
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    for round in 0..ROUNDS {
        for script in [
            // It is asked before the application's rows are written, and behind that.
            ["BEGIN", LOOK, CREATE, VERSION, "COMMIT"],
            ["BEGIN", VERSION, LOOK, CREATE, "COMMIT"],
            ["BEGIN", VERSION, "SELECT count(*) FROM oban_jobs WHERE abs(n) > 1", "SELECT 1", "COMMIT"],
            ["BEGIN", LOOK, VERSION, "SELECT 1", "COMMIT"],
        ] {
            let has_table = !script.contains(&CREATE);
            let before = if has_table { [CREATE, "ALTER TABLE oban_jobs ADD m int"] } else { [CREATE, DROP] };
            for sql in before.into_iter().chain(script) {
                let answer = if round % 2 == 0 {
                    client.ask(sql).await
                } else {
                    client.parse("", sql).bind("", "", &[]).execute("", 0).sync().flush().await;
                    client.read_until_ready().await
                };
                assert_eq!(error_of(&answer), None, "{sql} of {script:?}, round {round}");
            }
            assert_eq!(error_of(&client.ask(DROP).await), None);
        }
    }
}

/// What waits until the catalog is known can be cancelled: it has not begun, and its transaction has failed.
#[tokio::test]
async fn a_request_that_waits_for_the_catalog_can_be_cancelled() {
    let (yard, config) = bare_config().await;
    yard.primary.query("CREATE TABLE schema_migrations (n int); GRANT ALL ON schema_migrations TO app").await;
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(error_of(&client.ask(CREATE).await), None);
    // Nobody needs this table but who reads the whole catalog.
    let admin = yard.primary.admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE pg_foreign_table").await.expect("a superuser may");
    for sql in [DROP, "BEGIN", VERSION] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
    client.query(LOOK).await;
    let (pid, secret) = client.key().clone();
    while tokio::time::timeout(Duration::from_millis(50), client.peek()).await.is_err() {
        RawClient::cancel(proxy.port(), pid, &secret).await;
    }
    let [code, ..] = client.read_error().await.expect("it is cancelled");
    assert_eq!(code, "57014");
    assert_eq!(error_code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"));
    assert_eq!(error_of(&client.ask("ROLLBACK").await), None);
    admin.batch_execute("COMMIT").await.expect("it was open");
    assert_eq!(yard.primary.value("SELECT count(*) FROM schema_migrations").await, "0");
    for sql in ["BEGIN", VERSION, LOOK, "COMMIT"] {
        assert_eq!(error_of(&client.ask(sql).await), None, "{sql}");
    }
}
