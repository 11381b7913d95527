//! Every moment of a round at which a connection can be lost. The connection is cut after each few bytes of a round, in
//! each direction, everything stands still then, and a worker deletes what has come. Whatever the moment was, the job must
//! have come exactly once in the end.

use std::collections::BTreeSet;

use super::{LONG, Yard};
use crate::support::{Postgres, Relay, eventually};

/// Where a job is when everything stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// On the primary only: before the commit in the job database.
    Here,
    /// On both sides: between the two commits.
    Both,
    /// In the job database only: after both.
    There,
}

/// The shortest messages are at the end: COMMIT has 12 bytes, its answers 12 and 6. Those before are longer.
const LAST_BYTES: usize = 48;
const LAST_STEP: usize = 5;

const CALM_ROUNDS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Cut {
    There,
    Back,
}

/// Cuts `relay` at every step of a round in this direction; what was found at these moments.
async fn sweep(yard: &Yard, (relay, server): (&Relay, &Postgres), cut: Cut) -> BTreeSet<Found> {
    // It does not look by itself, so that nothing but the round passes.
    let proxy = yard.bulkhead(&yard.config().set("jobs", "outbox_poll", "1h")).await;
    let client = yard.primary.admin().await;
    let (add, table) = (yard.library.add, yard.library.table);
    let (mut there, mut back) = (usize::MAX, usize::MAX);
    // What else passes beside a round, as the catalog does at the start, is not of it.
    for calm in 0..CALM_ROUNDS {
        relay.count();
        client.execute(add, &[&vec![format!("calm {calm}")]]).await.expect("a job can be added");
        yard.wake().await;
        yard.wait_until_empty().await;
        eventually("the calm round is over", LONG, async || (!in_transaction(yard).await).then_some(()))
            .await;
        let counted = relay.counted();
        (there, back) = (there.min(counted.0), back.min(counted.1));
    }
    let (bytes, step) = match cut {
        Cut::There => (there, 24),
        Cut::Back => (back, 12),
    };
    let fine = bytes.saturating_sub(LAST_BYTES);
    let mut found = BTreeSet::new();
    for after in (0..fine).step_by(step).chain((fine..bytes).step_by(LAST_STEP)) {
        let worker = format!("{cut:?} {after}");
        // Nobody comes back before it has been looked at.
        yard.to_primary.refuse(true);
        yard.to_jobs.refuse(true);
        match cut {
            Cut::There => relay.cut_after(Some(after), None),
            Cut::Back => relay.cut_after(None, Some(after)),
        }
        client.execute(add, &[&vec![&worker]]).await.expect("a job can be added");
        yard.wake().await;
        eventually(&format!("{worker}: everything stands still"), LONG, async || {
            let connected =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkhead outbox'";
            let is_cut = server.value(connected).await == "0";
            // A round asks for fewer rows after a failure, which is a byte or two less; and a health check may have been
            // cut in its place. Then it is over.
            let is_over = yard.waiting().await == "0";
            ((is_cut || is_over) && !in_transaction(yard).await).then_some(())
        })
        .await;
        let on_primary = yard.waiting().await == "1";
        // A worker takes it, runs it, and deletes it.
        let in_jobs = !yard.jobs.query(&format!("DELETE FROM {table} RETURNING id")).await.is_empty();
        found.insert(match (on_primary, in_jobs) {
            (true, false) => Found::Here,
            (true, true) => Found::Both,
            (false, true) => Found::There,
            (false, false) => panic!("{worker}: the job is lost"),
        });
        relay.cut_after(None, None);
        yard.to_primary.refuse(false);
        yard.to_jobs.refuse(false);
        yard.wait_for_leader().await;
        yard.wait_until_empty().await;
        eventually("the repeated round is over", LONG, async || (!in_transaction(yard).await).then_some(()))
            .await;
        assert_eq!(yard.arrivals().await.get(&worker), Some(&1), "{worker}: {found:?}");
        yard.jobs.query(&format!("DELETE FROM {table}")).await;
    }
    assert!(yard.arrivals().await.values().all(|count| *count == 1));
    drop(proxy);
    found
}

/// Whether the relay is in the middle of something.
async fn in_transaction(yard: &Yard) -> bool {
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'bulkhead outbox' AND state <> 'idle'";
    !yard.primary.query(sql).await.is_empty() || !yard.jobs.query(sql).await.is_empty()
}

#[tokio::test]
async fn what_is_cut_on_its_way_to_the_job_database_comes_once() {
    let yard = Yard::start().await;
    let found = sweep(&yard, (&yard.to_jobs, &yard.jobs), Cut::There).await;
    assert!(found.contains(&Found::Here), "{found:?}");
}

#[tokio::test]
async fn answers_of_the_job_database_that_are_lost_bring_nothing_twice() {
    let yard = Yard::start().await;
    let found = sweep(&yard, (&yard.to_jobs, &yard.jobs), Cut::Back).await;
    // The answer to COMMIT among them.
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::Both])), "{found:?}");
}

#[tokio::test]
async fn what_is_cut_on_its_way_to_the_primary_comes_once() {
    let yard = Yard::start().await;
    let found = sweep(&yard, (&yard.to_primary, &yard.primary), Cut::There).await;
    // The last message is the COMMIT that follows that of the job database.
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::Both])), "{found:?}");
}

#[tokio::test]
async fn answers_of_the_primary_that_are_lost_bring_nothing_twice() {
    let yard = Yard::start().await;
    let found = sweep(&yard, (&yard.to_primary, &yard.primary), Cut::Back).await;
    // The answer to COMMIT among them.
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::There])), "{found:?}");
}

/// The same for jobs whose tasks and queues come with them.
#[tokio::test]
async fn jobs_that_name_others_come_once_though_answers_of_the_job_database_are_lost() {
    let yard = Yard::of_graphile().await;
    let found = sweep(&yard, (&yard.to_jobs, &yard.jobs), Cut::Back).await;
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::Both])), "{found:?}");
    yard.has_refused_nothing().await;
}

/// The same for calls with a key, which the relay makes there.
#[tokio::test]
async fn calls_are_made_once_though_answers_of_the_job_database_are_lost() {
    let yard = Yard::of_keys().await;
    let found = sweep(&yard, (&yard.to_jobs, &yard.jobs), Cut::Back).await;
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::Both])), "{found:?}");
    yard.has_refused_nothing().await;
}

#[tokio::test]
async fn calls_are_made_once_though_what_the_primary_is_told_is_lost() {
    let yard = Yard::of_keys().await;
    let found = sweep(&yard, (&yard.to_primary, &yard.primary), Cut::There).await;
    assert!(found.is_superset(&BTreeSet::from([Found::Here, Found::Both])), "{found:?}");
    yard.has_refused_nothing().await;
}
