//! Bytes to messages and back: header peek, length limits, startup packets, and the messages that we originate
//! ourselves. No sockets, no waiting.
//!
//! Source of all formats: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

pub mod client;
pub mod frame;
pub mod message;
pub mod options;
pub mod read;
pub mod startup;

/// Transaction status as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxStatus {
    /// `I`: not in a transaction.
    Idle,
    /// `T`: in a transaction.
    Open,
    /// `E`: in a transaction that has failed.
    Failed,
}

impl TxStatus {
    /// Reads the status byte; `None` for a byte that the protocol does not know.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The status byte.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }
}
