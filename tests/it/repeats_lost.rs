//! Reads whose connection ends without a word are run once more, those of a replica on the primary; what may have had an
//! effect is not, whichever way its connection ends.

use std::time::Duration;

use crate::support::{
    Cluster, Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Relay, Role, Say, Stop, error_code,
    eventually, values,
};

const SOON: Duration = Duration::from_secs(20);

/// What a lost connection is told by.
const LOST: [&str; 2] = ["57P01", "08006"];

/// Whoever waits for the table that is locked.
const WAITS: &str = "wait_event_type = 'Lock' AND query LIKE '%locked%'";

/// How many hold the lock on the table.
const LOCKED: &str = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
                      AND relation = 'locked'::regclass";

/// Enough for every connection to be known.
const ROUNDS: usize = 10;

fn repeats(reason: &str) -> String {
    format!("bulkhead_repeats_total{{reason=\"{reason}\"}}")
}

/// Of both reasons for which a connection ends.
async fn repeated(proxy: &Proxy) -> [usize; 2] {
    let mut counts = [0, 0];
    for (count, reason) in counts.iter_mut().zip(["connection_ended", "connection_lost"]) {
        *count = proxy.metric(&repeats(reason)).await.expect("it is counted") as usize;
    }
    counts
}

async fn wait_until_reads_go_to(proxy: &Proxy, pool: &str) {
    let read = format!("bulkhead_requests_total{{class=\"read\",pool=\"{pool}\",reason=\"read_only\"}}");
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    eventually(&format!("reads go to {pool}"), SOON, async || {
        let before = proxy.metric(&read).await.unwrap_or(0.0);
        client.ask("SELECT count(*) FROM generate_series(1, 2) n").await;
        proxy.metric(&read).await.filter(|count| *count > before)
    })
    .await;
}

/// Keeps everybody from a table, on the replica as well, as long as the connection lives.
async fn lock(primary: &Postgres, replica: Option<&Postgres>) -> tokio_postgres::Client {
    let holder = primary.admin().await;
    holder
        .batch_execute("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE")
        .await
        .expect("nobody has a lock");
    if let Some(replica) = replica {
        // A commit takes the lock along to the replica.
        primary.query("CREATE TABLE IF NOT EXISTS flushed (); INSERT INTO flushed DEFAULT VALUES").await;
        eventually("the table is locked on the replica", SOON, async || {
            (replica.value(LOCKED).await == "1").then_some(())
        })
        .await;
    }
    holder
}

const READ: &str = "SELECT count(*) FROM locked";

fn unit<'a>(client: &'a mut RawClient, sql: &str) -> &'a mut RawClient {
    client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0)
}

fn query(client: &mut RawClient, sql: &str) {
    client.message(b'Q', format!("{sql}\0").as_bytes());
}

/// Ways to say reads, how many answers they have, and what is in them.
fn reads() -> Vec<(&'static str, Say, usize, Vec<&'static str>)> {
    vec![
        ("Query", |client| query(client, READ), 1, vec!["3"]),
        ("Query of two", |client| query(client, "SELECT 1; SELECT count(*) FROM locked"), 1, vec!["1", "3"]),
        (
            "extended",
            |client| {
                unit(client, READ).sync();
            },
            1,
            vec!["3"],
        ),
        (
            "prepared before",
            |client| {
                client.bind("", "counts", &[]).execute("", 0).sync();
            },
            1,
            vec!["3"],
        ),
        (
            "pipeline",
            |client| {
                unit(client, "SELECT 7");
                unit(client, READ);
                client.bind("", "counts", &[]).execute("", 0).sync();
            },
            1,
            vec!["7", "3", "3"],
        ),
        (
            "two pipelines in one write",
            |client| {
                unit(client, READ).sync();
                unit(client, "SELECT 8").sync();
            },
            2,
            vec!["3", "8"],
        ),
    ]
}

async fn reader(proxy: &Proxy) -> RawClient {
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    client.parse("counts", READ).describe(b'S', "counts");
    client.finish().await;
    client
}

async fn read_answers(client: &mut RawClient, count: usize) -> Vec<Message> {
    let mut answers = Vec::new();
    for _ in 0..count {
        answers.extend(client.read_until_ready().await);
    }
    answers
}

