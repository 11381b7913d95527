//! Who may come in, by what is known of them, and whether they then reach the server as themselves: passwords, md5
//! digests and SCRAM verifiers of a users file.

use std::{fmt::Write as _, fs};

use crate::support::{Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch};

/// A users file of which each line has what the server itself keeps.
async fn proxy_with_servers_verifiers(primary: &Postgres, method: &str) -> (Proxy, Scratch) {
    let mut lines = String::new();
    for login in [Login::AppTwo, Login::Md5] {
        let (user, _) = login.credentials();
        let kept =
            primary.value(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'")).await;
        writeln!(lines, "\"{user}\" \"{kept}\"").expect("text");
    }
    assert!(lines.contains("SCRAM-SHA-256$") && lines.contains("\"md5"), "the server keeps both kinds");
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, lines).expect("the folder is writable");
    let config = ProxyConfig::primary_only(primary).set("auth", "method", method).set(
        "auth",
        "users_file",
        users.to_str().expect("the path is text"),
    );
    (Proxy::start(&config.to_toml()), folder)
}

#[tokio::test]
async fn a_proven_scram_key_opens_the_server_too() {
    let primary = Postgres::start(Role::Primary);
    // No password of theirs is known here: the key that their own login proves is all there is.
    for method in ["scram-sha-256", "md5"] {
        let (proxy, _folder) = proxy_with_servers_verifiers(&primary, method).await;
        for _ in 0..3 {
            let mut client = RawClient::login(proxy.port(), Login::AppTwo, "app_two").await;
            assert_eq!(client.query_value("SELECT session_user").await, "app_two", "{method}");
        }
        assert!(!proxy.log().contains("SCRAM-SHA-256$"), "no verifier is logged");
    }
}

#[tokio::test]
async fn an_md5_digest_opens_both_doors() {
    let primary = Postgres::start(Role::Primary);
    let (proxy, _folder) = proxy_with_servers_verifiers(&primary, "md5").await;
    let mut client = RawClient::login(proxy.port(), Login::Md5, "app").await;
    assert_eq!(client.query_value("SELECT session_user").await, "app_md5");

    let mut wrong = RawClient::open(proxy.port()).await;
    let (user, _) = Login::Md5.credentials();
    wrong.startup(&[("user", user), ("database", "app")]).await;
    let refused = wrong.authenticate(user, "not it").await.expect("an error");
    assert_eq!(refused.field(b'C').as_deref(), Some("28P01"));
}
