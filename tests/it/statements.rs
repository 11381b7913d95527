//! Prepared statements of the protocol: each session has its names, whichever of two backends it is on.

use crate::support::{RawClient, Site, error_code, error_of, shuffle, told, values};

/// The only value of a statement that is bound and executed.
async fn run(client: &mut RawClient, name: &str, parameters: &[Option<&str>]) -> String {
    client.bind("", name, parameters).execute("", 0);
    let answer = client.finish().await;
    assert_eq!(told(&answer), "2DCZ", "{answer:?}");
    values(&answer).swap_remove(0)
}

/// Executes the statement that each of the sessions has by this name, all at once; their only values.
async fn run_all(clients: &mut [RawClient], name: &str, parameter: &str) -> Vec<String> {
    for client in clients.iter_mut() {
        client.bind("", name, &[Some(parameter)]).execute("", 0).sync().flush().await;
    }
    let mut found = Vec::new();
    for client in clients {
        let answer = client.read_until_ready().await;
        assert_eq!(told(&answer), "2DCZ", "{answer:?}");
        found.extend(values(&answer));
    }
    found
}

/// A named statement, and the unnamed one.
#[tokio::test]
async fn one_name_stands_for_another_text_in_each_session() {
    let site = Site::start();
    let (mut clients, mut holder) = (Vec::new(), site.client().await);
    for number in 0..8 {
        let mut client = site.client().await;
        client.parse("same", &format!("SELECT $1::text || ' named {number}'")).describe(b'S', "same");
        assert_eq!(client.exchange().await, "1tTZ");
        client.parse("", &format!("SELECT $1::text || ' unnamed {number}'"));
        assert_eq!(client.exchange().await, "1Z");
        clients.push(client);
    }
    for round in 0..10 {
        // On odd rounds one backend is busy, so that all must do with the other one.
        holder.ask(if round % 2 == 1 { "BEGIN; SELECT 1" } else { "SELECT 1" }).await;
        for (name, word) in [("same", "named"), ("", "unnamed")] {
            let found = run_all(&mut clients, name, &round.to_string()).await;
            let expected: Vec<_> = (0..8).map(|number| format!("{round} {word} {number}")).collect();
            assert_eq!(found, expected);
        }
        holder.ask("ROLLBACK").await;
    }
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'
                    AND application_name <> 'bulkhead health check'";
    assert_eq!(site.primary.value(backends).await, "2");
}

/// Names that are unknown or taken, and what an error in a pipeline undoes, are compared with the server in `corners`.
#[tokio::test]
async fn names_are_free_taken_and_unknown_as_on_the_server() {
    let site = Site::start();
    let (mut client, mut other) = (site.client().await, site.client().await);
    // A Parse that fails leaves its name free, also one that was skipped because of it.
    client.parse("a", "SELEC 1").parse("later", "SELECT 2::text");
    assert_eq!(client.exchange().await, " 42601 Z");
    client.parse("a", "SELECT no_such_column");
    assert_eq!(client.exchange().await, " 42703 Z");
    client.parse("a", "SELECT 1::text").parse("later", "SELECT 2::text");
    assert_eq!(client.exchange().await, "11Z");
    // The first Parse succeeds; the second one finds its name taken; the third one is skipped.
    client.parse("b", "SELECT 3::text").parse("b", "SELECT 4::text").parse("c", "SELECT 5::text");
    assert_eq!(client.exchange().await, "1 42P05 Z");
    for (name, value) in [("a", "1"), ("later", "2"), ("b", "3")] {
        assert_eq!(run(&mut client, name, &[]).await, value);
    }
    client.bind("", "c", &[]);
    assert_eq!(client.exchange().await, " 26000 Z");
    // The same text in another session, which has no such name yet.
    other.parse("b", "SELECT 3::text");
    assert_eq!(other.exchange().await, "1Z");
    assert_eq!(run(&mut other, "b", &[]).await, "3");
    client.parse("bulkhead_1", "SELECT 1");
    assert_eq!(client.exchange().await, " 42939 Z");

    for end in ["DEALLOCATE a", "DEALLOCATE PREPARE ALL", "DEALLOCATE ALL", "DISCARD ALL"] {
        client.close(b'S', "a").parse("a", "SELECT 6::text");
        assert_eq!(client.exchange().await, "31Z", "before {end}");
        assert_eq!(run(&mut client, "a", &[]).await, "6");
        assert_eq!(told(&client.ask(end).await), "CZ", "{end}");
        client.bind("", "a", &[]).execute("", 0);
        assert_eq!(client.exchange().await, " 26000 Z", "after {end}");
    }
    assert_eq!(told(&client.ask("DEALLOCATE a").await), " 26000 Z");
    for (begin, status) in [("", b'I'), ("BEGIN; SELECT 1", b'T')] {
        client.ask(begin).await;
        client.parse("a", "SELECT 7::text");
        assert_eq!(client.exchange().await, "1Z");
        client.parse("", "DEALLOCATE a").bind("", "", &[]).execute("", 0);
        let answer = client.finish().await;
        assert_eq!((told(&answer).as_str(), answer[3].body[0]), ("12CZ", status));
        client.bind("", "a", &[]).execute("", 0);
        assert_eq!(client.exchange().await, " 26000 Z");
    }
}