/// What becomes of a server, and for which of the two reasons reads are repeated then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    BackendKilled,
    BackendsTerminated,
    ServerKilled,
    ImmediateShutdown,
    Reset,
}

impl Fault {
    async fn bring(self, server: &Postgres, relay: &Relay) {
        match self {
            Self::BackendKilled => {
                let pid = server
                    .value(&format!(
                        "SELECT min(pid) FROM pg_stat_activity WHERE usename = 'app' AND {WAITS}"
                    ))
                    .await;
                server.kill_backend(pid.parse().expect("somebody waits")).await;
            }
            Self::BackendsTerminated => {
                server.end_app_backends(WAITS).await;
            }
            Self::ServerKilled => server.kill(),
            Self::ImmediateShutdown => server.stop(Stop::Immediate),
            Self::Reset => relay.cut(),
        }
    }

    fn heal(self, server: &Postgres) {
        if matches!(self, Self::ServerKilled | Self::ImmediateShutdown) {
            server.boot();
        }
    }

    /// How many of `count` repeats are for each reason.
    fn reasons(self, count: usize) -> [usize; 2] {
        if self == Self::BackendsTerminated { [count, 0] } else { [0, count] }
    }
}

const FAULTS: [Fault; 5] = [
    Fault::BackendKilled,
    Fault::BackendsTerminated,
    Fault::ServerKilled,
    Fault::ImmediateShutdown,
    Fault::Reset,
];

/// A client with what it is called, how it says a read, how many answers that has, and what is in them.
type Reader = (&'static str, RawClient, Say, usize, Vec<&'static str>);

/// Has all of them read what is locked, on the replica. A connection that was made just now may not be known in time to be
/// at the replica, and its read goes to the primary: then all are let go, and read again by connections that are known.
async fn wait_on_replica(cluster: &Cluster, clients: &mut [Reader]) -> tokio_postgres::Client {
    let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND {WAITS}");
    let count = async |server: &Postgres| server.value(&waiting).await.parse::<usize>().expect("a count");
    for _ in 0..ROUNDS {
        let holder = lock(&cluster.primary, Some(&cluster.replica)).await;
        for (_, client, say, ..) in &mut *clients {
            say(client);
            client.flush().await;
        }
        let there = eventually("all of them wait", SOON, async || {
            let there = count(&cluster.replica).await;
            (there + count(&cluster.primary).await == clients.len()).then_some(there)
        })
        .await;
        if there == clients.len() {
            return holder;
        }
        drop(holder);
        for (what, client, _, answers, expected) in &mut *clients {
            let answer = read_answers(client, *answers).await;
            assert_eq!(values(&answer), *expected, "{what}");
        }
        eventually("the replica has let go of the table", SOON, async || {
            (cluster.replica.value(LOCKED).await == "0").then_some(())
        })
        .await;
    }
    panic!("not all of them read on the replica");
}

/// All at once, whatever ends their connections: none of the clients notices.
#[tokio::test]
async fn reads_of_a_replica_that_is_gone_are_run_on_the_primary() {
    let cluster = Cluster::start();
    cluster
        .primary
        .query("CREATE TABLE locked AS SELECT generate_series(1, 3) a; GRANT SELECT ON locked TO app")
        .await;
    cluster.wait_for_replay().await;
    let relay = Relay::start(cluster.replica.port());
    let config = ProxyConfig::of(&cluster)
        .set("servers.replica_1", "url", Login::App.url(relay.port(), "app"))
        .pool("primary", &["primary"], 20)
        .pool("replicas", &["replica_1"], 20);
    let proxy = Proxy::start(&config.to_toml());
    for fault in FAULTS {
        wait_until_reads_go_to(&proxy, "replicas").await;
        let before = repeated(&proxy).await;
        let mut clients = Vec::new();
        for (what, say, answers, expected) in reads() {
            clients.push((what, reader(&proxy).await, say, answers, expected));
        }
        let holder = wait_on_replica(&cluster, &mut clients).await;
        fault.bring(&cluster.replica, &relay).await;
        cluster.primary.wait_for_app_backends(WAITS, clients.len()).await;
        drop(holder);
        for (what, client, _, answers, expected) in &mut clients {
            let answer = read_answers(client, *answers).await;
            assert_eq!(error_code(&answer), None, "{fault:?}, {what}: {answer:?}");
            assert!(answer.iter().all(|message| message.tag != b'N'), "{fault:?}, {what}: {answer:?}");
            assert_eq!(values(&answer), *expected, "{fault:?}, {what}");
        }
        let after = repeated(&proxy).await;
        let more = [after[0] - before[0], after[1] - before[1]];
        assert_eq!(more, fault.reasons(clients.len()), "{fault:?}");
        fault.heal(&cluster.replica);
    }
}

