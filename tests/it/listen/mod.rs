//! LISTEN over a few shared backends: what a listening session is told is what it would be told by the server itself,
//! and it holds no backend for it.

mod conversations;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::{sync::Barrier, time::timeout};

use crate::support::{Cluster, Message, Postgres, Proxy, ProxyConfig, RawClient, Role};
use conversations::CONVERSATIONS;

/// Two places: one for the connection that listens, one for everybody else.
fn config(primary: &Postgres) -> ProxyConfig {
    ProxyConfig::primary_only(primary).pool("primary", &["primary"], 2)
}

fn start(primary: &Postgres) -> Proxy {
    Proxy::start(&config(primary).to_toml())
}

/// Process, channel and payload of a NotificationResponse.
fn heard(message: &Message) -> (i32, String, String) {
    assert_eq!(message.tag, b'A', "{message:?}");
    let process = i32::from_be_bytes(message.body[..4].try_into().expect("4 bytes"));
    let mut texts = message.body[4..].split(|byte| *byte == 0);
    let mut text = || String::from_utf8_lossy(texts.next().unwrap_or_default()).into_owned();
    (process, text(), text())
}

fn payloads(messages: &[Message]) -> Vec<String> {
    messages.iter().filter(|message| message.tag == b'A').map(|message| heard(message).2).collect()
}

/// The next message, which comes unasked and is a notification.
async fn next_payload(client: &mut RawClient) -> String {
    heard(&client.read_message().await).2
}

/// Nothing comes before the answer to this, and no notification with it.
async fn hears_nothing(client: &mut RawClient) {
    let answer = client.ask("SELECT 1").await;
    assert_eq!(RawClient::tags(&answer), "TDCZ", "{answer:?}");
    let more = timeout(Duration::from_millis(50), client.peek()).await;
    assert!(more.is_err(), "{:?}", client.read_message().await);
}

/// An answer as a text that does not tell one server process from another.
fn shape(client: &RawClient, answer: &[Message]) -> String {
    let mut text = String::new();
    for message in answer {
        text.push(char::from(message.tag));
        match message.tag {
            b'A' => {
                let (process, channel, payload) = heard(message);
                let whose = if process == client.key().0 { "own" } else { "other" };
                write!(text, "({whose} {channel} {payload})").expect("text takes text");
            }
            b'C' => write!(text, "({})", String::from_utf8_lossy(&message.body)).expect("text takes text"),
            b'D' => write!(text, "{:?}", message.columns()).expect("text takes text"),
            b'E' | b'N' => write!(text, "({:?})", message.field(b'C')).expect("text takes text"),
            b'Z' => text.push(char::from(message.body[0])),
            _ => {}
        }
    }
    text
}

#[tokio::test]
async fn answers_are_the_servers_own() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    for conversation in CONVERSATIONS {
        // One after the other: they would hear each other.
        let mut direct = RawClient::app(primary.port()).await;
        let mut wanted = Vec::new();
        for sql in conversation {
            let answer = direct.ask(sql).await;
            wanted.push(shape(&direct, &answer));
        }
        drop(direct);
        let mut client = RawClient::app(proxy.port()).await;
        for (sql, wanted) in conversation.iter().zip(wanted) {
            let answer = client.ask(sql).await;
            assert_eq!(shape(&client, &answer), wanted, "{sql} in {conversation:#?}");
        }
        hears_nothing(&mut client).await;
        client.terminate().await;
    }
    proxy.wait_for_metric("bulkhead_listeners", 0.0).await;
    proxy.wait_for_metric(r#"bulkhead_sessions_pinned{reason="listen"}"#, 0.0).await;
}

