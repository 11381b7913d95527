//! Where statements run, as the servers themselves saw it.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::support::{Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, oban};

/// What every test begins with: tables on the primary, Oban's on the job server, the replica caught up.
async fn prepare(cluster: &Cluster) {
    cluster
        .primary
        .query(
            "CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'ann'), (2, 'bob'); \
             CREATE UNLOGGED TABLE scratch (a int); CREATE SEQUENCE numbers; \
             CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO users VALUES (3, NULL) \
               ON CONFLICT DO NOTHING; SELECT 1'; \
             CREATE FUNCTION doubles(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'; \
             CREATE VIEW plain AS SELECT name FROM users; CREATE VIEW sly AS SELECT writes() AS w; \
             GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC; GRANT ALL ON SEQUENCE numbers TO PUBLIC;",
        )
        .await;
    oban::install(&cluster.jobs).await;
    cluster.jobs.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC").await;
    cluster.wait_for_replay().await;
}

/// Waits until the proxy knows the catalog: until a read reaches the replica.
async fn wait_for_reads(client: &mut RawClient, proxy: &Proxy) {
    crate::support::eventually("the catalog is read", std::time::Duration::from_secs(10), async || {
        client.ask("SELECT name FROM users").await;
        let reads = r#"bulkhead_requests_total{class="read",pool="replicas",reason="read_only"}"#;
        proxy.metric(reads).await.filter(|count| *count > 0.0)
    })
    .await;
}

/// The statements that a server logged between two marks.
async fn logged(server: &Postgres, mark: &str, run: impl AsyncFnOnce()) -> String {
    server.query(&format!("SELECT '{mark} begins'")).await;
    run().await;
    server.query(&format!("SELECT '{mark} ends'")).await;
    let log = server.log();
    let after = log.split(&format!("{mark} begins")).last().unwrap_or_default();
    after.split(&format!("{mark} ends")).next().unwrap_or_default().to_owned()
}

/// Each statement ends with a comment of its own, by which the servers' logs are searched.
const READS: [&str; 12] = [
    "SELECT name FROM users WHERE id = 1",
    "SELECT count(*), max(name) FROM users",
    "SELECT doubles(id) FROM users",
    "SELECT name FROM plain",
    "WITH u AS (SELECT * FROM users) SELECT count(*) FROM u",
    "VALUES (1), (2)",
    "TABLE users",
    "EXPLAIN SELECT * FROM users",
    "EXPLAIN ANALYZE SELECT * FROM users",
    "COPY users TO STDOUT",
    "COPY (SELECT 1) TO STDOUT",
    "SELECT random(), clock_timestamp(), gen_random_uuid()",
];

const WRITES: [&str; 22] = [
    "INSERT INTO users VALUES (10, 'x')",
    "UPDATE users SET name = 'y' WHERE id = 10",
    "DELETE FROM users WHERE id = 10",
    "WITH gone AS (DELETE FROM users WHERE id = 11 RETURNING *) SELECT * FROM gone",
    "SELECT * FROM users WHERE id = 1 FOR UPDATE",
    "SELECT * FROM users WHERE id = 1 FOR KEY SHARE",
    "SELECT writes()",
    "SELECT * FROM sly",
    "SELECT nextval('numbers')",
    "SELECT * FROM scratch",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_try_advisory_xact_lock(2) FROM users",
    "SELECT set_config('work_mem', '5MB', true)",
    "SELECT relname FROM pg_class LIMIT 1",
    "SELECT count(*) FROM information_schema.tables",
    "EXPLAIN ANALYZE INSERT INTO users VALUES (12, 'x') ON CONFLICT DO NOTHING",
    "SELECT * INTO TEMP kept FROM users",
    "DROP TABLE kept",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE TABLE made (a int)",
    "DROP TABLE made",
    "SELECT pg_backend_pid() > 0",
];

const JOBS: [&str; 9] = [
    "SELECT count(*) FROM oban_jobs",
    "SELECT count(*) FROM public.oban_jobs",
    r#"SELECT count(*) FROM "public"."oban_jobs" AS o0 WHERE (o0."state" = 'available')"#,
    "UPDATE oban_jobs SET state = 'available' WHERE id = 0",
    "WITH s AS (SELECT id FROM oban_jobs LIMIT 1 FOR UPDATE SKIP LOCKED) UPDATE oban_jobs j SET attempt = 1 FROM s \
     WHERE j.id = s.id",
    "SELECT pg_notify('public.oban_insert', '{}')",
    "SELECT to_regclass('oban_jobs')",
    "SELECT obj_description('public.oban_jobs'::regclass)",
    "DELETE FROM oban_peers WHERE name = 'x'",
];

