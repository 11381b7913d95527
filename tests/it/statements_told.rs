//! What a client was told of a prepared statement binds, on whichever backend it runs, and errors tell drivers what to do.

use crate::support::{RawClient, Site, error_code, error_of, told, values};

/// Somebody who holds the backend that the client has used, so that the client must use another one.
async fn elsewhere(site: &Site, client: &mut RawClient) -> RawClient {
    let pid = client.query_value("SELECT pg_backend_pid()").await;
    let mut holders = [site.client().await, site.client().await];
    let mut pids = Vec::new();
    for holder in &mut holders {
        holder.ask("BEGIN").await;
        pids.push(holder.query_value("SELECT pg_backend_pid()").await);
    }
    let [mut one, mut two] = holders;
    if pids[0] == pid {
        two.ask("ROLLBACK").await;
        return one;
    }
    assert_eq!(pids[1], pid);
    one.ask("ROLLBACK").await;
    two
}

/// How a client learns what it gets.
fn learn(client: &mut RawClient, how: &str, name: &str, sql: &str) {
    match how {
        "statement" => client.parse(name, sql).describe(b'S', name),
        "portal" => client.parse(name, sql).bind("", name, &[]).describe(b'P', "").execute("", 0),
        _ => client.parse(name, sql).sync().bind("", name, &[]).describe(b'P', "").execute("", 0),
    };
}

#[tokio::test]
async fn told_columns_bind_on_every_backend() {
    let site = Site::start();
    for how in ["statement", "portal", "portal later"] {
        for name in ["s", ""] {
            if name.is_empty() && how != "statement" {
                continue;
            }
            site.primary.query("SET ROLE app; DROP TABLE IF EXISTS w; CREATE TABLE w AS SELECT 1 AS a").await;
            let mut client = site.client().await;
            learn(&mut client, how, name, "SELECT a FROM w");
            assert_eq!(error_code(&client.finish().await), None);
            if how == "portal later" {
                assert_eq!(error_code(&client.read_until_ready().await), None);
            }
            // As long as it is the same, another backend is as good.
            if name == "s" {
                let mut holder = elsewhere(&site, &mut client).await;
                client.bind("", name, &[]).execute("", 0);
                assert_eq!(client.exchange().await, "2DCZ", "{how} {name:?}");
                holder.ask("ROLLBACK").await;
            }
            site.primary.query("ALTER TABLE w ALTER a TYPE text USING 'ABCD'").await;
            for round in 0..3 {
                let holder = if name == "s" { Some(elsewhere(&site, &mut client).await) } else { None };
                client.bind("", name, &[]).execute("", 0);
                let answer = client.finish().await;
                assert_eq!(told(&answer), " 0A000 Z", "{how} {name:?} {round}: {answer:?}");
                let error = answer.iter().find(|message| message.tag == b'E').expect("an error");
                assert_eq!(error.field(b'R').as_deref(), Some("RevalidateCachedQuery"), "drivers look at it");
                if let Some(mut holder) = holder {
                    holder.ask("ROLLBACK").await;
                }
            }
            // Nothing of the pipeline was done.
            client.parse("i", "INSERT INTO w VALUES ('mine') RETURNING a").describe(b'S', "i");
            assert_eq!(client.exchange().await, "1tTZ");
            client.bind("", "i", &[]).execute("", 0).bind("", "s", &[]).execute("", 0);
            client.finish().await;
            if name == "s" {
                assert_eq!(site.primary.value("SELECT count(*) FROM w").await, "1", "{how}");
                // Who prepares it anew has it.
                client.close(b'S', name);
            }
            client.parse(name, "SELECT a FROM w").describe(b'S', name).bind("", name, &[]).execute("", 0);
            let answer = client.finish().await;
            assert_eq!(values(&answer)[0], "ABCD", "{answer:?}");
        }
    }
}

/// The unnamed statement is parsed where it is missing: it must be what it was described to be.
#[tokio::test]
async fn an_unnamed_statement_is_what_it_was_described_to_be() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE w AS SELECT 1 AS a").await;
    let mut client = site.client().await;
    let (mut one, mut two) = (site.client().await, site.client().await);
    for (kind, expected) in [("int", "2DCZ"), ("text", " 0A000 Z"), ("text", "2DCZ")] {
        client.parse("", "SELECT a FROM w").describe(b'S', "");
        assert_eq!(client.exchange().await, "1tTZ");
        // Whichever backend it was, another session has used it since.
        for other in [&mut one, &mut two] {
            other.ask("BEGIN").await;
            other.ask("SELECT 1").await;
        }
        for other in [&mut one, &mut two] {
            other.ask("ROLLBACK").await;
        }
        if expected.contains("0A000") {
            site.primary.query(&format!("ALTER TABLE w ALTER a TYPE {kind}")).await;
        }
        client.bind("", "", &[]).execute("", 0);
        assert_eq!(client.exchange().await, expected, "{kind}");
    }
}

