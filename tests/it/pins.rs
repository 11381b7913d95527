//! The bound of pins: who would pin one session too many is refused, what is seen too late is told, and those who idle
//! may have to go.

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, error_of};

async fn login(proxy: &Proxy, database: &str) -> RawClient {
    RawClient::login(proxy.port(), Login::App, database).await
}

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
    let config = config.set("pools.primary", "max_pinned", 2).set("pools.primary", "wait_timeout", "500ms");
    let proxy = Proxy::start(&config.to_toml());
    let mut holders = Vec::new();
    for key in 0..2 {
        let mut holder = login(&proxy, "app").await;
        holder.ask(&format!("SELECT pg_advisory_lock({key})")).await;
        holders.push(holder);
    }
    proxy.wait_for_metric(&pinned("advisory_locks"), 2.0).await;
    let (mut late, mut vain) = (login(&proxy, "app").await, login(&proxy, "app").await);
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
    assert_eq!(late.query_value("SELECT 1").await, "1", "its session goes on");
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(primary.value(locks).await, "2", "nothing was run");
    // In a transaction, the transaction fails.
    late.ask("BEGIN").await;
    late.ask("SELECT 1").await;
    assert_eq!(error_of(&late.ask("SELECT pg_advisory_lock(7)").await).expect("refused")[0], "53300");
    assert_eq!(error_of(&late.ask("SELECT 1").await).expect("failed")[0], "25P02");
    late.ask("ROLLBACK").await;
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
    let mut sly = login(&proxy, "app").await;
    assert_eq!(sly.query_value("SELECT sly()").await, "1");
    let over = r#"bulkhead_pool_pins_over_bound_total{pool="primary",server="primary"}"#;
    proxy.wait_for_metric(over, 1.0).await;
    assert_eq!(primary.value(locks).await, "3", "nothing was lost");
    proxy.wait_for_log("more sessions are pinned").await;
    // Who waits in vain is told what keeps the connections.
    late.ask("BEGIN").await;
    late.ask("SELECT 1 FOR UPDATE").await;
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
    assert_eq!(proxy.metric(&pinned("session_mode")).await, Some(0.0));
    drop(asking);
    // A place is free again as soon as the state is gone.
    sly.ask("SELECT pg_advisory_unlock(99)").await;
    holders[1].ask("SELECT pg_advisory_unlock(1)").await;
    proxy.wait_for_metric(&pinned("advisory_locks"), 0.0).await;
    assert_eq!(error_of(&late.ask("SELECT pg_advisory_lock(7)").await), None);
    let refused = r#"bulkhead_pool_pin_refusals_total{pool="primary",server="primary"}"#;
    assert_eq!(proxy.metric(refused).await, Some(10.0));
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
    let mut holders = [login(&proxy, "app").await, login(&proxy, "app").await];
    let mut third = login(&proxy, "app").await;
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
    let mut client = login(&proxy, "app").await;
    let filler = "x offset settled ".repeat(20_000);
    assert_eq!(error_of(&client.ask(&format!("INSERT INTO long_texts VALUES ('{filler}')")).await), None);
    assert_eq!(client.query_value("SELECT length(a) FROM long_texts").await, filler.len().to_string());
    assert_eq!(proxy.metric(&pinned("hidden_settings")).await, Some(0.0));
    // What it sets may be listed: that is carried.
    client.ask(&format!("SET lock_timeout = '17s'; SELECT '{filler}'")).await;
    assert_eq!(proxy.metric(&pinned("hidden_settings")).await, Some(0.0));
    // What is cut away from the beginning counts as well.
    let error = client.ask(&format!("SELECT '{filler}', set_config('app.' || 'late', 'mine', false)")).await;
    assert_eq!(error_of(&error), None);
    proxy.wait_for_metric(&pinned("hidden_settings"), 1.0).await;
    let mut other = login(&proxy, "app").await;
    for _ in 0..3 {
        assert_eq!(other.query_value("SELECT coalesce(current_setting('app.late', true), '')").await, "");
        assert_eq!(other.query_value("SHOW lock_timeout").await, "0");
        assert_eq!(client.query_value("SELECT current_setting('app.late', true)").await, "mine");
        assert_eq!(client.query_value("SHOW lock_timeout").await, "17s");
    }
}
