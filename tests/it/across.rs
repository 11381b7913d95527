//! Transactions and sessions that use the application's server and that of the jobs at once: what is kept whole, and what
//! is refused because it could not be.

use crate::support::{
    Message, Postgres, Proxy, ProxyConfig, RawClient, Role, error_code, error_of, eventually, oban, values,
};

/// How a session's statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    Extended,
}

/// Both servers with the job tables, and a proxy.
struct Both {
    primary: Postgres,
    jobs: Postgres,
    proxy: Proxy,
}

impl Both {
    async fn start() -> Self {
        Self::configured(|config| config).await
    }

    async fn configured(change: impl FnOnce(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = Postgres::start(Role::Primary);
        let jobs = Postgres::start(Role::Jobs);
        primary.query("SET ROLE app; CREATE TABLE items (name text PRIMARY KEY)").await;
        oban::install(&primary).await;
        oban::install(&jobs).await;
        let config = ProxyConfig::primary_only(&primary)
            .pool("primary", &["primary"], 2)
            .set("servers.jobs", "url", jobs.url(crate::support::Login::App))
            .pool("jobs", &["jobs"], 2)
            .set("jobs", "presets", vec!["oban"]);
        let proxy = Proxy::start(&change(config).to_toml());
        let site = Self { primary, jobs, proxy };
        site.wait_for_catalog().await;
        site
    }

    /// Before the catalog is read, everything may be a write.
    async fn wait_for_catalog(&self) {
        let mut client = self.client().await;
        let known = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
        eventually("reads are known as such", std::time::Duration::from_secs(10), async || {
            client.ask("SELECT count(*) FROM items").await;
            self.proxy.metric(known).await.filter(|count| *count > 0.0)
        })
        .await;
    }

    async fn client(&self) -> RawClient {
        RawClient::app(self.proxy.port()).await
    }

    /// The items on the primary, and the workers of the jobs on the job database; there are no jobs on the primary.
    async fn rows(&self) -> (String, String) {
        let all = "SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM";
        assert_eq!(self.primary.value("SELECT count(*) FROM oban_jobs").await, "0", "jobs on the primary");
        let items = self.primary.value(&format!("{all} items")).await;
        (items, self.jobs.value(&format!("{all} (SELECT worker AS name FROM oban_jobs) j")).await)
    }

    async fn clear(&self) {
        self.primary.query("TRUNCATE items").await;
        self.jobs.query("TRUNCATE oban_jobs").await;
    }

    /// Nothing of a session is left on either server.
    async fn check_is_quiet(&self, what: &str) {
        for server in [&self.primary, &self.jobs] {
            eventually(what, std::time::Duration::from_secs(10), async || {
                let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'";
                (server.value(open).await == "0").then_some(())
            })
            .await;
        }
    }
}

async fn say(client: &mut RawClient, way: Way, sql: &str) -> Vec<Message> {
    match way {
        Way::Simple => client.ask(sql).await,
        Way::Extended => {
            client.parse("", sql).bind("", "", &[]).describe(b'P', "").execute("", 0);
            client.sync().flush().await;
            client.read_until_ready().await
        }
    }
}

/// What a statement is to be answered with, short: an error's code, a value, or a command's tag; and the status.
fn short(answer: &[Message]) -> String {
    let status = char::from(answer.last().expect("an answer").body[0]);
    let told = error_code(answer).or_else(|| values(answer).first().cloned()).unwrap_or_else(|| {
        let tag = answer.iter().find(|message| message.tag == b'C').expect("a command's tag");
        String::from_utf8_lossy(&tag.body[..tag.body.len() - 1]).into_owned()
    });
    format!("{told} {status}")
}

const ITEM: &str = "INSERT INTO items VALUES ('a')";
const JOB: &str = "INSERT INTO oban_jobs (worker) VALUES ('J')";
const COUNT: &str = "SELECT count(*) FROM oban_jobs";
const LOCK: &str = "SELECT pg_try_advisory_xact_lock(7)";

/// What is said with what is answered, and the rows that are there afterwards.
const SCRIPTS: &[(&[(&str, &str)], (&str, &str))] = &[
    // Jobs are read in the application's transaction.
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (COUNT, "0 T"), ("COMMIT", "COMMIT I")], ("a", "")),
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (COUNT, "0 T"), ("ROLLBACK", "ROLLBACK I")], ("", "")),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (COUNT, "0 T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            ("END", "COMMIT I"),
        ],
        ("a b", ""),
    ),
    // A unique job: its lock comes before anything says where the transaction belongs.
    (
        &[("BEGIN", "BEGIN T"), (LOCK, "t T"), (COUNT, "0 T"), (JOB, "INSERT 0 1 T"), ("COMMIT", "COMMIT I")],
        ("", "J"),
    ),
    (&[("BEGIN", "BEGIN T"), (LOCK, "t T"), (JOB, "INSERT 0 1 T"), ("ROLLBACK", "ROLLBACK I")], ("", "")),
    // A worker that reads the application's tables with its job.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SELECT count(*) FROM items", "0 T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("", "J"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("", "J"),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // Savepoints are on both.
    (
        &[
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT one", "SAVEPOINT T"),
            (ITEM, "INSERT 0 1 T"),
            ("SAVEPOINT two", "SAVEPOINT T"),
            (COUNT, "0 T"),
            ("SAVEPOINT three", "SAVEPOINT T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            ("SELECT 1", "25P02 E"),
            ("ROLLBACK TO three", "ROLLBACK T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            ("ROLLBACK TO three", "ROLLBACK T"),
            ("SELECT count(*) FROM items", "1 T"),
            ("RELEASE two", "RELEASE T"),
            ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
            ("ROLLBACK TO SAVEPOINT one", "ROLLBACK T"),
            (COUNT, "0 T"),
            ("INSERT INTO items VALUES ('c')", "INSERT 0 1 T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("c", ""),
    ),
    // What fails on one server fails the transaction on both.
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SELECT 1/0 FROM oban_jobs GROUP BY ()", "22012 E"),
            (ITEM, "25P02 E"),
            (COUNT, "25P02 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (COUNT, "0 T"),
            (ITEM, "INSERT 0 1 T"),
            (ITEM, "23505 E"),
            (COUNT, "25P02 E"),
            ("COMMIT", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // What both would have to keep is refused, and nothing of it stays.
    (&[("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (JOB, "0A000 E"), ("COMMIT", "ROLLBACK I")], ("", "")),
    (&[("BEGIN", "BEGIN T"), (JOB, "INSERT 0 1 T"), (ITEM, "0A000 E"), ("COMMIT", "ROLLBACK I")], ("", "")),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("DELETE FROM oban_jobs", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT count(*) FROM items", "0 T"),
            (ITEM, "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            (COUNT, "0 T"),
            ("COMMIT AND CHAIN", "0A000 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    // The mode of the transaction is that of both.
    (
        &[
            ("BEGIN READ ONLY", "BEGIN T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("DELETE FROM oban_jobs", "25006 E"),
            ("ROLLBACK", "ROLLBACK I"),
        ],
        ("", ""),
    ),
    (
        &[
            ("BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN T"),
            (ITEM, "INSERT 0 1 T"),
            ("SET LOCAL application_name = 'mine'", "SET T"),
            (COUNT, "0 T"),
            ("SHOW transaction_isolation", "repeatable read T"),
            ("SHOW application_name", "mine T"),
            ("COMMIT", "COMMIT I"),
        ],
        ("a", ""),
    ),
];

#[tokio::test]
async fn transactions_that_use_both_servers_are_kept_whole_or_refused() {
    let site = Both::start().await;
    for way in [Way::Simple, Way::Extended] {
        for (script, (items, jobs)) in SCRIPTS {
            let mut client = site.client().await;
            for (sql, expected) in *script {
                let answer = say(&mut client, way, sql).await;
                let told = error_of(&answer);
                assert_eq!(short(&answer), *expected, "{way:?} {sql} of {script:?}: {told:?}");
            }
            // The session goes on, on either server.
            assert_eq!(
                short(&say(&mut client, way, "SELECT count(*) < 9 FROM items").await),
                "t I",
                "{script:?}"
            );
            assert_eq!(short(&say(&mut client, way, COUNT).await), format!("{} I", jobs.len()), "{script:?}");
            assert_eq!(site.rows().await, ((*items).to_owned(), (*jobs).to_owned()), "{way:?} {script:?}");
            client.terminate().await;
            site.check_is_quiet(&format!("{way:?} {script:?}")).await;
            site.clear().await;
        }
    }
}
