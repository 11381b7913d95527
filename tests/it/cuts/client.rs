//! Cuts between a client and Bulkhead. What came whole is run to its end, what came in part is not run at all; the
//! client's connection to the server is free again soon, and whoever gets it finds it as new.

use std::{pin::Pin, time::Duration};

use super::{LANES, Lane, Lanes};
use crate::support::{RawClient, eventually};

/// A client that counts what it sends, and which rows that must have brought about.
struct Talk {
    client: RawClient,
    sent: usize,
    /// Bytes sent by which a row is to come about: each of them is one row.
    rows: Vec<usize>,
    /// Rows of which the client was told that they are there.
    told: usize,
    is_cut: bool,
}

impl Talk {
    fn new(client: RawClient) -> Self {
        Self { client, sent: 0, rows: Vec::new(), told: 0, is_cut: false }
    }

    /// Sends in one write. With the last byte of it so many rows come about.
    async fn say(&mut self, rows: usize, build: impl FnOnce(&mut RawClient)) {
        if self.is_cut {
            return;
        }
        build(&mut self.client);
        self.sent += self.client.pending_bytes();
        self.rows.extend(std::iter::repeat_n(self.sent, rows));
        self.client.try_flush().await;
    }

    async fn query(&mut self, rows: usize, sql: &str) {
        let body = format!("{sql}\0");
        self.say(rows, |client| {
            client.message(b'Q', body.as_bytes());
        })
        .await;
        self.hear(b'Z').await;
        self.is_told_of(self.rows.len());
    }

    /// Reads to a message of this kind, or to the end.
    async fn hear(&mut self, last: u8) {
        while !self.is_cut {
            match self.client.try_read_message().await {
                Some(message) => {
                    assert_ne!(message.tag, b'E', "{message:?}");
                    if message.tag == last {
                        break;
                    }
                }
                None => self.is_cut = true,
            }
        }
    }

    /// If it has heard all so far, so many rows are there.
    fn is_told_of(&mut self, rows: usize) {
        if !self.is_cut {
            self.told = rows;
        }
    }
}

/// Something that a client does.
#[derive(Clone, Copy)]
struct Phase {
    /// What it has done before the cut may begin.
    before: &'static [&'static str],
    act: for<'a> fn(&'a mut Talk) -> Pin<Box<dyn Future<Output = ()> + 'a>>,
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After so many bytes of the client's.
    ToProxy(usize),
    /// After so many bytes for the client.
    ToClient(usize),
}

/// Runs the phase without a cut to learn how long it is, and then with each cut.
async fn try_every_cut(phase: Phase) {
    let mut lanes = Lanes::start(LANES).await;
    let lane = &mut lanes.lanes[0];
    let mut talk = prepare(lane, phase).await;
    lane.to_client.count();
    (phase.act)(&mut talk).await;
    assert!(!talk.is_cut && talk.told == talk.rows.len(), "nothing is cut");
    let (to_proxy, to_client) = lane.to_client.counted();
    assert_eq!(to_proxy, talk.sent);
    let rows_of_all = talk.rows.len();
    drop(talk);
    assert_eq!(lane.rows().await, rows_of_all, "nothing is cut");
    let cuts = (0..=to_proxy).map(Cut::ToProxy).chain((0..to_client).map(Cut::ToClient));
    let seen = lanes.try_all(cuts, async move |lane: &mut Lane, cut| try_cut(lane, phase, cut).await).await;
    assert_eq!(seen.len(), to_proxy + 1 + to_client);
    // Whole and in part, told and not told: all of it was there.
    assert!(seen.iter().any(|(rows, _)| *rows == 0) && seen.iter().any(|(rows, _)| *rows == rows_of_all));
    assert!(seen.iter().any(|(rows, told)| rows != told), "no answer was cut");
}

/// Rows that are there afterwards, and how many the client was told of.
async fn try_cut(lane: &mut Lane, phase: Phase, cut: Cut) -> (usize, usize) {
    lane.observer.ask("TRUNCATE cut").await;
    let mut talk = prepare(lane, phase).await;
    match cut {
        Cut::ToProxy(bytes) => lane.to_client.cut_after(Some(bytes), None),
        Cut::ToClient(bytes) => lane.to_client.cut_after(None, Some(bytes)),
    }
    (phase.act)(&mut talk).await;
    lane.to_client.cut_after(None, None);
    let Talk { client, rows, told, is_cut, sent } = talk;
    let came_by = match cut {
        Cut::ToProxy(bytes) => bytes,
        Cut::ToClient(_) => sent,
    };
    let expected = rows.iter().filter(|needed| **needed <= came_by).count();
    assert!(is_cut || came_by == sent, "{cut:?}");
    assert!(told <= expected, "{cut:?}: told of {told} rows, and sent only what makes {expected}");
    drop(client);
    lane.proxy.wait_for_metric("bulkhead_clients", 0.0).await;
    assert_eq!(lane.rows().await, expected, "{cut:?}: of {sent} bytes");
    lane.check_next(&cut).await;
    (expected, told)
}

