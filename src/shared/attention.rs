//! Calls for attention: what every session is to look at though nothing has come for it.

use std::sync::atomic::{AtomicU32, Ordering};

/// Calls for attention, counted. An odd one is the last: everybody is cut off.
#[derive(Debug, Default)]
pub struct Attention(AtomicU32);

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call(u32);

impl Attention {
    /// Calls for a look at what may have changed.
    pub(super) fn call(&self) {
        self.0.fetch_add(2, Ordering::AcqRel);
    }

    /// Calls for the end.
    pub(super) fn cut_off(&self) {
        self.0.fetch_or(1, Ordering::AcqRel);
    }

    pub(crate) fn last(&self) -> Call {
        Call(self.0.load(Ordering::Acquire))
    }
}

impl Call {
    pub(crate) const fn is_the_end(self) -> bool {
        self.0 % 2 == 1
    }
}
