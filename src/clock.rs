//! The time at which a runtime thread last looked at the clock.
//!
//! Measuring a request takes two times, and a look at the clock costs as much as much of what is done for a request.
//! So its beginning is the thread's last look: when it woke up, or when it ended another request, whichever was later.
//! Only the end looks. What a request waited for its turn on the thread is thereby in its duration.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Looks at the clock. To be called whenever the thread has slept.
pub fn tick() -> Instant {
    let now = Instant::now();
    NOW.set(Some(now));
    now
}

/// The thread's last look.
pub fn last_tick() -> Instant {
    NOW.get().unwrap_or_else(tick)
}

/// Looks at the clock, and tells how long ago `start` was.
pub fn since(start: Instant) -> Duration {
    tick().saturating_duration_since(start)
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
}
