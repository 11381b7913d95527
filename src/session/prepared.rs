//! What a client was told of a prepared statement binds us. A statement is parsed where it is missing, by whoever comes
//! there first, and definitions change in between: so a client that was told columns is served by a statement of these
//! columns only, and one that has just parsed a text never meets the plan that somebody else had made before a change.
//!
//! Three ways lead there. What a backend was never asked for is parsed and described anew before the client's own
//! message is sent: the request is cut in two, and the rest waits for the reply. What a backend already has is used by a
//! client that was told nothing; if the server finds it stale, and nothing has been done yet, it is parsed anew and the
//! request goes on. What is parsed while a transaction has changed what texts mean is shared with nobody.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Own, SessionStatements,
    hold::Leased,
    reply::{self, Reply},
    request::Request,
    rewrite::{Done, Rewrite, Rewriting, ServerName},
    transaction::LocalTransaction,
};
use crate::{
    backend::{
        probe::PinReason,
        protocol::{Heard, Step},
        statements::{Known, OwnStatement, Shape, Statement, StatementId, UnnamedText},
    },
    sql::Effects,
    types::localize_parses,
    wire::{TxStatus, message},
};

/// The server keeps so many bytes of a statement's name.
const NAME_BYTES: usize = 63;

/// Stands for the unnamed statement where a statement's identity is asked for.
pub(super) const UNNAMED: StatementId = StatementId(0);

/// After these a text may mean something else until the transaction is over, or for as long as the backend is kept.
const CHANGES_MEANING: Effects = Effects::SETS
    .with(Effects::LOCAL)
    .with(Effects::SETS_UNLISTED)
    .with(Effects::RESETS)
    .with(Effects::DDL)
    .with(Effects::ADDS)
    .with(Effects::DROPS)
    .with(Effects::TEMP)
    .with(Effects::LOADS)
    .with(Effects::OPAQUE)
    .with(Effects::OPAQUE_SETTINGS)
    .with(Effects::UNPROVEN);

/// A request that is sent again if a stale plan is in its way.
#[derive(Debug)]
pub(super) struct Repeat {
    /// The statement that is parsed anew.
    pub(super) statement: Arc<Statement>,
    /// From the message that uses it to the end of the request.
    pub(super) tail: Box<[u8]>,
    /// The request ends with a Sync of ours.
    pub(super) prepares: bool,
}

/// A client's name for a statement as the server keeps it.
pub(super) fn key(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_BYTES)]
}

/// Whether the server holds a statement to the columns that it told of it. Those of EXECUTE and FETCH are always those of
/// what they name.
pub(super) fn keeps_columns(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    !begins(b"execute") && !begins(b"fetch")
}

/// Whether a text may mean here and now what it would mean to no other session.
pub(super) fn means_its_own(transaction: &LocalTransaction, leased: Option<&Leased>) -> bool {
    let is_begun = matches!(transaction, LocalTransaction::Deferred(deferred) if deferred.texts.len() > 1);
    let has_own = |leased: &Leased| {
        leased.is_pinned_by(PinReason::TempObjects) || leased.left.effects.has(CHANGES_MEANING)
    };
    is_begun || leased.is_some_and(has_own)
}

