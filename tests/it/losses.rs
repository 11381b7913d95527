//! The connection to the server is lost while something is open on it: what the client is told agrees with what the
//! server did, whatever the client says next, and it can go on afterwards.

use std::time::Duration;

use crate::support::{
    Message, Postgres, Proxy, ProxyConfig, RawClient, Role, Say, Site, error_code, eventually,
};

const SOON: Duration = Duration::from_secs(10);

/// What a server says that ends a connection, or what is said in its place.
const LOST: [&str; 2] = ["57P01", "08006"];

async fn site() -> Site {
    Site::with_objects("CREATE TABLE kept (a int); GRANT ALL ON kept TO app", 4).await
}

/// Ends the backend of the proxy that is in this state, and waits until it is gone.
async fn end_backends(site: &Site, state: &str) {
    // The health check's own comes back at once, and is idle as well.
    let which = format!("state = '{state}' AND application_name <> 'bulkhead health check'");
    site.primary.wait_for_app_backends(&which, 1).await;
    site.primary.end_app_backends(&which).await;
    site.primary.wait_for_app_backends(&which, 0).await;
}

/// A session whose transaction has lost its connection, with COMMIT and ROLLBACK prepared before.
async fn bereft(site: &Site) -> RawClient {
    let mut client = site.client().await;
    client.parse("commit", "COMMIT").parse("rollback", "ROLLBACK").parse("one", "SELECT 1");
    client.finish().await;
    client.ask("BEGIN").await;
    client.ask("INSERT INTO kept VALUES (1)").await;
    end_backends(site, "idle in transaction").await;
    client
}

/// The status of a ReadyForQuery at the end.
fn status(answer: &[Message]) -> char {
    char::from(answer.last().expect("ReadyForQuery").body[0])
}

/// What a client may say next, and the status that it is told then.
fn next_words() -> Vec<(&'static str, Say, char)> {
    fn query(client: &mut RawClient, sql: &str) {
        client.message(b'Q', format!("{sql}\0").as_bytes());
    }
    fn unit<'a>(client: &'a mut RawClient, sql: &str) -> &'a mut RawClient {
        client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0)
    }
    vec![
        ("COMMIT", |client| query(client, "COMMIT"), 'I'),
        ("end", |client| query(client, " /* bye */ end;"), 'I'),
        ("ROLLBACK", |client| query(client, "ROLLBACK"), 'I'),
        ("COMMIT and more", |client| query(client, "COMMIT; SELECT 1"), 'I'),
        ("a statement", |client| query(client, "SELECT 1"), 'E'),
        ("an empty text", |client| query(client, ""), 'E'),
        ("a statement, then COMMIT", |client| query(client, "SELECT 1; COMMIT"), 'E'),
        ("ROLLBACK TO", |client| query(client, "ROLLBACK TO s"), 'E'),
        (
            "COMMIT, extended",
            |client| {
                unit(client, "COMMIT").sync();
            },
            'I',
        ),
        (
            "a statement, extended",
            |client| {
                unit(client, "SELECT 1").sync();
            },
            'E',
        ),
        (
            "prepared COMMIT",
            |client| {
                client.bind("", "commit", &[]).execute("", 0).sync();
            },
            'I',
        ),
        (
            "prepared ROLLBACK",
            |client| {
                client.bind("", "rollback", &[]).execute("", 0).sync();
            },
            'I',
        ),
        (
            "COMMIT, then Flush",
            |client| {
                unit(client, "COMMIT").flush_message().sync();
            },
            'I',
        ),
        (
            "Sync",
            |client| {
                client.sync();
            },
            'E',
        ),
        (
            "Close and Sync",
            |client| {
                client.close(b'S', "one").sync();
            },
            'E',
        ),
        (
            "Describe",
            |client| {
                client.describe(b'S', "one").sync();
            },
            'E',
        ),
        (
            "a portal",
            |client| {
                client.execute("p", 0).sync();
            },
            'E',
        ),
        ("a long statement", |client| query(client, &format!("SELECT '{}'", "x".repeat(3 << 20))), 'E'),
    ]
}

#[tokio::test]
async fn a_lost_transaction_is_told_by_an_error_whatever_comes_next() {
    let site = site().await;
    for (what, say, wanted) in next_words() {
        let mut client = bereft(&site).await;
        say(&mut client);
        client.flush().await;
        let mut answer = client.read_until_ready().await;
        if what.ends_with("Sync") {
            // There is no statement to be told of it: the status says so.
            assert!(matches!(RawClient::tags(&answer).as_str(), "Z" | "3Z"), "{what}: {answer:?}");
            assert_eq!(status(&answer), 'E', "{what}");
            answer = client.ask("SELECT 1").await;
        }
        let errors: Vec<_> = answer
            .iter()
            .filter(|message| message.tag == b'E')
            .filter_map(|error| error.field(b'C'))
            .collect();
        assert!(matches!(errors.as_slice(), [code] if LOST.contains(&code.as_str())), "{what}: {answer:?}");
        assert!(answer.iter().all(|message| message.tag != b'C'), "{what}: nothing was done: {answer:?}");
        assert_eq!(status(&answer), wanted, "{what}");
        if wanted == 'E' {
            let answer = client.ask("SELECT 1").await;
            assert_eq!(error_code(&answer).as_deref(), Some("25P02"), "{what}: it is told once");
            assert_eq!(client.ask("COMMIT").await[0].body, &b"ROLLBACK\0"[..], "{what}");
        }
        assert_eq!(client.query_value("SELECT count(*) FROM kept").await, "0", "{what}");
    }
}

