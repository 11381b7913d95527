//! A transaction as far as it is known here and not on a server: one that has begun here and nowhere else yet (BEGIN
//! comes alone, before anything says which server it is for, so it is answered here and opened in front of the first
//! statement, in the same write), and one whose server is gone.
//!
//! The status that a client is told has one owner: as long as there is such a transaction it is this one's, whether or
//! not the session holds a backend by now; otherwise it is the backend's.

use super::reply::{self, Reply};
use crate::wire::TxStatus;

/// A transaction without a backend.
#[derive(Debug, Default)]
pub(crate) enum LocalTransaction {
    /// None.
    #[default]
    No,
    /// BEGIN was answered.
    Deferred(Box<Deferred>),
    /// The transaction has failed before it reached a server, or its server is gone, and the client was told so: only
    /// its end is accepted.
    Failed,
    /// The server is gone, and nothing was owed to the client that could have told it: its next request is answered by
    /// the error, whatever it is. A COMMIT, too: nothing of the transaction is there.
    Lost(Reply),
}

/// The statements that must be sent to open the transaction.
#[derive(Debug)]
pub(crate) struct Deferred {
    /// BEGIN as the client wrote it, then SAVEPOINT, SET LOCAL and the like.
    pub(crate) texts: Vec<Box<[u8]>>,
    /// The transaction may be opened on a standby.
    pub(crate) fits_standby: bool,
}

/// The effect that the request under way may have on its transaction, for the case that its answer never comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The request leaves it open.
    #[default]
    No,
    /// The request ends it without a commit.
    Rollback,
    /// The request may commit it.
    Commit,
}

impl LocalTransaction {
    /// BEGIN as the client wrote it.
    pub(crate) fn begin(text: &[u8], fits_standby: bool) -> Self {
        Self::Deferred(Box::new(Deferred { texts: vec![text.into()], fits_standby }))
    }

    /// The error for a statement in a failed or lost transaction.
    pub(crate) fn check(&self) -> Result<(), Reply> {
        match self {
            Self::Failed => Err(reply::in_failed_transaction()),
            Self::Lost(reply) => Err(reply.clone()),
            Self::No | Self::Deferred(_) => Ok(()),
        }
    }

    /// The client is told an error; `ends` if it has asked for the transaction's end.
    pub(crate) fn told(&mut self, ends: bool) {
        match self {
            // Lost => No
            Self::Lost(_) if ends => *self = Self::No,
            // Deferred, Lost => Failed
            Self::Deferred(_) | Self::Lost(_) => *self = Self::Failed,
            Self::No | Self::Failed => {}
        }
    }

    /// The status that the client is told of a session without a backend.
    pub(crate) const fn status(&self) -> TxStatus {
        self.status_with(TxStatus::Idle)
    }

    /// The status that the client is told of a session whose backend has this one.
    pub(crate) const fn status_with(&self, backend: TxStatus) -> TxStatus {
        match self {
            Self::No => backend,
            Self::Deferred(_) => TxStatus::Open,
            Self::Failed | Self::Lost(_) => TxStatus::Failed,
        }
    }
}

impl Ending {
    /// The ending of two requests before one Sync, the later one being `other`.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Commit, _) | (_, Self::Commit) => Self::Commit,
            (Self::Rollback, _) | (_, Self::Rollback) => Self::Rollback,
            (Self::No, Self::No) => Self::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> LocalTransaction {
        LocalTransaction::Lost(reply::plan_changed())
    }

    #[test]
    fn a_loss_is_told_once_and_then_only_an_end_is_accepted() {
        for (mut transaction, ends, after) in [
            (lost(), false, TxStatus::Failed),
            (lost(), true, TxStatus::Idle),
            (LocalTransaction::begin(b"BEGIN", false), false, TxStatus::Failed),
            (LocalTransaction::No, false, TxStatus::Idle),
            (LocalTransaction::Failed, true, TxStatus::Failed),
        ] {
            let tells = matches!(transaction, LocalTransaction::Lost(_));
            assert_eq!(
                transaction.check().is_err(),
                tells || matches!(transaction, LocalTransaction::Failed)
            );
            transaction.told(ends);
            assert_eq!(transaction.status(), after, "{transaction:?}");
            assert!(!matches!(transaction, LocalTransaction::Lost(_)));
        }
    }

    #[test]
    fn a_commit_among_others_may_commit() {
        use Ending::{Commit, No, Rollback};
        for (one, other, both) in
            [(No, No, No), (No, Commit, Commit), (Commit, Rollback, Commit), (Rollback, No, Rollback)]
        {
            assert_eq!(one.and(other), both);
        }
    }
}
