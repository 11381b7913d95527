//! What makes a session the same on any backend.

use std::{
    hash::{BuildHasher, Hasher},
    num::NonZeroU8,
    sync::Arc,
};

use super::{SessionStatements, UnnamedStatement, listen::Listening};
use crate::{
    backend::{BackendId, Settings, statements::Shape},
    clock::Moment,
    route::PoolId,
    shared::Snapshot,
    sql::{Consistency, Effects, Hint, Reading, Verdict},
};

/// Names of custom settings that are kept of one session; more than these cannot be carried.
const CUSTOM_SETTINGS_MAX: usize = 100;

/// Spreads a small number over the bits of a hash.
const GENERATION_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// The part of a session that is the same on any backend.
#[derive(Debug)]
pub(super) struct Own {
    /// The settings in force.
    pub(super) settings: Arc<Settings>,
    /// How the server reads the session's texts, as it has said last.
    pub(super) reading: Reading,
    /// Parts that few sessions have; every idle one pays for the place.
    seldom: Option<Box<Seldom>>,
    /// `SET bulkhead.route`.
    pub(super) asked: Option<Hint>,
    /// `SET bulkhead.consistency`.
    pub(super) consistency: Option<Consistency>,
    /// After this time by the clock of samples a replica must be, not to fall behind what the session has seen.
    pub(super) floor: u64,
    /// The replica that it has read on last, by its place in the pool, if it keeps to that one.
    pub(super) replica: Option<NonZeroU8>,
    /// The life of the replica that it has read on last.
    pub(super) replica_life: u8,
    /// The client asked for session mode (`bulkhead.pool_mode`).
    pub(super) in_session_mode: bool,
    pub(super) statements: Option<Box<SessionStatements>>,
    /// The channels that the session listens to.
    pub(super) listening: Option<Box<Listening>>,
    /// The backend used last, to be preferred, and how often it had been taken by then.
    pub(super) last: Option<(PoolId, BackendId, u32)>,
    /// The backend is new to the session: another session had it since, or nobody did.
    pub(super) is_new_backend: bool,
}

/// Parts of a session that few have.
#[derive(Debug, Default)]
struct Seldom {
    /// Names with a dot that the session has set.
    custom_settings: Vec<String>,
    /// End of the time in which the session counts as a worker's: it has worked on jobs.
    worker_until: Option<Moment>,
    /// A server's parameters as the client was told them (ParameterStatus) by a backend that has been lost since then, with
    /// changes of them that were not for good.
    told: Option<Vec<(String, String)>>,
}

impl Own {
    /// The beginning of a session that asked for these settings.
    pub(super) fn new(startup: &Arc<Settings>, reading: Reading, snapshot: &Snapshot) -> Self {
        let names = startup.iter().map(|(name, _)| name).filter(|name| name.contains('.'));
        let custom: Vec<_> = names.map(str::to_owned).collect();
        Self {
            settings: Arc::clone(startup),
            reading,
            seldom: (!custom.is_empty())
                .then(|| Box::new(Seldom { custom_settings: custom, ..Seldom::default() })),
            asked: startup.get("bulkhead.route").and_then(|route| snapshot.classifier.rules().hint(route)),
            consistency: startup.get("bulkhead.consistency").and_then(Consistency::named),
            floor: 0,
            replica: None,
            replica_life: 0,
            in_session_mode: startup.get("bulkhead.pool_mode") == Some("session"),
            statements: None,
            listening: None,
            last: None,
            is_new_backend: false,
        }
    }

    /// The hash of what decides, besides its text and the numbers of its parameters' types, what a statement means.
    pub(super) fn parse_hash(&self) -> u64 {
        let hash = self.settings.parse_hash();
        // Numbers of types that are another server's make it another statement.
        let is_elsewhere = self.statements.as_ref().is_some_and(|statements| statements.are_elsewhere);
        if is_elsewhere { !hash } else { hash }
    }

