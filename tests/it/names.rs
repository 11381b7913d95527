//! Prepared statements of the protocol and of SQL have one name space: what one has prepared the other finds, on
//! whichever backend.

use crate::support::{Message, RawClient, Site, error_code, shuffle};

fn values(replies: &[Message]) -> Vec<String> {
    assert_eq!(error_code(replies), None, "{replies:?}");
    let rows = replies.iter().filter(|message| message.tag == b'D');
    rows.flat_map(Message::columns).map(Option::unwrap_or_default).collect()
}

async fn run(client: &mut RawClient, name: &str, parameters: &[Option<&str>]) -> Vec<Message> {
    client.bind("", name, parameters).execute("", 0);
    client.finish().await
}

#[tokio::test]
async fn sql_finds_what_the_protocol_has_prepared() {
    let site = Site::with_objects("GRANT CREATE ON SCHEMA public TO app", 2).await;
    let mut others = [site.client().await, site.client().await];
    let mut client = site.client().await;
    client.parse("s", "SELECT $1::int + 1 AS more");
    assert_eq!(RawClient::tags(&client.finish().await), "1Z");
    // Another session's statement of the same name, and its columns, are none of ours.
    others[0].parse("s", "SELECT 'another'::text AS other, 2 AS two");
    others[0].finish().await;
    for round in 0..5 {
        shuffle(&mut others).await;
        assert_eq!(values(&client.ask(&format!("EXECUTE s({round})")).await), [(round + 1).to_string()]);
        assert_eq!(values(&others[0].ask("EXECUTE s").await), ["another", "2"]);
        assert_eq!(error_code(&others[1].ask("EXECUTE s(1)").await).as_deref(), Some("26000"));
        let text = format!("SELECT 'a'; EXECUTE s({round}); SELECT 'b'");
        assert_eq!(values(&client.ask(&text).await), ["a", &(round + 1).to_string(), "b"]);
        assert!(values(&client.ask("EXPLAIN EXECUTE s(1)").await)[0].contains("Result"));
        assert_eq!(error_code(&client.ask(&format!("CREATE TABLE made{round} AS EXECUTE s(9)")).await), None);
        assert_eq!(client.query_value(&format!("SELECT more FROM made{round}")).await, "10");
        // In a transaction, and after an error in it.
        client.ask("BEGIN").await;
        assert_eq!(values(&client.ask("EXECUTE s(1)").await), ["2"]);
        assert_eq!(values(&client.ask("EXECUTE s(2)").await), ["3"]);
        assert_eq!(error_code(&client.ask("EXECUTE s('x')").await).as_deref(), Some("22P02"));
        assert_eq!(error_code(&client.ask("EXECUTE s(1)").await).as_deref(), Some("25P02"));
        client.ask("ROLLBACK").await;
        // The protocol still has it.
        assert_eq!(values(&run(&mut client, "s", &[Some("4")]).await), ["5"]);
    }
    for other in &mut others {
        let left = "SELECT count(*) FROM pg_prepared_statements WHERE name = 's'";
        assert_eq!(other.query_value(left).await, "0", "nothing is left on the backends");
    }
    site.wait_for_pinned("prepared_statements", 0.0).await;
    let reserved = client.ask("EXECUTE bulkhead_1").await;
    assert_eq!(error_code(&reserved).as_deref(), Some("42939"));
    assert_eq!(error_code(&client.ask("SELECT 1; DEALLOCATE bulkhead_1").await).as_deref(), Some("42939"));
}

#[tokio::test]
async fn sql_that_was_itself_prepared_finds_it_too() {
    let site = Site::start();
    let mut others = [site.client().await, site.client().await];
    let mut clients = Vec::new();
    for sql in ["SELECT 1 AS a, 'x'::text AS b", "SELECT 2.5::numeric AS c"] {
        let mut client = site.client().await;
        client.parse("s", sql);
        client.finish().await;
        // As asyncpg does.
        client.parse("e", "EXECUTE s").describe(b'S', "e").flush_message();
        client.flush().await;
        let mut replies = Vec::new();
        while replies.last().is_none_or(|last: &Message| last.tag != b'T') {
            replies.push(client.read_message().await);
        }
        assert_eq!(RawClient::tags(&replies), "1tT");
        clients.push(client);
    }
    for round in 0..5 {
        for (client, expected) in clients.iter_mut().zip([vec!["1", "x"], vec!["2.5"]]) {
            shuffle(&mut others).await;
            assert_eq!(values(&run(client, "e", &[]).await), expected, "round {round}");
            client.describe(b'S', "e");
            let described = client.finish().await;
            let columns = described.iter().find(|message| message.tag == b'T').expect("columns");
            assert_eq!(usize::from(columns.body[1]), expected.len(), "its own columns");
            client.parse("", "EXECUTE s").bind("", "", &[]).describe(b'P', "").execute("", 0);
            assert_eq!(values(&client.finish().await), expected);
        }
    }
}