async fn prepare(lane: &Lane, phase: Phase) -> Talk {
    let mut client = lane.client_to_be_cut().await;
    // The connection is there, and has no settings to be changed.
    client.query_value("SELECT 1").await;
    for sql in phase.before {
        let answer = client.ask(sql).await;
        assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
    }
    Talk::new(client)
}

#[tokio::test]
async fn a_statement() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| Box::pin(async move { talk.query(1, "INSERT INTO cut VALUES (1)").await }),
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_what_was_idle_in_transaction() {
    try_every_cut(Phase {
        before: &[
            "BEGIN",
            "SET app.who = 'first'; SELECT pg_advisory_xact_lock(1)",
            "INSERT INTO cut VALUES (1)",
        ],
        act: |talk| Box::pin(async move { talk.query(1, "COMMIT").await }),
    })
    .await;
}

#[tokio::test]
async fn a_transaction_whose_begin_is_deferred() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                talk.query(0, "BEGIN").await;
                talk.query(0, "INSERT INTO cut VALUES (1)").await;
                talk.query(1, "END").await;
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_transaction_in_one_write() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                talk.say(0, |client| {
                    client.message(b'Q', b"BEGIN\0").message(b'Q', b"INSERT INTO cut VALUES (1), (2)\0");
                })
                .await;
                talk.say(2, |client| {
                    client.message(b'Q', b"COMMIT\0");
                })
                .await;
                for _ in 0..3 {
                    talk.hear(b'Z').await;
                }
                talk.is_told_of(2);
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_pipeline() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                talk.say(0, |client| {
                    client.parse("s", "INSERT INTO cut VALUES (1)").bind("", "s", &[]).execute("", 0);
                    client.flush_message();
                })
                .await;
                talk.hear(b'C').await;
                talk.say(2, |client| {
                    client.bind("", "s", &[]).execute("", 0).sync();
                })
                .await;
                talk.hear(b'Z').await;
                talk.is_told_of(2);
            })
        },
    })
    .await;
}

