//! What replies tell the session besides the bytes for its client.

use super::Undo;
use crate::{backend::statements::StatementId, wire::read::Body};

/// SQLSTATE `syntax_error`.
const SYNTAX_ERROR: &[u8] = b"42601";

/// The files of PostgreSQL's source that errors of its grammar name.
const GRAMMAR_FILES: [&[u8]; 3] = [b"scan.l", b"gram.y", b"parser.c"];

/// What the session may want to know of the replies since it last asked.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub struct News {
    /// The last error that was passed to the client.
    pub failure: Option<Failure>,
    /// A statement of the client changed a parameter that the server reports.
    pub parameter_changed: bool,
    /// Statements whose Parse did not take place.
    pub not_parsed: Vec<StatementId>,
    /// What messages that did not take place had done to the client's statements, in their order: undone from the
    /// last one on.
    pub undone: Vec<Undo>,
    /// A Parse of the unnamed statement did not take place.
    pub lost_unnamed: bool,
    /// Statements whose Close did not take place.
    pub not_closed: Vec<StatementId>,
    /// What was sent in front of the client's Query has failed, so the server skips that: it waits for a Sync.
    pub needs_sync: bool,
    /// A transaction that the client was told had begun has not.
    pub begin_failed: bool,
    /// A request that was sent with a Sync of ours has failed: up to its own Sync the client expects no reply.
    pub skips_to_sync: bool,
}

/// Why the client was told an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The grammar of the server refused a text, or it was not sent a text that could not be read here: such a text
    /// has done nothing.
    Unread,
    /// Anything else.
    Other,
}

/// Whether the error is the grammar's own, before anything of the text has run. Other languages (jsonpath, PL/pgSQL) have
/// the same SQLSTATE, and so have texts that a function runs; those come with a context.
pub(super) fn grammar_refuses(body: &[u8]) -> bool {
    let mut body = Body::new(body, "ErrorResponse");
    let (mut is_syntax, mut is_grammar) = (false, false);
    while let (Ok(kind), Ok(value)) = (body.byte(), body.cstring()) {
        match kind {
            b'C' => is_syntax = value == SYNTAX_ERROR,
            b'F' => is_grammar = GRAMMAR_FILES.contains(&value),
            b'W' => return false,
            _ => {}
        }
    }
    is_syntax && is_grammar
}
