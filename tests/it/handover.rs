//! A backend on its way from one session to the next: what another has set or left is gone, and the session's own settings
//! are confirmed, before anything of its request runs. Whatever a client does to the first part, by values that cannot
//! be converted, sizes, timeouts or cancels, the second part does not run.

use std::time::Duration;

use crate::support::{
    Cluster, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, Site, error_code, error_of, shuffle,
    told, values,
};

/// Secrets of tenants, each for those who say that they are this tenant.
const TENANTS: &str = "CREATE TABLE secrets (tenant text, secret text);\
    ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;\
    CREATE POLICY own ON secrets USING (tenant = current_setting('app.tenant', true));\
    GRANT SELECT ON secrets TO app;";

async fn tenants(names: impl Iterator<Item = String>, backends: i64) -> Site {
    let rows: Vec<String> = names.map(|name| format!("('{name}', 'of {name}')")).collect();
    Site::with_objects(&format!("{TENANTS} INSERT INTO secrets VALUES {}", rows.join(",")), backends).await
}

/// A Query of bytes that need not be UTF-8.
async fn ask_bytes(client: &mut RawClient, sql: &[u8]) -> Vec<Message> {
    client.message(b'Q', &[sql, b"\0"].concat()).flush().await;
    client.read_until_ready().await
}

/// The bytes of the first column of each row.
fn first_columns(answer: &[Message]) -> Vec<Vec<u8>> {
    let rows = answer.iter().filter(|message| message.tag == b'D');
    rows.map(|row| row.body[6..6 + usize::from(row.body[5])].to_vec()).collect()
}

