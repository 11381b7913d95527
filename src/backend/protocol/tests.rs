//! A conversation's bytes may come in any pieces: what the client gets and what is known afterwards is the same.

use proptest::prelude::*;

use super::*;
use crate::backend::outgoing::Outgoing;
use crate::backend::statements::StatementId;
use crate::wire::message;

/// One exchange: how it was sent, and the server's bytes.
#[derive(Clone, Debug)]
enum Exchange {
    /// A Query of ours, with a changed parameter, perhaps failing.
    Ours { fails: bool },
    /// A deferred BEGIN in front of a Query; it, or what follows it, may fail.
    Opening { fails_at: Option<u8> },
    /// A Query with rows, perhaps failing after them.
    Simple { rows: u8, fails: bool },
    /// Parse (not sent), our Parse, Bind, Execute, Close (not sent), Sync; failing at one of the four sent.
    Extended { rows: u8, fails_at: Option<u8> },
    /// A Describe of ours, the client's own Describe of a statement and of a portal, Sync; a stale plan at the client's
    /// first, for which the request is sent again or not.
    Described { stale: bool, repeats: bool },
    /// Executes that discard, Sync.
    Discards { tag: &'static str },
}

fn exchange() -> impl Strategy<Value = Exchange> {
    prop_oneof![
        any::<bool>().prop_map(|fails| Exchange::Ours { fails }),
        prop::option::of(0..6_u8).prop_map(|fails_at| Exchange::Opening { fails_at }),
        (0..5_u8, any::<bool>()).prop_map(|(rows, fails)| Exchange::Simple { rows, fails }),
        (0..5_u8, prop::option::of(0..3_u8))
            .prop_map(|(rows, fails_at)| Exchange::Extended { rows, fails_at }),
        any::<(bool, bool)>().prop_map(|(stale, repeats)| Exchange::Described { stale, repeats }),
        prop_oneof![Just("DISCARD ALL"), Just("DEALLOCATE ALL"), Just("SELECT 1")]
            .prop_map(|tag| Exchange::Discards { tag }),
    ]
}

fn error(out: &mut Vec<u8>, text: &str) {
    let report =
        message::Report { severity: "ERROR", code: "22012", message: text, detail: "VFATAL", hint: "" };
    message::error(out, report);
}

fn rows(out: &mut Vec<u8>, count: u8) {
    for row in 0..count {
        message::raw(out, b'D', &vec![row; usize::from(row) * 7 + 2]);
    }
}

/// Notes the exchange as sent; gives the server's bytes and those of them that are the client's.
fn play(protocol: &mut Protocol, exchange: &Exchange) -> (Vec<u8>, Vec<u8>) {
    let (mut server, mut client) = (Vec::new(), Vec::new());
    match *exchange {
        Exchange::Ours { fails } => {
            protocol.sent_ours();
            message::parameter_status(&mut server, "TimeZone", "UTC");
            if fails {
                error(&mut server, "ours");
            } else {
                message::command_complete(&mut server, "SET");
            }
            message::ready(&mut server, TxStatus::Idle);
        }
        Exchange::Opening { fails_at } => {
            protocol.sends_opening(2, 0);
            protocol.sent_simple();
            let begun: fn(&mut Vec<u8>) = |out| message::command_complete(out, "BEGIN");
            let replies = [message::parse_complete as fn(&mut Vec<u8>), message::bind_complete, begun];
            for step in 0..6_u8 {
                if fails_at == Some(step) {
                    error(&mut server, "the reason");
                    error(&mut client, "the reason");
                    // The server skips the Query, up to a Sync of ours; its first BEGIN took place or did not.
                    let status = if step < 3 { TxStatus::Idle } else { TxStatus::Failed };
                    message::ready(&mut server, status);
                    message::ready(&mut client, TxStatus::Failed);
                    message::ready(&mut server, TxStatus::Idle);
                    protocol.sent_ours();
                    return (server, client);
                }
                replies[usize::from(step % 3)](&mut server);
            }
            message::command_complete(&mut server, "SELECT 0");
            message::command_complete(&mut client, "SELECT 0");
            message::ready(&mut server, TxStatus::Idle);
            message::ready(&mut client, TxStatus::Idle);
        }
        Exchange::Simple { rows: count, fails } => {
            protocol.sent_simple();
            message::raw(&mut server, b'T', b"\0\0");
            rows(&mut server, count);
            message::parameter_status(&mut server, "TimeZone", "Asia/Tokyo");
            if fails {
                error(&mut server, "simple");
            } else {
                message::command_complete(&mut server, "SELECT");
            }
            message::ready(&mut server, TxStatus::Idle);
            client.clone_from(&server);
        }
        Exchange::Extended { rows: count, fails_at } => {
            extended(protocol, count, fails_at, &mut server, &mut client);
        }
        Exchange::Described { stale, repeats } => {
            described(protocol, stale, repeats, &mut server, &mut client);
        }
        Exchange::Discards { tag } => {
            protocol.watch_commands(true);
            protocol.sent_extended([Step::Pass(Awaits::Execute)].into(), true);
            message::command_complete(&mut server, tag);
            message::ready(&mut server, TxStatus::Idle);
            client.clone_from(&server);
        }
    }
    (server, client)
}

const COLUMNS: &[u8] = b"\0\x01name\0\0\0\0\x01\0\x01\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";

fn described(
    protocol: &mut Protocol,
    stale: bool,
    repeats: bool,
    server: &mut Vec<u8>,
    client: &mut Vec<u8>,
) {
    let told = |name: &[u8]| Step::PassDescribed(name.into(), StatementId(8));
    let steps = [Step::SwallowDescribed(StatementId(7)), told(b"one"), told(b"two")];
    protocol.sent_extended(steps.into(), true);
    if repeats {
        protocol.may_parse_anew(2);
    }
    message::raw(server, b't', b"\0\0");
    message::raw(server, b'T', COLUMNS);
    let mut told = Vec::new();
    message::raw(&mut told, b't', b"\0\x01\0\0\0\x19");
    if stale {
        message::raw(&mut told, b'E', STALE);
    } else {
        message::raw(&mut told, b'T', COLUMNS);
        message::raw(&mut told, b'n', b"");
    }
    message::ready(&mut told, TxStatus::Idle);
    server.extend_from_slice(&told);
    if !(stale && repeats) {
        client.extend_from_slice(&told);
    }
}

const STALE: &[u8] = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Fplancache.c\0L702\0RRevalidateCachedQuery\0\0";

fn extended(
    protocol: &mut Protocol,
    count: u8,
    fails_at: Option<u8>,
    server: &mut Vec<u8>,
    client: &mut Vec<u8>,
) {
    let insert = |tag: u8| Step::Insert(Box::new([tag, 0, 0, 0, 4]), Undo::Parse(Box::from(&b"name"[..])));
    let steps = [
        insert(b'1'),
        Step::SwallowParsed(StatementId(7)),
        Step::Pass(Awaits::Bind),
        Step::Pass(Awaits::Execute),
        insert(b'3'),
    ];
    protocol.sent_extended(steps.into(), true);
    message::parse_complete(client);
    let mut at = 0;
    let mut goes_on = |server: &mut Vec<u8>, client: &mut Vec<u8>| {
        let fails = fails_at == Some(at);
        at += 1;
        if fails {
            error(server, "extended");
            error(client, "extended");
        }
        !fails
    };
    let done = goes_on(server, client)
        && {
            message::parse_complete(server);
            goes_on(server, client)
        }
        && {
            message::bind_complete(server);
            message::bind_complete(client);
            goes_on(server, client)
        };
    if done {
        rows(server, count);
        rows(client, count);
        message::command_complete(server, "SELECT");
        message::command_complete(client, "SELECT");
        message::close_complete(client);
    }
    message::ready(server, TxStatus::Idle);
    message::ready(client, TxStatus::Idle);
}

proptest! {
    #[test]
    fn any_pieces_give_the_same(
        exchanges in prop::collection::vec(exchange(), 1..6),
        cuts in prop::collection::vec(1..40_usize, 1..60),
    ) {
        let mut protocol = Protocol::default();
        let (mut server, mut expected) = (Vec::new(), Vec::new());
        for exchange in &exchanges {
            let (from_server, for_client) = play(&mut protocol, exchange);
            server.extend(from_server);
            expected.extend(for_client);
        }
        let (mut got, mut at) = (Vec::new(), 0);
        let mut cuts = cuts.into_iter().cycle();
        while at < server.len() {
            prop_assert!(!protocol.is_answered());
            let end = server.len().min(at + cuts.next().unwrap_or(1));
            let mut out = Outgoing::default();
            protocol.receive(&server[at..end], &mut out).expect("valid");
            got.extend_from_slice(out.bytes(&server[at..end]));
            at = end;
        }
        prop_assert_eq!(got, expected);
        prop_assert!(protocol.is_answered() && protocol.quiescent().is_some());
        let failed = exchanges.iter().filter(|exchange| matches!(exchange, Exchange::Extended { fails_at: Some(0), .. }));
        let heard = protocol.take_heard();
        prop_assert_eq!(heard.not_parsed.len(), failed.count());
        let count = |wanted: &dyn Fn(&Exchange) -> bool| exchanges.iter().filter(|exchange| wanted(exchange)).count();
        let fresh = count(&|exchange| matches!(exchange, Exchange::Described { stale: false, .. }));
        prop_assert_eq!(heard.described.len(), 2 * fresh);
        prop_assert!(heard.described.iter().all(|(_, _, shape)| shape.is_told()));
        prop_assert_eq!(heard.confirmed.len(), count(&|exchange| matches!(exchange, Exchange::Described { .. })));
        let repeated = count(&|exchange| matches!(exchange, Exchange::Described { stale: true, repeats: true }));
        prop_assert_eq!(heard.repeats.is_some(), repeated > 0);
        if let Some(steps) = heard.repeats {
            prop_assert_eq!(steps.len(), 2);
        }
        let all = count(&|exchange| matches!(exchange, Exchange::Discards { tag: "DISCARD ALL" }));
        let some = count(&|exchange| matches!(exchange, Exchange::Discards { tag: "DEALLOCATE ALL" }));
        prop_assert_eq!(heard.discarded.all, all > 0);
        prop_assert_eq!(heard.discarded.statements, all + some > 0);
    }

    #[test]
    fn nonsense_from_a_server_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        exchanges in prop::collection::vec(exchange(), 0..3),
    ) {
        let mut protocol = Protocol::default();
        for exchange in &exchanges {
            play(&mut protocol, exchange);
        }
        for chunk in bytes.chunks(7) {
            let mut out = Outgoing::default();
            if protocol.receive(chunk, &mut out).is_err() {
                break;
            }
            out.bytes(chunk);
        }
    }
}

