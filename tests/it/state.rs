//! Session state over a few shared backends: carried where it can be, pinned where it cannot, never another's.

use std::time::Duration;

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually};

/// Two backends for everybody, so that sessions meet each other's.
fn start(primary: &Postgres) -> Proxy {
    Proxy::start(&ProxyConfig::primary_only(primary).pool("primary", &["primary"], 2).to_toml())
}

async fn login_with(proxy: &Proxy, parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::open(proxy.port()).await;
    let all = [&[("user", "app"), ("database", "app")], parameters].concat();
    client.startup(&all).await;
    let (user, password) = Login::App.credentials();
    assert!(client.authenticate(user, password).await.is_none(), "logged in");
    client
}

async fn login(proxy: &Proxy) -> RawClient {
    login_with(proxy, &[]).await
}

async fn show(client: &mut RawClient, name: &str) -> String {
    client.query_value(&format!("SHOW {name}")).await
}

fn error_code(replies: &[Message]) -> Option<String> {
    replies.iter().find(|message| message.tag == b'E').and_then(|error| error.field(b'C'))
}

/// Takes both backends for a moment, so that whoever comes next may get either of them.
async fn shuffle(others: &mut [RawClient]) {
    for other in others.iter_mut() {
        other.query("SELECT pg_sleep(0.002)").await;
    }
    for other in others.iter_mut() {
        other.read_until_ready().await;
    }
}

#[tokio::test]
async fn settings_are_the_sessions_own() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut others = [login(&proxy).await, login(&proxy).await];
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = login(&proxy).await;
        client.ask(&format!("SET work_mem = '{}kB'", 1000 + number)).await;
        client.ask(&format!("SET app.user_id = 'user {number}'")).await;
        client.ask(&format!("SELECT set_config('search_path', 'schema_{number}, public', false)")).await;
        client.parse("", "SELECT set_config($1, $2, false)");
        client.bind("", "", &[Some("app.bound"), Some(&format!("bound {number}"))]).execute("", 0).sync();
        client.flush().await;
        client.read_until_ready().await;
        clients.push(client);
    }
    for round in 0..5 {
        shuffle(&mut others).await;
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(show(client, "work_mem").await, format!("{}kB", 1000 + number), "round {round}");
            assert_eq!(show(client, "app.user_id").await, format!("user {number}"));
            assert_eq!(show(client, "app.bound").await, format!("bound {number}"));
            assert_eq!(show(client, "search_path").await, format!("schema_{number}, public"));
        }
        for other in &mut others {
            assert_eq!(show(other, "work_mem").await, "4MB", "round {round}");
            let leaked = other.query_value("SELECT coalesce(current_setting('app.user_id', true), '')").await;
            assert_eq!(leaked, "", "another's custom setting");
        }
    }
    proxy.wait_for_metric(r#"bulkhead_sessions_pinned{reason="hidden_settings"}"#, 0.0).await;
}

#[tokio::test]
async fn a_custom_setting_that_was_reset_is_empty_on_every_backend() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let pid = "SELECT pg_backend_pid()";
    for (number, end) in ["RESET app_0.x", "RESET ALL", "DISCARD ALL", "ROLLBACK"].into_iter().enumerate() {
        let (name, mut client) = (format!("app_{number}.x"), login(&proxy).await);
        if end == "ROLLBACK" {
            client.ask("BEGIN").await;
        }
        client.ask(&format!("SET {name} = 'some'")).await;
        client.ask(end).await;
        let knowing = client.query_value(pid).await;
        // The other backend is the only one that is free.
        let mut holders = [login(&proxy).await, login(&proxy).await];
        let mut held = Vec::new();
        for holder in &mut holders {
            holder.ask("BEGIN").await;
            held.push(holder.query_value(pid).await);
        }
        let free = held.iter().position(|pid| *pid != knowing).expect("two backends");
        assert_eq!(
            error_code(&holders[free].ask(&format!("SHOW {name}")).await).as_deref(),
            Some("42704"),
            "{end}: only the session's backend has heard of it"
        );
        holders[free].ask("ROLLBACK").await;
        assert_eq!(show(&mut client, &name).await, "", "{end}");
        assert_eq!(client.query_value(pid).await, held[free], "{end}");
        client.terminate().await;
        for mut holder in holders {
            holder.terminate().await;
        }
    }
}