#[tokio::test]
async fn each_class_reaches_its_server_and_no_other() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    for server in [&cluster.primary, &cluster.replica, &cluster.jobs] {
        server.query("SELECT pg_reload_conf()").await;
    }
    cluster.primary.query("ALTER SYSTEM SET log_statement = 'all'").await;
    cluster.jobs.query("ALTER SYSTEM SET log_statement = 'all'").await;
    cluster.replica.query("ALTER SYSTEM SET log_statement = 'all'").await;
    for server in [&cluster.primary, &cluster.replica, &cluster.jobs] {
        server.query("SELECT pg_reload_conf()").await;
    }
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    wait_for_reads(&mut client, &proxy).await;

    let all: Vec<(char, &str)> = READS
        .iter()
        .map(|sql| ('r', *sql))
        .chain(WRITES.iter().map(|sql| ('w', *sql)))
        .chain(JOBS.iter().map(|sql| ('j', *sql)))
        .collect();
    let mut failures = String::new();
    for (number, (class, sql)) in all.iter().enumerate() {
        let replies = client.ask(&format!("{sql} /* probe {class}{number}. */")).await;
        if let Some(error) = replies.iter().find(|message| message.tag == b'E') {
            writeln!(failures, "{sql}: {:?}", error.field(b'M')).expect("text");
        }
    }
    assert_eq!(failures, "");

    for (server, class) in [(&cluster.primary, 'w'), (&cluster.replica, 'r'), (&cluster.jobs, 'j')] {
        let log = server.log();
        let seen: BTreeSet<&str> =
            log.split("/* probe ").skip(1).filter_map(|rest| rest.split('.').next()).collect();
        let expected: BTreeSet<String> = all
            .iter()
            .enumerate()
            .filter(|(_, (of, _))| *of == class)
            .map(|(number, _)| format!("{class}{number}"))
            .collect();
        let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(seen, expected, "the statements of class {class}, and no others, by the server's own log");
    }
}

#[tokio::test]
async fn a_transaction_lives_where_its_first_statement_belongs() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    wait_for_reads(&mut client, &proxy).await;
    let port = "SELECT setting FROM pg_settings WHERE name = 'port'";
    let (primary, replica, jobs) = (
        cluster.primary.port().to_string(),
        cluster.replica.port().to_string(),
        cluster.jobs.port().to_string(),
    );

    for (begin, first, server) in [
        ("BEGIN", "SELECT name FROM users", &primary),
        ("BEGIN", "INSERT INTO users VALUES (20, 'x')", &primary),
        ("BEGIN READ ONLY", "SELECT name FROM users", &replica),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", "SELECT name FROM users", &replica),
        ("BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE", "SELECT name FROM users", &primary),
        ("BEGIN", "SELECT count(*) FROM oban_jobs", &jobs),
    ] {
        let replies = client.ask(begin).await;
        assert_eq!(RawClient::tags(&replies), "CZ", "{begin}");
        let replies = client.ask(first).await;
        assert!(!RawClient::tags(&replies).contains('E'), "{begin}; {first}: {replies:?}");
        assert_eq!(&client.query_value(port).await, server, "{begin}; {first}");
        client.ask("ROLLBACK").await;
    }

    // One string is one transaction: the strongest class decides.
    let replies = client.ask("SELECT 1; SELECT setting FROM pg_settings WHERE name = 'port'").await;
    let values: Vec<_> =
        replies.iter().filter(|message| message.tag == b'D').map(crate::support::Message::columns).collect();
    assert_eq!(values[1], [Some(primary.clone())]);

    // So is a pipeline up to its Sync.
    client.parse("", "SELECT name FROM users WHERE id = 1").bind("", "", &[]).execute("", 0);
    client.parse("", port).bind("", "", &[]).execute("", 0).sync();
    client.flush().await;
    let replies = client.read_until_ready().await;
    let rows: Vec<_> =
        replies.iter().filter(|message| message.tag == b'D').map(crate::support::Message::columns).collect();
    assert_eq!(rows, [[Some("ann".to_owned())], [Some(primary)]]);
}

#[tokio::test]
async fn hints_and_bound_values_decide() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    wait_for_reads(&mut client, &proxy).await;
    let port = "SELECT setting FROM pg_settings WHERE name = 'port'";
    let (primary, replica, jobs) = (
        cluster.primary.port().to_string(),
        cluster.replica.port().to_string(),
        cluster.jobs.port().to_string(),
    );

    assert_eq!(client.query_value(port).await, primary, "catalogs belong to the primary");
    assert_eq!(client.query_value(&format!("/* bulkhead: route=read */ {port}")).await, replica);
    assert_eq!(client.query_value(&format!("/* bulkhead: route=jobs */ {port}")).await, jobs);
    client.ask("SET bulkhead.route = 'job'").await;
    assert_eq!(client.query_value(port).await, jobs);
    client.ask("RESET bulkhead.route").await;
    assert_eq!(client.query_value(port).await, primary);

    for (value, server) in [("oban_jobs", true), ("public.oban_jobs", true), ("users", false)] {
        client.parse("", "SELECT to_regclass($1) IS NOT NULL, current_setting('port')");
        client.bind("", "", &[Some(value)]).execute("", 0).sync();
        client.flush().await;
        let replies = client.read_until_ready().await;
        let row = replies.iter().find(|message| message.tag == b'D').expect("a row").columns();
        let expected = if server { &jobs } else { &primary };
        assert_eq!(row, [Some("t".to_owned()), Some(expected.clone())], "{value}");
    }
}