#[tokio::test]
async fn tenants_whose_names_are_not_utf_8_read_their_own_rows() {
    let letters: Vec<char> = ('\u{e0}'..'\u{e8}').collect();
    let site = tenants(letters.iter().map(|letter| format!("caf{letter}")), 2).await;
    let mut clients = Vec::new();
    for letter in &letters {
        let mut client = site.client_with(&[("client_encoding", "LATIN1")]).await;
        let name = [b"caf".as_slice(), &[*letter as u8]].concat();
        // One half by SET, one by a bound value.
        if clients.len() % 2 == 0 {
            ask_bytes(&mut client, &[b"SET app.tenant = '", name.as_slice(), b"'"].concat()).await;
        } else {
            client.parse("", "SELECT set_config('app.tenant', $1, false)");
            let value = [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 4], name.as_slice(), &[0, 0]].concat();
            client.message(b'B', &value).execute("", 0).finish().await;
        }
        clients.push((name, client));
    }
    for _ in 0..5 {
        for (_, client) in &mut clients {
            client.query("SELECT tenant, pg_sleep(0.001) FROM secrets").await;
        }
        for (name, client) in &mut clients {
            let answer = client.read_until_ready().await;
            assert_eq!(first_columns(&answer), std::slice::from_ref(name), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_value_is_the_same_on_connections_of_other_encodings() {
    let site = Site::start();
    let mut others = [site.client_with(&[("client_encoding", "LATIN1")]).await, site.client().await];
    let mut client = site.client().await;
    client.ask("SET app.name = 'zo\u{eb} \u{20ac}'").await;
    client.ask("SET client_encoding = 'UTF8'").await;
    for _ in 0..8 {
        shuffle(&mut others).await;
        assert_eq!(client.query_value("SHOW app.name").await, "zo\u{eb} \u{20ac}");
        others[0].ask("SET client_encoding = 'WIN1252'").await;
        assert_eq!(error_code(&others[0].ask("SHOW app.name").await).as_deref().unwrap_or("42704"), "42704");
    }
}

#[tokio::test]
async fn a_database_without_an_encoding_carries_any_bytes() {
    let primary = Postgres::start(Role::Primary);
    primary.query("CREATE DATABASE plain ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0 OWNER app").await;
    let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
    let proxy = Proxy::start(&config.set("auth", "method", "trust").to_toml());
    let mut clients = Vec::new();
    for byte in 0xf0..0xf8_u8 {
        let mut client = RawClient::open(proxy.port()).await;
        client.startup(&[("user", "app"), ("database", "plain")]).await;
        assert!(client.authenticate("app", "secret").await.is_none());
        let name = [b'x', byte];
        ask_bytes(&mut client, &[b"SET app.tenant = '", name.as_slice(), b"'"].concat()).await;
        clients.push((name, client));
    }
    for _ in 0..4 {
        for (_, client) in &mut clients {
            client.query("SELECT current_setting('app.tenant'), pg_sleep(0.001)").await;
        }
        for (name, client) in &mut clients {
            assert_eq!(first_columns(&client.read_until_ready().await), [name.to_vec()]);
        }
    }
}

#[tokio::test]
async fn a_value_that_ends_in_a_backslash_in_another_encoding_is_carried() {
    let site = tenants((1..=4).map(|number| format!("t{number}")), 2).await;
    let gbk = [("client_encoding", "GBK")];
    let mut victims = Vec::new();
    for number in 1..=3 {
        let mut victim = site.client_with(&gbk).await;
        victim.ask(&format!("SET app.tenant = 't{number}'")).await;
        victims.push(victim);
    }
    let mut client = site.client_with(&gbk).await;
    client.ask("SET app.tenant = 't4'").await;
    client.parse("", "SELECT set_config('app.user_name', $1, false)");
    // A character whose second byte is a backslash, and one that is a quote's neighbour.
    let name = b"\x81\x5c\xd6\xd0\\";
    let value = [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 5], name.as_slice(), &[0, 0]].concat();
    assert_eq!(told(&client.message(b'B', &value).execute("", 0).finish().await), "12DCZ");
    for _ in 0..10 {
        shuffle(&mut victims).await;
        let answer = client.ask("SELECT tenant FROM secrets").await;
        assert_eq!(values(&answer), ["t4"]);
        assert_eq!(first_columns(&client.ask("SHOW app.user_name").await), [name.to_vec()]);
    }
}

#[tokio::test]
async fn a_timeout_that_another_has_left_does_not_let_a_statement_run() {
    let site = tenants((1..=4).map(|number| format!("t{number}")), 2).await;
    let mut victims = Vec::new();
    for number in 1..=3 {
        let mut victim = site.client().await;
        victim.ask(&format!("SET app.tenant = 't{number}'; SET statement_timeout = '5ms'")).await;
        victims.push(victim);
    }
    let mut client = site.client().await;
    client.ask("SET app.tenant = 't4'").await;
    // Just below what is carried.
    client.parse("", "SELECT set_config('app.blob', $1, false)");
    client.bind("", "", &[Some(&"x".repeat(60_000))]).execute("", 0).finish().await;
    for _ in 0..20 {
        for victim in &mut victims {
            victim.ask("SELECT 1").await;
        }
        assert_eq!(values(&client.ask("SELECT tenant FROM secrets").await), ["t4"]);
    }
}

#[tokio::test]
async fn who_sets_more_than_is_carried_keeps_its_connection() {
    let site = Site::with_backends(3);
    let mut client = site.client().await;
    for round in 0..2 {
        client.parse("", "SELECT length(set_config('app.blob', $1, false))");
        client.bind("", "", &[Some(&"x".repeat(1_000_000))]).execute("", 0);
        assert_eq!(values(&client.finish().await), ["1000000"]);
        site.wait_for_pinned("large_settings", 1.0).await;
        let own = client.query_value("SELECT pg_backend_pid()").await;
        let mut others = [site.client().await, site.client().await, site.client().await];
        shuffle(&mut others).await;
        assert_eq!(client.query_value("SELECT pg_backend_pid()").await, own, "round {round}");
        assert_eq!(client.query_value("SELECT length(current_setting('app.blob'))").await, "1000000");
        client.ask("RESET app.blob").await;
        site.wait_for_pinned("large_settings", 0.0).await;
        for other in &mut others {
            assert_eq!(other.query_value("SELECT coalesce(current_setting('app.blob', true), '')").await, "");
        }
    }
}

/// Only the replica's pool serves these sessions, and it has no serializable transactions: BEGIN succeeds here and fails
/// there.
#[tokio::test]
async fn nothing_runs_behind_a_begin_that_fails() {
    let cluster = Cluster::start();
    let config = ProxyConfig::of(&cluster).set("auth", "method", "trust");
    let proxy = Proxy::start(&config.to_toml());
    let mut client = RawClient::open(proxy.port()).await;
    client.startup(&[("user", "app"), ("database", "app@replicas")]).await;
    assert!(client.authenticate("app", "secret").await.is_none());
    for extended in [false, true] {
        assert_eq!(told(&client.ask("BEGIN ISOLATION LEVEL SERIALIZABLE").await), "CZ");
        let answer = if extended {
            client.parse("", "SELECT 1").bind("", "", &[]).execute("", 0).finish().await
        } else {
            client.ask("SELECT 1").await
        };
        assert_eq!(error_code(&answer).as_deref(), Some("0A000"), "extended: {extended}");
        assert_eq!(answer.last().expect("ReadyForQuery").body[..], *b"E", "it was told that it is in one");
        assert_eq!(error_code(&client.ask("SELECT 1").await).as_deref(), Some("25P02"));
        assert_eq!(told(&client.ask("ROLLBACK").await), "CZ");
        assert_eq!(client.query_value("SELECT 2").await, "2");
    }
}

#[tokio::test]
async fn a_begin_that_is_cancelled_lets_nothing_run_outside_of_it() {
    let site = Site::with_objects("CREATE TABLE kept (n int); GRANT ALL ON kept TO app", 2).await;
    let mut client = site.client().await;
    let (process, secret) = client.key().clone();
    let begin = format!("BEGIN /*{}*/", "x".repeat(150_000));
    for number in 0..60_u64 {
        client.ask(&begin).await;
        let port = site.proxy.port();
        let secret = secret.clone();
        let cancel = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(number * 50)).await;
            RawClient::cancel(port, process, &secret).await;
        });
        let answer = client.ask(&format!("INSERT INTO kept VALUES ({number})")).await;
        cancel.await.expect("it was sent");
        let status = answer.last().expect("ReadyForQuery").body[0];
        assert_ne!(status, b'I', "round {number}: {:?}", error_of(&answer));
        client.ask("ROLLBACK").await;
    }
    assert_eq!(site.primary.value("SELECT count(*) FROM kept").await, "0");
}

