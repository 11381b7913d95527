//! Session state over a few shared backends: carried where it can be, pinned where it cannot, never another's, and gone
//! with its session.

mod pinning;
mod resets;

use std::time::Duration;

use crate::support::{ProxyConfig, RawClient, Site, error_code, eventually, shuffle, told, values};
use pinning::PINNING;

/// Two tables of one name, in two schemas.
const PLACES: &str = "SET ROLE app; CREATE SCHEMA one; CREATE SCHEMA two; \
    CREATE TABLE one.t AS SELECT 'one'::text AS place; CREATE TABLE two.t AS SELECT 'two'::text AS place";

const PID: &str = "SELECT pg_backend_pid()";

async fn show(client: &mut RawClient, name: &str) -> String {
    client.query_value(&format!("SHOW {name}")).await
}

/// What two fresh sessions are answered, on one backend and on another if there is one.
async fn seen_by_others(site: &Site, sql: &str) -> [String; 2] {
    let (mut first, mut second) = (site.client().await, site.client().await);
    let seen = first.query_value(sql).await;
    // While one session holds a backend, the other one gets what else there is.
    first.ask("BEGIN; SELECT 1").await;
    let also_seen = second.query_value(sql).await;
    first.ask("ROLLBACK").await;
    [seen, also_seen]
}

#[tokio::test]
async fn settings_of_eight_sessions_never_mix() {
    let site = Site::with_objects(PLACES, 2).await;
    let mut clients = Vec::new();
    for number in 0..8 {
        let mut client = site.client().await;
        let value = format!("{}kB", 1000 + number);
        match number % 4 {
            0 => client.ask(&format!("SET work_mem = '{value}'")).await,
            1 => client.ask(&format!("SELECT set_config('work_mem', '{value}', false)")).await,
            2 => client.ask(&format!("SET SESSION work_mem TO {}", 1000 + number)).await,
            _ => {
                client.parse("", "SELECT set_config($1, $2, false)");
                client.bind("", "", &[Some("work_mem"), Some(&value)]).execute("", 0).finish().await
            }
        };
        client.parse("", "SELECT set_config($1, $2, false)");
        client.bind("", "", &[Some("app.bound"), Some(&value)]).execute("", 0).finish().await;
        client.ask(&format!("SET app.user_id = 'user {number}'")).await;
        let path = format!("{}, pg_catalog", ["one", "two"][number % 2]);
        client
            .ask(&if number < 4 {
                format!("SET search_path = {path}")
            } else {
                format!("SELECT set_config('search_path', '{path}', false)")
            })
            .await;
        clients.push(client);
    }
    for round in 0..8 {
        // All at once.
        for client in &mut clients {
            client
                .query("SHOW work_mem; SELECT current_setting('app.bound'), current_setting('app.user_id'), place FROM t")
                .await;
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let own = format!("{}kB", 1000 + number);
            let expected = [&own, &own, &format!("user {number}"), ["one", "two"][number % 2]];
            assert_eq!(values(&client.read_until_ready().await), expected, "round {round}");
        }
        let seen = "SELECT concat(current_setting('work_mem'), current_setting('app.user_id', true))";
        assert_eq!(seen_by_others(&site, seen).await, ["4MB", "4MB"], "round {round}");
    }
    let backends = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'
                    AND application_name <> 'bulkhead health check'";
    assert_eq!(site.primary.value(backends).await, "2");
    site.wait_for_pinned("hidden_settings", 0.0).await;
}

#[tokio::test]
async fn a_custom_setting_that_was_reset_is_empty_on_every_backend() {
    let site = Site::start();
    for (number, end) in ["RESET app_0.x", "RESET ALL", "DISCARD ALL", "ROLLBACK"].into_iter().enumerate() {
        let (name, mut client) = (format!("app_{number}.x"), site.client().await);
        if end == "ROLLBACK" {
            client.ask("BEGIN").await;
        }
        client.ask(&format!("SET {name} = 'some'")).await;
        client.ask(end).await;
        let knowing = client.query_value(PID).await;
        // The other backend is the only one that is free.
        let mut holders = [site.client().await, site.client().await];
        let mut held = Vec::new();
        for holder in &mut holders {
            holder.ask("BEGIN").await;
            held.push(holder.query_value(PID).await);
        }
        let free = held.iter().position(|pid| *pid != knowing).expect("two backends");
        assert_eq!(
            error_code(&holders[free].ask(&format!("SHOW {name}")).await).as_deref(),
            Some("42704"),
            "{end}: only the session's backend has heard of it"
        );
        holders[free].ask("ROLLBACK").await;
        assert_eq!(show(&mut client, &name).await, "", "{end}");
        assert_eq!(client.query_value(PID).await, held[free], "{end}");
        client.terminate().await;
        for mut holder in holders {
            holder.terminate().await;
        }
    }
}

