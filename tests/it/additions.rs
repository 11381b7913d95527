//! Definitions while others are served: tables that are made and dropped again and again are nobody else's trouble, and
//! what may run somebody's code is in doubt from the moment it is there.

use std::time::{Duration, Instant};

use crate::support::{
    Cluster, Login, Postgres, Proxy, ProxyConfig, RawClient, Role, Site, error_of, eventually,
};

const READ: &str = "SELECT count(*) FROM kept";

/// Reads that went to the replica and to the primary.
async fn reads(proxy: &Proxy) -> (f64, f64) {
    let metrics = proxy.metrics().await;
    let count = |pool: &str| -> f64 {
        let of_pool = format!("pool=\"{pool}\"");
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("bulkhead_requests_total{") && line.contains(&of_pool))
            .filter(|line| line.contains("read_only") || line.contains("catalog_missing"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    (count("replicas"), count("primary"))
}

fn resets(servers: [&Postgres; 2]) -> usize {
    servers.iter().map(|server| server.log().matches("statement: DISCARD ALL").count()).sum()
}

/// What becomes of one session's reads while another one runs these in a loop.
struct Beside {
    rounds: usize,
    reads: usize,
    on_replica: f64,
    resets: usize,
}

async fn beside(proxy: &Proxy, servers: [&Postgres; 2], texts: &[&str]) -> Beside {
    let mut reader = RawClient::app(proxy.port()).await;
    eventually("the catalog is read", Duration::from_secs(20), async || {
        let before = reads(proxy).await.0;
        reader.ask(READ).await;
        (reads(proxy).await.0 > before).then_some(())
    })
    .await;
    let mut looping = RawClient::app(proxy.port()).await;
    let mut writer = RawClient::app(proxy.port()).await;
    let (before, resets_before) = (reads(proxy).await, resets(servers));
    let began = Instant::now();
    let end = || began.elapsed() > Duration::from_secs(3);
    let define = async {
        let mut rounds = 0;
        while !end() {
            for text in texts {
                assert_eq!(error_of(&looping.ask(text).await), None, "{text}");
            }
            rounds += 1;
        }
        rounds
    };
    let read = async {
        let mut reads = 0;
        while !end() {
            assert_eq!(reader.query_value(READ).await, "3");
            reads += 1;
        }
        reads
    };
    // It shares the one connection to the primary with whoever defines, so that a reset shows.
    let write = async {
        while !end() {
            assert_eq!(error_of(&writer.ask("UPDATE kept SET a = a").await), None);
        }
    };
    let (rounds, done, ()) = tokio::join!(define, read, write);
    let after = reads(proxy).await;
    let (replica, primary) = (after.0 - before.0, after.1 - before.1);
    Beside {
        rounds,
        reads: done,
        on_replica: replica / (replica + primary),
        resets: resets(servers) - resets_before,
    }
}

#[tokio::test]
async fn tables_that_come_and_go_are_nobody_elses_trouble() {
    let primary = Postgres::builder(Role::Primary).setting("log_statement", "all").start();
    let replica = Postgres::builder(Role::ReplicaOf(&primary)).setting("log_statement", "all").start();
    primary
        .query("CREATE TABLE kept (a int); INSERT INTO kept VALUES (1), (2), (3); GRANT ALL ON kept TO app")
        .await;
    replica.wait_for_replay(&primary).await;
    let config = ProxyConfig::primary_only(&primary)
        .set("servers.replica", "url", replica.url(Login::App))
        .pool("primary", &["primary"], 1)
        .pool("replicas", &["replica"], 1)
        .set("pools.replicas", "consistency", "eventual")
        .set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let servers = [&primary, &replica];
    for texts in [
        &["CREATE TABLE x (id serial PRIMARY KEY, a text DEFAULT 'b' CHECK (a <> ''))", "DROP TABLE x"][..],
        &["CREATE TABLE x AS SELECT a FROM kept", "CREATE INDEX ON x (a)", "SELECT 1 FROM x", "DROP TABLE x"],
        &[
            "BEGIN",
            "CREATE TABLE x (LIKE kept INCLUDING ALL)",
            "COMMIT",
            "INSERT INTO x VALUES (1)",
            "DROP TABLE x",
        ],
        &["CREATE SCHEMA s", "CREATE SEQUENCE s.x", "DROP SCHEMA s CASCADE"],
    ] {
        let Beside { rounds, reads, on_replica, resets } = beside(&proxy, servers, texts).await;
        assert!(rounds > 5 && reads > 20, "{texts:?}: {rounds} rounds beside {reads} reads");
        assert!(on_replica >= 0.95, "{texts:?}: only {on_replica:.3} of {reads} reads were on the replica");
        assert!(resets <= 1 + rounds / 20, "{texts:?}: {resets} resets in {rounds} rounds, {reads} reads");
    }
    // What may run code is everybody's.
    let texts = ["CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION f()"];
    let Beside { on_replica, resets, .. } = beside(&proxy, servers, &texts).await;
    assert!(on_replica < 0.9 && resets > 10, "{on_replica:.3} on the replica, {resets} resets");
}

/// Makes code that sets a parameter, and what the definitions are made with.
const OBJECTS: &str = "\
SET ROLE app; \
CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.mark', 'left', false); RETURN 1; END $$; \
CREATE FUNCTION evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil(); RETURN NEW; END $$; \
CREATE FUNCTION evil_event() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
 IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'marks' AND tgrelid = 'victims'::regclass) THEN \
 CREATE TRIGGER marks BEFORE INSERT ON victims FOR EACH ROW EXECUTE FUNCTION evil_trigger(); END IF; END $$; \
CREATE FUNCTION plain() RETURNS int LANGUAGE sql AS 'SELECT 1'; \
CREATE DOMAIN evil_domain AS int CHECK (evil() = VALUE); \
CREATE TABLE with_default (a int DEFAULT evil()); \
CREATE TABLE parents (a int); CREATE TABLE parted (a int) PARTITION BY LIST (a); \
CREATE TABLE victims (a int); INSERT INTO victims VALUES (1); \
CREATE SCHEMA first; CREATE VIEW hidden AS SELECT evil() AS a; \
CREATE TYPE named AS (a int); CREATE VIEW of_victims AS SELECT * FROM victims; \
CREATE FUNCTION by_name() RETURNS int LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN (SELECT count(*) FROM late); END $$";

/// Statements of one session, then one of another that runs what sets the parameter.
const ATTACKS: &[(&[&str], &str)] = &[
    (&["CREATE TABLE t (a int DEFAULT evil())"], "INSERT INTO t DEFAULT VALUES"),
    (&["CREATE TABLE t (a int CHECK (evil() = a))"], "INSERT INTO t VALUES (1)"),
    (&["CREATE TABLE t (a evil_domain)"], "INSERT INTO t VALUES (1)"),
    (&["CREATE TABLE t (LIKE with_default INCLUDING ALL)"], "INSERT INTO t DEFAULT VALUES"),
    (
        &[
            "CREATE TABLE t (a int)",
            "CREATE TRIGGER m BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger()",
        ],
        "INSERT INTO t VALUES (1)",
    ),
    (
        &[
            "CREATE TABLE t (a int); CREATE TRIGGER m BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger()",
        ],
        "INSERT INTO t VALUES (1)",
    ),
    (
        &[
            "BEGIN",
            "CREATE TABLE t (a int)",
            "CREATE TRIGGER m BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger()",
            "COMMIT",
        ],
        "INSERT INTO t VALUES (1)",
    ),
    (
        &[
            "BEGIN",
            "CREATE TABLE t (a int)",
            "DO $$ BEGIN CREATE TRIGGER m BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger(); END $$",
            "COMMIT",
        ],
        "INSERT INTO t VALUES (1)",
    ),
    (
        &[
            "BEGIN",
            "DO $$ BEGIN CREATE OR REPLACE FUNCTION plain() RETURNS int LANGUAGE sql AS 'SELECT evil()'; END $$",
            "CREATE TABLE t (a int DEFAULT plain())",
            "COMMIT",
        ],
        "INSERT INTO t DEFAULT VALUES",
    ),
    (&["BEGIN", "CREATE TABLE t (a int)", "ROLLBACK", "CREATE VIEW t AS SELECT evil()"], "TABLE t"),
    (&["CREATE TABLE t (a int)", "DROP TABLE t", "CREATE VIEW t AS SELECT evil()"], "TABLE t"),
    (&["CREATE TABLE t (a int)", "ALTER TABLE t ALTER a SET DEFAULT evil()"], "INSERT INTO t DEFAULT VALUES"),
    (
        &["CREATE TABLE t (a int)", "CREATE RULE r AS ON INSERT TO t DO ALSO SELECT evil()"],
        "INSERT INTO t VALUES (1)",
    ),
    (
        &[
            "CREATE TABLE t () INHERITS (parents)",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE t FORCE ROW LEVEL SECURITY",
            "CREATE POLICY p ON t USING (evil() = 1)",
            "INSERT INTO t VALUES (1)",
        ],
        "SELECT * FROM t",
    ),
    (
        &[
            "BEGIN",
            "CREATE TABLE t PARTITION OF parted FOR VALUES IN (1)",
            "CREATE TRIGGER m BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger()",
            "COMMIT",
        ],
        "INSERT INTO parted VALUES (1)",
    ),
    (&["CREATE TABLE first.hidden (a int)"], "SELECT * FROM hidden"),
    (
        &["SET search_path = first, public", "CREATE TABLE hidden (a int)", "RESET search_path"],
        "SELECT * FROM public.hidden",
    ),
    (&["CREATE TABLE late (a int DEFAULT evil())"], "INSERT INTO late DEFAULT VALUES RETURNING by_name()"),
    (&["CREATE TABLE t (a int)", "CREATE INDEX ON t ((plain()))"], "SELECT evil() FROM victims"),
    (&["CREATE TABLE \"T 1\" (a int DEFAULT evil())"], "INSERT INTO \"T 1\" DEFAULT VALUES"),
    (&["CREATE TABLE U&\"t\\0031\" (a int DEFAULT evil())"], "INSERT INTO t1 DEFAULT VALUES"),
    (
        &["PREPARE p AS SELECT 1", "CREATE TABLE t AS SELECT evil() AS a", "DEALLOCATE p"],
        "SELECT evil() FROM t",
    ),
];

async fn look(client: &mut RawClient) -> String {
    client.query_value("SELECT coalesce(nullif(current_setting('app.mark', true), ''), 'nothing')").await
}

/// Whatever is defined, and used at once: nobody finds what it leaves. All share one backend.
#[tokio::test]
async fn what_may_run_code_is_in_doubt_at_once() {
    let site = Site::with_objects(OBJECTS, 1).await;
    for (definitions, used) in ATTACKS {
        let (mut attacker, mut victim, mut other) =
            (site.client().await, site.client().await, site.client().await);
        look(&mut other).await;
        for text in *definitions {
            assert_eq!(error_of(&attacker.ask(text).await), None, "{text}");
        }
        assert_eq!(error_of(&victim.ask(used).await), None, "{definitions:?} {used}");
        assert_eq!(look(&mut other).await, "nothing", "{definitions:?} {used}");
        assert_eq!(look(&mut victim).await, "left", "{definitions:?} {used}: it was to be run");
        let clean = "DROP TABLE IF EXISTS first.hidden, late, \"T 1\", t1; CREATE OR REPLACE FUNCTION plain() RETURNS int \
                     LANGUAGE sql AS 'SELECT 1'; DO $$ BEGIN DROP TABLE IF EXISTS t; EXCEPTION WHEN OTHERS THEN DROP VIEW t; END $$";
        site.primary.query(clean).await;
    }
}

#[tokio::test]
async fn an_event_trigger_makes_every_definition_doubtful() {
    let site = Site::with_objects(&format!("ALTER ROLE app SUPERUSER; {OBJECTS}"), 1).await;
    let (mut admin, mut victim, mut other) = (site.client().await, site.client().await, site.client().await);
    for definition in [
        "CREATE EVENT TRIGGER e ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION evil_event()",
        "CREATE TABLE t (a int)",
    ] {
        assert_eq!(error_of(&admin.ask(definition).await), None, "{definition}");
    }
    assert_eq!(error_of(&victim.ask("INSERT INTO victims VALUES (2)").await), None);
    assert_eq!(look(&mut other).await, "nothing");
    assert_eq!(look(&mut victim).await, "left");
}

/// A table hides what was there under its name, at once and for everybody whose path says so; and is found on the primary
/// until the replica may be asked.
#[tokio::test]
async fn what_is_new_is_found_at_once() {
    let cluster = Cluster::start();
    cluster
        .primary
        .query(
            "CREATE SCHEMA first; CREATE TABLE named (a int); INSERT INTO named VALUES (1); \
             CREATE TYPE kind AS (a int, b int); GRANT ALL ON SCHEMA first, public TO app; GRANT ALL ON named TO app",
        )
        .await;
    cluster.wait_for_replay().await;
    let config = ProxyConfig::of(&cluster).set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let mut definer = RawClient::app(proxy.port()).await;
    let mut reader = RawClient::app(proxy.port()).await;
    for client in [&mut definer, &mut reader] {
        client.ask("SET search_path = first, public").await;
    }
    let named = "SELECT count(*) FROM named";
    assert_eq!(reader.query_value(named).await, "1");
    // A replica that lags shows who asks it.
    cluster.replica.set_replay(false).await;
    for (definition, read, told) in [
        ("CREATE TABLE named (a int)", named, "0"),
        ("CREATE TABLE kind (a int, b int, c int)", "SELECT ('(1,2,3)'::kind).c", "3"),
        ("CREATE TABLE first.\"Odd name\" (a int)", "SELECT count(*) FROM \"Odd name\"", "0"),
        ("CREATE TABLE listed (id serial)", "SELECT last_value FROM listed_id_seq", "1"),
        ("CREATE TABLE plain AS SELECT 7 AS a", "SELECT to_regclass('plain') IS NOT NULL", "t"),
        ("SELECT 8 AS a INTO other", "SELECT a FROM other", "8"),
        ("CREATE SEQUENCE counted", "SELECT last_value FROM counted", "1"),
    ] {
        assert_eq!(error_of(&definer.ask(definition).await), None, "{definition}");
        assert_eq!(reader.query_value(read).await, told, "{read} after {definition}");
    }
    cluster.replica.set_replay(true).await;
    cluster.wait_for_replay().await;
}