#[tokio::test]
async fn what_an_error_skips_is_undone() {
    let site = Site::start();
    let mut client = site.client().await;
    client.parse("a", "SELECT 'first'::text");
    assert_eq!(client.exchange().await, "1Z");
    client.parse("", "SELECT 1 / 0").bind("", "", &[]);
    client.close(b'S', "a").parse("a", "SELECT 'second'::text").parse("b", "SELECT 1").close(b'S', "b");
    assert_eq!(client.exchange().await, "1 22012 Z");
    assert_eq!(run(&mut client, "a", &[]).await, "first");
    client.bind("", "b", &[]).execute("", 0);
    assert_eq!(client.exchange().await, " 26000 Z");
}

#[tokio::test]
async fn backends_keep_few_statements_and_sessions_as_many_as_they_may() {
    let site = Site::configured(|config| {
        config.set("limits", "prepared_per_backend", 5).set("limits", "prepared_per_client", 30)
    });
    let mut client = site.client().await;
    for number in 0..30 {
        client.parse(&format!("s{number}"), &format!("SELECT ({number} + $1::int)::text"));
        assert_eq!(client.exchange().await, "1Z");
    }
    client.parse("s30", "SELECT 30::text");
    let [code, _, hint] = error_of(&client.finish().await).expect("one too many");
    assert_eq!(code, "53400");
    assert!(hint.contains("limits.prepared_per_client"), "{hint}");
    for round in 0..3 {
        for number in (0..30).map(|number| (number * 7 + round) % 30) {
            let value = run(&mut client, &format!("s{number}"), &[Some("100")]).await;
            assert_eq!(value, (number + 100).to_string());
        }
        let kept = client.query_value("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").await;
        assert!(kept.parse::<u32>().is_ok_and(|kept| kept <= 6), "{kept} statements are kept");
    }
    // Many at once, more than are kept.
    for number in 0..10 {
        client.bind("", &format!("s{number}"), &[Some("1")]).execute("", 0);
    }
    assert_eq!(client.exchange().await, format!("{}Z", "2DC".repeat(10)));
    client.close(b'S', "s3").parse("s31", "SELECT 31::text");
    assert_eq!(client.exchange().await, "31Z");
    assert_eq!(run(&mut client, "s31", &[]).await, "31");
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        assert_eq!(told(&client.ask(all).await), "CZ");
        for number in 0..30 {
            client.parse(&format!("n{number}"), "SELECT 1");
        }
        assert_eq!(client.exchange().await, format!("{}Z", "1".repeat(30)), "{all} has made room");
    }
}