#[tokio::test]
async fn settings_follow_transactions() {
    let site = Site::start();
    let mut others = [site.client().await, site.client().await];
    let mut client = site.client().await;
    client.ask("SET work_mem = '1MB'").await;
    let steps: &[(&[&str], &str)] = &[
        (&["BEGIN", "SET work_mem = '2MB'", "ROLLBACK"], "1MB"),
        (&["BEGIN", "SET work_mem = '2MB'", "SELECT 1", "ROLLBACK"], "1MB"),
        (&["BEGIN", "SET LOCAL work_mem = '2MB'", "SELECT 1", "COMMIT"], "1MB"),
        (
            &[
                "BEGIN",
                "SET work_mem = '3MB'",
                "SAVEPOINT s",
                "SET work_mem = '9MB'",
                "ROLLBACK TO s",
                "COMMIT",
            ],
            "3MB",
        ),
        (&["BEGIN", "SET work_mem = '4MB'", "SELECT 1", "COMMIT"], "4MB"),
        (&["BEGIN; SET work_mem = '5MB'; ROLLBACK"], "4MB"),
        (&["SELECT set_config('work_mem', '6MB', true)"], "4MB"),
        (&["SET work_mem = '7MB'; SELECT 1"], "7MB"),
        (&["RESET work_mem"], "4MB"),
    ];
    for (statements, expected) in steps {
        for sql in *statements {
            assert_eq!(error_code(&client.ask(sql).await), None, "{sql}");
        }
        shuffle(&mut others).await;
        for other in &mut others {
            assert_eq!(show(other, "work_mem").await, "4MB", "after {statements:?}");
        }
        assert_eq!(show(&mut client, "work_mem").await, *expected, "after {statements:?}");
    }
    client.ask("BEGIN").await;
    client.ask("SET LOCAL lock_timeout = '7s'").await;
    assert_eq!(show(&mut client, "lock_timeout").await, "7s");
    client.ask("COMMIT").await;
    assert_eq!(show(&mut client, "lock_timeout").await, "0");

    // A failed transaction ends in a rollback, whatever its end is called.
    client.ask("BEGIN").await;
    client.ask("SET work_mem = '8MB'").await;
    assert_eq!(error_code(&client.ask("SELECT 1/0").await).as_deref(), Some("22012"));
    assert_eq!(&client.ask("COMMIT").await[0].body[..], b"ROLLBACK\0");
    assert_eq!(show(&mut client, "work_mem").await, "4MB");

    // With one pool there is nothing to wait for: the error comes where it comes from a server.
    client.ask("BEGIN").await;
    assert_eq!(error_code(&client.ask("SET LOCAL work_mem = 'nonsense'").await).as_deref(), Some("22023"));
    assert_eq!(error_code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"));
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn settings_of_a_transaction_are_not_the_sessions() {
    let site = Site::start();
    let mut others = [site.client().await, site.client().await];
    let mut client = site.client().await;
    for sql in ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "SET TRANSACTION READ ONLY"] {
        client.ask(sql).await;
        // The server is asked what is set, and lists those of the transaction that is over.
        client.ask("RESET ALL").await;
        for other in &mut others {
            other.ask("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE").await;
        }
        for _ in 0..4 {
            assert_eq!(show(&mut client, "transaction_isolation").await, "read committed", "{sql}");
            assert_eq!(show(&mut client, "transaction_read_only").await, "off", "{sql}");
            shuffle(&mut others).await;
        }
    }
}

#[tokio::test]
async fn a_statement_that_may_fail_is_not_kept_back() {
    let two_pools =
        |config: ProxyConfig| config.pool("workers", &["primary"], 2).set("workers", "users", vec!["nobody"]);
    let site = Site::configured(two_pools);
    let mut client = site.client().await;
    client.ask("BEGIN").await;
    // What a server may refuse is asked of one.
    let refused = client.ask("SET LOCAL work_mem = 'nonsense'").await;
    assert_eq!(told(&refused), " 22023 Z", "{refused:?}");
    assert_eq!(told(&client.ask("SELECT 1").await), " 25P02 Z");
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn reset_goes_back_to_what_the_session_started_with() {
    let site = Site::with_objects(PLACES, 2).await;
    let mut client = site
        .client_with(&[
            ("options", "-c work_mem=11MB --search-path=two -c app.tenant=blue"),
            ("TimeZone", "America/New_York"),
            ("application_name", "starter"),
        ])
        .await;
    let mut others = [site.client().await, site.client().await];
    assert_eq!(client.parameter("TimeZone"), Some("America/New_York"));
    assert_eq!(client.parameter("application_name"), Some("starter"));
    for end in ["RESET ALL", "DISCARD ALL"] {
        client.ask("SET work_mem = '1MB'; SET search_path = one; SET TIME ZONE 'Asia/Tokyo'").await;
        assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"));
        client.ask("SET app.tenant = 'red'; SET maintenance_work_mem = '17MB'").await;
        assert_eq!(client.query_value("SELECT place FROM t").await, "one");
        assert_eq!(error_code(&client.ask(end).await), None);
        shuffle(&mut others).await;
        for other in &mut others {
            assert_eq!(
                [
                    show(other, "work_mem").await,
                    show(other, "timezone").await,
                    show(other, "application_name").await
                ],
                ["4MB", "UTC", ""]
            );
        }
        assert_eq!(client.query_value("SHOW work_mem").await, "11MB", "{end}");
        assert_eq!(client.query_value("SELECT place FROM t").await, "two", "{end}");
        assert_eq!(client.query_value("SHOW timezone").await, "America/New_York", "{end}");
        assert_eq!(client.query_value("SHOW app.tenant").await, "blue", "{end}");
        assert_eq!(client.query_value("SHOW application_name").await, "starter", "{end}");
        assert_eq!(client.query_value("SHOW maintenance_work_mem").await, "64MB", "{end}");
        assert_eq!(client.parameter("TimeZone"), Some("America/New_York"), "{end}");
    }

    // What fails resets nothing, and what does not tells of it before the client may go on.
    client.ask("SET application_name = 'other'").await;
    assert_eq!(told(&client.ask("RESET ALL; SELECT 1 / 0").await), "C 22012 Z");
    assert_eq!(told(&client.ask("SELECT 1; DISCARD ALL").await), "TDC 25001 Z");
    assert_eq!(client.parameter("application_name"), Some("other"));
    assert_eq!(show(&mut client, "application_name").await, "other");
    for reset in ["RESET ALL", "DISCARD ALL", "RESET application_name"] {
        client.ask("SET application_name = 'other'").await;
        assert_eq!(client.parameter("application_name"), Some("other"));
        client.ask(reset).await;
        assert_eq!(client.parameter("application_name"), Some("starter"), "{reset}");
        assert_eq!(show(&mut client, "application_name").await, "starter", "{reset}");
    }

    // One setting goes back, the others stay.
    client.ask("SET work_mem = '1MB'; SET search_path = one; SET TIME ZONE 'Asia/Tokyo'").await;
    for reset in ["RESET work_mem", "SET work_mem TO DEFAULT"] {
        client.ask("SET work_mem = '1MB'").await;
        client.ask(reset).await;
        shuffle(&mut others).await;
        assert_eq!(show(&mut client, "work_mem").await, "11MB", "{reset}");
        assert_eq!(client.query_value("SELECT place FROM t").await, "one", "{reset}");
    }
    client.ask("SET TIME ZONE DEFAULT").await;
    assert_eq!(client.query_value("SHOW timezone").await, "America/New_York");
    assert_eq!(client.parameter("TimeZone"), Some("America/New_York"));
    client.ask("SET search_path TO DEFAULT").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");
    client.ask("BEGIN; SET search_path = one; RESET search_path").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");

    // What cannot be set is said at login, as the server says it.
    let refused = site.try_client(&[("work_mem", "nonsense")]).await.err().expect("an error");
    assert_eq!(refused.field(b'C').as_deref(), Some("22023"));
}

#[tokio::test]
async fn a_role_and_a_time_zone_are_the_sessions_own() {
    let site = Site::with_objects(&format!("CREATE ROLE reader; GRANT reader TO app; {PLACES}"), 2).await;
    let mut others = [site.client().await, site.client().await];
    let (mut one, mut two) = (site.client().await, site.client().await);
    one.ask("SET ROLE reader").await;
    one.ask("SET TIME ZONE 'Asia/Tokyo'").await;
    two.ask("SET timezone = 'Europe/Paris'").await;
    for _ in 0..5 {
        shuffle(&mut others).await;
        assert_eq!(one.query_value("SELECT current_user").await, "reader");
        assert_eq!(two.query_value("SELECT current_user").await, "app");
        assert_eq!(error_code(&one.ask("SELECT * FROM one.t").await).as_deref(), Some("42501"));
        assert_eq!(two.query_value("SELECT place FROM one.t").await, "one");
        assert_eq!(one.query_value("SHOW timezone").await, "Asia/Tokyo");
        assert_eq!(two.query_value("SHOW timezone").await, "Europe/Paris");
        assert_eq!(one.parameter("TimeZone"), Some("Asia/Tokyo"));
        assert_eq!(two.parameter("TimeZone"), Some("Europe/Paris"));
    }
    one.ask("RESET ROLE").await;
    assert_eq!(one.query_value("SELECT current_user").await, "app");
    // The server refuses, and nothing has changed.
    assert_eq!(error_code(&one.ask("SET TIME ZONE 'Nowhere'").await).as_deref(), Some("22023"));
    assert_eq!(one.query_value("SHOW timezone").await, "Asia/Tokyo");
    assert_eq!(seen_by_others(&site, "SHOW timezone").await, ["UTC", "UTC"]);
    assert_eq!(seen_by_others(&site, "SELECT current_user").await, ["app", "app"]);

    // A role that is gone: the statement is not run as anybody else.
    one.ask("SET ROLE reader").await;
    site.primary.query("REVOKE reader FROM app").await;
    let mut refused = false;
    for _ in 0..10 {
        let mut held = site.client().await;
        held.ask("BEGIN").await;
        held.ask("SELECT 1 FOR UPDATE").await;
        let answer = one.ask("SELECT current_user").await;
        match values(&answer).as_slice() {
            [user] => assert_eq!(user, "reader"),
            _ => refused = true,
        }
        held.terminate().await;
    }
    assert!(refused, "the role could not be set on every backend");
}

#[tokio::test]
async fn state_that_cannot_be_moved_pins_until_it_is_gone() {
    let site = Site::start();
    let (mut client, mut other) = (site.client().await, site.client().await);
    for (make, reason, look, ends) in PINNING {
        for end in *ends {
            assert_eq!(error_code(&client.ask(make).await), None, "{make}");
            site.wait_for_pinned(reason, 1.0).await;
            // Others use the one backend that is left, and see none of it.
            let mine = client.query_value(PID).await;
            assert_ne!(other.query_value(PID).await, mine, "{make}: it is taken");
            assert_eq!(client.query_value(PID).await, mine, "{make}: it is kept");
            assert_eq!(client.query_value(look).await, "1", "{make}");
            if *look != "SELECT 1" {
                let answer = other.ask(look).await;
                let seen = values(&answer);
                assert!(seen.is_empty() || seen == ["0"], "{look}: {answer:?}");
            }
            assert_eq!(error_code(&client.ask(end).await), None, "{end}");
            site.wait_for_pinned(reason, 0.0).await;
        }
    }
    // Rolled back, it never was.
    client.ask("BEGIN").await;
    client.ask("CREATE TEMP TABLE kept (id int)").await;
    client.ask("LISTEN news").await;
    client.ask("ROLLBACK").await;
    for reason in ["temp_objects", "listen"] {
        site.wait_for_pinned(reason, 0.0).await;
    }
    client.ask("BEGIN; CREATE TEMP TABLE kept (id int) ON COMMIT DROP; COMMIT").await;
    site.wait_for_pinned("temp_objects", 0.0).await;
    eventually("the server holds nothing", Duration::from_secs(5), async || {
        (site.primary.value(LEFT).await == "0").then_some(())
    })
    .await;
}

/// Locks and relations that are left on the server.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
    + (SELECT count(*) FROM pg_class WHERE relpersistence = 't' OR relname = 'kept')";

#[tokio::test]
async fn a_session_that_goes_leaves_nothing_behind() {
    let site = Site::start();
    for polite in [true, false] {
        for (make, reason, ..) in PINNING {
            let mut client = site.client().await;
            assert_eq!(error_code(&client.ask(make).await), None, "{make}");
            client.ask("SET work_mem = '9MB'").await;
            site.wait_for_pinned(reason, 1.0).await;
            if polite {
                client.terminate().await;
            }
            drop(client);
            site.wait_for_pinned(reason, 0.0).await;
            eventually("the server has cleaned up", Duration::from_secs(10), async || {
                (site.primary.value(LEFT).await == "0").then_some(())
            })
            .await;
            let leftovers = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)
                + (SELECT count(*) FROM pg_cursors) + (SELECT count(*) FROM pg_listening_channels())
                || current_setting('work_mem')";
            assert_eq!(seen_by_others(&site, leftovers).await, ["04MB", "04MB"], "{make}");
        }
    }
}

#[tokio::test]
async fn what_opaque_statements_set_stays_with_their_session() {
    // One more: a session that may have settings which the server does not list is pinned for good.
    let site = Site::with_objects(
        "SET ROLE app;
             CREATE FUNCTION sets(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
                 BEGIN PERFORM set_config('work_mem', $1, false); RETURN $1; END $$;
             CREATE FUNCTION hides(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
                 BEGIN PERFORM set_config('app.hid' || 'den', $1, false);
                 PERFORM set_config('work_mem', '24MB', false); RETURN $1; END $$;
             CREATE PROCEDURE locks() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(99); END $$",
        3,
    )
    .await;
    let mut client = site.client().await;
    for (sql, shown) in [
        ("DO $$ BEGIN SET work_mem = '21MB'; END $$", "21MB"),
        ("SELECT sets('22MB')", "22MB"),
        ("DO $$ BEGIN PERFORM set_config('lock_timeout', '14s', false); END $$", "22MB"),
        ("DO $$ BEGIN EXECUTE 'SET ' || 'work_mem = ''23MB'''; END $$", "23MB"),
    ] {
        assert_eq!(error_code(&client.ask(sql).await), None, "{sql}");
        assert_eq!(seen_by_others(&site, "SHOW work_mem").await, ["4MB", "4MB"], "{sql}");
        assert_eq!(client.query_value("SHOW work_mem").await, shown, "{sql}");
    }
    assert_eq!(show(&mut client, "lock_timeout").await, "14s");
    client.ask("SELECT hides('secret')").await;
    let look = "SELECT coalesce(current_setting('app.hidden', true), '')";
    assert_eq!(seen_by_others(&site, look).await, ["", ""]);
    assert_eq!(seen_by_others(&site, "SHOW work_mem").await, ["4MB", "4MB"]);
    assert_eq!(seen_by_others(&site, "SHOW lock_timeout").await, ["0", "0"]);
    assert_eq!(client.query_value(look).await, "secret");
    assert_eq!(
        [show(&mut client, "work_mem").await, show(&mut client, "lock_timeout").await],
        ["24MB", "14s"]
    );

    let mut locker = site.client().await;
    assert_eq!(error_code(&locker.ask("CALL locks()").await), None);
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(site.primary.value(held).await, "1");
    drop(client);
    let mut other = site.client().await;
    assert_eq!(other.query_value("SELECT pg_try_advisory_lock(99)").await, "f");
    locker.ask("SELECT pg_advisory_unlock(99)").await;
    assert_eq!(site.primary.value(held).await, "0");
}

#[tokio::test]
async fn what_cannot_be_read_counts_only_where_it_may_have_run() {
    let site = Site::with_backends(1);
    let mut client = site.client().await;
    // The lock outlives the implicit transaction that the text behind it fails.
    client.parse("", "SELECT pg_advisory_lock(7)").bind("", "", &[]).execute("", 0);
    client.parse("", "SELEKT");
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("42601"));
    site.wait_for_pinned("advisory_locks", 1.0).await;
    client.ask("SELECT pg_advisory_unlock(7)").await;
    site.wait_for_pinned("advisory_locks", 0.0).await;

    // The server does not get a text under a name that is taken.
    client.parse("s", "SELECT 1").finish().await;
    client.parse("s", "SELEKT").bind("", "s", &[]).execute("", 0);
    assert_eq!(error_code(&client.finish().await).as_deref(), Some("42P05"));
    let mut other = site.client().await;
    assert_eq!(other.query_value("SELECT 1").await, "1");
}
