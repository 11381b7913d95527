//! Cuts between Bulkhead and the server.
//!
//! Told that it was done, it was; told that it was rolled back, it was. Only what says itself that the outcome is unknown
//! may be either. And the session, if it goes on, goes on in good order.

use std::pin::Pin;

use super::{FREE_WITHIN, LANES, LEAVES, Lane, Lanes};
use crate::support::{Message, RawClient, eventually};

/// Of what is sent to the server every so many bytes are tried: in the middle of a message one is like another.
const STRIDE: usize = 4;

/// In each direction about so many cuts are tried at most, where more than as many bytes go.
const CUTS: usize = 150;

/// What the client was told of what it asked for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    /// It has failed, and nothing of it is there.
    Undone,
    Unknown,
}

/// Reads to the next ReadyForQuery, or the end.
async fn hear(client: &mut RawClient) -> (Told, Vec<Message>) {
    let mut answer = Vec::new();
    while let Some(message) = client.try_read_message().await {
        let is_last = message.tag == b'Z';
        answer.push(message);
        if is_last {
            break;
        }
    }
    (judge(&answer), answer)
}

fn judge(answer: &[Message]) -> Told {
    let is_over = answer.last().is_some_and(|message| message.tag == b'Z');
    let error = answer.iter().find(|message| message.tag == b'E');
    let says_unknown = |error: &Message| {
        [b'M', b'D'].into_iter().filter_map(|field| error.field(field)).any(|text| text.contains("unknown"))
    };
    match error {
        Some(error) if says_unknown(error) => Told::Unknown,
        Some(_) => Told::Undone,
        None if is_over => Told::Done,
        None => Told::Unknown,
    }
}

/// What a client does, and what it was told of that. The port is the proxy's.
type Act = for<'a> fn(&'a mut RawClient, u16) -> Pin<Box<dyn Future<Output = Told> + 'a>>;

/// One way of writing a row: what comes before the cut may begin, and what comes from then on.
#[derive(Clone, Copy)]
struct Phase {
    before: &'static [&'static str],
    /// What another session does on the connection before the cut may begin. Then it leaves.
    left_behind: &'static [&'static str],
    act: Act,
}

/// Where the connection is cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    ToServer(usize),
    ToProxy(usize),
}

/// Runs the phase without a cut to learn how long it is, and then with each cut.
async fn try_every_cut(phase: Phase) {
    try_cuts(phase, Told::Done).await;
}

async fn try_cuts(phase: Phase, usual: Told) {
    let mut lanes = Lanes::start(LANES).await;
    let lane = &mut lanes.lanes[0];
    let (to_server, to_proxy) = {
        let mut client = prepare(lane, phase).await;
        lane.to_server.count();
        let connections = lane.to_server.open();
        assert_eq!((phase.act)(&mut client, lane.proxy.port()).await, usual, "nothing is cut");
        // That of a cancel may be open still.
        let is_one = async || (lane.to_server.open() == connections).then_some(());
        eventually("it is the same connection", FREE_WITHIN, is_one).await;
        lane.to_server.counted()
    };
    assert_eq!(lane.rows().await, usize::from(usual == Told::Done), "nothing is cut");
    let strides = [STRIDE.max(to_server / CUTS), (to_proxy / CUTS).max(1)];
    let cuts = (0..to_server).step_by(strides[0]).map(Cut::ToServer);
    let cuts = cuts.chain((0..to_proxy).step_by(strides[1]).map(Cut::ToProxy));
    let told = lanes.try_all(cuts, async move |lane: &mut Lane, cut| try_cut(lane, phase, cut).await).await;
    assert!(told.iter().any(|told| *told != Told::Done), "no cut was noticed");
}

