//! What of a session is on one of two servers, and is found there: cursors, portals, advisory locks.

use super::{Both, ITEM, JOB, Way, say};
use crate::support::{RawClient, error_of, short, told};

/// A session says this, and is told this.
type Said = (&'static str, &'static str);

async fn play(site: &Both, way: Way, script: &[Said]) -> RawClient {
    let mut client = site.client().await;
    for (sql, expected) in script {
        let answer = say(&mut client, way, sql).await;
        assert_eq!(short(&answer), *expected, "{way:?} {sql}: {:?}", error_of(&answer));
    }
    client
}

/// FETCH names no table, and goes where its cursor is.
#[tokio::test]
async fn cursors_are_fetched_from_where_they_were_declared() {
    let site = Both::start().await;
    site.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('A'), ('B'), ('C')").await;
    let script: &[Said] = &[
        ("BEGIN", "BEGIN T"),
        ("DECLARE Jobs CURSOR FOR SELECT worker FROM oban_jobs ORDER BY worker", "DECLARE CURSOR T"),
        ("FETCH 1 FROM jobs", "A T"),
        (ITEM, "INSERT 0 1 T"),
        ("FETCH 1 FROM jobs", "B T"),
        ("SELECT name FROM items", "a T"),
        ("DECLARE \"Items\" CURSOR FOR SELECT name FROM items", "DECLARE CURSOR T"),
        ("FETCH 1 FROM jobs", "C T"),
        ("FETCH 1 FROM \"Items\"", "a T"),
        ("CLOSE jobs", "CLOSE CURSOR T"),
        ("INSERT INTO items VALUES ('b')", "INSERT 0 1 T"),
        ("COMMIT", "COMMIT I"),
    ];
    for way in [Way::Simple, Way::Extended, Way::Prepared] {
        play(&site, way, script).await.terminate().await;
        assert_eq!(site.rows().await, ("a b".to_owned(), "A B C".to_owned()));
        site.primary.query("TRUNCATE items").await;
    }
    // One that is held goes on behind its transaction, beside a temporary table on the other server.
    let script: &[Said] = &[
        ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT 1 I"),
        (
            "DECLARE held CURSOR WITH HOLD FOR SELECT worker FROM oban_jobs ORDER BY worker",
            "DECLARE CURSOR I",
        ),
        ("FETCH 1 FROM held", "A I"),
        ("SELECT n FROM mine", "1 I"),
        ("FETCH 1 FROM held", "B I"),
        ("CLOSE held", "CLOSE CURSOR I"),
        ("FETCH 1 FROM held", "34000 I"),
    ];
    play(&site, Way::Simple, script).await.terminate().await;
}

/// So does an Execute that goes on with a portal, as JDBC's driver sends it for each `fetchSize` rows.
#[tokio::test]
async fn portals_go_on_where_they_were_bound() {
    let site = Both::start().await;
    site.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('A'), ('B'), ('C')").await;
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    client.parse("", "SELECT worker FROM oban_jobs ORDER BY worker").bind("C_1", "", &[]).execute("C_1", 1);
    client.sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "12DsZ");
    for n in 0..2 {
        let item = format!("INSERT INTO items VALUES ('{n}')");
        assert_eq!(short(&client.ask(&item).await), "INSERT 0 1 T");
        client.execute("C_1", 1).sync().flush().await;
        assert_eq!(told(&client.read_until_ready().await), "DsZ");
    }
    client.close(b'P', "C_1").sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "3Z");
    assert_eq!(short(&client.ask("COMMIT").await), "COMMIT I");
    assert_eq!(site.rows().await, ("0 1".to_owned(), "A B C".to_owned()));
}

/// Locks that are known of one server only are let go of there.
#[tokio::test]
async fn advisory_locks_are_let_go_where_they_were_taken() {
    let site = Both::start().await;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let mut client = play(
        &site,
        Way::Simple,
        &[
            ("BEGIN", "BEGIN T"),
            (JOB, "INSERT 0 1 T"),
            ("SELECT pg_advisory_lock(7)", " T"),
            ("SELECT count(*) FROM items", "0 T"),
            ("SELECT pg_advisory_unlock(7)", "t T"),
            ("SELECT pg_advisory_lock(8)", " T"),
            ("COMMIT", "COMMIT I"),
        ],
    )
    .await;
    assert_eq!(short(&client.ask("DISCARD ALL").await), "DISCARD ALL I");
    for server in [&site.primary, &site.jobs] {
        assert_eq!(server.value(locks).await, "0");
    }
}

/// What lets go of everything does so on both servers.
#[tokio::test]
async fn what_discards_all_does_so_on_both_servers() {
    let site = Both::start().await;
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    let there = "SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)";
    let reset = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    for all in ["DISCARD ALL", "SELECT pg_advisory_unlock_all()", reset] {
        for last in [there, "SELECT count(*) FROM items WHERE pg_try_advisory_lock(9)"] {
            let mut client = site.client().await;
            client.ask(ITEM).await;
            client.ask(JOB).await;
            client.ask("SELECT pg_advisory_lock(9)").await;
            client.ask(there).await;
            client.ask(last).await;
            let held = (site.primary.value(locks).await, site.jobs.value(locks).await);
            assert_eq!(held, ("1".to_owned(), "1".to_owned()));
            assert!(short(&client.ask(all).await).ends_with(" I"));
            for server in [&site.primary, &site.jobs] {
                assert_eq!(server.value(locks).await, "0", "{all} after {last}");
            }
            client.terminate().await;
            site.clear().await;
        }
    }
}

/// Savepoints are said on a server once the transaction is open there.
#[tokio::test]
async fn savepoints_of_a_session_that_is_pinned_to_both() {
    let site = Both::start().await;
    for way in [Way::Simple, Way::Extended] {
        let script: &[Said] = &[
            ("CREATE TEMP TABLE mine AS SELECT 1 AS n", "SELECT 1 I"),
            (JOB, "INSERT 0 1 I"),
            ("SELECT count(*) FROM oban_jobs WHERE pg_try_advisory_lock(9)", "1 I"),
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT one", "SAVEPOINT T"),
            ("SELECT n FROM mine", "1 T"),
            ("SAVEPOINT two", "SAVEPOINT T"),
            ("UPDATE oban_jobs SET worker = 'K'", "UPDATE 1 T"),
            ("ROLLBACK TO two", "ROLLBACK T"),
            ("SELECT worker FROM oban_jobs", "J T"),
            ("RELEASE one", "RELEASE T"),
            ("COMMIT", "COMMIT I"),
            ("SELECT n FROM mine", "1 I"),
            ("BEGIN", "BEGIN T"),
            ("SELECT n FROM mine", "1 T"),
            ("COMMIT", "COMMIT I"),
            ("BEGIN", "BEGIN T"),
            ("SAVEPOINT one", "SAVEPOINT T"),
            ("ROLLBACK AND CHAIN", "ROLLBACK T"),
            ("SELECT n FROM mine", "1 T"),
            ("COMMIT", "COMMIT I"),
        ];
        play(&site, way, script).await.terminate().await;
        site.check_is_quiet("after savepoints").await;
        site.clear().await;
    }
}
