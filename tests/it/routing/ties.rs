//! Sessions with state on their backend, or with advisory locks, are on the primary, where they can write and meet others; a
//! transaction that is on a replica goes there for what no replica can run.

use super::{Place, Primary, Replica, Routed};
use crate::support::{Message, ProxyConfig, RawClient, error_code};

/// A session that has state on its backend keeps it, and may want to write: and locks are to be met by others.
#[tokio::test]
async fn what_ties_a_session_to_its_backend_begins_on_the_primary() {
    let site = Routed::start().await;
    site.client().await;
    let requests: [(Place, &[&str]); 7] = [
        (Primary, &["SELECT pg_try_advisory_lock(40 + 1, length('abc'))", "SELECT 1"]),
        (Primary, &["SELECT * FROM items", "SELECT pg_advisory_lock(42)"]),
        (Primary, &["SELECT pg_advisory_xact_lock(43)", "SELECT * FROM items"]),
        (Primary, &["SELECT pg_advisory_unlock(42)", "SELECT * FROM items"]),
        (Primary, &["SELECT set_config('app.' || 'name', 'a', false)", "SELECT * FROM items"]),
        (Primary, &["LISTEN news", "SELECT * FROM items"]),
        (Replica, &["SET work_mem = '5MB'", "SELECT * FROM items"]),
    ];
    let mut expected = Vec::new();
    for (number, (place, texts)) in requests.into_iter().enumerate() {
        for by_query in [true, false] {
            let mark = format!("ties {number} {by_query}");
            let mut raw = RawClient::app(site.proxy.port()).await;
            if by_query {
                raw.query(&format!("{} /* {mark} */", texts.join("; "))).await;
            } else {
                let (last, before) = texts.split_last().expect("some");
                for text in before {
                    raw.parse("", text).bind("", "", &[]).execute("", 0);
                }
                raw.parse("", &format!("{last} /* {mark} */")).bind("", "", &[]).execute("", 0).sync();
            }
            raw.flush().await;
            assert_eq!(error_code(&raw.read_until_ready().await), None, "{texts:?}");
            expected.push((mark, place, texts.join("; ")));
            let written = raw.ask("INSERT INTO items (name) VALUES ('tied')").await;
            assert_eq!(error_code(&written), None, "{texts:?}");
            raw.terminate().await;
            while raw.try_read_message().await.is_some() {}
        }
    }
    site.check(&expected);
}

/// Statements that no replica can run, or that would tie a session to it.
const NOT_THERE: [&str; 25] = [
    "SELECT pg_advisory_xact_lock(51)",
    "SELECT pg_try_advisory_lock(52)",
    "PREPARE kept AS SELECT 1",
    "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM items",
    "LISTEN news",
    "NOTIFY news",
    "SELECT pg_notify('news', '')",
    "SELECT setseed(0.5)",
    "SELECT set_config('app.' || 'name', 'a', false)",
    "SELECT currval('numbers')",
    "SELECT nextval('numbers')",
    "SELECT txid_current() > 0",
    "SELECT pg_current_wal_lsn() IS NULL",
    "SELECT pg_is_in_recovery()",
    "SELECT * FROM volatile_items",
    "SELECT lo_create(0) > 0",
    "SELECT counts()",
    "DO $$ BEGIN PERFORM pg_notify('news', ''); END $$",
    "LOCK TABLE items IN SHARE MODE",
    "ANALYZE items",
    "INSERT INTO items (name) VALUES ('no')",
    "CREATE TEMP TABLE mine (id int)",
    "VACUUM items",
    "SELECT * FROM items FOR UPDATE",
    "COMMIT; INSERT INTO items (name) VALUES ('behind')",
];

/// The way in which a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Query,
    Extended,
    /// It is prepared and described first, with a Sync of its own.
    Named,
}

impl Manner {
    async fn run(self, raw: &mut RawClient, sql: &str) -> Vec<Vec<String>> {
        match self {
            Self::Query => vec![told(&raw.ask(sql).await)],
            Self::Extended => {
                raw.parse("", sql).bind("", "", &[]).execute("", 0).sync().flush().await;
                vec![told(&raw.read_until_ready().await)]
            }
            Self::Named => {
                raw.parse("s", sql).describe(b'S', "s").sync().flush().await;
                let prepared = told(&raw.read_until_ready().await);
                raw.bind("", "s", &[]).execute("", 0).sync().flush().await;
                vec![prepared, told(&raw.read_until_ready().await)]
            }
        }
    }
}

