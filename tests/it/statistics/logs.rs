//! The log: its level while the program runs, its form, slow statements, and the end of sessions.

use std::time::Duration;

use super::{RawClient, Signal, console, of_primary, start, start_with};
use crate::support::{error_of, eventually};

const ENDED: &str = "a session ended";

/// A session comes and goes; whether the log tells of its end.
async fn tells_of_sessions(proxy: &crate::support::Proxy) -> bool {
    let before = proxy.log().matches(ENDED).count();
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("SELECT 1").await;
    client.terminate().await;
    // It has gone when its end has been told.
    proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    let tells = async || (proxy.log().matches(ENDED).count() > before).then_some(());
    tokio::time::timeout(Duration::from_millis(300), eventually("it is told", Duration::from_secs(5), tells))
        .await
        .is_ok()
}

#[tokio::test]
async fn a_signal_changes_the_level_and_changes_it_back() {
    let (_primary, proxy) = start();
    assert!(!tells_of_sessions(&proxy).await);
    for (level, tells) in [("debug", true), ("info", false), ("debug", true)] {
        let before = proxy.log().matches("SIGUSR1").count();
        proxy.signal(Signal::USR1);
        eventually("the signal is told of", Duration::from_secs(10), async || {
            (proxy.log().matches("SIGUSR1").count() > before).then_some(())
        })
        .await;
        let log = proxy.log();
        let line = log.lines().rfind(|line| line.contains("SIGUSR1")).expect("a line");
        assert!(line.contains(&format!("level=\"{level}\"")), "{line}");
        assert_eq!(tells_of_sessions(&proxy).await, tells, "{level}");
    }
}

#[tokio::test]
async fn the_console_and_a_reload_change_the_level() {
    let (primary, mut proxy) = start();
    let mut console = console(&proxy).await;
    for (level, tells) in [("debug", true), ("warn", false), ("debug", true)] {
        let answer = console.ask(&format!("SET log_level = '{level}'")).await;
        assert_eq!(error_of(&answer), None);
        assert_eq!(tells_of_sessions(&proxy).await, tells, "{level}");
    }
    let refusal = error_of(&console.ask("SET log.level = 'loud'").await).expect("no level");
    assert!(refusal[1].contains("loud"), "{refusal:?}");
    proxy.reload_to(&of_primary(&primary)).await;
    assert!(!tells_of_sessions(&proxy).await, "the file's level is in force again");
    proxy.reload_to(&of_primary(&primary).set("log", "level", "debug")).await;
    assert!(tells_of_sessions(&proxy).await);
}

#[tokio::test]
async fn the_end_of_a_session_tells_of_its_work() {
    let (_primary, proxy) = start_with(|config| config.set("log", "level", "debug"));
    let mut client = RawClient::app(proxy.port()).await;
    for sql in ["CREATE TABLE t (a int)", "SELECT 1 / 0", "SELECT 1"] {
        client.ask(sql).await;
    }
    client.terminate().await;
    proxy.wait_for_log(ENDED).await;
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains(ENDED)).expect("a line");
    for part in [
        "user=\"app\"",
        "database=\"app\"",
        "requests=3",
        "errors=1",
        "pools=\"primary\"",
        "the client has gone",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    for bytes in ["received_bytes=", "sent_bytes="] {
        let rest = line.split(bytes).nth(1).expect("it is told");
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        assert!(number.parse::<u64>().expect("a number") > 30, "{bytes} {line}");
    }
}

#[tokio::test]
async fn lines_are_objects_if_they_are_to_be() {
    let (_primary, proxy) =
        start_with(|config| config.set("log", "format", "json").set("log", "slow_statement", "5ms"));
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("SELECT 1 AS \"a \"\"b\"\"\", pg_sleep(0.01)").await;
    proxy.wait_for_log("a slow statement").await;
    let log = proxy.log();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let slow = lines.iter().find(|line| line["message"] == "a slow statement").expect("a line");
    assert_eq!((&slow["level"], &slow["fields"]["pool"]), (&"INFO".into(), &"primary".into()));
    assert_eq!(slow["fields"]["query"], "SELECT ? AS \"a \"\"b\"\"\", pg_sleep(?)");
    assert!(slow["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{slow}");
}

#[tokio::test]
async fn slow_statements_are_logged_with_what_is_asked_for() {
    let (primary, mut proxy) = start();
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("SELECT 'none', pg_sleep(0.01)").await;
    client.settle().await;
    let slow = |percent: i64| {
        let config = of_primary(&primary).set("log", "slow_statement", "5ms");
        config.set("log", "slow_sample_percent", percent)
    };
    proxy.reload_to(&slow(0)).await;
    client.ask("SELECT 'left out', pg_sleep(0.01)").await;
    client.settle().await;
    proxy.reload_to(&slow(100)).await;
    client.ask("SELECT 'quick'").await;
    client.ask("SELECT 'one' AS first, pg_sleep(0.01)").await;
    proxy.wait_for_log("SELECT ? AS first").await;
    let log = proxy.log();
    assert!(!log.contains("query=\"SELECT ?, pg_sleep(?)\""), "before, and left out: {log}");
    // What was meant to be quick may have been slow, on a machine that has other things to do.
    for line in log.lines().filter(|line| line.contains("a slow statement")) {
        let took =
            line.split("took_ms=\"").nth(1).and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(took.is_some_and(|took| took >= 5.0), "{line}");
    }
    assert!(!proxy.log().contains("'one'"));
    proxy.reload_to(&slow(100).set("log", "slow_values", true)).await;
    client.ask("SELECT 'two' AS second, pg_sleep(0.01)").await;
    proxy.wait_for_log("SELECT 'two' AS second").await;
    client
        .parse("", "SELECT $1::text AS third, pg_sleep(0.01)")
        .bind("", "", &[Some("three")])
        .execute("", 0);
    client.finish().await;
    proxy.wait_for_log("SELECT $1::text AS third").await;
    let log = proxy.log();
    let line = log.lines().find(|line| line.contains("AS third")).expect("a line");
    assert!(line.contains("three") && line.contains("class=\"") && line.contains("took_ms="), "{line}");
    // No more than some in a second, and those left out are counted.
    for at in 0..60 {
        client.parse("", &format!("SELECT {at} AS many, pg_sleep(0.006)")).bind("", "", &[]).execute("", 0);
        client.finish().await;
    }
    eventually("lines come again", Duration::from_secs(10), async || {
        client.ask("SELECT 1 AS again, pg_sleep(0.01)").await;
        let log = proxy.log();
        let told = |line: &&str| line.contains("a slow statement") && !line.contains("left_out=0");
        log.lines().find(told).map(|_| ())
    })
    .await;
}