#[tokio::test]
async fn what_is_not_proven_is_reset_before_another_gets_it() {
    // A library's function may keep what it likes, and the name that it sets stands nowhere.
    let objects = "CREATE FUNCTION hides(text) RETURNS void LANGUAGE plpgsql STABLE AS $$\
        BEGIN PERFORM set_config(reverse('tnanet.ppa'), $1, false); END $$";
    let site = Site::with_objects(objects, 1).await;
    let mut client = site.client().await;
    let mut other = site.client().await;
    client.ask("SELECT hides('mine')").await;
    let seen = "SELECT coalesce(current_setting('app.tenant', true), '')";
    client.terminate().await;
    for _ in 0..5 {
        assert_eq!(other.query_value(seen).await, "");
        let mut passing = site.client().await;
        passing.ask("DO $$ BEGIN EXECUTE 'SET app.' || 'tenant = 5'; END $$").await;
        passing.terminate().await;
    }
}

#[tokio::test]
async fn a_session_whose_role_is_gone_can_leave_it() {
    for leave in ["RESET ROLE", "SET ROLE NONE;", "DISCARD ALL"] {
        let site = Site::with_objects("CREATE ROLE passing; GRANT passing TO app", 1).await;
        let mut client = site.client().await;
        let mut other = site.client().await;
        client.ask("SET ROLE passing").await;
        other.ask("SELECT 1").await;
        site.primary.query("DROP ROLE passing").await;
        let pid = other.query_value("SELECT pg_backend_pid()").await;
        let refused = client.ask("DELETE FROM pg_class").await;
        assert_eq!(error_code(&refused).as_deref(), Some("22023"), "its role is not there: {refused:?}");
        assert_eq!(
            other.query_value("SELECT pg_backend_pid()").await,
            pid,
            "nothing is wrong with the connection"
        );
        assert_eq!(error_code(&client.ask(leave).await), None, "{leave}");
        assert_eq!(client.query_value("SELECT current_user").await, "app", "{leave}");
    }
}

/// What is harmless to look at, and the worst that may be found on a connection of one's own.
const FUNCTIONS: &str = "SET ROLE app; CREATE TABLE orders (n int); INSERT INTO orders VALUES (1);\
    CREATE FUNCTION evil() RETURNS int LANGUAGE plpgsql AS $$\
        BEGIN PERFORM set_config('search_path', 'evil', false), pg_advisory_lock(7); RETURN 1; END $$;\
    CREATE FUNCTION counts() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$\
        BEGIN FOR i IN 1..evil() LOOP RETURN 1; END LOOP; RETURN 0; END $$;\
    CREATE FUNCTION harmless() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$";

