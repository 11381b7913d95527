//! Pipelines: errors at every place, their implicit transactions, BEGIN and COMMIT within, and empty statements.

use super::talk::{Pair, Talk};

/// What fails in a pipeline.
const FAILURES: [&str; 9] = [
    "Parse",
    "Parse of a name",
    "Bind",
    "Bind of no statement",
    "Execute",
    "Execute of no portal",
    "Describe of a statement",
    "Describe of a portal",
    "Close",
];

/// Appends a step that fails, and leads on if it does not.
fn fail(talk: &mut Talk<'_>, failure: &str) {
    let client = &mut talk.client;
    match failure {
        "Parse" => client.parse("", "SELEC 1").bind("", "", &[]),
        "Parse of a name" => client.parse("s", "SELECT no_such_column FROM t").bind("", "s", &[]),
        "Bind" => client.parse("", "SELECT $1::int").bind("", "", &[Some("x")]),
        "Bind of no statement" => client.bind("", "nobody", &[]),
        "Execute" => client.parse("", "SELECT 1/(a - 1) FROM t").bind("", "", &[]),
        "Execute of no portal" => client.execute("nobody", 0),
        "Describe of a statement" => client.describe(b'S', "nobody"),
        "Describe of a portal" => client.describe(b'P', "nobody"),
        _ => client.message(b'C', b"?s\0"),
    }
    .execute("", 0);
}

#[tokio::test]
async fn an_error_skips_to_the_sync_wherever_it_is() {
    let mut site = Pair::start().await;
    for failure in FAILURES {
        for place in ["first", "middle", "last"] {
            site.same(&format!("{failure}, {place}"), async |talk| {
                for begin in [false, true] {
                    if begin {
                        talk.ask("BEGIN").await;
                    }
                    // Everything in one write: what fails, the part after its Sync, and a Query.
                    for number in 0..3 {
                        if ["first", "middle", "last"][number] == place {
                            fail(talk, failure);
                        } else {
                            talk.unit(&format!("INSERT INTO t VALUES ({number} + 100)"));
                        }
                    }
                    talk.client.sync();
                    talk.unit("SELECT count(*) FROM t").sync();
                    talk.client.parse("s", "SELECT 's'").bind("", "s", &[]).execute("", 0).sync();
                    talk.client.message(b'Q', b"SELECT count(*) FROM t\0");
                    talk.exchange(4).await;
                    talk.ask("ROLLBACK").await;
                    talk.client.close(b'S', "s").sync();
                    talk.exchange(1).await;
                }
            })
            .await;
        }
        site.same(&format!("{failure}, between Flush and Flush"), async |talk| {
            talk.unit("INSERT INTO t VALUES (100)").flush_message();
            talk.hear_to(b'C').await;
            fail(talk, failure);
            talk.client.flush_message();
            talk.hear_to(b'E').await;
            talk.unit("INSERT INTO t VALUES (101)").flush_message().parse("s", "SELECT 1").sync();
            talk.exchange(1).await;
            talk.ask("SELECT count(*) FROM t").await;
            talk.client.bind("", "s", &[]).sync();
            talk.exchange(1).await;
            // A Query is skipped, too.
            fail(talk, failure);
            talk.client.message(b'Q', b"INSERT INTO t VALUES (102)\0").sync();
            talk.exchange(1).await;
            talk.ask("SELECT count(*) FROM t").await;
        })
        .await;
    }
    site.finish().await;
}

/// Statements of one pipeline; a text that ends with `|` is followed by a Sync.
const PIPELINES: [&[&str]; 23] = [
    &["BEGIN", "INSERT INTO t VALUES (100)", "COMMIT", "INSERT INTO t VALUES (101)", "SELECT 1/0"],
    &["BEGIN", "INSERT INTO t VALUES (100)", "SELECT 1/0", "COMMIT"],
    &["INSERT INTO t VALUES (100)", "BEGIN", "INSERT INTO t VALUES (101)", "ROLLBACK"],
    &["INSERT INTO t VALUES (100)", "COMMIT", "INSERT INTO t VALUES (101)", "SELECT 1/0"],
    &["INSERT INTO t VALUES (100)", "ROLLBACK", "INSERT INTO t VALUES (101)"],
    &["BEGIN|", "INSERT INTO t VALUES (100)|", "COMMIT|", "INSERT INTO t VALUES (101)|", "SELECT 1/0"],
    &["BEGIN", "INSERT INTO t VALUES (100)|", "SELECT 1/0", "ROLLBACK", "SELECT 1|", "ROLLBACK"],
    &["BEGIN", "SAVEPOINT x", "INSERT INTO t VALUES (100)|", "SELECT 1/0|", "ROLLBACK TO x", "COMMIT"],
    &["SAVEPOINT x", "INSERT INTO t VALUES (100)"],
    &["SET LOCAL work_mem = '1MB'", "SHOW work_mem|", "SHOW work_mem"],
    &["SET work_mem = '1MB'", "SELECT 1/0|", "SHOW work_mem"],
    &["SET work_mem = '1MB'", "SHOW work_mem|", "SHOW work_mem|", "RESET work_mem", "SHOW work_mem"],
    &["SET work_mem = '1MB'", "COMMIT", "SELEC 1"],
    &["SET work_mem = '1MB'", "COMMIT", "SELEC 1|", "SELEC 2"],
    &["INSERT INTO t VALUES (100)", "SELEC 1"],
    &["SELEC 1", "SET work_mem = '1MB'|", "SELEC 2|", "INSERT INTO t VALUES (100)"],
    &["VACUUM t"],
    &["SELECT 1", "VACUUM t"],
    &["VACUUM t", "SELECT 1/0"],
    &["", "BEGIN", "", "COMMIT", ""],
    &["BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK"],
    &["BEGIN|", "START TRANSACTION READ ONLY|", "SHOW transaction_read_only|", "INSERT INTO t VALUES (100)"],
    &[
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "INSERT INTO t VALUES (100)|",
        "SHOW transaction_read_only",
    ],
];