/// Of settings that a transaction has made, and that were undone with its connection, the client is told what they are
/// again, by the connection that it gets next.
#[tokio::test]
async fn what_a_lost_transaction_had_set_is_told_as_undone() {
    let site = site().await;
    let told = |answer: &[Message]| -> Vec<String> {
        let told = answer.iter().filter(|message| message.tag == b'S');
        told.map(|message| String::from_utf8_lossy(&message.body).replace('\0', " ").trim().to_owned())
            .collect()
    };
    for set in ["SET TimeZone = 'Asia/Tokyo'", "SELECT set_config('TimeZone', 'Asia/Tokyo', true)"] {
        let mut client = site.client().await;
        client.ask("SET DateStyle = 'SQL, DMY'").await;
        let before = client.query_value("SHOW TimeZone").await;
        client.ask("BEGIN").await;
        assert_eq!(told(&client.ask(set).await), ["TimeZone Asia/Tokyo"], "{set}");
        end_backends(&site, "idle in transaction").await;
        assert!(LOST.contains(&error_code(&client.ask("SELECT 1").await).expect("it is lost").as_str()));
        client.ask("ROLLBACK").await;
        let answer = client.ask("SHOW TimeZone").await;
        assert_eq!(told(&answer), [format!("TimeZone {before}")], "{set}");
        let answer = client.ask("SHOW DateStyle").await;
        assert_eq!(told(&answer), Vec::<String>::new(), "it is told once");
        assert_eq!(client.query_value("SHOW DateStyle").await, "SQL, DMY");
    }
}

/// Ends of a failed transaction, in all the ways in which drivers say it.
#[tokio::test]
async fn a_failed_transaction_can_be_ended_by_what_was_prepared_before() {
    fn unit<'a>(client: &'a mut RawClient, sql: &str) -> &'a mut RawClient {
        client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0)
    }
    let ends: [(&str, Say, &str); 10] = [
        (
            "Bind",
            |client| {
                client.bind("", "rollback", &[]).execute("", 0).sync();
            },
            "2CZ",
        ),
        (
            "COMMIT",
            |client| {
                client.bind("", "commit", &[]).execute("", 0).sync();
            },
            "2CZ",
        ),
        (
            "Describe of both",
            |client| {
                client.describe(b'S', "rollback").bind("", "rollback", &[]).describe(b'P', "");
                client.execute("", 0).sync();
            },
            "tn2nCZ",
        ),
        (
            "a portal with a name",
            |client| {
                client.bind("p", "commit", &[]).execute("p", 0).sync();
            },
            "2CZ",
        ),
        (
            "Flush first",
            |client| {
                client.bind("", "rollback", &[]).execute("", 0).flush_message().sync();
            },
            "2CZ",
        ),
        (
            "more behind it",
            |client| {
                unit(unit(client, "ROLLBACK"), "SELECT 5").sync();
            },
            "12nC12TDCZ",
        ),
        (
            "its own transaction behind it",
            |client| {
                unit(unit(unit(client, "COMMIT"), "BEGIN"), "SELECT 5").sync();
            },
            "12nC12nC12TDCZ",
        ),
        (
            "prepared now, used later",
            |client| {
                client.parse("r", "ROLLBACK").describe(b'S', "r").sync();
            },
            "1tnZ",
        ),
        (
            "a text with more",
            |client| {
                client.message(b'Q', b"COMMIT; SELECT 5\0");
            },
            "CTDCZ",
        ),
        (
            "a text with more",
            |client| {
                client.message(b'Q', b"ROLLBACK; SELECT 5\0");
            },
            "CTDCZ",
        ),
    ];
    let site = site().await;
    for (what, say, tags) in ends {
        let mut client = bereft(&site).await;
        client.ask("SELECT 1").await;
        say(&mut client);
        client.flush().await;
        let answer = client.read_until_ready().await;
        let told: String = RawClient::tags(&answer).replace('N', "");
        assert_eq!(told, tags, "{what}: {answer:?}");
        if let Some(done) = answer.iter().find(|message| message.tag == b'C') {
            assert_eq!(done.body, &b"ROLLBACK\0"[..], "{what}");
        }
        if what.starts_with("prepared now") {
            assert_eq!(status(&answer), 'E', "{what}");
            client.bind("", "r", &[]).execute("", 0);
            assert_eq!(RawClient::tags(&client.finish().await), "2CZ", "{what}");
        }
        client.ask("ROLLBACK").await;
        assert_eq!(client.query_value("SELECT count(*) FROM kept").await, "0", "{what}");
    }
}