/// That another session's is not found is compared with the server in `corners`.
#[tokio::test]
async fn the_unnamed_statement_lives_until_it_is_ended() {
    let site = Site::start();
    let mut others = [site.client().await, site.client().await];
    let (mut one, mut two) = (site.client().await, site.client().await);
    // Our own statements on the backend (a deferred BEGIN, settings) end its unnamed statement.
    one.parse("b", "BEGIN").parse("", "SELECT 'again'");
    assert_eq!(one.exchange().await, "11Z");
    one.bind("", "b", &[]).execute("", 0);
    assert_eq!(one.exchange().await, "2CZ");
    assert_eq!(run(&mut one, "", &[]).await, "again");
    one.ask("ROLLBACK").await;
    two.ask("SET work_mem = '5MB'").await;
    two.parse("", "SELECT current_setting('work_mem')");
    assert_eq!(two.exchange().await, "1Z");
    for _ in 0..3 {
        others[0].ask("SET work_mem = '6MB'").await;
        shuffle(&mut others).await;
        assert_eq!(run(&mut two, "", &[]).await, "5MB");
    }
    // A Query ends it, and so does a Parse that fails; what fails after it does not.
    for ends in ["SELECT 1", "BEGIN", "", "ROLLBACK"] {
        one.parse("", "SELECT 'again'::text");
        assert_eq!(one.exchange().await, "1Z");
        one.ask(ends).await;
        one.bind("", "", &[]).execute("", 0);
        assert_eq!(one.exchange().await, " 26000 Z", "after {ends:?}");
        one.ask("ROLLBACK").await;
    }
    one.parse("", "SELEKT");
    assert_eq!(one.exchange().await, " 42601 Z");
    one.bind("", "", &[]).execute("", 0);
    assert_eq!(one.exchange().await, " 26000 Z");
    one.parse("", "SELECT (10 / $1::int)::text").bind("", "", &[Some("0")]).execute("", 0);
    assert_eq!(one.exchange().await, "1 22012 Z");
    assert_eq!(run(&mut one, "", &[Some("2")]).await, "5");
}

#[tokio::test]
async fn definitions_that_change_results_need_a_fresh_parse_only() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE t AS SELECT 1 AS id").await;
    let mut clients = [site.client().await, site.client().await];
    for columns in 1..5 {
        let name = format!("s{columns}");
        for client in &mut clients {
            client.parse(&name, "SELECT * FROM t").bind("", &name, &[]).describe(b'P', "").execute("", 0);
            let answer = client.finish().await;
            assert_eq!(told(&answer), "12TDCZ", "{answer:?}");
            assert_eq!(values(&answer).len(), columns);
        }
        clients[1].ask(&format!("ALTER TABLE t ADD COLUMN c{columns} text DEFAULT 'new'")).await;
        clients[0].bind("", &name, &[]).execute("", 0);
        let [code, message, _] = error_of(&clients[0].finish().await).expect("an error");
        assert_eq!((code.as_str(), message.as_str()), ("0A000", "cached plan must not change result type"));
    }
}

#[tokio::test]
async fn literals_are_read_by_the_sessions_own_settings() {
    let site = Site::start();
    for zone in ["UTC", "America/New_York", "Asia/Tokyo", "UTC"] {
        let mut client = site.client().await;
        client.ask(&format!("SET TimeZone = '{zone}'")).await;
        client.parse("s", "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')").bind("", "s", &[]);
        client.execute("", 0);
        let expected = site
            .primary
            .value(&format!("SELECT extract(epoch FROM timestamp '2024-01-01' AT TIME ZONE '{zone}')"))
            .await;
        assert_eq!(values(&client.finish().await), [expected], "{zone}");
    }
}

#[tokio::test]
async fn in_a_failed_transaction_only_its_end_is_parsed() {
    let site = Site::start();
    let mut client = site.client().await;
    // The backend knows both texts by now.
    client.parse("select", "SELECT 1").parse("end", "ROLLBACK");
    assert_eq!(RawClient::tags(&client.finish().await), "11Z");
    client.ask("BEGIN").await;
    assert_eq!(error_code(&client.ask("SELECT 1 / 0").await).as_deref(), Some("22012"));
    client.parse("again", "SELECT 1");
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("25P02"));
    client.bind("", "again", &[]).execute("", 0);
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("26000"));
    client.parse("end_again", "ROLLBACK").bind("", "end_again", &[]).execute("", 0);
    client.parse("again", "SELECT 1").bind("", "again", &[]).execute("", 0);
    let replies = client.finish().await;
    assert_eq!((error_code(&replies), values(&replies)), (None, vec!["1".to_owned()]));
    // The statements from before are still there.
    for (name, expected) in [("select", vec!["1".to_owned()]), ("end", vec![])] {
        client.bind("", name, &[]).execute("", 0);
        let replies = client.finish().await;
        assert_eq!((error_code(&replies), values(&replies)), (None, expected), "{name}");
    }
}

