//! Prepared statements of the protocol: each session has its names, whichever of two backends it is on.

use tokio_postgres::error::SqlState;

use crate::support::{Login, Message, Postgres, Proxy, ProxyConfig, RawClient, Role, connect};

struct Site {
    proxy: Proxy,
    primary: Postgres,
}

impl Site {
    fn start() -> Self {
        Self::configured(|config| config)
    }

    fn configured(change: impl Fn(ProxyConfig) -> ProxyConfig) -> Self {
        let primary = Postgres::start(Role::Primary);
        let config = ProxyConfig::primary_only(&primary).pool("primary", &["primary"], 2);
        let proxy = Proxy::start(&change(config).to_toml());
        Self { proxy, primary }
    }

    async fn raw(&self) -> RawClient {
        RawClient::login(self.proxy.port(), Login::App, "app").await
    }
}

/// Sends what is pending with a Sync and returns the tags of the answer, with the code of an error in place of `E`.
async fn exchange(client: &mut RawClient) -> String {
    client.sync().flush().await;
    told(&client.read_until_ready().await)
}

fn told(answer: &[Message]) -> String {
    let word = |message: &Message| match message.tag {
        b'E' => format!(" {} ", message.field(b'C').unwrap_or_default()),
        tag => char::from(tag).to_string(),
    };
    answer.iter().map(word).collect()
}

/// The only value of a statement that is bound and executed.
async fn run(client: &mut RawClient, name: &str, parameters: &[Option<&str>]) -> String {
    client.bind("", name, parameters).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    let row = answer.iter().find(|message| message.tag == b'D');
    let row = row.unwrap_or_else(|| panic!("a row is expected, not {} {answer:?}", told(&answer)));
    row.columns().swap_remove(0).unwrap_or_default()
}

#[tokio::test]
async fn one_name_stands_for_another_text_in_each_session() {
    let site = Site::start();
    let mut clients = Vec::new();
    for number in 0..6 {
        let mut client = site.raw().await;
        client.parse("same", &format!("SELECT 'session {number}, ' || $1::text"));
        assert_eq!(exchange(&mut client).await, "1Z");
        clients.push(client);
    }
    let mut holder = site.raw().await;
    for round in 0..4 {
        // On odd rounds one backend is busy, so that all must do with the other one.
        holder.ask(if round % 2 == 1 { "BEGIN; SELECT 1" } else { "SELECT 1" }).await;
        for (number, client) in clients.iter_mut().enumerate() {
            let value = run(client, "same", &[Some("here")]).await;
            assert_eq!(value, format!("session {number}, here"), "round {round}");
        }
        holder.ask("ROLLBACK").await;
    }
    assert_eq!(site.primary.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await, "2");
}