#[tokio::test]
async fn transactions_begin_and_end_within_pipelines() {
    let mut site = Pair::start().await;
    for pipeline in PIPELINES {
        for way in ["at once", "in steps", "with Flush", "by name"] {
            site.same(&format!("{pipeline:?} {way}"), async |talk| {
                let mut readies = 1;
                for (number, text) in pipeline.iter().enumerate() {
                    let sql = text.trim_end_matches('|');
                    if way == "by name" {
                        let name = format!("s{number}");
                        talk.client.parse(&name, sql).bind("", &name, &[]).execute("", 0);
                    } else {
                        talk.unit(sql);
                    }
                    if way == "with Flush" {
                        talk.client.flush_message();
                    }
                    if text.ends_with('|') {
                        talk.client.sync();
                        readies += 1;
                        if way == "in steps" {
                            talk.exchange(1).await;
                            readies -= 1;
                        }
                    }
                }
                talk.client.sync();
                talk.exchange(readies).await;
                talk.ask("ROLLBACK").await;
                talk.ask("SELECT a FROM t WHERE a >= 100").await;
                talk.ask("SHOW work_mem").await;
            })
            .await;
        }
    }
    site.finish().await;
}

const QUERIES: [&str; 25] = [
    "",
    " ; ;",
    "-- nothing",
    "/* nothing */;",
    "SELECT 1;;SELECT 2;",
    "INSERT INTO t VALUES (100); SELECT 1/0; INSERT INTO t VALUES (101)",
    "INSERT INTO t VALUES (100); SELEC",
    "BEGIN; INSERT INTO t VALUES (100); COMMIT; SELECT 1/0; INSERT INTO t VALUES (101)",
    "INSERT INTO t VALUES (100); BEGIN; SELECT 1/0",
    "INSERT INTO t VALUES (100); BEGIN; INSERT INTO t VALUES (101)",
    "INSERT INTO t VALUES (100); COMMIT; SELECT 1/0",
    "INSERT INTO t VALUES (100); ROLLBACK; INSERT INTO t VALUES (101)",
    "BEGIN; SELECT 1/0; COMMIT",
    "BEGIN; COMMIT AND CHAIN; INSERT INTO t VALUES (100); ROLLBACK AND CHAIN",
    "COMMIT; SELECT 1",
    "START TRANSACTION READ ONLY",
    "ROLLBACK; BEGIN; BEGIN",
    "COMMIT AND CHAIN",
    "BEGIN; SAVEPOINT x; SELECT 1/0; ROLLBACK TO x; COMMIT",
    "SAVEPOINT x; SELECT 1",
    "SET work_mem = '1MB'; SELECT 1/0",
    "SET work_mem = '1MB'; COMMIT; SELECT 1/0",
    "BEGIN; SET work_mem = '1MB'; SHOW work_mem; ROLLBACK; SHOW work_mem",
    "SELECT 1; VACUUM t",
    "VACUUM t",
];

#[tokio::test]
async fn several_statements_of_a_query_are_one_transaction() {
    let mut site = Pair::start().await;
    for query in QUERIES {
        for begin in ["", "BEGIN", "BEGIN; INSERT INTO t VALUES (99)", "BEGIN; SELECT 1/0"] {
            site.same(&format!("{begin:?} {query:?}"), async |talk| {
                talk.ask(begin).await;
                talk.ask(query).await;
                talk.ask("SELECT a FROM t WHERE a >= 99").await;
                talk.ask("COMMIT").await;
                talk.ask("SELECT a FROM t WHERE a >= 99; SHOW work_mem").await;
            })
            .await;
        }
    }
    for empty in ["", ";", "  -- nothing"] {
        site.same(&format!("extended {empty:?}"), async |talk| {
            talk.client.parse("s", empty).describe(b'S', "s").bind("p", "s", &[]).describe(b'P', "p");
            talk.client.execute("p", 0).execute("p", 0).close(b'P', "p").sync();
            talk.exchange(1).await;
            talk.unit(empty);
            talk.unit("SELECT 1");
            talk.unit(empty).sync();
            talk.exchange(1).await;
            talk.ask("BEGIN; SELECT 1/0").await;
            talk.ask(empty).await;
            talk.client.bind("", "s", &[]).execute("", 0).sync();
            talk.exchange(1).await;
            talk.unit(empty).sync();
            talk.exchange(1).await;
            talk.ask("ROLLBACK").await;
        })
        .await;
    }
    site.finish().await;
}
