//! Random interleavings of sessions over few backends, each session beside its twin with a connection of its own to
//! another server with the same data: both must be told the same, message by message.
//!
//! `BULKHEAD_TEST_SEED=` runs one case again, `BULKHEAD_TEST_STEPS=` gives the number of steps of all cases (for a long
//! run) from the seed `BULKHEAD_TEST_FIRST=` on, `BULKHEAD_TEST_KEEP_GOING=1` collects differences of all kinds, and
//! `BULKHEAD_TEST_LISTEN=1` adds LISTEN and NOTIFY.

mod acts;
mod difference;
mod line;
mod shrink;
mod statements;
mod twin;
mod world;

use std::{
    collections::BTreeSet,
    env,
    time::{Duration, Instant},
};

use difference::Stage;
use world::World;

/// Steps of one case.
const CASE_STEPS: usize = 150;

/// Steps of an ordinary run.
const STEPS: usize = 6000;

/// A run has at least so many cases, however slow the machine is.
const CASES_MIN: u64 = 8;

/// An ordinary run ends after the case that is under way then, and a long one, too.
const ORDINARY_RUN: Duration = Duration::from_secs(15);
const LONG_RUN: Duration = Duration::from_secs(12 * 3600);

const FIRST_SEED: u64 = 1;

#[tokio::test]
async fn sessions_are_told_what_they_would_be_told_directly() {
    let mut world = World::start(number("BULKHEAD_TEST_LISTEN") == Some(1));
    hunt(&mut world, Run { case_steps: CASE_STEPS, steps: STEPS, cases_min: CASES_MIN, time: ORDINARY_RUN })
        .await;
}

/// How long an ordinary run is.
struct Run {
    /// Steps of one case.
    case_steps: usize,
    /// Steps of all cases.
    steps: usize,
    /// A run has at least so many cases, however slow the machine is.
    cases_min: u64,
    /// An ordinary run ends after the case that is under way then.
    time: Duration,
}

/// Runs cases until one differs, as the environment says.
async fn hunt(stage: &mut impl Stage, run: Run) {
    let only = number("BULKHEAD_TEST_SEED");
    let steps = number("BULKHEAD_TEST_STEPS").map_or(run.steps, |steps| steps as usize);
    let keep_going = number("BULKHEAD_TEST_KEEP_GOING") == Some(1);
    let cases = if only.is_some() { 1 } else { steps.div_ceil(run.case_steps) as u64 };
    let first = only.or_else(|| number("BULKHEAD_TEST_FIRST")).unwrap_or(FIRST_SEED);
    let mut found: BTreeSet<String> = BTreeSet::new();
    let end = Instant::now() + if number("BULKHEAD_TEST_STEPS").is_some() { LONG_RUN } else { run.time };
    for seed in first..first + cases {
        if Instant::now() > end && seed >= first + run.cases_min {
            break;
        }
        let Err(difference) = stage.run(seed, run.case_steps).await else { continue };
        let kind = difference.kind();
        if found.contains(&kind) {
            continue;
        }
        // At once: to make it smaller takes longer.
        tell(&format!("seed {seed} differs: {kind}\n{}", difference.last()));
        let small = shrink::shrink(stage, difference).await;
        let report = format!("seed {seed}: {small}");
        assert!(keep_going, "{kind}\n{report}");
        tell(&format!("=== {kind}\n{report}"));
        found.insert(kind);
    }
    assert!(found.is_empty(), "differences: {found:#?}");
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

#[expect(clippy::print_stderr, reason = "a long run is followed as it goes")]
fn tell(text: &str) {
    eprintln!("{text}");
}
