//! Where the numbers come from: types that are new, that one server lacks, and sessions that ask the job database itself.

use super::{Servers, numbers, parse};
use crate::support::{Message, Postgres, RawClient, Role, error_of, values};

/// The types of the columns that a RowDescription tells.
fn column_types(answer: &[Message]) -> Vec<u32> {
    let description = answer.iter().find(|message| message.tag == b'T').expect("a description");
    let mut rest = &description.body[2..];
    let mut types = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).expect("a name");
        let field = &rest[end + 1..];
        types.push(u32::from_be_bytes(field[6..10].try_into().expect("four bytes")));
        rest = &field[18..];
    }
    types
}

async fn number(server: &Postgres, name: &str) -> u32 {
    numbers(server).await[name]
}

/// What is made past the proxy is found when it is first met; the answer waits for that.
#[tokio::test]
async fn a_new_type_is_looked_up_before_it_is_told() {
    let servers = Servers::start().await;
    let mut client = servers.client().await;
    client.ask("SELECT state FROM oban_jobs").await;
    for round in 0..3 {
        let name = format!("late_{round}");
        // The job database first: its number is then another type's on the primary.
        servers.jobs.query("CREATE TYPE before AS ENUM (); DROP TYPE before").await;
        for server in [&servers.jobs, &servers.primary] {
            server.query(&format!("CREATE TYPE {name} AS ENUM ('a')")).await;
        }
        let sql =
            format!("SELECT 'a'::{name} AS a, ARRAY['a'::{name}] AS b, state FROM oban_jobs WHERE id = 1");
        let answer = client.ask(&sql).await;
        let wanted = numbers(&servers.primary).await;
        let wanted = [wanted[&name], wanted[&format!("_{name}")], wanted["oban_job_state"]];
        assert_eq!(column_types(&answer), wanted);
        assert_eq!(values(&answer), ["a", "{a}", "available"]);
        // A parameter of it, which nobody has looked up yet.
        let last = format!("last_{round}");
        for server in [&servers.jobs, &servers.primary] {
            server.query(&format!("CREATE TYPE {last} AS ENUM ('a')")).await;
        }
        let known = number(&servers.primary, &last).await;
        parse(&mut client, "", "SELECT $1, count(*) FROM oban_jobs", &[known]).bind("", "", &[Some("a")]);
        let answer = client.describe(b'P', "").execute("", 0).finish().await;
        assert_eq!(values(&answer), ["a", "4"], "{answer:?}");
        assert_eq!(column_types(&answer)[0], known);
    }
}

/// Sessions that wait for a reading hold all places of the pool: one of them makes room for it.
#[tokio::test]
async fn sessions_that_wait_do_not_wait_for_each_other() {
    let servers = Servers::start().await;
    let mut clients = [servers.client().await, servers.client().await];
    for client in &mut clients {
        // A place each.
        client.ask("BEGIN").await;
        client.ask("SELECT state FROM oban_jobs").await;
    }
    for server in [&servers.jobs, &servers.primary] {
        server.query("CREATE TYPE late AS ENUM ('a')").await;
    }
    for client in &mut clients {
        client.query("SELECT 'a'::late, id FROM oban_jobs WHERE id = 1").await;
    }
    let mut told = Vec::new();
    for client in &mut clients {
        let answer = client.read_until_ready().await;
        match error_of(&answer) {
            None => {
                assert_eq!(column_types(&answer)[0], number(&servers.primary, "late").await);
                told.push(String::new());
            }
            Some([code, message, _]) => {
                assert!(message.contains("is not known: the catalogs were not read within"), "{message}");
                told.push(code);
            }
        }
    }
    told.sort();
    assert_eq!(told, ["", "0A000"], "one gives way");
}

