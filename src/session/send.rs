//! Sending a request to the leased backend, in one write with whatever must come before it: the session's
//! settings, a deferred BEGIN, missing statements.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Ended, Session,
    extended::Rewritten,
    reply::Reply,
    request::{End, Request},
    transaction::Begun,
};
use crate::{
    backend::Settings,
    route::Demand,
    sql::{Effects, Reason},
    wire::message,
};

impl Session {
    /// Sends the request. A refusal means that nothing was sent.
    pub(crate) fn send(&mut self, request: Request, demand: &Demand) -> Result<Result<(), Reply>, Ended> {
        let mut out = Vec::new();
        let extended = matches!(request.end, End::Sync | End::Open);
        let unchanged = !extended || self.passes_unchanged(request)?;
        let mut rewritten = Rewritten { steps: VecDeque::new(), streaming: request.streaming };
        let mut body = Vec::new();
        if unchanged && extended {
            let hash = self.remember_unchanged(request)?;
            if let (Some(hash), Some(lease)) = (hash, &mut self.lease) {
                lease.statements.unnamed = Some(hash);
            }
        } else if !unchanged {
            match self.rewrite(request, &mut body)? {
                Ok(done) => rewritten = done,
                Err(reply) => return Ok(Err(reply)),
            }
        }
        self.taint_before = self.taint;
        self.was_unparsed = demand.verdict.reason == Reason::Unparsed;
        self.taint |= demand.verdict.effects;
        if demand.verdict.effects.has(Effects::SETS_UNLISTED) {
            self.note_custom_settings(request);
        }
        self.streaming = rewritten.streaming;
        self.write_preamble(&mut out);

        let Some(lease) = &mut self.lease else { return Ok(Ok(())) };
        match request.end {
            End::Query | End::FunctionCall => {
                lease.statements.unnamed = None;
                lease.protocol.sent_simple();
            }
            _ => lease.protocol.sent_extended(rewritten.steps, Self::is_synced(request)),
        }
        let restore = (request.end != End::Open && request.streaming == 0)
            .then(|| restore_startup(demand.verdict.effects, &self.startup))
            .flatten();
        let request_bytes = if unchanged { &self.inbox[..request.len] } else { body.as_slice() };
        let sent = if out.is_empty() && restore.is_none() {
            lease.send(request_bytes)
        } else {
            out.extend_from_slice(request_bytes);
            if let Some(sql) = restore {
                message::query(&mut out, sql.as_bytes());
                lease.protocol.sent_ours();
            }
            lease.send(&out)
        };
        let inserts = lease.protocol.is_open();
        if inserts {
            lease.protocol.insert_leading(&mut self.outbox);
        }
        self.take_from_inbox(request);
        match sent {
            Ok(()) => Ok(Ok(())),
            // The relay finds the connection closed and tells the client.
            Err(error) => {
                tracing::debug!(%error, "a request could not be sent");
                Ok(Ok(()))
            }
        }
    }

    /// What must reach the backend before the request.
    fn write_preamble(&mut self, out: &mut Vec<u8>) {
        let Some(lease) = &mut self.lease else { return };
        if self.pin.is_none()
            && !Arc::ptr_eq(&lease.applied, &self.settings)
            && lease.protocol.is_answered()
            && lease.protocol.status() == crate::wire::TxStatus::Idle
        {
            if let Some(sql) = lease.applied.change_to(&self.settings) {
                message::query(out, sql.as_bytes());
                lease.protocol.sent_ours();
            }
            lease.applied = Arc::clone(&self.settings);
        }
        if let Begun::Deferred(deferred) = &self.begun {
            for text in &deferred.texts {
                message::query(out, text);
                lease.protocol.sent_ours();
            }
            self.begun = Begun::No;
        }
    }
}

/// After RESET and DISCARD ALL the session's own startup values hold, not the server's: said in the same write,
/// answered to nobody.
fn restore_startup(effects: Effects, startup: &Settings) -> Option<String> {
    if effects.has(Effects::RESETS) { Settings::default().change_to(startup) } else { None }
}