#[tokio::test]
async fn settings_follow_transactions() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut others = [login(&proxy).await, login(&proxy).await];
    let mut client = login(&proxy).await;
    client.ask("SET work_mem = '5MB'").await;

    client.ask("BEGIN").await;
    client.ask("SET work_mem = '6MB'").await;
    client.ask("SET LOCAL lock_timeout = '7s'").await;
    assert_eq!(show(&mut client, "lock_timeout").await, "7s");
    client.ask("ROLLBACK").await;
    shuffle(&mut others).await;
    assert_eq!(show(&mut client, "work_mem").await, "5MB");
    assert_eq!(show(&mut client, "lock_timeout").await, "0");

    client.ask("BEGIN").await;
    client.ask("SET work_mem = '8MB'").await;
    client.ask("SAVEPOINT s").await;
    client.ask("SET work_mem = '9MB'").await;
    client.ask("ROLLBACK TO s").await;
    client.ask("COMMIT").await;
    shuffle(&mut others).await;
    assert_eq!(show(&mut client, "work_mem").await, "8MB");

    // With one pool there is nothing to wait for: the error comes where it comes from a server.
    client.ask("BEGIN").await;
    assert_eq!(error_code(&client.ask("SET LOCAL work_mem = 'nonsense'").await).as_deref(), Some("22023"));
    assert_eq!(error_code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"));
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn settings_of_a_transaction_are_not_the_sessions() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut others = [login(&proxy).await, login(&proxy).await];
    let mut client = login(&proxy).await;
    for sql in ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET TRANSACTION READ ONLY"] {
        client.ask(sql).await;
        // The server is asked what is set, and lists those of the transaction that is over.
        client.ask("RESET ALL").await;
        for other in &mut others {
            other.ask("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
        }
        for _ in 0..4 {
            assert_eq!(show(&mut client, "transaction_isolation").await, "read committed", "{sql}");
            assert_eq!(show(&mut client, "transaction_read_only").await, "off", "{sql}");
            shuffle(&mut others).await;
        }
    }
}

#[tokio::test]
async fn a_statement_kept_back_tells_its_error_where_the_transaction_is_opened() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).pool("workers", &["primary"], 2);
    let proxy = Proxy::start(&config.set("workers", "users", vec!["nobody"]).to_toml());
    let mut client = login(&proxy).await;
    client.ask("BEGIN").await;
    assert_eq!(
        error_code(&client.ask("SET LOCAL work_mem = 'nonsense'").await),
        None,
        "answered before it is sent"
    );
    let replies = client.ask("SELECT 1").await;
    assert_eq!(error_code(&replies).as_deref(), Some("22023"), "{replies:?}");
    assert_eq!(RawClient::tags(&replies), "EZ");
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn reset_goes_back_to_the_sessions_start() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut others = [login(&proxy).await, login(&proxy).await];
    let start = [
        ("application_name", "first"),
        ("options", "-c work_mem=3MB -c lock_timeout=4s"),
        ("TimeZone", "Asia/Tokyo"),
    ];
    let mut client = login_with(&proxy, &start).await;
    assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert_eq!(client.parameter("application_name"), Some("first"));
    shuffle(&mut others).await;
    assert_eq!(show(&mut client, "TimeZone").await, "Asia/Tokyo");

    for reset in ["RESET work_mem", "SET work_mem TO DEFAULT", "RESET ALL", "DISCARD ALL"] {
        client.ask("SET work_mem = '11MB'").await;
        client.ask("SET lock_timeout = '12s'").await;
        assert_eq!(error_code(&client.ask(reset).await), None, "{reset}");
        assert_eq!(show(&mut client, "work_mem").await, "3MB", "{reset}");
        let all = reset.ends_with("ALL");
        assert_eq!(show(&mut client, "lock_timeout").await, if all { "4s" } else { "12s" }, "{reset}");
        shuffle(&mut others).await;
        assert_eq!(show(&mut client, "work_mem").await, "3MB", "{reset}, later");
        assert_eq!(show(&mut client, "application_name").await, "first", "{reset}");
    }
    for other in &mut others {
        assert_eq!(show(other, "TimeZone").await, primary.value("SHOW TimeZone").await);
        assert_eq!(show(other, "application_name").await, "");
    }

    // What cannot be set is said at login, as the server says it.
    let mut wrong = RawClient::open(proxy.port()).await;
    wrong.startup(&[("user", "app"), ("database", "app"), ("work_mem", "nonsense")]).await;
    let (user, password) = Login::App.credentials();
    let refused = wrong.authenticate(user, password).await.expect("an error");
    assert_eq!(refused.field(b'C').as_deref(), Some("22023"));
}