#[tokio::test]
async fn names_are_free_taken_and_unknown_as_on_the_server() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.parse("a", "SELEC 1");
    assert_eq!(exchange(&mut client).await, " 42601 Z");
    client.parse("a", "SELECT no_such_column");
    assert_eq!(exchange(&mut client).await, " 42703 Z");
    client.parse("a", "SELECT 1::text");
    assert_eq!(exchange(&mut client).await, "1Z");
    client.parse("a", "SELECT 2::text");
    assert_eq!(exchange(&mut client).await, " 42P05 Z");
    assert_eq!(run(&mut client, "a", &[]).await, "1");

    client.bind("", "b", &[]).execute("", 0);
    assert_eq!(exchange(&mut client).await, " 26000 Z");
    client.describe(b'S', "b");
    assert_eq!(exchange(&mut client).await, " 26000 Z");
    client.close(b'S', "b");
    assert_eq!(exchange(&mut client).await, "3Z");
    client.parse("bulkhead_1", "SELECT 1");
    assert_eq!(exchange(&mut client).await, " 42939 Z");

    client.close(b'S', "a");
    assert_eq!(exchange(&mut client).await, "3Z");
    client.bind("", "a", &[]).execute("", 0);
    assert_eq!(exchange(&mut client).await, " 26000 Z");

    for end in ["DEALLOCATE a", "DEALLOCATE PREPARE ALL", "DEALLOCATE ALL", "DISCARD ALL"] {
        client.parse("a", "SELECT 3::text");
        assert_eq!(exchange(&mut client).await, "1Z", "before {end}");
        assert_eq!(run(&mut client, "a", &[]).await, "3");
        assert_eq!(told(&client.ask(end).await), "CZ", "{end}");
        client.bind("", "a", &[]).execute("", 0);
        assert_eq!(exchange(&mut client).await, " 26000 Z", "after {end}");
    }
    assert_eq!(told(&client.ask("DEALLOCATE a").await), " 26000 Z");
    for begin in [false, true] {
        if begin {
            client.ask("BEGIN; SELECT 1").await;
        }
        client.parse("a", "SELECT 4::text").sync().flush().await;
        assert_eq!(told(&client.read_until_ready().await), "1Z");
        client.parse("", "DEALLOCATE a").bind("", "", &[]).execute("", 0).sync().flush().await;
        let answer = client.read_until_ready().await;
        assert_eq!((told(&answer).as_str(), answer[3].body[0]), ("12CZ", if begin { b'T' } else { b'I' }));
        client.bind("", "a", &[]).execute("", 0);
        assert_eq!(exchange(&mut client).await, " 26000 Z");
    }
}

#[tokio::test]
async fn what_comes_before_a_refused_message_has_taken_place() {
    let site = Site::start();
    site.primary.query("SET ROLE app; CREATE TABLE t (id int)").await;
    let (mut client, mut other) = (site.raw().await, site.raw().await);
    // The first Parse succeeds; the second one finds its name taken; the third one is skipped.
    client.parse("one", "SELECT 1::text").parse("one", "SELECT 2::text").parse("two", "SELECT 3::text");
    assert_eq!(exchange(&mut client).await, "1 42P05 Z");
    assert_eq!(run(&mut client, "one", &[]).await, "1");
    client.bind("", "two", &[]);
    assert_eq!(exchange(&mut client).await, " 26000 Z");
    // The same text in another session, on either backend.
    other.parse("one", "SELECT 1::text");
    assert_eq!(exchange(&mut other).await, "1Z");
    assert_eq!(run(&mut other, "one", &[]).await, "1");

    // What was executed before it is rolled back with it.
    client.parse("", "INSERT INTO t VALUES (1)").bind("", "", &[]).execute("", 0).bind("", "unknown", &[]);
    assert_eq!(exchange(&mut client).await, "12C 26000 Z");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");

    // A transaction fails by it.
    client.ask("BEGIN").await;
    client.ask("INSERT INTO t VALUES (2)").await;
    client.bind("", "unknown", &[]).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!((told(&answer).as_str(), answer[1].body[0]), (" 26000 Z", b'E'));
    assert_eq!(told(&client.ask("SELECT 1").await), " 25P02 Z");
    assert_eq!(&client.ask("COMMIT").await[0].body[..], b"ROLLBACK\0");
    assert_eq!(client.query_value("SELECT count(*) FROM t").await, "0");

    // Without a Sync nothing more is said before it comes.
    client.bind("", "unknown", &[]).flush_message().flush().await;
    assert_eq!(client.read_message().await.field(b'C').as_deref(), Some("26000"));
    client.parse("", "SELECT 1").flush_message();
    assert_eq!(exchange(&mut client).await, "Z");
    assert_eq!(client.query_value("SELECT 5").await, "5");
}