#[tokio::test]
async fn a_commit_that_was_not_answered_is_told_as_unknown() {
    let deferred = "CREATE TABLE slow (a int); GRANT ALL ON slow TO app; \
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$; \
        CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION wait()";
    let site = Site::with_objects(deferred, 4).await;
    for (end, code, wanted) in
        [("COMMIT", "08007", 'I'), ("SELECT 1; COMMIT", "08007", 'I'), ("SELECT pg_sleep(60)", "57P01", 'E')]
    {
        let mut client = site.client().await;
        client.ask("BEGIN").await;
        client.ask("INSERT INTO slow VALUES (1)").await;
        client.query(end).await;
        end_backends(&site, "active").await;
        let answer = client.read_until_ready().await;
        let errors: Vec<_> = answer
            .iter()
            .filter(|message| message.tag == b'E')
            .filter_map(|error| error.field(b'C'))
            .collect();
        assert_eq!(errors, [code], "{end}: {answer:?}");
        assert_eq!(status(&answer), wanted, "{end}");
        client.ask("ROLLBACK").await;
        assert_eq!(client.query_value("SELECT 1").await, "1", "{end}");
    }
}

/// Between a Flush and the Sync nobody expects a message: an error that came then would be taken for a notice. As with a
/// server's own connection, it is the last one.
#[tokio::test]
async fn a_lost_pipeline_ends_its_session() {
    let site = site().await;
    for transaction in ["", "BEGIN"] {
        let mut client = site.client().await;
        client.ask(transaction).await;
        client.parse("", "INSERT INTO kept VALUES (1)").bind("", "", &[]).execute("", 0).flush_message();
        client.flush().await;
        client.expect("12C").await;
        let all = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE usename = 'app' AND query LIKE 'INSERT%'";
        site.primary.query(all).await;
        let error = client.read_message().await;
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{transaction:?}: {error:?}");
        assert_eq!(error.field(b'C').as_deref(), Some("57P01"), "{transaction:?}: {error:?}");
        assert_eq!(client.try_read_message().await, None, "{transaction:?}");
        assert_eq!(site.client().await.query_value("SELECT count(*) FROM kept").await, "0");
    }
    // One that waits is told, and goes on.
    let mut client = site.client().await;
    client.parse("", "INSERT INTO kept SELECT 1 FROM pg_sleep(60)").bind("", "", &[]).execute("", 0);
    client.flush_message().flush().await;
    end_backends(&site, "active").await;
    let mut error = client.read_message().await;
    while error.tag != b'E' {
        error = client.read_message().await;
    }
    assert_eq!(error.field(b'S').as_deref(), Some("ERROR"), "{error:?}");
    client.parse("", "SELECT 1").bind("", "", &[]).execute("", 0);
    assert_eq!(RawClient::tags(&client.finish().await), "Z", "it is skipped");
    assert_eq!(client.query_value("SELECT count(*) FROM kept").await, "0");
}

/// What a statement has defined is looked at again even if its connection ends at once.
#[tokio::test]
async fn definitions_are_noticed_when_their_connection_is_lost() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE kept (a int); ALTER TABLE kept OWNER TO app").await;
    let config = ProxyConfig::primary_only(&primary).set("limits", "catalog_refresh", "1h");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let count = |class: &str, reason: &str| {
        format!("bulkhead_requests_total{{class=\"{class}\",pool=\"primary\",reason=\"{reason}\"}}")
    };
    let seen = async |client: &mut RawClient, sample: &str| {
        let before = proxy.metric(sample).await.unwrap_or_default();
        client.ask("SELECT a FROM kept").await;
        proxy.metric(sample).await.unwrap_or_default() > before
    };
    let (read, write) = (count("read", "read_only"), count("write", "relation"));
    let client = tokio::sync::Mutex::new(&mut client);
    eventually("the table is known", SOON, async || {
        seen(&mut **client.lock().await, &read).await.then_some(())
    })
    .await;
    client
        .lock()
        .await
        .ask("ALTER TABLE kept SET UNLOGGED; COMMIT; SELECT pg_terminate_backend(pg_backend_pid())")
        .await;
    assert_eq!(primary.value("SELECT relpersistence FROM pg_class WHERE relname = 'kept'").await, "u");
    eventually("it is known as it is now", SOON, async || {
        seen(&mut **client.lock().await, &write).await.then_some(())
    })
    .await;
}

/// A transaction that is refused between its backend and what was to be sent has failed, and the client is told so.
#[tokio::test]
async fn the_status_of_a_refused_transaction_is_its_own() {
    let site = site().await;
    for options in ["", "-c bulkhead.pool_mode=session"] {
        let mut client = site.client_with(&[("options", options)]).await;
        client.ask("BEGIN").await;
        client.bind("", "nothing", &[]).execute("", 0);
        let answer = client.finish().await;
        assert_eq!(error_code(&answer).as_deref(), Some("26000"), "{answer:?}");
        assert_eq!(status(&answer), 'E', "{answer:?}");
        assert_eq!(error_code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"), "{options}");
        assert_eq!(client.ask("COMMIT").await[0].body, &b"ROLLBACK\0"[..], "{options}");
        assert_eq!(client.query_value("SELECT 1").await, "1", "{options}");
    }
}
