//! What the server keeps for its own sessions and shows them: sequences, random numbers, connections to databases.

use std::time::Duration;

use crate::support::{Login, RawClient, Site, error_code, eventually};

async fn login_to(site: &Site, database: &str) -> RawClient {
    RawClient::login(site.proxy.port(), Login::App, database).await
}

/// Both backends are taken for a moment, so that whoever comes next may get either of them.
async fn shuffle(others: &mut [RawClient], sql: &str) {
    for other in others.iter_mut() {
        other.query(sql).await;
    }
    for other in others.iter_mut() {
        assert_eq!(error_code(&other.read_until_ready().await), None);
    }
}

#[tokio::test]
async fn lastval_is_the_sessions_own() {
    let site = Site::with_objects("CREATE TABLE t (id serial, who int); ALTER TABLE t OWNER TO app; ALTER TABLE t ALTER who SET NOT NULL", 2).await;
    let mut others = [site.client().await, site.client().await];
    let mut client = site.client().await;
    // Nothing of this session is known to the server yet, whatever the backends remember of others.
    shuffle(&mut others, "INSERT INTO t (who) VALUES (0); SELECT pg_sleep(0.002)").await;
    for ask in ["SELECT lastval()", "SELECT currval('t_id_seq')"] {
        assert_eq!(error_code(&client.ask(ask).await).as_deref(), Some("55000"), "{ask}");
    }
    // Now it is known to ask, and keeps the backend that it inserts on.
    for _ in 0..5 {
        let inserted = client.query_value("INSERT INTO t (who) VALUES (1) RETURNING id").await;
        let mut other = site.client().await;
        for _ in 0..3 {
            other.ask("INSERT INTO t (who) VALUES (2)").await;
        }
        assert_eq!(client.query_value("SELECT lastval()").await, inserted);
        assert_eq!(client.query_value("SELECT currval('t_id_seq')").await, inserted);
        other.terminate().await;
    }
    site.wait_for_pinned("sequences", 1.0).await;
    // What comes behind a DISCARD in its transaction is not discarded.
    client.ask("BEGIN").await;
    client.ask("DISCARD SEQUENCES").await;
    let inserted = client.query_value("INSERT INTO t (who) VALUES (1) RETURNING id").await;
    client.ask("COMMIT").await;
    shuffle(&mut others, "INSERT INTO t (who) VALUES (0); SELECT pg_sleep(0.002)").await;
    assert_eq!(client.query_value("SELECT lastval()").await, inserted);
    client.ask("DISCARD SEQUENCES").await;
    site.wait_for_pinned("sequences", 0.0).await;
    shuffle(&mut others, "INSERT INTO t (who) VALUES (0); SELECT pg_sleep(0.002)").await;
    assert_eq!(error_code(&client.ask("SELECT lastval()").await).as_deref(), Some("55000"));
}

#[tokio::test]
async fn what_a_library_keeps_is_the_sessions_own() {
    let site = Site::with_objects(
        "CREATE EXTENSION dblink; CREATE FUNCTION in_c() RETURNS text[] VOLATILE LANGUAGE C \
             AS '$libdir/dblink', 'dblink_get_connections'",
        2,
    )
    .await;
    let mut others = [site.client().await, site.client().await];
    let (user, password) = Login::App.credentials();
    let port = site.primary.port();
    let opens = format!(
        "SELECT dblink_connect('mine', 'host=127.0.0.1 port={port} dbname=app user={user} password={password}')"
    );
    let mut client = site.client().await;
    assert_eq!(client.query_value(&opens).await, "OK");
    site.wait_for_pinned("load", 1.0).await;
    for _ in 0..3 {
        shuffle(&mut others, "SELECT dblink_get_connections(), pg_sleep(0.002)").await;
        assert_eq!(client.query_value("SELECT a FROM dblink('mine', 'SELECT 7') AS t(a int)").await, "7");
        let seen = others[0].query_value("SELECT coalesce(dblink_get_connections()::text, 'none')").await;
        assert_eq!(seen, "none", "another's connection");
    }
    client.terminate().await;
    site.wait_for_pinned("load", 0.0).await;
    // The backend went with the session.
    for other in &mut others {
        other.ask("BEGIN").await;
        let seen = other.query_value("SELECT coalesce(dblink_get_connections()::text, 'none')").await;
        assert_eq!(seen, "none", "another's connection");
    }
    others[0].ask("ROLLBACK").await;
    // What a function in C that is no extension's keeps is not known to anybody.
    others[0].ask("SELECT in_c()").await;
    site.wait_for_pinned("load", 1.0).await;
}