#[tokio::test]
async fn extended_messages_listen_too() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = RawClient::app(proxy.port()).await;
    client.parse("l", "LISTEN a").parse("n", "SELECT pg_notify('a', $1)").sync();
    client.flush().await;
    client.read_until_ready().await;
    client.bind("", "l", &[]).execute("", 0).sync();
    client.flush().await;
    client.read_until_ready().await;
    proxy.wait_for_metric(r#"bulkhead_sessions_pinned{reason="listen"}"#, 0.0).await;
    client.bind("", "n", &[Some("x")]).describe(b'P', "").execute("", 0).sync();
    client.flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "2TDCAZ");
    client.parse("", "UNLISTEN a").bind("", "", &[]).execute("", 0).sync();
    client.flush().await;
    client.read_until_ready().await;
    client.ask("NOTIFY a").await;
    hears_nothing(&mut client).await;
}

#[tokio::test]
async fn others_are_heard_while_idle_and_after_a_transaction() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = RawClient::app(proxy.port()).await;
    let mut other = RawClient::app(primary.port()).await;
    client.ask("LISTEN a").await;
    other.ask("NOTIFY a, 'idle'").await;
    let (process, channel, payload) = heard(&client.read_message().await);
    assert_eq!((process, channel.as_str(), payload.as_str()), (other.key().0, "a", "idle"));
    for end in ["COMMIT", "ROLLBACK"] {
        client.ask("BEGIN").await;
        client.ask("SELECT 1").await;
        other.ask(&format!("NOTIFY a, '{end}'")).await;
        assert_eq!(RawClient::tags(&client.ask("SELECT 1").await), "TDCZ");
        let more = timeout(Duration::from_millis(50), client.peek()).await;
        assert!(more.is_err(), "within a transaction nothing is told");
        assert_eq!(payloads(&client.ask(end).await), [end], "before ReadyForQuery");
    }
    // What was committed before LISTEN was, is not for its session.
    client.ask("UNLISTEN *").await;
    for round in 0..20 {
        other.ask(&format!("NOTIFY b, 'before {round}'")).await;
        client.ask("BEGIN").await;
        client.ask("LISTEN b").await;
        other.ask(&format!("NOTIFY b, 'during {round}'")).await;
        client.ask("COMMIT").await;
        other.ask(&format!("NOTIFY b, 'after {round}'")).await;
        assert_eq!(next_payload(&mut client).await, format!("after {round}"));
        client.ask("UNLISTEN b").await;
    }
    // The longest payload, and one too long.
    client.ask("LISTEN c").await;
    let long = "x".repeat(7999);
    other.ask(&format!("NOTIFY c, '{long}'")).await;
    assert_eq!(next_payload(&mut client).await, long);
    assert_eq!(RawClient::tags(&client.ask(&format!("NOTIFY c, '{long}y'")).await), "EZ");
}

#[tokio::test]
async fn own_notifications_are_known_by_their_process() {
    let primary = Postgres::start(Role::Primary);
    primary
        .query("CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('t', NEW.a::text); RETURN NEW; END $$")
        .await;
    let proxy = start(&primary);
    let (mut one, mut two) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    one.ask("CREATE TABLE told (a int); CREATE TRIGGER t AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION tells()")
        .await;
    one.ask("LISTEN t").await;
    two.ask("LISTEN t").await;
    // They use the same backend in turn.
    for number in 0..50 {
        let insert = format!("INSERT INTO told VALUES ({number})");
        let (teller, listener) = if number % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let answer = teller.ask(&insert).await;
        assert_eq!(RawClient::tags(&answer), "CAZ");
        assert_eq!(heard(&answer[1]), (teller.key().0, "t".to_owned(), number.to_string()));
        let (process, _, payload) = heard(&listener.read_message().await);
        assert_eq!(payload, number.to_string());
        assert!(process != listener.key().0 && process != teller.key().0, "the server's own");
    }
}