#[tokio::test]
async fn roles_are_carried_and_never_shared() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE ROLE low; GRANT low TO app").await;
    let proxy = start(&primary);
    let mut others = [login(&proxy).await, login(&proxy).await];
    let mut client = login(&proxy).await;
    client.ask("SET ROLE low").await;
    for _ in 0..5 {
        shuffle(&mut others).await;
        assert_eq!(client.query_value("SELECT current_user").await, "low");
        for other in &mut others {
            assert_eq!(other.query_value("SELECT current_user").await, "app");
        }
    }
    // A role that is gone: the statement is not run as anybody else, and the session can leave it.
    client.ask("RESET ROLE").await;
    client.ask("SET ROLE low").await;
    primary.query("REVOKE low FROM app").await;
    let mut refused = false;
    for _ in 0..10 {
        let mut held = login(&proxy).await;
        held.ask("BEGIN").await;
        held.ask("SELECT 1 FOR UPDATE").await;
        let replies = client.ask("SELECT current_user").await;
        match replies.iter().find(|message| message.tag == b'D') {
            Some(row) => assert_eq!(row.columns(), [Some("low".to_owned())]),
            None => refused = true,
        }
        held.terminate().await;
    }
    assert!(refused, "the role could not be set on every backend");
}

/// How to make a state, how to end it, and the metric's label.
const PINS: [(&str, &str, &str); 7] = [
    ("CREATE TEMP TABLE mine (a int)", "DROP TABLE mine", "temp_objects"),
    ("SELECT pg_advisory_lock(42)", "SELECT pg_advisory_unlock(42)", "advisory_locks"),
    (
        "SELECT pg_advisory_lock(('x' || substr(md5('k'), 1, 16))::bit(64)::bigint)",
        "SELECT pg_advisory_unlock_all()",
        "advisory_locks",
    ),
    ("PREPARE p AS SELECT 1", "DEALLOCATE p", "prepared_statements"),
    ("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT", "CLOSE c", "held_cursors"),
    ("DO $$ BEGIN EXECUTE 'LISTEN news'; END $$", "UNLISTEN news", "listen"),
    ("DO $$ BEGIN CREATE TEMP TABLE sly (a int); END $$", "DROP TABLE sly", "temp_objects"),
];

