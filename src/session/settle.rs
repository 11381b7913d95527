//! The one decision after each request: give the backend back, keep it, or close it.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Ended, Session,
    hold::Leased,
    kinds::{CHANGES_SETTINGS, DEFINES, LEAVES_STATE},
    request::Request,
    settled::{Settle, settled},
    transaction::Begun,
};
use crate::{
    backend::{
        Broken,
        probe::{Asked, PinReason, Residue},
        protocol::Failure,
        query::ASK_TIMEOUT,
    },
    sql::{Catalog, Effects, added_names, setting_names},
    wire::{TxStatus, message},
};

/// Names of what is added are kept of one transaction; of more, it is not known what was.
const ADDED_MAX: usize = 100;

/// Names of custom settings that are kept of one session; more than these cannot be carried.
const CUSTOM_SETTINGS_MAX: usize = 100;

/// Of texts that call what is not known so much is kept; of more it is not known what they set.
const UNSURE_BYTES: usize = 64 * 1024;

/// Names of settings longer than this are not carried.
const NAME_BYTES_MAX: usize = 200;

impl Session {
    /// What becomes of the backend.
    fn settled(&self) -> Settle {
        let Some(leased) = &self.hold.leased else { return Settle::Wait };
        settled(leased.facts(&self.own, self.client.streaming > 0, self.view.catalog.changes()))
    }

    /// Gives the backend back if it owes nothing and the session cannot have left anything on it.
    pub(crate) fn release_if_clean(&mut self) {
        if self.settled() != Settle::Release {
            return;
        }
        // In this order: once the session holds nothing, no cancel from another thread can be registered any more.
        self.who.key.holds_none();
        let Some(leased) = &self.hold.leased else { return };
        let Some(proof) = leased.protocol.quiescent().filter(|_| !leased.cancel.was_hit()) else {
            self.who.key.holds(&leased.cancel);
            return;
        };
        if let Some(mut leased) = self.part_unreachable() {
            // An error of ours that nobody asked for is not the next session's.
            leased.protocol.take_error();
            leased.protocol.set_heard_elsewhere(None);
            leased.into_lease().release(proof);
        }
    }

    /// After a request: in a transaction or between Flush and Sync the lease is kept; otherwise the server is
    /// asked what was left, if anything can have been, and the lease is kept (pinned) or given back.
    pub(crate) async fn settle(&mut self) -> Result<(), Ended> {
        if let Some(sql) = self.under_way.restore.take() {
            Box::pin(self.restore(&sql)).await?;
        }
        self.end_statements();
        match &self.hold.leased {
            Some(lease) if lease.protocol.quiescent().is_some() => Box::pin(self.settle_held()).await,
            _ => Ok(()),
        }
    }

    async fn settle_held(&mut self) -> Result<(), Ended> {
        // Its client has been answered: a cancel that comes from here on finds nothing to cancel, and does not keep the
        // backend from being given back.
        self.who.key.holds_none();
        let settled = self.settle_answered().await;
        if let Some(lease) = &self.hold.leased {
            self.who.key.holds(&lease.cancel);
        }
        settled
    }

    async fn settle_answered(&mut self) -> Result<(), Ended> {
        let pins = self.settled() == Settle::PinByStatement;
        let Some(leased) = &mut self.hold.leased else { return Ok(()) };
        // What is created may be temporary by the search path alone.
        let defines = leased.left.effects.has(DEFINES);
        self.view.note_traces(leased);
        if pins {
            self.set_pin(Some(PinReason::UnnamedStatement));
            return Ok(());
        }
        if self.own.listening.is_some() {
            self.settle_listening().await?;
            if self.hold.leased.is_none() {
                return Ok(());
            }
        }
        if !self.outlive_cancel().await || !self.ask_statements().await || !self.remove_aliases().await {
            return self.end_lease();
        }
        if defines || self.settled() == (Settle::Ask { for_residue: true }) {
            self.ask_residue().await?;
        } else if let Some(leased) = self.hold.leased.as_ref().filter(|leased| leased.is_kept) {
            self.set_pin(leased.lasting_pin());
        }
        if let Some(leased) = &mut self.hold.leased {
            leased.left.failed = false;
            // Of a pipeline that has failed.
            leased.left.take_restored();
            // What was not proven has been asked for, and another session gets the backend only after a reset.
            leased.left.judged_at = self.view.catalog.changes();
        }
        self.release_if_clean();
        Ok(())
    }