#[tokio::test]
async fn a_name_is_taken_whoever_took_it() {
    let site = Site::start();
    let mut others = [site.client().await];
    let mut client = site.client().await;
    client.parse("s", "SELECT 'protocol'");
    client.finish().await;
    assert_eq!(error_code(&client.ask("PREPARE s AS SELECT 'sql'").await).as_deref(), Some("42P05"));
    assert_eq!(values(&run(&mut client, "s", &[]).await), ["protocol"]);
    site.wait_for_pinned("prepared_statements", 0.0).await;

    assert_eq!(error_code(&client.ask("DEALLOCATE s; PREPARE s AS SELECT 'sql'").await), None);
    for _ in 0..3 {
        shuffle(&mut others).await;
        assert_eq!(values(&client.ask("EXECUTE s").await), ["sql"]);
        assert_eq!(values(&run(&mut client, "s", &[]).await), ["sql"]);
    }
    client.parse("s", "SELECT 'again'");
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("42P05"));
    assert_eq!(values(&run(&mut client, "s", &[]).await), ["sql"]);
    client.parse("t", "SELECT 'other'");
    assert_eq!(RawClient::tags(&client.finish().await), "1Z");
    assert_eq!(values(&client.ask("EXECUTE t").await), ["other"]);
    // Closed by the protocol, the name is free.
    client.close(b'S', "s");
    assert_eq!(RawClient::tags(&client.finish().await), "3Z");
    site.wait_for_pinned("prepared_statements", 0.0).await;
    assert_eq!(error_code(&client.ask("EXECUTE s").await).as_deref(), Some("26000"));
    client.parse("s", "SELECT 'again'");
    assert_eq!(RawClient::tags(&client.finish().await), "1Z");
    assert_eq!(values(&client.ask("EXECUTE s").await), ["again"]);
}

#[tokio::test]
async fn what_is_let_go_is_gone() {
    let site = Site::start();
    let mut client = site.client().await;
    for text in ["SELECT 1; DEALLOCATE s", "DEALLOCATE s", "DEALLOCATE ALL; SELECT 1"] {
        client.parse("s", "SELECT 'protocol'");
        assert_eq!(error_code(&client.finish().await), None, "{text}");
        assert_eq!(error_code(&client.ask(text).await), None, "{text}");
        assert_eq!(error_code(&run(&mut client, "s", &[]).await).as_deref(), Some("26000"), "{text}");
        assert_eq!(error_code(&client.ask("EXECUTE s").await).as_deref(), Some("26000"), "{text}");
    }
    client.parse("s", "SELECT 'protocol'");
    client.finish().await;
    client.ask("BEGIN").await;
    assert_eq!(values(&client.ask("EXECUTE s").await), ["protocol"]);
    assert_eq!(error_code(&client.ask("DEALLOCATE s").await), None);
    assert_eq!(error_code(&client.ask("EXECUTE s").await).as_deref(), Some("26000"));
    client.ask("ROLLBACK").await;
    // No rollback brings it back.
    assert_eq!(error_code(&run(&mut client, "s", &[]).await).as_deref(), Some("26000"));
    client.parse("s", "SELECT 'protocol'");
    assert_eq!(error_code(&client.finish().await), None);
    client.ask("BEGIN").await;
    client.ask("EXECUTE s").await;
    client.close(b'S', "s");
    assert_eq!(RawClient::tags(&client.finish().await), "3Z");
    assert_eq!(error_code(&client.ask("EXECUTE s").await).as_deref(), Some("26000"));
    client.ask("COMMIT").await;
    assert_eq!(error_code(&run(&mut client, "s", &[]).await).as_deref(), Some("26000"));
    // What SQL prepares is there for the protocol in the same transaction.
    client.ask("BEGIN").await;
    client.ask("PREPARE q AS SELECT 5").await;
    assert_eq!(values(&run(&mut client, "q", &[]).await), ["5"]);
    client.ask("ROLLBACK").await;
    assert_eq!(values(&run(&mut client, "q", &[]).await), ["5"], "it outlives the transaction");
    client.ask("DEALLOCATE q").await;
    assert_eq!(error_code(&run(&mut client, "q", &[]).await).as_deref(), Some("26000"));
    // A statement whose table is gone tells so.
    client.ask("CREATE TEMP TABLE t (a int)").await;
    client.parse("on_t", "SELECT * FROM t");
    client.finish().await;
    client.ask("DROP TABLE t").await;
    let replies = client.ask("EXECUTE on_t").await;
    assert_eq!((RawClient::tags(&replies).as_str(), error_code(&replies).as_deref()), ("EZ", Some("42P01")));
    assert_eq!(client.query_value("SELECT 1").await, "1");
}
