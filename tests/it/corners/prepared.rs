//! Prepared statements that are let go of, grow stale or mean something else for a while: what is executed counts, in
//! its order, and nothing else.

use super::talk::{Pair, Talk};

const ALL: [&str; 2] = ["DISCARD ALL", "DEALLOCATE ALL"];

/// Whether the statement of this name can be bound, and whether its name is free.
async fn look(talk: &mut Talk<'_>, names: &[&str]) {
    for name in names {
        talk.client.bind("", name, &[]).execute("", 0).sync();
        talk.exchange(1).await;
        talk.client.parse(name, "SELECT 'another'").sync();
        talk.exchange(1).await;
    }
}

#[tokio::test]
async fn statements_are_let_go_of_when_that_is_executed() {
    let mut site = Pair::start().await;
    for kill in ALL {
        site.same(&format!("{kill}, parsed and described only"), async |talk| {
            talk.client.parse("mine", "SELECT 'mine'").parse("reset", kill).describe(b'S', "reset").sync();
            talk.exchange(1).await;
            look(talk, &["mine"]).await;
            talk.client.bind("", "reset", &[]).sync();
            talk.exchange(1).await;
            look(talk, &["mine"]).await;
            talk.client.bind("", "reset", &[]).describe(b'P', "").execute("", 0).sync();
            talk.exchange(1).await;
            look(talk, &["mine", "reset"]).await;
        })
        .await;
        site.same(&format!("{kill}, again and again"), async |talk| {
            for _ in 0..3 {
                talk.client.parse("mine", "SELECT 'mine'").bind("", "mine", &[]).execute("", 0).sync();
                talk.client.parse("reset", kill).bind("", "reset", &[]).execute("", 0).sync();
                talk.exchange(2).await;
            }
            look(talk, &["mine", "reset"]).await;
        })
        .await;
        site.same(&format!("{kill} in a failed transaction"), async |talk| {
            talk.client.parse("mine", "SELECT 'mine'").parse("reset", kill).sync();
            talk.exchange(1).await;
            talk.ask("BEGIN").await;
            talk.ask("SELECT 1/0").await;
            talk.client.bind("", "reset", &[]).execute("", 0).sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
            look(talk, &["mine", "reset"]).await;
        })
        .await;
        for begin in ["", "BEGIN"] {
            site.same(&format!("{kill} behind {begin:?}, as a Query, and what fails"), async |talk| {
                for after in ["", "; SELECT 1/0", "; SELEC"] {
                    talk.client.parse("mine", "SELECT 'mine'").sync();
                    talk.exchange(1).await;
                    talk.ask(begin).await;
                    talk.ask(&format!("{kill}{after}")).await;
                    talk.ask("ROLLBACK").await;
                    look(talk, &["mine"]).await;
                    talk.client.close(b'S', "mine").sync();
                    talk.exchange(1).await;
                }
            })
            .await;
        }
    }
    site.finish().await;
}

/// Steps of a pipeline: a statement is parsed, bound or closed, all are let go of, something fails.
fn step(talk: &mut Talk<'_>, step: &str, kill: &str) {
    let client = &mut talk.client;
    match step.split_at(1) {
        ("P", name) => client.parse(name, "SELECT 'one text'"),
        ("B", name) => client.bind("", name, &[]).execute("", 0),
        ("D", name) => client.describe(b'S', name),
        ("C", name) => client.close(b'S', name),
        ("K", _) => client.parse("", kill).bind("", "", &[]).execute("", 0),
        ("F", _) => client.flush_message(),
        _ => client.parse("", "SELECT 1/(1 - 1)").bind("", "", &[]).execute("", 0),
    };
}

const PIPELINES: [&str; 14] = [
    "Pa K Pa Ba",
    "Pa Pb K Pb Bb Ba",
    "Pa K Ba",
    "Pa Ba K Pa Pb Bb",
    "Pa K Ca Pa Ba",
    "Pa K Pa K Pa Ba",
    "Pa K ! Pa",
    "Pa ! K Pa",
    "Pa K F Pa Ba",
    "K Pa Ba ! Pb",
    "Pa Da K Da",
    "Pa Ca K Pa Pb",
    "Bm K Bm",
    "K Pm Bm",
];

#[tokio::test]
async fn in_pipelines_what_comes_after_it_exists() {
    let mut site = Pair::start().await;
    for kill in ["DEALLOCATE ALL", "DISCARD ALL"] {
        for pipeline in PIPELINES {
            site.same(&format!("{kill}: {pipeline}"), async |talk| {
                talk.client.parse("m", "SELECT 'one text'").sync();
                talk.exchange(1).await;
                for word in pipeline.split(' ') {
                    step(talk, word, kill);
                }
                talk.client.sync();
                talk.exchange(1).await;
                look(talk, &["a", "b", "m"]).await;
            })
            .await;
        }
    }
    site.finish().await;
}

/// How a client prepares and runs a statement, at once or in steps.
fn run(talk: &mut Talk<'_>, how: &str, name: &str, sql: &str) -> usize {
    let client = &mut talk.client;
    match how {
        "described" => {
            client.parse(name, sql).describe(b'S', name).sync().bind("", name, &[]).execute("", 0).sync()
        }
        "at once" => {
            client.parse(name, sql).bind("", name, &[]).describe(b'P', "").execute("", 0).sync().sync()
        }
        "blind" => client.parse(name, sql).bind("", name, &[]).execute("", 0).sync().sync(),
        "in steps" => {
            client.parse(name, sql).sync().bind("", name, &[]).describe(b'P', "").execute("", 0).sync()
        }
        _ => client.parse(name, sql).describe(b'S', name).bind("", name, &[]).execute("", 0).sync().sync(),
    };
    2
}

