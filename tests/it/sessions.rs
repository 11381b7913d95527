//! Session state over a pool of two backends that many sessions share: it is each session's own, and it is gone with
//! the session.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, connect, eventually};

/// One server, two backends.
struct Site {
    proxy: Proxy,
    primary: Postgres,
}

impl Site {
    async fn start() -> Self {
        Self::with_backends(2).await
    }

    async fn with_backends(count: i64) -> Self {
        let primary = Postgres::start(Role::Primary);
        primary
            .query(
                "CREATE ROLE reader; GRANT reader TO app; SET ROLE app;
                 CREATE SCHEMA one; CREATE SCHEMA two;
                 CREATE TABLE one.t AS SELECT 'one'::text AS place; CREATE TABLE two.t AS SELECT 'two'::text AS place",
            )
            .await;
        let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], count);
        let proxy = Proxy::start(&config.to_toml());
        Self { proxy, primary }
    }

    async fn client(&self) -> Client {
        connect(&self.proxy.url()).await.expect("the proxy accepts connections")
    }

    async fn raw(&self) -> RawClient {
        RawClient::login(self.proxy.port(), Login::App, "app").await
    }

    /// A raw session with startup parameters.
    async fn raw_with(&self, parameters: &[(&str, &str)]) -> RawClient {
        let mut client = RawClient::open(self.proxy.port()).await;
        client.startup(&[&[("user", "app"), ("database", "app")], parameters].concat()).await;
        assert_eq!(client.authenticate("app", "secret").await, None);
        client
    }

    async fn wait_for_pinned(&self, reason: &str, count: f64) {
        self.proxy.wait_for_metric(&format!("bulkhead_sessions_pinned{{reason=\"{reason}\"}}"), count).await;
    }

    /// What each of a few fresh sessions is answered, run so that every backend takes its turn.
    async fn seen_by_others(&self, sql: &str) -> Vec<String> {
        let mut seen = Vec::new();
        let mut first = self.raw().await;
        let mut second = self.raw().await;
        seen.push(first.query_value(sql).await);
        // While one session holds a backend, the other one gets what else there is.
        first.ask("BEGIN; SELECT 1").await;
        seen.push(second.query_value(sql).await);
        first.ask("ROLLBACK").await;
        seen
    }
}

/// The first column of the only row.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        })
        .collect();
    rows.into_iter().next().unwrap_or_default()
}

fn code_of(answer: &[Message]) -> String {
    let error = answer.iter().find(|message| message.tag == b'E');
    error.and_then(|error| error.field(b'C')).unwrap_or_default()
}

#[tokio::test]
async fn settings_of_eight_sessions_never_mix() {
    let site = Site::start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(site.client().await);
    }
    for (number, client) in clients.iter().enumerate() {
        let sql = match number % 4 {
            0 => format!("SET work_mem = '{}kB'", 1000 + number),
            1 => format!("SELECT set_config('work_mem', '{}kB', false)", 1000 + number),
            2 => format!("SET SESSION work_mem TO {}", 1000 + number),
            _ => String::new(),
        };
        if sql.is_empty() {
            let (name, wanted) = ("work_mem", format!("{}kB", 1000 + number));
            client.query("SELECT set_config($1, $2, false)", &[&name, &wanted]).await.expect("valid");
        } else {
            client.batch_execute(&sql).await.expect("valid");
        }
        client.batch_execute(&format!("SET app.user_id = 'user {number}'")).await.expect("valid");
        let schema = if number % 2 == 0 { "one" } else { "two" };
        client.batch_execute(&format!("SET search_path = {schema}, pg_catalog")).await.expect("valid");
    }
    for round in 0..5 {
        let asked = clients.iter().enumerate().map(|(number, client)| async move {
            for _ in 0..3 {
                assert_eq!(
                    value(client, "SHOW work_mem").await,
                    format!("{}kB", 1000 + number),
                    "round {round}"
                );
                let user = value(client, "SELECT current_setting('app.user_id')").await;
                assert_eq!(user, format!("user {number}"), "round {round}");
                let place = value(client, "SELECT place FROM t").await;
                assert_eq!(place, if number % 2 == 0 { "one" } else { "two" }, "round {round}");
            }
        });
        futures_join(asked).await;
    }
    assert_eq!(site.primary.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await, "2");
    assert_eq!(site.seen_by_others("SHOW work_mem").await, ["4MB", "4MB"]);
    assert_eq!(
        site.seen_by_others("SELECT coalesce(current_setting('app.user_id', true), '')").await,
        ["", ""]
    );
}