/// A type that only the job database has is told by its own number if that is free, and not at all if it is not.
#[tokio::test]
async fn a_type_of_the_job_database_alone_is_told_or_refused() {
    let servers = Servers::start().await;
    // Numbers far above: no type of the primary has them.
    servers.jobs.query("CREATE TABLE many_1 (); CREATE TYPE mine AS ENUM ('a')").await;
    for n in 0..30 {
        servers.jobs.query(&format!("CREATE TYPE filler_{n} AS ENUM ('a')")).await;
    }
    servers.jobs.query("CREATE TYPE free AS ENUM ('a')").await;
    let own = number(&servers.jobs, "free").await;
    assert!(numbers(&servers.primary).await.values().all(|number| *number != own));
    let mut client = servers.client().await;
    let answer = client.ask("SELECT 'a'::free, state FROM oban_jobs WHERE id = 1").await;
    assert_eq!(column_types(&answer), [own, number(&servers.primary, "oban_job_state").await]);
    parse(&mut client, "", "SELECT $1, count(*) FROM oban_jobs", &[own])
        .bind("", "", &[Some("a")])
        .execute("", 0);
    assert_eq!(values(&client.finish().await), ["a", "4"]);

    // The number of a type of the primary.
    let (here, there) = (numbers(&servers.primary).await, numbers(&servers.jobs).await);
    let is_taken =
        |name: &String| name.contains("alone_") && here.values().any(|number| *number == there[name]);
    let taken: Vec<&String> = there.keys().filter(|name| is_taken(name)).collect();
    assert!(!taken.is_empty(), "{here:?} {there:?}");
    for name in taken {
        let (sql, alone) = match name.strip_prefix('_') {
            None => (format!("SELECT 'x'::{name}, id FROM oban_jobs"), name.clone()),
            Some(element) => {
                (format!("SELECT ARRAY['x'::{element}], id FROM oban_jobs"), format!("{element}[]"))
            }
        };
        let sql = sql.as_str();
        let [code, message, hint] = error_of(&client.ask(sql).await).expect("it is refused");
        assert_eq!(code, "0A000");
        assert!(
            message.contains(&format!("type public.{alone} ")) && message.contains("job database only"),
            "{message}"
        );
        assert!(hint.contains("create the type there"), "{hint}");
        client.parse(name, sql).describe(b'S', name);
        assert_eq!(client.exchange().await, "1 0A000 Z");
        // In a transaction, all of it is undone.
        client.ask("BEGIN").await;
        client.ask("INSERT INTO oban_jobs (id, worker) VALUES (50, 'undone') RETURNING state").await;
        assert_eq!(error_of(&client.ask(sql).await).expect("it is refused")[0], "0A000");
        assert_eq!(
            error_of(&client.ask("SELECT state FROM oban_jobs").await).expect("it has failed")[0],
            "25P02"
        );
        client.ask("ROLLBACK").await;
        assert_eq!(
            values(&client.ask("SELECT count(*) FROM oban_jobs WHERE worker = 'undone'").await),
            ["0"]
        );
    }
}

/// What only the primary has cannot be said to the job database, and nothing of the request is sent.
#[tokio::test]
async fn a_type_of_the_primary_alone_is_refused_as_a_parameter() {
    let servers = Servers::start().await;
    servers.primary.query("CREATE TYPE here_only AS ENUM ('a')").await;
    let own = number(&servers.primary, "here_only").await;
    let mut client = servers.client().await;
    for (number, code, part) in [(own, "0A000", "type public.here_only"), (99_999, "42704", "number 99999")] {
        parse(
            &mut client,
            "",
            "INSERT INTO oban_jobs (worker, args) VALUES ('refused', to_jsonb($1))",
            &[number],
        );
        let answer = client.bind("", "", &[Some("a")]).execute("", 0).finish().await;
        let [found, message, _] = error_of(&answer).expect("it is refused");
        assert_eq!(found, code, "{message}");
        assert!(message.contains(part), "{message}");
        assert_eq!(
            values(&client.ask("SELECT count(*) FROM oban_jobs WHERE worker = 'refused'").await),
            ["0"]
        );
    }
}