/// What a client says that must not be run once more, and whether its session ends with its connection.
fn not_only_reads() -> Vec<(&'static str, Say, bool)> {
    vec![
        ("INSERT", |client| query(client, "INSERT INTO kept SELECT 'insert' FROM locked LIMIT 1"), false),
        (
            "read and INSERT in one text",
            |client| query(client, "SELECT count(*) FROM locked; INSERT INTO kept VALUES ('text')"),
            false,
        ),
        (
            "pipeline of a read and an INSERT",
            |client| {
                unit(client, READ);
                unit(client, "INSERT INTO kept VALUES ('pipeline')").sync();
            },
            false,
        ),
        (
            "INSERT in WITH",
            |client| {
                unit(client, "WITH w AS (INSERT INTO kept SELECT 'with' FROM locked LIMIT 1) SELECT 1")
                    .sync();
            },
            false,
        ),
        ("function", |client| query(client, "SELECT enter('function') FROM locked LIMIT 1"), false),
        ("read in a transaction", |client| query(client, READ), false),
        ("read of a pinned session", |client| query(client, READ), true),
        (
            "read before its Sync",
            |client| {
                unit(client, READ).flush_message();
            },
            false,
        ),
    ]
}

/// A read beside them is run once more, and they are not: whatever was told, nothing is there twice.
#[tokio::test]
async fn what_may_have_had_an_effect_is_not_run_twice() {
    let primary = Postgres::start(Role::Primary);
    primary
        .query(
            "CREATE TABLE locked AS SELECT generate_series(1, 3) a; GRANT SELECT ON locked TO app; \
             CREATE TABLE kept (a text); GRANT ALL ON kept TO app; \
             CREATE FUNCTION enter(text) RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES ($1) RETURNING 1'",
        )
        .await;
    let relay = Relay::start(primary.port());
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.primary", "url", Login::App.url(relay.port(), "app"))
        .pool("primary", &["primary"], 20)
        .set("pools.primary", "wait_timeout", "20s");
    let proxy = Proxy::start(&config.to_toml());
    for fault in FAULTS {
        wait_until_reads_go_to(&proxy, "primary").await;
        let before = repeated(&proxy).await;
        let mut others = Vec::new();
        for (what, say, ends) in not_only_reads() {
            let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
            match what {
                "read in a transaction" => drop(client.ask("BEGIN").await),
                "read of a pinned session" => drop(client.ask("CREATE TEMP TABLE mine ()").await),
                _ => {}
            }
            others.push((what, client, say, ends));
        }
        let mut reader = reader(&proxy).await;
        let holder = lock(&primary, None).await;
        for (_, client, say, _) in &mut others {
            say(client);
            client.flush().await;
        }
        // The last: its process is not the one that is killed.
        primary.wait_for_app_backends(WAITS, others.len()).await;
        reader.query(READ).await;
        primary.wait_for_app_backends(WAITS, others.len() + 1).await;
        fault.bring(&primary, &relay).await;
        fault.heal(&primary);
        for (what, client, _, ends) in &mut others {
            let mut error = None;
            while error.is_none() {
                let message = client.try_read_message().await;
                let message = message.unwrap_or_else(|| panic!("{fault:?}, {what}: closed without a word"));
                assert!(matches!(message.tag, b'E' | b'N'), "{fault:?}, {what}: {message:?}");
                error = Some(message).filter(|message| message.tag == b'E');
            }
            let field = |name| error.as_ref().and_then(|error| error.field(name)).unwrap_or_default();
            assert!(LOST.contains(&field(b'C').as_str()), "{fault:?}, {what}: {error:?}");
            assert_eq!(field(b'S') == "FATAL", *ends, "{fault:?}, {what}: {error:?}");
        }
        drop(holder);
        let answer = reader.read_until_ready().await;
        assert_eq!(error_code(&answer), None, "{fault:?}: {answer:?}");
        assert_eq!(values(&answer), ["3"], "{fault:?}");
        let after = repeated(&proxy).await;
        assert_eq!([after[0] - before[0], after[1] - before[1]], fault.reasons(1), "{fault:?}");
        drop(others);
        primary.wait_for_app_backends("state <> 'idle'", 0).await;
        // Where the server has not noticed, it is done once, unless the cancel of who is gone comes before.
        let twice =
            "SELECT string_agg(a, ', ') FROM (SELECT a FROM kept GROUP BY a HAVING count(*) > 1) twice";
        assert_eq!(primary.value(twice).await, "", "{fault:?}");
        primary.query("TRUNCATE kept").await;
    }
}

