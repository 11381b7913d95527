//! The protocol itself, message by message: greetings, any slicing of bytes, huge messages, COPY, and clients that do
//! not read.

use std::time::Duration;

use crate::support::{Cluster, Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, eventually};

const MEGABYTE: u64 = 1024 * 1024;

struct Site {
    proxy: Proxy,
    primary: Postgres,
}

impl Site {
    fn start() -> Self {
        Self::configured(|config| config)
    }

    fn configured(change: impl Fn(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = Postgres::start(Role::Primary);
        let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
        let proxy = Proxy::start(&change(config).to_toml());
        Self { proxy, primary }
    }

    async fn raw(&self) -> RawClient {
        RawClient::login(self.proxy.port(), Login::App, "app").await
    }

    /// The part of the proxy's memory that no file backs.
    fn memory(&self) -> u64 {
        self.proxy.memory_bytes().1
    }
}

fn told(answer: &[Message]) -> String {
    let word = |message: &Message| match message.tag {
        b'E' => format!(" {} ", message.field(b'C').unwrap_or_default()),
        tag => char::from(tag).to_string(),
    };
    answer.iter().map(word).collect()
}

/// A StartupMessage of any version.
fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

const USER: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// A SELECT of one text value of so many bytes.
fn row_of(bytes: u64) -> String {
    format!("SELECT repeat('x', {bytes})")
}

#[tokio::test]
async fn versions_are_negotiated() {
    let site = Site::start();
    for (version, extra, secret_bytes, negotiated) in [
        (0x3_0000, None, 4, None),
        (0x3_0002, None, 32, None),
        (0x3_0009, None, 32, Some((2, 0))),
        (0x3_0000, Some("_pq_.command_tag"), 4, Some((0, 1))),
        (0x3_0002, Some("_pq_.command_tag"), 32, Some((2, 1))),
    ] {
        let mut client = RawClient::open(site.proxy.port()).await;
        let mut parameters = USER.to_vec();
        parameters.extend(extra.map(|name| (name, "on")));
        client.bytes(&startup(version, &parameters)).flush().await;
        if let Some((minor, count)) = negotiated {
            let message = client.read_message().await;
            assert_eq!(message.tag, b'v', "{version:x} {extra:?}");
            let number =
                |at: usize| u32::from_be_bytes(message.body[at..at + 4].try_into().expect("4 bytes"));
            assert_eq!((number(0) & 0xffff, number(4)), (minor, count), "{version:x} {extra:?}");
            assert_eq!(
                String::from_utf8_lossy(&message.body[8..]),
                extra.map_or(String::new(), |name| format!("{name}\0"))
            );
        }
        assert_eq!(client.authenticate("app", "secret").await, None);
        assert!(client.key().1.len() >= secret_bytes, "{version:x}: {} bytes", client.key().1.len());
        assert_eq!(secret_bytes == 4, client.key().1.len() == 4, "{version:x}");
        assert_eq!(client.query_value("SELECT 1 + 1").await, "2");
    }
    let mut client = RawClient::open(site.proxy.port()).await;
    client.bytes(&startup(0x2_0000, &USER)).flush().await;
    let refused = client.read_message().await;
    assert_eq!((refused.tag, client.try_read_message().await), (b'E', None));
}

#[tokio::test]
async fn encryption_is_declined_and_the_conversation_goes_on() {
    let site = Site::start();
    for codes in [&[80_877_103_u32][..], &[80_877_104], &[80_877_104, 80_877_103]] {
        let mut client = RawClient::open(site.proxy.port()).await;
        for code in codes {
            client.bytes(&8_u32.to_be_bytes()).bytes(&code.to_be_bytes()).flush().await;
            assert_eq!(client.read_byte().await, b'N');
        }
        client.startup(&USER).await;
        assert_eq!(client.authenticate("app", "secret").await, None);
        assert_eq!(client.query_value("SELECT 1 + 1").await, "2");
    }
}

#[tokio::test]
async fn every_byte_may_come_alone() {
    let site = Site::start();
    let mut client = RawClient::open(site.proxy.port()).await;
    client.bytes(&startup(0x3_0000, &USER)).flush_byte_by_byte().await;
    assert_eq!(client.authenticate("app", "secret").await, None);
    client
        .parse("s", "SELECT $1::text")
        .describe(b'S', "s")
        .bind("", "s", &[Some("bytes")])
        .execute("", 0)
        .sync();
    client.message(b'Q', b"CREATE TEMP TABLE t (id int)\0");
    client
        .message(b'Q', b"COPY t FROM STDIN\0")
        .message(b'd', b"1\n2\n")
        .message(b'd', b"3\n")
        .message(b'c', b"");
    client.message(b'Q', b"SELECT count(*) FROM t\0").message(b'Q', b"DROP TABLE t\0").message(b'Q', b"\0");
    client.flush_byte_by_byte().await;
    for tags in ["1tT2DCZ", "CZ", "GCZ", "TDCZ", "CZ", "IZ"] {
        assert_eq!(told(&client.read_until_ready().await), tags);
    }
}

#[tokio::test]
async fn huge_messages_stream_through() {
    let site = Site::configured(|config| config.set("limits", "request_buffer", "256KiB"));
    let mut client = site.raw().await;
    client.ask("SELECT 1").await;
    let before = site.memory();

    let text = "a".repeat(8 * MEGABYTE as usize);
    assert_eq!(client.query_value(&format!("SELECT length('{text}')")).await, text.len().to_string());

    let value = "b".repeat(20 * MEGABYTE as usize);
    for name in ["", "named"] {
        client
            .parse(name, "SELECT length($1::text), $1::text LIKE '%b'")
            .bind("", name, &[Some(&value)])
            .execute("", 0);
        client.sync().flush().await;
        let answer = client.read_until_ready().await;
        assert_eq!(told(&answer), "12DCZ");
        assert_eq!(answer[2].columns(), [Some(value.len().to_string()), Some("t".to_owned())]);
    }
    assert_eq!(client.query_value(&row_of(5 * MEGABYTE)).await.len() as u64, 5 * MEGABYTE);
    assert_eq!(client.query_value("SELECT 1").await, "1");
    let grown = site.memory().saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "{grown} bytes more than before");
}

