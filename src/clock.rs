//! The time at which a runtime thread last looked at the clock.
//!
//! Measuring a request takes two times, and a look at the clock costs as much as much of what is done for a request.
//! So its beginning is the thread's last look: when it woke up, or when it ended another request, whichever was later.
//! Only the end looks. What a request waited for its turn on the thread is thereby in its duration.

use std::{
    cell::Cell,
    num::NonZeroU64,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// Moments are counted from here on.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    static LAST: Cell<Option<Moment>> = const { Cell::new(None) };
}

/// A moment by the system's monotonic clock: one number, so that the time between two is a subtraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Nanoseconds since the first look, and one.
    nanos: NonZeroU64,
}

impl Moment {
    const fn at(nanos: u64) -> Self {
        Self { nanos: NonZeroU64::MIN.saturating_add(nanos) }
    }

    /// Looks at the clock, without a note of it for the thread.
    pub fn now() -> Self {
        let beginning = *BEGINNING;
        let time = Instant::now().saturating_duration_since(beginning);
        Self::at(time.as_secs() * 1_000_000_000 + u64::from(time.subsec_nanos()))
    }

    const fn nanos_since(self, earlier: Self) -> u64 {
        self.nanos.get().saturating_sub(earlier.nanos.get())
    }

    /// How long after `earlier` it is; zero if it is not.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// How long after `earlier` it is, in whole milliseconds.
    #[inline]
    pub const fn millis_since(self, earlier: Self) -> u64 {
        self.nanos_since(earlier) / 1_000_000
    }

    /// How long ago it is.
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

/// Looks at the clock. To be called whenever the thread has slept.
pub fn tick() -> Moment {
    let now = Moment::now();
    LAST.set(Some(now));
    now
}

/// The thread's last look.
#[inline]
pub fn last_tick() -> Moment {
    LAST.get().unwrap_or_else(tick)
}

/// Looks at the clock, and tells how long ago `start` was.
pub fn since(start: Moment) -> Duration {
    tick().since(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_still_between_looks() {
        let start = tick();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(last_tick(), start);
        assert!(since(start) >= Duration::from_millis(2));
        assert!(last_tick() > start);
    }

    #[test]
    fn moments_differ_by_durations() {
        let start = Moment::now();
        let later = start.after(Duration::from_micros(2_500));
        assert_eq!(later.since(start), Duration::from_micros(2_500));
        assert_eq!(later.millis_since(start), 2);
        assert_eq!((start.since(later), start.millis_since(later)), (Duration::ZERO, 0));
        assert!(start.after(Duration::MAX) > later);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
