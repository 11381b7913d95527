//! Cuts while a session listens: a notification that was committed after a LISTEN was acknowledged is told, once, or the
//! session is told that it has lost some, or ends. It is never deaf without knowing.

use super::{LANES, Lane, Lanes};
use crate::support::{Message, RawClient};

/// About so many cuts are tried in each direction.
const CUTS: usize = 120;

#[derive(Clone, Copy, Debug)]
enum Cut {
    ToServer(usize),
    ToProxy(usize),
}

/// What the listener was told, and what became of the session that notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    listens: bool,
    hears: bool,
}

fn is_done(answer: &[Message]) -> bool {
    answer.last().is_some_and(|message| message.tag == b'Z')
        && answer.iter().all(|message| message.tag != b'E')
}

/// Up to ReadyForQuery, or the end.
async fn answer(client: &mut RawClient, sql: &str) -> Vec<Message> {
    client.message(b'Q', format!("{sql}\0").as_bytes()).try_flush().await;
    let mut messages = Vec::new();
    while let Some(message) = client.try_read_message().await {
        let is_last = message.tag == b'Z';
        messages.push(message);
        if is_last {
            break;
        }
    }
    messages
}

/// The payload of a notification.
fn payload(message: &Message) -> Option<String> {
    let mut texts = message.body.get(4..).filter(|_| message.tag == b'A')?.split(|byte| *byte == 0);
    texts.nth(1).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// LISTEN, and a NOTIFY of another session of the proxy's, while the connection may be cut; and one of somebody else when
/// that is over.
async fn listen(lane: &mut Lane, listener: &mut RawClient, heal: impl FnOnce(&Lane)) -> Told {
    let begun = answer(listener, "LISTEN heard").await;
    let listens = is_done(&begun);
    let mut other = lane.client().await;
    let notified = is_done(&answer(&mut other, "NOTIFY heard, 'first'").await);
    heal(lane);
    lane.observer.ask("NOTIFY heard, 'last'").await;
    if !listens {
        let told = begun.iter().any(|message| message.tag == b'E') || begun.is_empty();
        assert!(told, "it was told nothing: {begun:?}");
        return Told { listens, hears: false };
    }
    // Whoever is deaf waits here in vain.
    let mut payloads = Vec::new();
    while payloads.last().is_none_or(|last| last != "last") {
        match listener.try_read_message().await {
            Some(message) if message.tag == b'A' => payloads.extend(payload(&message)),
            Some(message) if message.tag == b'E' => {
                assert_eq!(message.field(b'S').as_deref(), Some("FATAL"), "{message:?}");
                return Told { listens, hears: false };
            }
            Some(message) => panic!("{message:?}"),
            None => return Told { listens, hears: false },
        }
    }
    let firsts = payloads.iter().filter(|payload| *payload == "first").count();
    assert!(firsts <= 1 && (firsts == 1 || !notified), "{payloads:?}, notified: {notified}");
    Told { listens, hears: true }
}

async fn try_every_cut(lanes: Lanes) {
    let mut lanes = lanes;
    let lane = &mut lanes.lanes[0];
    let mut listener = lane.client().await;
    lane.to_server.count();
    let told = listen(lane, &mut listener, |_| {}).await;
    assert_eq!(told, Told { listens: true, hears: true }, "nothing is cut");
    let (to_server, to_proxy) = lane.to_server.counted();
    drop(listener);
    let cuts = (0..to_server).step_by((to_server / CUTS).max(1)).map(Cut::ToServer);
    let cuts = cuts.chain((0..to_proxy).step_by((to_proxy / CUTS).max(1)).map(Cut::ToProxy));
    let told = lanes
        .try_all(cuts, async |lane: &mut Lane, cut| {
            let mut listener = lane.client().await;
            listener.query_value("SELECT 1").await;
            match cut {
                Cut::ToServer(bytes) => lane.to_server.cut_after(Some(bytes), None),
                Cut::ToProxy(bytes) => lane.to_server.cut_after(None, Some(bytes)),
            }
            let told = listen(lane, &mut listener, |lane| lane.to_server.cut_after(None, None)).await;
            listener.message(b'X', b"").try_flush().await;
            drop(listener);
            lane.check_next(&cut).await;
            told
        })
        .await;
    assert!(told.iter().any(|told| told.hears) && told.iter().any(|told| !told.hears), "cuts were noticed");
}

#[tokio::test]
async fn a_listen_and_what_is_heard_by_it() {
    try_every_cut(Lanes::start_with(LANES, super::Build::LISTENING).await).await;
}

/// One listener is cut while notifications come: another one hears all of them.
#[tokio::test]
async fn the_connection_of_one_of_two_who_listen() {
    const COUNT: usize = 3;
    let lanes = Lanes::start_with(LANES, super::Build::LISTENING).await;
    let heard = lanes
        .try_all((0..160).step_by(2), async |lane: &mut Lane, bytes| {
            let (mut cut, mut whole) = (lane.client_to_be_cut().await, lane.client().await);
            for listener in [&mut cut, &mut whole] {
                assert!(is_done(&listener.ask("LISTEN heard").await));
            }
            lane.to_client.cut_after(None, Some(bytes));
            let expected: Vec<String> = (0..COUNT).map(|number| format!("of {number}")).collect();
            for payload in &expected {
                lane.observer.ask(&format!("NOTIFY heard, '{payload}'")).await;
            }
            let mut payloads = Vec::new();
            while payloads.len() < COUNT {
                payloads.extend(payload(&whole.read_message().await));
            }
            assert_eq!(payloads, expected, "{bytes}: the other one");
            let mut payloads = Vec::new();
            while payloads.len() < COUNT {
                let Some(message) = cut.try_read_message().await else { break };
                payloads.extend(payload(&message));
            }
            assert_eq!(payloads, expected[..payloads.len()], "{bytes}: as far as it goes");
            lane.to_client.cut_after(None, None);
            drop((cut, whole));
            lane.check_next(&bytes).await;
            payloads.len()
        })
        .await;
    assert!(heard.contains(&0) && heard.contains(&COUNT), "{heard:?}");
}
