//! Clients that leave in the middle: nothing of what they began stays, and nobody else notices.

use std::time::Duration;

use super::talk::Pair;
use crate::support::{RawClient, eventually};

const SOON: Duration = Duration::from_secs(10);

/// Where a client stands when it leaves.
const PHASES: [&str; 15] = [
    "in a header",
    "in a Query",
    "in a Parse behind others",
    "in a message that is streamed",
    "in a Bind that is streamed",
    "after a Flush that prepares",
    "after a Flush that executes",
    "with a portal half read",
    "in an open transaction",
    "in a failed transaction",
    "in COPY in",
    "in a message of COPY in",
    "in COPY out",
    "while a statement runs",
    "pinned",
];

/// Where a goodbye is understood: not in the middle of a message, where it is part of that, nor as long as the server
/// has something to say.
const UNDERSTOOD: [&str; 6] = [
    "after a Flush that prepares",
    "after a Flush that executes",
    "with a portal half read",
    "in an open transaction",
    "in a failed transaction",
    "pinned",
];

async fn bring(client: &mut RawClient, phase: &str) {
    let open_copy = async |client: &mut RawClient| {
        client.query("COPY t FROM STDIN").await;
        assert_eq!(client.read_message().await.tag, b'G');
    };
    match phase {
        "in a header" => client.bytes(b"Q\0\0").flush().await,
        "in a Query" => client.bytes(b"Q\0\0\0\x30INSERT INTO t VALUES (100)").flush().await,
        "in a Parse behind others" => {
            client.parse("", "INSERT INTO t VALUES (100)").bind("", "", &[]).execute("", 0);
            client.bytes(b"P\0\0\0\x30s\0SELECT").flush().await;
        }
        "in a message that is streamed" => {
            client.bytes(b"Q\0\x50\0\0INSERT INTO t SELECT 100, '").bytes(&vec![b'x'; 3 << 20]).flush().await;
        }
        "in a Bind that is streamed" => {
            client.parse("s", "INSERT INTO t VALUES (100, $1)").sync().flush().await;
            client.read_until_ready().await;
            client.bytes(b"B\0\x50\0\0\0s\0\0\0\0\x01\0\x4f\0\0").bytes(&vec![b'x'; 3 << 20]).flush().await;
        }
        "after a Flush that prepares" => {
            client.parse("s", "SELECT a FROM t").describe(b'S', "s").flush_message().flush().await;
            while client.read_message().await.tag != b'T' {}
        }
        "after a Flush that executes" => {
            client.parse("", "INSERT INTO t VALUES (100)").bind("", "", &[]).execute("", 0).flush_message();
            client.flush().await;
            while client.read_message().await.tag != b'C' {}
        }
        "with a portal half read" => {
            client
                .parse("", "VALUES (1), (2)")
                .bind("p", "", &[])
                .execute("p", 1)
                .flush_message()
                .flush()
                .await;
            while client.read_message().await.tag != b's' {}
        }
        "in an open transaction" => drop(client.ask("BEGIN; INSERT INTO t VALUES (100)").await),
        "in a failed transaction" => drop(client.ask("BEGIN; INSERT INTO t VALUES (100); SELECT 1/0").await),
        "in COPY in" => {
            open_copy(client).await;
            client.message(b'd', b"100\tx\n").flush().await;
        }
        "in a message of COPY in" => {
            open_copy(client).await;
            client.message(b'd', b"100\tx\n").bytes(b"d\0\x50\0\0").bytes(&vec![b'x'; 3 << 20]).flush().await;
        }
        "in COPY out" => {
            let sql = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT";
            client.query(sql).await;
            while client.read_message().await.tag != b'd' {}
        }
        "while a statement runs" => {
            client.query("INSERT INTO t SELECT 100, pg_sleep(60)::text").await;
        }
        _ => {
            client
                .ask("CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock(1); SET work_mem = '1MB'")
                .await;
        }
    }
}

