//! The request under way.

use super::{parts::Parts, tally::Tally, transaction::Ending};
use crate::shared::{Snapshot, attention::Call};

/// The request under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// The last call for attention that was followed meanwhile.
    pub(super) attended: Call,
    /// Whether it is part of an explicit transaction.
    pub(super) was_in_transaction: bool,
    /// The effect that it may have on that transaction.
    pub(super) ending: Ending,
    /// Whether everything under way is proven to read only.
    pub(super) only_reads: bool,
    /// The request's bytes, as long as it can be run once more.
    pub(super) sent: Option<Vec<u8>>,
    /// The replicas that are fresh enough for it, a bit for each member of their pool.
    pub(super) fresh: u32,
    /// Backends of these with later numbers, of which the last bits count, may be at something else.
    pub(super) known: u32,
    /// The request, or the one at the start of the inbox, was sent before.
    pub(super) is_repeated: bool,
    /// The parts of its text, if they are run one by one.
    pub(super) parts: Parts,
    /// The figures of it; there are none before the first one, and none of a session that has been idle for a while.
    pub(super) tally: Option<Box<Tally>>,
}

impl UnderWay {
    /// No request is under way.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            attended: snapshot.attention.last(),
            was_in_transaction: false,
            ending: Ending::No,
            only_reads: false,
            sent: None,
            fresh: 0,
            known: 0,
            is_repeated: false,
            parts: Parts::default(),
            tally: None,
        }
    }

    /// The figures of the request under way.
    pub(super) fn tally(&mut self) -> &mut Tally {
        self.tally.get_or_insert_default()
    }

    /// Lets go of the figures of the last request, if there is none under way: an idle session has no use for them.
    pub(super) fn rest(&mut self) {
        self.tally.take_if(|tally| tally.totals.is_none());
    }

    /// Whether a statement is to complete it.
    pub(super) fn restores(&self) -> bool {
        self.tally.as_ref().is_some_and(|tally| tally.restore.is_some())
    }

    /// The statement that completes it, if it has succeeded; it is nobody's from then on.
    pub(super) fn take_restore(&mut self) -> Option<Box<str>> {
        self.tally.as_mut().and_then(|tally| tally.restore.take())
    }
}