async fn try_cut(lane: &mut Lane, phase: Phase, cut: Cut) -> Told {
    lane.observer.ask("TRUNCATE cut").await;
    let mut client = prepare(lane, phase).await;
    match cut {
        Cut::ToServer(bytes) => lane.to_server.cut_after(Some(bytes), None),
        Cut::ToProxy(bytes) => lane.to_server.cut_after(None, Some(bytes)),
    }
    let told = (phase.act)(&mut client, lane.proxy.port()).await;
    lane.to_server.cut_after(None, None);
    let rows = lane.rows().await;
    match told {
        Told::Done => assert_eq!(rows, 1, "{cut:?}: the client was told that it is done"),
        Told::Undone => assert_eq!(rows, 0, "{cut:?}: the client was told that nothing is there"),
        Told::Unknown => assert!(rows <= 1, "{cut:?}: done twice"),
    }
    drop(client);
    // The next one, who gets another connection, is served.
    lane.check_next(&cut).await;
    told
}

async fn prepare(lane: &Lane, phase: Phase) -> RawClient {
    let mut client = lane.client().await;
    // Whoever was here before has left: the connection is there, and has no settings to be changed.
    client.query_value("SELECT 1").await;
    for sql in phase.before {
        client.ask(sql).await;
    }
    if !phase.left_behind.is_empty() {
        let mut other = lane.client().await;
        for sql in phase.left_behind {
            let answer = other.ask(sql).await;
            assert!(answer.iter().all(|message| message.tag != b'E'), "{sql}: {answer:?}");
        }
        other.terminate().await;
        assert_eq!(other.try_read_message().await, None);
    }
    client
}

/// After an error in a transaction it is to be ended, whatever the client is told.
async fn end(client: &mut RawClient, told: Told, answer: &[Message]) -> Told {
    if answer.last().is_some_and(|message| message.tag == b'Z' && message.body[0] != b'I') {
        client.query("ROLLBACK").await;
        hear(client).await;
    }
    told
}

#[tokio::test]
async fn a_statement() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.query("INSERT INTO cut VALUES (1)").await;
                hear(client).await.0
            })
        },
    })
    .await;
}

#[tokio::test]
async fn an_extended_statement() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.parse("s", "INSERT INTO cut VALUES (1)").bind("", "s", &[]).execute("", 0).sync();
                client.flush().await;
                let (told, answer) = hear(client).await;
                if told != Told::Done && answer.last().is_some_and(|message| message.tag == b'Z') {
                    // Its Parse has failed with it: the name is free, unless it was told to be taken.
                    let parsed = answer.iter().any(|message| message.tag == b'1');
                    client.parse("s", "SELECT 1").sync().flush().await;
                    let (again, answer) = hear(client).await;
                    assert_eq!(again != Told::Done, parsed, "{answer:?}");
                }
                told
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_commit() {
    try_every_cut(Phase {
        before: &["BEGIN", "INSERT INTO cut VALUES (1)"],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.query("COMMIT").await;
                let (told, answer) = hear(client).await;
                assert!(answer.iter().all(|message| message.tag != b'C' || &message.body[..] == b"COMMIT\0"));
                end(client, told, &answer).await
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_transaction_from_its_first_statement_on() {
    try_every_cut(Phase {
        before: &["BEGIN"],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.query("INSERT INTO cut VALUES (1)").await;
                let (first, answer) = hear(client).await;
                if first != Told::Done {
                    let is_open = answer.last().is_some_and(|message| message.tag == b'Z');
                    assert!(first == Told::Undone || !is_open, "no COMMIT was sent: {answer:?}");
                    return end(client, first, &answer).await;
                }
                client.query("COMMIT").await;
                let (told, answer) = hear(client).await;
                end(client, told, &answer).await
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_pipeline() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client
                    .parse("", "INSERT INTO cut VALUES (1)")
                    .bind("", "", &[])
                    .execute("", 0)
                    .flush_message();
                client.flush().await;
                let mut first = Vec::new();
                while let Some(message) = client.try_read_message().await {
                    first.push(message);
                    if matches!(first.last().map(|message| message.tag), Some(b'C' | b'E')) {
                        break;
                    }
                }
                client.sync().try_flush().await;
                let (told, _) = hear(client).await;
                if first.iter().any(|message| message.tag == b'E') { judge(&first) } else { told }
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_copy() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.query("COPY cut FROM STDIN").await;
                match client.try_read_message().await {
                    Some(message) if message.tag == b'G' => {}
                    Some(message) if message.tag == b'E' => return Told::Unknown,
                    _ => return Told::Unknown,
                }
                client.message(b'd', b"1\n").message(b'c', b"").try_flush().await;
                hear(client).await.0
            })
        },
    })
    .await;
}

