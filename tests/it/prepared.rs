//! Prepared statements of the protocol over shared backends.

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role};

fn config(primary: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(primary).pool("primary", &["primary"], 2)
}

async fn login(proxy: &Proxy) -> RawClient {
    RawClient::login(proxy.port(), Login::App, "app").await
}

async fn send(client: &mut RawClient) -> Vec<Message> {
    client.sync().flush().await;
    client.read_until_ready().await
}

fn values(replies: &[Message]) -> Vec<String> {
    let rows = replies.iter().filter(|message| message.tag == b'D');
    rows.flat_map(Message::columns).map(Option::unwrap_or_default).collect()
}

fn code(replies: &[Message]) -> Option<String> {
    replies.iter().find(|message| message.tag == b'E').and_then(|error| error.field(b'C'))
}

#[tokio::test]
async fn a_name_is_each_sessions_own() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = login(&proxy).await;
        client.parse("s", &format!("SELECT $1::text || ' of {number}'")).describe(b'S', "s");
        assert_eq!(RawClient::tags(&send(&mut client).await), "1tTZ");
        clients.push(client);
    }
    for round in 0..20 {
        for client in &mut clients {
            client.bind("", "s", &[Some(&round.to_string())]).execute("", 0).sync().flush().await;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let replies = client.read_until_ready().await;
            assert_eq!(RawClient::tags(&replies), "2DCZ");
            assert_eq!(values(&replies), [format!("{round} of {number}")]);
        }
    }
}

#[tokio::test]
async fn names_obey_the_servers_rules() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).set("limits", "prepared_per_client", 5).to_toml());
    let mut client = login(&proxy).await;
    client.bind("", "nobody", &[]).execute("", 0);
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("26000"));
    client.parse("s", "SELECT 1");
    assert_eq!(code(&send(&mut client).await), None);
    client.parse("s", "SELECT 2");
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("42P05"));
    client.parse("bulkhead_1", "SELECT 1");
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("42939"));

    // A Parse that fails leaves its name free, also one that was skipped because of it.
    client.parse("bad", "SELEC 1").parse("later", "SELECT 3");
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("42601"));
    client.parse("bad", "SELECT 2").parse("later", "SELECT 3");
    assert_eq!(RawClient::tags(&send(&mut client).await), "11Z");
    client.bind("", "bad", &[]).execute("", 0).bind("", "later", &[]).execute("", 0);
    assert_eq!(values(&send(&mut client).await), ["2", "3"]);

    // In a transaction a wrong name fails it, here and there.
    client.ask("BEGIN").await;
    client.query_value("SELECT 1 FOR UPDATE").await;
    client.bind("", "nobody", &[]).execute("", 0);
    let replies = send(&mut client).await;
    assert_eq!((code(&replies).as_deref(), replies[1].body[0]), (Some("26000"), b'E'));
    assert_eq!(code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"));
    client.ask("ROLLBACK").await;

    client.close(b'S', "bad");
    assert_eq!(RawClient::tags(&send(&mut client).await), "3Z");
    client.bind("", "bad", &[]).execute("", 0);
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("26000"));
    assert_eq!(RawClient::tags(&client.ask("DEALLOCATE later").await), "CZ");
    client.bind("", "later", &[]).execute("", 0);
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("26000"));

    for number in 0..4 {
        client.parse(&format!("n{number}"), "SELECT 1");
        assert_eq!(code(&send(&mut client).await), None, "{number}");
    }
    client.parse("one_more", "SELECT 1");
    let replies = send(&mut client).await;
    assert_eq!(code(&replies).as_deref(), Some("53400"));
    assert!(replies[0].field(b'H').is_some_and(|hint| hint.contains("prepared_per_client")), "{replies:?}");
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        assert_eq!(code(&client.ask(all).await), None);
        client.bind("", "n1", &[]).execute("", 0);
        assert_eq!(code(&send(&mut client).await).as_deref(), Some("26000"), "{all}");
        client.parse("n1", "SELECT 1");
        assert_eq!(code(&send(&mut client).await), None, "{all}");
    }
}

#[tokio::test]
async fn a_backend_keeps_a_bounded_number() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).set("limits", "prepared_per_backend", 5).to_toml());
    let mut client = login(&proxy).await;
    for number in 0..30 {
        client.parse(&format!("s{number}"), &format!("SELECT {number} + $1::int"));
        assert_eq!(code(&send(&mut client).await), None);
    }
    for round in 0..3 {
        for number in (0..30).rev() {
            client.bind("", &format!("s{number}"), &[Some("100")]).execute("", 0);
            assert_eq!(values(&send(&mut client).await), [(number + 100).to_string()], "round {round}");
        }
        let there =
            client.query_value("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").await;
        assert!(there.parse::<u32>().expect("a number") <= 6, "{there} on the backend");
    }
}

