//! Bulkhead's own logins at servers: how they may ask for its password, and what its connections are called.

use std::time::Duration;

use bulkhead::auth::{ScramVerifier, Secret};

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, connect, eventually};

/// Has a server ask by other rules, by which it asks `app` for the password itself.
async fn set_rules(primary: &Postgres, rules: &str) {
    let file = primary.value("SELECT current_setting('hba_file')").await;
    let rules = format!("local all all trust\n{rules}").replace('\n', "\\n");
    primary.query(&format!("COPY (SELECT E'{rules}') TO PROGRAM 'xargs -0 printf %b > {file}'")).await;
    primary.query("SELECT pg_reload_conf()").await;
    eventually("the server asks `app` for the password itself", Duration::from_secs(10), async || {
        let mut client = RawClient::open(primary.port()).await;
        client.startup(&[("user", "app"), ("database", "app")]).await;
        (client.read_message().await.body[..] == [0, 0, 0, 3]).then_some(())
    })
    .await;
}

/// A login through a proxy of its own, whose server's URL ends with `parameters`.
async fn log_in(primary: &Postgres, login: Login, parameters: &str) -> Result<String, Message> {
    log_in_at(primary, &primary.url(login), login, parameters).await
}

async fn log_in_at(primary: &Postgres, url: &str, login: Login, parameters: &str) -> Result<String, Message> {
    let config = ProxyConfig::primary_only(primary)
        .set("servers.primary", "url", format!("{url}{parameters}"))
        .set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::try_login(proxy.port(), login, &[("database", "app")]).await?;
    Ok(client.query_value("SELECT session_user").await)
}

fn refused(result: Result<String, Message>) -> String {
    let error = result.expect_err("the login is refused");
    assert_eq!(error.field(b'C').as_deref(), Some("28000"), "{error:?}");
    error.field(b'M').unwrap_or_default()
}

#[tokio::test]
async fn a_server_asks_only_as_it_may() {
    let primary = Postgres::start(Role::Primary);
    let app = Login::App;
    assert_eq!(log_in(&primary, app, "?require_auth=scram-sha-256").await.expect("it is SCRAM"), "app");
    let message = refused(log_in(&primary, app, "?require_auth=password,md5,none").await);
    assert!(
        message.contains("SCRAM-SHA-256") && message.contains("require_auth=password,md5,none"),
        "{message}"
    );
    let message = refused(log_in(&primary, Login::Md5, "?require_auth=scram-sha-256").await);
    assert!(message.contains("an md5 digest"), "{message}");
    assert_eq!(log_in(&primary, Login::Md5, "?require_auth=!password,!none").await.expect("md5"), "app_md5");

    set_rules(&primary, "host all app all password\nhost all app_md5 all trust\n").await;
    // On this machine nobody else hears it.
    assert_eq!(log_in(&primary, app, "").await.expect("it is the machine's own"), "app");
    assert_eq!(log_in(&primary, app, "?require_auth=password").await.expect("allowed"), "app");
    for parameters in ["?require_auth=scram-sha-256", "?require_auth=!password"] {
        let message = refused(log_in(&primary, app, parameters).await);
        assert!(message.contains("the password itself"), "{parameters}: {message}");
    }
    // A server that asks for nothing may be anybody.
    assert_eq!(log_in(&primary, Login::Md5, "").await.expect("no password"), "app_md5");
    let message = refused(log_in(&primary, Login::Md5, "?require_auth=!none").await);
    assert!(message.contains("no proof at all"), "{message}");
}

/// This machine's address on a network, if it has one.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; TEST-NET-1 only has the system choose an address.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[tokio::test]
async fn a_password_is_not_told_to_a_network() {
    let Some(address) = own_address() else { return };
    let primary = Postgres::builder(Role::Primary).setting("listen_addresses", "*").start();
    set_rules(&primary, "host all all all password\n").await;
    let url = format!("postgres://app:secret@{address}:{}/app", primary.port());
    let message = refused(log_in_at(&primary, &url, Login::App, "").await);
    assert!(message.contains("the password itself") && message.contains("not encrypted"), "{message}");
    let message = refused(log_in_at(&primary, &url, Login::App, "?require_auth=!md5").await);
    assert!(message.contains("not encrypted"), "{message}");
    assert_eq!(
        log_in_at(&primary, &url, Login::App, "?require_auth=password").await.expect("it was written"),
        "app"
    );
}

/// A server that asks for few rounds wants to guess the password; one that asks for many, to keep us busy.
#[tokio::test]
async fn rounds_of_scram_have_bounds() {
    let primary = Postgres::start(Role::Primary);
    let verifier =
        |rounds| ScramVerifier::with_salt(&Secret::new("secret"), b"0123456789abcdef", rounds).to_text();
    let with = |text: &str| format!("ALTER ROLE app PASSWORD '{text}'");
    for rounds in [1, 4095] {
        primary.query(&with(&verifier(rounds))).await;
        let message = refused(log_in(&primary, Login::App, "").await);
        assert!(message.contains("fewer than 4096 iterations"), "{rounds}: {message}");
    }
    primary.query(&with(&verifier(4096))).await;
    assert_eq!(log_in(&primary, Login::App, "").await.expect("enough"), "app");
    // The server itself tries whether that would be an empty password, which takes it some seconds.
    let many = verifier(4096).replace("$4096:", "$4000001:");
    primary.query(&with(&many)).await;
    let message = refused(log_in(&primary, Login::App, "").await);
    assert!(message.contains("out of bounds"), "{message}");
}

#[tokio::test]
async fn connections_have_the_name_of_the_url_until_a_session_s_is_put_on_them() {
    let primary = Postgres::start(Role::Primary);
    let url = primary.url(Login::App) + "?application_name=my%20pool";
    let config = ProxyConfig::primary_only(&primary).set("servers.primary", "url", url).pool(
        "primary",
        &["primary"],
        1,
    );
    let proxy = Proxy::start(&config.to_toml());
    let names = "SELECT application_name FROM pg_stat_activity WHERE usename = 'app' \
                 AND application_name <> 'bulkhead health check'";
    let mut nameless = RawClient::app(proxy.port()).await;
    assert_eq!(primary.value(names).await, "my pool");
    assert_eq!(nameless.query_value("SHOW application_name").await, "my pool");
    let parameters = [("database", "app"), ("application_name", "mine")];
    let mut other = RawClient::try_login(proxy.port(), Login::App, &parameters).await.expect("it is let in");
    assert_eq!(other.parameter("application_name"), Some("mine"));
    assert_eq!(other.query_value("SHOW application_name").await, "mine");
    assert_eq!(primary.value(names).await, "mine");
    assert_eq!(nameless.query_value("SHOW application_name").await, "my pool");
    nameless.ask("SET application_name = 'set'").await;
    assert_eq!(other.query_value("SHOW application_name").await, "mine");
    assert_eq!(nameless.query_value("SHOW application_name").await, "set");
    nameless.ask("RESET application_name").await;
    assert_eq!(nameless.query_value("SHOW application_name").await, "my pool");
    // Without one in the URL they have none, as ever.
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    let client = connect(&proxy.url()).await.expect("it is let in");
    let row = client.query_one("SHOW application_name", &[]).await.expect("it is shown");
    assert_eq!(row.get::<_, &str>(0), "");
}
