//! Sending a request to the leased backend, in one write with whatever must come before it: the session's
//! settings, a deferred BEGIN, missing statements.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Ended, Session,
    reply::Reply,
    request::{End, Request},
    transaction::Begun,
};
use crate::{
    backend::Settings,
    route::Demand,
    sql::{Effects, Reason, Verdict, reset_names, setting_names},
    wire::{TxStatus, message},
};

impl Session {
    /// Sends the request. A refusal means that nothing was sent.
    pub(crate) fn send(&mut self, request: Request, demand: &Demand) -> Result<Result<(), Reply>, Ended> {
        if self.lease.as_ref().is_some_and(|lease| lease.protocol.is_skipping()) {
            self.send_skipped(request);
            return Ok(Ok(()));
        }
        if let Err(reply) = self.reserve_pin(demand.verdict.effects) {
            return Ok(Err(reply));
        }
        let mut out = Vec::new();
        let was_open = self.lease.as_ref().is_some_and(|lease| lease.protocol.is_open());
        self.failed &= was_open;
        let prepares = !was_open && self.only_prepares(request);
        self.was_in_transaction = self.status() != TxStatus::Idle || !matches!(self.begun, Begun::No);
        self.note_sequences(&demand.verdict);
        let change = self.state_change();
        let begins = matches!(self.begun, Begun::Deferred(_));
        let has_preamble = begins || change.is_some() || self.has_preload();
        if let (true, Some(lease)) = (has_preamble, &mut self.lease) {
            // A Query of ours ends the unnamed statement.
            lease.statements.unnamed = None;
        }
        let extended = matches!(request.end, End::Sync | End::Open);
        let unchanged = !extended || self.passes_unchanged(request)?;
        let mut steps = VecDeque::new();
        let mut body = Vec::new();
        let mut parses = 0;
        if unchanged && extended {
            let (hash, count) = self.remember_unchanged(request)?;
            parses = count;
            if let (Some(hash), Some(lease)) = (hash, &mut self.lease) {
                lease.statements.unnamed = Some(hash);
            }
        } else if !unchanged {
            match self.rewrite(request, &mut body)? {
                Ok(done) => steps = done,
                Err(reply) => return Ok(Err(reply)),
            }
        }
        self.was_unparsed = demand.verdict.reason == Reason::Unparsed;
        self.taint |= demand.verdict.effects;
        if demand.verdict.effects.has(Effects::WANTS_DATABASE) {
            self.leave_other_databases();
        }
        if demand.verdict.effects.has(Effects::SETS_UNLISTED) {
            self.note_custom_settings(request);
        }
        self.streaming = request.streaming;
        self.write_preamble(change, &mut out);

        let restore = (request.end != End::Open && request.streaming == 0)
            .then(|| self.restore_startup(request, demand.verdict.effects))
            .flatten();
        let Some(lease) = &mut self.lease else { return Ok(Ok(())) };
        match request.end {
            End::Query | End::FunctionCall => {
                lease.statements.unnamed = None;
                self.has_long_statement &= request.end == End::FunctionCall;
                lease.protocol.sent_simple();
                if let (End::Query, Some(statements)) = (request.end, &mut self.statements) {
                    statements.unnamed = None;
                }
            }
            _ if prepares => {
                message::sync(&mut body);
                lease.protocol.sent_prepared(steps);
            }
            End::Open if request.streaming == 0 => {
                // What follows may depend on the replies, such as COPY data.
                message::raw(&mut body, b'H', &[]);
                lease.protocol.sent_extended(steps, false);
            }
            _ => {
                lease.protocol.sent_extended(steps, Self::is_synced(request));
                lease.protocol.expects_parses(parses);
            }
        }
        let request_bytes = if unchanged { &self.inbox[..request.len] } else { body.as_slice() };
        if restore.is_some() {
            lease.protocol.withhold_ready();
            self.restore = restore;
        }
        let sent = if out.is_empty() {
            lease.send(request_bytes)
        } else {
            out.extend_from_slice(request_bytes);
            lease.send(&out)
        };
        lease.protocol.insert_leading(&mut self.outbox);
        self.take_from_inbox(request);
        if let Err(error) = sent {
            // The relay finds the connection closed and tells the client.
            tracing::debug!(%error, "a request could not be sent");
        }
        Ok(Ok(()))
    }

    /// A database with idle backends cannot be dropped, renamed or copied: the server waits a while for them to go.
    fn leave_other_databases(&self) {
        let own = &self.identity.database;
        for member in self.shared.pools.iter().flat_map(|pool| &pool.members) {
            member.close_idle(|identity| identity.database != *own);
        }
    }