#[tokio::test]
async fn thousands_listen_on_two_backends() {
    const CLIENTS: usize = 2_000;
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(
        &config(&primary)
            .set("auth", "method", "trust")
            .set("pools.primary", "max_waiting", 5_000)
            .set("pools.primary", "wait_timeout", "30s")
            .to_toml(),
    );
    let mut clients = Vec::with_capacity(CLIENTS);
    for number in 0..CLIENTS {
        let mut client = RawClient::app(proxy.port()).await;
        client.query(&format!("LISTEN all_of_them; LISTEN c{}", number % 10)).await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(RawClient::tags(&client.read_until_ready().await), "CCZ");
    }
    proxy.wait_for_metric("bulkhead_listeners", CLIENTS as f64).await;
    proxy.wait_for_metric("bulkhead_listen_channels", 11.0).await;
    let mut other = RawClient::app(primary.port()).await;
    other.ask("NOTIFY all_of_them, 'hello'; NOTIFY c3, 'three'; NOTIFY all_of_them, 'bye'").await;
    for (number, client) in clients.iter_mut().enumerate() {
        let wanted: &[&str] = if number % 10 == 3 { &["hello", "three", "bye"] } else { &["hello", "bye"] };
        for payload in wanted {
            assert_eq!(next_payload(client).await, *payload);
        }
    }
    // The other place is free.
    let mut guest = RawClient::app(proxy.port()).await;
    assert_eq!(guest.query_value("SELECT 1").await, "1");
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app' \
         AND application_name <> 'bulkhead health check'";
    assert!(guest.query_value(backends).await.parse::<u32>().expect("a number") <= 3);
    drop(clients);
    proxy.wait_for_metric("bulkhead_listeners", 0.0).await;
    proxy.wait_for_metric("bulkhead_listen_channels", 0.0).await;
}

#[tokio::test]
async fn every_listener_sees_what_was_committed_once_and_in_order() {
    const SENDERS: usize = 4;
    const ROUNDS: usize = 60;
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(
        &config(&primary)
            .pool("primary", &["primary"], 4)
            .set("pools.primary", "wait_timeout", "30s")
            .to_toml(),
    );
    let mut direct = RawClient::app(primary.port()).await;
    direct.ask("LISTEN stream").await;
    // Those who come early listen before anything is said; those who come late, before the end is.
    let (early, late) = (Arc::new(Barrier::new(6)), Arc::new(Barrier::new(6)));
    let listener = |ready: &Arc<Barrier>| {
        let (port, ready) = (proxy.port(), Arc::clone(ready));
        tokio::spawn(async move {
            let mut client = RawClient::app(port).await;
            client.ask("BEGIN").await;
            client.ask("LISTEN stream").await;
            let mut all = payloads(&client.ask("COMMIT").await);
            ready.wait().await;
            while all.last().is_none_or(|last| last != "end") {
                all.push(next_payload(&mut client).await);
            }
            all
        })
    };
    let mut listeners: Vec<_> = (0..5).map(|_| listener(&early)).collect();
    early.wait().await;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let port = proxy.port();
            tokio::spawn(async move {
                let mut client = RawClient::app(port).await;
                for round in 0..ROUNDS {
                    client.ask("BEGIN").await;
                    client.ask(&format!("SELECT pg_notify('stream', '{sender} {round}')")).await;
                    let end = if round % 3 == 2 { "ROLLBACK" } else { "COMMIT" };
                    client.ask(end).await;
                }
            })
        })
        .collect();
    listeners.extend((0..5).map(|_| listener(&late)));
    for sender in senders {
        sender.await.expect("a sender ends well");
    }
    late.wait().await;
    let wanted = payloads(&direct.ask("NOTIFY stream, 'end'").await);
    assert_eq!(wanted.len(), SENDERS * ROUNDS * 2 / 3 + 1);
    for (number, listener) in listeners.into_iter().enumerate() {
        let all = listener.await.expect("a listener ends well");
        assert!(wanted.ends_with(&all), "listener {number}: {all:?} is not the end of {wanted:?}");
        assert!(number >= 5 || all.len() == wanted.len(), "listener {number} has heard {}", all.len());
    }
}

/// The process that listens for everybody.
async fn kill_listener(primary: &Postgres) {
    let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
        WHERE usename = 'app' AND (query LIKE '%LISTEN %' OR query = ';') AND query NOT LIKE '%pg_listening_channels%'";
    assert_ne!(primary.value(killed).await, "0", "somebody listens");
}