#[tokio::test]
async fn a_seed_is_the_sessions_own() {
    let site = Site::start();
    let mut direct = RawClient::app(site.primary.port()).await;
    direct.ask("SELECT setseed(0.5)").await;
    let expected = direct.query_value("SELECT random()").await;
    for seed in ["SELECT setseed(0.5)", "SET seed = 0.5"] {
        let mut client = site.client().await;
        client.ask(seed).await;
        for _ in 0..4 {
            let mut other = site.client().await;
            assert_ne!(other.query_value("SELECT random()").await, expected, "another's numbers");
            other.terminate().await;
        }
        assert_eq!(client.query_value("SELECT random()").await, expected, "{seed}");
        client.terminate().await;
    }
}

#[tokio::test]
async fn a_pin_that_cannot_be_asked_for_outlasts_one_that_can() {
    let site = Site::start();
    let mut client = site.client().await;
    client.ask("SELECT setseed(0.5)").await;
    client.ask("CREATE TEMP TABLE t (a int)").await;
    client.ask("DROP TABLE t").await;
    site.wait_for_pinned("seed", 1.0).await;
}

#[tokio::test]
async fn temporary_objects_of_every_kind_pin() {
    let site = Site::start();
    let mut client = site.client().await;
    let kinds = [
        ("COLLATION pg_temp.c FROM \"C\"", "COLLATION pg_temp.c"),
        ("TEXT SEARCH DICTIONARY pg_temp.d (template = simple)", "TEXT SEARCH DICTIONARY pg_temp.d"),
        ("TYPE pg_temp.e AS ENUM ('a')", "TYPE pg_temp.e"),
        ("FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "FUNCTION pg_temp.f()"),
    ];
    for (created, dropped) in kinds {
        assert_eq!(error_code(&client.ask(&format!("CREATE {created}")).await), None, "{created}");
        site.wait_for_pinned("temp_objects", 1.0).await;
        assert_eq!(error_code(&client.ask(&format!("DROP {dropped}")).await), None, "{dropped}");
        site.wait_for_pinned("temp_objects", 0.0).await;
    }
}

#[tokio::test]
async fn a_database_of_idle_clients_can_be_dropped_renamed_and_copied() {
    let site = Site::with_objects("ALTER ROLE app CREATEDB", 2).await;
    let mut client = site.client().await;
    assert_eq!(error_code(&client.ask("CREATE DATABASE one").await), None);
    let mut tenant = login_to(&site, "one").await;
    for statement in
        ["CREATE DATABASE two TEMPLATE one", "ALTER DATABASE one RENAME TO three", "DROP DATABASE three"]
    {
        assert_eq!(tenant.query_value("SELECT 1").await, "1");
        assert_eq!(error_code(&client.ask(statement).await), None, "{statement}");
        if statement.starts_with("ALTER") {
            assert_eq!(error_code(&tenant.ask("SELECT 1").await).as_deref(), Some("3D000"));
            tenant = login_to(&site, "three").await;
        }
    }
    assert_eq!(error_code(&tenant.ask("SELECT 1").await).as_deref(), Some("3D000"));
}

/// Who is in a transaction when it is asked for is idle when it is over.
#[tokio::test]
async fn a_database_in_use_is_dropped_once_it_is_not() {
    let site = Site::with_objects("ALTER ROLE app CREATEDB", 2).await;
    let mut client = site.client().await;
    assert_eq!(error_code(&client.ask("CREATE DATABASE one").await), None);
    let mut tenant = login_to(&site, "one").await;
    assert_eq!(error_code(&tenant.ask("BEGIN; SELECT 1").await), None);
    client.query("DROP DATABASE one").await;
    eventually("the server waits for it to go", Duration::from_secs(4), async || {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DROP DATABASE%'";
        (site.primary.value(waits).await == "1").then_some(())
    })
    .await;
    assert_eq!(error_code(&tenant.ask("COMMIT").await), None);
    let answer = client.read_until_ready().await;
    assert_eq!(error_code(&answer), None, "{answer:?}");
}