impl Rewriting<'_> {
    /// Whether a text behind what is written already may mean what it would mean to no other session.
    pub(super) fn means_its_own(&self, rewrite: &Rewrite<'_>) -> bool {
        let executed = rewrite.executed && rewrite.effects.has(CHANGES_MEANING);
        executed || means_its_own(self.transaction, Some(self.leased))
    }

    /// Whether a stale plan in the way of the request's first message that uses a statement would have done nothing.
    pub(super) fn may_parse_anew(&self, request: Request) -> bool {
        (request.is_synced() || request.only_prepares())
            && request.streaming == 0
            && matches!(self.transaction, LocalTransaction::No)
            && self.leased.protocol.status() == TxStatus::Idle
            && !self.leased.protocol.is_open()
    }

    /// The name on the backend of the session's own statement, which is used by it for the first time or is not known
    /// to be there as the client was told. `known` is what is known of it there.
    pub(super) fn settle_named<'a>(
        &mut self,
        name: &[u8],
        known: Known,
        rewrite: &mut Rewrite<'_>,
    ) -> Result<Result<ServerName<'a>, Done>, Reply> {
        let Some(own) = self.own.statements.as_mut().and_then(|all| all.named.get_mut(key(name))) else {
            return Err(reply::no_such_statement(name));
        };
        let was_used = std::mem::replace(&mut own.is_used, true);
        let (statement, told) = (Arc::clone(&own.statement), own.told);
        let id = statement.id;
        match known {
            Known::There(shape) if told.is_told() => {
                // In a failed transaction nothing is parsed, and nothing run that gives rows.
                if told.fits(shape) && shape.is_told() || self.status() == TxStatus::Failed {
                    return Ok(Ok(ServerName::Ours(id)));
                }
                if self.take_confirmed(id).is_some() {
                    return Ok(Err(Done::Changed));
                }
                rewrite.close(id);
                self.confirm(name, &statement, rewrite);
                Ok(Err(Done::Cut))
            }
            Known::Missing if told.is_told() => {
                self.confirm(name, &statement, rewrite);
                Ok(Err(Done::Cut))
            }
            Known::There(_) if !was_used && self.leased.statements.is_suspect(id) => {
                rewrite.close(id);
                Ok(Ok(ServerName::Ours(self.parse_missing(name, &statement, rewrite))))
            }
            Known::There(_) => {
                if !was_used {
                    rewrite.risk(&statement);
                }
                Ok(Ok(ServerName::Ours(id)))
            }
            Known::Missing => Ok(Ok(ServerName::Ours(self.parse_missing(name, &statement, rewrite)))),
        }
    }

    /// Parses a statement of the session where it is missing, and asks for its shape.
    fn confirm(&mut self, name: &[u8], statement: &Arc<Statement>, rewrite: &mut Rewrite<'_>) {
        let id = self.parse_missing(name, statement, rewrite);
        message::describe_statement(rewrite.out, &id);
        rewrite.push(Step::SwallowDescribed(id));
    }

    /// Parses a statement of the session where it is missing. What it means in this transaction is for no other session,
    /// and not for this one when the transaction is over.
    fn parse_missing(
        &mut self,
        name: &[u8],
        statement: &Arc<Statement>,
        rewrite: &mut Rewrite<'_>,
    ) -> StatementId {
        let own_meaning = self.means_its_own(rewrite);
        let statement = if own_meaning { self.unshare(name, statement) } else { Arc::clone(statement) };
        message::parse(rewrite.out, &statement.id, &statement.text, &statement.types);
        rewrite.push(Step::SwallowParsed(statement.id));
        let there = &mut self.leased.statements;
        if own_meaning {
            there.insert_local(statement.id);
        } else {
            there.insert(statement.id);
        }
        statement.id
    }

    fn unshare(&mut self, name: &[u8], statement: &Statement) -> Arc<Statement> {
        let judged = (statement.verdict, statement.epochs);
        let new = self.view.snapshot.statements.unshared(&statement.text, &statement.types, judged);
        if let Some(own) = self.own.statements.as_mut().and_then(|all| all.named.get_mut(key(name))) {
            own.statement = Arc::clone(&new);
        }
        new
    }

    /// The unnamed statement is on the backend when this returns `None`.
    pub(super) fn settle_unnamed(&mut self, rewrite: &mut Rewrite<'_>) -> Result<Option<Done>, Reply> {
        let there = self.leased.statements.unnamed;
        let Some(unnamed) = self.own.statements.as_ref().and_then(|all| all.unnamed.as_ref()) else {
            // What another session has left there is none of this one's.
            let is_own = there == UnnamedText::Streamed;
            return if is_own { Ok(None) } else { Err(reply::no_unnamed_statement()) };
        };
        let (wanted, told) = (UnnamedText::Kept(unnamed.hash), unnamed.told);
        if there == wanted {
            let changed =
                told.is_told() && self.take_confirmed(UNNAMED).is_some_and(|shape| !told.fits(shape));
            if changed {
                // It is not what the client has prepared.
                self.leased.statements.unnamed = UnnamedText::None;
            }
            return Ok(changed.then_some(Done::Changed));
        }
        message::raw(rewrite.out, b'P', &[&[0], unnamed.body.as_slice()].concat());
        self.leased.statements.unnamed = wanted;
        rewrite.push(Step::SwallowParsed(UNNAMED));
        if !told.is_told() {
            return Ok(None);
        }
        message::describe_statement(rewrite.out, b"");
        rewrite.push(Step::SwallowDescribed(UNNAMED));
        Ok(Some(Done::Cut))
    }

    /// The backend's answer to the question what a statement is, if the question was of this one.
    fn take_confirmed(&mut self, id: StatementId) -> Option<Shape> {
        let confirmed = self.own.statements.as_mut()?.confirmed.take()?;
        (confirmed.0 == id).then_some(confirmed.1)
    }
}

