//! The texts that sessions have prepared are nobody else's: `pg_prepared_statements` shows none of another session, by
//! whatever way it is read.

use std::time::Duration;

use crate::support::{
    Login, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role, Site, error_of, eventually, values,
};

const OBJECTS: &str = "\
SET ROLE app; \
CREATE VIEW shown AS SELECT name, statement FROM pg_prepared_statements; \
CREATE VIEW nested AS SELECT * FROM shown; \
CREATE FUNCTION by_sql() RETURNS SETOF text LANGUAGE sql STABLE AS 'SELECT statement FROM pg_prepared_statements'; \
CREATE FUNCTION by_plpgsql() RETURNS SETOF text LANGUAGE plpgsql STABLE AS \
 $$ BEGIN RETURN QUERY SELECT p.statement FROM pg_prepared_statement() p; END $$; \
CREATE FUNCTION by_text() RETURNS SETOF text LANGUAGE plpgsql AS \
 $$ BEGIN RETURN QUERY EXECUTE 'SELECT statement FROM pg_prepared' || '_statements'; END $$; \
CREATE FUNCTION standard() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC SELECT statement FROM pg_prepared_statements; END; \
CREATE TABLE kept (a int)";

/// Ways to read them, each of which gives texts.
const WAYS: &[&str] = &[
    "SELECT statement FROM pg_prepared_statements",
    "SELECT statement FROM pg_prepared_statement()",
    "SELECT statement FROM pg_catalog.\"pg_prepared_statements\"",
    "SELECT statement FROM U&\"pg_prepared\\005fstatements\"",
    "SELECT statement FROM shown",
    "SELECT statement FROM nested",
    "SELECT by_sql()",
    "SELECT by_plpgsql()",
    "SELECT by_text()",
    "SELECT standard()",
    "SELECT query_to_xml('SELECT statement FROM pg_prepared_statements', true, true, '')",
    "COPY (SELECT statement FROM pg_prepared_statements) TO STDOUT",
    "WITH s AS (SELECT * FROM pg_prepared_statements) SELECT statement FROM s",
];

/// Another session prepares a text, on the one backend that there is.
async fn prepare(owner: &mut RawClient, name: &str) {
    owner.parse(name, &format!("SELECT 'secret of {name}', $1::int, a FROM kept"));
    owner.bind("", name, &[Some("1")]).execute("", 0);
    assert_eq!(owner.exchange().await, "12CZ");
}

fn shows(answer: &[crate::support::Message], what: &str) -> bool {
    answer.iter().any(|message| String::from_utf8_lossy(&message.body).contains(what))
}

#[tokio::test]
async fn no_way_shows_the_texts_of_others() {
    let site = Site::with_objects(OBJECTS, 1).await;
    let (mut owner, mut reader) = (site.client().await, site.client().await);
    prepare(&mut owner, "own").await;
    let own = owner.ask("SELECT statement FROM pg_prepared_statements").await;
    assert!(shows(&own, "secret of own"), "the session's own: {:?}", values(&own));
    for (number, way) in WAYS.iter().enumerate() {
        let name = format!("s{number}");
        prepare(&mut owner, &name).await;
        let answer = reader.ask(way).await;
        assert_eq!(error_of(&answer), None, "{way}");
        assert!(!shows(&answer, "secret"), "{way}: {:?}", values(&answer));
        // In a transaction that has begun with what is proven.
        prepare(&mut owner, &format!("{name}b")).await;
        for text in ["BEGIN", "SELECT count(*) FROM kept"] {
            reader.ask(text).await;
        }
        let answer = reader.ask(way).await;
        assert!(error_of(&answer).is_none() && !shows(&answer, "secret"), "{way}: {:?}", values(&answer));
        reader.ask("COMMIT").await;
        // Bound to an own name.
        prepare(&mut owner, &format!("{name}c")).await;
        if !way.starts_with("COPY") {
            reader.parse("", way).bind("", "", &[]).execute("", 0).sync().flush().await;
            let answer = reader.read_until_ready().await;
            assert!(error_of(&answer).is_none() && !shows(&answer, "secret"), "{way}");
        }
        // The owner goes on, with what it has.
        owner.bind("", &name, &[Some("1")]).execute("", 0);
        assert_eq!(owner.exchange().await, "2CZ", "{way}");
    }
}

