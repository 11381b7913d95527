//! Bounds, and what is forgotten when.

use super::*;
use crate::{backend::Credentials, shared::counters::ReadOn, sql::Class};

fn verdict(number: u64) -> Verdict {
    // Ids of texts are odd, and random.
    let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Verdict { text: TextId::new(id), ..Verdict::new(Class::Read, Reason::ReadOnly) }
}

fn queries(queries: usize) -> Queries {
    let all = Queries::default();
    all.set_limits(QueryLimits { queries, texts: queries, text_bytes: 100 });
    all
}

fn ran(micros: u64) -> Ran {
    Ran {
        ended: Moment::now(),
        took: Duration::from_micros(micros),
        waited: Duration::ZERO,
        rows: 2,
        failed: false,
        read_on: None,
        goes_on: false,
    }
}

fn by(identity: &Identity) -> By<'_> {
    By { identity, pool: PoolId(0), pool_name: "primary" }
}

#[test]
fn requests_are_counted_by_text_user_and_pool() {
    let queries = queries(10);
    let (one, two) = (
        Identity::new("app", "one", Credentials::default()),
        Identity::new("app", "two", Credentials::default()),
    );
    queries.learn(&verdict(1), b"SELECT 1");
    // Another id, and the same text.
    queries.learn(&verdict(2), b"SELECT  22");
    for of in [1, 2] {
        queries.record(&verdict(of), by(&one), &ran(of * 1000));
    }
    queries.record(&verdict(1), by(&two), &Ran { failed: true, ..ran(100) });
    queries.record(&verdict(1), By { pool: PoolId(1), pool_name: "jobs", ..by(&two) }, &ran(10));
    // At the same place there is another pool now.
    queries.record(&verdict(1), By { pool_name: "other", ..by(&two) }, &ran(1));
    let all = queries.read();
    let told: Vec<_> = all
        .iter()
        .map(|query| (&*query.text, &*query.user, &*query.pool, query.calls, query.errors, query.rows))
        .collect();
    assert_eq!(
        told,
        [
            ("SELECT ?", "one", "primary", 2, 0, 4),
            ("SELECT ?", "two", "primary", 1, 1, 2),
            ("SELECT ?", "two", "jobs", 1, 0, 2),
            ("SELECT ?", "two", "other", 1, 0, 2),
        ]
    );
    assert_eq!((all[0].total_time, all[0].max_time), (Duration::from_millis(3), Duration::from_millis(2)));
    assert_eq!((queries.evicted(), queries.left_out()), (0, 0));
}

#[test]
fn those_used_least_recently_make_room() {
    let queries = queries(64);
    let one = Identity::new("app", "one", Credentials::default());
    let mut hot = 0;
    for number in 0..10_000 {
        queries.learn(&verdict(number), format!("SELECT a{number}").as_bytes());
        let ran = Ran { ended: queries.began.after(Duration::from_millis(number)), ..ran(1) };
        queries.record(&verdict(number), by(&one), &ran);
        // One that everybody uses stays.
        queries.learn(&verdict(u64::MAX), b"SELECT hot");
        queries.record(&verdict(u64::MAX), by(&one), &ran);
        hot += 1;
        assert!(queries.lock().entries.len() <= 64 && queries.lock().texts.len() <= 64);
    }
    let all = queries.read();
    let found = all.iter().find(|query| &*query.text == "SELECT hot").expect("it stays");
    assert_eq!(found.calls, hot);
    assert!(all.iter().any(|query| &*query.text == "SELECT a9999"), "{all:?}");
    assert_eq!(queries.evicted() + all.len() as u64, 10_001);
    assert_eq!(queries.left_out(), 0);
}

#[test]
fn what_was_forgotten_is_counted_anew() {
    let queries = queries(10);
    let one = Identity::new("app", "one", Credentials::default());
    let count = || {
        queries.learn(&verdict(1), b"SELECT 1");
        queries.record(&verdict(1), by(&one), &ran(1));
        queries.read().first().map(|query| query.calls)
    };
    assert_eq!([count(), count()], [Some(1), Some(2)]);
    queries.reset();
    assert!(queries.read().is_empty());
    assert_eq!(count(), Some(1));
    queries.set_limits(QueryLimits { queries: 0, texts: 0, text_bytes: 100 });
    assert_eq!(count(), None);
    assert_eq!(queries.left_out(), 0);
}

#[test]
fn a_request_whose_text_is_not_known_is_left_out() {
    let queries = queries(10);
    let one = Identity::new("app", "one", Credentials::default());
    queries.record(&verdict(1), by(&one), &ran(1));
    assert_eq!((queries.read().len(), queries.left_out()), (0, 1));
    for reason in [Reason::TooLong, Reason::FunctionCall, Reason::OldStrings] {
        queries.record(&Verdict::unknown(reason), by(&one), &ran(1));
    }
    let texts: Vec<_> = queries.read().iter().map(|query| query.text.to_string()).collect();
    assert_eq!(
        texts,
        ["(function call)", "(longer than limits.statement_bytes)", "(standard_conforming_strings is off)"]
    );
}

#[test]
fn entries_and_slow_requests_are_told_as_json() {
    let (queries, slow) = (queries(10), SlowLog::default());
    slow.set_limits(SlowLimits {
        kept_from: Duration::from_millis(1),
        kept_max: 2,
        logged_percent: 100,
        ..SlowLimits::default()
    });
    let one = Identity::new("app", "one", Credentials::default());
    queries.learn(&verdict(1), b"SELECT 1");
    let ran = Ran { read_on: Some(ReadOn::FreshWrite), waited: Duration::from_micros(70), ..ran(1500) };
    queries.record(&verdict(1), by(&one), &ran);
    queries.pinned(verdict(1).text, &verdict(1), by(&one), PinReason::TempObjects);
    let told = serde_json::to_value(&queries.read()[0]).expect("it is JSON");
    for (key, value) in [
        ("query", "SELECT ?".into()),
        ("pool", "primary".into()),
        ("calls", 1.into()),
        ("rows", 2.into()),
        ("total_time_us", 1500.into()),
        ("wait_time_us", 70.into()),
        ("pinned_by", "temp_objects".into()),
        ("not_on_replica", "fresh_write".into()),
        ("on_primary", serde_json::json!([["fresh_write", 1]])),
    ] {
        assert_eq!(told[key], value, "{key}");
    }
    let text = || queries.text(&verdict(1)).expect("it is known");
    for micros in [500, 1500, 2500, 3500] {
        let ran = Ran { took: Duration::from_micros(micros), ..ran };
        slow.note((&verdict(1), by(&one), &ran), "web", None, text);
    }
    let told = serde_json::to_value(slow.read()).expect("it is JSON");
    let times: Vec<_> = told.as_array().expect("a list").iter().map(|slow| slow["time_us"].clone()).collect();
    assert_eq!(times, [3500, 2500], "the last ones, the last one first");
    assert_eq!((&told[0]["query"], &told[0]["application_name"]), (&"SELECT ?".into(), &"web".into()));
}