#[test]
fn a_sync_during_copy_is_not_answered() {
    let mut protocol = Protocol::default();
    protocol.sent_extended(VecDeque::new(), true);
    let mut server = Vec::new();
    message::bind_complete(&mut server);
    message::raw(&mut server, b'G', b"\0\0\0");
    let mut out = Outgoing::default();
    protocol.receive(&server, &mut out).expect("valid");
    assert!(protocol.copying_in() && protocol.is_open());
    protocol.sent_copy_end();
    protocol.sent_extended(VecDeque::new(), true);
    let mut server = Vec::new();
    message::command_complete(&mut server, "COPY 1");
    message::ready(&mut server, TxStatus::Idle);
    protocol.receive(&server, &mut Outgoing::default()).expect("valid");
    assert!(protocol.quiescent().is_some());
}

#[test]
fn what_the_server_says_at_its_end_is_kept_from_the_client() {
    let mut protocol = Protocol::default();
    protocol.sent_simple();
    let mut server = Vec::new();
    let report =
        message::Report { severity: "FATAL", code: "57P01", message: "terminating", detail: "", hint: "" };
    message::error(&mut server, report);
    let mut out = Outgoing::default();
    protocol.receive(&server, &mut out).expect("valid");
    assert!(out.bytes(&server).is_empty());
    assert_eq!(protocol.take_error().expect("the reason").code, "57P01");
}

