//! The wire protocol through the proxy: what goes in comes out, in any pieces and sizes, in the right order.

use std::{fmt::Write as _, time::Duration};

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually};

fn start(primary: &Postgres) -> Proxy {
    Proxy::start(&ProxyConfig::primary_only(primary).pool("primary", &["primary"], 2).to_toml())
}

async fn login(proxy: &Proxy) -> RawClient {
    RawClient::login(proxy.port(), Login::App, "app").await
}

fn values(replies: &[Message]) -> Vec<String> {
    let rows = replies.iter().filter(|message| message.tag == b'D');
    rows.flat_map(Message::columns).map(Option::unwrap_or_default).collect()
}

/// A whole message, header included.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

#[tokio::test]
async fn the_versions_are_negotiated() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let (user, password) = Login::App.credentials();
    for (minor, options, answered) in [
        (0, &[][..], None),
        (2, &[], None),
        (9, &[], Some((0x3_0002_u32, 0_u32))),
        (0, &[("_pq_.later", "1")], Some((0x3_0000, 1))),
    ] {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup_minor(minor, &[&[("user", user), ("database", "app")], options].concat()).await;
        if let Some((version, unknown)) = answered {
            let answer = client.read_message().await;
            assert_eq!(answer.tag, b'v', "3.{minor} {options:?}");
            let expected = [version.to_be_bytes(), unknown.to_be_bytes()].concat();
            assert_eq!(answer.body[..8], expected, "3.{minor} {options:?}");
            assert_eq!(unknown == 1, answer.body.ends_with(b"_pq_.later\0"));
        }
        assert!(client.authenticate(user, password).await.is_none(), "3.{minor} {options:?}");
        assert_eq!(client.key().1.len(), if minor >= 2 { 32 } else { 4 });
        assert_eq!(client.query_value("SELECT 1").await, "1");
    }
    for code in [80_877_103_u32, 80_877_104] {
        let mut client = RawClient::open(proxy.port()).await;
        client.bytes(&[8_u32.to_be_bytes(), code.to_be_bytes()].concat()).flush().await;
        assert_eq!(client.read_byte().await, b'N', "encryption is declined");
        client.startup(&[("user", user), ("database", "app")]).await;
        assert!(client.authenticate(user, password).await.is_none(), "and the client may go on without");
    }
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let mut conversation = message(b'Q', b"SELECT 'one'; SELECT 'two'\0");
    conversation.extend(message(b'P', b"s\0SELECT $1::text\0\0\0"));
    conversation.extend(message(b'B', b"\0s\0\0\0\0\x01\0\0\0\x05three\0\0"));
    conversation.extend(message(b'E', b"\0\0\0\0\0"));
    conversation.extend(message(b'S', b""));
    for byte in conversation {
        client.bytes(&[byte]).flush().await;
        // The next byte is written when this one has been, so that they come apart.
        tokio::task::yield_now().await;
    }
    assert_eq!(values(&client.read_until_ready().await), ["one", "two"]);
    assert_eq!(values(&client.read_until_ready().await), ["three"]);
}

#[tokio::test]
async fn long_messages_stream_through() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let (_, before) = proxy.memory_bytes();
    // A text, a value and a row, each longer than limits.request_buffer.
    let text = "x".repeat(8 << 20);
    assert_eq!(client.query_value(&format!("SELECT length('{text}')")).await, text.len().to_string());
    let value = "y".repeat(20 << 20);
    for name in ["", "named"] {
        client.parse(name, "SELECT length($1::text)").bind("", name, &[Some(&value)]).execute("", 0).sync();
        client.flush().await;
        assert_eq!(values(&client.read_until_ready().await), [value.len().to_string()], "{name:?}");
    }
    client.bind("", "named", &[Some(&value)]).execute("", 0).sync().flush().await;
    assert_eq!(values(&client.read_until_ready().await), [value.len().to_string()]);
    client
        .parse("", &format!("SELECT length('{text}')"))
        .bind("", "", &[])
        .execute("", 0)
        .sync()
        .flush()
        .await;
    assert_eq!(values(&client.read_until_ready().await), [text.len().to_string()]);
    assert_eq!(client.query_value("SELECT repeat('z', 5000000)").await.len(), 5_000_000);
    client.parse("long", &format!("SELECT length('{text}')")).sync().flush().await;
    let refused = client.read_until_ready().await;
    assert_eq!(refused[0].field(b'C').as_deref(), Some("54000"), "a long text cannot be kept under a name");
    assert_eq!(client.query_value("SELECT 1").await, "1");
    let (_, peak) = proxy.memory_bytes();
    assert!(peak < before + (8 << 20), "from {before} to at most {peak} bytes");
}

