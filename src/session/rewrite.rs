//! What a request of the extended protocol becomes on its way to a backend: the bytes that are sent instead, and what
//! becomes of the reply to each of its messages.

use std::{collections::VecDeque, sync::Arc};

use super::{Own, View, classify::Judge, hold::Leased, transaction::LocalTransaction};
use crate::{
    backend::{
        protocol::{Awaits, Step, Undo},
        statements::{Statement, StatementId},
    },
    sql::Effects,
    wire::{TxStatus, message},
};

/// A session whose request becomes another on its way: what that may touch, and the backend that the request is for.
#[derive(Debug)]
pub(super) struct Rewriting<'s> {
    pub(super) view: &'s View,
    pub(super) own: &'s mut Own,
    pub(super) transaction: &'s LocalTransaction,
    pub(super) leased: &'s mut Leased,
}

impl Rewriting<'_> {
    /// The judge of single texts: it knows no request.
    pub(super) fn judge(&self) -> Judge<'_> {
        let reading = self.leased.protocol.reading();
        Judge { inbox: &[], view: self.view, own: self.own, reading }
    }

    /// The transaction status that the client is told.
    pub(super) fn status(&self) -> TxStatus {
        self.transaction.status_with(self.leased.protocol.status())
    }
}

/// Replies that are kept back as passing before they are spelled out.
const PASSES_MAX: usize = 8;

/// A request as it will be sent.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Rewrite<'a> {
    pub(super) out: &'a mut Vec<u8>,
    steps: VecDeque<Step>,
    /// The messages whose replies pass. As long as all do, they need not be looked at, and there are no steps.
    passes: [Awaits; PASSES_MAX],
    passing: usize,
    /// Every reply counts: more messages will follow before the Sync, or have come before, or one of these replies
    /// does not pass.
    exact: bool,
    /// Effects that all of the request may have.
    pub(super) effects: Effects,
    /// Something of it is run.
    pub(super) executed: bool,
    /// A stale plan may be replaced: nothing was bound, described or run yet.
    pub(super) may_repeat: bool,
    risk: Option<(Risk, usize)>,
    /// The statement named last is one that the client was told nothing of, as far as is known.
    pub(super) is_untold: bool,
    /// The portal bound last, if it is of a statement that the client was told nothing of: with the client's name for
    /// the statement.
    pub(super) bound: Option<Bound>,
    /// Only so many bytes of the request are sent now.
    pub(super) cut: Option<usize>,
    /// The portal that the message before has described. Kept only where types have other numbers, as is `text_portal`.
    pub(super) described: Option<Box<[u8]>>,
    /// The portal that was bound last, if all that it gives is text.
    pub(super) text_portal: Option<Box<[u8]>>,
}

/// A portal, the client's name for its statement, and the statement.
type Bound = (Box<[u8]>, Box<[u8]>, StatementId);

/// The outcome of rewriting a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// The message is sent, or answered.
    Sent,
    /// The message is not sent before what was sent for it is answered.
    Cut,
    /// The message is refused: the statement's columns are others than the client was told.
    Changed,
}

/// A message that uses a statement which is on the backend, but may have been parsed long ago.
#[derive(Debug)]
pub(super) struct Risk {
    pub(super) statement: Arc<Statement>,
    /// Where it begins in what is written.
    pub(super) at: usize,
}

/// A request that was rewritten, as far as its replies are concerned.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// None if all of them pass.
    pub(super) steps: VecDeque<Step>,
    /// The number of replies to Parse messages, if all replies pass.
    pub(super) parses: usize,
    /// A message that may meet a stale plan, and how many steps remain at it.
    pub(super) risk: Option<(Risk, usize)>,
    /// Only so many bytes of the request are sent.
    pub(super) cut: Option<usize>,
    /// Something of it is run.
    executed: bool,
}

impl Rewritten {
    /// Whether all replies pass, and nothing is done about any of them.
    pub(super) fn passes(&self) -> bool {
        self.steps.is_empty() && self.parses == 0 && self.risk.is_none() && self.cut.is_none()
    }