    /// Ends the session's hold on its backend. Every lease ends by this, whichever way: what must follow from it cannot
    /// be forgotten on one of them.
    pub(super) fn part(&mut self) -> Option<Leased> {
        self.hold.leased.as_ref()?;
        self.who.key.holds_none();
        self.part_unreachable()
    }

    /// The same, when no cancel finds the backend any more.
    fn part_unreachable(&mut self) -> Option<Leased> {
        let mut leased = self.hold.leased.take()?;
        self.view.note_definitions(&mut leased.left);
        Some(leased)
    }

    /// A request may leave these on the backend.
    pub(crate) fn note(&mut self, effects: Effects) {
        if let Some(leased) = &mut self.hold.leased {
            leased.left.effects |= effects;
        }
    }

    /// Remembers what a request adds, until its transaction has ended: nobody else sees it before.
    pub(crate) fn note_added(&mut self, request: Request) {
        let names = self.judge().texts(request).iter().flat_map(|text| added_names(text)).collect::<Vec<_>>();
        let Some(leased) = &mut self.hold.leased else { return };
        let added = &mut leased.left.noted().added;
        added.extend(names);
        if added.len() > ADDED_MAX {
            *added = Vec::new();
            leased.left.effects |= Effects::DDL;
        }
    }

    /// Remembers the names with a dot that a request may set: the server lists no settings that it does not know.
    /// A name that is itself a bound value is among the request's values.
    pub(crate) fn note_custom_settings(&mut self, request: Request) {
        let mut names: Vec<String> =
            self.judge().texts(request).iter().flat_map(|text| setting_names(text)).collect();
        let mut has_odd = false;
        self.judge().for_each_bound_value(request, |value| match bound_name(value) {
            BoundName::None => {}
            BoundName::Carried(name) => names.push(name),
            BoundName::Odd => has_odd = true,
        });
        if has_odd {
            // It would be lost with the backend, and is nobody else's.
            self.note(Effects::UNPROVEN);
        }
        for name in names {
            self.note_custom_setting(&name);
        }
    }

    fn note_custom_setting(&mut self, name: &str) {
        if !name.contains('.') || self.own.custom_settings().iter().any(|known| known == name) {
            return;
        }
        if self.own.custom_settings().len() < CUSTOM_SETTINGS_MAX {
            self.own.custom_settings.get_or_insert_default().push(name.to_owned());
        } else {
            self.note(Effects::OPAQUE_SETTINGS);
        }
    }

    /// Remembers texts that call what the catalog snapshot does not know, until the server is asked what it does.
    pub(crate) fn note_unsure(&mut self, request: Request) {
        let texts = self.judge().texts(request).concat();
        let Some(Leased { left, .. }) = &mut self.hold.leased else { return };
        left.noted().unsure.extend_from_slice(&texts);
        if left.unsure().len() > UNSURE_BYTES {
            left.effects |= Effects::OPAQUE_SETTINGS;
            left.forget_unsure();
        }
    }

    /// The parameters that functions of the database set, as far as their names stand somewhere, which the last
    /// transaction may have called. The server is asked what functions do that the snapshot does not know.
    async fn parameters_of_functions(&mut self) -> Result<Vec<String>, Broken> {
        let Some(lease) = &mut self.hold.leased else { return Ok(Vec::new()) };
        if !lease.left.effects.has(Effects::OPAQUE.with(Effects::UNPROVEN)) {
            return Ok(Vec::new());
        }
        if lease.left.unsure().is_empty() {
            return Ok(self.view.catalog.parameters());
        }
        let answer = lease.ask_unhindered(Catalog::PROGRAMS).await?;
        self.client.outbox.extend_from_slice(&answer.for_client);
        if answer.error.is_some() {
            lease.left.effects |= Effects::OPAQUE_SETTINGS;
            return Ok(self.view.catalog.parameters());
        }
        let rows = answer.rows.into_iter().filter_map(|row| {
            let mut columns = row.into_iter().flatten();
            Some((columns.next()?, columns.next()?))
        });
        let programs = Catalog::from_rows(0, rows);
        if programs.hides_settings_of(lease.left.unsure()) {
            lease.left.effects |= Effects::OPAQUE_SETTINGS;
        }
        Ok(programs.parameters().iter().cloned().chain(self.view.catalog.parameters()).collect())
    }

