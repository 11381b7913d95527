//! A transaction that has begun here and nowhere else yet: BEGIN comes alone, before anything says which server
//! it is for, so it is answered here and opened in the same write as the first statement.

use super::reply::{self, Reply};
use crate::{sql::Control, wire::TxStatus};

/// A transaction without a backend.
#[derive(Debug, Default)]
pub(crate) enum Begun {
    /// None.
    #[default]
    No,
    /// BEGIN was answered.
    Deferred(Box<Deferred>),
    /// The transaction failed before it reached a server, or its server is gone: only its end is accepted. The
    /// reason is told once.
    Failed(Option<Box<Reply>>),
}

/// What must be sent to open the transaction.
#[derive(Debug)]
pub(crate) struct Deferred {
    /// BEGIN as the client wrote it, then SAVEPOINT, SET LOCAL and the like.
    pub(crate) texts: Vec<Box<[u8]>>,
    /// It may be opened on a standby.
    pub(crate) fits_standby: bool,
}

impl Begun {
    /// BEGIN as the client wrote it.
    pub(crate) fn begin(text: &[u8], control: Control) -> Self {
        let fits_standby = matches!(control, Control::Begin { read_only: true, serializable: false });
        Self::Deferred(Box::new(Deferred { texts: vec![text.into()], fits_standby }))
    }

    /// The error for a statement in a failed transaction.
    pub(crate) fn check(&mut self) -> Result<(), Reply> {
        match self {
            Self::Failed(reason) => {
                Err(reason.take().map_or_else(reply::in_failed_transaction, |reason| *reason))
            }
            Self::No | Self::Deferred(_) => Ok(()),
        }
    }

    /// The status that the client is told.
    pub(crate) const fn status(&self) -> TxStatus {
        match self {
            Self::No => TxStatus::Idle,
            Self::Deferred(_) => TxStatus::Open,
            Self::Failed(_) => TxStatus::Failed,
        }
    }
}