/// Runs all at once on this task.
async fn futures_join(futures: impl IntoIterator<Item = impl Future<Output = ()>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn rollback_undoes_settings() {
    let site = Site::start().await;
    let client = site.client().await;
    let others = [site.client().await, site.client().await];
    client.batch_execute("SET work_mem = '1MB'").await.expect("valid");
    let steps: &[(&[&str], &str)] = &[
        (&["BEGIN", "SET work_mem = '2MB'", "ROLLBACK"], "1MB"),
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
            client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
        for other in &others {
            assert_eq!(value(other, "SHOW work_mem").await, "4MB", "after {statements:?}");
        }
        assert_eq!(value(&client, "SHOW work_mem").await, *expected, "after {statements:?}");
    }
    // A failed transaction ends in a rollback, whatever its end is called.
    for sql in ["BEGIN", "SET work_mem = '8MB'"] {
        client.simple_query(sql).await.expect("valid");
    }
    client.simple_query("SELECT 1/0").await.expect_err("division by zero");
    client.simple_query("COMMIT").await.expect("it answers ROLLBACK");
    assert_eq!(value(&client, "SHOW work_mem").await, "4MB");
}

#[tokio::test]
async fn reset_goes_back_to_what_the_session_started_with() {
    let site = Site::start().await;
    let mut client = site
        .raw_with(&[
            ("options", "-c work_mem=11MB --search-path=two -c app.tenant=blue"),
            ("TimeZone", "America/New_York"),
            ("application_name", "starter"),
        ])
        .await;
    let mut other = site.raw().await;
    assert_eq!(client.parameter("TimeZone"), Some("America/New_York"));
    assert_eq!(client.parameter("application_name"), Some("starter"));
    for end in ["RESET ALL", "DISCARD ALL"] {
        client.ask("SET work_mem = '1MB'; SET search_path = one; SET TIME ZONE 'Asia/Tokyo'").await;
        assert_eq!(client.parameter("TimeZone"), Some("Asia/Tokyo"));
        client.ask("SET app.tenant = 'red'; SET maintenance_work_mem = '17MB'").await;
        assert_eq!(client.query_value("SELECT place FROM t").await, "one");
        assert_eq!(code_of(&client.ask(end).await), "");
        assert_eq!(other.query_value("SHOW work_mem").await, "4MB");
        assert_eq!(client.query_value("SHOW work_mem").await, "11MB", "{end}");
        assert_eq!(client.query_value("SELECT place FROM t").await, "two", "{end}");
        assert_eq!(client.query_value("SHOW timezone").await, "America/New_York", "{end}");
        assert_eq!(client.query_value("SHOW app.tenant").await, "blue", "{end}");
        assert_eq!(client.query_value("SHOW application_name").await, "starter", "{end}");
        assert_eq!(client.query_value("SHOW maintenance_work_mem").await, "64MB", "{end}");
        assert_eq!(client.parameter("TimeZone"), Some("America/New_York"), "{end}");
    }

    // One setting goes back, the others stay.
    client.ask("SET work_mem = '1MB'; SET search_path = one; SET TIME ZONE 'Asia/Tokyo'").await;
    client.ask("RESET work_mem").await;
    assert_eq!(client.query_value("SHOW work_mem").await, "11MB");
    assert_eq!(client.query_value("SELECT place FROM t").await, "one");
    client.ask("SET TIME ZONE DEFAULT").await;
    assert_eq!(client.query_value("SHOW timezone").await, "America/New_York");
    assert_eq!(client.parameter("TimeZone"), Some("America/New_York"));
    client.ask("SET search_path TO DEFAULT").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");
    client.ask("BEGIN; SET search_path = one; RESET search_path").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SELECT place FROM t").await, "two");
}

#[tokio::test]
async fn a_role_and_a_time_zone_are_the_sessions_own() {
    let site = Site::start().await;
    let (mut one, mut two) = (site.raw().await, site.raw().await);
    one.ask("SET ROLE reader").await;
    one.ask("SET TIME ZONE 'Asia/Tokyo'").await;
    two.ask("SET timezone = 'Europe/Paris'").await;
    for _ in 0..4 {
        assert_eq!(one.query_value("SELECT current_user").await, "reader");
        assert_eq!(two.query_value("SELECT current_user").await, "app");
        assert_eq!(code_of(&one.ask("SELECT * FROM one.t").await), "42501");
        assert_eq!(two.query_value("SELECT place FROM one.t").await, "one");
        assert_eq!(one.query_value("SHOW timezone").await, "Asia/Tokyo");
        assert_eq!(two.query_value("SHOW timezone").await, "Europe/Paris");
        assert_eq!(one.parameter("TimeZone"), Some("Asia/Tokyo"));
        assert_eq!(two.parameter("TimeZone"), Some("Europe/Paris"));
    }
    one.ask("RESET ROLE").await;
    assert_eq!(one.query_value("SELECT current_user").await, "app");
    // The server refuses, and nothing has changed.
    assert_eq!(code_of(&one.ask("SET TIME ZONE 'Nowhere'").await), "22023");
    assert_eq!(one.query_value("SHOW timezone").await, "Asia/Tokyo");
    assert_eq!(site.seen_by_others("SHOW timezone").await, ["UTC", "UTC"]);
    assert_eq!(site.seen_by_others("SELECT current_user").await, ["app", "app"]);
}

/// State that pins: how it is made, why it pins, how it is looked at, and the ways it ends.
const PINNING: &[(&str, &str, &str, &[&str])] = &[
    (
        "CREATE TEMP TABLE kept AS SELECT 1 AS id",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP TABLE kept", "DISCARD TEMP", "DISCARD ALL"],
    ),
    ("SELECT 1 AS id INTO TEMP kept", "temp_objects", "SELECT count(*) FROM kept", &["DROP TABLE kept"]),
    (
        "CREATE TEMP VIEW kept AS SELECT 1 AS id",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP VIEW kept"],
    ),
    (
        "CREATE FUNCTION pg_temp.kept() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "temp_objects",
        "SELECT pg_temp.kept()",
        &["DROP FUNCTION pg_temp.kept()"],
    ),
    (
        "SELECT pg_advisory_lock(7)",
        "advisory_locks",
        "SELECT 1",
        &["SELECT pg_advisory_unlock(7)", "SELECT pg_advisory_unlock_all()", "DISCARD ALL"],
    ),
    (
        "SELECT pg_try_advisory_lock(hashtext('a' || 'b'))",
        "advisory_locks",
        "SELECT 1",
        &["SELECT pg_advisory_unlock(hashtext('ab'))"],
    ),
    (
        "DO 'BEGIN EXECUTE ''LISTEN news''; END'",
        "listen",
        "SELECT count(*) FROM pg_listening_channels()",
        &["UNLISTEN news", "UNLISTEN *", "DISCARD ALL"],
    ),
    (
        "PREPARE kept AS SELECT 1",
        "prepared_statements",
        "EXECUTE kept",
        &["DEALLOCATE kept", "DEALLOCATE ALL", "DISCARD ALL"],
    ),
    (
        "DECLARE kept CURSOR WITH HOLD FOR SELECT 1 FROM generate_series(1, 9)",
        "held_cursors",
        "FETCH 1 FROM kept",
        &["CLOSE kept", "CLOSE ALL", "DISCARD ALL"],
    ),
    (
        "DO 'BEGIN CREATE TEMP TABLE kept AS SELECT 1; END'",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP TABLE kept"],
    ),
];

#[tokio::test]
async fn state_that_cannot_be_moved_pins_until_it_is_gone() {
    let site = Site::start().await;
    let mut client = site.raw().await;
    for (make, reason, look, ends) in PINNING {
        for end in *ends {
            assert_eq!(code_of(&client.ask(make).await), "", "{make}");
            site.wait_for_pinned(reason, 1.0).await;
            // Others use the one backend that is left, and see none of it.
            let mut other = site.raw().await;
            for _ in 0..2 {
                assert_eq!(client.query_value(look).await, "1", "{make}");
                if *look != "SELECT 1" {
                    let seen = other.ask(look).await;
                    let value = seen.iter().find(|message| message.tag == b'D').map(Message::columns);
                    assert!(
                        matches!(&value, None | Some(_) if value.as_ref().is_none_or(|row| row[0].as_deref() == Some("0"))),
                        "{look}: {seen:?}"
                    );
                }
            }
            assert_eq!(code_of(&client.ask(end).await), "", "{end}");
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
}

#[tokio::test]
async fn a_session_that_goes_leaves_nothing_behind() {
    let site = Site::start().await;
    for polite in [true, false] {
        for (make, reason, _, _) in PINNING {
            let mut client = site.raw().await;
            assert_eq!(code_of(&client.ask(make).await), "", "{make}");
            site.wait_for_pinned(reason, 1.0).await;
            if polite {
                client.terminate().await;
            }
            drop(client);
            site.wait_for_pinned(reason, 0.0).await;
            let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
                + (SELECT count(*) FROM pg_class WHERE relname = 'kept')";
            eventually("the server has cleaned up", Duration::from_secs(10), async || {
                (site.primary.value(left).await == "0").then_some(())
            })
            .await;
            let leftovers = "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)
                + (SELECT count(*) FROM pg_cursors) + (SELECT count(*) FROM pg_listening_channels())";
            assert_eq!(site.seen_by_others(leftovers).await, ["0", "0"], "{make}");
        }
    }
}

#[tokio::test]
async fn notifications_reach_those_who_listen() {
    let site = Site::start().await;
    let (mut listener, mut sender) = (site.raw().await, site.raw().await);
    listener.ask("LISTEN news").await;
    sender.ask("NOTIFY news, 'first'").await;
    let message = listener.read_message().await;
    assert_eq!((message.tag, &message.body[4..]), (b'A', &b"news\0first\0"[..]));
    sender.ask("SELECT pg_notify('news', 'second')").await;
    assert_eq!(listener.read_message().await.tag, b'A');
    let tags = RawClient::tags(&sender.ask("SELECT 1").await);
    assert_eq!(tags, "TDCZ", "the sender does not listen");
    listener.ask("UNLISTEN news").await;
    site.wait_for_pinned("listen", 0.0).await;
    sender.ask("NOTIFY news, 'third'").await;
    assert_eq!(RawClient::tags(&listener.ask("SELECT 1").await), "TDCZ");
}

#[tokio::test]
async fn what_opaque_statements_set_stays_with_their_session() {
    // One more: a session that may have settings which the server does not list is pinned for good.
    let site = Site::with_backends(3).await;
    site.primary
        .query(
            "SET ROLE app;
             CREATE FUNCTION sets(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
                 BEGIN PERFORM set_config('work_mem', $1, false); RETURN $1; END $$;
             CREATE FUNCTION hides(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$
                 BEGIN PERFORM set_config('app.hid' || 'den', $1, false); RETURN $1; END $$;
             CREATE PROCEDURE locks() LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(99); END $$",
        )
        .await;
    let mut client = site.raw().await;
    for (sql, shown) in [
        ("DO $$ BEGIN SET work_mem = '21MB'; END $$", "21MB"),
        ("SELECT sets('22MB')", "22MB"),
        ("DO $$ BEGIN EXECUTE 'SET ' || 'work_mem = ''23MB'''; END $$", "23MB"),
    ] {
        assert_eq!(code_of(&client.ask(sql).await), "", "{sql}");
        assert_eq!(site.seen_by_others("SHOW work_mem").await, ["4MB", "4MB"], "{sql}");
        assert_eq!(client.query_value("SHOW work_mem").await, shown, "{sql}");
    }
    client.ask("SELECT hides('secret')").await;
    let look = "SELECT coalesce(current_setting('app.hidden', true), '')";
    assert_eq!(site.seen_by_others(look).await, ["", ""]);
    assert_eq!(client.query_value(look).await, "secret");

    let mut locker = site.raw().await;
    assert_eq!(code_of(&locker.ask("CALL locks()").await), "");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(site.primary.value(held).await, "1");
    drop(client);
    let mut other = site.raw().await;
    assert_eq!(other.query_value("SELECT pg_try_advisory_lock(99)").await, "f");
    locker.ask("SELECT pg_advisory_unlock(99)").await;
    assert_eq!(site.primary.value(held).await, "0");
}

#[tokio::test]
async fn what_cannot_be_read_counts_only_where_it_may_have_run() {
    let site = Site::with_backends(1).await;
    let mut client = site.raw().await;
    // The lock outlives the implicit transaction that the text behind it fails.
    client.parse("", "SELECT pg_advisory_lock(7)").bind("", "", &[]).execute("", 0);
    client.parse("", "SELEKT").sync().flush().await;
    assert_eq!(code_of(&client.read_until_ready().await), "42601");
    site.wait_for_pinned("advisory_locks", 1.0).await;
    client.ask("SELECT pg_advisory_unlock(7)").await;
    site.wait_for_pinned("advisory_locks", 0.0).await;

    // The server does not get a text under a name that is taken.
    client.parse("s", "SELECT 1").sync().flush().await;
    client.read_until_ready().await;
    client.parse("s", "SELEKT").bind("", "s", &[]).execute("", 0).sync().flush().await;
    assert_eq!(code_of(&client.read_until_ready().await), "42P05");
    let mut other = site.raw().await;
    assert_eq!(other.query_value("SELECT 1").await, "1");
}