/// Each of the two is whole by itself.
#[tokio::test]
async fn requests_on_top_of_each_other() {
    fn unit(client: &mut RawClient) {
        client.parse("", "INSERT INTO cut VALUES (1)").bind("", "", &[]).execute("", 0).sync();
    }
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                talk.say(1, unit).await;
                talk.say(1, unit).await;
                talk.hear(b'Z').await;
                talk.is_told_of(1);
                talk.hear(b'Z').await;
                talk.is_told_of(2);
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_copy_in() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                talk.say(0, |client| {
                    client.message(b'Q', b"COPY cut FROM STDIN\0");
                })
                .await;
                talk.hear(b'G').await;
                talk.say(0, |client| {
                    client.message(b'd', b"1\n").message(b'd', b"2\n3").message(b'd', b"\n");
                })
                .await;
                talk.say(3, |client| {
                    client.message(b'c', b"");
                })
                .await;
                talk.hear(b'Z').await;
                talk.is_told_of(3);
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_copy_out() {
    try_every_cut(Phase {
        before: &["SET app.who = 'first'"],
        act: |talk| {
            Box::pin(async move {
                let sql = "COPY (INSERT INTO cut SELECT generate_series(1, 12) RETURNING a) TO STDOUT";
                talk.query(12, sql).await;
            })
        },
    })
    .await;
}

/// What is not proven to leave nothing: the server is asked afterwards what was left, and resets the connection before
/// somebody else has it.
#[tokio::test]
async fn a_statement_after_which_the_connection_is_settled() {
    try_every_cut(Phase {
        before: &[],
        act: |talk| {
            Box::pin(async move {
                let sql = "DO $$ BEGIN INSERT INTO cut VALUES (1); RAISE NOTICE 'of the first'; \
                    PERFORM set_config('app.who', 'first', false); END $$";
                talk.query(1, sql).await;
                talk.query(1, "SET work_mem = '1MB'; INSERT INTO cut VALUES (2)").await;
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_statement_of_a_pinned_session() {
    try_every_cut(Phase {
        before: &[
            "CREATE TEMP TABLE mine (a int)",
            "SELECT pg_advisory_lock(7)",
            "PREPARE own AS SELECT 1",
            "DECLARE held CURSOR WITH HOLD FOR SELECT 1",
        ],
        act: |talk| {
            Box::pin(async move {
                talk.query(1, "INSERT INTO mine VALUES (1); INSERT INTO cut SELECT a FROM mine").await;
            })
        },
    })
    .await;
}

/// The way of a CancelRequest is cut: in part it cancels nothing, whole it cancels what its session does.
#[tokio::test]
async fn a_cancel() {
    let lanes = Lanes::start(LANES).await;
    let attempt = async |lane: &mut Lane, bytes: usize| {
        lane.observer.ask("TRUNCATE cut").await;
        let mut client = lane.client().await;
        let (process, secret) = client.key().clone();
        client.query("INSERT INTO cut SELECT 1 FROM pg_sleep(0.4)").await;
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND state = 'active' AND query LIKE 'INSERT%'";
        let observer = &mut lane.observer;
        let is_running = async || (observer.query_value(runs).await == "1").then_some(());
        eventually("the statement runs", Duration::from_secs(10), is_running).await;
        lane.to_client.cut_after(Some(bytes), None);
        RawClient::cancel(lane.to_client.port(), process, &secret).await;
        lane.to_client.cut_after(None, None);
        let code = client.read_error().await.map(|[code, ..]| code);
        let expected = (bytes == 16).then(|| "57014".to_owned());
        assert_eq!(code, expected, "{bytes} bytes of 16");
        assert_eq!(lane.rows().await, usize::from(code.is_none()), "{bytes} bytes of 16");
        assert_eq!(client.query_value("SELECT 1").await, "1");
        drop(client);
        lane.check_next(&bytes).await;
    };
    assert_eq!(lanes.try_all(0..=16, attempt).await.len(), 17);
}

/// A client is cut while its cancel is under way: nobody else is hit by that.
#[tokio::test]
async fn an_answer_that_a_cancel_brings_about() {
    let lanes = Lanes::start(LANES).await;
    let attempt = async |lane: &mut Lane, bytes: usize| {
        lane.observer.ask("TRUNCATE cut").await;
        let mut client = lane.client_to_be_cut().await;
        let (process, secret) = client.key().clone();
        lane.to_client.cut_after(None, Some(bytes));
        client.query("INSERT INTO cut SELECT 1 FROM pg_sleep(30)").await;
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND state = 'active' AND query LIKE 'INSERT%'";
        let observer = &mut lane.observer;
        let is_running = async || (observer.query_value(runs).await == "1").then_some(());
        eventually("the statement runs", Duration::from_secs(10), is_running).await;
        RawClient::cancel(lane.proxy.port(), process, &secret).await;
        let mut talk = Talk::new(client);
        while !talk.is_cut {
            match talk.client.try_read_message().await {
                Some(message) if message.tag == b'Z' => break,
                Some(_) => {}
                None => talk.is_cut = true,
            }
        }
        lane.to_client.cut_after(None, None);
        lane.check_next(&bytes).await;
        drop(talk.client);
        assert_eq!(lane.rows().await, 0, "{bytes}");
        talk.is_cut
    };
    // Longer than the answer.
    let cut = lanes.try_all((0..200).step_by(2), attempt).await;
    assert!(
        cut.contains(&true) && cut.contains(&false),
        "the answer was cut at its start, and not at its end"
    );
}

/// A client that has stopped reading vanishes in the middle of much more than any buffer takes.
#[tokio::test]
async fn a_copy_out_that_nobody_takes() {
    let lanes = Lanes::start(2).await;
    let attempt = async |lane: &mut Lane, sql: &str| {
        let mut client = lane.client_to_be_cut().await;
        client.query(sql).await;
        // The relay goes on taking: it is the client that does not.
        client.peek().await;
        lane.to_client.stall(true);
        let runs = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
            AND wait_event = 'ClientWrite'";
        let observer = &mut lane.observer;
        let waits = async || (observer.query_value(runs).await == "1").then_some(());
        eventually("the server waits for who takes it", Duration::from_secs(10), waits).await;
        lane.to_client.cut();
        lane.to_client.stall(false);
        drop(client);
        assert_eq!(lane.rows().await, 0, "{sql}");
        lane.check_next(&sql).await;
    };
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 1000000)";
    let texts = [format!("COPY ({rows}) TO STDOUT"), rows.to_owned()].map(|text| &*text.leak());
    assert_eq!(lanes.try_all(texts.into_iter(), attempt).await.len(), 2);
}