#[tokio::test]
async fn a_lost_connection_is_told() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let (mut client, mut bystander) =
        (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    client.ask("LISTEN a").await;
    bystander.ask("SELECT 1").await;
    kill_listener(&primary).await;
    let end = client.read_message().await;
    assert_eq!((end.tag, end.field(b'S').as_deref()), (b'E', Some("FATAL")), "{end:?}");
    assert_eq!(end.field(b'C').as_deref(), Some("57P01"));
    assert_eq!(client.try_read_message().await, None);
    assert_eq!(bystander.query_value("SELECT 1").await, "1", "who does not listen does not notice");
    let mut next = RawClient::app(proxy.port()).await;
    next.ask("LISTEN a").await;
    assert_eq!(payloads(&next.ask("NOTIFY a, 'again'").await), ["again"]);
    proxy.wait_for_metric("bulkhead_listen_losses_total", 1.0).await;
}

#[tokio::test]
async fn a_lost_connection_is_replaced_with_a_warning() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).set("limits", "listen_on_gap", "warn").to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("LISTEN a").await;
    client.ask("LISTEN b").await;
    kill_listener(&primary).await;
    let warning = client.read_message().await;
    assert_eq!((warning.tag, warning.field(b'S').as_deref()), (b'N', Some("WARNING")), "{warning:?}");
    let mut other = RawClient::app(primary.port()).await;
    other.ask("NOTIFY b, 'again'").await;
    assert_eq!(next_payload(&mut client).await, "again");
    primary.restart();
    let warning = client.read_message().await;
    assert_eq!(warning.tag, b'N', "{warning:?}");
    let mut other = RawClient::app(primary.port()).await;
    other.ask("NOTIFY a, 'restarted'").await;
    assert_eq!(next_payload(&mut client).await, "restarted");
    proxy.wait_for_metric("bulkhead_listen_reconnects_total", 2.0).await;
}

#[tokio::test]
async fn a_slow_listener_is_ended_and_holds_nobody_up() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).set("limits", "notifications_per_client", "64KiB").to_toml());
    let (mut slow, mut quick) = (RawClient::app(proxy.port()).await, RawClient::app(proxy.port()).await);
    slow.ask("LISTEN a").await;
    quick.ask("LISTEN a").await;
    slow.ask("BEGIN").await;
    slow.ask("SELECT 1").await;
    let mut other = RawClient::app(primary.port()).await;
    for number in 0..30 {
        other.ask(&format!("SELECT pg_notify('a', '{number:07000}')")).await;
        assert_eq!(next_payload(&mut quick).await, format!("{number:07000}"));
    }
    slow.query("COMMIT").await;
    let mut end = slow.read_message().await;
    while end.tag != b'E' {
        end = slow.read_message().await;
    }
    assert_eq!(end.field(b'C').as_deref(), Some("53400"), "{end:?}");
    assert!(end.field(b'H').is_some_and(|hint| hint.contains("limits.notifications_per_client")));
    assert_eq!(slow.try_read_message().await, None);
    proxy.wait_for_metric("bulkhead_listener_overflows_total", 1.0).await;
    assert_eq!(payloads(&quick.ask("NOTIFY a, 'own'").await), ["own"]);
}

/// So many notifications of 8 kB fill every buffer between the server and a client that does not read.
const BURST: usize = 2500;

/// A client that listens to `a` and does not read while a burst comes.
async fn burst_at_paused(primary: &Postgres, proxy: &Proxy) -> RawClient {
    let mut paused = RawClient::app(proxy.port()).await;
    paused.ask("LISTEN a").await;
    let mut other = RawClient::app(primary.port()).await;
    let burst = format!(
        "SELECT count(pg_notify('a', n::text || repeat('x', 7900))) FROM generate_series(1, {BURST}) n"
    );
    assert_eq!(other.ask(&burst).await[1].columns(), [Some(BURST.to_string())]);
    paused
}

