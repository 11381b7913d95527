//! The protocol itself, message by message: greetings, any slicing of bytes, long messages, long pipelines, COPY, and
//! clients that do not read.

use std::{fmt::Write, time::Duration};

use crate::support::{Cluster, Proxy, ProxyConfig, RawClient, Site, eventually, told, values};

const MEGABYTE: u64 = 1024 * 1024;

const USER: [(&str, &str); 2] = [("user", "app"), ("database", "app")];

/// The part of the proxy's memory that no file backs.
fn memory(site: &Site) -> u64 {
    site.proxy.memory_bytes().1
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

#[tokio::test]
async fn versions_and_encryption_are_negotiated() {
    let site = Site::start();
    for (version, extra, secret_bytes, negotiated) in [
        (0x3_0000, None, 4, None),
        (0x3_0002, None, 32, None),
        (0x3_0009, None, 32, Some((0x3_0002, 0))),
        (0x3_0000, Some("_pq_.command_tag"), 4, Some((0x3_0000, 1))),
        (0x3_0002, Some("_pq_.command_tag"), 32, Some((0x3_0002, 1))),
    ] {
        let mut client = RawClient::open(site.proxy.port()).await;
        let mut parameters = USER.to_vec();
        parameters.extend(extra.map(|name| (name, "on")));
        client.bytes(&startup(version, &parameters)).flush().await;
        if let Some((version, count)) = negotiated {
            let message = client.read_message().await;
            assert_eq!(message.tag, b'v', "{version:x} {extra:?}");
            let number =
                |at: usize| u32::from_be_bytes(message.body[at..at + 4].try_into().expect("4 bytes"));
            assert_eq!((number(0), number(4)), (version, count), "{version:x} {extra:?}");
            assert_eq!(
                String::from_utf8_lossy(&message.body[8..]),
                extra.map_or(String::new(), |name| format!("{name}\0"))
            );
        }
        assert_eq!(client.authenticate("app", "secret").await, None);
        assert_eq!(client.key().1.len(), secret_bytes, "{version:x}");
        assert_eq!(client.query_value("SELECT 1 + 1").await, "2");
    }
    let mut client = RawClient::open(site.proxy.port()).await;
    client.bytes(&startup(0x2_0000, &USER)).flush().await;
    let refused = client.read_message().await;
    assert_eq!((refused.tag, client.try_read_message().await), (b'E', None));

    // Encryption is declined, and the client may go on without.
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
    // With a password, so that its messages are sliced as well as the others.
    let site = Site::configured(|config| config.set("auth", "method", "scram-sha-256"));
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
    client.message(b'Q', b"SELECT count(*) FROM t; SELECT 'two'\0").message(b'Q', b"DROP TABLE t\0");
    client.message(b'Q', b"\0").flush_byte_by_byte().await;
    for (tags, rows) in [
        ("1tT2DCZ", &["bytes"][..]),
        ("CZ", &[]),
        ("GCZ", &[]),
        ("TDCTDCZ", &["3", "two"]),
        ("CZ", &[]),
        ("IZ", &[]),
    ] {
        let answer = client.read_until_ready().await;
        assert_eq!(told(&answer), tags);
        assert_eq!(values(&answer), rows);
    }
}

/// Values that are longer still are the business of `corners::giants`.
#[tokio::test]
async fn texts_and_values_over_the_request_buffer_stream_through() {
    let site = Site::configured(|config| config.set("limits", "request_buffer", "256KiB"));
    let mut client = site.client().await;
    client.ask("SELECT 1").await;
    let before = memory(&site);

    let text = format!("SELECT length('{}')", "a".repeat(8 * MEGABYTE as usize));
    let length = (8 * MEGABYTE).to_string();
    assert_eq!(client.query_value(&text).await, length);
    client.parse("", &text).bind("", "", &[]).execute("", 0);
    assert_eq!(values(&client.finish().await), [length.as_str()]);
    client.parse("long", &text);
    assert_eq!(client.exchange().await, " 54000 Z", "a long text cannot be kept under a name");

    let value = "b".repeat(20 * MEGABYTE as usize);
    let expected = [value.len().to_string(), "t".to_owned()];
    for name in ["", "named"] {
        client
            .parse(name, "SELECT length($1::text), $1::text LIKE '%b'")
            .bind("", name, &[Some(&value)])
            .execute("", 0);
        let answer = client.finish().await;
        assert_eq!((told(&answer).as_str(), values(&answer)), ("12DCZ", expected.to_vec()));
    }
    client.bind("", "named", &[Some(&value)]).execute("", 0);
    assert_eq!(values(&client.finish().await), expected);
    assert_eq!(client.query_value("SELECT 1").await, "1");
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "{grown} bytes more than before");
}

#[tokio::test]
async fn many_requests_in_one_write_are_answered_in_order() {
    let site = Site::start();
    let mut client = site.client().await;
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
        assert_eq!(values(&client.read_until_ready().await), [number.to_string()]);
    }
}

