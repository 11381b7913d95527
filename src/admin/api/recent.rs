//! How long clients waited in the last minute, out of histograms that count from the start on.
//!
//! Noted when somebody asks, at most once a second: nothing is done while nobody does. Bounded by [`WINDOW`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{metrics::Observed, shared::Snapshot};

/// How far back is looked.
const WINDOW: Duration = Duration::from_secs(60);
/// From one note to the next.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Waits by pool, as they were noted.
#[derive(Debug, Default)]
pub(in super::super) struct Recent(Mutex<VecDeque<(Instant, HashMap<String, Observed>)>>);

impl Recent {
    /// The waits of each pool within the last minute, or since somebody asked first within it, and how long that is.
    pub(super) fn waits(&self, snapshot: &Snapshot) -> (HashMap<String, Observed>, Duration) {
        let of = |pool: &crate::pool::Pool| {
            let members = pool.members.iter().map(|member| member.stats().wait.read());
            Some((pool.name.clone(), members.reduce(sum)?))
        };
        self.since_noted(snapshot.pools.iter().filter_map(of).collect(), Instant::now())
    }

    fn since_noted(
        &self,
        all: HashMap<String, Observed>,
        now: Instant,
    ) -> (HashMap<String, Observed>, Duration) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The one before the window is where it begins.
        while noted.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            noted.pop_front();
        }
        // Long ago nobody asked: that says nothing of now.
        if noted.front().is_some_and(|(at, _)| now - *at > WINDOW + WINDOW / 6) {
            noted.clear();
        }
        let (since, before) = noted.front().cloned().unwrap_or_else(|| (now, all.clone()));
        if noted.back().is_none_or(|(at, _)| now - *at >= NOTE_EVERY) {
            noted.push_back((now, all.clone()));
        }
        let part = |(name, now): (String, Observed)| {
            let part = match before.get(&name) {
                Some(before) => less(&now, before),
                None => now,
            };
            (name, part)
        };
        (all.into_iter().map(part).collect(), now - since)
    }
}

/// Both together; they have the same buckets.
fn sum(one: Observed, other: Observed) -> Observed {
    let buckets = one.cumulative.into_iter().zip(other.cumulative);
    Observed {
        cumulative: buckets.map(|((bound, a), (_, b))| (bound, a + b)).collect(),
        count: one.count + other.count,
        sum_seconds: one.sum_seconds + other.sum_seconds,
    }
}

/// The part that is not in the earlier one. A pool that was made anew counts from zero.
fn less(now: &Observed, before: &Observed) -> Observed {
    let buckets = now.cumulative.iter().zip(&before.cumulative);
    Observed {
        cumulative: buckets.map(|((bound, a), (_, b))| (*bound, a.saturating_sub(*b))).collect(),
        count: now.count.saturating_sub(before.count),
        sum_seconds: (now.sum_seconds - before.sum_seconds).max(0.0),
    }
}

/// The duration that a share of all does not exceed, in seconds, as Prometheus estimates it: evenly spread in its
/// bucket, and no more than the last bound. `None` of nothing.
pub(super) fn quantile(observed: &Observed, share: f64) -> Option<f64> {
    let rank = share * observed.count as f64;
    let mut below = (0.0, 0_u64);
    if observed.count == 0 {
        return None;
    }
    for (bound, count) in &observed.cumulative {
        if *count as f64 >= rank && *count > below.1 {
            let inside = (rank - below.1 as f64) / (count - below.1) as f64;
            return Some(below.0 + (bound - below.0) * inside.clamp(0.0, 1.0));
        }
        below = (*bound, *count);
    }
    Some(below.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(counts: [u64; 3], count: u64) -> Observed {
        let cumulative = [0.1, 1.0, 5.0].into_iter().zip(counts).collect();
        Observed { cumulative, count, sum_seconds: 0.0 }
    }

    #[test]
    fn a_quantile_is_within_its_bucket() {
        assert_eq!(quantile(&observed([0, 0, 0], 0), 0.95), None);
        let half = quantile(&observed([100, 100, 100], 100), 0.5).expect("some");
        assert!((half - 0.05).abs() < 1e-9, "{half}");
        let high = quantile(&observed([90, 100, 100], 100), 0.95).expect("some");
        assert!((high - 0.55).abs() < 1e-9, "{high}");
        assert_eq!(quantile(&observed([0, 0, 0], 4), 0.95), Some(5.0), "longer than the last bound");
    }

    #[test]
    fn only_what_is_new_counts_and_the_window_moves_on() {
        let (recent, start) = (Recent::default(), Instant::now());
        let ask = |count: u64, seconds: u64| {
            let all = HashMap::from([("jobs".to_owned(), observed([count, count, count], count))]);
            let (part, window) = recent.since_noted(all, start + Duration::from_secs(seconds));
            (part["jobs"].count, window.as_secs())
        };
        assert_eq!(ask(1_000, 0), (0, 0), "what was long before is not told");
        assert_eq!(ask(1_005, 1), (5, 1));
        for second in 2..=60 {
            ask(1_005, second);
        }
        assert_eq!(ask(1_006, 61), (1, 60));
        assert!(recent.0.lock().expect("no panic").len() <= 62);
        assert_eq!(ask(2_000, 1_000), (0, 0), "nobody has asked for long");
    }
}