/// Parameters are told, too: a value is sent in the form of its type.
#[tokio::test]
async fn told_parameters_bind() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE w (a int)").await;
    let mut client = site.client().await;
    client.parse("s", "INSERT INTO w VALUES ($1)").describe(b'S', "s");
    assert_eq!(client.exchange().await, "1tnZ");
    site.primary.query("ALTER TABLE w ALTER a TYPE text").await;
    let mut holder = elsewhere(&site, &mut client).await;
    client.bind("", "s", &[Some("1")]).execute("", 0);
    assert_eq!(client.exchange().await, " 0A000 Z");
    holder.ask("ROLLBACK").await;
    assert_eq!(site.primary.value("SELECT count(*) FROM w").await, "0");
}

/// Clients that come after a migration parse what others have parsed before it.
#[tokio::test]
async fn new_sessions_never_meet_a_stale_plan() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE w AS SELECT 1 AS c0").await;
    let mut old = Vec::new();
    for _ in 0..2 {
        let mut client = site.client().await;
        client.parse("s", "SELECT * FROM w").describe(b'S', "s").bind("", "s", &[]).execute("", 0);
        assert_eq!(client.exchange().await, "1tT2DCZ");
        old.push(client);
    }
    for round in 1..4 {
        site.primary.query(&format!("ALTER TABLE w ADD c{round} int DEFAULT {round}")).await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(site.client().await);
        }
        // All at once, on both backends, in the ways of drivers.
        for (number, client) in clients.iter_mut().enumerate() {
            client.parse("s", "SELECT * FROM w");
            match number {
                0 => client.describe(b'S', "s").flush_message(),
                1 => client.sync(),
                2 => client.describe(b'S', "s").sync(),
                _ => client.bind("", "s", &[]).describe(b'P', "").execute("", 0).sync(),
            };
            client.flush().await;
        }
        for (number, tags) in ["1tT", "1Z", "1tTZ", "12TDCZ"].iter().enumerate() {
            clients[number].expect(tags).await;
        }
        for client in &mut clients {
            client.bind("", "s", &[]).execute("", 0);
            let answer = client.finish().await;
            assert_eq!(told(&answer), "2DCZ", "{round}: {answer:?}");
            assert_eq!(values(&answer).len(), round + 1);
        }
        for client in &mut old {
            client.bind("", "s", &[]).execute("", 0);
            let [code, message, _] = error_of(&client.finish().await).expect("an error");
            assert_eq!(
                (code.as_str(), message.as_str()),
                ("0A000", "cached plan must not change result type")
            );
        }
    }
}

/// What is parsed in a transaction that has changed what texts mean is nobody else's, also where it was parsed before
/// the change and is only missing on the backend.
#[tokio::test]
async fn what_is_parsed_under_a_local_setting_stays_there() {
    let site = Site::start();
    let sql = "SELECT extract(epoch FROM timestamptz '2024-01-01 00:00')::int::text";
    let mut utc = site.client_with(&[("timezone", "UTC")]).await;
    let mut other = site.client_with(&[("timezone", "UTC")]).await;
    utc.parse("s", sql);
    assert_eq!(utc.exchange().await, "1Z");
    for set in ["SET LOCAL timezone = 'Asia/Tokyo'", "SELECT set_config('timezone', 'Asia/Tokyo', true)"] {
        for used in ["SELECT 1", ""] {
            let mut holder = elsewhere(&site, &mut utc).await;
            utc.ask("BEGIN").await;
            utc.ask(used).await;
            utc.ask(set).await;
            utc.bind("", "s", &[]).execute("", 0);
            assert_eq!(error_code(&utc.finish().await), None);
            utc.parse("t", sql).bind("", "t", &[]).execute("", 0).close(b'S', "t");
            let answer = utc.finish().await;
            assert_eq!(values(&answer), ["1704034800"], "{answer:?}");
            utc.ask("COMMIT").await;
            other.parse("s", sql).bind("", "s", &[]).execute("", 0).close(b'S', "s");
            assert_eq!(values(&other.finish().await), ["1704067200"], "{set} {used:?}");
            holder.ask("ROLLBACK").await;
        }
    }
}

/// A DISCARD ALL or RESET that is not executed does nothing.
#[tokio::test]
async fn what_is_only_parsed_resets_nothing() {
    let site = Site::start();
    let mut client = site.client_with(&[("options", "-c work_mem=5MB")]).await;
    client.ask("SET work_mem = '7MB'").await;
    for sql in ["DISCARD ALL", "RESET work_mem", "RESET ALL", "SET work_mem TO DEFAULT"] {
        client.parse("", sql).describe(b'S', "");
        assert_eq!(client.exchange().await, "1tnZ");
        assert_eq!(client.query_value("SHOW work_mem").await, "7MB", "{sql}");
        client.bind("", "", &[]).execute("", 0);
        client.finish().await;
        client.parse("", sql).bind("", "", &[]).execute("", 0);
        assert_eq!(client.exchange().await, "12CZ");
        assert_eq!(client.query_value("SHOW work_mem").await, "5MB", "{sql}");
        client.ask("SET work_mem = '7MB'").await;
    }
}