#[tokio::test]
async fn a_begin_that_is_only_parsed_begins_nothing() {
    let site = Site::start();
    let mut client = site.client().await;
    client.bind("", "nobody", &[]).execute("", 0).parse("begin", "BEGIN");
    let replies = client.finish().await;
    assert_eq!((error_code(&replies).as_deref(), replies[1].body[0]), (Some("26000"), b'I'));
    client.parse("begin", "BEGIN").parse("one", "SELECT 1").bind("", "one", &[]).execute("", 0);
    let replies = client.finish().await;
    assert_eq!((values(&replies), RawClient::tags(&replies)), (vec!["1".to_owned()], "112DCZ".to_owned()));
    assert_eq!(replies[5].body[0], b'I');
    client.bind("", "begin", &[Some("1")]).execute("", 0);
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("08P01"));
    client.bind("", "begin", &[]).execute("nobody", 0);
    let replies = client.finish().await;
    assert_eq!((error_code(&replies).as_deref(), replies[2].body[0]), (Some("34000"), b'I'));
    // Under a name that is taken.
    client.parse("one", "BEGIN").bind("", "one", &[]).execute("", 0);
    let replies = client.finish().await;
    assert_eq!((told(&replies).as_str(), replies[1].body[0]), (" 42P05 Z", b'I'));
    // Executed, it is described as by a server.
    client.bind("", "begin", &[]).describe(b'P', "").execute("", 0).close(b'P', "");
    let replies = client.finish().await;
    assert_eq!((told(&replies).as_str(), replies[4].body[0]), ("2nC3Z", b'T'));
    client.ask("ROLLBACK").await;
    client.parse("", "BEGIN").describe(b'S', "").bind("", "", &[]).describe(b'P', "").execute("", 0);
    assert_eq!(client.exchange().await, "1tn2nCZ");
    client.ask("ROLLBACK").await;
    client.parse("n", "SET application_name = 'described'").describe(b'S', "n");
    assert_eq!(client.exchange().await, "1tnZ");
}

#[tokio::test]
async fn preparing_with_flush_and_running_later_holds_no_backend() {
    let site = Site::start();
    // More such sessions than there are backends.
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = site.client().await;
        let name = if number % 2 == 0 { "stmt" } else { "" };
        client
            .parse(name, &format!("SELECT {number} + $1::int"))
            .describe(b'S', name)
            .flush_message()
            .flush()
            .await;
        client.expect("1tT").await;
        clients.push((client, name));
    }
    for _ in 0..2 {
        for (number, (client, name)) in clients.iter_mut().enumerate() {
            assert_eq!(run(client, name, &[Some("10")]).await, (10 + number).to_string());
        }
    }
    // Every step with Flush, of statements that their backend has got already and of new ones.
    for round in 0..3 {
        for (client, _) in &mut clients[..2] {
            let name = format!("s{round}");
            client.parse(&name, "SELECT $1::int + 1").describe(b'S', &name).flush_message().flush().await;
            client.expect("1tT").await;
            client.bind("", &name, &[Some("41")]).execute("", 0).flush_message().flush().await;
            client.expect("2DC").await;
            client.close(b'S', &name).flush_message().flush().await;
            client.expect("3").await;
            assert_eq!(client.exchange().await, "Z");
        }
    }
    let (client, _) = &mut clients[0];
    // An error ends all up to the Sync, which answers once.
    client.parse("bad", "SELEC").describe(b'S', "bad").flush_message().flush().await;
    assert_eq!(client.read_message().await.field(b'C').as_deref(), Some("42601"));
    client.parse("more", "SELECT 1").flush_message();
    client.flush().await;
    assert_eq!(client.exchange().await, "Z");
    client.bind("", "more", &[]);
    assert_eq!(client.exchange().await, " 26000 Z");
    assert_eq!(run(client, "stmt", &[Some("1")]).await, "1");

    // A Query may follow without any Sync, as asyncpg does.
    client.parse("q", "SELECT 1").describe(b'S', "q").flush_message().flush().await;
    client.expect("1tT").await;
    assert_eq!(client.query_value("SELECT 7").await, "7");
    assert_eq!(client.query_value("SELECT 8").await, "8");
    // Also after one that ran something, in the same write and in another.
    for together in [false, true] {
        client.bind("", "stmt", &[Some("1")]).execute("", 0).flush_message();
        if !together {
            client.flush().await;
        }
        client.query("SELECT 9").await;
        let mut answer = client.read_until_ready().await;
        assert_eq!(told(&answer), "2DCTDCZ");
        answer = client.ask("SELECT 10").await;
        assert_eq!(told(&answer), "TDCZ");
        // An error before it: the Query is skipped, and only a Sync is answered.
        client.bind("", "stmt", &[Some("text")]).execute("", 0).flush_message();
        if !together {
            client.flush().await;
            client.peek().await;
        }
        client.query("SELECT 11").await;
        assert_eq!(client.exchange().await, " 22P02 Z");
        assert_eq!(client.query_value("SELECT 12").await, "12");
    }
}

