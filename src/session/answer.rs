//! Requests that need no backend: BEGIN before anything says where it goes, the end of such a transaction,
//! closing prepared statements, a lone Sync.

use std::sync::atomic::Ordering;

use super::{
    Ended, Session, Stop, prepared, prologue,
    reply::{self, Remedy, Reply},
    request::{End, Request},
    transaction::LocalTransaction,
};
use crate::{
    route::{Demand, Misplaced},
    sql::{Control, Deallocate, Effects, deallocate_target},
    wire::{
        TxStatus,
        client::{ClientMessage, Item, Messages},
        message,
    },
};

/// Statements kept back in one transaction, and their length; more of them open it.
const PROLOGUE_TEXTS: usize = 16;
const PROLOGUE_BYTES: usize = 4096;

impl Session {
    /// Answers the request here if it can be; returns whether it did, and has then taken it from the inbox.
    pub(crate) fn answers(&mut self, request: Request, demand: &Demand) -> Result<bool, Ended> {
        if request.streaming > 0 || self.hold.is_amid_pipeline() {
            return Ok(false);
        }
        if demand.statements == 0 {
            return self.answers_bookkeeping(request);
        }
        match &self.hold.transaction {
            // Refused, by what has become of it.
            LocalTransaction::Lost(_) => return Ok(false),
            // Whether or not it holds a backend, which knows nothing of it.
            LocalTransaction::Failed => return self.answers_failed(request),
            _ => {}
        }
        if demand.verdict.effects.has(Effects::DEALLOCATES) && self.answers_deallocate(request)? {
            return Ok(true);
        }
        if self.hold.has_backend() || demand.statements > 1 {
            return Ok(false);
        }
        let concerns_begun = !matches!(self.hold.transaction, LocalTransaction::No);
        if !concerns_begun && !matches!(demand.verdict.control, Control::Begin { .. }) {
            return Ok(false);
        }
        let Some(text) = self.judge().executed_text(request)?.map(Box::from) else { return Ok(false) };
        let Some(tag) = self.local(text, demand.verdict.control) else { return Ok(false) };
        self.complete(request, tag)?;
        Ok(true)
    }

