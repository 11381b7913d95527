//! Whether a request may be sent again: as long as its client has been told nothing of its answer.

use super::{Protocol, heard::field};
use crate::{backend::outgoing::Outgoing, wire::message};

/// Whether the client's request can still be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    No,
    /// The client has been told nothing.
    Yes,
    /// What it is told is in the chunk that is being looked at, and nothing else is.
    Begun,
}

impl Protocol {
    /// Whether what was sent last may be sent again: the client has got nothing of its answer.
    pub fn has_told_nothing(&self) -> bool {
        self.parts.back().is_some_and(|part| part.repeat == Repeat::Yes)
    }

    /// Lets what was sent last be sent again, as long as the client has got nothing of its answer. `begins` if it begins a
    /// transaction.
    pub fn may_repeat(&mut self, begins: bool) {
        if let Some(part) = self.parts.back_mut() {
            (part.repeat, part.begins) = (Repeat::Yes, begins);
        }
    }

    /// Whether what is being answered may still be sent again.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.parts.front().is_some_and(|part| part.repeat != Repeat::No)
    }

    /// The client is told something: what it has sent must not be repeated.
    pub(super) fn tells(&mut self) -> bool {
        if let Some(part) = self.parts.front_mut() {
            part.repeat = Repeat::No;
        }
        true
    }

    /// The chunk ends: what was passed on of it goes to the client now.
    pub(super) fn end_chunk(&mut self) {
        if let Some(part) = self.parts.front_mut().filter(|part| part.repeat == Repeat::Begun) {
            part.repeat = Repeat::No;
        }
    }

    /// A notice has come. If it says that the connection is about to end, it is kept, with what came before it in this
    /// chunk: the client has been told nothing else.
    pub(super) fn keep_last_words(&mut self, notice: &[u8], chunk: &[u8], out: &mut Outgoing) -> bool {
        let Some(part) = self.parts.front_mut().filter(|part| part.repeat != Repeat::No) else {
            return false;
        };
        if !is_last_word(notice) {
            return false;
        }
        // Begun => Yes
        part.repeat = Repeat::Yes;
        self.last_words = out.bytes(chunk).to_vec();
        out.clear();
        message::raw(&mut self.last_words, b'N', notice);
        true
    }

    /// The connection goes on: the client is told what was kept.
    pub(super) fn let_go_last_words(&mut self, chunk: &[u8], out: &mut Outgoing) {
        if !self.last_words.is_empty() {
            out.insert(chunk, &std::mem::take(&mut self.last_words));
            self.tells();
        }
    }
}

/// Whether a notice is the warning by which a server process says that it ends at once, without waiting for anything:
/// `admin_shutdown` and `crash_shutdown` (`quickdie` in PostgreSQL's postgres.c). Others can have these codes, too.
fn is_last_word(body: &[u8]) -> bool {
    let is_whole = body.ends_with(b"\0\0");
    is_whole && matches!(field(body, b'C'), Some(b"57P01" | b"57P02"))
}