#[tokio::test]
async fn many_syncs_and_queries_in_one_write() {
    let site = Site::start();
    let mut client = site.raw().await;
    for _ in 0..200 {
        client.sync();
    }
    client.flush().await;
    for _ in 0..200 {
        assert_eq!(told(&client.read_until_ready().await), "Z");
    }
    for number in 0..200 {
        if number % 2 == 0 {
            client.parse("", &format!("SELECT {number}")).bind("", "", &[]).execute("", 0).sync();
        } else {
            client.message(b'Q', format!("SELECT {number}\0").as_bytes());
        }
    }
    client.flush().await;
    for number in 0..200 {
        let answer = client.read_until_ready().await;
        let row = answer.iter().find(|message| message.tag == b'D').expect("a row");
        assert_eq!(row.columns(), [Some(number.to_string())]);
    }
    for empty in ["", "  ", "-- nothing", ";"] {
        assert_eq!(told(&client.ask(empty).await), "IZ", "{empty:?}");
        client.parse("", empty).bind("", "", &[]).describe(b'P', "").execute("", 0).sync().flush().await;
        assert_eq!(told(&client.read_until_ready().await), "12nIZ", "{empty:?}");
    }
}

#[tokio::test]
async fn copy_goes_both_ways() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE t (id int)").await;
    let mut client = site.raw().await;
    let mut rows = 0;
    // Data after the server has asked for it, and before.
    for waits in [true, false] {
        client.message(b'Q', b"COPY t FROM STDIN\0");
        if waits {
            client.flush().await;
            assert_eq!(client.read_message().await.tag, b'G');
        }
        client
            .message(b'd', b"1\n")
            .message(b'd', b"2\n3\n")
            .message(b'H', b"")
            .message(b'c', b"")
            .flush()
            .await;
        assert_eq!(told(&client.read_until_ready().await), if waits { "CZ" } else { "GCZ" });
        rows += 3;

        // The Sync behind Execute means nothing to a server that copies; a second one ends the request.
        for end in [b'S', b'H'] {
            client.parse("", "COPY t FROM STDIN").bind("", "", &[]).execute("", 0).message(end, b"");
            if waits {
                client.flush().await;
                for tag in *b"12G" {
                    assert_eq!(client.read_message().await.tag, tag);
                }
            }
            client.message(b'd', b"4\n").message(b'c', b"").sync().flush().await;
            assert_eq!(told(&client.read_until_ready().await), if waits { "CZ" } else { "12GCZ" }, "{end}");
            rows += 1;
        }
        assert_eq!(client.query_value("SELECT count(*) FROM t").await, rows.to_string());
    }
    // By a prepared name, so that the request is changed on its way.
    client.parse("copy", "COPY t FROM STDIN").sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "1Z");
    client.bind("", "copy", &[]).execute("", 0).sync().flush().await;
    for tag in *b"2G" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    client.message(b'd', b"5\n").message(b'c', b"").sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "CZ");

    let tags = told(&client.ask("COPY t TO STDOUT").await);
    assert_eq!(tags, format!("H{}cCZ", "d".repeat(rows + 1)));
    client.parse("", "COPY (SELECT 1) TO STDOUT").bind("", "", &[]).execute("", 0).sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "12HdcCZ");
    // Two in one text.
    client.query("COPY t FROM STDIN; COPY t FROM STDIN; SELECT 1").await;
    for _ in 0..2 {
        assert_eq!(client.read_message().await.tag, b'G');
        client.message(b'd', b"6\n").message(b'c', b"").flush().await;
        assert_eq!(client.read_message().await.tag, b'C');
    }
    assert_eq!(told(&client.read_until_ready().await), "TDCZ");
}

