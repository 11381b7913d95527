//! Transactions that say, or by default are, `READ ONLY` run on a replica, however they are opened.

use std::time::Duration;

use super::{Place, Primary, ProxyConfig, RawClient, Replica, Routed, error_code, eventually, status_of};

const SOON: Duration = Duration::from_secs(15);

/// One of several requests, each with one Sync, behind which a mark follows.
type Requests = &'static [&'static [&'static str]];

impl Routed {
    async fn raw(&self, options: &str) -> RawClient {
        self.client().await;
        let mut raw = RawClient::open(self.proxy.port()).await;
        raw.startup(&[("user", "app"), ("database", "app"), ("options", options)]).await;
        assert!(raw.authenticate("app", "secret").await.is_none());
        raw
    }
}

/// Sends requests in which every statement is marked; the SQLSTATEs of those that fail.
async fn send(raw: &mut RawClient, requests: Requests, mark: &str) -> Vec<String> {
    let mut errors = Vec::new();
    for texts in requests {
        for text in *texts {
            raw.parse("", &format!("{text} /* {mark} */")).bind("", "", &[]).execute("", 0);
        }
        raw.sync().flush().await;
        errors.extend(error_code(&raw.read_until_ready().await));
    }
    errors
}

async fn check(options: &str, cases: &[(Place, Requests)]) {
    let site = Routed::start().await;
    let mut raw = site.raw(options).await;
    for (number, (place, requests)) in cases.iter().enumerate() {
        let mark = format!("transaction {number}");
        assert_eq!(send(&mut raw, requests, &mark).await, [""; 0], "{requests:?}");
        assert_eq!(site.places(&mark), [*place], "{requests:?}");
    }
}

const READ: &str = "SELECT count(*) FROM items";
const WRITE: &str = "INSERT INTO items (name) VALUES ('written')";

#[tokio::test]
async fn a_transaction_is_opened_together_with_its_first_read() {
    check(
        "",
        &[
            (Replica, &[&["BEGIN READ ONLY", READ], &[READ], &["COMMIT"]]),
            (Replica, &[&["BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", READ, READ], &["ROLLBACK"]]),
            (Primary, &[&["BEGIN", READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["BEGIN READ WRITE", READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", READ], &["COMMIT"]]),
            // What comes behind the end may write.
            (Primary, &[&["BEGIN READ ONLY", READ, "COMMIT", "BEGIN", READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["BEGIN READ ONLY", "SET TRANSACTION READ WRITE", READ], &["COMMIT"]]),
            (Primary, &[&["BEGIN"], &["SAVEPOINT s", READ], &[WRITE], &["COMMIT"]]),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_transaction_of_a_session_that_only_reads_by_default_runs_on_a_replica() {
    const WRITES: (Place, Requests) = (Primary, &[&["BEGIN READ WRITE"], &[READ], &[WRITE], &["COMMIT"]]);
    for options in ["-c default_transaction_read_only=on", ""] {
        let mut cases: Vec<(Place, Requests)> = Vec::new();
        if options.is_empty() {
            cases.push((Primary, &[&["BEGIN"], &[READ], &[WRITE], &["COMMIT"]]));
            cases.push((Primary, &[&["SET default_transaction_read_only = on"]]));
        }
        cases.extend::<[(Place, Requests); _]>([
            (Replica, &[&["BEGIN"], &[READ], &[READ], &["COMMIT"]]),
            (Replica, &[&["START TRANSACTION ISOLATION LEVEL REPEATABLE READ", READ], &["COMMIT"]]),
            (Replica, &[&[READ]]),
            (Primary, &[&["BEGIN ISOLATION LEVEL SERIALIZABLE"], &[READ], &["COMMIT"]]),
            WRITES,
            (Primary, &[&["BEGIN READ WRITE", READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["BEGIN"], &["SET TRANSACTION READ WRITE"], &[READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["BEGIN", "SET TRANSACTION READ WRITE", READ], &[WRITE], &["COMMIT"]]),
            // It has been rolled back.
            (Primary, &[&["BEGIN READ WRITE"], &["SET default_transaction_read_only = off"], &["ROLLBACK"]]),
            (Replica, &[&["BEGIN"], &[READ], &["COMMIT"]]),
            (Primary, &[&["SET default_transaction_read_only = off"]]),
            (Primary, &[&["BEGIN"], &[READ], &[WRITE], &["COMMIT"]]),
            (Primary, &[&["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"]]),
            (Replica, &[&["BEGIN"], &[READ], &["COMMIT"]]),
            WRITES,
            // The transaction is the one that SET has begun, as a server sees it.
            (Primary, &[&["SET default_transaction_read_only = off", "BEGIN", READ], &["COMMIT"]]),
        ]);
        check(options, &cases).await;
    }
}

/// What is refused is what a server refuses, on whichever it runs.
#[tokio::test]
async fn a_write_where_only_reads_are_allowed_fails_and_the_next_one_does_not() {
    let site = Routed::start().await;
    let mut raw = site.raw("-c default_transaction_read_only=on").await;
    for requests in [&[&[WRITE] as &[_]] as Requests, &[&["BEGIN"], &[READ], &[WRITE], &["COMMIT"]]] {
        assert_eq!(send(&mut raw, requests, "refused").await, ["25006"], "{requests:?}");
    }
    let written: Requests = &[&["BEGIN READ WRITE"], &[WRITE], &["COMMIT"]];
    assert_eq!(send(&mut raw, written, "written").await, [""; 0]);
    assert_eq!(raw.query_value("SELECT count(*) FROM items WHERE name = 'written'").await, "1");
}

/// Whichever table it reads first, it may read any other one later.
#[tokio::test]
async fn a_transaction_sees_what_was_written_to_any_table() {
    const OPENED: Requests =
        &[&["BEGIN READ ONLY", "SELECT FROM quiet"], &["SELECT id FROM written"], &["COMMIT"]];
    let site = Routed::configured(ProxyConfig::of).await;
    let mut raw = site.raw("").await;
    let written: Requests = &[&["CREATE TABLE quiet (id int)"], &["CREATE TABLE written (id int)"]];
    assert_eq!(send(&mut raw, written, "made").await, [""; 0]);
    site.cluster.wait_for_replay().await;
    eventually("it runs on the replica", SOON, async || {
        let mark = format!("open {:?}", std::time::Instant::now());
        assert_eq!(send(&mut raw, OPENED, &mark).await, [""; 0]);
        (site.places(&mark) == [Replica]).then_some(())
    })
    .await;
    site.cluster.replica.set_replay(false).await;
    assert_eq!(send(&mut raw, &[&["INSERT INTO written VALUES (7)"]], "insert").await, [""; 0]);
    assert_eq!(send(&mut raw, OPENED, "behind").await, [""; 0]);
    assert_eq!(site.places("behind"), [Primary]);
    assert_eq!(send(&mut raw, &[&["SELECT FROM quiet"]], "quiet").await, [""; 0]);
    assert_eq!(site.places("quiet"), [Replica]);
    site.cluster.replica.set_replay(true).await;
}

#[tokio::test]
async fn reads_in_transactions_are_counted() {
    let site = Routed::start().await;
    let mut raw = site.raw("").await;
    let count = async |on: &str, reason: &str| {
        let sample = format!("bulkhead_replica_reads_total{{on=\"{on}\",reason=\"{reason}\"}}");
        site.proxy.metric(&sample).await.expect("it is counted") as u64
    };
    let all = async || {
        let fresh = count("replica", "fresh").await;
        [fresh, count("replica", "transaction").await, count("primary", "transaction").await]
    };
    let before = all().await;
    let cases: [(Requests, [u64; 3]); 6] = [
        (&[&["BEGIN READ ONLY"], &[READ], &[READ], &[READ], &["COMMIT"]], [1, 2, 0]),
        (&[&["BEGIN READ ONLY", READ], &[READ], &["COMMIT"]], [1, 1, 0]),
        // No replica can run what comes first.
        (&[&["BEGIN READ ONLY"], &["SELECT pg_is_in_recovery()"], &[READ], &["COMMIT"]], [0, 0, 1]),
        (&[&["BEGIN"], &[READ], &[READ], &["COMMIT"]], [0; 3]),
        (
            &[
                &["BEGIN"],
                &["SELECT pg_advisory_lock(1)"],
                &["COMMIT"],
                &[READ],
                &["BEGIN"],
                &[READ],
                &["COMMIT"],
            ],
            [0; 3],
        ),
        (&[&["SELECT pg_advisory_unlock(1)"]], [0; 3]),
    ];
    let mut sum = before;
    for (requests, counted) in cases {
        assert_eq!(send(&mut raw, requests, "counted").await, [""; 0], "{requests:?}");
        for (sum, one) in sum.iter_mut().zip(counted) {
            *sum += one;
        }
        assert_eq!(all().await, sum, "{requests:?}");
    }
}

/// An error leaves the transaction behind it, for the client to end.
#[tokio::test]
async fn an_error_in_a_transaction_that_is_opened_with_its_read_is_told() {
    let site = Routed::start().await;
    site.cluster
        .primary
        .query(
            "SET ROLE app; CREATE FUNCTION next_number() RETURNS bigint LANGUAGE plpgsql STABLE \
             AS $$ DECLARE n bigint; BEGIN EXECUTE 'SELECT nextval(''numbers'')' INTO n; RETURN n; END $$",
        )
        .await;
    let mut raw = site.raw("").await;
    let mut tries = 0;
    // Once the catalog has been read, it is taken for a read.
    eventually("it is run on the replica", SOON, async || {
        tries += 1;
        let mark = format!("fails {tries}");
        raw.parse("", "BEGIN READ ONLY").bind("", "", &[]).execute("", 0);
        raw.parse("", &format!("SELECT next_number() /* {mark} */")).bind("", "", &[]).execute("", 0);
        raw.sync().flush().await;
        let answer = raw.read_until_ready().await;
        assert_eq!((error_code(&answer).as_deref(), status_of(&answer)), (Some("25006"), 'E'));
        let answer = raw.ask("SELECT 1").await;
        assert_eq!((error_code(&answer).as_deref(), status_of(&answer)), (Some("25P02"), 'E'));
        assert_eq!(status_of(&raw.ask("ROLLBACK").await), 'I');
        (site.places(&mark) == [Replica]).then_some(())
    })
    .await;
    // On the primary no less.
    assert_eq!(send(&mut raw, &[&["BEGIN", "SELECT next_number()"], &["COMMIT"]], "works").await, [""; 0]);
}

/// Of which nothing was told, it is opened once more.
#[tokio::test]
async fn a_transaction_that_a_replica_does_not_open_is_opened_on_the_primary() {
    let site = Routed::start().await;
    let mut raw = site.raw("").await;
    raw.parse("", "BEGIN READ ONLY").bind("", "", &[]).execute("", 0);
    raw.parse("", "SELECT count(*), pg_sleep(1)::text FROM items /* hangs */")
        .bind("", "", &[])
        .execute("", 0);
    raw.sync().flush().await;
    let running = "query LIKE '%pg_sleep(1)%' AND state = 'active'";
    site.cluster.replica.wait_for_app_backends(running, 1).await;
    site.cluster.replica.pause();
    let answer = tokio::time::timeout(SOON, raw.read_until_ready()).await.expect("it is opened elsewhere");
    assert_eq!((RawClient::tags(&answer).as_str(), status_of(&answer)), ("12C12DCZ", 'T'));
    assert_eq!(status_of(&raw.ask("COMMIT").await), 'I');
    assert_eq!(site.places("hangs"), [Primary, Replica]);
    site.cluster.replica.resume();
}
