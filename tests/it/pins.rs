//! The bound of pins: who would pin one session too many is refused, what is seen too late is told, and those who idle
//! may have to go.

use std::time::Duration;

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, error_of};

fn pinned(reason: &str) -> String {
    format!(r#"bulkhead_pool_pinned{{pool="primary",server="primary",reason="{reason}"}}"#)
}

#[tokio::test]
async fn pins_leave_room_for_transactions() {
    let primary = Postgres::start(Role::Primary);
    primary
        .query(
            "CREATE FUNCTION sly() RETURNS int LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_lock(99); RETURN 1; END $$; \
             CREATE TABLE counted (id serial); GRANT ALL ON counted, counted_id_seq TO app",
        )
        .await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 4);
    let config = config.set("pools.primary", "max_pinned", 2).set("pools.primary", "wait_timeout", "30s");
    // Waits in vain are short. Where a connection or a place is to be had, the machine may take its time.
    let impatient = config.clone().set("pools.primary", "wait_timeout", "500ms");
    let mut proxy = Proxy::start(&config.to_toml());
    let mut holders = Vec::new();
    for key in 0..2 {
        let mut holder = RawClient::app(proxy.port()).await;
        holder.ask(&format!("SELECT pg_advisory_lock({key})")).await;
        holders.push(holder);
    }
    proxy.wait_for_metric(&pinned("advisory_locks"), 2.0).await;
    let (mut late, mut vain) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    proxy.reload_to(&impatient).await;
    for sql in [
        "SELECT pg_advisory_lock(7)",
        "CREATE TEMP TABLE t (a int)",
        "PREPARE p AS SELECT 1",
        "LOAD 'plpgsql'",
        "SELECT setseed(0.5)",
        "DO $$ BEGIN PERFORM set_config('app.' || 'x', '1', false); END $$",
        "SELECT lastval()",
    ] {
        let [code, message, hint] = error_of(&late.ask(sql).await).expect("refused before it runs");
        assert_eq!(code, "53300", "{sql}: {message}");
        assert!(message.contains("pool \"primary\" has 2 pinned connections"), "{message}");
        assert!(hint.contains("pools.primary.max_pinned"), "{hint}");
    }
    proxy.reload_to(&config).await;
    assert_eq!(late.query_value("SELECT 1").await, "1", "its session goes on");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(primary.value(locks).await, "2", "nothing was run");
    // In a transaction it may, if it leaves nothing.
    for sql in ["BEGIN", "SELECT 1", "SELECT pg_advisory_lock(7)", "SELECT pg_advisory_unlock(7)", "COMMIT"] {
        assert_eq!(error_of(&late.ask(sql).await), None, "{sql}");
    }
    // What goes with its transaction pins nobody.
    for sql in [
        "INSERT INTO counted DEFAULT VALUES",
        "BEGIN; CREATE TEMP TABLE t (a int) ON COMMIT DROP; INSERT INTO t VALUES (1); COMMIT",
        "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1",
        "SELEC 1; SELECT set_config('app.' || 'x', '1', false)",
    ] {
        let refused = error_of(&late.ask(sql).await).is_some_and(|[code, ..]| code == "53300");
        assert!(!refused, "{sql}");
    }
    // Who is pinned already may pin by more.
    assert_eq!(error_of(&holders[0].ask("CREATE TEMP TABLE t (a int)").await), None);
    // What did not show that it would pin is let be, and counted.
    let mut sly = RawClient::app(proxy.port()).await;
    assert_eq!(sly.query_value("SELECT sly()").await, "1");
    let over = r#"bulkhead_pool_pins_over_bound_total{pool="primary",server="primary"}"#;
    proxy.wait_for_metric(over, 1.0).await;
    assert_eq!(primary.value(locks).await, "3", "nothing was lost");
    proxy.wait_for_log("more sessions are pinned").await;
    // Who waits in vain is told what keeps the connections.
    late.ask("BEGIN").await;
    late.ask("SELECT 1 FOR UPDATE").await;
    proxy.reload_to(&impatient).await;
    let [code, message, hint] = error_of(&vain.ask("SELECT 1").await).expect("no connection");
    assert_eq!(code, "53300", "{message}");
    assert!(message.contains("3 of them kept by pinned sessions"), "{message}");
    assert!(hint.contains("bulkhead_pool_pinned"), "{hint}");
    late.ask("ROLLBACK").await;
    // Who asks for session mode is refused until there is a place, and keeps nothing meanwhile.
    let options = [("database", "app"), ("options", "-c bulkhead.pool_mode=session")];
    let mut asking = RawClient::try_login(proxy.port(), Login::App, &options).await.expect("logged in");
    for _ in 0..2 {
        assert_eq!(error_of(&asking.ask("SELECT 1").await).expect("refused")[0], "53300");
    }
    asking.settle().await;
    assert_eq!(proxy.metric(&pinned("session_mode")).await, Some(0.0));
    drop(asking);
    proxy.reload_to(&config).await;
    // A place is free again as soon as the state is gone.
    sly.ask("SELECT pg_advisory_unlock(99)").await;
    holders[1].ask("SELECT pg_advisory_unlock(1)").await;
    proxy.wait_for_metric(&pinned("advisory_locks"), 0.0).await;
    assert_eq!(error_of(&late.ask("SELECT pg_advisory_lock(7)").await), None);
    let refused = r#"bulkhead_pool_pin_refusals_total{pool="primary",server="primary"}"#;
    assert_eq!(proxy.metric(refused).await, Some(9.0));
}

