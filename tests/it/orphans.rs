//! Clients that leave: what they had sent whole runs to its end, as on a server, in bounded time; what cannot have an
//! effect does not.

use std::time::{Duration, Instant};

use crate::support::{RawClient, Site, error_code, eventually};

const SOON: Duration = Duration::from_secs(10);

async fn site(orphan_timeout: &str) -> Site {
    let site = Site::configured(|config| config.set("limits", "orphan_timeout", orphan_timeout));
    site.primary.query("CREATE TABLE t (a int, b text); ALTER TABLE t OWNER TO app").await;
    site
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Close,
    Goodbye,
    Reset,
    HalfClose,
}

const WAYS: [Way; 4] = [Way::Close, Way::Goodbye, Way::Reset, Way::HalfClose];

async fn leave(mut client: RawClient, way: Way) {
    match way {
        Way::Close => {}
        Way::Goodbye => client.terminate().await,
        Way::Reset => return client.reset(),
        Way::HalfClose => {
            client.half_close().await;
            while client.try_read_message().await.is_some() {}
        }
    }
    drop(client);
}

async fn wait_for_rows(site: &Site, what: &str, sql: &str, wanted: &str) {
    eventually(what, SOON, async || (site.primary.value(sql).await == wanted).then_some(())).await;
}