#[tokio::test]
async fn backends_keep_few_statements_and_sessions_as_many_as_they_may() {
    let site = Site::configured(|config| {
        config.set("limits", "prepared_per_backend", 5).set("limits", "prepared_per_client", 30)
    });
    let mut client = site.raw().await;
    for number in 0..30 {
        client.parse(&format!("s{number}"), &format!("SELECT {number}::text"));
        assert_eq!(exchange(&mut client).await, "1Z");
    }
    client.parse("s30", "SELECT 30::text").sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!(told(&answer), " 53400 Z");
    let hint = answer[0].field(b'H').unwrap_or_default();
    assert!(hint.contains("limits.prepared_per_client"), "{hint}");
    for round in 0..3 {
        for number in (0..30).map(|number| (number * 7 + round) % 30) {
            assert_eq!(run(&mut client, &format!("s{number}"), &[]).await, number.to_string());
        }
    }
    let kept = client.query_value("SELECT count(*) FROM pg_prepared_statements").await;
    assert!(kept.parse::<u32>().is_ok_and(|kept| kept <= 6), "{kept} statements are kept");
    // Many at once, more than are kept.
    for number in 0..10 {
        client.bind("", &format!("s{number}"), &[]).execute("", 0);
    }
    assert_eq!(exchange(&mut client).await, format!("{}Z", "2DC".repeat(10)));
    client.close(b'S', "s3").parse("s31", "SELECT 31::text");
    assert_eq!(exchange(&mut client).await, "31Z");
    assert_eq!(run(&mut client, "s31", &[]).await, "31");
}

#[tokio::test]
async fn the_unnamed_statement_stays_the_sessions_own() {
    let site = Site::start();
    let (mut one, mut two) = (site.raw().await, site.raw().await);
    one.parse("", "SELECT 'one ' || $1::text");
    assert_eq!(exchange(&mut one).await, "1Z");
    two.parse("", "SELECT 'two ' || $1::text");
    assert_eq!(exchange(&mut two).await, "1Z");
    let mut holder = site.raw().await;
    for round in 0..4 {
        holder.ask(if round % 2 == 1 { "BEGIN; SELECT 1" } else { "SELECT 1" }).await;
        assert_eq!(run(&mut one, "", &[Some("here")]).await, "one here");
        assert_eq!(run(&mut two, "", &[Some("here")]).await, "two here");
        holder.ask("ROLLBACK").await;
    }
    // Our own statements on the backend (a deferred BEGIN, settings) end its unnamed statement.
    one.parse("b", "BEGIN").parse("", "SELECT 'again'");
    assert_eq!(exchange(&mut one).await, "11Z");
    one.bind("", "b", &[]).execute("", 0);
    assert_eq!(exchange(&mut one).await, "2CZ");
    assert_eq!(run(&mut one, "", &[]).await, "again");
    one.ask("ROLLBACK").await;
    two.ask("SET work_mem = '5MB'").await;
    two.parse("", "SELECT current_setting('work_mem')");
    assert_eq!(exchange(&mut two).await, "1Z");
    for _ in 0..3 {
        holder.ask("SET work_mem = '6MB'").await;
        holder.ask("SELECT 1").await;
        assert_eq!(run(&mut two, "", &[]).await, "5MB");
    }
}

#[tokio::test]
async fn definitions_that_change_results_need_a_fresh_parse_only() {
    // One backend: on another one the old statement would be parsed anew, and no error tells the client so.
    let site = Site::configured(|config| config.pool("primary", &["primary"], 1));
    site.primary.query("SET ROLE app; CREATE TABLE t AS SELECT 1 AS id").await;
    let (client, other) =
        (connect(&site.proxy.url()).await.expect("up"), connect(&site.proxy.url()).await.expect("up"));
    let sql = "SELECT * FROM t";
    let old = client.prepare(sql).await.expect("valid");
    assert_eq!(client.query_one(&old, &[]).await.expect("one row").len(), 1);
    assert_eq!(other.query_one(sql, &[]).await.expect("one row").len(), 1);
    other.batch_execute("ALTER TABLE t ADD COLUMN name text DEFAULT 'new'").await.expect("valid");
    let error = client.query_one(&old, &[]).await.expect_err("cached plan must not change result type");
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    for client in [&client, &other] {
        let fresh = client.prepare(sql).await.expect("valid");
        let row = client.query_one(&fresh, &[]).await.expect("one row");
        assert_eq!(row.get::<_, &str>(1), "new");
    }
}

