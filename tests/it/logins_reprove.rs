//! Logins that the server has come to refuse: what we know of a user is not what the server knows today.

use std::{fmt::Write as _, fs, time::Duration};

use tokio::task::JoinSet;

use crate::support::{
    Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, Stop, error_of, eventually,
};

const CONNECTS: &str = "bulkhead_backend_connects_total{pool=\"primary\",server=\"primary\"}";

/// How a user is kept out, and let in again.
const REVOCATIONS: [(&str, &str); 4] = [
    ("ALTER ROLE {user} NOLOGIN", "ALTER ROLE {user} LOGIN"),
    ("ALTER ROLE {user} VALID UNTIL '2001-01-01'", "ALTER ROLE {user} VALID UNTIL 'infinity'"),
    ("ALTER ROLE {user} RENAME TO gone", "ALTER ROLE gone RENAME TO {user}"),
    (
        "REVOKE CONNECT ON DATABASE app FROM PUBLIC, app, app_two, app_md5",
        "GRANT CONNECT ON DATABASE app TO PUBLIC, app, app_two, app_md5",
    ),
];

async fn try_login(port: u16, login: Login) -> Result<RawClient, Message> {
    RawClient::try_login(port, login, &[("database", "app")]).await
}

fn told(error: &Message) -> [Option<String>; 3] {
    [b'S', b'C', b'M'].map(|field| error.field(field))
}

/// A users file in which `app` has a password and others have what the server keeps.
async fn users_file(primary: &Postgres, folder: &Scratch) -> String {
    let mut lines = "\"app\" \"secret\"\n".to_owned();
    for login in [Login::AppTwo, Login::Md5] {
        let (user, _) = login.credentials();
        let kept =
            primary.value(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")).await;
        writeln!(lines, "\"{user}\" \"{kept}\"").expect("text");
    }
    let path = folder.path().join("users");
    fs::write(&path, lines).expect("the folder is writable");
    path.to_str().expect("the path is text").to_owned()
}

/// All connections that a user has at the server.
async fn backends_of(primary: &Postgres, user: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{user}' \
         AND application_name <> 'bulkhead health check'"
    );
    primary.value(&sql).await
}

#[tokio::test]
async fn who_may_not_log_in_at_the_server_may_not_here() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = users_file(&primary, &folder).await;
    // A password, a key that passes through, a digest.
    for (method, login) in [
        ("scram-sha-256", Login::App),
        ("md5", Login::App),
        ("scram-sha-256", Login::AppTwo),
        ("md5", Login::Md5),
    ] {
        let config = ProxyConfig::primary_only(&primary)
            .set("auth", "method", method)
            .set("auth", "users_file", users.as_str())
            .set("auth", "reprove_after", "0s")
            // Somebody else's is used for what we ask ourselves.
            .set("servers.primary", "url", primary.url(Login::Admin));
        let proxy = Proxy::start(&config.to_toml());
        let (user, _) = login.credentials();
        for (revoke, restore) in REVOCATIONS {
            let case = format!("{method} {user}: {revoke}");
            if user == "app_md5" && revoke.contains("RENAME") {
                // The server forgets an md5 password with the name.
                continue;
            }
            let mut early =
                try_login(proxy.port(), login).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            assert_eq!(early.query_value("SELECT session_user").await, user, "{case}");

            primary.query(&revoke.replace("{user}", user)).await;
            let direct = try_login(primary.port(), login).await.err().expect("the server refuses it");
            let refused = try_login(proxy.port(), login).await.err();
            let refused = refused.unwrap_or_else(|| panic!("{case}: is let in"));
            assert_eq!(told(&refused), told(&direct), "{case}");
            if user == "app_md5" && revoke.contains("VALID UNTIL") {
                // In place of a digest that has expired the server asks for SCRAM.
                assert_eq!(refused.field(b'C').as_deref(), Some("28P01"), "{case}");
            }
            let gone = format!("the idle connections of {case} end");
            eventually(&gone, Duration::from_secs(10), async || {
                let left =
                    backends_of(&primary, user).await == "0" && backends_of(&primary, "gone").await == "0";
                left.then_some(())
            })
            .await;
            // Who is in stays in, and is told what the server says of a new connection.
            early.query("SELECT 1").await;
            let [code, ..] = early.read_error().await.expect("there is no connection for it");
            assert_eq!(Some(code), refused.field(b'C'), "{case}");

            primary.query(&restore.replace("{user}", user)).await;
            let again = try_login(proxy.port(), login).await;
            assert!(again.is_ok(), "{case}, restored: {:?}", again.err());
            assert_eq!(early.query_value("SELECT session_user").await, user, "{case}");
        }
    }
}

/// Another password at the server: what is known here proves nothing any more.
#[tokio::test]
async fn an_old_password_opens_neither_door() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = users_file(&primary, &folder).await;
    for (method, login) in
        [("scram-sha-256", Login::App), ("scram-sha-256", Login::AppTwo), ("md5", Login::Md5)]
    {
        let config = ProxyConfig::primary_only(&primary)
            .set("auth", "method", method)
            .set("auth", "users_file", users.as_str())
            .set("auth", "reprove_after", "0s")
            .set("servers.primary", "url", primary.url(Login::Admin));
        let proxy = Proxy::start(&config.to_toml());
        let (user, _) = login.credentials();
        drop(try_login(proxy.port(), login).await.unwrap_or_else(|error| panic!("{user}: {error:?}")));
        let kept =
            primary.value(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")).await;
        primary.query(&format!("ALTER ROLE {user} PASSWORD 'another'")).await;
        let refused = try_login(proxy.port(), login).await.err();
        let code = refused.as_ref().and_then(|refused| refused.field(b'C')).unwrap_or_default();
        assert!(code.starts_with("28"), "{user}: {refused:?}");
        primary.query(&format!("ALTER ROLE {user} PASSWORD '{kept}'")).await;
        assert!(try_login(proxy.port(), login).await.is_ok(), "{user}");
    }
}

