//! What replies tell the session besides the bytes for its client.

use std::collections::VecDeque;

use super::{Step, Undo};
use crate::{
    backend::statements::{Shape, StatementId},
    wire::read::Body,
};

/// The function of PostgreSQL's source that finds that a statement's columns have changed. Its name is not translated.
const REVALIDATES: &[u8] = b"RevalidateCachedQuery";

/// SQLSTATE `syntax_error`.
const SYNTAX_ERROR: &[u8] = b"42601";

/// The files of PostgreSQL's source that errors of its grammar name.
const GRAMMAR_FILES: [&[u8]; 3] = [b"scan.l", b"gram.y", b"parser.c"];

/// Everything that the session may want to know of the replies since it last asked.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub struct Heard {
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
    /// The client's request has failed for reasons of the server's own, of which it has been told nothing.
    pub transient: Option<Transient>,
    /// The state of the backend's session that was discarded.
    pub discarded: Discarded,
    /// Shapes that the client was told of statements, by its own names for them.
    pub described: Vec<(Box<[u8]>, StatementId, Shape)>,
    /// Shapes of statements that we had asked for.
    pub confirmed: Vec<(StatementId, Shape)>,
    /// A statement was parsed before its columns changed.
    pub has_stale_plan: bool,
    /// A statement was missing that was called by a name of ours.
    pub lacks_statement: bool,
    /// The request did nothing because of a stale plan, of which the client was not told: these of its steps are still
    /// to be done.
    pub repeats: Option<VecDeque<Step>>,
    /// What was sent in front of the client's Query has failed, so the server skips that: it waits for a Sync.
    pub needs_sync: bool,
    /// A transaction that the client was told had begun has not.
    pub begin_failed: bool,
    /// A request that was sent with a Sync of ours has failed: up to its own Sync the client expects no reply.
    pub skips_to_sync: bool,
}

impl Heard {
    /// Notes that these steps did not take place.
    pub(super) fn undo(&mut self, steps: VecDeque<Step>) {
        for step in steps {
            match step {
                Step::PassParsed(id, name) => {
                    self.not_parsed.push(id);
                    self.undone.push(Undo::Parse(name));
                }
                Step::SwallowParsed(id) => self.not_parsed.push(id),
                Step::SwallowClosed(id) => self.not_closed.push(id),
                Step::Insert(_, undo) => self.undone.push(undo),
                Step::Open(_)
                | Step::Pass(_)
                | Step::PassDescribed(..)
                | Step::SwallowDescribed(_)
                | Step::SwallowRows
                | Step::Refuse { .. }
                | Step::Simple => {}
            }
        }
    }
}

/// State that commands of the client have discarded, by their tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts")]
pub struct Discarded {
    /// DISCARD ALL.
    pub all: bool,
    /// DISCARD ALL, DEALLOCATE ALL: no prepared statement is left of those before it.
    pub statements: bool,
    /// DISCARD ALL, DISCARD SEQUENCES.
    pub sequences: bool,
    /// DISCARD ALL, RESET, SET (.. TO DEFAULT): settings are what they were.
    pub settings: bool,
}

impl Discarded {
    /// Reads off a CommandComplete what its command discarded.
    pub(super) fn by(body: &[u8]) -> Self {
        let tag = body.strip_suffix(b"\0").unwrap_or(body);
        let all = tag == b"DISCARD ALL";
        Self {
            all,
            statements: all || tag == b"DEALLOCATE ALL",
            sequences: all || tag == b"DISCARD SEQUENCES",
            settings: all || tag == b"RESET" || tag == b"SET",
        }
    }

    /// Whether it is anything.
    pub const fn is_any(self) -> bool {
        self.all || self.statements || self.sequences || self.settings
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            all: self.all || other.all,
            statements: self.statements || other.statements,
            sequences: self.sequences || other.sequences,
            settings: self.settings || other.settings,
        }
    }
}

/// Reasons of a server's own to fail a read, which tell nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Transient {
    /// `admin_shutdown`: an administrator, or a server that goes down, has ended the connection.
    Ended,
    /// `idle_session_timeout`: it had ended before the request came.
    IdleTooLong,
    /// `serialization_failure`: on a replica, what the read needs was removed.
    Conflict,
    /// `read_only_sql_transaction`: on a replica, it was no read.
    ReadOnly,
    /// The connection was lost, and the server has not said why.
    Lost,
}

impl Transient {
    /// Every reason, in the order of their discriminants.
    pub const ALL: [Self; 5] = [Self::Ended, Self::IdleTooLong, Self::Conflict, Self::ReadOnly, Self::Lost];

    /// The metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ended => "connection_ended",
            Self::IdleTooLong => "idle_session_timeout",
            Self::Conflict => "conflict",
            Self::ReadOnly => "read_only_server",
            Self::Lost => "connection_lost",
        }
    }

    /// The reason that a SQLSTATE stands for.
    pub fn of(code: &[u8]) -> Option<Self> {
        match code {
            b"57P01" => Some(Self::Ended),
            b"57P05" => Some(Self::IdleTooLong),
            b"40001" => Some(Self::Conflict),
            b"25006" => Some(Self::ReadOnly),
            _ => None,
        }
    }

    /// The reason of an ErrorResponse after which the connection goes on.
    pub(super) fn of_error(body: &[u8]) -> Option<Self> {
        let mut body = Body::new(body, "ErrorResponse");
        while let (Ok(kind), Ok(value)) = (body.byte(), body.cstring()) {
            if kind == b'C' {
                return Self::of(value).filter(|reason| matches!(reason, Self::Conflict | Self::ReadOnly));
            }
        }
        None
    }
}

/// Whether the error is that of a statement whose columns are others than when it was parsed.
pub(super) fn is_stale_plan(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"0A000") && field(body, b'R') == Some(REVALIDATES)
}

/// Whether the error is that of a statement that does not exist.
pub(super) fn lacks_statement(body: &[u8]) -> bool {
    field(body, b'C') == Some(b"26000")
}

pub(super) fn field(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut body = Body::new(body, "ErrorResponse");
    while let (Ok(kind), Ok(value)) = (body.byte(), body.cstring()) {
        if kind == wanted {
            return Some(value);
        }
    }
    None
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
            // A context, or a query of a function's own.
            b'W' | b'q' | b'p' => return false,
            _ => {}
        }
    }
    is_syntax && is_grammar
}
