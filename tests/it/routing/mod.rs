//! Where statements go, seen in the logs of the servers themselves: each statement carries a mark of its own, and
//! every server logs every statement.

mod fresh;
mod shapes;
mod ties;
mod transactions;
mod workers;

use std::time::Duration;

use tokio_postgres::Client;

use crate::support::{
    Cluster, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, connect, error_code, eventually, oban,
};
use shapes::SHAPES;

/// Where a statement is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Primary,
    Replica,
    Jobs,
}

use Place::{Jobs, Primary, Replica};

/// A cluster that logs all statements, behind a proxy.
struct Routed {
    proxy: Proxy,
    cluster: Cluster,
}

/// What the application owns; the job tables come on top.
const SCHEMA: &str = "
    SET ROLE app;
    CREATE TABLE items (id bigserial PRIMARY KEY, name text);
    INSERT INTO items (name) SELECT 'item ' || n FROM generate_series(1, 20) AS n;
    CREATE UNLOGGED TABLE volatile_items (id int);
    CREATE SEQUENCE numbers;
    CREATE FUNCTION counts() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT nextval('numbers') $$;
    CREATE FUNCTION wraps() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT counts() $$;
    CREATE FUNCTION wraps_atomic() RETURNS bigint STABLE BEGIN ATOMIC SELECT nextval('numbers'); END;
    CREATE FUNCTION wraps_wrapped() RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN wraps_atomic(); END $$;
    CREATE VIEW wrapped AS SELECT id, wraps_wrapped() AS number FROM items LIMIT 1;
    CREATE FUNCTION doubles(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 2 $$;
    CREATE FUNCTION looks() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM items $$;
    CREATE VIEW counted AS SELECT id, counts() AS number FROM items LIMIT 1;
    CREATE VIEW counted_again AS SELECT * FROM counted;
    CREATE VIEW plain AS SELECT id, name FROM items WHERE id < 5;
    CREATE PROCEDURE adds() LANGUAGE sql AS $$ INSERT INTO items (name) VALUES ('called') $$;
    RESET ROLE;
";

impl Routed {
    /// Where what was written a moment ago does not count.
    async fn start() -> Self {
        Self::configured(|cluster| ProxyConfig::of(cluster).set("pools.replicas", "consistency", "eventual"))
            .await
    }

    async fn configured(config: impl Fn(&Cluster) -> ProxyConfig) -> Self {
        let primary = Postgres::builder(Role::Primary).setting("log_statement", "all").start();
        let replica = Postgres::start(Role::ReplicaOf(&primary));
        let jobs = Postgres::builder(Role::Jobs).setting("log_statement", "all").start();
        let cluster = Cluster { replica, primary, jobs };
        cluster.primary.query(SCHEMA).await;
        oban::install(&cluster.primary).await;
        oban::install(&cluster.jobs).await;
        cluster.wait_for_replay().await;
        let proxy = Proxy::start(&config(&cluster).to_toml());
        Self { proxy, cluster }
    }

    /// A client, once the proxy has read the catalog: before that nothing is known to be a read.
    async fn client(&self) -> Client {
        let client = connect(&self.proxy.url()).await.expect("the proxy accepts connections");
        self.wait_for_catalog(&client).await;
        client
    }

    async fn wait_for_catalog(&self, client: &Client) {
        let mut tries = 0;
        eventually("reads go to the replica", Duration::from_secs(10), async || {
            tries += 1;
            let mark = format!("warm {tries}");
            client
                .simple_query(&format!("SELECT looks() /* {mark} */"))
                .await
                .expect("the statement is valid");
            (self.places(&mark) == [Replica]).then_some(())
        })
        .await;
    }

    /// The servers that have logged the mark, except what Bulkhead's superuser said there.
    fn places(&self, mark: &str) -> Vec<Place> {
        let text = format!("/* {mark} */");
        let servers =
            [(Primary, &self.cluster.primary), (Replica, &self.cluster.replica), (Jobs, &self.cluster.jobs)];
        servers
            .into_iter()
            .filter(|(_, server)| server.log().contains(&text))
            .map(|(place, _)| place)
            .collect()
    }

    /// Asserts where marked statements went, all that do not fit at once.
    fn check(&self, expected: &[(String, Place, String)]) {
        let wrong: Vec<_> = expected
            .iter()
            .map(|(mark, place, sql)| (self.places(mark), *place, sql))
            .filter(|(seen, place, _)| *seen != [*place])
            .map(|(seen, place, sql)| format!("{sql}\n    belongs to {place:?} and was seen at {seen:?}"))
            .collect();
        assert!(wrong.is_empty(), "{} statements went wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Some statements fail on purpose; where they were is in the log all the same.
fn fails(sql: &str) -> bool {
    sql.contains("no_such_function") || sql.contains("route=read")
}

/// Asks for everything, each with a mark of its own, and looks where it went.
async fn check_shapes(ask: impl AsyncFn(&mut RawClient, usize, &str) -> Vec<Message>) {
    let site = Routed::start().await;
    site.client().await;
    let mut client = RawClient::app(site.proxy.port()).await;
    let mut expected = Vec::new();
    for (number, (place, sql)) in SHAPES.iter().enumerate() {
        let mark = format!("shape {number}");
        let answer = ask(&mut client, number, &format!("{sql} /* {mark} */")).await;
        // What the server refuses at Parse is logged as the statement of an error.
        let error = error_code(&answer);
        assert!(error.is_none() || fails(sql), "{sql}: {error:?}");
        expected.push((mark, *place, (*sql).to_owned()));
    }
    site.check(&expected);
}

#[tokio::test]
async fn every_shape_of_statement_goes_where_it_belongs() {
    check_shapes(async |client, _, sql| client.ask(sql).await).await;
}

#[tokio::test]
async fn every_shape_goes_there_by_the_extended_protocol_too() {
    check_shapes(async |client, number, sql| {
        // A named statement of every other one.
        let name = if number % 2 == 0 { "" } else { "statement" };
        client.parse(name, sql).bind("", name, &[]).execute("", 0);
        client.close(b'S', name).sync().flush().await;
        client.read_until_ready().await
    })
    .await;
}

#[tokio::test]
async fn transactions_go_to_one_server() {
    let site = Routed::start().await;
    let client = site.client().await;
    let transactions: &[(Place, &[&str])] = &[
        (Replica, &["BEGIN READ ONLY", "SELECT * FROM items", "SELECT looks()", "COMMIT"]),
        (
            Replica,
            &[
                "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
                "SELECT * FROM items",
                "ROLLBACK",
            ],
        ),
        (Replica, &["BEGIN READ ONLY", "SET LOCAL work_mem = '7MB'", "SELECT * FROM items", "COMMIT"]),
        (Primary, &["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "SELECT * FROM items", "COMMIT"]),
        (Primary, &["BEGIN", "SELECT * FROM items", "UPDATE items SET name = 't' WHERE id = 3", "COMMIT"]),
        (Primary, &["START TRANSACTION", "SELECT 1", "SELECT * FROM items", "COMMIT"]),
        (Primary, &["BEGIN READ ONLY", "SELECT pg_is_in_recovery()", "SELECT * FROM items", "COMMIT"]),
        (Primary, &["BEGIN", "SAVEPOINT s", "SELECT * FROM items", "ROLLBACK TO s", "SELECT 1", "COMMIT"]),
        (
            Jobs,
            &["BEGIN", "SELECT * FROM oban_jobs", "SELECT 1", "UPDATE oban_jobs SET attempt = 1", "COMMIT"],
        ),
    ];
    let mut expected = Vec::new();
    for (number, (place, statements)) in transactions.iter().enumerate() {
        let begin = statements[0];
        for (step, sql) in statements.iter().enumerate() {
            let mark = format!("transaction {number} step {step}");
            let sql = format!("{sql} /* {mark} */");
            client.simple_query(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            expected.push((mark, *place, format!("{sql} after {begin}")));
        }
    }
    site.check(&expected);
}

#[tokio::test]
async fn the_strongest_statement_of_a_request_decides() {
    let site = Routed::start().await;
    let client = site.client().await;
    let texts = [
        (Replica, "SELECT 1; SELECT * FROM items"),
        (Primary, "SELECT * FROM items; UPDATE items SET name = 'm' WHERE id = 4"),
        (Primary, "SELECT 1; SELECT counts(); SELECT 2"),
        (Primary, "BEGIN; SELECT * FROM items; COMMIT"),
        // Left open, and written in afterwards.
        (Primary, "BEGIN; SELECT * FROM items"),
        (Primary, "UPDATE items SET name = 'later' WHERE id = 6; COMMIT"),
        (Jobs, "SELECT 1; SELECT * FROM oban_jobs"),
        (Jobs, "BEGIN; DELETE FROM oban_jobs; COMMIT"),
    ];
    let mut expected = Vec::new();
    for (number, (place, sql)) in texts.into_iter().enumerate() {
        let mark = format!("several {number}");
        client.simple_query(&format!("{sql} /* {mark} */")).await.expect("valid");
        expected.push((mark, place, sql.to_owned()));
    }

    let mut raw = RawClient::app(site.proxy.port()).await;
    let pipelines: [(Place, &[&str]); 3] = [
        (Replica, &["SELECT * FROM items", "SELECT looks()"]),
        (Primary, &["SELECT * FROM items", "INSERT INTO items (name) VALUES ('pipelined')", "SELECT 1"]),
        (Jobs, &["SELECT 1", "SELECT * FROM oban_jobs"]),
    ];
    for (number, (place, statements)) in pipelines.into_iter().enumerate() {
        for (step, sql) in statements.iter().enumerate() {
            let mark = format!("pipeline {number} step {step}");
            raw.parse("", &format!("{sql} /* {mark} */")).bind("", "", &[]).execute("", 0);
            expected.push((mark, place, (*sql).to_owned()));
        }
        raw.sync().flush().await;
        let tags = RawClient::tags(&raw.read_until_ready().await);
        assert!(!tags.contains('E'), "{statements:?}: {tags}");
    }
    site.check(&expected);
}

#[tokio::test]
async fn a_bound_value_decides() {
    let site = Routed::start().await;
    let client = site.client().await;
    let mut expected = Vec::new();
    let cases = [
        ("SELECT pg_notify($1::text, $2::text)", "public.oban_insert", Jobs),
        ("SELECT pg_notify($1::text, $2::text)", "news", Primary),
        ("SELECT to_regclass($1::text)::text, $2::text", "public.oban_jobs", Jobs),
        ("SELECT to_regclass($1::text)::text, $2::text", "public.items", Replica),
        ("SELECT relkind::text, $2::text FROM pg_class WHERE relname = $1::text", "oban_jobs", Jobs),
        ("SELECT relkind::text, $2::text FROM pg_class WHERE relname = $1::text", "items", Primary),
    ];
    for (number, (sql, value, place)) in cases.into_iter().enumerate() {
        let mark = format!("bound {number}");
        client.query(&format!("{sql} /* {mark} */"), &[&value, &""]).await.expect("valid");
        expected.push((mark, place, format!("{sql} with {value}")));
    }
    site.check(&expected);

    // One statement, prepared once, bound to both.
    let statement = client.prepare("SELECT to_regclass($1::text)::text /* both */").await.expect("valid");
    for (value, name) in
        [("public.items", Some("items")), ("oban_jobs", Some("oban_jobs")), ("nowhere", None)]
    {
        let row = client.query_one(&statement, &[&value]).await.expect("valid");
        assert_eq!(row.get::<_, Option<String>>(0).as_deref(), name);
    }
    assert_eq!(site.places("both"), [Replica, Jobs]);
}

#[tokio::test]
async fn a_session_asks_for_a_place() {
    let site = Routed::start().await;
    let client = site.client().await;
    let mut expected = Vec::new();
    for (number, (route, place)) in
        [("primary", Primary), ("read", Replica), ("job", Jobs), ("replicas", Replica), ("jobs", Jobs)]
            .into_iter()
            .enumerate()
    {
        let mark = format!("asked {number}");
        client.batch_execute(&format!("SET bulkhead.route = '{route}'")).await.expect("any value may be set");
        client.simple_query(&format!("SELECT 1 /* {mark} */")).await.expect("valid");
        expected.push((mark, place, route.to_owned()));
    }
    client.batch_execute("RESET bulkhead.route").await.expect("it was set");
    client.simple_query("SELECT 1 /* asked no more */").await.expect("valid");
    expected.push(("asked no more".to_owned(), Replica, "RESET".to_owned()));
    site.check(&expected);
}

/// The error's code and its message with detail.
fn error_of(answer: &[Message]) -> (String, String) {
    let error = answer.iter().find(|message| message.tag == b'E');
    let error = error.unwrap_or_else(|| panic!("an error is expected, not {answer:?}"));
    let field = |name| error.field(name).unwrap_or_default();
    (field(b'C'), format!("{} {} {}", field(b'M'), field(b'D'), field(b'H')))
}

fn status_of(answer: &[Message]) -> char {
    char::from(answer.last().expect("an answer").body[0])
}

#[tokio::test]
async fn tables_of_two_servers_are_not_mixed() {
    let site = Routed::start().await;
    site.client().await;
    let mut raw = RawClient::app(site.proxy.port()).await;

    let answer = raw.ask("SELECT * FROM oban_jobs JOIN items ON items.id = oban_jobs.id").await;
    let (code, text) = error_of(&answer);
    assert_eq!((code.as_str(), status_of(&answer)), ("0A000", 'I'));
    for word in ["oban_jobs", "items", "\"jobs\"", "\"primary\"", "pools.jobs"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert_eq!(raw.query_value("SELECT count(*) FROM oban_jobs").await, "0");

    // One text, then one pipeline.
    let (code, _) = error_of(&raw.ask("UPDATE items SET name = 'two'; DELETE FROM oban_jobs").await);
    assert_eq!(code, "0A000");
    raw.parse("", "UPDATE items SET name = 'two'").bind("", "", &[]).execute("", 0);
    raw.parse("", "DELETE FROM oban_jobs").bind("", "", &[]).execute("", 0).sync().flush().await;
    let answer = raw.read_until_ready().await;
    assert_eq!((error_of(&answer).0.as_str(), RawClient::tags(&answer).as_str()), ("0A000", "EZ"));
    assert_eq!(
        raw.query_value("/* bulkhead: route=primary */ SELECT count(*) FROM items WHERE name = 'two'").await,
        "0"
    );

    // A transaction fails, and stays failed until it is ended.
    for (first, second) in [
        ("UPDATE items SET name = 'gone'", "DELETE FROM oban_jobs"),
        ("DELETE FROM oban_jobs", "UPDATE items SET name = 'gone'"),
    ] {
        assert_eq!(status_of(&raw.ask("BEGIN").await), 'T');
        assert_eq!(status_of(&raw.ask(first).await), 'T');
        let answer = raw.ask(second).await;
        let (code, text) = error_of(&answer);
        assert_eq!((code.as_str(), status_of(&answer)), ("0A000", 'E'), "{text}");
        assert!(text.contains(if second.contains("items") { "items" } else { "oban_jobs" }), "{text}");
        let answer = raw.ask("SELECT 1").await;
        assert_eq!((error_of(&answer).0.as_str(), status_of(&answer)), ("25P02", 'E'));
        let answer = raw.ask("COMMIT").await;
        assert_eq!((RawClient::tags(&answer).as_str(), status_of(&answer)), ("CZ", 'I'));
        assert_eq!(&answer[0].body[..], b"ROLLBACK\0");
        assert_eq!(raw.query_value("SELECT 1 + 1").await, "2");
    }
    assert_eq!(
        site.cluster.primary.value("SELECT count(*) FROM items WHERE name IN ('two', 'gone')").await,
        "0"
    );
}

#[tokio::test]
async fn jobs_on_the_primary_mix_with_everything() {
    let site = Routed::configured(|cluster| {
        ProxyConfig::of(cluster).pool("jobs", &["primary"], 5).remove("servers.jobs")
    })
    .await;
    let client = site.client().await;
    client
        .simple_query("SELECT * FROM oban_jobs JOIN items ON items.id = oban_jobs.id /* join */")
        .await
        .expect("one server");
    client
        .batch_execute("BEGIN; INSERT INTO items (name) VALUES ('with job'); INSERT INTO oban_jobs (worker) VALUES ('W'); COMMIT")
        .await
        .expect("one server");
    for sql in [
        "BEGIN",
        "INSERT INTO oban_jobs (worker) VALUES ('W')",
        "INSERT INTO items (name) VALUES ('with job')",
        "COMMIT",
    ] {
        client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }
    assert_eq!(site.places("join"), [Primary]);
    assert_eq!(site.cluster.primary.value("SELECT count(*) FROM items WHERE name = 'with job'").await, "2");
    assert_eq!(site.cluster.primary.value("SELECT count(*) FROM oban_jobs").await, "2");
    let on_jobs = site.proxy.metrics().await;
    let counted = on_jobs
        .lines()
        .any(|line| line.starts_with("bulkhead_requests_total") && line.contains("pool=\"jobs\""));
    assert!(counted, "job statements have a pool of their own:\n{on_jobs}");
}

#[tokio::test]
async fn definitions_made_later_are_seen() {
    let site = Routed::start().await;
    let client = site.client().await;
    let other = connect(&site.proxy.url()).await.expect("the proxy accepts connections");
    client
        .batch_execute("CREATE FUNCTION adds_item() RETURNS int LANGUAGE sql VOLATILE AS $$ INSERT INTO items (name) VALUES ('added') RETURNING 1 $$")
        .await
        .expect("valid");
    other.simple_query("SELECT adds_item() /* at once */").await.expect("it goes to the primary");
    assert_eq!(site.places("at once"), [Primary]);

    // A stable function becomes volatile, a plain view reaches it.
    client
        .batch_execute("CREATE OR REPLACE FUNCTION looks() RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT counts() $$")
        .await
        .expect("valid");
    client
        .batch_execute("CREATE OR REPLACE VIEW plain AS SELECT id, counts()::text AS name FROM items LIMIT 1")
        .await
        .expect("valid");
    for (number, sql) in ["SELECT looks()", "SELECT * FROM plain"].into_iter().enumerate() {
        let mark = format!("later {number}");
        other
            .simple_query(&format!("{sql} /* {mark} */"))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(site.places(&mark), [Primary]);
    }

    // And the other way round: proven harmless, it may be read from the replica.
    client
        .batch_execute(
            "CREATE OR REPLACE FUNCTION looks() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT 1::bigint $$",
        )
        .await
        .expect("valid");
    site.cluster.wait_for_replay().await;
    site.wait_for_catalog(&other).await;
}