impl Own {
    /// Takes in what the replies of the backend told of statements.
    pub(super) fn note_statements(&mut self, leased: &mut Leased, news: &mut Heard) {
        if news.has_stale_plan {
            leased.statements.suspect_all();
        }
        leased.left.statements_unknown |= news.lacks_statement;
        if let Some(statements) = &mut self.statements {
            for (name, id, shape) in news.described.drain(..) {
                statements.note_told(&name, id, shape);
                leased.statements.describe(id, shape);
            }
            for (id, shape) in news.confirmed.drain(..) {
                statements.confirmed = Some((id, shape));
                leased.statements.describe(id, shape);
            }
        }
        leased.left.discarded = leased.left.discarded.and(news.discarded);
        if news.discarded.statements {
            leased.statements.clear();
            if let Some(statements) = &mut self.statements {
                statements.named.clear();
                statements.aliases.clear();
            }
        }
        if news.discarded.sequences {
            leased.left.effects |= Effects::DISCARDS_SEQUENCES;
        }
        if news.discarded.all {
            leased.left.effects |= Effects::DISCARDS.with(Effects::RESETS);
        }
        if let Some(steps) = news.repeats.take()
            && let Some(repeat) = self.statements.as_mut().and_then(|all| all.repeat.take())
        {
            leased.parse_anew(*repeat, steps);
        }
    }
}

impl Leased {
    /// Sends what a stale plan has kept from being done, with the statement parsed anew.
    fn parse_anew(&mut self, repeat: Repeat, mut steps: VecDeque<Step>) {
        let Repeat { statement, tail, prepares } = repeat;
        let mut bytes = Vec::with_capacity(tail.len() + statement.text.len() + 64);
        message::close_statement(&mut bytes, &statement.id);
        message::parse(&mut bytes, &statement.id, &statement.text, &statement.types);
        if let Some(types) = &self.types {
            localize_parses(types.map(), &mut bytes);
        }
        bytes.extend_from_slice(&tail);
        steps.push_front(Step::SwallowParsed(statement.id));
        steps.push_front(Step::SwallowClosed(statement.id));
        self.statements.insert(statement.id);
        if prepares {
            self.protocol.sent_prepared(steps);
        } else {
            self.protocol.sent_extended(steps, true);
        }
        // A failed write shows as the end of the backend's replies.
        let _ = self.send(&bytes);
    }
}

impl Own {
    /// After a request: nothing of it is sent again.
    pub(super) fn end_statements(&mut self) {
        if let Some(statements) = &mut self.statements {
            statements.repeat = None;
            statements.confirmed = None;
        }
    }
}

impl Leased {
    /// After a transaction: what it has parsed for itself is used no more.
    pub(super) fn end_statements(&mut self) {
        self.statements.end_transaction();
        // The unnamed one is of whoever says the same text next, and was perhaps parsed by what SET LOCAL had set.
        if self.left.effects.has(Effects::LOCAL) && self.statements.unnamed != UnnamedText::Streamed {
            self.statements.unnamed = UnnamedText::None;
        }
        self.left.may_discard = false;
    }
}

impl SessionStatements {
    fn note_told(&mut self, name: &[u8], id: StatementId, shape: Shape) {
        let unnamed = self.unnamed.as_mut().filter(|unnamed| name.is_empty() && unnamed.hash == id.0);
        let named = self.named.get_mut(name).filter(|own: &&mut OwnStatement| own.id == id);
        for told in unnamed.map(|unnamed| &mut unnamed.told).into_iter().chain(named.map(|own| &mut own.told))
        {
            *told = told.and(shape);
        }
    }
}