#[tokio::test]
async fn a_pinned_session_that_idles_makes_room_only_if_others_wait() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let config = config
        .set("pools.primary", "max_pinned", 2)
        .set("pools.primary", "wait_timeout", "30s")
        .set("pools.primary", "pinned_idle_timeout", "200ms");
    let proxy = Proxy::start(&config.to_toml());
    let mut holders = [RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await];
    let mut third = RawClient::app(proxy.port()).await;
    for (key, holder) in (0..).zip(&mut holders) {
        holder.ask(&format!("SELECT pg_advisory_lock({key})")).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    for holder in &mut holders {
        assert_eq!(holder.query_value("SELECT 1").await, "1", "nobody waits: a lock may be held for hours");
    }
    assert_eq!(third.query_value("SELECT 3").await, "3");
    let mut ended = 0;
    let [one, other] = &mut holders;
    for holder in [one, other] {
        holder.query("SELECT 1").await;
        let first = holder.read_message().await;
        if first.tag == b'E' {
            ended += 1;
            assert_eq!(
                (first.field(b'S').as_deref(), first.field(b'C').as_deref()),
                (Some("FATAL"), Some("57P05"))
            );
            let message = first.field(b'M').expect("a message");
            assert!(message.contains("advisory_locks") && message.contains("pool \"primary\""), "{message}");
            assert!(first.field(b'H').expect("a hint").contains("pools.primary.pinned_idle_timeout"));
        }
    }
    assert_eq!(ended, 1, "one is enough");
}

/// A text longer than what is kept of a request pins its session only where it may set what cannot be asked for.
#[tokio::test]
async fn a_long_text_pins_only_if_it_sets_something() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE long_texts (a text); GRANT ALL ON long_texts TO app").await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.set("limits", "request_buffer", "64KiB").to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let filler = "x offset settled ".repeat(20_000);
    assert_eq!(error_of(&client.ask(&format!("INSERT INTO long_texts VALUES ('{filler}')")).await), None);
    assert_eq!(client.query_value("SELECT length(a) FROM long_texts").await, filler.len().to_string());
    client.settle().await;
    assert_eq!(proxy.metric(&pinned("hidden_settings")).await, Some(0.0));
    // What it sets may be listed: that is carried.
    client.ask(&format!("SET lock_timeout = '17s'; SELECT '{filler}'")).await;
    client.settle().await;
    assert_eq!(proxy.metric(&pinned("hidden_settings")).await, Some(0.0));
    // What is cut away from the beginning counts as well.
    let error = client.ask(&format!("SELECT '{filler}', set_config('app.' || 'late', 'mine', false)")).await;
    assert_eq!(error_of(&error), None);
    proxy.wait_for_metric(&pinned("hidden_settings"), 1.0).await;
    let mut other = RawClient::app(proxy.port()).await;
    for _ in 0..3 {
        assert_eq!(other.query_value("SELECT coalesce(current_setting('app.late', true), '')").await, "");
        assert_eq!(other.query_value("SHOW lock_timeout").await, "0");
        assert_eq!(client.query_value("SELECT current_setting('app.late', true)").await, "mine");
        assert_eq!(client.query_value("SHOW lock_timeout").await, "17s");
    }
}

async fn crowd(proxy: &Proxy, count: usize) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(RawClient::app(proxy.port()).await);
    }
    clients
}