#[tokio::test]
async fn descriptions_tell_parameters_and_columns() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.parse("d", "SELECT $1::int AS number, $2::text AS word").describe(b'S', "d").sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!(told(&answer), "1tTZ");
    assert_eq!(&answer[1].body[..], [0, 2, 0, 0, 0, 23, 0, 0, 0, 25]);
    assert!(answer[2].body.windows(7).any(|window| window == b"number\0"), "{:?}", answer[2]);
    client.bind("p", "d", &[Some("1"), Some("x")]).describe(b'P', "p").execute("p", 0).close(b'P', "p");
    assert_eq!(exchange(&mut client).await, "2TDC3Z");
    client.parse("n", "SET application_name = 'described'").describe(b'S', "n");
    assert_eq!(exchange(&mut client).await, "1tnZ");
    client.parse("", "BEGIN").describe(b'S', "").bind("", "", &[]).describe(b'P', "").execute("", 0);
    assert_eq!(exchange(&mut client).await, "1tn2nCZ");
    client.ask("ROLLBACK").await;
}

#[tokio::test]
async fn preparing_with_flush_and_running_later_holds_no_backend() {
    let site = Site::start();
    // More such sessions than there are backends.
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = site.raw().await;
        let name = if number % 2 == 0 { "stmt" } else { "" };
        client
            .parse(name, &format!("SELECT {number} + $1::int"))
            .describe(b'S', name)
            .flush_message()
            .flush()
            .await;
        for tag in [b'1', b't', b'T'] {
            assert_eq!(client.read_message().await.tag, tag);
        }
        clients.push((client, name));
    }
    for _ in 0..2 {
        for (number, (client, name)) in clients.iter_mut().enumerate() {
            assert_eq!(run(client, name, &[Some("10")]).await, (10 + number).to_string());
        }
    }
    let (client, _) = &mut clients[0];
    // An error ends all up to the Sync, which answers once.
    client.parse("bad", "SELEC").describe(b'S', "bad").flush_message().flush().await;
    assert_eq!(client.read_message().await.field(b'C').as_deref(), Some("42601"));
    client.parse("more", "SELECT 1").flush_message();
    client.flush().await;
    assert_eq!(exchange(client).await, "Z");
    client.bind("", "more", &[]);
    assert_eq!(exchange(client).await, " 26000 Z");
    assert_eq!(run(client, "stmt", &[Some("1")]).await, "1");

    // A Query may follow without any Sync, as asyncpg does.
    client.parse("q", "SELECT 1").describe(b'S', "q").flush_message().flush().await;
    for tag in [b'1', b't', b'T'] {
        assert_eq!(client.read_message().await.tag, tag);
    }
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
        assert_eq!(exchange(client).await, " 22P02 Z");
        assert_eq!(client.query_value("SELECT 12").await, "12");
    }
}