#[test]
fn the_end_of_a_transaction_waits_and_what_is_heard_elsewhere_is_dropped() {
    let mut protocol = Protocol::default();
    protocol.set_heard_elsewhere(Some(Arc::new(HashSet::from(["a".into()]))));
    protocol.hold_ready();
    let mut heard = Vec::new();
    message::notification(&mut heard, 1, b"b", b"x");
    for (status, held) in [(TxStatus::Open, false), (TxStatus::Idle, true), (TxStatus::Idle, false)] {
        protocol.sent_simple();
        let mut server = Vec::new();
        message::notification(&mut server, 1, b"a", b"x");
        message::notification(&mut server, 1, b"b", b"x");
        let mut wanted = heard.clone();
        message::ready(&mut server, status);
        if !held {
            message::ready(&mut wanted, status);
        }
        let mut client = Vec::new();
        for piece in server.chunks(3) {
            let mut out = Outgoing::default();
            protocol.receive(piece, &mut out).expect("valid");
            client.extend_from_slice(out.bytes(piece));
        }
        assert_eq!(client, wanted, "{status:?}");
        assert!(protocol.is_answered());
        assert_eq!(protocol.holds_ready(), held);
        if held {
            assert!(protocol.take_held_ready());
        }
    }
}

fn failure(severity: &str, code: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    message::error(&mut bytes, message::Report { severity, code, message: "no", detail: "", hint: "" });
    bytes
}

fn hear(protocol: &mut Protocol, server: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::default();
    protocol.receive(server, &mut out).expect("valid");
    out.bytes(server).to_vec()
}

