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
}
