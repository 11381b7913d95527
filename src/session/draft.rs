//! The thread's buffer for requests that are not sent as they came: putting one together allocates nothing.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
};

/// A buffer that has grown larger than this is not kept.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer, on loan until it is dropped.
#[derive(Debug)]
pub(crate) struct Draft(Vec<u8>);

impl Draft {
    /// Takes the buffer.
    pub(crate) fn take() -> Self {
        Self(BUFFER.take())
    }
}

impl Deref for Draft {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT_BYTES {
            self.0.clear();
            BUFFER.set(std::mem::take(&mut self.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_one_request_is_in_the_next() {
        Draft::take().extend_from_slice(b"one");
        let kept = Draft::take();
        assert!(kept.is_empty() && kept.capacity() >= 3);
        assert!(Draft::take().capacity() == 0, "it is on loan");
    }

    #[test]
    fn a_large_one_is_not_kept() {
        Draft::take().reserve(KEPT_BYTES + 1);
        assert_eq!(Draft::take().capacity(), 0);
    }
}
