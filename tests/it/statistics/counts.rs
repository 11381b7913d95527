//! `SHOW QUERIES` and `SHOW SLOW`.

use super::{
    Cluster, Login, Proxy, ProxyConfig, RawClient, console, error_of, expect, queries, query, show, start,
    start_with,
};
use crate::support::{connect, eventually, oban};

const SECRET: &str = "hunter2";

#[tokio::test]
async fn requests_of_either_protocol_are_counted_by_their_text() {
    let (_primary, proxy) = start();
    let mut console = console(&proxy).await;
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("CREATE TABLE counted (a int)").await;
    for rows in [1, 3] {
        client.ask(&format!("INSERT INTO counted SELECT generate_series(1, {rows})")).await;
    }
    let insert = "INSERT INTO counted SELECT generate_series(?, ?)";
    let columns = [
        ("calls", "2"),
        ("errors", "0"),
        ("rows", "4"),
        ("class", "write"),
        ("reason", "modifies"),
        ("pool", "primary"),
        ("database", "app"),
        ("user", "app"),
    ];
    expect(&mut console, insert, columns).await;
    // One text, prepared by name in two sessions and unnamed in a third one.
    let select = "SELECT a FROM counted WHERE a > $1";
    for name in ["s", "s", ""] {
        let mut other = RawClient::app(proxy.port()).await;
        other.parse(name, select).describe(b'S', name);
        other.finish().await;
        for _ in 0..2 {
            other.bind("", name, &[Some("0")]).execute("", 0);
            assert_eq!(error_of(&other.finish().await), None);
        }
    }
    // What only prepares is not counted.
    expect(&mut console, select, [("calls", "6"), ("rows", "24")]).await;
    // Errors count, of the server and of the proxy.
    client.ask("SELECT 1 / 0").await;
    client.ask("SELECT 2 / 0").await;
    expect(&mut console, "SELECT ? / ?", [("calls", "2"), ("errors", "2"), ("rows", "0")]).await;
    // A portal that is read in parts.
    client.parse("", select).bind("", "", &[Some("0")]).execute("", 1);
    assert_eq!(error_of(&client.finish().await), None);
    expect(&mut console, select, [("calls", "7"), ("rows", "24")]).await;
    client.ask("BEGIN").await;
    client.parse("", select).bind("p", "", &[Some("0")]).execute("p", 3);
    assert_eq!(error_of(&client.finish().await), None);
    client.execute("p", 3);
    assert_eq!(error_of(&client.finish().await), None);
    client.ask("COMMIT").await;
    // The rows of a portal are told with its end.
    expect(&mut console, select, [("calls", "8"), ("rows", "25")]).await;
    let [total, max, p95] = query(&mut console, insert, ["total_time", "max_time", "p95_time"]).await;
    let [total, max, p95] = [total, max, p95].map(|time| time.parse::<u64>().expect("microseconds"));
    assert!(max <= total && p95 <= max && max > 0, "{total} {max} {p95}");
    // They are in order of their time.
    let times = show(&mut console, "QUERIES").await;
    let times: Vec<u64> = times.iter().map(|row| row["total_time"].parse().expect("microseconds")).collect();
    assert!(times.is_sorted_by(|one, other| one >= other), "{times:?}");

    assert_eq!(error_of(&console.ask("RESET QUERIES").await), None);
    assert!(queries(&mut console, insert).await.is_empty());
    client.ask("INSERT INTO counted SELECT generate_series(7, 8)").await;
    expect(&mut console, insert, [("calls", "1"), ("rows", "2")]).await;
}

