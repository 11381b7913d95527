//! The one name space of prepared statements: what the protocol prepared has a name of ours on the server, so SQL that
//! names it (EXECUTE, PREPARE, DEALLOCATE) would not find it. For the time of such a transaction the statement also
//! exists there under the client's own name, its alias; the server then answers as ever.

use std::{fmt::Write as _, sync::Arc};

use super::{
    Session,
    classify::Judge,
    held::Held,
    hold::Leased,
    prepared,
    questions::Asking,
    reply::{self, Reply},
    request::Request,
    rewrite::Rewriting,
};
use crate::{
    backend::{
        Broken,
        statements::{NAME_PREFIX, Statement},
    },
    route::Demand,
    sql::{Effects, Verdict, quote_name, statement_names},
    wire::{TxStatus, message},
};

/// A statement that exists on the leased backend under the client's own name.
#[derive(Debug)]
pub(super) struct Alias {
    name: Box<[u8]>,
    /// A text of the client may have let go of it.
    may_go: bool,
}

/// Statements that must be parsed under the client's own names before a request.
pub(super) type Missing = Vec<(Box<[u8]>, Arc<Statement>)>;

impl Judge<'_> {
    /// The verdict of what is run by its name counts like its own text's.
    pub(super) fn add_named(self, demand: &mut Demand, verdict: Verdict, text: &[u8]) {
        if !verdict.effects.has(Effects::NAMES_STATEMENT) || self.own.statements.is_none() {
            return;
        }
        for named in statement_names(text).into_iter().filter(|named| !named.is_let_go) {
            self.known_verdict(named.name.as_bytes()).into_iter().for_each(|verdict| demand.add(verdict));
        }
    }
}

impl Held<'_> {
    /// The statements of the protocol that the request names in SQL and that the backend lacks under these names.
    pub(super) fn missing_aliases(&mut self, request: Request, verdict: &Verdict) -> Result<Missing, Reply> {
        if !verdict.effects.has(Effects::NAMES_STATEMENT) {
            return Ok(Missing::new());
        }
        let names: Vec<_> =
            self.judge().texts(request).iter().flat_map(|text| statement_names(text)).collect();
        if names.iter().any(|named| named.name.as_bytes().starts_with(NAME_PREFIX)) {
            return Err(reply::reserved_name());
        }
        let is_amid = self.is_amid_pipeline();
        let has_failed = self.status() == TxStatus::Failed;
        let statements = self.own.statements.get_or_insert_default();
        statements.has_sql_names |= verdict.effects.has(Effects::PREPARES);
        let mut missing = Missing::new();
        for named in names {
            let name: Box<[u8]> = named.name.into_bytes().into();
            let Some(own) = statements.named.get(&name) else { continue };
            if let Some(alias) = statements.aliases.iter_mut().find(|alias| alias.name == name) {
                alias.may_go |= named.is_let_go;
            } else if is_amid {
                return Err(reply::named_amid_pipeline(&name));
            } else if !has_failed {
                missing.push((name.clone(), Arc::clone(&own.statement)));
                statements.aliases.push(Alias { name, may_go: named.is_let_go });
            }
        }
        Ok(missing)
    }
}

impl Rewriting<'_> {
    /// The client closes a statement by the protocol: whether that is for the server to do, because the statement
    /// exists there under this name.
    pub(super) fn closes_there(&mut self, name: &[u8]) -> bool {
        let name = prepared::key(name);
        let may_have_sql_names = self.may_have_sql_names();
        let Some(statements) = &mut self.own.statements else { return false };
        if let Some(alias) = statements.aliases.iter_mut().find(|alias| *alias.name == *name) {
            alias.may_go = true;
            return true;
        }
        may_have_sql_names && !statements.named.contains_key(name)
    }

    /// Whether the backend may have statements that the session has prepared by SQL.
    pub(super) fn may_have_sql_names(&self) -> bool {
        self.own.has_sql_names() && self.leased.may_have_sql_names()
    }
}

impl Session {
    /// Whether the backend, if there is one, may have statements that the session has prepared by SQL.
    pub(super) fn may_have_sql_names(&self) -> bool {
        self.own.has_sql_names() && self.hold.backend().is_some_and(Leased::may_have_sql_names)
    }
}

impl Asking<'_> {
    /// After the transaction: takes the aliases away, and notes what the client has let go of.
    pub(super) async fn remove_aliases(&mut self) -> Result<(), Broken> {
        let Some(statements) = &mut self.own.statements else { return Ok(()) };
        let aliases = std::mem::take(&mut statements.aliases);
        let there = self.leased.ask_statement_names(&mut self.client.outbox).await?;
        let mut sql = String::new();
        for alias in aliases {
            let name = String::from_utf8_lossy(&alias.name);
            if there.iter().any(|other| *other == name) {
                let _ = write!(sql, "DEALLOCATE {};", quote_name(&name));
            } else if alias.may_go {
                statements.named.remove(&alias.name);
            }
        }
        if sql.is_empty() {
            return Ok(());
        }
        match self.leased.ask_unhindered(&sql).await?.error {
            Some(_) => Err(self.leased.given_up("it does not let go of a session's statements")),
            None => Ok(()),
        }
    }
}

/// Writes what makes aliases on the backend, as part of a request's opening.
pub(super) fn write_aliases(missing: &Missing, out: &mut Vec<u8>) {
    for (name, statement) in missing {
        message::parse(out, &**name, &statement.text, &statement.types);
    }
}