    /// The server skips everything up to the Sync: it is sent as it came, and nothing is noted.
    fn send_skipped(&mut self, request: Request) {
        let bytes = self.take_from_inbox(request);
        self.streaming = request.streaming;
        if let Some(lease) = &mut self.lease {
            if matches!(request.end, End::Sync | End::Open) {
                lease.protocol.sent_extended(VecDeque::new(), Self::is_synced(request));
            }
            // A failed write shows as the end of the backend's replies.
            let _ = lease.send(&bytes);
        }
    }

    /// What must change on the backend before the request: only at the beginning of a lease.
    fn state_change(&mut self) -> Option<String> {
        let lease = self.lease.as_ref()?;
        let fresh = self.pin.is_none() && lease.protocol.quiescent().is_some();
        let forgets = std::mem::take(&mut self.is_new_backend)
            && fresh
            && self.identity.asks_sequences.load(Ordering::Relaxed);
        let settings = if !fresh || Arc::ptr_eq(&lease.applied, &self.settings) {
            None
        } else {
            lease.applied.change_to(&self.settings)
        };
        if !forgets {
            return settings;
        }
        // What `currval` and `lastval` would give is another session's.
        Some(format!("DISCARD SEQUENCES;{}", settings.unwrap_or_default()))
    }

    /// A session that asks for `currval` or `lastval` keeps the backend on which it may have called `nextval`.
    fn note_sequences(&mut self, verdict: &Verdict) {
        self.taint_before = self.taint;
        let asks = verdict.effects.has(Effects::ASKS_SEQUENCES);
        if asks {
            self.asks_sequences = true;
            self.identity.asks_sequences.store(true, Ordering::Relaxed);
        }
        if self.asks_sequences && (asks || verdict.may_call_nextval()) && !self.has_lasting_pin() {
            self.taint |= Effects::CALLS_SEQUENCES;
        }
    }

    /// What must reach the backend before the request.
    fn write_preamble(&mut self, change: Option<String>, out: &mut Vec<u8>) {
        let preload = self.take_preload();
        let Some(lease) = &mut self.lease else { return };
        let fresh = self.pin.is_none() && lease.protocol.quiescent().is_some();
        for sql in change.into_iter().chain(preload) {
            message::query(out, sql.as_bytes());
            lease.protocol.sent_ours();
        }
        if fresh {
            lease.applied = Arc::clone(&self.settings);
        }
        if let Begun::Deferred(deferred) = &self.begun {
            for (number, text) in deferred.texts.iter().enumerate() {
                message::query(out, text);
                if number == 0 {
                    lease.protocol.sent_ours();
                } else {
                    lease.protocol.sent_prologue();
                }
            }
            self.begun = Begun::No;
        }
    }

    /// After RESET and DISCARD ALL the session's own startup values hold, not the server's: said once they have
    /// succeeded, before the client is told that they have. What the same text sets afterwards stays.
    fn restore_startup(&self, request: Request, effects: Effects) -> Option<Box<str>> {
        if !effects.has(Effects::RESETS) || self.startup.is_empty() {
            return None;
        }
        let texts = self.texts(request);
        let names: Vec<String> = texts.iter().flat_map(|text| reset_names(text)).collect();
        let set: Vec<String> = texts.iter().flat_map(|text| setting_names(text)).collect();
        let all = names.iter().any(|name| name == "all");
        let restored = self.startup.iter().filter(|(name, _)| {
            let is_in = |list: &[String]| list.iter().any(|other| other == name);
            // Who returns to its own user returns to its startup role, too.
            let implied = *name == "role" && names.iter().any(|other| other == "session_authorization");
            is_in(&names) || implied || (all && !is_in(&set))
        });
        let restored = Settings::new(restored.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Settings::default().change_to(&restored).map(String::into_boxed_str)
    }

    /// Completes a request that resets settings, and tells the client that it is done.
    pub(crate) async fn restore(&mut self, sql: Box<str>) -> Result<(), Ended> {
        let failed = self.failed;
        let Some(lease) = self.lease.as_mut().filter(|_| !failed) else {
            let status = self.status();
            message::ready(&mut self.outbox, status);
            return self.flush_now();
        };
        let mut query = Vec::new();
        message::query(&mut query, sql.as_bytes());
        lease.protocol.sent_completion();
        lease.statements.unnamed = None;
        // A failed write shows as the end of the backend's replies.
        let _ = lease.send(&query);
        self.relay().await
    }
}
