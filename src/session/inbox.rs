//! Bytes from a client that have not been sent on. What is taken from the front costs its own length, however much comes
//! behind it: thousands of small requests may have come at once.

use std::ops::Deref;

/// Bytes in the order in which they came; empty, it owns no memory. Beside these it keeps no more bytes that were taken than
/// it has.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// Bytes at the front that were taken.
    taken: usize,
}

impl Inbox {
    /// The bytes that have come so far.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        // An empty buffer may own memory.
        if bytes.is_empty() { Self::default() } else { Self { bytes, taken: 0 } }
    }

    /// The bytes in memory: those that were taken and are still kept count, too.
    pub(super) fn kept(&self) -> usize {
        self.bytes.len()
    }

    /// Adds what comes next.
    #[inline]
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        if self.bytes.is_empty() {
            // As large as it must be: most requests come whole.
            self.bytes = bytes.to_vec();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Takes so many bytes.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Vec<u8> {
        if self.taken == 0 && self.bytes.len() == len {
            return std::mem::take(&mut self.bytes);
        }
        let taken = self[..len].to_vec();
        self.skip(len);
        taken
    }

    /// Drops so many bytes.
    pub(super) fn skip(&mut self, len: usize) {
        self.taken += len;
        if self.taken >= self.len() {
            *self = Self::of(self.to_vec());
        }
    }

    /// Puts others in the place of so many bytes.
    pub(super) fn replace(&mut self, len: usize, with: &[u8]) {
        *self = Self::of([with, &self[len..]].concat());
    }
}

impl Deref for Inbox {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Extend(Vec<u8>),
        Take(usize),
        Skip(usize),
        Replace(usize, Vec<u8>),
    }

    fn step() -> impl proptest::strategy::Strategy<Value = Step> {
        use proptest::{collection::vec, num::u8::ANY, prop_oneof, strategy::Strategy};
        prop_oneof![
            vec(ANY, 0..40).prop_map(Step::Extend),
            (0..30_usize).prop_map(Step::Take),
            (0..30_usize).prop_map(Step::Skip),
            (0..30_usize, vec(ANY, 0..40)).prop_map(|(len, with)| Step::Replace(len, with)),
        ]
    }

    proptest::proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in proptest::collection::vec(step(), 0..40)) {
            let (mut inbox, mut expected) = (Inbox::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Extend(bytes) => {
                        inbox.extend(&bytes);
                        expected.extend(bytes);
                    }
                    Step::Take(len) => {
                        let len = len.min(expected.len());
                        let taken: Vec<u8> = expected.drain(..len).collect();
                        proptest::prop_assert_eq!(inbox.take(len), taken);
                    }
                    Step::Skip(len) => {
                        let len = len.min(expected.len());
                        expected.drain(..len);
                        inbox.skip(len);
                    }
                    Step::Replace(len, with) => {
                        let len = len.min(expected.len());
                        expected.splice(..len, with.iter().copied());
                        inbox.replace(len, &with);
                    }
                }
                proptest::prop_assert_eq!(&*inbox, &*expected);
                proptest::prop_assert!(inbox.kept() >= expected.len(), "{:?}", inbox);
                proptest::prop_assert!(inbox.kept() <= 2 * expected.len(), "{:?}", inbox);
                proptest::prop_assert!(!expected.is_empty() || inbox.bytes.capacity() == 0);
            }
        }
    }

    /// Each byte of many small requests is moved a few times at most.
    #[test]
    fn taking_costs_what_is_taken() {
        let mut inbox = Inbox::of(vec![7; 1 << 20]);
        let mut moves = 0;
        while !inbox.is_empty() {
            let (before, at) = (inbox.len(), inbox.bytes.as_ptr());
            assert_eq!(inbox.take(16.min(before)), vec![7; 16]);
            moves += if inbox.bytes.as_ptr() == at { 16 } else { 16 + inbox.len() };
        }
        assert!(moves <= 3 << 20, "{moves} bytes were moved");
    }
}
