//! Who knocks and is not let in: what it learns, and what the log says of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::support::{
    Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, Scratch, connect, eventually, http_get,
};

fn proxy_of(primary: &Postgres) -> Proxy {
    Proxy::start(&ProxyConfig::primary_only(primary).to_toml())
}

/// A connection that was asked for SCRAM and has chosen nothing yet.
async fn asked_for_scram(port: u16, user: &str) -> RawClient {
    let mut client = RawClient::open(port).await;
    client.startup(&[("user", user), ("database", "app")]).await;
    let asked = client.read_message().await;
    assert_eq!((asked.tag, &asked.body[..4]), (b'R', &[0, 0, 0, 10][..]));
    client
}

fn initial_response(length: i32, data: &[u8]) -> Vec<u8> {
    [b"SCRAM-SHA-256\0", &length.to_be_bytes()[..], data].concat()
}

fn code(message: &Message) -> Option<String> {
    message.field(b'C')
}

/// The inner length of a SASLInitialResponse is held against what there is, with the server's own outcome.
#[tokio::test]
async fn the_inner_length_of_a_first_answer_must_be_right() {
    let primary = Postgres::start(Role::Primary);
    let proxy = proxy_of(&primary);
    let data = b"n,,n=,r=abcdefgh";
    let length = data.len() as i32;
    for wrong in [-2, i32::MIN, -1, 0, length - 1, length + 1, i32::MAX] {
        for port in [primary.port(), proxy.port()] {
            let mut client = asked_for_scram(port, "app").await;
            client.message(b'p', &initial_response(wrong, data)).flush().await;
            let refused = client.read_message().await;
            assert_eq!(code(&refused).as_deref(), Some("08P01"), "{wrong}: {refused:?}");
        }
    }
    // Right, and nothing at all: then the client is asked to begin.
    for port in [primary.port(), proxy.port()] {
        let mut client = asked_for_scram(port, "app").await;
        client.message(b'p', &initial_response(length, data)).flush().await;
        assert!(client.read_message().await.body.starts_with(b"\0\0\0\x0br=abcdefgh"));
        let mut client = asked_for_scram(port, "app").await;
        client.message(b'p', &initial_response(-1, b"")).flush().await;
        assert_eq!(&client.read_message().await.body[..], b"\0\0\0\x0b");
        client.message(b'p', data).flush().await;
        assert!(client.read_message().await.body.starts_with(b"\0\0\0\x0br=abcdefgh"));
    }
}

/// The middle one of some times from the choice of SCRAM to the first answer, and what that looks like.
async fn first_answer(port: u16, user: &str) -> (Duration, String) {
    let mut client = asked_for_scram(port, user).await;
    client.message(b'p', &initial_response(16, b"n,,n=,r=abcdefgh"));
    let began = Instant::now();
    client.flush().await;
    let answer = client.read_message().await;
    let took = began.elapsed();
    let text = String::from_utf8_lossy(&answer.body[4..]).into_owned();
    let (_, rest) = text.split_once(",s=").expect("a salt");
    (took, rest.to_owned())
}

/// Known or not, a name's first answer costs the same, and is the same each time.
#[tokio::test]
async fn the_first_answer_does_not_tell_who_exists() {
    let primary = Postgres::start(Role::Primary);
    let folder = Scratch::new();
    let users = folder.path().join("users");
    let lines: Vec<_> = (0..60).map(|n| format!("\"known{n}\" \"secret{n}\"")).collect();
    fs::write(&users, lines.join("\n")).expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary).set("auth", "users_file", users.to_str().expect("text"));
    let proxy = Proxy::start(&config.to_toml());
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..60 {
        // Each name is new: what is done once for a user is done now or never.
        known.push(first_answer(proxy.port(), &format!("known{n}")).await.0);
        unknown.push(first_answer(proxy.port(), &format!("other{n}")).await.0);
    }
    known.sort();
    unknown.sort();
    // Deriving keys takes 2 ms in a release build, and far longer in this one.
    let differ = known[30].abs_diff(unknown[30]);
    assert!(differ < Duration::from_millis(1), "known {:?}, unknown {:?}", known[30], unknown[30]);
    for user in ["known1", "other1", "app"] {
        let (_, one) = first_answer(proxy.port(), user).await;
        let (_, other) = first_answer(proxy.port(), user).await;
        assert_eq!(one, other, "{user}");
        assert!(one.ends_with(",i=4096") && one.len() == 24 + 7, "{user}: {one}");
    }
}

