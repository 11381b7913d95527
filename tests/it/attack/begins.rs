//! A BEGIN that is held back until the first statement behind it, and what stops it on its way: nothing may run outside
//! of the transaction that the client was told it is in.

use crate::support::{Random, RawClient, Site, error_code, values};

const TABLE: &str = "CREATE TABLE tx (a int); GRANT ALL ON tx TO PUBLIC";

/// A BEGIN with a comment, which takes the server longer than a short one.
fn begin(comment: usize) -> String {
    format!("BEGIN /*{}*/", "x".repeat(comment))
}

/// Rounds of BEGIN, INSERT and ROLLBACK, in each of which something strikes the INSERT and what comes before it.
async fn rounds(count: i32, comment: usize, setting: &str, cancels: bool) {
    let site = Site::with_objects(TABLE, 2).await;
    let port = site.proxy.port();
    let mut random = Random::new(comment as u64 + 1);
    let mut client = site.client().await;
    client.ask(setting).await;
    let (mut struck, mut wrong) = (0, Vec::new());
    for round in 0..count {
        if error_code(&client.ask(&begin(comment)).await).is_some() {
            continue;
        }
        let insert = if cancels { "SELECT pg_backend_pid() FROM pg_sleep(0.002)" } else { "VALUES (1)" };
        client.query(&format!("INSERT INTO tx {insert}")).await;
        let (pid, secret) = client.key().clone();
        let pauses = [random.pause(3), random.pause(3)];
        let cancel = |pause| {
            let secret = secret.clone();
            async move {
                if cancels {
                    tokio::time::sleep(pause).await;
                    RawClient::cancel(port, pid, &secret).await;
                }
            }
        };
        let (answer, (), ()) = tokio::join!(client.read_until_ready(), cancel(pauses[0]), cancel(pauses[1]));
        let status = answer.last().and_then(|ready| ready.body.first().copied()).unwrap_or_default();
        let expected = if error_code(&answer).is_some() { b'E' } else { b'T' };
        struck += i32::from(error_code(&answer).is_some());
        if status != expected {
            wrong.push(format!("round {round}: {} and {:?}", char::from(status), error_code(&answer)));
        }
        // A late cancel may strike the ROLLBACK.
        for _ in 0..10 {
            let answer = client.ask("ROLLBACK").await;
            if answer.last().is_some_and(|ready| ready.body.first() == Some(&b'I')) {
                break;
            }
        }
    }
    let kept = site.primary.value("SELECT count(*) FROM tx").await;
    assert!(wrong.is_empty() && kept == "0", "{kept} rows stayed after ROLLBACK; {wrong:#?}");
    assert!(struck > 0 || !cancels, "nothing was struck in {count} rounds");
}

#[tokio::test]
async fn a_cancelled_begin_commits_nothing() {
    rounds(300, 0, "SELECT 1", true).await;
}

#[tokio::test]
async fn a_long_begin_that_is_cancelled_commits_nothing() {
    rounds(400, 250_000, "SELECT 1", true).await;
}

#[tokio::test]
async fn a_begin_that_takes_too_long_commits_nothing() {
    rounds(300, 250_000, "SET statement_timeout = 1", false).await;
}

/// What is sent behind the held BEGIN counts as little.
#[tokio::test]
async fn what_follows_a_cancelled_begin_is_in_no_other_transaction() {
    let site = Site::with_objects(TABLE, 2).await;
    let port = site.proxy.port();
    let mut random = Random::new(7);
    let mut client = site.client().await;
    let mut wrong = Vec::new();
    for round in 0..150 {
        client.ask(&begin(250_000)).await;
        client.ask("SET LOCAL app.tenant = 'local'").await;
        client.ask("SAVEPOINT s").await;
        client.query("SELECT current_setting('app.tenant', true)").await;
        let (pid, secret) = client.key().clone();
        let pause = random.pause(3);
        let cancel = async {
            tokio::time::sleep(pause).await;
            RawClient::cancel(port, pid, &secret).await;
        };
        let (answer, ()) = tokio::join!(client.read_until_ready(), cancel);
        let seen = values(&answer);
        if error_code(&answer).is_none() && seen != ["local"] {
            wrong.push(format!("round {round}: {seen:?}"));
        }
        for _ in 0..10 {
            if client.ask("ROLLBACK").await.last().is_some_and(|ready| ready.body.first() == Some(&b'I')) {
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "statements ran without the SET LOCAL in front of them: {wrong:#?}");
}
