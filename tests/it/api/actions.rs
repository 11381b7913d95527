//! Actions over HTTP: only with the token, and what they do.

use super::{SOON, TOKEN, act, ask, get};
use crate::support::{Postgres, Proxy, ProxyConfig, RawClient, Role, error_code, eventually};

fn config(primary: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(primary).set("listen", "http_token", TOKEN)
}

const ACTIONS: [&str; 5] =
    ["pools/primary/pause", "pools/primary/resume", "pools/primary/reconnect", "clients/1/kill", "reload"];

#[tokio::test]
async fn nothing_is_done_without_the_token() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&ProxyConfig::primary_only(&primary).to_toml());
    for action in ACTIONS {
        let told = act(&proxy, action).await;
        assert_eq!(told.status, 403, "{action}: {told:?}");
        let hint = told.json()["error"]["hint"].as_str().unwrap_or_default().to_owned();
        assert!(hint.contains("listen.http_token"), "{hint}");
    }
    let proxy = Proxy::start(&config(&primary).to_toml());
    let wrong = [
        String::new(),
        "Authorization: Bearer a-token-of-somebody-else\r\n".to_owned(),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Cookie: Authorization=Bearer {TOKEN}; token={TOKEN}\r\n"),
        format!("X-Authorization: Bearer {TOKEN}\r\n"),
    ];
    for action in ACTIONS {
        for headers in &wrong {
            let told = ask(&proxy, &format!("POST /api/v1/{action}"), headers).await;
            assert_eq!(told.status, 401, "{action} {headers}: {told:?}");
            assert!(told.head.contains("www-authenticate: bearer"), "{told:?}");
        }
        let told = ask(&proxy, &format!("POST /api/v1/{action}?token={TOKEN}"), "").await;
        assert_eq!(told.status, 401, "{action}: {told:?}");
        // Nor by another method.
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            let line = format!("{method} /api/v1/{action}");
            let told = ask(&proxy, &line, &format!("Authorization: Bearer {TOKEN}\r\n")).await;
            assert_eq!(told.status, 405, "{line}: {told:?}");
            assert!(!told.head.contains("access-control-"), "{told:?}");
        }
    }
    let told = get(&proxy, "/api/v1/pools").await.json();
    assert_ne!(told["pools"][0]["state"], "paused");
    assert!(!proxy.log().contains(TOKEN));
}

#[tokio::test]
async fn a_pool_pauses_and_goes_on() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
    let told = act(&proxy, "pools/primary/pause").await;
    assert_eq!((told.status, &told.json()["done"]), (200, &"PAUSE".into()), "{told:?}");
    eventually("it is quiet", SOON, async || {
        let pool = get(&proxy, "/api/v1/pools").await.json()["pools"][0].clone();
        (pool["state"] == "paused" && pool["is_quiet"] == true).then_some(())
    })
    .await;
    client.query("SELECT 2").await;
    eventually("it waits", SOON, async || {
        let health = get(&proxy, "/api/v1/health").await.json();
        let summary = health["summary"].as_str().unwrap_or_default().to_owned();
        (health["level"] == "warning" && summary.starts_with("Pool primary is paused: ")).then_some(())
    })
    .await;
    assert_eq!(act(&proxy, "pools/primary/pause").await.status, 409);
    assert_eq!(act(&proxy, "pools/primary/resume").await.status, 200);
    assert_eq!(client.read_error().await, None);
    assert_eq!(act(&proxy, "pools/primary/resume").await.status, 409);
    for unknown in ["pools/nothing/pause", "pools/%70rimar/resume", "clients/1/kill", "clients/x/kill"] {
        let told = act(&proxy, unknown).await;
        assert_eq!(told.status, 404, "{unknown}: {told:?}");
    }
    // A name may be written in percent signs; one that begins anew is another connection.
    let before = client.query_value("SELECT pg_backend_pid()").await;
    assert_eq!(act(&proxy, "pools/%70rimary/reconnect").await.status, 200);
    assert_ne!(client.query_value("SELECT pg_backend_pid()").await, before);
    let events = get(&proxy, "/api/v1/events").await.body;
    assert!(events.contains("PAUSE was asked for over HTTP"), "{events}");
}

#[tokio::test]
async fn a_client_is_disconnected_and_the_configuration_read_again() {
    let primary = Postgres::start(Role::Primary);
    let mut proxy = Proxy::start(&config(&primary).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("BEGIN").await;
    client.query_value("SELECT 1").await;
    let id = get(&proxy, "/api/v1/clients").await.json()["clients"][0]["id"].clone();
    assert_eq!(act(&proxy, &format!("clients/{id}/kill")).await.status, 200);
    let mut answer = Vec::new();
    while let Some(message) = client.try_read_message().await {
        answer.push(message);
    }
    assert_eq!(error_code(&answer).as_deref(), Some("57P01"));

    let path = proxy.config_path();
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::write(&path, text.replace("max_connections = 10", "max_connections = 12")).expect("writable");
    let told = act(&proxy, "reload").await;
    assert_eq!(told.status, 200, "{told:?}");
    assert!(
        told.json()["changes"].to_string().contains("pools.primary.max_connections: 10 -> 12"),
        "{told:?}"
    );
    std::fs::write(&path, text.replace("max_connections = 10", "max_connections = 0")).expect("writable");
    let told = act(&proxy, "reload").await;
    assert_eq!(told.status, 422, "{told:?}");
    assert!(told.json()["error"]["message"].as_str().is_some_and(|why| why.contains("nothing was changed")));
    // Another token is in force at once, and shown nowhere.
    proxy.reload(&config(&primary).set("listen", "http_token", "another-token-of-an-operator").to_toml());
    proxy.wait_for_log("listen.http_token: another value").await;
    assert_eq!(act(&proxy, "pools/primary/reconnect").await.status, 401);
    assert!(!proxy.log().contains("another-token-of-an-operator"));
}