#[tokio::test]
async fn pipelines_are_answered_in_order() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    for number in 0..200 {
        client.parse("", &format!("SELECT {number}")).bind("", "", &[]).execute("", 0).sync();
    }
    client.flush().await;
    for number in 0..200 {
        assert_eq!(values(&client.read_until_ready().await), [number.to_string()]);
    }
    // An error skips to its Sync and no further; what came before it in the same pipeline is undone.
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    client.parse("", "INSERT INTO t VALUES (1)").bind("", "", &[]).execute("", 0);
    client.parse("", "SELECT 1/0").bind("", "", &[]).execute("", 0);
    client.parse("", "INSERT INTO t VALUES (2)").bind("", "", &[]).execute("", 0).sync();
    client.parse("", "SELECT count(*) FROM t").bind("", "", &[]).execute("", 0).sync();
    client.flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "12C1EZ");
    assert_eq!(values(&client.read_until_ready().await), ["0"]);
}

/// asyncpg and Postgrex prepare with Flush and wait for the answer before they send a Sync.
#[tokio::test]
async fn flush_is_answered_without_a_sync() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut clients = [login(&proxy).await, login(&proxy).await];
    for round in 0..3 {
        // The second client, and the second round, meet statements that their backend has already.
        for client in &mut clients {
            let name = format!("s{round}");
            client.parse(&name, "SELECT $1::int + 1").describe(b'S', &name).flush_message().flush().await;
            for tag in *b"1tT" {
                assert_eq!(client.read_message().await.tag, tag, "round {round}");
            }
            client.bind("", &name, &[Some("41")]).execute("", 0).flush_message().flush().await;
            for tag in *b"2DC" {
                assert_eq!(client.read_message().await.tag, tag, "round {round}");
            }
            client.close(b'S', &name).flush_message().flush().await;
            assert_eq!(client.read_message().await.tag, b'3');
            client.sync().flush().await;
            assert_eq!(RawClient::tags(&client.read_until_ready().await), "Z");
        }
    }
    // A Query in place of the Sync ends it all.
    let client = &mut clients[0];
    client.parse("", "SELECT 1").describe(b'S', "").flush_message().flush().await;
    for tag in *b"1tT" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    assert_eq!(client.query_value("SELECT 2").await, "2");
    // A refusal in the middle: one error, silence until the Sync, and nothing of it stays.
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    client
        .parse("", "INSERT INTO t VALUES (1)")
        .bind("", "", &[])
        .execute("", 0)
        .flush_message()
        .flush()
        .await;
    for tag in *b"12C" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    client.bind("", "nobody", &[]).execute("", 0).sync().flush().await;
    let replies = client.read_until_ready().await;
    assert_eq!(RawClient::tags(&replies), "EZ");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn portals_give_rows_in_portions() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    client.ask("BEGIN").await;
    client.parse("", "SELECT generate_series(1, 5)").bind("p", "", &[]).execute("p", 2).sync().flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "12DDsZ");
    client.execute("p", 2).sync().flush().await;
    assert_eq!(values(&client.read_until_ready().await), ["3", "4"]);
    client.describe(b'P', "p").execute("p", 0).sync().flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "TDCZ");
    client.close(b'P', "p").sync().flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "3Z");
    client.ask("COMMIT").await;
    assert_eq!(RawClient::tags(&client.ask("").await), "IZ");
}

