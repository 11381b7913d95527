//! What a session remembers of its prepared statements, whichever backend they are on.

use std::sync::Arc;

use super::{
    Own, SessionStatements, View, named,
    prepared::{keeps_columns, key},
    reply::{self, Reply},
};
use crate::{
    backend::{
        outgoing::Outgoing,
        protocol::{Undo, naming},
        statements::{NAME_PREFIX, OwnStatement, Shape, Statement, StatementId},
    },
    shared::Limits,
    sql::{Effects, Verdict},
    wire::client::Parse,
};

impl Own {
    /// The session's statement of this name, what the client was told of it, and whether it has used it.
    pub(super) fn named(&self, name: &[u8]) -> Option<(StatementId, Shape, bool)> {
        let own = self.statements.as_deref()?.own(name)?;
        Some((own.id, own.told, own.is_used))
    }

    /// The parameter types of the session's statement of this name, as its Parse message had them, the count and the
    /// numbers, and what the client was told of it.
    pub(super) fn parameter_types(&self, name: &[u8]) -> (&[u8], Shape) {
        let statements = self.statements.as_deref();
        if name.is_empty() {
            let unnamed = statements.and_then(|all| all.unnamed.as_ref());
            return unnamed.map_or_else(Default::default, |unnamed| (unnamed.types(), unnamed.told));
        }
        let own = statements.and_then(|all| all.own(name));
        own.map_or_else(Default::default, |own| (&*own.types, own.told))
    }

    /// The identity of the session's statement of this name, if the client was told nothing of it yet.
    pub(super) fn untold(&self, name: &[u8]) -> Option<StatementId> {
        let statements = self.statements.as_deref()?;
        if name.is_empty() {
            let unnamed = statements.unnamed.as_ref().filter(|unnamed| !unnamed.told.is_told())?;
            return keeps_columns(unnamed.text()).then_some(StatementId(unnamed.hash));
        }
        let own = statements.own(name).filter(|own| !own.told.is_told())?;
        let names_another = own.verdict.effects.has(Effects::NAMES_STATEMENT);
        (!names_another && keeps_columns(&own.text)).then_some(own.id)
    }

    /// Remembers the statement of a Parse, whose text was judged so by the rules and the catalog of these epochs. It
    /// `is_own` if the text may mean here and now what it would mean to no other session.
    pub(super) fn remember_named(
        &mut self,
        Parse { name, text, types, .. }: Parse<'_>,
        judged: (Verdict, (u64, u64)),
        is_own: bool,
        view: &View,
    ) -> Result<Arc<Statement>, Reply> {
        if name.starts_with(NAME_PREFIX) {
            return Err(reply::reserved_name());
        }
        let Limits { prepared_per_client: limit, prepared_bytes_per_client: bytes, .. } =
            view.snapshot.limits;
        let world = (view.snapshot.catalogs.generation(), self.parse_hash());
        let statements = &view.snapshot.statements;
        // The server keeps the columns of what it names, which is another session's own.
        let statement = if judged.0.effects.has(Effects::NAMES_STATEMENT) || is_own {
            statements.unshared(text, types, judged)
        } else {
            statements.intern(world, text, types, judged)
        };
        let named = &mut self.statements.get_or_insert_default().named;
        if named.contains_key(key(name)) {
            return Err(reply::statement_exists(name));
        }
        if named.len() >= limit {
            return Err(reply::too_many_statements(limit));
        }
        if named.bytes() + named::cost(name, text, types) > bytes {
            return Err(reply::statements_too_large(bytes));
        }
        named.insert(key(name).into(), OwnStatement::new(Arc::clone(&statement)));
        Ok(statement)
    }

    /// The unnamed statement is not known any more.
    pub(super) fn forget_unnamed(&mut self) {
        if let Some(statements) = &mut self.statements {
            statements.unnamed = None;
        }
    }

    /// The server has skipped messages of the client, or failed at its Parse: what they had done to the client's
    /// statements is undone.
    pub(super) fn undo(&mut self, undone: Vec<Undo>, view: &View) {
        for undo in undone.into_iter().rev() {
            let Some(SessionStatements { named, .. }) = self.statements.as_deref_mut() else { return };
            match undo {
                Undo::Parse(name) => drop(named.remove(&name)),
                Undo::Close(name, statement) => drop(named.insert(name, statement)),
                // It was read once, so it can be again.
                Undo::CloseUnnamed(body) => {
                    self.remember_unnamed(&body, view.snapshot.catalogs.generation());
                }
            }
        }
    }

    /// Errors of the server that name statements as they are called there name them as the client does.
    pub(super) fn rename_statements(&self, out: &mut Outgoing) {
        let named = |id| {
            let statements = self.statements.as_deref()?;
            let own = statements.named.iter().find(|(_, own)| own.id == id)?;
            Some(own.0)
        };
        out.rename(|error| naming::rename(error, named));
    }

    /// Whether what was sent of a request must be answered before the rest is.
    pub(super) fn is_stepping(&self) -> bool {
        self.statements.as_deref().is_some_and(|statements| statements.is_stepping)
    }

    pub(super) fn set_stepping(&mut self, is_stepping: bool) {
        match &mut self.statements {
            Some(statements) => statements.is_stepping = is_stepping,
            None if is_stepping => {
                self.statements =
                    Some(Box::new(SessionStatements { is_stepping, ..SessionStatements::default() }));
            }
            None => {}
        }
    }
}
