//! Every conversation about a job table goes as it would with the primary, to the byte.

use std::collections::HashMap;

use super::{Servers, array, bind, numbers, parse};
use crate::support::{Message, RawClient};

/// All columns whose types are not PostgreSQL's own, and some that are.
const COLUMNS: &str = "id, state, states, step, steps, seen, span, note, notes, tags, args, \
    ROW(1, state, steps) AS record, ARRAY[ROW(state, 'x')] AS records, oban_jobs AS whole";

/// The messages of an answer but for what comes at any time.
fn told(answer: Vec<Message>) -> Vec<(char, Vec<u8>)> {
    let is_reply = |message: &Message| !matches!(message.tag, b'S' | b'N');
    answer
        .into_iter()
        .filter(is_reply)
        .map(|message| (char::from(message.tag), message.body.to_vec()))
        .collect()
}

type Numbers = HashMap<String, u32>;

/// One way to say it: what is sent up to each ReadyForQuery.
type Turns = Vec<fn(&mut RawClient, &Numbers)>;

fn select(behind: &str) -> String {
    format!("SELECT {COLUMNS} FROM oban_jobs {behind} ORDER BY id")
}

fn query(client: &mut RawClient, sql: &str) {
    client.message(b'Q', &[sql.as_bytes(), b"\0"].concat());
}

/// Simple queries, cursors.
fn simple() -> Vec<(&'static str, Turns)> {
    vec![
        ("a query", vec![|client, _| query(client, &select(""))]),
        (
            "two statements",
            vec![|client, _| {
                query(client, &format!("SELECT state FROM oban_jobs; {}", select("WHERE id < 3")));
            }],
        ),
        (
            "a binary cursor",
            vec![
                |client, _| query(client, "BEGIN"),
                |client, _| query(client, &format!("DECLARE c BINARY CURSOR FOR {}", select(""))),
                |client, _| query(client, "FETCH 2 FROM c"),
                |client, _| {
                    bind(client.parse("", "FETCH 2 FROM c"), "", "", &[]).execute("", 0).sync();
                },
                |client, _| query(client, "COMMIT"),
            ],
        ),
    ]
}

/// The extended protocol, with and without a Describe.
fn extended() -> Vec<(&'static str, Turns)> {
    vec![
        (
            "all at once",
            vec![|client, _| {
                bind(client.parse("", &select("")), "", "", &[]).describe(b'P', "").execute("", 0).sync();
            }],
        ),
        (
            "nothing is described",
            vec![|client, _| {
                bind(client.parse("", &select("")), "", "", &[]).execute("", 0).sync();
            }],
        ),
        (
            "text",
            vec![|client, _| {
                client.parse("", &select("")).bind("", "", &[]).execute("", 0).sync();
            }],
        ),
        (
            "a named statement",
            vec![
                |client, _| {
                    client.parse("s", &select("")).describe(b'S', "s").sync();
                },
                |client, _| {
                    bind(client, "", "s", &[]).execute("", 0).sync();
                },
                |client, _| {
                    bind(client, "", "s", &[]).execute("", 0).bind("", "s", &[]).execute("", 0).sync();
                },
            ],
        ),
        (
            "portals in pieces, in turns, and in text",
            vec![
                |client, _| query(client, "BEGIN"),
                |client, _| {
                    client.parse("s", &select("")).parse("t", "SELECT tags, id FROM oban_jobs");
                    bind(bind(client, "p", "s", &[]), "q", "t", &[]).bind("r", "s", &[]);
                    client
                        .describe(b'P', "p")
                        .describe(b'P', "q")
                        .execute("p", 1)
                        .execute("q", 1)
                        .execute("r", 1);
                    client.describe(b'P', "p").execute("r", 1).execute("p", 1).sync();
                },
                |client, _| {
                    client
                        .execute("p", 1)
                        .execute("r", 0)
                        .execute("q", 1)
                        .execute("p", 0)
                        .execute("p", 0)
                        .sync();
                },
                |client, _| query(client, "ROLLBACK"),
            ],
        ),
        (
            "an error in between",
            vec![
                |client, _| {
                    bind(client.parse("", &select("WHERE id / 0 = 1")), "", "", &[]).execute("", 0).sync();
                },
                |client, _| {
                    client.execute("nothing", 0).sync();
                },
                |client, _| {
                    bind(client.parse("", &select("")), "", "", &[]).execute("", 0).sync();
                },
            ],
        ),
    ]
}