#[tokio::test]
async fn copy_goes_both_ways_and_fails_cleanly() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (a int, b text); ALTER TABLE t OWNER TO app").await;
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let mut rows = String::new();
    for number in 0..50_000 {
        writeln!(rows, "{number}\trow {number}").expect("text");
    }
    // Simple protocol, in pieces that have nothing to do with rows; and all at once, before the server asks.
    client.query("COPY t FROM STDIN").await;
    assert_eq!(client.read_message().await.tag, b'G');
    for piece in rows.as_bytes().chunks(70_001) {
        client.message(b'd', piece).flush().await;
    }
    client.message(b'c', b"").flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "CZ");
    let mut eager = message(b'Q', b"COPY t FROM STDIN\0");
    eager.extend(message(b'd', b"-1\teager\n"));
    eager.extend(message(b'c', b""));
    client.bytes(&eager).flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "GCZ");

    // Extended protocol: the Sync that is sent with the Execute means nothing to a server that copies.
    client.parse("", "COPY t FROM STDIN").bind("", "", &[]).execute("", 0).sync().flush().await;
    for tag in *b"12G" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    client.message(b'd', b"-2\textended\n").message(b'c', b"").sync().flush().await;
    assert_eq!(RawClient::tags(&client.read_until_ready().await), "CZ");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "50002");

    let replies = client.ask("COPY (SELECT b FROM t WHERE a < 3 ORDER BY a) TO STDOUT").await;
    let out: Vec<u8> =
        replies.iter().filter(|message| message.tag == b'd').flat_map(|row| row.body.to_vec()).collect();
    assert_eq!(String::from_utf8_lossy(&out), "extended\neager\nrow 0\nrow 1\nrow 2\n");

    // Failures of either side leave the session usable, inside a transaction and outside.
    for begin in ["", "BEGIN"] {
        client.ask(begin).await;
        client.query("COPY t FROM STDIN").await;
        assert_eq!(client.read_message().await.tag, b'G');
        client.message(b'd', b"1\tx\n").message(b'f', b"changed my mind\0").flush().await;
        let replies = client.read_until_ready().await;
        assert_eq!(replies[0].field(b'C').as_deref(), Some("57014"), "{begin}");
        client.ask("ROLLBACK").await;
        client.query("COPY t FROM STDIN").await;
        assert_eq!(client.read_message().await.tag, b'G');
        client
            .message(b'd', b"not a number\n")
            .message(b'd', &vec![b'z'; 100_000])
            .message(b'c', b"")
            .flush()
            .await;
        assert_eq!(RawClient::tags(&client.read_until_ready().await), "EZ");
        assert_eq!(client.query_value("SELECT count(*) FROM t").await, "50002");
    }
    for number in 0..4 {
        client.parse("", "COPY t FROM STDIN").bind("", "", &[]).execute("", 0).sync().flush().await;
        for tag in *b"12G" {
            assert_eq!(client.read_message().await.tag, tag, "{number}");
        }
        client.message(b'd', b"not a number\n").message(b'c', b"").sync().flush().await;
        assert_eq!(RawClient::tags(&client.read_until_ready().await), "EZ", "{number}");
    }
}

#[tokio::test]
async fn the_fast_path_calls_functions() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let oid: u32 = primary.value("SELECT 'int4pl'::regproc::oid").await.parse().expect("an OID");
    let mut body = oid.to_be_bytes().to_vec();
    body.extend(b"\0\0\0\x02\0\0\0\x0240\0\0\0\x012\0\0");
    client.message(b'F', &body).flush().await;
    let replies = client.read_until_ready().await;
    assert_eq!(RawClient::tags(&replies), "VZ");
    assert_eq!(replies[0].body.as_ref(), b"\0\0\0\x0242");
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    let primary = Postgres::start(Role::Primary);
    let proxy = start(&primary);
    let mut client = login(&proxy).await;
    let (_, before) = proxy.memory_bytes();
    client.query("SELECT repeat(md5(n::text), 100) FROM generate_series(1, 60000) n").await;
    let sending =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'ClientWrite'";
    eventually("the server waits for the proxy", Duration::from_secs(20), async || {
        (primary.value(sending).await == "1").then_some(())
    })
    .await;
    let (_, peak) = proxy.memory_bytes();
    assert!(peak < before + (4 << 20), "from {before} to at most {peak} bytes");
    let replies = client.read_until_ready().await;
    assert_eq!(values(&replies).len(), 60_000);
    assert!(values(&replies).iter().all(|value| value.len() == 3_200), "every row is whole");
}

#[tokio::test]
async fn a_query_before_a_goodbye_is_run() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE t (a int); ALTER TABLE t OWNER TO app").await;
    let proxy = start(&primary);
    for number in 0..20 {
        let mut client = login(&proxy).await;
        client.bytes(&message(b'Q', format!("INSERT INTO t VALUES ({number})\0").as_bytes()));
        client.message(b'X', b"").flush().await;
        client.read_until_ready().await;
        assert_eq!(client.try_read_message().await, None);
    }
    assert_eq!(primary.value("SELECT count(*) FROM t").await, "20");
}