#[tokio::test]
async fn state_that_cannot_be_carried_pins_until_it_is_gone() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut others = [login(&proxy).await];
    let mut client = login(&proxy).await;
    for (make, end, label) in PINS {
        let pinned = format!(r#"bulkhead_sessions_pinned{{reason="{label}"}}"#);
        let replies = client.ask(make).await;
        assert_eq!(error_code(&replies), None, "{make}");
        proxy.wait_for_metric(&pinned, 1.0).await;
        let mine = client.query_value("SELECT pg_backend_pid()").await;
        for _ in 0..3 {
            shuffle(&mut others).await;
            assert_ne!(others[0].query_value("SELECT pg_backend_pid()").await, mine, "{make}: it is taken");
            assert_eq!(client.query_value("SELECT pg_backend_pid()").await, mine, "{make}: it is kept");
        }
        assert_eq!(error_code(&client.ask(end).await), None, "{end}");
        proxy.wait_for_metric(&pinned, 0.0).await;
    }
    let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), \
        (SELECT count(*) FROM pg_class WHERE relpersistence = 't')";
    eventually("the server holds nothing", Duration::from_secs(5), async || {
        (primary.value(&left.replace("SELECT (", "SELECT concat((").replace("t')", "t'))")).await == "00")
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_pinned_session_leaves_goes_with_it() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    client.ask("SELECT pg_advisory_lock(7)").await;
    client.ask("CREATE TEMP TABLE mine (a int)").await;
    client.ask("SET work_mem = '9MB'").await;
    client.terminate().await;
    eventually("the lock is free", Duration::from_secs(5), async || {
        let locks = primary.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await;
        (locks == "0").then_some(())
    })
    .await;
    let mut next = login(&proxy).await;
    for _ in 0..5 {
        assert_eq!(show(&mut next, "work_mem").await, "4MB");
        assert_eq!(error_code(&next.ask("SELECT * FROM mine").await).as_deref(), Some("42P01"));
    }
}

#[tokio::test]
async fn functions_that_set_things_leave_nothing_to_others() {
    let primary = Postgres::start(Role::Primary);
    primary
        .query(
            "CREATE FUNCTION sets() RETURNS int LANGUAGE plpgsql VOLATILE AS \
             $$ BEGIN PERFORM set_config('work_mem', '13MB', false); PERFORM set_config('hid.den', 'x', false); \
             RETURN 1; END $$",
        )
        .await;
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let mut other = login(&proxy).await;
    assert_eq!(client.query_value("SELECT sets()").await, "1");
    client.ask("DO $$ BEGIN PERFORM set_config('lock_timeout', '14s', false); END $$").await;
    for _ in 0..5 {
        assert_eq!(show(&mut other, "work_mem").await, "4MB");
        assert_eq!(show(&mut other, "lock_timeout").await, "0");
        assert_eq!(other.query_value("SELECT coalesce(current_setting('hid.den', true), '')").await, "");
        assert_eq!(show(&mut client, "work_mem").await, "13MB");
        assert_eq!(show(&mut client, "hid.den").await, "x");
        assert_eq!(show(&mut client, "lock_timeout").await, "14s");
    }
}

#[tokio::test]
async fn notifications_reach_who_listens() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut listener = login(&proxy).await;
    let mut sender = login(&proxy).await;
    listener.ask("LISTEN news").await;
    for number in 0..20 {
        sender.ask(&format!("NOTIFY news, '{number}'")).await;
        let heard = listener.read_message().await;
        assert_eq!(heard.tag, b'A');
        assert!(heard.body.ends_with(format!("news\0{number}\0").as_bytes()), "{heard:?}");
    }
    // Its own, too, and before the end of its statement.
    let replies = listener.ask("NOTIFY news, 'self'").await;
    assert_eq!(RawClient::tags(&replies), "CAZ");
}

#[tokio::test]
async fn reset_all_leaves_the_role_and_discard_all_does_not() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE ROLE reader; GRANT reader TO app").await;
    let proxy = start(&primary);
    let mut client = login_with(&proxy, &[("options", "-c role=reader -c work_mem=5MB")]).await;
    for (reset, role) in [("RESET ALL", "app"), ("DISCARD ALL", "reader")] {
        client.ask("SET ROLE app; SET work_mem = '6MB'").await;
        assert_eq!(error_code(&client.ask(reset).await), None);
        assert_eq!(client.query_value("SELECT current_user").await, role, "{reset}");
        assert_eq!(show(&mut client, "work_mem").await, "5MB", "{reset}");
    }
}
