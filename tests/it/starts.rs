//! What a session starts with: startup parameters that are wrong, those that are known, and defaults that change.

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, error_code};

fn config(primary: &Postgres, backends: i64) -> ProxyConfig {
    ProxyConfig::primary_only(primary).pool("primary", &["primary"], backends)
}

async fn try_login(proxy: &Proxy, parameters: &[(&str, &str)]) -> Result<RawClient, Message> {
    let parameters = [&[("database", "app")], parameters].concat();
    RawClient::try_login(proxy.port(), Login::App, &parameters).await
}

async fn login(proxy: &Proxy, parameters: &[(&str, &str)]) -> RawClient {
    try_login(proxy, parameters).await.expect("logged in")
}

#[tokio::test]
async fn wrong_startup_parameters_end_the_login() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary, 2).to_toml());
    for (name, value, code) in [
        ("options", "-c nosuch=1", "42704"),
        ("options", "-c work_mem=nonsense", "22023"),
        ("options", "-c work_mem=1", "22023"),
        ("options", "--search_path=public -c TimeZone=Nowhere", "22023"),
        ("options", "-c max_connections=5", "55P02"),
        ("options", "-c role=nobody", "22023"),
        ("options", "nonsense", "42601"),
        ("client_encoding", "nonsense", "22023"),
        ("nosuch", "1", "42704"),
    ] {
        // Again and again, and never remembered.
        for _ in 0..2 {
            let error = try_login(&proxy, &[(name, value)]).await.err().expect("the server would refuse it");
            assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{name}={value}");
            assert_eq!(error.field(b'C').as_deref(), Some(code), "{name}={value}: {error:?}");
        }
    }
    // None of them cost a connection.
    let connects = r#"bulkhead_backend_connects_total{pool="primary",server="primary"}"#;
    assert!(proxy.metric(connects).await.expect("the metric") <= 2.0);
    let mut client = login(&proxy, &[("options", "-c work_mem=3MB -c app.mine=x")]).await;
    assert_eq!(
        client.query_value("SELECT concat(current_setting('work_mem'), current_setting('app.mine'))").await,
        "3MBx"
    );
}

#[tokio::test]
async fn known_startup_parameters_need_no_server() {
    let primary = Postgres::start(Role::Primary);
    let config = config(&primary, 1).set("pools.primary", "wait_timeout", "30s");
    let mut proxy = Proxy::start(&config.to_toml());
    let known =
        [("client_encoding", "UTF8"), ("application_name", "first"), ("options", "-c lock_timeout=3s")];
    drop(login(&proxy, &known).await);
    let mut holder = login(&proxy, &known).await;
    holder.ask("BEGIN").await;
    assert_eq!(error_code(&holder.ask("SELECT 1 FOR UPDATE").await), None);
    // The only connection is taken.
    proxy.reload_to(&config.clone().set("pools.primary", "wait_timeout", "300ms")).await;
    let other_name = [known[0], ("application_name", "second of 7"), known[2]];
    let mut client = login(&proxy, &other_name).await;
    assert_eq!(client.parameter("application_name"), Some("second of 7"));
    assert_eq!(client.parameter("client_encoding"), Some("UTF8"));
    let asked =
        try_login(&proxy, &[("options", "-c work_mem=3MB")]).await.err().expect("nobody can be asked");
    assert_eq!(asked.field(b'C').as_deref(), Some("53300"));
    proxy.reload_to(&config).await;
    holder.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SHOW application_name").await, "second of 7");
    assert_eq!(client.query_value("SHOW lock_timeout").await, "3s");
    // What the server would change is asked for.
    let odd = login(&proxy, &[known[0], ("application_name", "odd \u{e9}"), known[2]]).await;
    assert_ne!(odd.parameter("application_name"), Some("odd \u{e9}"));
}

#[tokio::test]
async fn new_sessions_have_new_defaults() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary, 3).to_toml());
    let mut client = login(&proxy, &[]).await;
    let mut old = [login(&proxy, &[]).await, login(&proxy, &[]).await];
    for (round, statement) in [
        "ALTER ROLE app SET TimeZone = 'Asia/Tokyo'",
        "BEGIN; ALTER ROLE app SET TimeZone = 'Asia/Seoul'; COMMIT",
        "ALTER ROLE CURRENT_USER IN DATABASE app SET TimeZone = 'Asia/Dubai'",
        "ALTER ROLE app IN DATABASE app RESET TimeZone",
    ]
    .into_iter()
    .enumerate()
    {
        // Idle ones, and one that is busy meanwhile.
        for other in &mut old {
            other.query("SELECT pg_sleep(0.01)").await;
        }
        for other in &mut old {
            other.read_until_ready().await;
        }
        old[0].ask("BEGIN").await;
        let pid = old[0].query_value("SELECT pg_backend_pid()").await;
        assert_eq!(error_code(&client.ask(statement).await), None, "{statement}");
        assert_eq!(old[0].query_value("SELECT pg_backend_pid()").await, pid, "no transaction is cut");
        assert_eq!(error_code(&old[0].ask("COMMIT").await), None);
        let expected = ["Asia/Tokyo", "Asia/Seoul", "Asia/Dubai", "Asia/Seoul"][round];
        let mut news = Vec::new();
        for _ in 0..4 {
            let mut new = login(&proxy, &[]).await;
            assert_eq!(new.parameter("TimeZone"), Some(expected), "{statement}");
            new.query("SELECT pg_sleep(0.01), current_setting('TimeZone')").await;
            news.push(new);
        }
        for new in &mut news {
            let replies = new.read_until_ready().await;
            assert_eq!(replies[1].columns()[1].as_deref(), Some(expected), "{statement}");
        }
    }
}