/// Everything that a client is told of a request, without where in the server's source an error was raised.
fn told(messages: &[Message]) -> Vec<String> {
    let of = |message: &Message| match message.tag {
        b'E' => format!("E {:?}", [b'C', b'M'].map(|name| message.field(name))),
        tag => format!("{} {:?}", char::from(tag), message.body),
    };
    messages.iter().map(of).collect()
}

#[tokio::test]
async fn a_read_only_transaction_leaves_its_replica_for_what_that_cannot_run() {
    let site = Routed::start().await;
    site.client().await;
    let behind =
        ["SELECT name FROM items WHERE id = 3", "COMMIT", "INSERT INTO items (name) VALUES ('last')"];
    for (number, tie) in NOT_THERE.into_iter().enumerate() {
        for manner in [Manner::Query, Manner::Extended, Manner::Named] {
            // Several in one text, which is a Query only; what follows is no part of the transaction.
            let ends = tie.starts_with("COMMIT");
            if manner != Manner::Query && ends {
                continue;
            }
            let (before, after) =
                (format!("before {number} {manner:?}"), format!("after {number} {manner:?}"));
            let mut answers = Vec::new();
            for port in [site.proxy.port(), site.cluster.primary.port()] {
                let mut raw = RawClient::app(port).await;
                raw.ask("BEGIN READ ONLY").await;
                let mark = if port == site.proxy.port() { &before } else { "direct" };
                raw.ask(&format!("SELECT * FROM items WHERE id = 1 /* {mark} */")).await;
                answers.extend(manner.run(&mut raw, tie).await);
                for text in behind {
                    let mark = if port == site.proxy.port() { &after } else { "direct" };
                    answers.push(told(&raw.ask(&format!("{text} /* {mark} */")).await));
                }
                raw.terminate().await;
            }
            let (ours, direct) = answers.split_at(answers.len() / 2);
            assert_eq!(ours, direct, "{tie} {manner:?}");
            site.check(&[(before, Replica, tie.to_owned())]);
            if !ends {
                site.check(&[(after, Primary, tie.to_owned())]);
            }
        }
    }
}

/// What would be lost on the way keeps a transaction on its replica. There a lock is met by nobody and a session that has state
/// cannot write: both are refused. The rest the replica refuses itself.
#[tokio::test]
async fn a_transaction_with_more_than_reads_behind_it_stays_on_its_replica() {
    let site = Routed::start().await;
    site.client().await;
    let read = "SELECT name FROM items WHERE id = 1";
    let keeps: [(&str, &[&str]); 5] = [
        ("BEGIN READ ONLY", &[read, "SAVEPOINT a"]),
        ("BEGIN READ ONLY", &[read, "SET LOCAL work_mem = '5MB'"]),
        ("BEGIN READ ONLY", &["SET LOCAL work_mem = '5MB'", read]),
        ("BEGIN READ ONLY", &["DECLARE c CURSOR FOR SELECT * FROM items"]),
        ("BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ", &[read]),
    ];
    let refused = [
        ("SELECT pg_advisory_xact_lock(51)", "0A000"),
        ("PREPARE kept AS SELECT 1", "0A000"),
        ("NOTIFY news", "25006"),
    ];
    for (number, (begin, texts)) in keeps.into_iter().enumerate() {
        for (tie, code) in refused {
            let mark = format!("keeps {number} {tie}");
            let mut raw = RawClient::app(site.proxy.port()).await;
            raw.ask(begin).await;
            for text in texts {
                assert_eq!(error_code(&raw.ask(&format!("{text} /* {mark} */")).await), None, "{text}");
            }
            assert_eq!(error_code(&raw.ask(tie).await).as_deref(), Some(code), "{texts:?} {tie}");
            assert_eq!(error_code(&raw.ask("SELECT 1").await).as_deref(), Some("25P02"), "{texts:?} {tie}");
            raw.ask("ROLLBACK").await;
            assert_eq!(error_code(&raw.ask("INSERT INTO items (name) VALUES ('free')").await), None, "{tie}");
            site.check(&[(mark, Replica, tie.to_owned())]);
        }
    }
}

