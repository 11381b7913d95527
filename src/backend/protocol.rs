//! Where a backend's conversation stands: what was sent and not yet answered, whether it is in a transaction or
//! a COPY, and which of its replies are for the client. Pure: bytes in, decisions out.
//!
//! A question of ours is a part of its own whose replies are swallowed; what opens a client's transaction, and a client's
//! extended request that we changed, carry steps that say what becomes of the reply to each of their messages. `sent` notes
//! what goes out, `received` walks what comes back.

mod heard;
mod known;
pub mod naming;
mod received;
mod repeat;
mod sent;
mod shapes;
mod steps;

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

pub use heard::{Discarded, Failure, Heard, Transient};
use repeat::Repeat;
pub use steps::{Awaits, Step, Undo};

use super::statements::Shape;
use crate::{
    sql::Reading,
    wire::{TxStatus, read::ErrorFields},
};

/// What was sent up to a Sync or a Query, and how its replies are treated.
#[derive(Debug)]
struct Part {
    whose: Whose,
    kind: Kind,
    /// Empty when every reply goes to the client as it is.
    steps: VecDeque<Step>,
    /// Parse messages without a step of their own that are not answered yet.
    parses: usize,
    /// If a stale plan fails the message after which so many steps remain, itself among them, nothing has been done,
    /// and the rest is sent again. 0 for no such message.
    repeats_at: usize,
    /// ReadyForQuery is not for the client yet.
    withholds_ready: bool,
    /// If nothing but an error of the server's own comes, the client is told nothing: its session repeats it.
    repeat: Repeat,
    /// The begin of a transaction is part of it, which an error leaves behind: then only the loss of its connection repeats it.
    begins: bool,
    failed: bool,
    opening: Opening,
}

/// What of the client's was sent in front of its messages, of which it had been told already that it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Nothing that began a transaction.
    Plain,
    /// A BEGIN.
    Begins,
    /// A BEGIN, and it or something else of the opening has failed: the server skips what follows.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Nothing of the replies is for the client.
    Ours,
    /// Of the replies changed parameters are for the client: its own statement would have changed them, had it been
    /// sent to a server of its own. The ReadyForQuery is that of the client's statement, whose own is swallowed.
    Completion,
    Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A Query or FunctionCall: answered by one ReadyForQuery.
    Simple,
    /// Extended messages and their Sync.
    Synced,
    /// Extended messages whose Sync has not been sent.
    Open,
    /// Extended messages that only prepare, with a Sync of ours in place of the client's Flush: its ReadyForQuery
    /// is swallowed.
    Prepared,
}

/// Proof that a backend has answered everything, is in no transaction and no COPY. Only
/// [`Protocol::quiescent`] makes one; a lease is given back with it.
#[derive(Debug)]
pub struct Quiescent(());

/// The state of one backend's conversation.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub struct Protocol {
    parts: VecDeque<Part>,
    status: TxStatus,
    copying_in: bool,
    /// Bytes of the current message's body still to come, and whether they are for the client.
    body_left: usize,
    body_passes: bool,
    /// An incomplete header, or an incomplete message that will be looked into.
    tail: Vec<u8>,
    heard: Option<Box<Heard>>,
    /// What is sent in front of the client's next messages, and whether a BEGIN is among it.
    opening: VecDeque<Step>,
    begins: bool,
    /// The first error in a reply that is not the client's, outside any reply, or the end of the connection.
    error: Option<Box<ErrorFields>>,
    /// What the server has reported of its parameters (ParameterStatus), as it stands now.
    parameters: Vec<(String, String)>,
    /// Whether it has reported since its login that it takes writes, or does not.
    reported_role: bool,
    /// What of them decides how texts are read.
    reading: Reading,
    /// Channels whose notifications the client gets by another way.
    heard_elsewhere: Option<Arc<HashSet<Box<str>>>>,
    /// What becomes of the client's next ReadyForQuery outside of a transaction.
    ready: Ready,
    /// Commands of the client may discard what the session has on the server.
    watches: bool,
    /// What a Describe was answered with so far.
    shape: Shape,
    /// Its ParameterDescription, as long as a stale plan may follow it.
    kept: Vec<u8>,
    /// The steps of a request that failed by a stale plan, up to its ReadyForQuery.
    to_repeat: Option<VecDeque<Step>>,
    /// A warning that the connection is about to end, and what came with it, of a request that may be sent again:
    /// the client is told if it does not end.
    last_words: Vec<u8>,
    /// Rows that commands of the client have returned or changed, as far as they were not asked for.
    rows: u64,
}

/// What becomes of the ReadyForQuery that tells the client that it is in no transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ready {
    Passes,
    /// The session has something to say before it.
    Waits,
    /// It has come, and is the session's to write.
    Held,
}

impl Default for Protocol {
    fn default() -> Self {
        Self {
            parts: VecDeque::new(),
            status: TxStatus::Idle,
            copying_in: false,
            body_left: 0,
            body_passes: true,
            tail: Vec::new(),
            heard: None,
            opening: VecDeque::new(),
            begins: false,
            error: None,
            parameters: Vec::new(),
            reported_role: false,
            reading: Reading::default(),
            heard_elsewhere: None,
            ready: Ready::Passes,
            watches: false,
            shape: Shape::default(),
            kept: Vec::new(),
            to_repeat: None,
            last_words: Vec::new(),
            rows: 0,
        }
    }
}

/// How a server reads texts that has reported these parameters.
pub fn reading_of(parameters: &[(String, String)]) -> Reading {
    let value = |name: &str| {
        let known = parameters.iter().find(|(known, _)| known == name);
        known.map_or("", |(_, value)| value.as_str())
    };
    Reading::new(value("client_encoding"), value("server_encoding"), value("standard_conforming_strings"))
}

#[cfg(test)]
mod tests;
