//! Bytes of unfinished requests that all sessions keep together, and of those that may be run once more, and the bound of
//! that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What a session keeps up to this is not counted: so much comes with one read, and most requests are smaller.
const FREE: usize = crate::socket::SCRATCH_BYTES;

/// Larger ones are counted in steps.
const STEP: usize = 64 * 1024;

/// What one session keeps. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Kept {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Kept {
    /// A part, nothing so far, of what all keep.
    pub(super) fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), own: 0 }
    }

    /// The session keeps `bytes` now. False if that is more than is left of `limit`; then nothing has changed.
    pub(super) fn grow_to(&mut self, bytes: usize, limit: usize) -> bool {
        // The usual case, without a step to anything that is shared.
        if bytes <= FREE.max(self.own) {
            return true;
        }
        let own = bytes.next_multiple_of(STEP);
        let more = own - self.own;
        let fits = |all: usize| all.checked_add(more).filter(|all| *all <= limit);
        let has_grown = self.all.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok();
        if has_grown {
            self.own = own;
        }
        has_grown
    }

    /// The session keeps in this part what it has kept in the other one.
    pub(super) fn take_over(&mut self, other: &mut Self) {
        self.own += std::mem::take(&mut other.own);
    }

    /// The session keeps no more than `bytes` now.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if self.own == 0 {
            return;
        }
        let own = if bytes <= FREE { 0 } else { bytes.next_multiple_of(STEP).min(self.own) };
        self.all.fetch_sub(self.own - own, Ordering::AcqRel);
        self.own = own;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_is_left() {
        let all = Arc::default();
        let (mut one, mut other) = (Kept::of(&all), Kept::of(&all));
        let limit = 3 * STEP;
        assert!(one.grow_to(FREE, limit) && all.load(Ordering::Relaxed) == 0);
        assert!(one.grow_to(FREE + 1, limit) && one.grow_to(STEP, limit));
        assert_eq!(all.load(Ordering::Relaxed), STEP);
        assert!(other.grow_to(2 * STEP, limit) && !one.grow_to(STEP + 1, limit));
        assert!(other.grow_to(1, limit) && one.grow_to(FREE, limit), "what is kept already is no growth");
        other.shrink_to(STEP);
        assert!(one.grow_to(STEP + 1, limit));
        other.shrink_to(0);
        assert_eq!(all.load(Ordering::Relaxed), 2 * STEP);
        assert!(other.grow_to(STEP, limit));
        one.take_over(&mut other);
        drop(other);
        assert_eq!(all.load(Ordering::Relaxed), 3 * STEP);
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