/// Everybody says the same at once, statement by statement; what went wrong.
async fn all_at_once(clients: Vec<RawClient>, statements: &'static [&'static str]) -> Vec<String> {
    let mut running = tokio::task::JoinSet::new();
    for mut client in clients {
        running.spawn(async move {
            for sql in statements {
                if let Some([code, message, _]) = error_of(&client.ask(sql).await) {
                    return Some(format!("{sql}: {code} {message}"));
                }
            }
            None
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

fn over_bound() -> &'static str {
    r#"bulkhead_pool_pins_over_bound_total{pool="primary",server="primary"}"#
}

/// What Sequelize does to find or create a row: what a transaction makes and drops is no pin.
#[tokio::test]
async fn what_a_transaction_drops_again_needs_no_place() {
    let primary = Postgres::start(Role::Primary);
    let config =
        ProxyConfig::primary_only(&primary).set("auth", "method", "trust").pool("primary", &["primary"], 4);
    let config = config.set("pools.primary", "max_pinned", 1).set("pools.primary", "wait_timeout", "20s");
    let proxy = Proxy::start(&config.to_toml());
    let wrong = all_at_once(
        crowd(&proxy, 60).await,
        &[
            "START TRANSACTION",
            "CREATE OR REPLACE FUNCTION pg_temp.testfunc(OUT response int) LANGUAGE plpgsql AS $$ BEGIN response := 5; END $$",
            "SELECT * FROM pg_temp.testfunc()",
            "DROP FUNCTION IF EXISTS pg_temp.testfunc()",
            "COMMIT",
        ],
    )
    .await;
    assert!(wrong.is_empty(), "{wrong:?}");
    // A client has its answer before the server has been asked what is left.
    proxy.wait_for_metric(&pinned("temp_objects"), 0.0).await;
    assert_eq!(proxy.metric(over_bound()).await, Some(0.0));
}

/// What Django's `iterator` and psqlODBC's `UseDeclareFetch` do: everybody has a turn.
#[tokio::test]
async fn who_needs_a_place_waits_for_one() {
    let primary = Postgres::start(Role::Primary);
    let config =
        ProxyConfig::primary_only(&primary).set("auth", "method", "trust").pool("primary", &["primary"], 4);
    let config = config.set("pools.primary", "max_pinned", 2).set("pools.primary", "wait_timeout", "20s");
    let proxy = Proxy::start(&config.to_toml());
    for statements in [
        &[
            "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 10)",
            "FETCH 5 FROM c",
            "FETCH 5 FROM c",
            "CLOSE c",
        ][..],
        &[
            "BEGIN; DECLARE \"SQL_CUR01\" CURSOR WITH HOLD FOR SELECT 1; FETCH 1 IN \"SQL_CUR01\"",
            "COMMIT",
            "CLOSE \"SQL_CUR01\"",
        ],
        &["CREATE TEMP TABLE mine AS SELECT 1", "SELECT * FROM mine", "DROP TABLE mine"],
    ] {
        let wrong = all_at_once(crowd(&proxy, 20).await, statements).await;
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    // A client has its answer before the server has been asked what is left.
    proxy.wait_for_metric(&pinned("held_cursors"), 0.0).await;
    proxy.wait_for_metric(&pinned("temp_objects"), 0.0).await;
    assert_eq!(proxy.metric(over_bound()).await, Some(0.0), "the bound held");
}

/// Who waits for a place holds no connection, can be cancelled, and makes way when it leaves.
#[tokio::test]
async fn the_queue_for_places_can_be_left() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let config = config.set("pools.primary", "max_pinned", 1).set("pools.primary", "wait_timeout", "60s");
    let proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    holder.ask("CREATE TEMP TABLE mine (a int)").await;
    let mut waiters = crowd(&proxy, 3).await;
    for waiter in &mut waiters {
        waiter.query("SELECT pg_advisory_lock(1)").await;
    }
    let mut other = RawClient::app(proxy.port()).await;
    for _ in 0..20 {
        assert_eq!(other.query_value("SELECT 1").await, "1", "a connection is free");
    }
    let (pid, secret) = waiters[0].key().clone();
    let cancelled = async {
        loop {
            RawClient::cancel(proxy.port(), pid, &secret).await;
            if tokio::time::timeout(Duration::from_millis(200), waiters[0].peek()).await.is_ok() {
                return waiters[0].read_error().await;
            }
        }
    };
    let [code, ..] = cancelled.await.expect("it is cancelled");
    assert_eq!(code, "57014");
    assert_eq!(waiters[0].query_value("SELECT 1").await, "1");
    let mut last = waiters.pop().expect("three waited");
    drop(waiters);
    holder.ask("DROP TABLE mine").await;
    assert_eq!(last.read_error().await, None, "those before it have left, or have ended with what they got");
    proxy.wait_for_metric(&pinned("advisory_locks"), 1.0).await;
}

/// Pins that nobody has foreseen keep nobody from work for good.
#[tokio::test]
async fn pins_above_the_bound_make_room_for_those_who_wait() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let config = config.set("pools.primary", "max_pinned", 1).set("pools.primary", "wait_timeout", "20s");
    let proxy = Proxy::start(&config.to_toml());
    let mut holders = crowd(&proxy, 2).await;
    for holder in &mut holders {
        for sql in ["BEGIN", "CREATE TEMP TABLE mine (a int)", "COMMIT"] {
            assert_eq!(error_of(&holder.ask(sql).await), None, "{sql}");
        }
    }
    proxy.wait_for_metric(&pinned("temp_objects"), 2.0).await;
    assert_eq!(proxy.metric(over_bound()).await, Some(1.0));
    assert_eq!(RawClient::app(proxy.port()).await.query_value("SELECT 1").await, "1");
    let [first, second] = &mut holders[..] else { panic!("there are two") };
    assert_eq!(first.query_value("SELECT count(*) FROM mine").await, "0", "its place is its own");
    let end = second.read_message().await;
    assert_eq!(end.field(b'C').as_deref(), Some("57P05"), "{end:?}");
    assert!(end.field(b'H').is_some_and(|hint| hint.contains("pools.primary.max_pinned")), "{end:?}");
}
