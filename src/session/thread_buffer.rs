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
pub(crate) struct ThreadBuffer(Vec<u8>);

impl ThreadBuffer {
    /// Takes the buffer.
    pub(crate) fn take() -> Self {
        Self(BUFFER.take())
    }
}

impl Deref for ThreadBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for ThreadBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl Drop for ThreadBuffer {
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
        ThreadBuffer::take().extend_from_slice(b"one");
        let kept = ThreadBuffer::take();
        assert!(kept.is_empty() && kept.capacity() >= 3);
        assert!(ThreadBuffer::take().capacity() == 0, "it is on loan");
    }

    #[test]
    fn a_large_one_is_not_kept() {
        ThreadBuffer::take().reserve(KEPT_BYTES + 1);
        assert_eq!(ThreadBuffer::take().capacity(), 0);
    }
}