#[tokio::test]
async fn nothing_of_anybodys_values_is_shown() {
    let (_primary, proxy) = start_with(|config| {
        config.set("statistics", "slow_statement", "1ms").set("log", "slow_statement", "1ms")
    });
    let mut console = console(&proxy).await;
    let mut client = RawClient::app(proxy.port()).await;
    for sql in [
        format!("SELECT '{SECRET}', pg_sleep(0.002)"),
        format!(
            "SELECT E'\\n{SECRET}', $$ {SECRET} $$, U&'{SECRET}', pg_sleep(0.002) /* {SECRET} */ -- {SECRET}"
        ),
        format!("ALTER ROLE app PASSWORD '{SECRET}'"),
        format!("ALTER ROLE app PASSWORD '{SECRET}"),
        format!("ALTER ROLE app PASSWORD {SECRET}"),
        SECRET.to_owned(),
        format!("SET app.token = '{SECRET}'"),
        format!("SET app.token TO {SECRET}"),
        format!("SELECT set_config('app.token', '{SECRET}', false)"),
        format!("DO $x$ BEGIN PERFORM '{SECRET}'; END $x$"),
        format!("COPY (SELECT '{SECRET}') TO STDOUT"),
        format!("SET standard_conforming_strings = off; SELECT '\\'{SECRET}'"),
        format!("SELECT '\\'{SECRET}', pg_sleep(0.002)"),
    ] {
        client.ask(&sql).await;
    }
    client.parse("", "SELECT $1::text, pg_sleep(0.002)").bind("", "", &[Some(SECRET)]).execute("", 0);
    client.finish().await;
    client.settle().await;
    let (all, slow) = (show(&mut console, "QUERIES").await, show(&mut console, "SLOW").await);
    assert!(all.len() > 6 && !slow.is_empty(), "{all:?} {slow:?}");
    for row in all.iter().chain(&slow) {
        assert!(!format!("{row:?}").contains(SECRET), "{row:?}");
    }
    let told: Vec<&str> = all.iter().map(|row| row["query"].as_str()).collect();
    assert!(told.contains(&"ALTER ROLE app PASSWORD ?") && told.contains(&"ALTER .."), "{told:?}");
    assert!(slow.iter().any(|row| row["query"] == "SELECT $1::text, pg_sleep(?)"), "{slow:?}");
    proxy.wait_for_log("SELECT $1::text, pg_sleep(?)").await;
    assert!(!proxy.log().contains(SECRET), "{}", proxy.log());
}