const WAYS: [&str; 5] = ["described", "at once", "blind", "in steps", "all in one"];

/// Definitions are changed by others, whom nobody here sees.
const CHANGES: [(&str, &str); 3] = [
    ("ALTER TABLE w ADD b int DEFAULT 7", "SELECT * FROM w"),
    ("ALTER TABLE w ALTER a TYPE text USING 'ABCD'", "SELECT a FROM w"),
    ("DROP TABLE w; CREATE TABLE w AS SELECT 1.5 AS a", "SELECT a FROM w"),
];

#[tokio::test]
async fn who_parses_after_a_change_has_the_new_columns_and_who_parsed_before_has_an_error() {
    let mut site = Pair::start().await;
    for (change, sql) in CHANGES {
        // Who was told nothing has nothing to hold on to.
        for before in WAYS.into_iter().filter(|way| *way != "blind") {
            site.same(&format!("{change}, {before}"), async |talk| {
                talk.others("DROP TABLE IF EXISTS w; CREATE TABLE w AS SELECT 1 AS a").await;
                let readies = run(talk, before, "before", sql);
                talk.exchange(readies).await;
                talk.others(change).await;
                for how in WAYS {
                    let readies = run(talk, how, how, sql);
                    talk.exchange(readies).await;
                    talk.client.bind("", how, &[]).execute("", 0).sync();
                    talk.exchange(1).await;
                    talk.client.bind("", "before", &[]).execute("", 0).sync();
                    talk.exchange(1).await;
                }
                // In a transaction an error is an error, and a new Parse is a new one.
                for how in WAYS {
                    talk.ask("BEGIN").await;
                    let readies = run(talk, how, &format!("{how} begun"), sql);
                    talk.exchange(readies).await;
                    talk.ask("COMMIT").await;
                }
            })
            .await;
        }
    }
    site.finish().await;
}

#[tokio::test]
async fn a_transactions_own_changes_are_met_by_what_it_parses() {
    let mut site = Pair::start().await;
    for end in ["COMMIT", "ROLLBACK"] {
        for how in WAYS {
            site.same(&format!("{how}, {end}"), async |talk| {
                talk.others("DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other; DROP TABLE IF EXISTS w; CREATE TABLE w AS SELECT 1 AS a; CREATE TABLE other.w AS SELECT 'x'::text AS a; GRANT ALL ON ALL TABLES IN SCHEMA other TO PUBLIC; GRANT ALL ON SCHEMA other TO PUBLIC; GRANT ALL ON w TO PUBLIC").await;
                let sql = "SELECT * FROM w";
                for (number, change) in [
                    "SET LOCAL search_path = other",
                    "SELECT set_config('search_path', 'other', true)",
                    "SET search_path = other",
                    "CREATE TEMP TABLE w ON COMMIT DROP AS SELECT 2.5 AS a",
                ].into_iter().enumerate() {
                    let readies = run(talk, how, &format!("plain {number}"), sql);
                    talk.exchange(readies).await;
                    talk.ask("BEGIN").await;
                    talk.ask(change).await;
                    let readies = run(talk, how, &format!("changed {number}"), sql);
                    talk.exchange(readies).await;
                    talk.ask(end).await;
                    talk.ask("RESET search_path").await;
                    let readies = run(talk, how, &format!("afterwards {number}"), sql);
                    talk.exchange(readies).await;
                }
                talk.ask("BEGIN").await;
                talk.ask("CREATE TABLE own AS SELECT 1 AS a").await;
                let readies = run(talk, how, "own", "SELECT * FROM own");
                talk.exchange(readies).await;
                talk.ask("ALTER TABLE own ADD b text DEFAULT 'b'").await;
                let readies = run(talk, how, "own, changed", "SELECT * FROM own");
                talk.exchange(readies).await;
                talk.ask("ROLLBACK").await;
            })
            .await;
        }
    }
    site.finish().await;
}

#[tokio::test]
async fn errors_name_statements_as_the_client_does() {
    let mut site = Pair::start().await;
    let long = "n".repeat(63);
    for name in ["s", "my \"statement\"", &long] {
        site.same(name, async |talk| {
            talk.client.parse(name, "SELECT $1::int, $2::int").sync();
            talk.client.bind("", name, &[Some("1")]).execute("", 0).sync();
            talk.client.bind("", name, &[Some("1"), Some("x")]).execute("", 0).sync();
            talk.client.parse(name, "SELECT 2").sync();
            talk.exchange(4).await;
            talk.client.close(b'S', name).bind("", name, &[]).sync();
            talk.exchange(1).await;
        })
        .await;
    }
    site.finish().await;
}

#[tokio::test]
async fn names_are_cut_where_the_server_cuts_them() {
    let mut site = Pair::start().await;
    let long = "n".repeat(63);
    site.same("63 bytes", async |talk| {
        let (one, two) = (format!("{long}1"), format!("{long}2"));
        talk.client.parse(&one, "SELECT 'one'").sync();
        for name in [&one, &two, &long] {
            talk.client.bind("", name, &[]).execute("", 0).describe(b'S', name).sync();
        }
        talk.client.parse(&two, "SELECT 'two'").sync();
        talk.exchange(5).await;
        talk.ask(&format!("EXECUTE {two}")).await;
        talk.ask(&format!("DEALLOCATE {two}")).await;
        talk.client.bind("", &one, &[]).sync();
        talk.exchange(1).await;
        talk.client.parse(&one, "SELECT 'one'").close(b'S', &two).parse(&long, "SELECT 'three'").sync();
        talk.client.bind("", &one, &[]).execute("", 0).sync();
        talk.exchange(2).await;
        talk.ask(&format!("PREPARE {two} AS SELECT 1")).await;
    })
    .await;
    site.finish().await;
}
