//! Bytes of unfinished requests that all sessions keep together, and of those that may be run once more, and the bound of
//! that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes of a session that are not counted: so much comes with one read, and most requests are smaller.
const FREE: usize = crate::socket::SCRATCH_BYTES;

/// Larger ones are counted in steps.
const STEP: usize = 64 * 1024;

/// The bytes that one session keeps. Dropped, they are given back.
#[derive(Debug)]
pub(super) struct Kept {
    all: Arc<AtomicUsize>,
    /// Bytes of requests that are not finished.
    own: usize,
    /// Bytes of the request under way that may be run once more.
    sent: usize,
}

impl Kept {
    /// A part, nothing so far, of what all keep.
    pub(super) fn of(all: &Arc<AtomicUsize>) -> Self {
        Self { all: Arc::clone(all), own: 0, sent: 0 }
    }

    /// The session keeps `bytes` of unfinished requests now. False if that is more than is left of `limit`; then nothing
    /// has changed.
    pub(super) fn grow_to(&mut self, bytes: usize, limit: usize) -> bool {
        grow(&self.all, &mut self.own, bytes, limit)
    }

    /// The same of what may be run once more.
    pub(super) fn grow_sent_to(&mut self, bytes: usize, limit: usize) -> bool {
        grow(&self.all, &mut self.sent, bytes, limit)
    }

    /// A request that may be run once more is an unfinished one again.
    pub(super) fn take_back_sent(&mut self) {
        self.own += std::mem::take(&mut self.sent);
    }

    /// The session keeps no more than `bytes` of unfinished requests now.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        shrink(&self.all, &mut self.own, bytes);
    }

    /// The session keeps nothing that may be run once more.
    pub(super) fn forget_sent(&mut self) {
        shrink(&self.all, &mut self.sent, 0);
    }
}

fn grow(all: &AtomicUsize, own: &mut usize, bytes: usize, limit: usize) -> bool {
    // The usual case, without a step to anything that is shared.
    if bytes <= FREE.max(*own) {
        return true;
    }
    let grown = bytes.next_multiple_of(STEP);
    let more = grown - *own;
    let fits = |all: usize| all.checked_add(more).filter(|all| *all <= limit);
    let has_grown = all.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok();
    if has_grown {
        *own = grown;
    }
    has_grown
}

fn shrink(all: &AtomicUsize, own: &mut usize, bytes: usize) {
    if *own == 0 {
        return;
    }
    let left = if bytes <= FREE { 0 } else { bytes.next_multiple_of(STEP).min(*own) };
    all.fetch_sub(*own - left, Ordering::AcqRel);
    *own = left;
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.shrink_to(0);
        self.forget_sent();
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
        drop(other);
        assert!(one.grow_sent_to(STEP, limit) && !one.grow_sent_to(STEP + 1, limit));
        one.take_back_sent();
        assert_eq!(all.load(Ordering::Relaxed), 3 * STEP);
        one.forget_sent();
        assert_eq!(all.load(Ordering::Relaxed), 3 * STEP, "it is an unfinished request again");
        drop(one);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