    /// Whether nothing is sent but what must be known before any of the request is run.
    pub(super) fn only_begins(&self) -> bool {
        self.cut.is_some() && !self.executed
    }
}

impl<'a> Rewrite<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>, exact: bool, effects: Effects) -> Self {
        Self {
            out,
            steps: VecDeque::new(),
            passes: [Awaits::Parse; PASSES_MAX],
            passing: 0,
            exact,
            effects,
            executed: false,
            may_repeat: false,
            risk: None,
            is_untold: false,
            bound: None,
            cut: None,
            described: None,
            text_portal: None,
        }
    }

    /// Sends a message as it came.
    pub(super) fn send(&mut self, whole: &[u8]) {
        self.out.extend_from_slice(whole);
    }

    /// The reply to what was sent passes.
    pub(super) fn pass(&mut self, awaits: Awaits) {
        if self.exact || self.passing == PASSES_MAX {
            self.push(Step::Pass(awaits));
        } else {
            self.passes[self.passing] = awaits;
            self.passing += 1;
        }
    }

    /// The reply to what was sent does not pass, but is dealt with so.
    pub(super) fn push(&mut self, step: Step) {
        self.spell_out();
        self.steps.push_back(step);
    }

    fn spell_out(&mut self) {
        self.steps.extend(self.passes[..self.passing].iter().copied().map(Step::Pass));
        (self.passing, self.exact) = (0, true);
    }

    /// The next message uses a statement that may be stale.
    pub(super) fn risk(&mut self, statement: &Arc<Statement>) {
        if self.may_repeat {
            self.spell_out();
            let risk = Risk { statement: Arc::clone(statement), at: self.out.len() };
            self.risk = Some((risk, self.steps.len()));
        }
    }

    /// The Parse of a message is answered without the server.
    pub(super) fn insert_parsed(&mut self, undo: Undo) {
        let mut complete = Vec::new();
        message::parse_complete(&mut complete);
        self.push(Step::Insert(complete.into(), undo));
    }

    /// A Close is.
    pub(super) fn insert_closed(&mut self, undo: Undo) {
        let mut complete = Vec::new();
        message::close_complete(&mut complete);
        self.push(Step::Insert(complete.into(), undo));
    }

    /// Closes a statement of ours.
    pub(super) fn close(&mut self, id: StatementId) {
        message::close_statement(self.out, &id);
        self.push(Step::SwallowClosed(id));
    }

    /// Lets the server fail where a message is refused here: what comes before it takes place, its transaction fails,
    /// and what comes after it is skipped up to the Sync.
    pub(super) fn refuse(&mut self, error: Vec<u8>, drops_unread: bool, synced: bool) {
        self.push(Step::Refuse { error: error.into(), drops_unread });
        message::describe_statement(self.out, b"bulkhead refused a message");
        if synced {
            message::sync(self.out);
        }
    }

    pub(super) fn finish(mut self) -> Rewritten {
        if self.cut.is_some() {
            // The replies are waited for, each of them.
            self.spell_out();
        }
        let parses = self.passes[..self.passing].iter().filter(|awaits| **awaits == Awaits::Parse).count();
        let risk = self.risk.map(|(risk, at)| (risk, self.steps.len() - at));
        Rewritten { steps: self.steps, parses, risk, cut: self.cut, executed: self.executed }
    }
}

/// The name by which the backend knows what the client calls a statement.
#[derive(Clone, Copy)]
pub(super) enum ServerName<'a> {
    Unnamed,
    Ours(StatementId),
    /// The client's own name: SQL's PREPARE gave it.
    Theirs(&'a [u8]),
}

impl message::Name for ServerName<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            ServerName::Unnamed => {}
            ServerName::Ours(id) => id.write(out),
            ServerName::Theirs(name) => out.extend_from_slice(name),
        }
    }
}
