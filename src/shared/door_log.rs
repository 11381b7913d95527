//! What is logged of clients that were not let in: enough to see who tries what, and never so much that whoever knocks
//! fills the disk.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in one period; further ones are only counted.
const LINES: u32 = 20;
/// How long a period is.
const PERIOD: Duration = Duration::from_secs(10);
/// Lines about one kind of refusals.
#[derive(Debug, Default)]
pub struct DoorLog(Mutex<Period>);

#[derive(Debug, Default)]
struct Period {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl DoorLog {
    /// Whether a line may be written now, and how many were left out since the last one.
    pub(crate) fn admits(&self) -> Option<u64> {
        self.admits_at(Instant::now())
    }

    fn admits_at(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if period.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            period.since = Some(now);
            period.lines = 0;
        }
        if period.lines >= LINES {
            period.left_out += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_what_is_left_out_is_counted() {
        let (log, now) = (DoorLog::default(), Instant::now());
        assert!((0..LINES).all(|_| log.admits_at(now) == Some(0)));
        assert!((0..1000).all(|_| log.admits_at(now + PERIOD / 2).is_none()));
        assert_eq!(log.admits_at(now + PERIOD), Some(1000));
        assert_eq!(log.admits_at(now + PERIOD), Some(0));
    }
}