#[tokio::test]
async fn copy_of_much_data_holds_little_of_it() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE UNLOGGED TABLE t (line text)").await;
    let mut client = site.raw().await;
    client.ask("SELECT 1").await;
    let before = site.memory();
    client.query("COPY t FROM STDIN").await;
    let line = format!("{}\n", "z".repeat(99_999));
    for _ in 0..300 {
        client.message(b'd', line.as_bytes()).flush().await;
    }
    client.message(b'c', b"").flush().await;
    assert_eq!(told(&client.read_until_ready().await), "GCZ");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "300");
    let grown = site.memory().saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "{grown} bytes more than before");
}

#[tokio::test]
async fn a_copy_that_fails_leaves_the_session_usable() {
    let site = Site::configured(|config| config.pool("primary", &["primary"], 1));
    site.primary.query("SET ROLE app; CREATE TABLE t (id int)").await;
    let (mut client, mut other) = (site.raw().await, site.raw().await);
    for begin in [false, true] {
        let after = if begin { b'E' } else { b'I' };
        for extended in [false, true] {
            for fails in ["by the client", "by the server", "in the middle of a message"] {
                if begin {
                    client.ask("BEGIN").await;
                }
                if extended {
                    client
                        .parse("", "COPY t FROM STDIN")
                        .bind("", "", &[])
                        .execute("", 0)
                        .flush_message()
                        .flush()
                        .await;
                    assert_eq!(
                        (client.read_message().await.tag, client.read_message().await.tag),
                        (b'1', b'2')
                    );
                } else {
                    client.query("COPY t FROM STDIN").await;
                }
                assert_eq!(client.read_message().await.tag, b'G');
                match fails {
                    "by the client" => client.message(b'd', b"1\n").message(b'f', b"no more\0"),
                    "by the server" => {
                        client.message(b'd', b"not a number\n").message(b'd', b"2\n").message(b'c', b"")
                    }
                    // The header promises more than comes before the server has failed.
                    _ => client.message(b'd', b"not a number\n").bytes(b"d\0\0\0\x0a2\n"),
                };
                client.flush().await;
                let error = client.read_message().await;
                assert_eq!(error.tag, b'E', "{fails}");
                if fails == "in the middle of a message" {
                    // Nobody else may get the rest of the message in front of a statement.
                    let told_other = other.ask_soon("SELECT 'other'").await;
                    client.bytes(b"3\n4\n").message(b'c', b"");
                    client.flush().await;
                    if told_other.is_none() && !begin && !extended {
                        assert_eq!(told(&other.read_until_ready().await), "TDCZ", "{fails}");
                    } else if told_other.is_none() {
                        // It waits until the client's transaction or request is over.
                        if extended {
                            client.sync().flush().await;
                        }
                        let ready = client.read_until_ready().await;
                        assert_eq!(ready.last().expect("ready").body[0], after, "{fails}");
                        client.ask("ROLLBACK").await;
                        assert_eq!(told(&other.read_until_ready().await), "TDCZ", "{fails}");
                        continue;
                    }
                }
                if extended {
                    client.sync().flush().await;
                }
                let ready = client.read_until_ready().await;
                assert_eq!(ready.last().expect("ready").body[0], after, "{fails}, extended: {extended}");
                client.ask("ROLLBACK").await;
                assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");
                assert_eq!(other.query_value("SELECT 'other'").await, "other");
            }
        }
    }
    // Refused before it begins.
    client.query("COPY no_such_table FROM STDIN").await;
    client.message(b'd', b"1\n").message(b'c', b"").flush().await;
    assert_eq!(told(&client.read_until_ready().await), " 42P01 Z");
    client.parse("", "COPY no_such_table FROM STDIN").bind("", "", &[]).execute("", 0).sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "12 42P01 Z");
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn copy_into_a_temporary_table_as_asyncpg_does_it() {
    let cluster = Cluster::start();
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    cluster.primary.query("SET ROLE app; CREATE TABLE lasting (id int)").await;
    cluster.wait_for_replay().await;
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    for _ in 0..3 {
        client.ask("BEGIN;").await;
        assert_eq!(told(&client.ask("CREATE TEMP TABLE copied (id int) ON COMMIT DROP").await), "CZ");
        // Its columns are asked for, and never a Sync is sent for that.
        client.parse("__asyncpg_1__", "SELECT * FROM copied LIMIT 1").describe(b'S', "__asyncpg_1__");
        client.flush_message().flush().await;
        for tag in *b"1tT" {
            assert_eq!(client.read_message().await.tag, tag);
        }
        // The data comes without waiting for the server to ask for it.
        client.query("COPY copied FROM STDIN").await;
        client.message(b'd', b"1\n2\n").message(b'c', b"").flush().await;
        assert_eq!(told(&client.read_until_ready().await), "GCZ");
        assert_eq!(client.query_value("SELECT count(*) FROM copied").await, "2");
        client.close(b'S', "__asyncpg_1__").sync().flush().await;
        assert_eq!(told(&client.read_until_ready().await), "3Z");
        assert_eq!(told(&client.ask("COMMIT;").await), "CZ");
        proxy.wait_for_metric("bulkhead_sessions_pinned{reason=\"temp_objects\"}", 0.0).await;
    }
    // The same outside of a transaction: the description may come from the replica, the rows go to the primary.
    eventually("reads go to the replica", Duration::from_secs(10), async || {
        let text = proxy.metrics().await;
        client.ask("SELECT * FROM lasting").await;
        text.lines()
            .any(|line| line.starts_with("bulkhead_requests_total") && line.contains("pool=\"replicas\""))
            .then_some(())
    })
    .await;
    client
        .parse("lasting", "SELECT * FROM lasting LIMIT 1")
        .describe(b'S', "lasting")
        .flush_message()
        .flush()
        .await;
    for tag in *b"1tT" {
        assert_eq!(client.read_message().await.tag, tag);
    }
    client.query("COPY lasting FROM STDIN").await;
    client.message(b'd', b"1\n2\n").message(b'c', b"").flush().await;
    assert_eq!(told(&client.read_until_ready().await), "GCZ");
    assert_eq!(cluster.primary.value("SELECT count(*) FROM lasting").await, "2");
}