/// The value of an answer. That the look fails on a connection is seen of it, too: by another path there are no orders.
fn found(answer: &[Message]) -> Option<String> {
    let failed = error_code(answer).filter(|code| code.starts_with("42"));
    values(answer).pop().or(failed)
}

/// What another session sees of a connection, on each of two; `None` where there is no connection for it.
async fn seen_by_others(site: &Site) -> Vec<Option<String>> {
    let look = "SELECT concat(current_setting('search_path'), ' ', current_setting('app.tenant', true), ' ', \
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), ' ', \
        (SELECT count(*) FROM orders))";
    let (mut first, mut second) = (site.client().await, site.client().await);
    let seen = found(&first.ask(look).await);
    first.ask("BEGIN; SELECT 1").await;
    let also_seen = found(&second.ask(look).await);
    first.ask("ROLLBACK").await;
    vec![seen, also_seen]
}

#[tokio::test]
async fn no_trick_leaves_anything_to_another() {
    let many = "+".repeat(200);
    let tricks: &[&[&str]] = &[
        &["SET search_path = pg_temp", "CREATE TABLE orders (n int)"],
        &["BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE orders (n int); COMMIT"],
        &["SET search_path = pg_temp", "SELECT 2 AS n INTO orders FROM generate_series(1, 5)"],
        &["SELECT counts()"],
        &["SELECT set_config('app.tenantX'::varchar(10), 'v', false)"],
        &[&format!(
            "BEGIN; SELECT set_config('search_path', 'evil', false), pg_advisory_lock(7); COMMIT; \
             SELECT 1 WHERE ++++{many}1 IS NULL OR true; SELECT ts_stat('SELEC')"
        )],
        &["SELECT set_config('app.tenantX'::varchar(10), 'v', false); SELECT ts_stat('SELEC')"],
        &["BEGIN; CREATE OR REPLACE FUNCTION harmless() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ \
           BEGIN RETURN evil(); END $$; COMMIT; SELECT harmless()"],
        &[
            "DO $$ BEGIN EXECUTE 'CREATE OR REPLACE FUNCTION harmless() RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
           ''BEGIN RETURN evil(); END''; '; END $$; SELECT harmless()",
        ],
    ];
    for trick in tricks {
        let site = Site::with_objects(FUNCTIONS, 2).await;
        let mut client = site.client().await;
        for sql in *trick {
            client.ask(sql).await;
        }
        for seen in seen_by_others(&site).await.into_iter().flatten() {
            assert_eq!(seen, "\"$user\", public  0 1", "{trick:?}");
        }
    }
}

#[tokio::test]
async fn a_function_that_changes_while_a_statement_waits_leaves_nothing() {
    let site = Site::with_objects(FUNCTIONS, 2).await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.ask("SELECT harmless()").await;
    // A lock on a table is where the server learns of definitions that have changed.
    client.query("SELECT pg_sleep(0.5); SELECT harmless() FROM orders").await;
    site.primary.wait_for_app_backends("query LIKE 'SELECT pg_sleep%' AND state = 'active'", 1).await;
    let replaced = "CREATE OR REPLACE FUNCTION harmless() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ \
        BEGIN RETURN evil(); END $$";
    assert_eq!(error_code(&other.ask(replaced).await), None);
    client.read_until_ready().await;
    other.terminate().await;
    for seen in seen_by_others(&site).await.into_iter().flatten() {
        assert_eq!(seen, "\"$user\", public  0 1");
    }
}

#[tokio::test]
async fn who_comes_just_after_a_change_leaves_nothing() {
    let site = Site::with_objects(FUNCTIONS, 2).await;
    let (mut client, mut other) = (site.client().await, site.client().await);
    client.ask("SELECT harmless()").await;
    let replaced = "CREATE OR REPLACE FUNCTION harmless() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ \
        BEGIN RETURN evil(); END $$";
    assert_eq!(error_code(&other.ask(replaced).await), None);
    // Before the catalog can have been read again.
    assert_eq!(client.query_value("SELECT harmless() FROM orders").await, "1");
    client.terminate().await;
    other.terminate().await;
    for seen in seen_by_others(&site).await.into_iter().flatten() {
        assert_eq!(seen, "\"$user\", public  0 1");
    }
}