/// Another connection is asked for a statement's columns before the statement is run there.
#[tokio::test]
async fn a_call_that_is_sent_in_two_steps_is_one() {
    let (_primary, proxy) =
        start_with(|config| config.pool("primary", &["primary"], 3).set("limits", "catalog_refresh", "1h"));
    let mut console = console(&proxy).await;
    let mut client = RawClient::app(proxy.port()).await;
    let read = r#"bulkhead_requests_total{class="read",pool="primary",reason="read_only"}"#;
    eventually("reads are known", std::time::Duration::from_secs(20), async || {
        client.ask("SELECT count(*) FROM generate_series(1, 2)").await;
        proxy.metric(read).await.filter(|count| *count > 0.0)
    })
    .await;
    let select = "SELECT n FROM generate_series(1, $1) AS n";
    client.parse("s", select).describe(b'S', "s");
    assert_eq!(error_of(&client.finish().await), None);
    let pid = client.query_value("SELECT pg_backend_pid()").await;
    client.settle().await;
    // One of them has the connection that knows the statement.
    let mut others = [RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    let mut pids = Vec::new();
    for other in &mut others {
        other.ask("BEGIN").await;
        pids.push(other.query_value("SELECT pg_backend_pid()").await);
    }
    assert!(pids.contains(&pid), "{pids:?} without {pid}");
    let before = proxy.metric(read).await.expect("it is there");
    client.bind("", "s", &[Some("4")]).execute("", 0);
    assert_eq!(error_of(&client.finish().await), None);
    client.settle().await;
    assert_eq!(proxy.metric(read).await, Some(before + 1.0));
    let shown = "SELECT n FROM generate_series(?, $1) AS n";
    expect(&mut console, shown, [("calls", "1"), ("rows", "4"), ("errors", "0")]).await;
}

#[tokio::test]
async fn ten_thousand_texts_stay_within_the_bound() {
    let (_primary, proxy) = start_with(|config| config.set("statistics", "queries", 50));
    let mut client = RawClient::app(proxy.port()).await;
    for round in 0..100 {
        for at in 0..100 {
            client
                .parse("", &format!("SELECT 1 AS a{}", round * 100 + at))
                .bind("", "", &[])
                .execute("", 0)
                .sync();
            client.parse("", "SELECT 2 AS hot").bind("", "", &[]).execute("", 0).sync();
        }
        client.flush().await;
        for _ in 0..200 {
            assert_eq!(error_of(&client.read_until_ready().await), None);
        }
    }
    let mut console = console(&proxy).await;
    let all = show(&mut console, "QUERIES").await;
    assert!(all.len() <= 50, "{}", all.len());
    expect(&mut console, "SELECT ? AS hot", [("calls", "10000")]).await;
    expect(&mut console, "SELECT ? AS a9999", [("calls", "1")]).await;
}

#[tokio::test]
async fn a_pin_is_told_of_the_statement_that_left_something() {
    let (_primary, proxy) = start();
    let mut console = console(&proxy).await;
    let (mut one, mut two) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    one.ask("SELECT pg_advisory_lock(7)").await;
    one.ask("SELECT 'held'").await;
    for sql in ["BEGIN", "CREATE TEMP TABLE kept (a int)", "SELECT 'between'", "COMMIT"] {
        two.ask(sql).await;
    }
    for (text, pins, pinned_by) in [
        ("SELECT pg_advisory_lock(?)", "1", "advisory_locks"),
        ("CREATE TEMP TABLE kept (a int)", "1", "temp_objects"),
        ("SELECT ?", "0", ""),
        ("COMMIT", "0", ""),
    ] {
        expect(&mut console, text, [("pins", pins), ("pinned_by", pinned_by)]).await;
    }
}

#[tokio::test]
async fn waits_and_refusals_are_told() {
    let with_timeout = |config: ProxyConfig, timeout: &str| {
        config.pool("primary", &["primary"], 1).set("pools.primary", "wait_timeout", timeout)
    };
    let (primary, mut proxy) = start_with(|config| with_timeout(config, "30s"));
    let mut console = console(&proxy).await;
    let (mut holder, mut other) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    holder.ask("SELECT 1").await;
    holder.ask("BEGIN").await;
    assert_eq!(error_of(&holder.ask("CREATE TABLE held (a int)").await), None);
    proxy.reload_to(&with_timeout(super::of_primary(&primary), "300ms")).await;
    let refusal = error_of(&other.ask("SELECT 1 AS waits").await).expect("the pool is full");
    assert_eq!(refusal[0], "53300");
    expect(&mut console, "SELECT ? AS waits", [("calls", "1"), ("errors", "1")]).await;
    let [total] = query(&mut console, "SELECT ? AS waits", ["total_time"]).await;
    assert!(total.parse::<u64>().expect("a time") >= 300_000, "{total}");
    proxy.reload_to(&with_timeout(super::of_primary(&primary), "30s")).await;
    other.query("SELECT 2 AS waits").await;
    eventually("it waits", std::time::Duration::from_secs(5), async || {
        let clients = show(&mut console, "CLIENTS").await;
        clients.iter().any(|row| row["state"] == "waiting").then_some(())
    })
    .await;
    holder.ask("COMMIT").await;
    assert_eq!(error_of(&other.read_until_ready().await), None);
    expect(&mut console, "SELECT ? AS waits", [("calls", "2")]).await;
    let [wait] = query(&mut console, "SELECT ? AS waits", ["wait_time"]).await;
    assert!(wait.parse::<u64>().expect("a time") > 0, "{wait}");
    expect(&mut console, "SELECT ?", [("wait_time", "0")]).await;
}

#[tokio::test]
async fn classes_and_pools_are_those_that_served() {
    let cluster = Cluster::start();
    oban::install(&cluster.primary).await;
    oban::install(&cluster.jobs).await;
    cluster.primary.query("CREATE TABLE read_there (a int); GRANT ALL ON read_there TO app").await;
    let config = ProxyConfig::of(&cluster).set("console", "admin_users", vec!["app"]);
    let proxy = Proxy::start(&config.to_toml());
    let mut console = RawClient::login(proxy.port(), Login::App, "bulkhead").await;
    let client = connect(&proxy.url()).await.expect("clients are let in");
    client.batch_execute("SELECT count(*) FROM oban_jobs").await.expect("it is read");
    let job =
        [("class", "job"), ("reason", "job_object"), ("pool", "jobs"), ("not_on_replica", "job_object")];
    expect(&mut console, "SELECT count(*) FROM oban_jobs", job).await;
    let read = "SELECT count(*) FROM read_there";
    eventually("it is read on the replica", std::time::Duration::from_secs(20), async || {
        client.batch_execute(read).await.expect("it is read");
        let rows = queries(&mut console, read).await;
        rows.iter().any(|row| row["pool"] == "replicas").then_some(())
    })
    .await;
    client.batch_execute("SET bulkhead.route = 'primary'").await.expect("a session may ask");
    client.batch_execute(read).await.expect("it is read");
    client.batch_execute("RESET bulkhead.route").await.expect("it may end that");
    let rows = queries(&mut console, read).await;
    let of = |pool: &str| rows.iter().find(|row| row["pool"] == pool).expect("a row of each pool");
    assert_eq!((of("replicas")["class"].as_str(), of("primary")["class"].as_str()), ("read", "read"));
    assert_eq!(of("replicas")["on_replica"], of("replicas")["calls"]);
    // While the replica has not replayed the write, the primary serves the read, and it is said why.
    console.ask("RESET QUERIES").await;
    cluster.replica.query("SELECT pg_wal_replay_pause()").await;
    client.batch_execute("INSERT INTO read_there VALUES (1)").await.expect("a write");
    client.batch_execute(read).await.expect("it is read");
    let there = [("pool", "primary"), ("on_replica", "0"), ("on_primary", "fresh_write: 1")];
    expect(&mut console, read, there).await;
    expect(&mut console, read, [("not_on_replica", "fresh_write")]).await;
    cluster.replica.query("SELECT pg_wal_replay_resume()").await;
    let write = [("class", "write"), ("pool", "primary"), ("not_on_replica", "modifies")];
    expect(&mut console, "INSERT INTO read_there VALUES (?)", write).await;
}

#[tokio::test]
async fn statistics_can_be_switched_off_and_on() {
    let (primary, mut proxy) =
        start_with(|config| config.set("statistics", "queries", 0).set("statistics", "slow_statement", "0s"));
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("SELECT 1, pg_sleep(0.01)").await;
    client.settle().await;
    let mut console = console(&proxy).await;
    assert!(show(&mut console, "QUERIES").await.is_empty());
    let config = super::of_primary(&primary).set("statistics", "slow_statement", "5ms").set(
        "statistics",
        "slow_statements",
        2,
    );
    proxy.reload_to(&config).await;
    for at in 0..4 {
        client.ask(&format!("SELECT {at} AS a{at}, pg_sleep(0.01)")).await;
    }
    client.settle().await;
    let slow: Vec<_> = show(&mut console, "SLOW").await.into_iter().map(|row| row["query"].clone()).collect();
    assert_eq!(slow, ["SELECT ? AS a3, pg_sleep(?)", "SELECT ? AS a2, pg_sleep(?)"], "the last ones");
    expect(&mut console, "SELECT ? AS a0, pg_sleep(?)", [("calls", "1")]).await;
    // Those who may only look may not forget.
    let plain =
        super::of_primary(&primary).remove("console.admin_users").set("console", "stats_users", vec!["app"]);
    proxy.reload_to(&plain).await;
    let mut looks = RawClient::login(proxy.port(), Login::App, "bulkhead").await;
    let refusal = error_of(&looks.ask("RESET QUERIES").await).expect("for admins only");
    assert_eq!(refusal[0], "42501");
}