#[tokio::test]
async fn the_unnamed_statement_outlives_its_backend() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = login(&proxy).await;
        client.parse("", &format!("SELECT $1::int * 10 + {number}"));
        assert_eq!(RawClient::tags(&send(&mut client).await), "1Z");
        clients.push(client);
    }
    for round in 0..10 {
        for client in &mut clients {
            client.bind("", "", &[Some(&round.to_string())]).execute("", 0).sync().flush().await;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(values(&client.read_until_ready().await), [(round * 10 + number).to_string()]);
        }
    }
}

#[tokio::test]
async fn a_statement_parsed_after_a_change_has_the_new_columns() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (a int); INSERT INTO t VALUES (1); ALTER TABLE t OWNER TO app").await;
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut client = login(&proxy).await;
    for number in 0..5 {
        client.parse(&format!("s{number}"), "SELECT * FROM t").bind("", &format!("s{number}"), &[]);
        client.execute("", 0);
        let replies = send(&mut client).await;
        assert_eq!(code(&replies), None, "{replies:?}");
        assert_eq!(values(&replies).len(), number + 1);
        client.ask(&format!("ALTER TABLE t ADD COLUMN c{number} int DEFAULT {number}")).await;
    }
}

#[tokio::test]
async fn literals_are_read_by_the_sessions_own_settings() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    for zone in ["UTC", "America/New_York", "Asia/Tokyo", "UTC"] {
        let mut client = login(&proxy).await;
        client.ask(&format!("SET TimeZone = '{zone}'")).await;
        client.parse("s", "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')").bind("", "s", &[]);
        client.execute("", 0);
        let expected = primary
            .value(&format!("SELECT extract(epoch FROM timestamp '2024-01-01' AT TIME ZONE '{zone}')"))
            .await;
        assert_eq!(values(&send(&mut client).await), [expected], "{zone}");
    }
}

#[tokio::test]
async fn in_a_failed_transaction_only_its_end_is_parsed() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut client = login(&proxy).await;
    // The backend knows both texts by now.
    client.parse("select", "SELECT 1").parse("end", "ROLLBACK");
    assert_eq!(RawClient::tags(&send(&mut client).await), "11Z");
    client.ask("BEGIN").await;
    assert_eq!(code(&client.ask("SELECT 1 / 0").await).as_deref(), Some("22012"));
    client.parse("again", "SELECT 1");
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("25P02"));
    client.bind("", "again", &[]).execute("", 0);
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("26000"));
    client.parse("end_again", "ROLLBACK").bind("", "end_again", &[]).execute("", 0);
    client.parse("again", "SELECT 1").bind("", "again", &[]).execute("", 0);
    let replies = send(&mut client).await;
    assert_eq!((code(&replies), values(&replies)), (None, vec!["1".to_owned()]));
    // The statements from before are still there.
    for (name, expected) in [("select", vec!["1".to_owned()]), ("end", vec![])] {
        client.bind("", name, &[]).execute("", 0);
        let replies = send(&mut client).await;
        assert_eq!((code(&replies), values(&replies)), (None, expected), "{name}");
    }
}

#[tokio::test]
async fn a_begin_that_is_only_parsed_begins_nothing() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut client = login(&proxy).await;
    client.bind("", "nobody", &[]).execute("", 0).parse("begin", "BEGIN");
    let replies = send(&mut client).await;
    assert_eq!((code(&replies).as_deref(), replies[1].body[0]), (Some("26000"), b'I'));
    client.parse("begin", "BEGIN").parse("one", "SELECT 1").bind("", "one", &[]).execute("", 0);
    let replies = send(&mut client).await;
    assert_eq!((values(&replies), RawClient::tags(&replies)), (vec!["1".to_owned()], "112DCZ".to_owned()));
    assert_eq!(replies[5].body[0], b'I');
    client.bind("", "begin", &[Some("1")]).execute("", 0);
    assert_eq!(code(&send(&mut client).await).as_deref(), Some("08P01"));
    client.bind("", "begin", &[]).execute("nobody", 0);
    let replies = send(&mut client).await;
    assert_eq!((code(&replies).as_deref(), replies[2].body[0]), (Some("34000"), b'I'));
    client.bind("", "begin", &[]).describe(b'P', "").execute("", 0).close(b'P', "");
    let replies = send(&mut client).await;
    assert_eq!((RawClient::tags(&replies).as_str(), replies[4].body[0]), ("2nC3Z", b'T'));
}