#[tokio::test]
async fn what_the_check_of_a_parameters_type_does_is_left_to_nobody() {
    let objects = format!("{FUNCTIONS}; CREATE DOMAIN watched AS text CHECK (evil() = 1)");
    let site = Site::with_objects(&objects, 2).await;
    let id = site.primary.value("SELECT 'watched'::regtype::oid").await;
    let id: u32 = id.parse().expect("it is an id");
    let mut client = site.client().await;
    client.ask("SELECT 1").await;
    // The text does not name the type.
    client.message(b'P', &[b"\0SELECT $1\0\0\x01".as_slice(), &id.to_be_bytes()].concat());
    client.bind("", "", &[Some("a")]).execute("", 0);
    assert_eq!(values(&client.finish().await), ["a"]);
    client.terminate().await;
    for seen in seen_by_others(&site).await.into_iter().flatten() {
        assert_eq!(seen, "\"$user\", public  0 1");
    }
}

#[tokio::test]
async fn what_may_outlive_a_reset_is_closed() {
    // Nothing is known of what a library keeps that came with no extension.
    let kept = "CREATE FUNCTION kept(float8) RETURNS void LANGUAGE internal AS 'pg_sleep'";
    for (objects, is_closed) in [("SELECT 1", false), (kept, true)] {
        let site = Site::with_objects(objects, 1).await;
        let (mut client, mut other) = (site.client().await, site.client().await);
        let pid = client.query_value("SELECT pg_backend_pid()").await;
        client.ask("DO $$ BEGIN PERFORM 1; END $$").await;
        let others = other.query_value("SELECT pg_backend_pid()").await;
        assert_eq!(others != pid, is_closed, "{objects}");
    }
}

#[tokio::test]
async fn a_seed_that_is_set_by_a_bound_name_is_nobody_elses() {
    let site = Site::with_backends(1);
    let known = site.primary.value("SELECT random() FROM setseed(0.5) OFFSET 0").await;
    let mut client = site.client().await;
    client.parse("", "SELECT set_config($1, '0.5', false)").bind("", "", &[Some("seed")]).execute("", 0);
    assert_eq!(error_code(&client.finish().await), None);
    client.terminate().await;
    assert_ne!(site.client().await.query_value("SELECT random()").await, known);
}

#[tokio::test]
async fn nobody_knows_the_seed_of_another() {
    for set in [
        "SELECT set_config('seed', '0.5', true)",
        "BEGIN; SET LOCAL seed = 0.5; COMMIT",
        "DO $$ BEGIN PERFORM setseed(0.5); END $$",
    ] {
        let site = Site::with_backends(1);
        let known = site.primary.value("SELECT random() FROM setseed(0.5) OFFSET 0").await;
        let mut client = site.client().await;
        client.ask(set).await;
        client.terminate().await;
        let mut other = site.client().await;
        assert_ne!(other.query_value("SELECT random()").await, known, "{set}");
    }
}

#[tokio::test]
async fn a_function_of_many_signs_costs_no_memory() {
    let objects = format!(
        "SET check_function_bodies = off; CREATE FUNCTION signs() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1 {} 1; END $$",
        "+".repeat(19_000)
    );
    let site = Site::with_objects(&objects, 1).await;
    assert_eq!(site.client().await.query_value("SELECT 1").await, "1");
    let peak = site.proxy.peak_memory_bytes();
    assert!(peak < 200 << 20, "{peak} bytes");
}

#[tokio::test]
async fn timeouts_of_idle_sessions_hold_without_a_connection() {
    let site = Site::start();
    for (name, begin, code) in
        [("idle_session_timeout", "", "57P05"), ("idle_in_transaction_session_timeout", "BEGIN", "25P03")]
    {
        let mut client = site.client().await;
        client.ask(&format!("SET {name} = '300ms'")).await;
        client.ask(begin).await;
        let goodbye = client.read_message().await;
        assert_eq!((goodbye.tag, goodbye.field(b'C').as_deref()), (b'E', Some(code)), "{goodbye:?}");
        assert_eq!(client.try_read_message().await, None);
    }
}