/// A named portal that has rows left is the transaction's until it ends.
#[tokio::test]
async fn a_portal_keeps_a_transaction_on_its_replica() {
    let site = Routed::start().await;
    site.client().await;
    let mut raw = RawClient::app(site.proxy.port()).await;
    raw.ask("BEGIN READ ONLY").await;
    raw.parse("", "SELECT id FROM items ORDER BY id /* portal */")
        .bind("rest", "", &[])
        .execute("rest", 2)
        .sync();
    raw.flush().await;
    assert_eq!(RawClient::tags(&raw.read_until_ready().await), "12DDsZ");
    let refused = raw.ask("SELECT pg_advisory_xact_lock(51)").await;
    assert_eq!(error_code(&refused).as_deref(), Some("0A000"));
    raw.ask("ROLLBACK").await;
    site.check(&[("portal".to_owned(), Replica, String::new())]);
}

#[tokio::test]
async fn where_no_connection_of_the_primary_is_to_be_had_the_transaction_fails() {
    let site = Routed::configured(|cluster| {
        ProxyConfig::of(cluster)
            .set("pools.replicas", "consistency", "eventual")
            .set("pools.primary", "max_connections", 1)
            .set("pools.primary", "wait_timeout", "2s")
    })
    .await;
    site.client().await;
    let mut holder = RawClient::app(site.proxy.port()).await;
    holder.ask("BEGIN").await;
    assert_eq!(error_code(&holder.ask("INSERT INTO items (name) VALUES ('held')").await), None);
    let mut raw = RawClient::app(site.proxy.port()).await;
    raw.ask("BEGIN READ ONLY").await;
    assert_eq!(error_code(&raw.ask("SELECT * FROM items /* alone */").await), None);
    assert_eq!(error_code(&raw.ask("NOTIFY news").await).as_deref(), Some("53300"));
    assert_eq!(error_code(&raw.ask("SELECT 1").await).as_deref(), Some("25P02"));
    raw.ask("ROLLBACK").await;
    holder.ask("COMMIT").await;
    assert_eq!(error_code(&raw.ask("INSERT INTO items (name) VALUES ('free')").await), None);
    site.check(&[("alone".to_owned(), Replica, String::new())]);
}

/// What is only prepared takes nothing: it is refused when it is to run.
#[tokio::test]
async fn what_is_only_prepared_on_a_replica_is_not_refused() {
    let site = Routed::start().await;
    site.client().await;
    let mut raw = RawClient::app(site.proxy.port()).await;
    raw.ask("BEGIN READ ONLY").await;
    raw.ask("SELECT * FROM items /* prepares */").await;
    raw.ask("SAVEPOINT a").await;
    let [prepared, run] =
        Manner::Named.run(&mut raw, "SELECT pg_advisory_xact_lock(51)").await.try_into().expect("two");
    assert!(prepared.iter().all(|message| !message.starts_with('E')), "{prepared:?}");
    assert!(run[0].contains("0A000"), "{run:?}");
    raw.ask("ROLLBACK").await;
    site.check(&[("prepares".to_owned(), Replica, String::new())]);
}

/// A transaction whose connection to the replica is lost before it leaves has failed, and its session goes on.
#[tokio::test]
async fn a_transaction_that_is_lost_on_its_replica_fails() {
    let site = Routed::start().await;
    site.client().await;
    let mut raw = RawClient::app(site.proxy.port()).await;
    raw.ask("BEGIN READ ONLY").await;
    raw.ask("SELECT * FROM items /* lost */").await;
    let lost = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE query LIKE '%/* lost */' \
        AND pid <> pg_backend_pid()";
    site.cluster.replica.query(lost).await;
    assert!(error_code(&raw.ask("NOTIFY news").await).is_some());
    assert_eq!(error_code(&raw.ask("SELECT 1").await).as_deref(), Some("25P02"));
    assert_eq!(error_code(&raw.ask("ROLLBACK").await), None);
    assert_eq!(error_code(&raw.ask("INSERT INTO items (name) VALUES ('free')").await), None);
}