/// Statements with parameters, whose types the client names, or is told.
fn parameters() -> Vec<(&'static str, Turns)> {
    vec![
        (
            "named types",
            vec![|client, numbers| {
                let (state, states) = (numbers["oban_job_state"], numbers["_oban_job_state"]);
                let sql = select("WHERE state = $1 AND state = ANY ($2) AND states = $3");
                parse(client, "", &sql, &[state, states, states]).describe(b'S', "");
                let any = array(state, &["available", "completed"]);
                bind(client, "", "", &[b"available", &any, &any]).execute("", 0).sync();
            }],
        ),
        (
            "told types",
            vec![
                |client, _| {
                    let sql = "UPDATE oban_jobs SET states = $1, state = $2, steps = $3, note = $4 WHERE id = 1 \
                        RETURNING states, state, steps, note";
                    client.parse("u", sql).describe(b'S', "u").sync();
                },
                |client, _| query(client, "BEGIN"),
                |client, numbers| {
                    let (state, step) = (numbers["oban_job_state"], numbers["job_step"]);
                    let mut record = [3_u32, 25, 1].map(u32::to_be_bytes).concat();
                    record.push(b'n');
                    record.extend_from_slice(&[state, 9].map(u32::to_be_bytes).concat());
                    record.extend_from_slice(b"completed");
                    let inner = array(state, &["discarded"]);
                    record.extend_from_slice(
                        &[numbers["_oban_job_state"], inner.len() as u32].map(u32::to_be_bytes).concat(),
                    );
                    record.extend_from_slice(&inner);
                    let mut steps =
                        [1_u32, 0, step, 1, 1, record.len() as u32].map(u32::to_be_bytes).concat();
                    steps.extend_from_slice(&record);
                    let states = array(state, &["executing"]);
                    bind(client, "", "u", &[&states, b"completed", &steps, b"told"]).execute("", 0).sync();
                },
                |client, _| query(client, "ROLLBACK"),
            ],
        ),
    ]
}

/// A transaction that reads jobs and uses a table of the application, whose values are nobody's to change.
fn both() -> Vec<(&'static str, Turns)> {
    const OWN: &str = "SELECT a, b, ARRAY[b] AS list, other_4 AS whole FROM other_4 ORDER BY a";
    vec![(
        "one transaction",
        vec![
            |client, _| query(client, "BEGIN"),
            |client, _| {
                bind(client.parse("", OWN), "", "", &[]).execute("", 0).sync();
            },
            |client, _| {
                bind(client.parse("s", &select("")), "", "s", &[]).execute("", 0).sync();
            },
            |client, _| {
                let sql = "UPDATE other_4 SET a = a RETURNING b, ARRAY[b], other_4";
                bind(client.parse("u", sql), "", "u", &[]).describe(b'P', "").execute("", 0).sync();
            },
            |client, _| {
                bind(client, "", "s", &[]).execute("", 0).sync();
            },
            |client, numbers| {
                parse(client, "", "SELECT $1", &[numbers["_other_1"]]);
                let list = array(numbers["other_1"], &["x"]);
                bind(client, "", "", &[&list]).describe(b'P', "").execute("", 0).sync();
            },
            |client, _| query(client, "COMMIT"),
            |client, _| {
                bind(client.parse("", OWN), "", "", &[]).execute("", 0).sync();
            },
        ],
    )]
}

/// What is said, and all that is answered.
async fn answers(client: &mut RawClient, turns: &Turns, numbers: &Numbers) -> Vec<(char, Vec<u8>)> {
    let mut all = Vec::new();
    for turn in turns {
        turn(client, numbers);
        client.flush().await;
        all.extend(told(client.read_until_ready().await));
    }
    all
}

#[tokio::test]
async fn every_conversation_goes_as_with_the_primary() {
    let servers = Servers::start().await;
    let numbers = numbers(&servers.primary).await;
    let conversations = || simple().into_iter().chain(extended()).chain(parameters()).chain(both());
    let mut expected = Vec::new();
    for (_, turns) in conversations() {
        let mut direct = RawClient::app(servers.primary.port()).await;
        expected.push(answers(&mut direct, &turns, &numbers).await);
    }
    // From here on only the job database has the rows.
    servers.primary.query("TRUNCATE oban_jobs").await;
    for round in 0..2 {
        for ((name, turns), expected) in conversations().zip(&expected) {
            let mut client = servers.client().await;
            let answered = answers(&mut client, &turns, &numbers).await;
            let tags = |answer: &[(char, Vec<u8>)]| answer.iter().map(|(tag, _)| *tag).collect::<String>();
            assert_eq!(tags(&answered), tags(expected), "{name}, round {round}: {answered:?}");
            for (got, wanted) in answered.iter().zip(expected) {
                if wanted.0 != 'E' {
                    assert_eq!(got, wanted, "{name}, round {round}");
                }
            }
        }
    }
}

/// Results of many rows come in many pieces, cut anywhere.
#[tokio::test]
async fn a_long_result_is_told_in_the_primarys_numbers() {
    let servers = Servers::start().await;
    let more = "INSERT INTO oban_jobs (id, worker, inserted_at, scheduled_at, steps) SELECT n + 10, 'many', '2026-01-01', '2026-01-01', \
        array_fill(ROW(repeat('x', n % 300), 'scheduled', '{retryable,completed}')::job_step, ARRAY[n % 20]) \
        FROM generate_series(1, 3000) n";
    for server in [&servers.primary, &servers.jobs] {
        server.query(more).await;
    }
    let say = |client: &mut RawClient| {
        let sql = "SELECT steps, states, id FROM oban_jobs ORDER BY id";
        bind(client.parse("", sql), "", "", &[]).execute("", 0).sync();
    };
    let mut direct = RawClient::app(servers.primary.port()).await;
    say(&mut direct);
    direct.flush().await;
    let expected = told(direct.read_until_ready().await);
    servers.primary.query("TRUNCATE oban_jobs").await;
    let mut client = servers.client().await;
    say(&mut client);
    client.flush().await;
    assert!(told(client.read_until_ready().await) == expected);
    assert!(expected.len() > 3000);
}