#[tokio::test]
async fn what_was_sent_whole_runs_to_its_end() {
    let forms: [(&str, fn(&mut RawClient), usize); 6] = [
        (
            "one statement",
            |client| {
                client.message(b'Q', b"INSERT INTO t VALUES (1)\0");
            },
            1,
        ),
        (
            "a slow one",
            |client| {
                client.message(b'Q', b"INSERT INTO t SELECT 1 FROM pg_sleep(0.3)\0");
            },
            1,
        ),
        (
            "one behind another",
            |client| {
                client.message(b'Q', b"SELECT pg_sleep(0.3); INSERT INTO t VALUES (1)\0");
            },
            1,
        ),
        (
            "several requests",
            |client| {
                client.message(b'Q', b"SELECT pg_sleep(0.1)\0").message(b'Q', b"INSERT INTO t VALUES (1)\0");
                client.parse("", "INSERT INTO t VALUES (2)").bind("", "", &[]).execute("", 0).sync();
                client.message(b'Q', b"INSERT INTO t VALUES (3)\0");
            },
            3,
        ),
        (
            "a transaction",
            |client| {
                client
                    .message(b'Q', b"BEGIN\0")
                    .message(b'Q', b"INSERT INTO t SELECT 1 FROM pg_sleep(0.1)\0");
                client.message(b'Q', b"COMMIT\0");
            },
            1,
        ),
        (
            "COPY",
            |client| {
                client.message(b'Q', b"COPY t (a) FROM STDIN\0").message(b'd', b"1\n").message(b'd', b"2\n");
                client.message(b'c', b"");
            },
            2,
        ),
    ];
    let site = site("20s").await;
    for (what, say, rows) in forms {
        for way in WAYS {
            // More than there are connections: some wait for one when they leave.
            let mut clients = Vec::new();
            for _ in 0..5 {
                clients.push(site.client().await);
            }
            for mut client in clients {
                say(&mut client);
                client.flush().await;
                if way == Way::Reset {
                    // What the system has not handed over yet is lost by it, also on a server.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                leave(client, way).await;
            }
            let what = format!("{what}, {way:?}");
            wait_for_rows(&site, &what, "SELECT count(*) FROM t", &(5 * rows).to_string()).await;
            site.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
            site.primary.query("TRUNCATE t").await;
        }
    }
}

#[tokio::test]
async fn what_was_not_sent_whole_does_not_happen() {
    let forms: [(&str, fn(&mut RawClient)); 4] = [
        ("no COMMIT", |client| {
            client.message(b'Q', b"BEGIN\0").message(b'Q', b"INSERT INTO t VALUES (1)\0");
        }),
        ("no Sync", |client| {
            client.parse("", "INSERT INTO t VALUES (1)").bind("", "", &[]).execute("", 0);
        }),
        ("no Sync, but a Flush", |client| {
            client.parse("", "INSERT INTO t VALUES (1)").bind("", "", &[]).execute("", 0).flush_message();
        }),
        ("no CopyDone", |client| {
            client.message(b'Q', b"COPY t (a) FROM STDIN\0").message(b'd', b"1\n");
        }),
    ];
    let site = site("20s").await;
    for (what, say) in forms {
        for way in WAYS {
            let mut client = site.client().await;
            say(&mut client);
            client.flush().await;
            let began = Instant::now();
            leave(client, way).await;
            site.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
            assert!(began.elapsed() < SOON, "{what}, {way:?}: nothing is waited for");
            site.primary.wait_for_app_backends("state <> 'idle'", 0).await;
            assert_eq!(site.primary.value("SELECT count(*) FROM t").await, "0", "{what}, {way:?}");
        }
    }
}

/// A client that has closed only its sending side is told what a server tells it.
#[tokio::test]
async fn a_half_closed_client_gets_its_answers() {
    let site = site("20s").await;
    let mut told = Vec::new();
    for port in [site.primary.port(), site.proxy.port()] {
        let mut client = RawClient::login(port, crate::support::Login::App, "app").await;
        client.message(b'Q', b"SELECT pg_sleep(0.2), repeat('x', 2000000)\0").message(b'Q', b"SELECT 1/0\0");
        client.parse("", "SELECT 3").bind("", "", &[]).execute("", 0).sync().parse("", "SELECT 4").bind(
            "",
            "",
            &[],
        );
        client.execute("", 0).flush_message().flush().await;
        client.half_close().await;
        let mut tags = String::new();
        while let Some(message) = client.try_read_message().await {
            tags.push(char::from(message.tag));
        }
        told.push(tags);
    }
    assert_eq!(told[0], "TDCZEZ12DCZ12DC");
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn what_a_client_left_behind_is_bounded() {
    let site = site("400ms").await;
    for way in [Way::Close, Way::Goodbye, Way::Reset] {
        let mut client = site.client().await;
        client.query("INSERT INTO t SELECT 1 FROM pg_sleep(60)").await;
        site.primary.wait_for_app_backends("state = 'active' AND query LIKE 'INSERT%'", 1).await;
        leave(client, way).await;
        site.primary.wait_for_app_backends("state = 'active' AND query LIKE 'INSERT%'", 0).await;
        site.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    }
    let mut client = site.client().await;
    client.query("INSERT INTO t SELECT 1 FROM pg_sleep(60)").await;
    client.half_close().await;
    let error = client.read_message().await;
    assert_eq!(error_code(std::slice::from_ref(&error)).as_deref(), Some("57014"), "{error:?}");
    assert!(error.field(b'H').is_some_and(|hint| hint.contains("limits.orphan_timeout")), "{error:?}");
    assert_eq!(client.try_read_message().await, None);
    // Requests that have not begun by then do not.
    let mut client = site.client().await;
    client.message(b'Q', b"SELECT pg_sleep(60)\0").message(b'Q', b"INSERT INTO t VALUES (1)\0").flush().await;
    leave(client, Way::Close).await;
    site.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    assert_eq!(site.primary.value("SELECT count(*) FROM t").await, "0");
    site.proxy.wait_for_log("its client left before it ended").await;
}

/// What only reads is of no use to anybody when its client is gone for good.
#[tokio::test]
async fn a_read_ends_with_its_client() {
    let site = site("1h").await;
    let busy = "state = 'active' AND query LIKE 'SELECT count(*) FROM generate_series%'";
    let read = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
    eventually("the functions of the database are known", SOON, async || {
        site.client().await.ask("SELECT count(*) FROM generate_series(1, 2) n").await;
        site.proxy.metric(read).await.filter(|count| *count > 0.0)
    })
    .await;
    for way in [Way::Goodbye, Way::Reset] {
        let mut client = site.client().await;
        client.query("SELECT count(*) FROM generate_series(1, 100000000000) n WHERE n < 0").await;
        site.primary.wait_for_app_backends(busy, 1).await;
        leave(client, way).await;
        site.primary.wait_for_app_backends(busy, 0).await;
        site.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    }
}
