//! Cuts between Bulkhead and the server while a read is under way: of whatever nothing has come back to the client, it gets
//! the answer all the same, and one answer only.

use super::{LANES, Lane, Lanes};
use crate::support::{RawClient, eventually, values};

/// A read, as it is said, after a statement `one` was prepared and described.
type Say = fn(&mut RawClient);

/// Of the server's first message so many bytes come before the client can have any of it.
const HEADER_BYTES: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Cut {
    ToServer(usize),
    ToProxy(usize),
}

/// `others` is what another session does on the connection before.
async fn try_every_cut(others: &'static [&'static str], say: Say) {
    let mut lanes = Lanes::start(LANES).await;
    for lane in &lanes.lanes {
        wait_until_reads_are_known(lane).await;
    }
    let lane = &mut lanes.lanes[0];
    let mut client = prepare(lane, others).await;
    lane.to_server.count();
    say(&mut client);
    client.flush().await;
    assert_eq!(values(&client.read_until_ready().await), ["2", "1"], "nothing is cut");
    let (to_server, to_proxy) = lane.to_server.counted();
    drop(client);
    let cuts = (0..to_server).map(Cut::ToServer).chain((0..to_proxy).map(Cut::ToProxy));
    let answered = lanes
        .try_all(cuts, async move |lane: &mut Lane, cut| {
            let mut client = prepare(lane, others).await;
            match cut {
                Cut::ToServer(bytes) => lane.to_server.cut_after(Some(bytes), None),
                Cut::ToProxy(bytes) => lane.to_server.cut_after(None, Some(bytes)),
            }
            say(&mut client);
            client.flush().await;
            let mut answer = Vec::new();
            while answer.last().is_none_or(|message: &crate::support::Message| message.tag != b'Z') {
                let Some(message) = client.try_read_message().await else { break };
                answer.push(message);
            }
            lane.to_server.cut_after(None, None);
            let is_whole = answer.iter().all(|message| message.tag != b'E')
                && answer.last().is_some_and(|message| message.tag == b'Z');
            let must_be = matches!(cut, Cut::ToServer(_) | Cut::ToProxy(..=HEADER_BYTES));
            assert!(is_whole || !must_be, "{cut:?}: {answer:?}");
            if is_whole {
                assert_eq!(values(&answer), ["2", "1"], "{cut:?}");
                assert_eq!(client.query_value("SELECT 7").await, "7", "{cut:?}: its own answer");
            }
            drop(client);
            lane.check_next(&cut).await;
            is_whole
        })
        .await;
    assert!(answered.contains(&false), "no answer was cut");
}

async fn prepare(lane: &Lane, others: &[&str]) -> RawClient {
    let mut client = lane.client().await;
    client.query_value("SELECT 1").await;
    client.parse("one", "SELECT count(*) FROM generate_series(1, 2) n").describe(b'S', "one");
    client.finish().await;
    if !others.is_empty() {
        let mut other = lane.client().await;
        for sql in others {
            other.ask(sql).await;
        }
        other.terminate().await;
        assert_eq!(other.try_read_message().await, None);
    }
    client
}

async fn wait_until_reads_are_known(lane: &Lane) {
    let read = "bulkhead_requests_total{class=\"read\",pool=\"primary\",reason=\"read_only\"}";
    let mut client = lane.client().await;
    eventually("reads are known as such", super::FREE_WITHIN, async || {
        client.ask("SELECT count(*) FROM generate_series(1, 3) n").await;
        lane.proxy.metric(read).await.filter(|count| *count > 0.0)
    })
    .await;
}

#[tokio::test]
async fn a_query() {
    try_every_cut(&[], |client| {
        client.message(b'Q', b"SELECT count(*) FROM generate_series(1, 2) n; SELECT 1\0");
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_of_a_prepared_statement() {
    try_every_cut(&[], pipeline).await;
}

/// The connection has lost what the client was told of its statement: that is confirmed first, and the rest is sent then.
#[tokio::test]
async fn a_prepared_statement_that_has_to_be_confirmed() {
    try_every_cut(&["DISCARD ALL"], pipeline).await;
}

fn pipeline(client: &mut RawClient) {
    client.bind("", "one", &[]).execute("", 0);
    client.parse("", "SELECT 1").bind("", "", &[]).execute("", 0).sync();
}
