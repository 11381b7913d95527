//! Log lines that would come again and again while something lasts.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Between two lines that say the same.
const PAUSE: Duration = Duration::from_secs(10);

/// Says when the same line may be logged again.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// If it is time for the line: how many were left out since the last one.
    pub fn is_time(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + PAUSE) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

/// Lines of which there may be some in each second.
#[derive(Debug, Default)]
pub struct Rationed(Mutex<Ration>);

#[derive(Debug, Default)]
struct Ration {
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Rationed {
    /// If there may be one more line in this second: how many were left out since the last one.
    pub fn is_time(&self, lines_a_second: u32) -> Option<u64> {
        let now = Instant::now();
        let mut ration = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ration.began.is_none_or(|began| now >= began + Duration::from_secs(1)) {
            (ration.began, ration.lines) = (Some(now), 0);
        }
        if ration.lines >= lines_a_second {
            ration.left_out += 1;
            return None;
        }
        ration.lines += 1;
        Some(std::mem::take(&mut ration.left_out))
    }
}

/// A [`Seldom`] for each of a few reasons.
#[derive(Debug, Default)]
pub struct SeldomFor(Mutex<Vec<(String, Seldom)>>);

/// Reasons that are told apart; of more, each takes the place of the one that has been there for longest.
const REASONS_MAX: usize = 32;

impl SeldomFor {
    /// If it is time for a line that says this: how many were left out since the last one.
    pub fn is_time(&self, reason: &str) -> Option<u64> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seldom)) = reasons.iter().find(|(known, _)| known == reason) {
            return seldom.is_time();
        }
        if reasons.len() >= REASONS_MAX {
            reasons.remove(0);
        }
        let seldom = Seldom::default();
        let first = seldom.is_time();
        reasons.push((reason.to_owned(), seldom));
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repeats_are_counted_and_told_with_the_next_line() {
        let seldom = Seldom::default();
        assert_eq!(seldom.is_time(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(seldom.is_time(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!([seldom.is_time(), seldom.is_time()], [Some(1_000), None]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.is_time(), Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_its_ration() {
        let rationed = Rationed::default();
        let told: Vec<_> = (0..5).map(|_| rationed.is_time(2)).collect();
        assert_eq!(told, [Some(0), Some(0), None, None, None]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!([rationed.is_time(2), rationed.is_time(2), rationed.is_time(2)], [Some(3), Some(0), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_are_told_apart_as_long_as_they_are_few() {
        let seldom = SeldomFor::default();
        assert_eq!(
            ["28P01", "28000", "28P01"].map(|reason| seldom.is_time(reason)),
            [Some(0), Some(0), None]
        );
        tokio::time::advance(PAUSE).await;
        assert_eq!(["28P01", "28000"].map(|reason| seldom.is_time(reason)), [Some(1), Some(0)]);
        for reason in 0..REASONS_MAX {
            assert_eq!(seldom.is_time(&reason.to_string()), Some(0));
        }
        assert_eq!(seldom.0.lock().expect("no panic while held").len(), REASONS_MAX);
    }
}
