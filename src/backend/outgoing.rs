//! What of a chunk from the server goes on to the client: as a rule one run of it, untouched.

use std::ops::Range;

/// Collects the bytes for the client. As long as they are one run of the chunk, nothing is copied.
#[derive(Debug, Default)]
pub struct Outgoing {
    from: usize,
    to: usize,
    /// Holds the bytes once something was left out or put in; `from..to` is a run still to be added.
    edited: Option<Vec<u8>>,
    /// Errors among them that name statements as the server does.
    naming: Vec<Range<usize>>,
}

impl Outgoing {
    /// Passes on `chunk[from..to]`.
    pub fn pass(&mut self, chunk: &[u8], from: usize, to: usize) {
        if self.from == self.to {
            (self.from, self.to) = (from, to);
        } else if self.to == from {
            self.to = to;
        } else {
            self.collect(chunk);
            (self.from, self.to) = (from, to);
        }
    }

    /// Puts `bytes` in at this place.
    pub fn insert(&mut self, chunk: &[u8], bytes: &[u8]) {
        self.collect(chunk);
        self.edited.get_or_insert_default().extend_from_slice(bytes);
    }

    /// Takes back all of it: nothing goes on.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Puts `bytes` in, if there are any.
    pub fn insert_some(&mut self, chunk: &[u8], bytes: &[u8]) {
        if !bytes.is_empty() {
            self.insert(chunk, bytes);
        }
    }

    /// Puts in an error that names statements as the server does.
    pub fn insert_naming(&mut self, chunk: &[u8], error: &[u8]) {
        self.insert(chunk, error);
        let end = self.edited.as_ref().map_or(0, Vec::len);
        self.naming.push(end - error.len()..end);
    }

    /// Whether there are errors that name statements as the server does.
    pub const fn names_statements(&self) -> bool {
        !self.naming.is_empty()
    }

    /// Puts other errors in the place of those that name statements as the server does.
    pub fn rename(&mut self, with: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let Some(edited) = &mut self.edited else { return };
        for range in std::mem::take(&mut self.naming).into_iter().rev() {
            if let Some(error) = edited.get(range.clone()).and_then(&with) {
                edited.splice(range, error);
            }
        }
    }

    fn collect(&mut self, chunk: &[u8]) {
        if self.from < self.to {
            let run = &chunk[self.from..self.to];
            self.edited.get_or_insert_default().extend_from_slice(run);
        }
        (self.from, self.to) = (0, 0);
    }

    /// Ends the work on `chunk`: afterwards the bytes no longer refer to it.
    pub fn detach(&mut self, chunk: &[u8]) {
        self.collect(chunk);
    }

    /// The bytes for the client, given the chunk that was passed all along.
    pub fn bytes<'a>(&'a mut self, chunk: &'a [u8]) -> &'a [u8] {
        if self.edited.is_some() {
            self.collect(chunk);
        }
        match &self.edited {
            Some(edited) => edited,
            None => &chunk[self.from..self.to],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_is_passed_without_copying() {
        let chunk = b"abcdef";
        let mut out = Outgoing::default();
        out.pass(chunk, 0, 2);
        out.pass(chunk, 2, 5);
        assert_eq!(out.bytes(chunk), b"abcde");
        assert!(out.edited.is_none());
    }

    #[test]
    fn gaps_and_insertions_keep_their_order() {
        let chunk = b"abcdef";
        let mut out = Outgoing::default();
        out.insert(chunk, b"<");
        out.pass(chunk, 0, 2);
        out.insert(chunk, b"-");
        out.pass(chunk, 4, 6);
        assert_eq!(out.bytes(chunk), b"<ab-ef");
    }

    #[test]
    fn errors_are_replaced_where_they_are() {
        let chunk = b"abcdef";
        let mut out = Outgoing::default();
        out.pass(chunk, 0, 1);
        out.insert_naming(chunk, b"one");
        out.pass(chunk, 2, 3);
        out.insert_naming(chunk, b"two");
        out.pass(chunk, 5, 6);
        assert!(out.names_statements());
        out.rename(|error| (error == b"one").then(|| b"longer".to_vec()));
        assert_eq!(out.bytes(chunk), b"alongerctwof");
    }
}