/// What a function lets go of is not seen; the server's error tells it, under the client's own name.
#[tokio::test]
async fn what_a_function_lets_go_of_is_found_out() {
    let site = Site::with_backends(1);
    let mut client = site.client().await;
    for _ in 0..2 {
        client.parse("mine", "SELECT 46").bind("", "mine", &[]).execute("", 0);
        assert_eq!(client.exchange().await, "12DCZ");
        client.ask("DO $$ BEGIN DEALLOCATE ALL; END $$").await;
        client.bind("", "mine", &[]).execute("", 0);
        let [code, message, _] = error_of(&client.finish().await).expect("it is gone");
        assert_eq!(
            (code.as_str(), message.as_str()),
            ("26000", "prepared statement \"mine\" does not exist")
        );
    }
}

/// Others go on whatever one of them parses (psycopg prepares what it runs often, also DISCARD ALL).
#[tokio::test]
async fn nobody_elses_statements_are_let_go_of() {
    let site = Site::start();
    let mut others = Vec::new();
    for _ in 0..3 {
        let mut client = site.client().await;
        client.parse("mine", "SELECT 46");
        assert_eq!(client.exchange().await, "1Z");
        others.push(client);
    }
    for kill in ["DISCARD ALL", "DEALLOCATE ALL"] {
        let mut client = site.client().await;
        for round in 0..9 {
            client.parse("mine", "SELECT 46").bind("", "mine", &[]).execute("", 0);
            assert_eq!(client.exchange().await, "12DCZ", "{kill} {round}");
            client.parse("reset", kill).describe(b'S', "reset");
            assert_eq!(client.exchange().await, "1tnZ", "{kill} {round}");
            for other in &mut others {
                other.bind("", "mine", &[]).execute("", 0);
                assert_eq!(other.exchange().await, "2DCZ", "{kill} {round}");
            }
            client.bind("", "reset", &[]).execute("", 0);
            assert_eq!(client.exchange().await, "2CZ", "{kill} {round}");
            for other in &mut others {
                other.parse("new", "SELECT 46").bind("", "new", &[]).execute("", 0).close(b'S', "new");
                assert_eq!(other.exchange().await, "12DC3Z", "{kill} {round}");
            }
        }
    }
}

/// Whoever parses a text anew in the transaction in which it has changed what the text gives, gets that.
#[tokio::test]
async fn a_text_parsed_anew_behind_ones_own_ddl_is_never_stale() {
    for ddl in [
        "ALTER TABLE w ALTER a TYPE text USING 'ABCD'",
        "ALTER TABLE w ADD b int DEFAULT 7",
        "DROP TABLE w; CREATE TABLE w AS SELECT 'ABCD'::text AS a, 1 AS b",
        "DO $$ BEGIN ALTER TABLE w ALTER a TYPE text USING 'ABCD'; END $$",
        "SELECT alters()",
        "CREATE TABLE first.w AS SELECT 'ABCD'::text AS a, 2 AS b",
    ] {
        for (how, name) in [("statement", "s"), ("portal", "s"), ("statement", ""), ("portal", "")] {
            let objects = "SET ROLE app; CREATE SCHEMA first; CREATE TABLE w AS SELECT 1 AS a; \
                 CREATE FUNCTION alters() RETURNS int LANGUAGE plpgsql AS \
                 $$ BEGIN ALTER TABLE w ALTER a TYPE text USING 'ABCD'; RETURN 1; END $$";
            let site = Site::with_objects(objects, 1).await;
            let (mut client, mut other) = (site.client().await, site.client().await);
            let sql = "SELECT * FROM w";
            // The backend has it of both.
            for client in [&mut client, &mut other] {
                client.ask("SET search_path = first, public").await;
                client.parse("known", sql).describe(b'S', "known").bind("", "known", &[]).execute("", 0);
                assert_eq!(client.exchange().await, "1tT2DCZ");
            }
            for end in ["ROLLBACK", "COMMIT"] {
                let case = format!("{ddl}, {how} {name:?}, {end}");
                client.ask("BEGIN").await;
                assert_eq!(error_of(&client.ask(ddl).await), None, "{case}");
                learn(&mut client, how, name, sql);
                if how == "statement" {
                    // As asyncpg does: what it has learned first, then the rows.
                    client.flush_message().bind("", name, &[]).execute("", 0);
                }
                let answer = client.finish().await;
                assert_eq!(error_of(&answer), None, "{case}");
                let row = values(&answer);
                assert!(ddl.contains("ADD b") || format!("{row:?}").contains("ABCD"), "{case}: {row:?}");
                assert_eq!(error_of(&client.ask(end).await), None, "{case}");
                client.close(b'S', name);
                client.finish().await;
                // So it is afterwards, for everybody.
                for client in [&mut client, &mut other] {
                    client.parse("anew", sql).describe(b'S', "anew").bind("", "anew", &[]).execute("", 0);
                    client.close(b'S', "anew");
                    let answer = client.finish().await;
                    assert_eq!(error_of(&answer), None, "{case}");
                    let is_new = format!("{:?}", values(&answer)).contains("ABCD");
                    assert_eq!(is_new, end == "COMMIT" && !ddl.contains("ADD b"), "{case}");
                }
            }
        }
    }
}