#[tokio::test]
async fn copy_of_much_data_loses_none_and_holds_little_of_it() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE UNLOGGED TABLE t (id int, line text)").await;
    let mut client = site.client().await;
    client.ask("SELECT 1").await;
    let before = memory(&site);
    let filling = "z".repeat(99_000);
    let mut rows = String::new();
    for number in 0..300 {
        writeln!(rows, "{number}\t{filling}").expect("text takes text");
    }
    // In pieces that have nothing to do with rows.
    client.query("COPY t FROM STDIN").await;
    client.expect("G").await;
    for piece in rows.as_bytes().chunks(70_001) {
        client.message(b'd', piece).flush().await;
    }
    client.message(b'c', b"").flush().await;
    assert_eq!(told(&client.read_until_ready().await), "CZ");
    let answer = client.ask("COPY (SELECT * FROM t ORDER BY id) TO STDOUT").await;
    assert_eq!(told(&answer), format!("H{}cCZ", "d".repeat(300)));
    let data = answer.iter().filter(|message| message.tag == b'd');
    let out: Vec<u8> = data.flat_map(|message| message.body.iter().copied()).collect();
    assert!(out == rows.as_bytes(), "{} bytes came back, of {}", out.len(), rows.len());
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 8 * MEGABYTE, "{grown} bytes more than before");
}

/// The server fails in the middle of a message: nobody else may get the rest of that in front of a statement.
#[tokio::test]
async fn a_copy_that_fails_in_the_middle_of_a_message_leaves_the_session_usable() {
    let site = Site::with_backends(1);
    site.primary.query("SET ROLE app; CREATE TABLE t (id int)").await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    for (begin, extended) in [(false, false), (false, true), (true, false), (true, true)] {
        let what = format!("in a transaction: {begin}, extended: {extended}");
        if begin {
            client.ask("BEGIN").await;
        }
        if extended {
            client.parse("", "COPY t FROM STDIN").bind("", "", &[]).execute("", 0).flush_message();
            client.flush().await;
            client.expect("12G").await;
        } else {
            client.query("COPY t FROM STDIN").await;
            client.expect("G").await;
        }
        // The header promises more than comes before the server has failed.
        client.message(b'd', b"not a number\n").bytes(b"d\0\0\0\x0a2\n").flush().await;
        client.expect("E").await;
        // The other one may be served at once, or wait until the client's request or transaction is over.
        let served = other.ask_soon("SELECT 'other'").await;
        client.bytes(b"3\n4\n").message(b'c', b"");
        if extended {
            client.sync();
        }
        client.flush().await;
        let ready = client.read_until_ready().await;
        assert_eq!(ready.last().expect("ready").body[0], if begin { b'E' } else { b'I' }, "{what}");
        client.ask("ROLLBACK").await;
        let served = match served {
            Some(answer) => answer,
            None => other.read_until_ready().await,
        };
        assert_eq!(values(&served), ["other"], "{what}");
        assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0", "{what}");
        assert_eq!(other.query_value("SELECT 'other'").await, "other", "{what}");
    }
}

#[tokio::test]
async fn copy_into_a_temporary_table_as_asyncpg_does_it() {
    let cluster = Cluster::start();
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    cluster.primary.query("SET ROLE app; CREATE TABLE lasting (id int)").await;
    cluster.wait_for_replay().await;
    let mut client = RawClient::app(proxy.port()).await;
    for _ in 0..3 {
        client.ask("BEGIN;").await;
        assert_eq!(told(&client.ask("CREATE TEMP TABLE copied (id int) ON COMMIT DROP").await), "CZ");
        // Its columns are asked for, and never a Sync is sent for that.
        client.parse("__asyncpg_1__", "SELECT * FROM copied LIMIT 1").describe(b'S', "__asyncpg_1__");
        client.flush_message().flush().await;
        client.expect("1tT").await;
        // The data comes without waiting for the server to ask for it.
        client.query("COPY copied FROM STDIN").await;
        client.message(b'd', b"1\n2\n").message(b'c', b"").flush().await;
        assert_eq!(told(&client.read_until_ready().await), "GCZ");
        assert_eq!(client.query_value("SELECT count(*) FROM copied").await, "2");
        client.close(b'S', "__asyncpg_1__");
        assert_eq!(client.exchange().await, "3Z");
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
    client.expect("1tT").await;
    client.query("COPY lasting FROM STDIN").await;
    client.message(b'd', b"1\n2\n").message(b'c', b"").flush().await;
    assert_eq!(told(&client.read_until_ready().await), "GCZ");
    assert_eq!(cluster.primary.value("SELECT count(*) FROM lasting").await, "2");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything_and_costs_no_memory() {
    const ROWS: usize = 600;
    let site = Site::start();
    let (mut client, mut other) = (site.client().await, site.client().await);
    other.ask("SELECT 1").await;
    let before = memory(&site);
    client.query(&format!("SELECT i, repeat('y', 100000) FROM generate_series(1, {ROWS}) AS i")).await;
    // The server has come to a halt once its side of the connection is full.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'";
    eventually("the server waits", Duration::from_secs(20), async || {
        (site.primary.value(waiting).await == "1").then_some(())
    })
    .await;
    let mut most = 0;
    for _ in 0..20 {
        assert_eq!(other.query_value("SELECT 1").await, "1");
        most = most.max(memory(&site));
    }
    assert!(most.saturating_sub(before) < 4 * MEGABYTE, "{most} bytes, {before} before");
    let whole = "y".repeat(100_000);
    client.expect("T").await;
    for number in 1..=ROWS {
        let row = client.read_message().await.columns();
        assert_eq!(row[0], Some(number.to_string()));
        assert!(row[1].as_ref() == Some(&whole), "row {number} is whole");
    }
    assert_eq!(told(&client.read_until_ready().await), "CZ");
    let grown = memory(&site).saturating_sub(before);
    assert!(grown < 4 * MEGABYTE, "{grown} bytes more than before");
}
