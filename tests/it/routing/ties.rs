//! Sessions with state on their backend, or with advisory locks: they are on the primary, where they can write and meet others.

use super::{Place, Primary, Replica, Routed};
use crate::support::{RawClient, error_code};

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

/// A lock of a replica is met by nobody else: it is refused where the transaction is there already.
#[tokio::test]
async fn no_advisory_lock_is_taken_on_a_replica() {
    let site = Routed::start().await;
    site.client().await;
    let mut raw = RawClient::app(site.proxy.port()).await;
    for (number, lock) in ["pg_advisory_xact_lock(51)", "pg_advisory_lock(52)"].into_iter().enumerate() {
        let (first, later) = (format!("lock first {number}"), format!("lock later {number}"));
        raw.ask("BEGIN READ ONLY").await;
        assert_eq!(error_code(&raw.ask(&format!("SELECT * FROM items /* {later} */")).await), None);
        let refused = raw.ask(&format!("SELECT {lock}")).await;
        assert_eq!(error_code(&refused).as_deref(), Some("0A000"), "{lock}");
        assert_eq!(error_code(&raw.ask("SELECT 1").await).as_deref(), Some("25P02"));
        raw.ask("ROLLBACK").await;
        raw.ask("BEGIN READ ONLY").await;
        assert_eq!(error_code(&raw.ask(&format!("SELECT {lock}")).await), None, "{lock}");
        assert_eq!(error_code(&raw.ask(&format!("SELECT * FROM items /* {first} */")).await), None);
        raw.ask("COMMIT").await;
        raw.ask("SELECT pg_advisory_unlock_all()").await;
        let written = raw.ask("INSERT INTO items (name) VALUES ('locked')").await;
        assert_eq!(error_code(&written), None, "{lock}");
        let places = [(later, Replica), (first, Primary)];
        site.check(&places.map(|(mark, place)| (mark, place, lock.to_owned())));
    }
}

/// State that only this backend has would tie the session to a server on which it could not write: it is refused where the
/// transaction is on a replica already, and begins on the primary otherwise.
#[tokio::test]
async fn no_session_is_tied_to_a_replica() {
    let site = Routed::start().await;
    site.client().await;
    let ties = [
        "PREPARE kept AS SELECT 1",
        "DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM items",
        "LISTEN news",
        "SELECT setseed(0.5)",
        "SELECT set_config('app.' || 'name', 'a', false)",
    ];
    for (number, tie) in ties.into_iter().enumerate() {
        let (first, later) = (format!("tie first {number}"), format!("tie later {number}"));
        let mut raw = RawClient::app(site.proxy.port()).await;
        raw.ask("BEGIN READ ONLY").await;
        assert_eq!(error_code(&raw.ask(&format!("SELECT * FROM items /* {later} */")).await), None);
        let refused = raw.ask(tie).await;
        assert_eq!(error_code(&refused).as_deref(), Some("0A000"), "{tie}");
        assert_eq!(error_code(&raw.ask("SELECT 1").await).as_deref(), Some("25P02"), "{tie}");
        raw.ask("ROLLBACK").await;
        assert_eq!(error_code(&raw.ask("INSERT INTO items (name) VALUES ('free')").await), None, "{tie}");
        raw.ask("BEGIN READ ONLY").await;
        assert_eq!(error_code(&raw.ask(tie).await), None, "{tie}");
        assert_eq!(error_code(&raw.ask(&format!("SELECT * FROM items /* {first} */")).await), None, "{tie}");
        assert_eq!(error_code(&raw.ask("COMMIT").await), None, "{tie}");
        assert_eq!(error_code(&raw.ask("INSERT INTO items (name) VALUES ('tied')").await), None, "{tie}");
        let places = [(later, Replica), (first, Primary)];
        site.check(&places.map(|(mark, place)| (mark, place, tie.to_owned())));
    }
}
