//! What a session leaves on its backend when something goes wrong in between must neither reach the next session nor
//! stay with its own. Every test has one backend, so that the next session gets the very same one.

use crate::support::{RawClient, Site, told};

/// What comes back of a statement that is bound and executed.
async fn run(client: &mut RawClient, name: &str) -> (String, Option<String>) {
    client.bind("", name, &[]).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    let row = answer.iter().find(|message| message.tag == b'D');
    (told(&answer), row.and_then(|row| row.columns().swap_remove(0)))
}

fn ran(value: &str) -> (String, Option<String>) {
    ("2DCZ".to_owned(), Some(value.to_owned()))
}

#[tokio::test]
async fn what_comes_after_a_refused_message_is_not_prepared() {
    let site = Site::with_backends(1);
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.parse("taken", "SELECT 1");
    assert_eq!(client.exchange().await, "1Z");
    // In one write, so that the second request is sent before the first one's error has come.
    client.parse("", "SELECT 2").bind("", "", &[]).execute("", 0).parse("taken", "SELECT 3").flush_message();
    client.parse("later", "SELECT 'later'");
    assert_eq!(client.exchange().await, "12DC 42P05 Z");
    other.parse("s", "SELECT 'later'");
    assert_eq!(other.exchange().await, "1Z");
    assert_eq!(run(&mut other, "s").await, ran("later"), "the backend does not have it yet");
    assert_eq!(run(&mut client, "later").await.0, " 26000 Z");
    client.parse("later", "SELECT 'later'");
    assert_eq!(client.exchange().await, "1Z", "the name is free");
}