    /// A cancel that came late must hit nobody else: waits for it, and then asks the backend for a sign of life
    /// that takes the blow. False if the backend gives none.
    pub(crate) async fn outlive_cancel(&mut self) -> bool {
        let Some(lease) = &mut self.hold.leased else { return true };
        if !lease.cancel.was_hit() {
            return true;
        }
        let target = Arc::clone(&lease.cancel);
        let settled = tokio::time::timeout(ASK_TIMEOUT, target.settled()).await.unwrap_or(false);
        // The first question may itself be cancelled; the second one cannot be.
        settled && lease.ask(";").await.is_ok() && lease.check().await
    }

    /// Asks the backend which statements it still has, if that is not known. False if it gives no answer.
    async fn ask_statements(&mut self) -> bool {
        if !self.hold.leased.as_ref().is_some_and(|leased| leased.left.statements_unknown) {
            return true;
        }
        let Some(names) = self.ask_statement_names().await else { return false };
        let lost_all = self.hold.leased.as_mut().is_some_and(|lease| {
            lease.left.statements_unknown = false;
            lease.statements.keep(&names)
        });
        if let Some(statements) = self.own.statements.as_mut().filter(|_| lost_all) {
            statements.named.clear();
        }
        true
    }

    /// The names of the protocol's statements on the backend, if it tells them.
    pub(crate) async fn ask_statement_names(&mut self) -> Option<Vec<String>> {
        // Neither ours nor those that SQL can name are longer; of more than these nothing is known.
        let sql = "SELECT pg_catalog.left(name, 64) FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql \
                   LIMIT 10001";
        let answer = self.hold.leased.as_mut()?.ask_unhindered(sql).await.ok()?;
        if answer.error.is_some() || answer.rows.len() > 10_000 {
            return None;
        }
        self.client.outbox.extend_from_slice(&answer.for_client);
        Some(answer.rows.into_iter().flatten().flatten().collect())
    }