#[tokio::test]
async fn pipelined_requests_keep_their_replies_apart() {
    let site = Site::start();
    let mut client = site.client().await;
    client.parse("known", "SELECT 'known'");
    assert_eq!(client.exchange().await, "1Z");
    let mut holder = site.client().await;
    for round in 0..4 {
        holder.ask(if round % 2 == 1 { "BEGIN; SELECT 1" } else { "SELECT 1" }).await;
        // In one write: flushed requests, then one whose statement may have to be parsed by us first.
        client.parse("", "SELECT 'first'").bind("", "", &[]).execute("", 0).flush_message();
        client.bind("", "known", &[]).execute("", 0).flush_message();
        client.parse("p", "SELECT 'p'").bind("", "p", &[]).execute("", 0).close(b'S', "p");
        assert_eq!(client.exchange().await, "12DC2DC12DC3Z", "round {round}");
        // An error skips the rest up to its Sync, and no further.
        client.parse("", "SELECT 1/0").bind("", "", &[]).execute("", 0);
        client.bind("", "known", &[]).execute("", 0).sync();
        client.bind("", "known", &[]).execute("", 0).sync().flush().await;
        assert_eq!(told(&client.read_until_ready().await), "1 22012 Z");
        assert_eq!(told(&client.read_until_ready().await), "2DCZ");
        holder.ask("ROLLBACK").await;
    }
}

#[tokio::test]
async fn an_unnamed_statement_too_long_to_be_kept_is_never_mistaken() {
    let site = Site::configured(|config| config.set("limits", "request_buffer", "64KiB"));
    let (mut client, mut holder) = (site.client().await, site.client().await);
    client.parse("", "SELECT 'short'");
    assert_eq!(client.exchange().await, "1Z");
    // Now on the other backend, where the short one never was.
    holder.ask("BEGIN; SELECT 1").await;
    let long = format!("SELECT 'long' /* {} */", "x".repeat(500_000));
    client.parse("", &long);
    assert_eq!(client.exchange().await, "1Z");
    client.bind("", "", &[]).execute("", 0);
    assert_ne!(values(&client.finish().await), ["short"], "another statement was run");
    // In one request it works.
    client.parse("", &long).bind("", "", &[]).execute("", 0);
    assert_eq!(client.exchange().await, "12DCZ");
    client.parse("named", &long);
    assert_eq!(client.exchange().await, " 54000 Z");
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_discard_that_fails_costs_nothing() {
    let site = Site::with_backends(1);
    let mut client = site.client().await;
    client.ask("CREATE TEMP TABLE t (id int)").await;
    client.parse("a", "SELECT 'there'::text");
    assert_eq!(client.exchange().await, "1Z");
    assert_eq!(run(&mut client, "a", &[]).await, "there");
    client.ask("BEGIN").await;
    assert_eq!(told(&client.ask("DISCARD ALL").await), " 25001 Z");
    assert_eq!(told(&client.ask("ROLLBACK").await), "CZ");
    assert_eq!(told(&client.ask("SELECT 1; DISCARD ALL").await), "TDC 25001 Z");
    assert_eq!(run(&mut client, "a", &[]).await, "there");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");
    // It has taken place in spite of the failure behind it, and of the rollback.
    assert_eq!(told(&client.ask("DEALLOCATE ALL; SELECT 1 / 0").await), "C 22012 Z");
    client.bind("", "a", &[]).execute("", 0);
    assert_eq!(client.exchange().await, " 26000 Z");
    client.parse("a", "SELECT 'anew'::text");
    assert_eq!(client.exchange().await, "1Z");
    assert_eq!(run(&mut client, "a", &[]).await, "anew");
}
