//! Around a refusal: what was said with it, what it has undone, and how a transaction may begin so that there is none.

use super::{Both, COUNT, ITEM, JOB};
use crate::support::{RawClient, short, told};

/// Says statements in one pipeline; tags of the answer up to its ReadyForQuery, and the status there.
async fn pipeline(client: &mut RawClient, statements: &[&str]) -> String {
    for sql in statements {
        client.parse("", sql).bind("", "", &[]).execute("", 0);
    }
    client.sync().flush().await;
    let answer = client.read_until_ready().await;
    format!("{}{}", told(&answer), char::from(answer.last().expect("an answer").body[0]))
}

/// The server where a transaction has failed runs its end, and nothing behind that which belongs to the other one.
#[tokio::test]
async fn what_stands_behind_the_end_of_a_failed_transaction_runs_where_it_belongs() {
    let site = Both::start().await;
    site.jobs.query("SET ROLE app; CREATE TABLE items (name text PRIMARY KEY)").await;
    let (jobs_fail, items_fail) =
        ("SELECT 1 / 0 FROM oban_jobs GROUP BY ()", "SELECT 1 / 0 FROM items GROUP BY ()");
    let mut client = site.client().await;
    for (fails, end, behind) in [
        (jobs_fail, "ROLLBACK", ITEM),
        (jobs_fail, "COMMIT", "SELECT count(*) FROM items"),
        (jobs_fail, "ROLLBACK TO s", ITEM),
        (items_fail, "ROLLBACK", JOB),
        (items_fail, "ROLLBACK TO s", COUNT),
    ] {
        for is_simple in [true, false] {
            for (sql, expected) in [("BEGIN", "BEGIN T"), ("SAVEPOINT s", "SAVEPOINT T"), (fails, "22012 E")]
            {
                assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
            }
            if is_simple {
                let both = format!("{end}; {behind}");
                assert_eq!(short(&client.ask(&both).await), "0A000 E", "{both}");
            } else {
                assert_eq!(pipeline(&mut client, &[end, behind]).await, " 0A000 ZE", "{end}, {behind}");
            }
            assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
            assert_eq!(site.rows().await, (String::new(), String::new()), "{end}, {behind}");
            assert_eq!(site.jobs.value("SELECT count(*) FROM items").await, "0", "{end}, {behind}");
        }
    }
}

/// A refusal undoes what its transaction has set, and the client is told so.
#[tokio::test]
async fn settings_of_a_refused_transaction_are_told_to_be_undone() {
    let site = Both::start().await;
    let mut client = site.client().await;
    let before = client.parameters().clone();
    for (sql, expected) in [
        ("BEGIN", "BEGIN T"),
        (ITEM, "INSERT 0 1 T"),
        ("SET application_name = 'mine'", "SET T"),
        ("SET client_encoding = 'LATIN1'", "SET T"),
    ] {
        assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
    }
    assert_ne!(client.parameters(), &before);
    assert_eq!(short(&client.ask("DELETE FROM oban_jobs").await), "0A000 E");
    assert_eq!(client.parameters(), &before);
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
    assert_eq!(short(&client.ask("SHOW client_encoding").await), "UTF8 I");
}

/// A statement that a refused request closes first is closed: what was sent behind it does not run the old one.
#[tokio::test]
async fn a_refused_request_has_closed_what_it_closes_first() {
    let site = Both::start().await;
    let mut client = site.client().await;
    client.ask(ITEM).await;
    client.parse("named", "DELETE FROM items").sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "1Z");
    client.close(b'S', "named").parse("named", "SELECT count(*) FROM items, oban_jobs").sync();
    client.bind("", "named", &[]).execute("", 0).sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), "3 0A000 Z");
    assert_eq!(told(&client.read_until_ready().await), " 26000 Z");
    assert_eq!(site.rows().await, ("a".to_owned(), String::new()));
}

/// JDBC's driver sends BEGIN together with the first statement.
#[tokio::test]
async fn a_transaction_that_begins_with_its_first_statement_uses_both_servers() {
    let site = Both::start().await;
    let mut client = site.client().await;
    assert_eq!(pipeline(&mut client, &["BEGIN ISOLATION LEVEL REPEATABLE READ", ITEM]).await, "12C12CZT");
    assert_eq!(short(&client.ask(COUNT).await), "0 T");
    // As it was begun, there as well: it sees what was there at first.
    site.jobs.query("INSERT INTO oban_jobs (worker) VALUES ('J')").await;
    assert_eq!(short(&client.ask(COUNT).await), "0 T");
    assert_eq!(short(&client.ask("SHOW transaction_isolation").await), "repeatable read T");
    assert_eq!(short(&client.ask("COMMIT").await), "COMMIT I");
    assert_eq!(site.rows().await, ("a".to_owned(), "J".to_owned()));
    // What is set for its rest would not hold on the other one.
    assert_eq!(
        pipeline(&mut client, &["BEGIN", "SET LOCAL work_mem = '9MB'", "SELECT count(*) FROM items"]).await,
        "12C12C12DCZT"
    );
    assert_eq!(short(&client.ask(COUNT).await), "0A000 E");
    assert_eq!(short(&client.ask("ROLLBACK").await), "ROLLBACK I");
}