#[tokio::test]
async fn nor_does_a_connection_that_is_kept() {
    let site = Site::with_objects(OBJECTS, 1).await;
    let (mut owner, mut reader) = (site.client().await, site.client().await);
    prepare(&mut owner, "first").await;
    // Pinned by names of its own, which must stay.
    assert_eq!(error_of(&reader.ask("PREPARE mine AS SELECT 'my own'").await), None);
    let answer = reader.ask("SELECT statement FROM pg_prepared_statements").await;
    assert!(shows(&answer, "my own") && !shows(&answer, "secret"), "{:?}", values(&answer));
    assert_eq!(reader.query_value("EXECUTE mine").await, "my own");
    reader.ask("DEALLOCATE mine").await;
    prepare(&mut owner, "second").await;
    // Pinned by something else.
    for text in ["SELECT pg_advisory_lock(1)", "SELECT count(*) FROM kept"] {
        assert_eq!(error_of(&reader.ask(text).await), None);
    }
    let answer = reader.ask("SELECT statement FROM pg_prepared_statements").await;
    assert!(error_of(&answer).is_none() && !shows(&answer, "secret"), "{:?}", values(&answer));
    reader.ask("SELECT pg_advisory_unlock(1)").await;
    prepare(&mut owner, "third").await;
    // Between a Flush and its Sync.
    reader
        .parse("", "SELECT count(*) FROM kept")
        .bind("", "", &[])
        .execute("", 0)
        .flush_message()
        .flush()
        .await;
    reader.parse("", WAYS[0]).bind("", "", &[]).execute("", 0).sync().flush().await;
    let answer = reader.read_until_ready().await;
    assert!(error_of(&answer).is_none() && !shows(&answer, "secret"), "{:?}", values(&answer));
}

/// What is proven costs the connection nothing of what others have prepared there.
#[tokio::test]
async fn proven_texts_leave_what_is_prepared() {
    let logged = format!("ALTER ROLE app SET log_min_duration_statement = 0; {OBJECTS}");
    let site = Site::with_objects(&logged, 1).await;
    let (mut owner, mut other) = (site.client().await, site.client().await);
    prepare(&mut owner, "kept").await;
    for text in
        ["SELECT count(*) FROM kept", "INSERT INTO kept VALUES (1)", "BEGIN", "SELECT 1 FROM kept", "COMMIT"]
    {
        assert_eq!(error_of(&other.ask(text).await), None);
    }
    let parsed = || site.primary.log().matches("parse bulkhead_").count();
    owner.bind("", "kept", &[Some("1")]).execute("", 0);
    assert_eq!(owner.exchange().await, "2DCZ");
    assert_eq!(parsed(), 1, "nothing was parsed again");
    // What is not proven does.
    other.ask("SELECT by_text()").await;
    owner.bind("", "kept", &[Some("1")]).execute("", 0);
    assert_eq!(owner.exchange().await, "2DCZ");
    assert_eq!(parsed(), 2);
}

/// A server that does not answer in time cannot let go of what others have prepared: nothing is run, the transaction is
/// said to be lost, and the session, which has nothing else there, goes on.
#[tokio::test]
async fn a_session_goes_on_when_the_texts_of_others_cannot_be_hidden() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE kept (a int); GRANT SELECT, INSERT ON kept TO app").await;
    let relay = Relay::start(primary.port());
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.primary", "url", Login::App.url(relay.port(), "app"))
        .set("servers.primary", "max_connections", 1)
        .pool("primary", &["primary"], 1);
    let proxy = Proxy::start(&config.to_toml());
    let mut owner = RawClient::login(proxy.port(), Login::App, "app").await;
    let mut reader = RawClient::login(proxy.port(), Login::App, "app").await;
    let proven = r#"bulkhead_requests_total{class="read",pool="primary",reason="read_only"}"#;
    eventually("reads are known", Duration::from_secs(20), async || {
        owner.ask("SELECT count(*) FROM kept").await;
        proxy.metric(proven).await.filter(|count| *count > 0.0)
    })
    .await;
    prepare(&mut owner, "own").await;
    for text in ["BEGIN", "SELECT count(*) FROM kept", "INSERT INTO kept VALUES (1)"] {
        assert_eq!(error_of(&reader.ask(text).await), None);
    }
    relay.stall(true);
    let answer = reader.ask(WAYS[0]).await;
    relay.stall(false);
    let [code, message, ..] = error_of(&answer).expect("an error");
    assert_eq!(code, "08006");
    assert!(message.contains("did not answer in time; its open transaction was rolled back"), "{message}");
    let refused = error_of(&reader.ask("SELECT 1").await).map(|[code, ..]| code);
    assert_eq!(refused.as_deref(), Some("25P02"));
    assert_eq!(error_of(&reader.ask("ROLLBACK").await), None);
    assert_eq!(reader.query_value("SELECT count(*) FROM kept").await, "0");
}