#[tokio::test]
async fn job_tables_and_application_tables_do_not_mix_across_servers() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    let refused = |replies: &[crate::support::Message]| {
        let error = replies.iter().find(|message| message.tag == b'E').expect("an error").clone();
        assert_eq!(error.field(b'C').as_deref(), Some("0A000"));
        let detail = error.field(b'D').unwrap_or_default();
        assert!(detail.contains("oban_jobs"), "{detail}");
        assert!(error.field(b'H').is_some(), "there is a hint");
        detail
    };
    let detail = refused(&client.ask("SELECT * FROM users u JOIN oban_jobs j ON j.id = u.id").await);
    assert!(detail.contains("users"), "{detail}");
    refused(&client.ask("INSERT INTO users VALUES (30, 'x'); DELETE FROM oban_jobs").await);
    assert_eq!(client.query_value("SELECT count(*) FROM users WHERE id = 30 /* bulkhead */").await, "0");

    // In a transaction the refusal fails it; nothing of it stays.
    client.ask("BEGIN").await;
    client.ask("INSERT INTO users VALUES (31, 'x')").await;
    refused(&client.ask("DELETE FROM oban_jobs").await);
    let replies = client.ask("SELECT 1").await;
    assert_eq!(replies[0].field(b'C').as_deref(), Some("25P02"));
    let replies = client.ask("COMMIT").await;
    assert_eq!(replies[0].body.as_ref(), b"ROLLBACK\0");
    assert_eq!(cluster.primary.value("SELECT count(*) FROM users WHERE id = 31").await, "0");

    client.ask("BEGIN").await;
    client.ask("SELECT count(*) FROM oban_jobs").await;
    refused(&client.ask("INSERT INTO users SELECT id, 'x' FROM oban_jobs").await);
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT 1").await, "1", "the session goes on");
}

#[tokio::test]
async fn on_one_server_jobs_and_application_mix_and_workers_have_their_own_pool() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    oban::install(&cluster.primary).await;
    cluster.primary.query("GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC").await;
    let config = ProxyConfig::of(&cluster)
        .remove("servers.jobs")
        .pool("jobs", &["primary"], 3)
        .pool("workers", &["primary"], 2)
        .set("workers", "application_names", toml::Value::Array(vec!["worker-*".into()]));
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    let replies = client.ask("SELECT count(*) FROM users u LEFT JOIN oban_jobs j ON j.id = u.id").await;
    assert!(RawClient::tags(&replies).contains('D'), "{replies:?}");

    let mut worker = RawClient::open(proxy.port()).await;
    worker.startup(&[("user", "app"), ("database", "app"), ("application_name", "worker-1")]).await;
    let (user, password) = Login::App.credentials();
    assert!(worker.authenticate(user, password).await.is_none(), "logged in");
    worker.ask("UPDATE users SET name = 'z' WHERE id = 2").await;
    worker.ask("SELECT count(*) FROM oban_jobs").await;
    let of = |class: &str, pool: &str, reason: &str| {
        format!(r#"bulkhead_requests_total{{class="{class}",pool="{pool}",reason="{reason}"}}"#)
    };
    assert_eq!(proxy.metric(&of("write", "workers", "modifies")).await, Some(1.0));
    assert!(proxy.metric(&of("job", "jobs", "job_object")).await >= Some(1.0));
}

#[tokio::test]
async fn a_function_that_becomes_volatile_is_noticed() {
    let cluster = Cluster::start();
    prepare(&cluster).await;
    let proxy = Proxy::start(&ProxyConfig::of(&cluster).to_toml());
    let mut client = RawClient::login(proxy.port(), Login::App, "app").await;
    wait_for_reads(&mut client, &proxy).await;
    client
        .ask(
            "CREATE FUNCTION late() RETURNS text LANGUAGE sql VOLATILE AS 'SELECT current_setting(''port'')'",
        )
        .await;
    // Unknown, then known as volatile: never on the replica.
    for _ in 0..50 {
        assert_eq!(client.query_value("SELECT late()").await, cluster.primary.port().to_string());
    }
    let noise = logged(&cluster.replica, "late", async || {
        client.ask("SELECT late()").await;
    })
    .await;
    assert!(!noise.contains("SELECT late()"), "{noise}");
}