#[tokio::test]
async fn pipelined_requests_keep_their_replies_apart() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.parse("known", "SELECT 'known'");
    assert_eq!(exchange(&mut client).await, "1Z");
    let mut holder = site.raw().await;
    for round in 0..4 {
        holder.ask(if round % 2 == 1 { "BEGIN; SELECT 1" } else { "SELECT 1" }).await;
        // In one write: flushed requests, then one whose statement may have to be parsed by us first.
        client.parse("", "SELECT 'first'").bind("", "", &[]).execute("", 0).flush_message();
        client.bind("", "known", &[]).execute("", 0).flush_message();
        client.parse("p", "SELECT 'p'").bind("", "p", &[]).execute("", 0).close(b'S', "p");
        assert_eq!(exchange(&mut client).await, "12DC2DC12DC3Z", "round {round}");
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
async fn portals_give_their_rows_in_parts() {
    let site = Site::start();
    let (mut client, mut other) = (site.raw().await, site.raw().await);
    client.ask("BEGIN").await;
    client.parse("", "SELECT generate_series(1, 7)").bind("portal", "", &[]).execute("portal", 3);
    assert_eq!(exchange(&mut client).await, "12DDDsZ");
    assert_eq!(other.query_value("SELECT 1").await, "1");
    client.execute("portal", 3);
    assert_eq!(exchange(&mut client).await, "DDDsZ");
    client.execute("portal", 3).close(b'P', "portal");
    assert_eq!(exchange(&mut client).await, "DC3Z");
    client.ask("COMMIT").await;
    client.execute("portal", 3);
    assert_eq!(exchange(&mut client).await, " 34000 Z");
    // Outside of a transaction the Sync ends the portal, but a Flush does not.
    client
        .parse("", "SELECT generate_series(1, 4)")
        .bind("", "", &[])
        .execute("", 3)
        .flush_message()
        .flush()
        .await;
    for tag in "12DDDs".bytes() {
        assert_eq!(client.read_message().await.tag, tag);
    }
    client.execute("", 3);
    assert_eq!(exchange(&mut client).await, "DCZ");
}

#[tokio::test]
async fn an_unnamed_statement_too_long_to_be_kept_is_never_mistaken() {
    let site = Site::configured(|config| config.set("limits", "request_buffer", "64KiB"));
    let (mut client, mut holder) = (site.raw().await, site.raw().await);
    client.parse("", "SELECT 'short'");
    assert_eq!(exchange(&mut client).await, "1Z");
    // Now on the other backend, where the short one never was.
    holder.ask("BEGIN; SELECT 1").await;
    let long = format!("SELECT 'long' /* {} */", "x".repeat(500_000));
    client.parse("", &long);
    assert_eq!(exchange(&mut client).await, "1Z");
    client.bind("", "", &[]).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    let row = answer.iter().find(|message| message.tag == b'D').map(Message::columns);
    assert_ne!(row, Some(vec![Some("short".to_owned())]), "another statement was run");
    // In one request it works.
    client.parse("", &long).bind("", "", &[]).execute("", 0);
    assert_eq!(exchange(&mut client).await, "12DCZ");
    client.parse("named", &long).sync().flush().await;
    assert_eq!(told(&client.read_until_ready().await), " 54000 Z");
    assert_eq!(client.query_value("SELECT 1").await, "1");
}

#[tokio::test]
async fn the_unnamed_statement_is_the_sessions_own() {
    let site = Site::configured(|config| config.pool("primary", &["primary"], 1));
    let (mut one, mut other) = (site.raw().await, site.raw().await);
    one.parse("", "SELECT 'one'::text");
    assert_eq!(exchange(&mut one).await, "1Z");
    assert_eq!(run(&mut one, "", &[]).await, "one");
    // It is still there on the backend that they share.
    other.bind("", "", &[]).execute("", 0);
    assert_eq!(exchange(&mut other).await, " 26000 Z");
    other.describe(b'S', "");
    assert_eq!(exchange(&mut other).await, " 26000 Z");
    assert_eq!(run(&mut one, "", &[]).await, "one");

    // A Query ends it, and so does a Parse that fails; what fails after it does not.
    for ends in ["SELECT 1", "BEGIN", "", "ROLLBACK"] {
        one.parse("", "SELECT 'again'::text");
        assert_eq!(exchange(&mut one).await, "1Z");
        one.ask(ends).await;
        one.bind("", "", &[]).execute("", 0);
        assert_eq!(exchange(&mut one).await, " 26000 Z", "after {ends:?}");
        one.ask("ROLLBACK").await;
    }
    one.parse("", "SELEKT");
    assert_eq!(exchange(&mut one).await, " 42601 Z");
    one.bind("", "", &[]).execute("", 0);
    assert_eq!(exchange(&mut one).await, " 26000 Z");
    one.parse("", "SELECT (10 / $1::int)::text").bind("", "", &[Some("0")]).execute("", 0);
    assert_eq!(exchange(&mut one).await, "1 22012 Z");
    assert_eq!(run(&mut one, "", &[Some("2")]).await, "5");
}

#[tokio::test]
async fn what_an_error_skips_is_undone() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.parse("a", "SELECT 'first'::text");
    assert_eq!(exchange(&mut client).await, "1Z");
    client.parse("", "SELECT 1 / 0").bind("", "", &[]);
    client.close(b'S', "a").parse("a", "SELECT 'second'::text").parse("b", "SELECT 1").close(b'S', "b");
    assert_eq!(exchange(&mut client).await, "1 22012 Z");
    assert_eq!(run(&mut client, "a", &[]).await, "first");
    client.bind("", "b", &[]).execute("", 0);
    assert_eq!(exchange(&mut client).await, " 26000 Z");
}

