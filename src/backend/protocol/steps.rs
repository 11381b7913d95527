//! What becomes of the replies to a request that was changed on its way. Data only.

use std::sync::Arc;

use crate::backend::statements::{OwnStatement, StatementId};

/// One message of a changed request, and what becomes of the reply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The reply to a message that opens the client's transaction, of which it has been told already, is swallowed.
    Open(Awaits),
    /// The reply goes to the client.
    Pass(Awaits),
    /// The reply goes to the client, and a statement exists from then on, under the client's own name for it.
    PassParsed(StatementId, Box<[u8]>),
    /// The reply to a Describe goes to the client, who is told by it what it gets by this name; empty for the unnamed
    /// statement. It was this one.
    PassDescribed(Box<[u8]>, StatementId),
    /// The reply to a Describe of ours is swallowed.
    SwallowDescribed(StatementId),
    /// The reply to a Describe of ours, which says what the rows of a portal will be, is swallowed.
    SwallowRows,
    /// The reply to a Parse of ours is swallowed, and a statement exists from then on.
    SwallowParsed(StatementId),
    /// The reply to a Close of ours is swallowed.
    SwallowClosed(StatementId),
    /// The message was not sent: these bytes are its reply. If the server skips what comes before, so is this, and
    /// what it did to the client's statements is undone.
    Insert(Box<[u8]>, Undo),
    /// The message was refused here, and one that fails was sent in its place: these bytes replace its error, so that
    /// what comes before and after it is treated as if the server had refused it.
    Refuse {
        /// The ErrorResponse.
        error: Box<[u8]>,
        /// It, or what was dropped behind it, was a Parse of the one text that could not be read.
        drops_unread: bool,
    },
    /// A Query or FunctionCall that came before the Sync: everything goes to the client, up to a ReadyForQuery.
    Simple,
}

impl Step {
    /// Whether the reply is not for the client.
    pub(super) const fn swallows(&self) -> bool {
        matches!(
            self,
            Self::Open(_)
                | Self::SwallowParsed(_)
                | Self::SwallowClosed(_)
                | Self::SwallowDescribed(_)
                | Self::SwallowRows
        )
    }

    /// Whether a message with this tag is the end of the reply.
    pub(super) const fn ended_by(&self, tag: u8) -> bool {
        match self {
            Self::Pass(awaits) | Self::Open(awaits) => awaits.ended_by(tag),
            Self::PassParsed(..) | Self::SwallowParsed(_) => tag == b'1',
            Self::SwallowClosed(_) => tag == b'3',
            Self::PassDescribed(..) | Self::SwallowDescribed(_) | Self::SwallowRows => {
                Awaits::Describe.ended_by(tag)
            }
            Self::Insert(..) | Self::Refuse { .. } | Self::Simple => false,
        }
    }
}

/// How what a message did to the client's own statements is undone, when the server has skipped it.
#[derive(Clone, Debug)]
pub enum Undo {
    /// The name of a Parse is free again.
    Parse(Box<[u8]>),
    /// The statement of a Close is there again.
    Close(Box<[u8]>, OwnStatement),
    /// So is the unnamed one, of which this is the Parse message's body without its name.
    CloseUnnamed(Box<[u8]>),
}

impl PartialEq for Undo {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Parse(one), Self::Parse(two)) | (Self::CloseUnnamed(one), Self::CloseUnnamed(two)) => {
                one == two
            }
            (Self::Close(one, of), Self::Close(two, what)) => {
                one == two && Arc::ptr_eq(&of.statement, &what.statement)
            }
            _ => false,
        }
    }
}

impl Eq for Undo {}

/// The message that ends the reply to one extended message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, PortalSuspended or EmptyQueryResponse.
    Execute,
    /// CloseComplete.
    Close,
}

impl Awaits {
    pub(super) const fn ended_by(self, tag: u8) -> bool {
        match self {
            Self::Parse => tag == b'1',
            Self::Bind => tag == b'2',
            Self::Close => tag == b'3',
            Self::Describe => matches!(tag, b'T' | b'n'),
            Self::Execute => matches!(tag, b'C' | b's' | b'I'),
        }
    }
}
