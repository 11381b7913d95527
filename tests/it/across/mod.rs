//! Transactions and sessions that use the application's server and that of the jobs at once: what is kept whole, and what
//! is refused because it could not be.

mod moved;
mod refused;
mod scripts;
mod there;

use scripts::{COUNT, ITEM, JOB, LOCK, SCRIPTS};

use crate::support::{
    Message, Postgres, Proxy, ProxyConfig, RawClient, Role, error_code, error_of, eventually, oban, short,
};

/// How a session's statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Simple,
    Extended,
    /// Prepared under a name in a request of its own, as psycopg and asyncpg do.
    Prepared,
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
        Way::Prepared => say_prepared(client, sql, &[]).await,
    }
}

/// The answer to the Parse, if that is an error.
async fn say_prepared(client: &mut RawClient, sql: &str, values: &[Option<&str>]) -> Vec<Message> {
    client.close(b'S', "named").parse("named", sql).sync().flush().await;
    let answer = client.read_until_ready().await;
    if error_code(&answer).is_some() {
        return answer;
    }
    client.bind("", "named", values).describe(b'P', "").execute("", 0).sync().flush().await;
    client.read_until_ready().await
}

/// What a statement does may depend on its values, which come after it was prepared: where the transaction goes, too.
#[tokio::test]
async fn a_statement_that_is_only_prepared_says_nothing_of_its_transaction() {
    let site = Both::start().await;
    let mut listener = site.client().await;
    assert_eq!(short(&listener.ask("LISTEN \"public.oban_insert\"").await), "LISTEN I");
    let mut client = site.client().await;
    for n in 0..3 {
        assert_eq!(short(&client.ask("BEGIN").await), "BEGIN T");
        let notify = "SELECT pg_notify($1, value) FROM json_array_elements_text($2::json) AS value";
        let payload = format!("[\"{n}\"]");
        let told = say_prepared(&mut client, notify, &[Some("public.oban_insert"), Some(&payload)]).await;
        assert_eq!(short(&told), " T", "{:?}", error_of(&told));
        assert_eq!(short(&say_prepared(&mut client, JOB, &[]).await), "INSERT 0 1 T");
        assert_eq!(short(&client.ask("COMMIT").await), "COMMIT I");
        let heard = listener.read_message().await;
        let of_its_job = listener.read_message().await;
        assert!(of_its_job.body.ends_with(b"default\"}\0"), "{of_its_job:?}");
        assert_eq!((heard.tag, &heard.body[4..]), (b'A', format!("public.oban_insert\0{n}\0").as_bytes()));
    }
    assert_eq!(site.rows().await, (String::new(), "J J J".to_owned()));
}