/// Nor is a read of which something was told, or that is being cancelled.
#[tokio::test]
async fn a_read_that_was_answered_in_part_or_is_being_cancelled_is_not_run_twice() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE TABLE locked AS SELECT 1 a; GRANT SELECT ON locked TO app").await;
    let relay = Relay::start(primary.port());
    let config = ProxyConfig::primary_only(&primary).set(
        "servers.primary",
        "url",
        Login::App.url(relay.port(), "app"),
    );
    let proxy = Proxy::start(&config.to_toml());
    wait_until_reads_go_to(&proxy, "primary").await;
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    client.query("SELECT repeat('x', 10000) FROM generate_series(1, 10000000)").await;
    while client.read_message().await.tag != b'D' {}
    relay.cut();
    client.expect_no_second_answer().await;
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    let (process, secret) = client.key().clone();
    let _holder = lock(&primary, None).await;
    client.query(READ).await;
    primary.wait_for_app_backends(WAITS, 1).await;
    relay.stall(true);
    let open = relay.open();
    let port = proxy.port();
    let cancel = tokio::spawn(async move { RawClient::cancel(port, process, &secret).await });
    eventually("the cancel is on its way", SOON, async || (relay.open() > open).then_some(())).await;
    relay.cut();
    relay.stall(false);
    let error = client.read_error().await.map(|[code, ..]| code);
    assert_eq!(error.as_deref(), Some("08006"));
    cancel.await.expect("it does not panic");
    assert_eq!(repeated(&proxy).await, [0, 0]);
}

/// A replica cancels a read, and ends the connection before it has said that it is ready: the client has one answer.
#[tokio::test]
async fn a_read_that_a_replica_cancels_before_it_is_lost_is_answered_once() {
    let cluster = Cluster::start();
    cluster.primary.query("CREATE TABLE locked AS SELECT 1 a; GRANT SELECT ON locked TO app").await;
    cluster.wait_for_replay().await;
    cluster.replica.query("ALTER SYSTEM SET max_standby_streaming_delay = '50ms'").await;
    cluster.replica.query("SELECT pg_reload_conf()").await;
    let relay = Relay::start(cluster.replica.port());
    let config = ProxyConfig::of(&cluster)
        .set("servers.replica_1", "url", Login::App.url(relay.port(), "app"))
        // Nobody but the session says anything on the relay.
        .set("servers.replica_1", "max_connections", 1)
        .pool("replicas", &["replica_1"], 1);
    let proxy = Proxy::start(&config.to_toml());
    wait_until_reads_go_to(&proxy, "replicas").await;
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    let sql = "SELECT count(*) FROM locked, pg_sleep(3)";
    let mut answer_bytes = None;
    for repeated in [1.0, 2.0] {
        if let Some(bytes) = answer_bytes {
            const READY_BYTES: usize = 6;
            relay.cut_after(None, Some(bytes - READY_BYTES));
        }
        relay.count();
        client.query(sql).await;
        cluster.replica.wait_for_app_backends("state = 'active' AND query LIKE '%locked%'", 1).await;
        cluster.primary.query("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE; COMMIT").await;
        let answer = client.read_until_ready().await;
        assert_eq!((error_code(&answer), values(&answer)), (None, vec!["1".to_owned()]), "{answer:?}");
        answer_bytes = Some(relay.counted().1);
        assert_eq!(client.query_value("SELECT 2").await, "2", "its own answer");
        assert_eq!(proxy.metric(&repeats("conflict")).await, Some(repeated));
    }
    assert_eq!(proxy.metric(&repeats("connection_lost")).await, Some(0.0));
}
