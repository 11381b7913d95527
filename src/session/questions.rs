//! What the server is asked behind a request, when its client has been answered: each question as `settled` has decided it.
//! An error means that the backend is of no use any more.

use std::sync::Arc;

use super::{Client, Own, View, held::Held, hold::Leased, kinds::CHANGES_SETTINGS, pins::keeps, start::Who};
use crate::{
    backend::{
        Broken, Settings,
        probe::{Asked, PinReason, Residue},
        query::{ASK_TIMEOUT, in_time},
    },
    sql::{Catalog, Effects},
};

/// Names of statements that are read of a backend; of one with more it is not known which it has.
const STATEMENTS_MAX: usize = 10_000;

impl Leased {
    /// Waits until the server has dealt with a cancel that came late, which must hit nobody else, and then asks for a sign
    /// of life that takes the blow.
    pub(super) async fn outlive_cancel(&mut self) -> Result<(), Broken> {
        let (target, server) = (Arc::clone(&self.cancel), Arc::clone(&self.server));
        let dealt_with = async { Ok::<_, Broken>(target.settled().await) };
        if !in_time(ASK_TIMEOUT, &server, dealt_with).await? {
            return Err(self.given_up("it has not said that a cancel for it has been dealt with"));
        }
        // The first question may itself be cancelled; the second one cannot be.
        self.ask(";").await?;
        self.check().await
    }

    /// The names of the protocol's statements on the backend. What comes along for the client goes to its `outbox`.
    pub(super) async fn ask_statement_names(&mut self, outbox: &mut Vec<u8>) -> Result<Vec<String>, Broken> {
        // Neither ours nor those that SQL can name are longer.
        let sql = format!(
            "SELECT pg_catalog.left(name, 64) FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql LIMIT {}",
            STATEMENTS_MAX + 1
        );
        let answer = self.ask_unhindered(&sql).await?;
        if answer.error.is_some() || answer.rows.len() > STATEMENTS_MAX {
            return Err(self.given_up("it does not tell which statements are prepared on it"));
        }
        outbox.extend_from_slice(&answer.for_client);
        Ok(answer.rows.into_iter().flatten().flatten().collect())
    }
}

/// A session that asks, behind a request, what has become of its backend.
#[derive(Debug)]
pub(super) struct Asking<'s> {
    pub(super) client: &'s mut Client,
    pub(super) who: &'s Who,
    pub(super) view: &'s View,
    pub(super) own: &'s mut Own,
    pub(super) leased: &'s mut Leased,
}

impl Held<'_> {
    /// The parts that questions to the server concern.
    pub(super) fn asking(&mut self) -> Asking<'_> {
        let Self { client, who, view, own, leased, .. } = self;
        Asking { client, who, view, own, leased }
    }
}

impl Asking<'_> {
    /// Asks which of the protocol's statements the backend still has.
    pub(super) async fn ask_statements(&mut self) -> Result<(), Broken> {
        let names = self.leased.ask_statement_names(&mut self.client.outbox).await?;
        self.leased.left.statements_unknown = false;
        let has_lost_all = self.leased.statements.keep(&names);
        if let Some(statements) = self.own.statements.as_mut().filter(|_| has_lost_all) {
            statements.named.clear();
        }
        Ok(())
    }

    /// Asks what the session has left on the backend, and which settings are in force, if they may have changed.
    pub(super) async fn ask_residue(&mut self) -> Result<(), Broken> {
        let asks_settings = self.leased.left.effects.has(CHANGES_SETTINGS);
        let mut others = self.parameters_of_functions().await?;
        others.retain(|name| !self.own.custom_settings().contains(name));
        others.sort_unstable();
        others.dedup();
        let bytes_max = self.view.snapshot.limits.settings_per_client;
        let asked = Asked { custom: self.own.custom_settings(), others: &others, bytes_max };
        let residue = self.leased.probe(asks_settings.then_some(asked)).await?;
        self.apply(residue, asks_settings);
        Ok(())
    }

    /// The parameters that functions of the database set, as far as their names stand somewhere, which the last
    /// transaction may have called. The server is asked what functions do that the snapshot does not know.
    async fn parameters_of_functions(&mut self) -> Result<Vec<String>, Broken> {
        let Self { client, view, leased, .. } = self;
        if !leased.left.effects.has(Effects::OPAQUE.with(Effects::UNPROVEN)) {
            return Ok(Vec::new());
        }
        if leased.left.unsure().is_empty() {
            return Ok(view.catalog.parameters());
        }
        let answer = leased.ask_unhindered(Catalog::PROGRAMS).await?;
        client.outbox.extend_from_slice(&answer.for_client);
        if answer.error.is_some() {
            leased.left.effects |= Effects::OPAQUE_SETTINGS;
            return Ok(view.catalog.parameters());
        }
        let rows = answer.rows.into_iter().filter_map(|row| {
            let mut columns = row.into_iter().flatten();
            Some((columns.next()?, columns.next()?))
        });
        let programs = Catalog::from_rows(0, rows);
        if programs.hides_settings_of(leased.left.unsure()) {
            leased.left.effects |= Effects::OPAQUE_SETTINGS;
        }
        Ok(programs.parameters().iter().cloned().chain(view.catalog.parameters()).collect())
    }

    fn apply(&mut self, residue: Residue, asked_settings: bool) {
        // What could not be asked for is asked for again, after the next request.
        let unknown = matches!(residue.pin, Some(PinReason::Unknown))
            || (asked_settings && residue.settings.is_none())
            || residue.is_large;
        self.client.outbox.extend_from_slice(&residue.for_client);
        if let Some(settings) = residue.settings {
            self.take_over(settings);
        }
        let lasting = self.leased.lasting_pin();
        self.leased.set_pin(&self.view.snapshot.metrics, lasting.or(residue.pin));
        let left = &mut self.leased.left;
        left.forget_new_objects();
        if unknown {
            left.effects = left.effects.without(Effects::DISCARDS_SEQUENCES).with(Effects::SETS);
        } else {
            left.effects = Effects::NONE;
            left.forget_unsure();
        }
    }

    /// The session goes by these settings from now on.
    fn take_over(&mut self, settings: Settings) {
        let Self { who, view, own, leased, .. } = self;
        // What functions have set is asked for from now on.
        if !settings.iter().all(|(name, _)| own.note_custom_setting(name)) {
            leased.left.effects |= Effects::OPAQUE_SETTINGS;
        }
        let settings = if settings == *who.startup { Arc::clone(&who.startup) } else { Arc::new(settings) };
        let rules = view.snapshot.classifier.rules();
        own.asked = settings.get("bulkhead.route").and_then(|route| rules.hint(route));
        own.set_consistency(settings.get("bulkhead.consistency"), view);
        own.in_session_mode = settings.get("bulkhead.pool_mode") == Some("session");
        leased.is_kept |= keeps(leased.pool, own, view, who);
        leased.applied = Arc::clone(&settings);
        who.key.has_settings(&settings);
        own.settings = settings;
    }
}