    async fn ask_residue(&mut self) -> Result<(), Ended> {
        let settings = self.hold.may_have_left(CHANGES_SETTINGS);
        match self.probe(settings).await {
            Ok(Some(residue)) => {
                self.apply(residue, settings);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(broken) => self.end_lease_by(Some(broken)),
        }
    }

    async fn probe(&mut self, settings: bool) -> Result<Option<Residue>, Broken> {
        let mut others = self.parameters_of_functions().await?;
        others.retain(|name| !self.own.custom_settings().contains(name));
        others.sort_unstable();
        others.dedup();
        let Some(lease) = &mut self.hold.leased else { return Ok(None) };
        let bytes_max = self.view.shared.limits.settings_per_client;
        let asked = Asked { custom: self.own.custom_settings(), others: &others, bytes_max };
        lease.probe(settings.then_some(asked)).await.map(Some)
    }

    fn apply(&mut self, residue: Residue, asked_settings: bool) {
        // What could not be asked for is asked for again, after the next request.
        let unknown = matches!(residue.pin, Some(PinReason::Unknown))
            || (asked_settings && residue.settings.is_none())
            || residue.is_large;
        self.client.outbox.extend_from_slice(&residue.for_client);
        if let Some(settings) = residue.settings {
            // What functions have set is asked for from now on.
            settings.iter().for_each(|(name, _)| self.note_custom_setting(name));
            let settings = if settings == *self.who.startup {
                Arc::clone(&self.who.startup)
            } else {
                Arc::new(settings)
            };
            self.own.asked = settings
                .get("bulkhead.route")
                .and_then(|route| self.view.shared.classifier.rules().hint(route));
            self.own.in_session_mode = settings.get("bulkhead.pool_mode") == Some("session");
            let keeps = self.hold.leased.as_ref().is_some_and(|leased| self.keeps(leased.pool));
            if let Some(leased) = &mut self.hold.leased {
                leased.is_kept |= keeps;
                leased.applied = Arc::clone(&settings);
            }
            self.own.settings = settings;
        }
        let lasting = self.hold.leased.as_ref().and_then(Leased::lasting_pin);
        self.set_pin(lasting.or(residue.pin));
        let Some(Leased { left, .. }) = &mut self.hold.leased else { return };
        if unknown {
            left.effects = left.effects.without(Effects::DISCARDS_SEQUENCES).with(Effects::SETS);
        } else {
            left.effects = Effects::NONE;
            left.forget_unsure();
        }
    }

    /// Whether the backend is kept for the sake of state that cannot be asked for.
    pub(crate) fn has_lasting_pin(&self) -> bool {
        let pin = self.hold.leased.as_ref().and_then(|leased| leased.pin.as_ref());
        pin.is_some_and(|pin| pin.reason.is_lasting())
    }

    /// Closes the backend: what is on it is not known. A session that may have state on it ends with it, as with any
    /// lost connection: to go on without a lock or a table that it believes to have would be worse.
    pub(crate) fn end_lease(&mut self) -> Result<(), Ended> {
        self.end_lease_by(None)
    }

    /// The same, if it is known what has become of the backend.
    fn end_lease_by(&mut self, broken: Option<Broken>) -> Result<(), Ended> {
        let had_state = self.hold.is_pinned() || self.hold.may_have_left(LEAVES_STATE);
        match self.part() {
            Some(lease) if had_state => Err(Ended::Backend(broken.unwrap_or_else(|| lease.closed()).into())),
            _ => Ok(()),
        }
    }

    /// What the replies told besides the bytes for the client.
    pub(crate) fn on_news(&mut self) {
        let Some(lease) = &mut self.hold.leased else { return };
        let mut news = lease.protocol.take_heard();
        if let Some(failure) = news.failure {
            lease.left.failed = true;
            self.view.shared.metrics.server_errors.fetch_add(1, Ordering::Relaxed);
            if failure == Failure::Unread {
                lease.left.drop_unread();
            }
        }
        // The Sync that was sent is ours: the client's, still to come, is answered here.
        self.client.skipping |= news.skips_to_sync;
        if news.parameter_changed {
            lease.left.effects |= Effects::SETS;
            self.own.reading = lease.protocol.reading();
        }
        if news.needs_sync {
            let mut sync = Vec::new();
            message::sync(&mut sync);
            // A failed write shows as the end of the backend's replies.
            let _ = lease.send(&sync);
        }
        if news.begin_failed {
            self.hold.begun = Begun::Failed;
        }
        if let Some(reason) = news.transient {
            self.repeat(reason);
        }
        if news.lost_unnamed {
            self.forget_unnamed();
        }
        self.note_statements(&mut news);
        self.forget_unparsed(&news.not_parsed);
        self.undo(news.undone);
        if let Some(lease) = &mut self.hold.leased {
            for id in &news.not_closed {
                lease.statements.insert(*id);
            }
        }
    }

    /// An open transaction on the backend fails too when a statement of it was refused here.
    pub(crate) async fn fail_transaction(&mut self) -> Result<(), Ended> {
        let Some(lease) = &mut self.hold.leased else { return Ok(()) };
        let in_transaction = self.under_way.was_in_transaction || lease.protocol.status() != TxStatus::Idle;
        if lease.protocol.is_open() {
            if lease.protocol.is_amid_message() {
                return Err(Ended::Protocol("a statement was refused in the middle of a reply".to_owned()));
            }
            // Replies are still to come, and a Sync is not ours to send: what was begun ends with its backend.
            self.end_lease()?;
            if in_transaction {
                self.hold.begun = Begun::Failed;
            }
            return Ok(());
        }
        if lease.protocol.status() != TxStatus::Open {
            return Ok(());
        }
        // No such statement exists: the server's log says why the transaction was ended.
        if lease.ask("bulkhead refused a statement of this transaction").await.is_err() {
            self.end_lease()?;
            self.hold.begun = Begun::Failed;
        }
        Ok(())
    }
}

/// What a bound value is, should it be the name of a setting.
enum BoundName {
    /// One that the server lists, or none at all.
    None,
    /// One with a dot, which is asked for by this name.
    Carried(String),
    /// One with a dot that is long, or has other characters than ASCII.
    Odd,
}

/// Names with a dot have letters, digits, `_` and `$` (`valid_custom_variable_name` in PostgreSQL's guc.c).
fn bound_name(value: &[u8]) -> BoundName {
    let fits =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$') || *byte >= 0x80;
    if !value.contains(&b'.') || !value.iter().all(fits) {
        return BoundName::None;
    }
    std::str::from_utf8(value)
        .ok()
        .filter(|name| name.is_ascii() && name.len() <= NAME_BYTES_MAX)
        .map_or(BoundName::Odd, |name| BoundName::Carried(name.to_owned()))
}
