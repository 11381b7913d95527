//! The state of all of it in one sentence.

use serde::Serialize;

use super::{
    super::health::{Readiness, Status},
    pools::PoolNow,
};

/// Waits that are shorter are how a pool works.
const WAIT_TOLD_SECONDS: f64 = 0.25;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// Nobody need do anything.
    Ok,
    /// Clients are served, and something is not as it should be.
    Warning,
    /// Clients wait in vain, or are not served.
    Critical,
}

/// The sentence, and how bad it is.
pub(super) fn summary(readiness: &Readiness, pools: &[PoolNow]) -> (Level, String) {
    let first_reason = || readiness.reasons.first().cloned().unwrap_or_default();
    let halted = pools.iter().find(|pool| matches!(pool.state, "paused" | "disabled"));
    let is_full = |pool: &&PoolNow| pool.state == "waiting" && pool.longest_wait_seconds >= WAIT_TOLD_SECONDS;
    let fullest =
        pools.iter().filter(is_full).max_by(|a, b| a.longest_wait_seconds.total_cmp(&b.longest_wait_seconds));
    if readiness.status == Status::NotReady {
        (Level::Critical, sentence(&first_reason()))
    } else if let Some(pool) = fullest {
        (Level::Critical, full(pool))
    } else if let Some(pool) = halted {
        let waiting = if pool.waiting > 0 { format!(": {}", waits(pool)) } else { String::new() };
        (Level::Warning, format!("Pool {} is {}{waiting}", pool.name, pool.state))
    } else if readiness.status == Status::Degraded {
        (Level::Warning, sentence(&first_reason()))
    } else {
        (Level::Ok, "All well".to_owned())
    }
}

/// The sentence about a pool for which clients wait.
fn full(pool: &PoolNow) -> String {
    let (name, active, max) = (&pool.name, pool.active, pool.max_connections);
    if active >= max {
        format!("Pool {name} is full: {active} of {max} in use, {}", waits(pool))
    } else {
        format!("Clients wait for pool {name}: {active} of {max} in use, {}", waits(pool))
    }
}

fn waits(pool: &PoolNow) -> String {
    let verb = if pool.waiting == 1 { "waits" } else { "wait" };
    format!("{} {verb}, oldest {:.1} s", pool.waiting, pool.longest_wait_seconds)
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