    /// The command tag of the statement if it can be answered here; changes the transaction's state.
    fn local(&mut self, text: Box<[u8]>, control: Control) -> Option<&'static str> {
        match (&mut self.hold.transaction, control) {
            // No => Deferred
            (LocalTransaction::No, Control::Begin { .. }) => {
                let fits_standby = control.begins_on_standby(self.own.settings.is_read_only());
                self.hold.transaction = LocalTransaction::begin(&text, fits_standby);
                Some(if starts_with_word(&text, b"start") { "START TRANSACTION" } else { "BEGIN" })
            }
            // Deferred => No
            (LocalTransaction::Deferred(_), Control::Commit) => {
                self.hold.transaction = LocalTransaction::No;
                Some("COMMIT")
            }
            // Deferred => No
            (LocalTransaction::Deferred(_), Control::Rollback) => {
                self.hold.transaction = LocalTransaction::No;
                Some("ROLLBACK")
            }
            // Deferred => Deferred
            (LocalTransaction::Deferred(deferred), Control::Prologue) => {
                if self.view.snapshot.pools.len() == 1 {
                    // There is nothing to wait for, and the server's own answer is better.
                    return None;
                }
                let tag = prologue::tag(&text)?;
                // Only as the first statement, as a server would say otherwise.
                if prologue::sets_transaction(&text) && deferred.texts.len() > 1 {
                    return None;
                }
                if deferred.texts.len() > PROLOGUE_TEXTS || text.len() > PROLOGUE_BYTES {
                    return None;
                }
                // It may say READ WRITE, or SERIALIZABLE.
                deferred.fits_standby &= !prologue::sets_transaction(&text);
                deferred.texts.push(text);
                Some(tag)
            }
            _ => None,
        }
    }

    /// Writes the answer to each message of the request.
    pub(super) fn complete(&mut self, request: Request, command: &str) -> Result<(), Ended> {
        let messages = self.client.take_request(request.len);
        let mut failed = false;
        for framed in Messages::of(&messages) {
            let message = framed?.message;
            if failed && !matches!(message, ClientMessage::Sync) {
                continue;
            }
            match message {
                ClientMessage::Query { .. } => {
                    // As on a server.
                    self.forget_unnamed();
                    message::command_complete(&mut self.client.outbox, command);
                }
                ClientMessage::Execute { .. } => {
                    message::command_complete(&mut self.client.outbox, command);
                }
                ClientMessage::Parse(parse) => match self.remember_parsed(parse) {
                    Ok(()) => message::parse_complete(&mut self.client.outbox),
                    Err(Stop::Refused(reply)) => {
                        reply.error(&mut self.client.outbox);
                        failed = true;
                    }
                    Err(Stop::Ended(ended)) => return Err(ended),
                },
                ClientMessage::Bind(_) => message::bind_complete(&mut self.client.outbox),
                ClientMessage::Describe(item) => {
                    if let Item::Statement(_) = item {
                        message::no_parameters(&mut self.client.outbox);
                    }
                    message::no_data(&mut self.client.outbox);
                }
                ClientMessage::Close(item) => self.complete_close(item),
                _ => {}
            }
        }
        if request.end != End::Open && !self.under_way.parts.go_on() {
            let status = self.status();
            message::ready(&mut self.client.outbox, status);
        }
        self.flush_now()
    }

    /// A request without statements: only Sync, Flush, and Close of prepared statements.
    fn answers_bookkeeping(&mut self, request: Request) -> Result<bool, Ended> {
        for framed in self.judge().messages(request) {
            match framed?.message {
                ClientMessage::Sync | ClientMessage::Flush => {}
                ClientMessage::Close(Item::Statement(name)) if !name.is_empty() => {
                    if self.may_have_sql_names() || self.own.has_aliases() {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
        let messages = self.client.take_request(request.len);
        for framed in Messages::of(&messages).flatten() {
            if let ClientMessage::Close(item) = framed.message {
                self.complete_close(item);
            }
        }
        if request.end == End::Sync {
            // Of a lost transaction the status says that it has failed; the next statement is told why.
            let status = self.status();
            message::ready(&mut self.client.outbox, status);
        }
        self.flush_now()?;
        Ok(true)
    }

    /// Closes what exists here only, and says so.
    fn complete_close(&mut self, item: Item<'_>) {
        match item {
            Item::Statement(b"") => self.forget_unnamed(),
            Item::Statement(name) => {
                if let Some(statements) = &mut self.own.statements {
                    statements.named.remove(prepared::key(name));
                }
            }
            Item::Portal(_) => {}
        }
        message::close_complete(&mut self.client.outbox);
    }

    /// DEALLOCATE of statements that were prepared by the protocol: they exist here, under other names there.
    fn answers_deallocate(&mut self, request: Request) -> Result<bool, Ended> {
        if self.status() == TxStatus::Failed {
            return Ok(false);
        }
        let Some(text) = self.judge().executed_text(request)? else { return Ok(false) };
        match deallocate_target(text) {
            // With a lease there may be statements of SQL's PREPARE on it, too.
            Some(Deallocate::All) if !self.hold.has_backend() => {
                // It lets go of itself, too.
                self.complete(request, "DEALLOCATE ALL")?;
                if let Some(statements) = &mut self.own.statements {
                    statements.named.clear();
                }
            }
            Some(Deallocate::Name(name)) => {
                let name = name.as_bytes();
                let is_known = self.own.statements.as_deref().is_some_and(|all| all.own(name).is_some());
                if self.own.has_aliases() || !is_known {
                    return Ok(false);
                }
                self.complete(request, "DEALLOCATE")?;
                if let Some(statements) = &mut self.own.statements {
                    statements.named.remove(name);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether the request is part of an extended request that was refused: dropped up to its Sync.
    pub(crate) fn skips(&self, request: Request) -> bool {
        self.client.skipping && request.end != End::Terminate
    }

    /// Drops a request. The Sync that ends a refused one is answered.
    pub(crate) async fn drop_request(&mut self, request: Request) -> Result<(), Ended> {
        self.client.take_request(request.len);
        self.client.streaming = request.streaming;
        self.drop_streaming().await?;
        if self.client.skipping && request.end == End::Sync {
            self.client.skipping = false;
            let status = self.status();
            message::ready(&mut self.client.outbox, status);
            self.flush_now()?;
        }
        Ok(())
    }

    /// Refuses a request: the client gets an error, an open transaction fails, the connection stays.
    pub(crate) async fn refuse(&mut self, request: Request, reply: Reply) -> Result<(), Ended> {
        let ends = matches!(self.hold.transaction, LocalTransaction::Lost(_))
            && self.judge().begins_with_end(request);
        self.close_before_refusal(request);
        // What follows goes where it belongs.
        self.under_way.is_repeated = false;
        if let Some(across) = &mut self.hold.across {
            // Nothing was done that the other server is to be told of.
            across.echo = None;
        }
        self.client.take_request(request.len);
        self.client.streaming = request.streaming;
        self.drop_streaming().await?;
        if request.end == End::Query {
            self.forget_unnamed();
        }
        self.hold.transaction.told(ends);
        // It was for a lease that has not come.
        self.fail_transaction().await?;
        self.view.snapshot.metrics.own_errors.fetch_add(1, Ordering::Relaxed);
        reply.error(&mut self.client.outbox);
        if request.end == End::Open {
            self.client.skipping = true;
        } else if !self.under_way.parts.go_on() {
            let status = self.status();
            message::ready(&mut self.client.outbox, status);
        }
        self.flush_now()?;
        self.settle().await
    }

    /// Closes the statements that a refused request closes in front of anything else, as a server has done by then: what the
    /// client has sent behind its Sync already is not to run them.
    fn close_before_refusal(&mut self, request: Request) {
        let are_here_only = !self.may_have_sql_names() && !self.own.has_aliases();
        if !request.is_extended() || request.streaming > 0 || self.hold.is_amid_pipeline() || !are_here_only {
            return;
        }
        let close = |message| match message {
            ClientMessage::Close(Item::Statement(name)) => Some(name.to_vec()),
            _ => None,
        };
        let closed: Vec<_> =
            self.judge().messages(request).map_while(|framed| close(framed.ok()?.message)).collect();
        for name in closed {
            self.complete_close(Item::Statement(&name));
        }
    }

    /// The refusal of a request that has no place.
    pub(crate) fn misplaced(&self, why: Misplaced, request: Request, demand: &Demand) -> Reply {
        match why {
            Misplaced::Torn => self.torn(request, demand),
            Misplaced::LockOnReplica => reply::lock_on_replica(),
            Misplaced::StateOnReplica => reply::state_on_replica(),
        }
    }

    /// The refusal of a request that uses two servers.
    pub(super) fn torn(&self, request: Request, demand: &Demand) -> Reply {
        if let Some(pin) = self.hold.backend().and_then(|leased| leased.pin.as_ref())
            && self.status() == TxStatus::Idle
        {
            return reply::pinned_elsewhere(pin.reason.label());
        }
        let routes = &self.view.snapshot.routes;
        let name = |pool| self.view.snapshot.pool(pool).name.as_str();
        let jobs = routes.jobs.map_or("", name);
        let texts = self.judge().texts(request);
        let (rules, catalog) = (self.view.snapshot.classifier.rules(), self.view.catalog.load());
        let (mut job_tables, mut app_tables) = (Vec::new(), Vec::new());
        for text in &texts {
            let explained = crate::sql::explain(rules, &catalog, text);
            job_tables.extend(explained.job_tables);
            app_tables.extend(explained.app_tables);
        }
        let explanation = reply::named_tables(&job_tables, &app_tables);
        let snapshot = &self.view.snapshot;
        // Added in the transaction they could be relayed.
        let remedy = match &snapshot.outbox {
            _ if !demand.adds_jobs() || self.relays() => Remedy::Apart,
            None => Remedy::Outbox,
            Some(outbox) => Remedy::ReadyOutbox(outbox.trouble()),
        };
        reply::torn(jobs, name(routes.primary), &explanation, remedy)
    }
}

fn starts_with_word(text: &[u8], word: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        && text.get(word.len()).is_none_or(|next| !next.is_ascii_alphanumeric())
}