#[tokio::test]
async fn a_discard_that_fails_costs_nothing() {
    let site = Site::configured(|config| config.pool("primary", &["primary"], 1));
    let mut client = site.raw().await;
    client.ask("CREATE TEMP TABLE t (id int)").await;
    client.parse("a", "SELECT 'there'::text");
    assert_eq!(exchange(&mut client).await, "1Z");
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
    assert_eq!(exchange(&mut client).await, " 26000 Z");
    client.parse("a", "SELECT 'anew'::text");
    assert_eq!(exchange(&mut client).await, "1Z");
    assert_eq!(run(&mut client, "a", &[]).await, "anew");
}

#[tokio::test]
async fn startup_values_are_told_before_the_client_may_go_on() {
    let site = Site::start();
    let mut client = RawClient::open(site.proxy.port()).await;
    client.startup(&[("user", "app"), ("database", "app"), ("application_name", "mine")]).await;
    assert_eq!(client.authenticate("app", "secret").await, None);
    client.ask("SET application_name = 'other'").await;
    // What fails resets nothing.
    assert_eq!(told(&client.ask("RESET ALL; SELECT 1 / 0").await), "C 22012 Z");
    assert_eq!(told(&client.ask("SELECT 1; DISCARD ALL").await), "TDC 25001 Z");
    assert_eq!(client.parameter("application_name"), Some("other"));
    assert_eq!(client.query_value("SHOW application_name").await, "other");
    for reset in ["RESET ALL", "DISCARD ALL", "RESET application_name"] {
        client.ask("SET application_name = 'other'").await;
        assert_eq!(client.parameter("application_name"), Some("other"));
        let answer = client.ask(reset).await;
        assert_eq!(answer.last().map(|message| message.tag), Some(b'Z'));
        assert_eq!(client.parameter("application_name"), Some("mine"), "{reset}");
        assert_eq!(client.query_value("SHOW application_name").await, "mine");
    }
}

#[tokio::test]
async fn a_begin_under_a_taken_name_begins_nothing() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.parse("a", "SELECT 1");
    assert_eq!(exchange(&mut client).await, "1Z");
    client.parse("a", "BEGIN").bind("", "a", &[]).execute("", 0).sync().flush().await;
    let answer = client.read_until_ready().await;
    assert_eq!(told(&answer), " 42P05 Z");
    assert_eq!(answer[1].body[0], b'I');
}

#[tokio::test]
async fn a_second_begin_is_the_servers_to_answer() {
    let site = Site::start();
    let mut client = site.raw().await;
    client.ask("BEGIN").await;
    let answer = client.ask("START TRANSACTION READ ONLY").await;
    assert_eq!(RawClient::tags(&answer), "NCZ");
    assert_eq!(answer[0].field(b'C').as_deref(), Some("25001"));
    assert_eq!(&answer[1].body[..], b"START TRANSACTION\0");
    // What it asks for holds as well.
    assert_eq!(client.query_value("SHOW transaction_read_only").await, "on");
    client.ask("ROLLBACK").await;
    assert_eq!(client.query_value("SHOW transaction_read_only").await, "off");
}