#[test]
fn an_error_of_the_servers_own_is_kept_from_the_client_if_it_comes_first() {
    let mut done = Vec::new();
    message::ready(&mut done, TxStatus::Idle);
    for (code, before, kept) in [
        ("40001", Vec::new(), Some(Transient::Conflict)),
        ("25006", Vec::new(), Some(Transient::ReadOnly)),
        ("22012", Vec::new(), None),
        // Taken back, as long as it has not been sent.
        ("40001", vec![b'2', 0, 0, 0, 4], Some(Transient::Conflict)),
    ] {
        let mut protocol = Protocol::default();
        protocol.sent_extended(VecDeque::new(), true);
        protocol.may_repeat(false);
        assert!(protocol.has_told_nothing());
        let error = failure("ERROR", code);
        let told = hear(&mut protocol, &[&before[..], &error, &done].concat());
        assert_eq!(told.is_empty(), kept.is_some(), "{code} {before:?}");
        assert_eq!(protocol.take_heard().transient, kept);
        assert!(protocol.quiescent().is_some());
    }
    let mut protocol = Protocol::default();
    protocol.sent_extended(VecDeque::new(), true);
    protocol.may_repeat(false);
    assert_eq!(hear(&mut protocol, &[b'2', 0, 0, 0, 4]), [b'2', 0, 0, 0, 4]);
    assert!(!protocol.has_told_nothing());
    assert!(!hear(&mut protocol, &failure("ERROR", "40001")).is_empty(), "something was told before");
    let mut protocol = Protocol::default();
    protocol.sent_extended(VecDeque::new(), true);
    protocol.may_repeat(true);
    assert!(protocol.has_told_nothing());
    assert!(!hear(&mut protocol, &failure("ERROR", "40001")).is_empty(), "its transaction has failed");
    assert!(protocol.take_heard().transient.is_none() && !protocol.has_told_nothing());
}

fn warning(code: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let report = message::Report { severity: "WARNING", code, message: "no", detail: "", hint: "" };
    message::notice(&mut bytes, report);
    bytes
}

#[test]
fn the_warning_of_an_end_is_told_only_if_it_is_none() {
    let bound = vec![b'2', 0, 0, 0, 4];
    for (code, before, kept) in
        [("57P02", Vec::new(), true), ("57P01", bound.clone(), true), ("01000", bound.clone(), false)]
    {
        let mut protocol = Protocol::default();
        protocol.sent_extended(VecDeque::new(), true);
        protocol.may_repeat(false);
        let words = [&before[..], &warning(code)].concat();
        let told = hear(&mut protocol, &words);
        assert_eq!(told, if kept { Vec::new() } else { words.clone() }, "{code}");
        assert_eq!(protocol.has_told_nothing(), kept, "{code}");
        let mut done = Vec::new();
        message::command_complete(&mut done, "SELECT 1");
        let expected = if kept { [&words[..], &done].concat() } else { done.clone() };
        assert_eq!(hear(&mut protocol, &done), expected, "{code}: in its order");
        assert!(!protocol.has_told_nothing());
    }
    let mut protocol = Protocol::default();
    protocol.sent_extended(VecDeque::new(), true);
    assert_eq!(hear(&mut protocol, &warning("57P02")), warning("57P02"), "it is not sent again");
}

#[test]
fn an_error_that_comes_before_the_sync_was_sent_is_told() {
    let mut protocol = Protocol::default();
    protocol.sent_extended([Step::SwallowParsed(StatementId(1))].into(), false);
    protocol.may_repeat(false);
    assert!(!hear(&mut protocol, &failure("ERROR", "40001")).is_empty());
    assert!(protocol.is_skipping() && !protocol.has_told_nothing());
}

#[test]
fn the_end_of_a_connection_is_no_answer_and_what_was_not_answered_is_undone() {
    let mut protocol = Protocol::default();
    protocol.sent_extended([Step::Pass(Awaits::Execute)].into(), false);
    assert!(!protocol.awaits_client());
    let mut server = Vec::new();
    message::command_complete(&mut server, "INSERT 0 1");
    hear(&mut protocol, &server);
    assert!(protocol.awaits_client(), "between a Flush and its Sync");
    assert!(hear(&mut protocol, &failure("FATAL", "57P01")).is_empty());
    assert!(protocol.awaits_client(), "still");
    protocol.sent_extended([Step::PassParsed(StatementId(1), Box::from(&b"s"[..]))].into(), true);
    assert!(!protocol.awaits_client());
    protocol.give_up();
    let heard = protocol.take_heard();
    assert_eq!((heard.not_parsed.len(), heard.undone.len(), heard.failure), (1, 1, None));
}