/// A session that is bound to the job database learns types there; it shares backends, and no statements, with others.
#[tokio::test]
async fn a_bound_session_is_told_the_job_databases_own_numbers() {
    let servers = Servers::configured(|config| config.pool("jobs", &["jobs"], 1)).await;
    let (here, there) = (numbers(&servers.primary).await, numbers(&servers.jobs).await);
    let mut bound = RawClient::login(servers.proxy.port(), crate::support::Login::App, "app@jobs").await;
    let mut client = servers.client().await;
    for _ in 0..3 {
        for (session, known) in [(&mut bound, &there), (&mut client, &here)] {
            let sql = "SELECT state, states, id FROM oban_jobs WHERE state = ANY ($1)";
            let answer = {
                parse(session, "s", sql, &[known["_oban_job_state"]]).describe(b'S', "s");
                session.bind("", "s", &[Some("{available}")]).execute("", 0).finish().await
            };
            assert_eq!(column_types(&answer), [known["oban_job_state"], known["_oban_job_state"], 20]);
            assert_eq!(values(&answer).len(), 12, "{answer:?}");
            session.bind("", "s", &[Some("{available}")]).execute("", 0).close(b'S', "s");
            assert_eq!(session.exchange().await, "2DDDDC3Z");
            // The unnamed one.
            parse(session, "", sql, &[known["_oban_job_state"]]).bind("", "", &[Some("{available}")]);
            let answer = session.describe(b'P', "").execute("", 0).finish().await;
            assert_eq!(column_types(&answer), [known["oban_job_state"], known["_oban_job_state"], 20]);
        }
    }
}

/// What was described on one server is what is told of it on the other.
#[tokio::test]
async fn a_statement_that_was_described_on_one_server_runs_on_the_other() {
    let servers = Servers::start().await;
    let here = numbers(&servers.primary).await;
    let mut client = servers.client().await;
    for (one, two) in [("primary", "job"), ("job", "primary")] {
        client.ask(&format!("SET bulkhead.route = '{one}'")).await;
        client
            .parse("s", "SELECT state, steps FROM oban_jobs WHERE state = $1 AND id = 1")
            .describe(b'S', "s");
        let answer = client.finish().await;
        assert_eq!(column_types(&answer), [here["oban_job_state"], here["_job_step"]], "{one}");
        client.ask(&format!("SET bulkhead.route = '{two}'")).await;
        for _ in 0..2 {
            client.bind("", "s", &[Some("available")]).execute("", 0);
            assert_eq!(client.exchange().await, "2DCZ", "{one}, then {two}");
        }
        client.close(b'S', "s");
        assert_eq!(client.exchange().await, "3Z");
    }
}

/// Nobody asks for types where there is no job database elsewhere.
#[tokio::test]
async fn without_another_server_nothing_is_asked() {
    let primary = Postgres::builder(Role::Primary).setting("log_statement", "all").start();
    crate::support::oban::install(&primary).await;
    let config = crate::support::ProxyConfig::primary_only(&primary).pool("jobs", &["primary"], 2).set(
        "jobs",
        "presets",
        vec!["oban"],
    );
    let proxy = crate::support::Proxy::start(&config.to_toml());
    let mut client = RawClient::app(proxy.port()).await;
    let answer = client.ask("SELECT state FROM oban_jobs").await;
    assert_eq!(column_types(&answer), [number(&primary, "oban_job_state").await]);
    super::bind(client.parse("", "SELECT ARRAY[state] FROM oban_jobs"), "", "", &[]).execute("", 0);
    assert_eq!(client.exchange().await, "12CZ");
    let log = primary.log();
    assert!(log.contains("pg_catalog.pg_proc"), "the catalog was read");
    assert!(!log.contains("typarray"), "types were read:\n{log}");
    assert!(!log.contains("Describe"), "nothing of ours is in between");
}
