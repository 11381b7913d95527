//! The protocol of a console: simple and extended, what connection libraries send by themselves, and what is no protocol.

use super::{Site, done, refused, table};
use crate::support::{Message, error_code, told, values};

/// The transaction status at the end of an answer.
fn status(answer: &[Message]) -> char {
    let ready = answer.last().filter(|message| message.tag == b'Z').expect("it is ready");
    char::from(ready.body[0])
}

#[tokio::test]
async fn what_libraries_send_first_is_taken() {
    let site = Site::start();
    let mut console = site.console().await;
    for (sql, tag) in [
        ("SET extra_float_digits = 3", "SET"),
        ("SET client_encoding TO 'UTF8'", "SET"),
        ("set application_name = 'exporter'", "SET"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET"),
        ("SET TIME ZONE 'UTC'", "SET"),
        ("DISCARD ALL", "DISCARD"),
        ("SELECT version()", "SHOW"),
        ("SELECT 1", "SHOW"),
        ("SHOW transaction_read_only", "SHOW"),
        ("SHOW client_encoding", "SHOW"),
        ("select pools", "SHOW"),
    ] {
        assert_eq!(done(&mut console, sql).await, tag, "{sql}");
    }
    assert_eq!(told(&console.ask("").await), "IZ");
    assert_eq!(told(&console.ask(" ; -- nothing\n;").await), "IZ");
    assert_eq!(console.query_value("SELECT 1").await, "1");
    assert!(console.query_value("SHOW VERSION").await.starts_with("PgBouncer 1.25.2 (Bulkhead "));
    assert_eq!(console.parameter("client_encoding"), Some("UTF8"));
}

#[tokio::test]
async fn several_statements_and_transactions() {
    let site = Site::start();
    let mut console = site.console().await;
    let answer = console.ask("SHOW STATE; /* two */ SHOW VERSION;").await;
    assert_eq!(answer.iter().filter(|message| message.tag == b'C').count(), 2);
    // What comes behind a mistake is not run.
    let answer = console.ask("SHOW VERSION; nonsense; SHOW VERSION").await;
    assert_eq!(answer.iter().filter(|message| message.tag == b'C').count(), 1);
    assert_eq!(error_code(&answer).as_deref(), Some("42601"));
    assert_eq!(status(&console.ask("BEGIN").await), 'T');
    assert_eq!(status(&console.ask("SHOW STATE").await), 'T');
    assert_eq!(status(&console.ask("nonsense").await), 'E');
    assert_eq!(refused(&mut console, "SHOW STATE").await[0], "25P02");
    assert_eq!(status(&console.ask("COMMIT").await), 'I');
    table(&mut console, "SHOW STATE").await;
}

#[tokio::test]
async fn mistakes_are_told_with_a_hint() {
    let site = Site::start();
    let mut console = site.console().await;
    for (sql, code, hint) in [
        ("nonsense", "42601", "SHOW HELP"),
        ("SHOW nothing", "42601", "SHOW HELP"),
        ("SELECT * FROM pg_class", "42601", "SHOW HELP"),
        ("SHOW 'pools", "42601", "SHOW HELP"),
        ("PAUSE nowhere", "3D000", "primary"),
        ("RESUME", "55000", "SHOW DATABASES"),
        ("KILL_CLIENT 7", "42704", "SHOW CLIENTS"),
        ("KILL_CLIENT x", "42704", "SHOW CLIENTS"),
        ("SHOW FDS", "0A000", "SHOW SOCKETS"),
        ("SUSPEND", "0A000", "PAUSE"),
    ] {
        let [found, message, told] = refused(&mut console, sql).await;
        assert_eq!(found, code, "{sql}: {message}");
        assert!(told.contains(hint), "{sql}: {told}");
    }
    assert_eq!(refused(&mut console, &"SHOW STATE;".repeat(101)).await[0], "54000");
}

#[tokio::test]
async fn the_extended_protocol() {
    let site = Site::start();
    let mut console = site.console().await;
    console.parse("", "SHOW STATE").describe(b'S', "").bind("", "", &[]).describe(b'P', "").execute("", 0);
    let answer = console.finish().await;
    assert_eq!(told(&answer), "1tT2TDDDCZ");
    assert_eq!(values(&answer), ["active", "yes", "paused", "no", "suspended", "no"]);
    // A few rows at a time; and no portal outlives its Sync.
    console.parse("s", "SHOW STATE").bind("p", "s", &[]).execute("p", 2).execute("p", 2).execute("p", 2);
    assert_eq!(console.exchange().await, "12DDsDCCZ");
    console.execute("p", 0);
    assert_eq!(error_code(&console.finish().await).as_deref(), Some("34000"));
    // What comes behind a mistake is dropped, up to the Sync.
    console.parse("", "nonsense").bind("", "s", &[]).execute("", 0);
    let answer = console.finish().await;
    assert_eq!((error_code(&answer).as_deref(), answer.len()), (Some("42601"), 2));
    for (parse, code) in [("SHOW STATE; SHOW STATE", "42601"), ("SHOW 'x", "42601")] {
        console.parse("", parse);
        assert_eq!(error_code(&console.finish().await).as_deref(), Some(code));
    }
    console.bind("", "s", &[Some("1")]);
    assert_eq!(error_code(&console.finish().await).as_deref(), Some("08P01"));
    console.bind("", "unknown", &[]);
    assert_eq!(error_code(&console.finish().await).as_deref(), Some("26000"));
    console.parse("", "").bind("", "", &[]).describe(b'P', "").execute("", 0);
    assert_eq!(console.exchange().await, "12nIZ");
    console.parse("", "RELOAD").describe(b'S', "").bind("", "", &[]).execute("", 0).close(b'S', "s");
    assert_eq!(console.exchange().await, "1tn2NC3Z");
}

#[tokio::test]
async fn what_is_kept_for_a_client_is_bounded() {
    let site = Site::start();
    let mut console = site.console().await;
    for number in 0..100 {
        console.parse(&format!("s{number}"), "SHOW STATE");
    }
    assert_eq!(error_code(&console.finish().await), None);
    console.parse("one more", "SHOW STATE");
    assert_eq!(error_code(&console.finish().await).as_deref(), Some("53400"));
    console.close(b'S', "s0").parse("one more", "SHOW STATE");
    assert_eq!(error_code(&console.finish().await), None);
}

#[tokio::test]
async fn broken_bytes_end_their_own_connection_only() {
    let site = Site::start();
    let (mut other, mut client) = (site.console().await, site.client().await);
    for bytes in [
        &b"z\0\0\0\x04"[..],
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        b"Q\0\x01\0\0",
        b"B\0\0\0\x05\0",
        b"E\0\0\0\x06x\0",
        b"D\0\0\0\x04",
        b"P\0\0\0\x08abcd",
    ] {
        let mut console = site.console().await;
        console.bytes(bytes).flush().await;
        let error = console.read_message().await;
        assert_eq!((error.tag, error.field(b'C').as_deref()), (b'E', Some("08P01")), "{bytes:?}");
        assert!(console.try_read_message().await.is_none(), "{bytes:?}");
    }
    table(&mut other, "SHOW STATE").await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}