#[tokio::test]
async fn a_young_proof_is_enough_and_proofs_make_no_pool_grow() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary);
    let proxy = Proxy::start(&config.to_toml());
    ten_clients_in_turn(&proxy).await;
    assert!(proxy.metric(CONNECTS).await <= Some(2.0), "{:?}", proxy.metric(CONNECTS).await);

    let proxy = {
        drop(proxy);
        Proxy::start(&config.set("auth", "reprove_after", "0s").to_toml())
    };
    ten_clients_in_turn(&proxy).await;
    assert!(proxy.metric(CONNECTS).await >= Some(10.0));
    // One that a proof found busy is still there, but not ten.
    eventually("no pool has grown", Duration::from_secs(5), async || {
        ["1", "2"].contains(&backends_of(&primary, "app").await.as_str()).then_some(())
    })
    .await;
}

/// Each comes when the one before has gone and its backend is back.
async fn ten_clients_in_turn(proxy: &Proxy) {
    for _ in 0..10 {
        let mut client = RawClient::app(proxy.port()).await;
        assert_eq!(client.query_value("SELECT 1").await, "1");
        drop(client);
        proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    }
}

/// Many logins of one user at once cost one connection, for which a place is waited for.
#[tokio::test]
async fn logins_that_wait_share_one_proof() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary)
        .set("auth", "reprove_after", "0s")
        .set("auth", "method", "trust")
        .pool("primary", &["primary"], 1);
    let proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    holder.ask("BEGIN; SELECT 1").await;
    let before = proxy.metric(CONNECTS).await.expect("it is there");
    let mut logins = JoinSet::new();
    for _ in 0..20 {
        let port = proxy.port();
        logins.spawn(async move { try_login(port, Login::App).await.map(drop) });
    }
    proxy.wait_for_metric("bulkhead_clients", 21.0).await;
    proxy.wait_for_metric("bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}", 1.0).await;
    holder.ask("COMMIT").await;
    while let Some(login) = logins.join_next().await {
        login.expect("no panic").unwrap_or_else(|error| panic!("{error:?}"));
    }
    let connects = proxy.metric(CONNECTS).await.expect("it is there") - before;
    assert!((1.0..=3.0).contains(&connects), "{connects} connections for 20 logins");
    assert_eq!(holder.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_full_pool_refuses_a_login_as_it_refuses_a_statement() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary)
        .set("auth", "reprove_after", "0s")
        .set("pools.primary", "wait_timeout", "30s")
        .pool("primary", &["primary"], 1);
    let mut proxy = Proxy::start(&config.to_toml());
    let mut holder = RawClient::app(proxy.port()).await;
    assert_eq!(error_of(&holder.ask("BEGIN; SELECT 1").await), None);
    proxy.reload_to(&config.clone().set("pools.primary", "wait_timeout", "300ms")).await;
    let refused = try_login(proxy.port(), Login::App).await.err().expect("there is no place");
    assert_eq!(refused.field(b'C').as_deref(), Some("53300"), "{refused:?}");
    assert!(refused.field(b'M').is_some_and(|text| text.contains("pool \"primary\"")), "{refused:?}");
    assert_eq!(holder.query_value("SELECT 1").await, "1", "who is in is not disturbed");
    proxy.reload_to(&config).await;
    holder.ask("COMMIT").await;
    assert!(try_login(proxy.port(), Login::App).await.is_ok());
}

/// What is down cannot say no: its users are let in, and their statements are told.
#[tokio::test]
async fn a_server_that_is_down_locks_nobody_out() {
    let primary = Postgres::start(Role::Primary);
    let config = ProxyConfig::primary_only(&primary).set("auth", "reprove_after", "0s").set(
        "pools.primary",
        "wait_timeout",
        "300ms",
    );
    let proxy = Proxy::start(&config.to_toml());
    drop(RawClient::app(proxy.port()).await);
    primary.stop(Stop::Fast);
    for _ in 0..3 {
        let mut client =
            try_login(proxy.port(), Login::App).await.unwrap_or_else(|error| panic!("{error:?}"));
        client.query("SELECT 1").await;
        let [code, ..] = client.read_error().await.expect("there is no server");
        assert_eq!(code, "08006");
    }
    primary.boot();
    eventually("the server is found again", Duration::from_secs(20), async || {
        let mut client = try_login(proxy.port(), Login::App).await.ok()?;
        client.query("SELECT 1").await;
        client.read_error().await.is_none().then_some(())
    })
    .await;
    // A role at its limit cannot be asked either.
    primary.query("ALTER ROLE app CONNECTION LIMIT 1").await;
    let mut holder = RawClient::app(proxy.port()).await;
    holder.ask("BEGIN; SELECT 1").await;
    assert!(try_login(proxy.port(), Login::App).await.is_ok());
    assert_eq!(holder.query_value("SELECT 1").await, "1");
}
