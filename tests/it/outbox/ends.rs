//! Transactions that use both servers, at each step of their end: the client cancels, goes, or loses a connection of Bulkhead's
//! there, or the job database stands still. What is told to be committed is, and nothing is torn apart.

use std::time::{Duration, Instant};

use super::{LONG, Yard, functions::say};
use crate::support::{Held, Place, Proxy, RawClient, Towards, error_of, eventually, short};

const ITEM: &str = "INSERT INTO items VALUES ('a')";
const JOB: &str = "INSERT INTO oban_jobs (worker) VALUES ('J')";
const COUNT: &str = "SELECT count(*) FROM oban_jobs";

/// Whose connections are held: those of this user. The relay, which is one, too, does nothing as long as nothing is committed.
const USER: &str = "app";

/// The client's word to the server that is held, by what is said there.
#[derive(Clone, Copy, Debug)]
struct Step {
    at_jobs: bool,
    towards: Towards,
    text: &'static [u8],
}

const fn step(at_jobs: bool, towards: Towards, text: &'static [u8]) -> Step {
    Step { at_jobs, towards, text }
}

/// The steps in which a job that was added first is carried over, and both servers' parts end.
const STEPS: [Step; 8] = [
    step(true, Towards::Upstream, b"row_security_active"),
    step(true, Towards::Upstream, b"bulkhead_me"),
    step(false, Towards::Upstream, b"json_array_elements"),
    step(true, Towards::Upstream, b"ROLLBACK\0"),
    step(true, Towards::Client, b"ROLLBACK\0"),
    step(false, Towards::Upstream, b"INSERT INTO items"),
    step(false, Towards::Upstream, b"COMMIT\0"),
    step(false, Towards::Client, b"COMMIT\0"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cancel,
    ClientGoes,
    ConnectionLost,
}

async fn start() -> (Yard, Proxy) {
    let yard = Yard::start().await;
    yard.primary.query("SET ROLE app; CREATE TABLE items (name text)").await;
    let proxy = yard.bulkhead(&yard.config().set("auth", "method", "trust")).await;
    (yard, proxy)
}

/// Items on the primary, and jobs that have come, once nothing is under way.
async fn rows(yard: &Yard) -> [String; 2] {
    for server in [&yard.primary, &yard.jobs] {
        server.wait_for_app_backends("state <> 'idle' AND application_name <> 'bulkhead outbox'", 0).await;
    }
    yard.wait_until_empty().await;
    eventually("the relay rests", LONG, async || {
        let moving = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkhead outbox' AND state <> 'idle'";
        (yard.jobs.value(moving).await == "0").then_some(())
    })
    .await;
    let count = |table: &str| format!("SELECT count(*) FROM {table}");
    [yard.primary.value(&count("items")).await, yard.jobs.value(&count("arrivals")).await]
}

/// The answer to COMMIT, behind that to the statement before.
async fn end(client: &mut RawClient) -> String {
    client.read_until_ready().await;
    short(&client.read_until_ready().await)
}

#[tokio::test]
async fn nothing_is_torn_apart_by_a_fault_at_any_step_of_a_transaction() {
    let (yard, proxy) = start().await;
    let mut committed = 0;
    for step in STEPS {
        for fault in [Fault::Cancel, Fault::ClientGoes, Fault::ConnectionLost] {
            let what = format!("{fault:?} at {step:?}, {}", String::from_utf8_lossy(step.text));
            let relay = if step.at_jobs { &yard.to_jobs } else { &yard.to_primary };
            let mut client = RawClient::app(proxy.port()).await;
            let (pid, secret) = client.key().clone();
            say(&mut client, &["BEGIN", JOB]).await;
            relay.set_trap(Place { of: USER, towards: step.towards, text: step.text });
            for sql in [ITEM, "COMMIT"] {
                client.parse("", sql).bind("", "", &[]).execute("", 0).sync();
            }
            client.flush().await;
            eventually(&what, LONG, async || relay.holds().then_some(())).await;
            let told = match fault {
                Fault::ClientGoes => {
                    client.reset();
                    relay.release(Held::Passes);
                    None
                }
                Fault::Cancel => {
                    RawClient::cancel(proxy.port(), pid, &secret).await;
                    relay.release(Held::Passes);
                    Some(end(&mut client).await)
                }
                Fault::ConnectionLost => {
                    relay.release(Held::Lost);
                    Some(end(&mut client).await)
                }
            };
            let found = rows(&yard).await;
            assert!(found == ["0", "0"] || found == ["1", "1"], "{what}: {found:?}");
            match told.as_deref() {
                Some("COMMIT I") => assert_eq!(found, ["1", "1"], "{what}"),
                // It may have been.
                Some("08007 I") | None => {}
                Some(other) => assert_eq!(found, ["0", "0"], "{what}: {other}"),
            }
            committed += usize::from(found == ["1", "1"]);
            yard.primary.query("TRUNCATE items").await;
            yard.jobs.query("TRUNCATE oban_jobs, arrivals").await;
        }
    }
    assert!(committed > 0);
}

/// The part that has only read is not waited for.
#[tokio::test]
async fn a_job_database_that_stands_still_does_not_keep_a_commit_of_the_primary() {
    let (yard, proxy) = start().await;
    let mut client = RawClient::app(proxy.port()).await;
    say(&mut client, &["BEGIN", ITEM, COUNT, "SELECT count(*) FROM items"]).await;
    yard.jobs.pause();
    let begun = Instant::now();
    let answer = client.ask("COMMIT").await;
    assert_eq!(short(&answer), "COMMIT I", "{:?}", error_of(&answer));
    assert_eq!(yard.primary.value("SELECT count(*) FROM items").await, "1");
    assert_eq!(short(&client.ask("SELECT count(*) FROM items").await), "1 I");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    yard.jobs.resume();
    assert_eq!(rows(&yard).await, ["1", "0"]);
}

/// What is carried over must be read there first.
#[tokio::test]
async fn a_job_database_that_stands_still_ends_a_transaction_that_needs_it() {
    let (yard, proxy) = start().await;
    let mut client = RawClient::app(proxy.port()).await;
    say(&mut client, &["BEGIN", JOB]).await;
    yard.jobs.pause();
    let begun = Instant::now();
    let [code, message, _] = error_of(&client.ask(ITEM).await).expect("it cannot be read");
    assert!(code == "08006" && message.contains("\"jobs\""), "{code} {message}");
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // Transactions that do not need it go on, and jobs wait on the primary.
    say(&mut client, &["BEGIN", ITEM, JOB, "COMMIT"]).await;
    yard.jobs.resume();
    assert_eq!(rows(&yard).await, ["1", "1"]);
}