/// A COMMIT that comes together with something of the other server commits what was done on the first one, or is refused.
#[tokio::test]
async fn a_commit_beside_something_else_commits_what_it_says() {
    let site = Both::start().await;
    let items = "SELECT count(*) FROM items";
    let mut client = site.client().await;
    for (work, other) in [(JOB, items), (ITEM, COUNT), (JOB, ITEM), (ITEM, JOB)] {
        for request in [["COMMIT", other], [other, "COMMIT"]] {
            for reads_both in [true, false] {
                for is_simple in [true, false] {
                    site.primary.query("TRUNCATE items").await;
                    site.jobs.query("TRUNCATE oban_jobs").await;
                    client.ask("BEGIN").await;
                    client.ask(if (work == JOB) == reads_both { items } else { COUNT }).await;
                    client.ask(if work == JOB { COUNT } else { items }).await;
                    assert_eq!(short(&client.ask(work).await), "INSERT 0 1 T");
                    let told = if is_simple {
                        short(&client.ask(&request.join("; ")).await)
                    } else {
                        pipeline(&mut client, &request).await
                    };
                    let (items, jobs) = site.rows().await;
                    let is_there = if work == JOB { !jobs.is_empty() } else { !items.is_empty() };
                    assert_eq!(is_there, !told.contains("0A000"), "{work}; {request:?} {reads_both}: {told}");
                    client.ask("ROLLBACK").await;
                }
            }
        }
    }
}

/// A COMMIT is one on both servers, whatever a hint asks for: if one of them does not commit, it is an error.
#[tokio::test]
async fn a_commit_with_a_hint_is_none_if_the_other_server_refuses_it() {
    let site = Both::start().await;
    let late = "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'late'; END $$; \
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON oban_jobs DEFERRABLE INITIALLY DEFERRED \
        FOR EACH ROW EXECUTE FUNCTION late()";
    site.jobs.query(late).await;
    let mut client = site.client().await;
    for sql in ["BEGIN", JOB, "SELECT count(*) FROM items"] {
        assert!(short(&client.ask(sql).await).ends_with(" T"), "{sql}");
    }
    assert_eq!(short(&client.ask("/* bulkhead: route=primary */ COMMIT").await), "P0001 I");
    assert_eq!(site.rows().await, (String::new(), String::new()));
}

/// Errors behind the end of a transaction that has failed before it was opened tell where they are in the client's text.
#[tokio::test]
async fn errors_behind_the_end_of_a_refused_transaction_are_where_they_are() {
    let site = Both::start().await;
    let mut client = site.client().await;
    for (text, position) in [("COMMIT; SELECT none", "16"), ("  COMMIT WORK; SELECT none", "23")] {
        for (sql, expected) in [("BEGIN", "BEGIN T"), ("SELECT count(*) FROM items, oban_jobs", "0A000 E")] {
            assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
        }
        let answer = client.ask(text).await;
        let error = answer.iter().find(|message| message.tag == b'E').expect("an error");
        assert_eq!(error.field(b'P').as_deref(), Some(position), "{text}: {answer:?}");
    }
}

/// A portal of COMMIT, executed by a request that says nothing of it, would end the transaction on one of its two servers.
#[tokio::test]
async fn a_portal_of_commit_is_not_kept_for_later() {
    let site = Both::start().await;
    let mut client = site.client().await;
    for (sql, expected) in [("BEGIN", "BEGIN T"), (ITEM, "INSERT 0 1 T"), (COUNT, "0 T")] {
        assert_eq!(short(&client.ask(sql).await), expected, "{sql}");
    }
    client.parse("", "COMMIT").bind("p", "", &[]).sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), " 0A000 Z");
    client.execute("p", 0).sync().flush().await;
    assert!(!told(&client.read_until_ready().await).contains("COMMIT"));
    assert_eq!(short(&client.ask("COMMIT").await), "ROLLBACK I");
    assert_eq!(site.rows().await, (String::new(), String::new()));
}