#[tokio::test]
async fn a_function_is_called_by_its_number() {
    let site = Site::start();
    let mut client = site.raw().await;
    let oid: u32 = site.primary.value("SELECT 'int4pl'::regproc::oid").await.parse().expect("an OID");
    let mut body = oid.to_be_bytes().to_vec();
    body.extend_from_slice(&[0, 1, 0, 1, 0, 2]);
    for number in [20_i32, 22] {
        body.extend_from_slice(&4_u32.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(&[0, 1]);
    for _ in 0..2 {
        client.message(b'F', &body).flush().await;
        let answer = client.read_until_ready().await;
        assert_eq!(told(&answer), "VZ");
        assert_eq!(&answer[0].body[..], [0, 0, 0, 4, 0, 0, 0, 42]);
    }
    client.message(b'F', &[0; 10]).flush().await;
    assert_eq!(told(&client.read_until_ready().await), " 42883 Z");
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory() {
    let site = Site::start();
    let (mut client, mut other) = (site.raw().await, site.raw().await);
    other.ask("SELECT 1").await;
    let before = site.memory();
    client.query("SELECT i, repeat('y', 100000) FROM generate_series(1, 2000) AS i").await;
    // The server has come to a halt once its side of the connection is full.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    eventually("the server waits", Duration::from_secs(20), async || {
        (site.primary.value(waiting).await == "1").then_some(())
    })
    .await;
    let mut most = 0;
    for _ in 0..20 {
        assert_eq!(other.query_value("SELECT 1").await, "1");
        most = most.max(site.memory());
    }
    assert!(most.saturating_sub(before) < 4 * MEGABYTE, "{most} bytes, {before} before");
    assert_eq!(client.read_message().await.tag, b'T');
    for number in 1..=2000 {
        let row = client.read_message().await.columns();
        assert_eq!(row[0], Some(number.to_string()));
        assert!(
            row[1]
                .as_ref()
                .is_some_and(|text| text.len() == 100_000 && text.bytes().all(|byte| byte == b'y'))
        );
    }
    assert_eq!(told(&client.read_until_ready().await), "CZ");
    let grown = site.memory().saturating_sub(before);
    assert!(grown < 4 * MEGABYTE, "{grown} bytes more than before");
}

#[tokio::test]
async fn terminate_right_behind_a_query() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE t (id int)").await;
    for number in 1..=10 {
        let mut client = site.raw().await;
        client.message(b'Q', b"INSERT INTO t VALUES (1)\0").terminate().await;
        let mut tags = String::new();
        while let Some(message) = client.try_read_message().await {
            tags.push(char::from(message.tag));
        }
        assert!("CZ".starts_with(&tags), "{tags}");
        let sql = "SELECT count(*) FROM t";
        eventually("the row is there", Duration::from_secs(10), async || {
            (site.primary.value(sql).await == number.to_string()).then_some(())
        })
        .await;
    }
    // A transaction that was left open is not.
    let mut client = site.raw().await;
    client.ask("BEGIN; DELETE FROM t").await;
    client.terminate().await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";
    eventually("nothing is open", Duration::from_secs(10), async || {
        (site.primary.value(open).await == "0").then_some(())
    })
    .await;
    assert_eq!(site.primary.value("SELECT count(*) FROM t").await, "10");
}