#[tokio::test]
async fn a_text_that_cannot_be_read_leaves_what_it_has_done_before_a_failure() {
    let site = Site::with_backends(1);
    let (mut client, mut other) = (site.client().await, site.client().await);
    let free = "SELECT pg_try_advisory_xact_lock(7)";
    client.ask("SET client_encoding = 'LATIN1'").await;
    client.parse("taken", "SELECT 1");
    assert_eq!(client.exchange().await, "1Z");
    // A letter of another encoding, and the syntax error of another language.
    client.message(b'Q', b"SELECT pg_advisory_lock(7) AS \xe9; SELECT '$['::jsonpath\0");
    client.flush().await;
    assert_eq!(told(&client.read_until_ready().await), "TDC 42601 Z");
    assert!(other.ask_soon(free).await.is_none(), "the backend is kept with the lock");
    client.ask("SELECT pg_advisory_unlock(7)").await;
    client.ask("DISCARD ALL").await;
    other.read_until_ready().await;
    // Run, before a message is refused.
    client.ask("SET client_encoding = 'LATIN1'").await;
    client.parse("taken", "SELECT 1");
    assert_eq!(client.exchange().await, "1Z");
    client.message(b'P', b"\0SELECT pg_advisory_lock(7) AS \xe9\0\0\0").bind("", "", &[]).execute("", 0);
    client.parse("taken", "SELECT 1");
    assert_eq!(client.exchange().await, "12DC 42P05 Z");
    assert!(other.ask_soon(free).await.is_none(), "the backend is kept with the lock");
    client.ask("SELECT pg_advisory_unlock(7)").await;
    client.ask("DISCARD ALL").await;
    other.read_until_ready().await;
    // What the server was not given, or could not read, leaves nothing.
    client.bind("", "unknown", &[]).message(b'P', b"\0SELECT '\xe9'\0\0\0");
    assert_eq!(client.exchange().await, " 26000 Z");
    assert_eq!(other.query_value("SELECT 1").await, "1");
    assert_eq!(told(&client.ask("SELEC 1").await), " 42601 Z");
    assert_eq!(other.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_refused_request_does_not_uncover_another_sessions_sequences() {
    let site = Site::with_backends(1);
    let (mut client, mut other) = (site.client().await, site.client().await);
    assert_eq!(told(&client.ask("SELECT lastval()").await), "T 55000 Z");
    client.ask("DISCARD ALL").await;
    site.primary.query("CREATE SEQUENCE counted; GRANT ALL ON counted TO app").await;
    assert_eq!(other.query_value("SELECT nextval('counted')").await, "1");
    assert_eq!(told(&client.ask("EXECUTE bulkhead_1").await), " 42939 Z");
    assert_eq!(told(&client.ask("SELECT lastval()").await), "T 55000 Z");
}

#[tokio::test]
async fn an_unnamed_statement_that_was_skipped_is_not_run_for_another_session() {
    let site = Site::with_backends(1);
    let (mut client, mut other) = (site.client().await, site.client().await);
    other.parse("", "SELECT 'wanted'");
    assert_eq!(other.exchange().await, "1Z");
    client.parse("fails", "SELECT $1::int");
    assert_eq!(client.exchange().await, "1Z");
    client.bind("", "fails", &[Some("1")]).execute("", 0);
    assert_eq!(client.exchange().await, "2DCZ");
    client.parse("", "SELECT 'first'");
    assert_eq!(client.exchange().await, "1Z");
    client.bind("", "fails", &[Some("x")]).parse("", "SELECT 'wanted'");
    assert_eq!(client.exchange().await, " 22P02 Z");
    assert_eq!(run(&mut other, "").await, ran("wanted"));
}

#[tokio::test]
async fn nobody_closes_the_backends_statements() {
    let site = Site::with_backends(1);
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.parse("s", "SELECT 'mine'");
    assert_eq!(client.exchange().await, "1Z");
    assert_eq!(run(&mut client, "s").await, ran("mine"));
    for number in 1..5 {
        other.parse("", "SELECT 1").close(b'S', &format!("bulkhead_{number}"));
        assert_eq!(other.exchange().await, "13Z");
    }
    assert_eq!(run(&mut client, "s").await, ran("mine"));
    other.ask("PREPARE p AS SELECT 1").await;
    for number in 1..5 {
        other.close(b'S', &format!("bulkhead_{number}"));
        assert_eq!(other.exchange().await, "3Z");
    }
    assert_eq!(told(&other.ask("DEALLOCATE p").await), "CZ");
    assert_eq!(run(&mut client, "s").await, ran("mine"));
}

#[tokio::test]
async fn a_name_prepared_anew_after_all_were_let_go_is_found_by_sql() {
    let site = Site::with_backends(1);
    let mut client = site.client().await;
    client.parse("s", "SELECT 'old'");
    assert_eq!(client.exchange().await, "1Z");
    client.ask("BEGIN").await;
    assert_eq!(told(&client.ask("EXECUTE s").await), "TDCZ");
    assert_eq!(told(&client.ask("DEALLOCATE ALL").await), "CZ");
    client.parse("s", "SELECT 'new'");
    assert_eq!(client.exchange().await, "1Z");
    assert_eq!(client.query_value("EXECUTE s").await, "new");
    client.ask("COMMIT").await;
    assert_eq!(run(&mut client, "s").await, ran("new"));
}

#[tokio::test]
async fn a_statement_that_sql_cannot_find_does_not_end_a_session_that_listens() {
    let site = Site::start();
    let mut client = site.client().await;
    client.ask("LISTEN news").await;
    client.ask("CREATE TEMP TABLE t (a int)").await;
    client.parse("on_t", "SELECT * FROM t");
    assert_eq!(client.exchange().await, "1Z");
    client.ask("DROP TABLE t").await;
    client.ask("BEGIN").await;
    client.parse("", "EXECUTE on_t").bind("", "", &[]).execute("", 0);
    assert_eq!(client.exchange().await, " 42P01 Z", "as on a server");
    assert_eq!(told(&client.ask("ROLLBACK").await), "CZ");
    assert_eq!(client.query_value("SELECT count(*) FROM pg_listening_channels()").await, "1");
}