#[tokio::test]
async fn a_client_may_leave_anywhere() {
    let site = Pair::configured(|config| config.set("limits", "orphan_timeout", "300ms")).await;
    let mut next = site.client().await;
    for phase in PHASES {
        for says_goodbye in [false, true] {
            let mut client = site.client().await;
            client.query_value("SELECT 'before'").await;
            bring(&mut client, phase).await;
            if says_goodbye {
                client.message(b'X', b"").try_flush().await;
                if UNDERSTOOD.contains(&phase) {
                    assert_eq!(client.try_read_message().await, None, "{phase}");
                }
            }
            drop(client);
            // Its backend is the only one: whoever is next gets it, or its successor, in good order.
            let seen = next.query_value("SELECT count(*) || current_setting('work_mem') FROM t").await;
            assert_eq!(seen, "04MB", "{phase}");
            assert_eq!(next.query_value("SELECT pg_try_advisory_xact_lock(1)").await, "t", "{phase}");
            assert_eq!(next.query_value("SELECT to_regclass('pg_temp.mine') IS NULL").await, "t", "{phase}");
            // The witness, and the one that every site has.
            site.proxy.wait_for_metric("bulkhead_clients", 2.0).await;
            site.calm().await;
        }
    }
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app_trust' AND state <> 'idle'";
    assert_eq!(site.primary.value(busy).await, "0");
    site.finish().await;
}

#[tokio::test]
async fn a_client_may_leave_the_queue() {
    let site = Pair::configured(|config| config.set("pools.primary", "wait_timeout", "60s")).await;
    let mut holder = site.client().await;
    holder.ask("BEGIN; SELECT 1").await;
    let waiting = "bulkhead_pool_waiting{pool=\"primary\",server=\"primary\"}";
    for says_goodbye in [false, true] {
        let mut client = site.client().await;
        client.query("SELECT a FROM t").await;
        site.proxy.wait_for_metric(waiting, 1.0).await;
        if says_goodbye {
            client.terminate().await;
            drop(client);
        } else {
            client.reset();
        }
        site.proxy.wait_for_metric(waiting, 0.0).await;
    }
    // One who waits behind those that have left is served.
    let mut next = site.client().await;
    next.query("SELECT count(*) FROM t").await;
    site.proxy.wait_for_metric(waiting, 1.0).await;
    holder.ask("COMMIT").await;
    let answer = next.read_until_ready().await;
    assert_eq!(answer[1].columns(), [Some("0".to_owned())]);
    site.finish().await;
}

/// What came before a goodbye without Sync is not committed, as on the server.
#[tokio::test]
async fn a_goodbye_is_no_sync() {
    let site = Pair::start().await;
    for port in [site.primary.port(), site.proxy.port()] {
        let mut client = site.client_of(port).await;
        client.parse("", "INSERT INTO t VALUES (100)").bind("", "", &[]).execute("", 0).message(b'X', b"");
        client.flush().await;
        while client.try_read_message().await.is_some() {}
        let mut client = site.client_of(port).await;
        client.parse("", "INSERT INTO t VALUES (101)").bind("", "", &[]).execute("", 0).sync();
        client.message(b'X', b"").flush().await;
        while client.try_read_message().await.is_some() {}
        let rows = "SELECT string_agg(a::text, ' ') FROM t";
        eventually("what was synced is there", SOON, async || {
            (site.client_of(port).await.query_value(rows).await == "101").then_some(())
        })
        .await;
        site.client_of(port).await.ask("TRUNCATE t").await;
    }
    site.finish().await;
}

#[tokio::test]
async fn a_query_before_a_goodbye_is_run_and_answered() {
    let site = Pair::start().await;
    for port in [site.primary.port(), site.proxy.port()] {
        for number in 1..=10 {
            let mut client = site.client_of(port).await;
            client.message(b'Q', format!("INSERT INTO t VALUES ({number})\0").as_bytes()).terminate().await;
            client.expect("CZ").await;
            assert_eq!(client.try_read_message().await, None);
        }
        let mut client = site.client_of(port).await;
        assert_eq!(client.query_value("SELECT count(*) FROM t").await, "10");
        client.ask("TRUNCATE t").await;
    }
    site.finish().await;
}