    /// Remembers the unnamed statement of this text, behind which come a zero and the parameter types. Definitions have changed so
    /// often (`generation`): of what another session has parsed before, the server would go on to use the old columns.
    pub(super) fn remember_unnamed(&mut self, body: &[u8], generation: u64) -> u64 {
        let world = self.parse_hash() ^ generation.wrapping_mul(GENERATION_FACTOR);
        let statements = self.statements.get_or_insert_default();
        // Many parse the same text again and again.
        if let Some(known) = statements.unnamed.as_mut().filter(|known| known.is(body, world)) {
            known.told = Shape::default();
            return known.hash;
        }
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(body);
        hasher.write_u64(world);
        let hash = hasher.finish();
        let mut kept = statements.unnamed.take().map(|unnamed| unnamed.body).unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(body);
        statements.unnamed = Some(UnnamedStatement { body: kept, world, hash, told: Shape::default() });
        hash
    }

    /// Names with a dot that the session has set: the server does not list them.
    pub(super) fn custom_settings(&self) -> &[String] {
        self.seldom.as_deref().map(|seldom| &*seldom.custom_settings).unwrap_or_default()
    }

    /// The session counts as a worker's until then.
    pub(super) fn work_until(&mut self, until: Moment) {
        self.seldom.get_or_insert_default().worker_until = Some(until);
    }

    /// Whether the session counts as a worker's at `now`.
    pub(super) fn works_at(&self, now: impl FnOnce() -> Moment) -> bool {
        self.seldom.as_ref().and_then(|seldom| seldom.worker_until).is_some_and(|until| now() < until)
    }

    /// Whether the session has asked for a pool that may have other tables than the primary.
    pub(super) fn asks_for_pool(&self) -> bool {
        matches!(self.asked, Some(Hint::Job | Hint::Pool(_)))
    }

    /// A backend that was lost has told the client of these parameters.
    pub(super) fn note_told(&mut self, told: &[(String, String)]) {
        self.seldom.get_or_insert_default().told = Some(told.to_vec());
    }

    /// Gives what a backend that was lost has told the client, once.
    #[inline]
    pub(super) fn take_told(&mut self) -> Option<Vec<(String, String)>> {
        self.seldom.as_mut()?.told.take()
    }

    /// Remembers the name of a setting that the server does not list. False if there is no room for it.
    pub(super) fn note_custom_setting(&mut self, name: &str) -> bool {
        if !name.contains('.') || self.custom_settings().iter().any(|known| known == name) {
            return true;
        }
        let has_room = self.custom_settings().len() < CUSTOM_SETTINGS_MAX;
        if has_room {
            self.seldom.get_or_insert_default().custom_settings.push(name.to_owned());
        }
        has_room
    }

    /// Whether the session asks for `currval` or `lastval`, and the statement may change what they give.
    pub(super) fn calls_sequences(&self, verdict: &Verdict) -> bool {
        let asks = verdict.effects.has(Effects::ASKS_SEQUENCES);
        let has_asked = || self.statements.as_ref().is_some_and(|statements| statements.asks_sequences);
        asks || (verdict.may_call_nextval() && has_asked())
    }

    /// Whether SQL's PREPARE has been used.
    pub(super) fn has_sql_names(&self) -> bool {
        self.statements.as_ref().is_some_and(|statements| statements.has_sql_names)
    }

    /// Whether the backend has statements under the client's own names.
    pub(super) fn has_aliases(&self) -> bool {
        self.statements.as_ref().is_some_and(|statements| !statements.aliases.is_empty())
    }

    /// Whether the session may listen on its backend, which must not be given back before
    /// [`Session::settle_listening`](super::Session::settle_listening).
    pub(super) fn listens_there(&self) -> bool {
        self.listening.as_ref().is_some_and(|listening| listening.on_backend || listening.has_pending())
    }
}