/// A refusal takes the same time, whatever it is for.
#[tokio::test]
async fn a_refusal_does_not_tell_who_exists() {
    let primary = Postgres::start(Role::Primary);
    for method in ["scram-sha-256", "md5"] {
        let proxy =
            Proxy::start(&ProxyConfig::primary_only(&primary).set("auth", "method", method).to_toml());
        for user in ["app", "nobody"] {
            let mut client = RawClient::open(proxy.port()).await;
            client.startup(&[("user", user), ("database", "app")]).await;
            let began = Instant::now();
            let refused = client.authenticate(user, "not it").await.expect("it is wrong");
            assert_eq!(code(&refused).as_deref(), Some("28P01"));
            assert!(began.elapsed() >= Duration::from_millis(50), "{method} {user}: {:?}", began.elapsed());
        }
    }
}

/// Lines of a log that were not written by the program, were they to begin as its own do.
#[tokio::test]
async fn names_forge_no_lines() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE ROLE \"x\ny\" LOGIN PASSWORD 'secret'").await;
    let folder = Scratch::new();
    let users = folder.path().join("users");
    fs::write(&users, "\"app\" \"secret\"\n").expect("the folder is writable");
    let config = ProxyConfig::primary_only(&primary).set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let forged = "x\n2026-01-01T00:00:00.000000Z  INFO bulkhead::app: forged\u{1b}[2J\u{202e}";
    for parameters in [
        [("user", forged), ("database", "app"), ("application_name", "y")],
        [("user", "nobody"), ("database", forged), ("application_name", forged)],
        // The server quotes this one in its error, which we log.
        [("user", "app"), ("database", forged), ("application_name", forged)],
    ] {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup(&parameters).await;
        assert!(client.authenticate("app", "secret").await.is_some(), "{parameters:?} is refused");
    }
    proxy.wait_for_log("does not exist").await;
    let log = proxy.log();
    assert!(log.matches("forged").count() >= 3, "{log}");
    for line in log.lines() {
        assert!(!line.starts_with("2026-01-01"), "forged: {line}");
        let bad = |character: char| character.is_control() || character == '\u{202e}';
        assert!(!line.contains(bad), "{line:?}");
    }
}

#[tokio::test]
async fn refusals_are_logged_with_who_and_why_and_not_without_end() {
    let primary = Postgres::start(Role::Primary);
    let proxy = proxy_of(&primary);
    for (user, why) in [("app", "the password does not match"), ("nobody", "there is no such user")] {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup(&[("user", user), ("database", "app"), ("application_name", "tool")]).await;
        assert!(client.authenticate(user, "not it").await.is_some());
        proxy.wait_for_log(why).await;
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains(why)).expect("it was waited for");
        for part in [
            &format!("user=\"{user}\""),
            "database=\"app\"",
            "application_name=\"tool\"",
            "peer=\"127.0.0.1:",
            "code=28P01",
            "a client was refused",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("not it"), "{line}");
    }
    for _ in 0..300 {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup(&[("user", "nobody"), ("database", "app"), ("replication", "database")]).await;
        client.message(b'p', b"x").try_flush().await;
    }
    eventually("all are refused", Duration::from_secs(10), async || {
        (proxy.metric("bulkhead_client_login_failures_total").await? >= 302.0).then_some(())
    })
    .await;
    let lines = proxy.log().lines().filter(|line| line.contains("a client was refused")).count();
    assert!((3..=60).contains(&lines), "{lines} lines for 302 refusals");
}

/// Who sends requests slowly keeps nobody else from asking.
#[tokio::test]
async fn slow_askers_do_not_hold_up_a_health_check() {
    use tokio::{io::AsyncWriteExt as _, net::TcpStream};

    let primary = Postgres::start(Role::Primary);
    let proxy = proxy_of(&primary);
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.http_port())).await.expect("it listens");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await.expect("it is open");
        slow.push(stream);
    }
    for _ in 0..5 {
        let began = Instant::now();
        let (status, _) = http_get(proxy.http_port(), "/healthz").await.expect("it answers");
        assert_eq!(status, 200);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for stream in &mut slow {
            // Most are closed by now.
            let _ = stream.write_all(b"y").await;
        }
    }
    assert!(connect(&proxy.url_of(Login::App)).await.is_ok());
    eventually("the server is healthy", Duration::from_secs(10), async || {
        (http_get(proxy.http_port(), "/readyz").await.ok()?.0 == 200).then_some(())
    })
    .await;
}