#[tokio::test]
async fn a_client_that_pauses_during_a_burst_hears_all_of_it_and_what_comes_later() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).set("limits", "notifications_per_client", "64MiB").to_toml());
    let mut paused = burst_at_paused(&primary, &proxy).await;
    // All has been heard, and waits for the client.
    proxy.wait_for_metric("bulkhead_notifications_delivered_total", BURST as f64).await;
    for number in 1..=BURST {
        let payload = next_payload(&mut paused).await;
        assert_eq!(payload.trim_end_matches('x'), number.to_string());
    }
    let mut other = RawClient::app(primary.port()).await;
    other.ask("NOTIFY a, 'late'").await;
    assert_eq!(next_payload(&mut paused).await, "late");
    assert_eq!(payloads(&paused.ask("NOTIFY a, 'own'").await), ["own"]);
}

#[tokio::test]
async fn a_client_that_pauses_for_too_long_is_disconnected_and_named() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).to_toml());
    let mut paused = burst_at_paused(&primary, &proxy).await;
    // Though it neither reads nor says anything.
    proxy.wait_for_metric("bulkhead_listeners", 0.0).await;
    proxy.wait_for_log("a client is disconnected").await;
    let log = proxy.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("a client is disconnected")).collect();
    assert!(lines.len() == 1 && lines[0].contains("notifications") && lines[0].contains("app"), "{lines:?}");
    let mut last = None;
    while let Some(message) = paused.try_read_message().await {
        last = Some(message);
    }
    let last = last.expect("some of the burst came");
    assert_eq!(last.field(b'C').as_deref(), Some("53400"), "the client is told why");
}

#[tokio::test]
async fn a_pool_of_one_still_listens() {
    let primary = Postgres::start(Role::Primary);
    let proxy = Proxy::start(&config(&primary).pool("primary", &["primary"], 1).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("LISTEN a").await;
    proxy.wait_for_metric(r#"bulkhead_sessions_pinned{reason="listen"}"#, 1.0).await;
    assert_eq!(payloads(&client.ask("NOTIFY a, 'x'").await), ["x"]);
    client.ask("UNLISTEN a").await;
    proxy.wait_for_metric(r#"bulkhead_sessions_pinned{reason="listen"}"#, 0.0).await;
}

#[tokio::test]
async fn both_databases_are_heard_and_a_standby_refuses() {
    let cluster = Cluster::start();
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    client.ask("LISTEN news").await;
    client.ask("LISTEN \"public.oban_insert\"").await;
    proxy.wait_for_metric("bulkhead_listen_channels", 2.0).await;
    let (mut primary, mut jobs) =
        (RawClient::app(cluster.primary.port()).await, RawClient::app(cluster.jobs.port()).await);
    for round in 0..3 {
        primary.ask(&format!("NOTIFY news, 'primary {round}'")).await;
        assert_eq!(next_payload(&mut client).await, format!("primary {round}"));
        jobs.ask(&format!("NOTIFY \"public.oban_insert\", 'jobs {round}'")).await;
        assert_eq!(next_payload(&mut client).await, format!("jobs {round}"));
    }
    let own = client.ask("SELECT pg_notify('public.oban_insert', 'own')").await;
    assert_eq!(RawClient::tags(&own), "TDCAZ");
    assert_eq!(heard(&own[3]).0, client.key().0);
    client.ask("UNLISTEN \"public.oban_insert\"").await;
    jobs.ask("NOTIFY \"public.oban_insert\"").await;
    hears_nothing(&mut client).await;
    primary.ask("NOTIFY news, 'still'").await;
    assert_eq!(next_payload(&mut client).await, "still");

    let mut standby = RawClient::app(cluster.replica.port()).await;
    let wanted = standby.ask("LISTEN news").await;
    client.ask("/* bulkhead: route=replicas */ BEGIN READ ONLY").await;
    let answer = client.ask("/* bulkhead: route=replicas */ LISTEN other").await;
    assert_eq!(answer[0].field(b'C'), wanted[0].field(b'C'), "{answer:?}");
    client.ask("ROLLBACK").await;
    primary.ask("NOTIFY news, 'and still'").await;
    assert_eq!(next_payload(&mut client).await, "and still");
}
