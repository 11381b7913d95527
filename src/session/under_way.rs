//! The request under way.

use super::transaction::Ending;
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
    /// The statement that completes it, if it succeeds.
    #[expect(
        clippy::box_collection,
        reason = "few requests have one, and every idle session pays for the place"
    )]
    pub(super) restore: Option<Box<String>>,
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
}

impl UnderWay {
    /// No request is under way.
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            attended: snapshot.attention.last(),
            was_in_transaction: false,
            ending: Ending::No,
            restore: None,
            only_reads: false,
            sent: None,
            fresh: 0,
            known: 0,
            is_repeated: false,
        }
    }
}
