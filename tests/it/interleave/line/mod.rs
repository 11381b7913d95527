//! Random histories over a primary and a job database on another server, each session beside its twin on one server that
//! has all tables: what Bulkhead does not refuse must be told as there, and leave the same rows.
//!
//! Environment variables as for the other one: `BULKHEAD_TEST_SEED=`, `BULKHEAD_TEST_STEPS=`, `BULKHEAD_TEST_FIRST=`,
//! `BULKHEAD_TEST_KEEP_GOING=1`; `BULKHEAD_TEST_OUTBOX=0` for a run without an outbox, and `BULKHEAD_TEST_FLUSH=1` with
//! Flush in pipelines, where what belongs to the other server may end the session.

mod judge;
mod state;
mod statements;
mod world;

use std::time::Duration;

use super::{Run, hunt, number};
use world::World;

#[tokio::test]
async fn transactions_across_the_line_are_those_of_one_server() {
    let mut world = World::start(has_outbox()).await;
    let run = Run { case_steps: 100, steps: 2000, cases_min: 3, time: Duration::from_secs(8) };
    hunt(&mut world, run).await;
}

/// Whether jobs are relayed from the primary.
fn has_outbox() -> bool {
    number("BULKHEAD_TEST_OUTBOX") != Some(0)
}