/// `BEGIN` goes as Parse, Bind and Execute, without a Sync, in one write with what follows it.
#[tokio::test]
async fn a_transaction_that_is_opened_by_extended_messages() {
    try_every_cut(Phase {
        before: &["BEGIN"],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.parse("s", "INSERT INTO cut VALUES (1)").bind("", "s", &[]).execute("", 0).sync();
                client.flush().await;
                let (first, answer) = hear(client).await;
                if first != Told::Done {
                    let is_open = answer.last().is_some_and(|message| message.tag == b'Z');
                    assert!(first == Told::Undone || !is_open, "no COMMIT was sent: {answer:?}");
                    return end(client, first, &answer).await;
                }
                client.parse("", "COMMIT").bind("", "", &[]).execute("", 0).sync().flush().await;
                let (told, answer) = hear(client).await;
                end(client, told, &answer).await
            })
        },
    })
    .await;
}

#[tokio::test]
async fn a_copy_out() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                client.query("COPY (INSERT INTO cut VALUES (1) RETURNING repeat('x', 40)) TO STDOUT").await;
                let (told, answer) = hear(client).await;
                let tags = RawClient::tags(&answer);
                assert!(told != Told::Done || tags == "HdcCZ", "{tags}");
                told
            })
        },
    })
    .await;
}

/// The cancel has a connection of its own, which is cut as well.
#[tokio::test]
async fn a_cancel_under_way() {
    let phase = Phase {
        before: &[],
        left_behind: &[],
        act: |client, port| {
            Box::pin(async move {
                let (process, secret) = client.key().clone();
                client.query("INSERT INTO cut SELECT 1 FROM pg_sleep(0.2)").await;
                // Late enough, mostly, to meet the statement; if it does not, the row is there.
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                RawClient::cancel(port, process, &secret).await;
                hear(client).await.0
            })
        },
    };
    try_cuts(phase, Told::Undone).await;
}

/// Another has left what is not proven to leave nothing: the connection is reset (DISCARD ALL, a new seed) before the
/// statement goes out.
#[tokio::test]
async fn a_connection_that_is_handed_over() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[LEAVES],
        act: |client, _| {
            Box::pin(async move {
                let sql = "INSERT INTO cut VALUES (1) RETURNING \
                    concat(current_setting('app.who', true), current_setting('work_mem'))";
                client.query(sql).await;
                let (told, answer) = hear(client).await;
                for row in answer.iter().filter(|message| message.tag == b'D') {
                    assert_eq!(row.columns(), [Some("4MB".to_owned())], "another's settings");
                }
                told
            })
        },
    })
    .await;
}

/// Settings of the session's own are confirmed before its statement goes out.
#[tokio::test]
async fn a_connection_that_gets_settings() {
    try_every_cut(Phase {
        before: &["SET app.who = 'me'; SET work_mem = '2MB'"],
        left_behind: &["SET app.who = 'you'; SET statement_timeout = '10s'"],
        act: |client, _| {
            Box::pin(async move {
                let sql = "INSERT INTO cut VALUES (1) RETURNING concat(current_setting('app.who'), \
                    current_setting('work_mem'), current_setting('statement_timeout'))";
                client.query(sql).await;
                let (told, answer) = hear(client).await;
                for row in answer.iter().filter(|message| message.tag == b'D') {
                    assert_eq!(row.columns(), [Some("me2MB0".to_owned())], "another's settings");
                }
                told
            })
        },
    })
    .await;
}

/// After the answer the server is asked what was left. The session may end by a cut of that, and was told before.
#[tokio::test]
async fn a_connection_that_is_settled() {
    try_every_cut(Phase {
        before: &[],
        left_behind: &[],
        act: |client, _| {
            Box::pin(async move {
                let sql = "DO $$ BEGIN INSERT INTO cut VALUES (1); PERFORM set_config('app.who', '1', false); END $$";
                client.query(sql).await;
                let (told, _) = hear(client).await;
                client.message(b'Q', b"SELECT current_setting('app.who', true)\0").try_flush().await;
                hear(client).await;
                told
            })
        },
    })
    .await;
}