#[tokio::test]
async fn transactions_that_use_both_servers_are_kept_whole_or_refused() {
    let site = Both::start().await;
    for way in [Way::Simple, Way::Extended, Way::Prepared] {
        for (script, (items, jobs)) in SCRIPTS {
            if way != Way::Simple && script.iter().any(|(sql, _)| sql.contains("; ")) {
                // Several statements in one text are the simple protocol's.
                continue;
            }
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

/// Ends the connections of clients to a server, those for which the condition holds.
async fn end_backends(server: &Postgres) {
    assert!(
        server.end_app_backends("state LIKE 'idle in transaction%'").await > 0,
        "nobody is in a transaction"
    );
}

#[tokio::test]
async fn what_is_lost_of_a_transaction_on_two_servers_is_told() {
    let site = Both::start().await;
    // The server whose connection is lost, what is said next, and what must come of it.
    for (loses_jobs, goes_on, rows) in [
        // What only reads there is not missed.
        (true, [("SELECT count(*) FROM items", "1 T"), ("COMMIT", "COMMIT I")], "a"),
        (false, [("SELECT count(*) FROM items", "08006 E"), ("COMMIT", "ROLLBACK I")], ""),
        (false, [(COUNT, "0 T"), ("COMMIT", "08007 I")], ""),
    ] {
        let mut client = site.client().await;
        client.ask("BEGIN").await;
        client.ask(ITEM).await;
        assert_eq!(short(&client.ask(COUNT).await), "0 T");
        if loses_jobs {
            // As the one that requests do not go to; the other one would be told of at once.
            client.ask("SELECT count(*) FROM items").await;
            end_backends(&site.jobs).await;
        } else {
            end_backends(&site.primary).await;
        }
        for (sql, expected) in goes_on {
            let told = short(&client.ask(sql).await);
            let is_loss = expected.starts_with("08") && told.starts_with("57P01");
            assert!(
                told == expected || is_loss && told[5..] == expected[5..],
                "{sql}: {told}, not {expected}"
            );
        }
        assert_eq!(site.rows().await, (rows.to_owned(), String::new()));
        assert_eq!(short(&client.ask("SELECT count(*) < 9 FROM items").await), "t I", "{goes_on:?}");
        client.terminate().await;
        site.check_is_quiet("after a loss").await;
        site.clear().await;
    }
}

#[tokio::test]
async fn a_transaction_ends_on_both_servers_when_its_jobs_server_goes_away() {
    let site = Both::configured(|config| config.set("pools.jobs", "wait_timeout", "300ms")).await;
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    client.ask(ITEM).await;
    client.ask(COUNT).await;
    site.jobs.kill();
    let told = short(&client.ask(COUNT).await);
    assert!(["08006 E", "57P01 E"].contains(&told.as_str()), "{told}");
    assert_eq!(short(&client.ask("SELECT 1").await), "25P02 E");
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert_eq!(site.primary.value("SELECT count(*) FROM items").await, "0");

    // One that meets the outage at its first job statement; what needs no jobs goes on.
    client.ask("BEGIN").await;
    client.ask(ITEM).await;
    assert_eq!(short(&client.ask(COUNT).await), "08006 E");
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(short(&client.ask(ITEM).await), "INSERT 0 1 I");
    site.primary.wait_for_app_backends("state <> 'idle'", 0).await;
    site.jobs.boot();
    eventually("jobs are read again", std::time::Duration::from_secs(10), async || {
        (short(&client.ask(COUNT).await) == "0 I").then_some(())
    })
    .await;
}

#[tokio::test]
async fn clients_that_leave_leave_nothing_on_either_server() {
    let site = Both::start().await;
    for ends_first in [false, true] {
        for last in [ITEM, COUNT] {
            let mut client = site.client().await;
            client.ask("BEGIN").await;
            client.ask("INSERT INTO items VALUES ('gone')").await;
            client.ask(COUNT).await;
            client.ask(last).await;
            if ends_first {
                client.terminate().await;
            }
            client.reset();
            site.check_is_quiet("after a client has left").await;
            assert_eq!(site.rows().await, (String::new(), String::new()));
        }
    }
}

#[tokio::test]
async fn a_full_pool_of_jobs_fails_only_who_needs_it() {
    let site = Both::configured(|config| config.set("pools.jobs", "wait_timeout", "200ms")).await;
    let mut holders = [site.client().await, site.client().await];
    for holder in &mut holders {
        holder.ask("BEGIN").await;
        holder.ask(JOB).await;
    }
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    client.ask(ITEM).await;
    client.ask("SAVEPOINT one").await;
    let answer = client.ask(COUNT).await;
    assert_eq!(short(&answer), "53300 E");
    assert!(error_of(&answer).expect("an error")[1].contains("\"jobs\""), "{answer:?}");
    assert_eq!(short(&client.ask("ROLLBACK TO one").await), "ROLLBACK T");
    assert_eq!(short(&client.ask("COMMIT").await), "COMMIT I");
    for holder in &mut holders {
        assert_eq!(short(&holder.ask("COMMIT").await), "COMMIT I");
    }
    assert_eq!(site.rows().await, ("a".to_owned(), "J J".to_owned()));
}

#[tokio::test]
async fn settings_hold_on_both_servers_of_a_pinned_session() {
    let site = Both::start().await;
    for way in [Way::Simple, Way::Extended] {
        let mut client = site.client().await;
        let here = "SELECT max(current_setting('work_mem')) FROM items";
        let there = "SELECT max(current_setting('work_mem')) FROM oban_jobs";
        for (sql, expected) in [
            (JOB, "INSERT 0 1 I"),
            (ITEM, "INSERT 0 1 I"),
            ("SELECT pg_try_advisory_lock(9)", "t I"),
            ("SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)", "1 I"),
            ("SET work_mem = '7MB'", "SET I"),
            (here, "7MB I"),
            (there, "7MB I"),
            (here, "7MB I"),
            ("RESET work_mem", "RESET I"),
            (there, "4MB I"),
            // Within a transaction, too.
            ("SET work_mem = '9MB'", "SET I"),
            ("BEGIN", "BEGIN T"),
            ("SELECT count(*) FROM items", "1 T"),
            (there, "9MB T"),
            ("COMMIT", "COMMIT I"),
            (there, "9MB I"),
        ] {
            let answer = say(&mut client, way, sql).await;
            assert_eq!(short(&answer), expected, "{way:?} {sql}: {:?}", error_of(&answer));
        }
        client.terminate().await;
        site.check_is_quiet("after settings").await;
        site.clear().await;
    }
}

#[tokio::test]
async fn a_pinned_session_uses_the_other_server_beside() {
    let site = Both::start().await;
    for way in [Way::Simple, Way::Extended] {
        let mut client = site.client().await;
        for (sql, expected) in [
            ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT 1 I"),
            (JOB, "INSERT 0 1 I"),
            ("SELECT n FROM mine", "1 I"),
            (COUNT, "1 I"),
            ("BEGIN", "BEGIN T"),
            ("INSERT INTO items SELECT 'a' FROM mine", "INSERT 0 1 T"),
            (COUNT, "1 T"),
            ("SELECT n FROM mine", "1 T"),
            ("COMMIT", "COMMIT I"),
            // State on the other one as well.
            ("SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)", "1 I"),
            ("SELECT n FROM mine", "1 I"),
            ("UPDATE oban_jobs SET worker = 'K'", "UPDATE 1 I"),
            ("SELECT n FROM mine", "1 I"),
            ("BEGIN", "BEGIN T"),
            ("SELECT n FROM mine", "1 T"),
            ("UPDATE oban_jobs SET worker = 'L'", "UPDATE 1 T"),
            ("ROLLBACK", "ROLLBACK I"),
            ("SELECT n FROM mine", "1 I"),
        ] {
            let answer = say(&mut client, way, sql).await;
            assert_eq!(short(&answer), expected, "{way:?} {sql}: {:?}", error_of(&answer));
        }
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 9";
        assert_eq!(site.jobs.value(locks).await, "1", "the lock is kept");
        assert_eq!(site.rows().await, ("a".to_owned(), "K".to_owned()));
        client.terminate().await;
        eventually("the lock goes with its session", std::time::Duration::from_secs(10), async || {
            (site.jobs.value(locks).await == "0").then_some(())
        })
        .await;
        site.clear().await;
    }
}

#[tokio::test]
async fn a_pinned_session_that_idles_makes_room_on_the_server_beside() {
    let site = Both::configured(|config| {
        config.pool("jobs", &["jobs"], 1).set("pools.jobs", "pinned_idle_timeout", "1s")
    })
    .await;
    let (mut idles, mut waits) = (site.client().await, site.client().await);
    for (sql, expected) in [
        (JOB, "INSERT 0 1 I"),
        ("SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)", "1 I"),
        // The one that it has used last is not the one that is wanted.
        ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT 1 I"),
    ] {
        assert_eq!(short(&idles.ask(sql).await), expected, "{sql}");
    }
    assert_eq!(short(&waits.ask(COUNT).await), "1 I");
    let end = idles.read_message().await;
    assert_eq!(end.field(b'C').as_deref(), Some("57P05"), "{end:?}");
    assert!(end.field(b'M').is_some_and(|text| text.contains("\"jobs\"")), "{end:?}");
}

#[tokio::test]
async fn a_statement_of_jobs_within_a_transaction_is_cancelled() {
    let site = Both::start().await;
    site.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('J')").await;
    let mut client = site.client().await;
    let (pid, secret) = client.key().clone();
    client.ask("BEGIN").await;
    client.ask(ITEM).await;
    client.query("SELECT count(*), pg_sleep(60) FROM oban_jobs").await;
    site.jobs.wait_for_app_backends("query LIKE '%pg_sleep%' AND state = 'active'", 1).await;
    RawClient::cancel(site.proxy.port(), pid, &secret).await;
    assert_eq!(short(&client.read_until_ready().await), "57014 E");
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert_eq!(site.rows().await, (String::new(), "J".to_owned()));
}

/// What comes behind an error up to the Sync is skipped, COMMIT as well, on whichever server it would be.
#[tokio::test]
async fn a_commit_behind_an_error_of_its_pipeline_does_not_happen() {
    let site = Both::start().await;
    site.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('J')").await;
    for divisor in [0, 1] {
        let mut client = site.client().await;
        client.ask("BEGIN").await;
        assert_eq!(short(&client.ask("DELETE FROM oban_jobs").await), "DELETE 1 T");
        client
            .parse("", &format!("SELECT 1 / {divisor} FROM items GROUP BY ()"))
            .bind("", "", &[])
            .execute("", 0);
        client.flush_message();
        client.parse("", "COMMIT").bind("", "", &[]).execute("", 0).sync().flush().await;
        let answer = client.read_until_ready().await;
        let code = error_code(&answer).expect("either of them fails");
        assert!(["22012", "0A000"].contains(&code.as_str()), "{code}");
        assert_eq!(answer.last().expect("an answer").body[0], b'E', "it is not committed");
        assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
        assert_eq!(site.rows().await, (String::new(), "J".to_owned()));
    }
}

/// Locks that name no table are taken where the application's are, whichever server was used last.
#[tokio::test]
async fn advisory_locks_exclude_each_other() {
    let site = Both::start().await;
    let (mut one, mut other) = (site.client().await, site.client().await);
    for sql in ["BEGIN", ITEM, COUNT] {
        one.ask(sql).await;
    }
    assert_eq!(short(&one.ask(LOCK).await), "t T");
    other.ask("BEGIN").await;
    assert_eq!(short(&other.ask(LOCK).await), "f T");
    assert_eq!(short(&other.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(short(&one.ask("ROLLBACK").await), "ROLLBACK I");
}

/// What was done on a pinned connection before does not count for the transaction that comes.
#[tokio::test]
async fn a_commit_goes_to_the_server_that_has_written() {
    let site = Both::start().await;
    site.primary
        .query(
            "SET ROLE app; CREATE TABLE late (m serial PRIMARY KEY, n int REFERENCES late (m) DEFERRABLE INITIALLY DEFERRED);
             SELECT setval('late_m_seq', 100)",
        )
        .await;
    let mut client = site.client().await;
    for (sql, expected) in [
        (JOB, "INSERT 0 1 I"),
        ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT 1 I"),
        ("SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)", "1 I"),
        ("UPDATE oban_jobs SET worker = 'K'", "UPDATE 1 I"),
        ("SELECT n FROM mine", "1 I"),
        ("BEGIN", "BEGIN T"),
        ("INSERT INTO late (n) VALUES (1)", "INSERT 0 1 T"),
        (COUNT, "1 T"),
        ("COMMIT", "23503 I"),
    ] {
        let answer = client.ask(sql).await;
        assert_eq!(short(&answer), expected, "{sql}: {:?}", error_of(&answer));
    }
    assert_eq!(site.primary.value("SELECT count(*) FROM late").await, "0");
}
