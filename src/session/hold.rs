//! What a session holds: its transaction, and its backend.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use super::{
    Own, kinds,
    left::Left,
    prologue,
    settled::Facts,
    there::There,
    transaction::{Deferred, LocalTransaction},
};
use crate::{
    backend::{
        Backend, Broken,
        handover::NotReady,
        probe::{Asked, PinReason, Residue},
        query::{ASK_TIMEOUT, Answer, in_time},
        statements::UnnamedText,
    },
    clock,
    pool::{Lease, PinPlace},
    route::PoolId,
    shared::{
        Snapshot,
        counters::{ReadOn, SessionPin},
    },
    sql::Effects,
    wire::TxStatus,
};

/// Statements that open a transaction on a second server, and their length; beyond that it stays on the first one.
const OPENING_TEXTS: usize = 32;
const OPENING_BYTES: usize = 8192;

/// The session's transaction and backend.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// A transaction that exists here only.
    pub(super) transaction: LocalTransaction,
    /// The backend, while the session holds one. Boxed: few of many sessions do.
    pub(super) leased: Option<Box<Leased>>,
    /// The part that concerns another server than the backend's: while a transaction could be on both, or a backend is held of each.
    pub(super) across: Option<Box<Across>>,
}

/// A backend that the session holds, and what is true of it only as long as it does.
#[derive(Debug)]
pub(super) struct Leased {
    lease: Lease,
    /// The pool that it is of.
    pub(super) pool: PoolId,
    /// How reads are counted, while there is a transaction that might have been opened on a replica.
    pub(super) reads: Option<ReadOn>,
    /// The backend is the session's own until the session ends.
    pub(super) is_kept: bool,
    /// Why it is kept between transactions.
    pub(super) pin: Option<Box<SessionPin>>,
    /// State that statements have, or may have, left on it since the checkout.
    pub(super) left: Left,
    /// The greatest that its transaction has done.
    pub(super) work: Work,
    /// Jobs may have been added on it.
    pub(super) adds_jobs: bool,
    /// Portals and locks of the session on it, which another server does not have.
    pub(super) there: There,
    /// The statements that let go of the locks that it keeps until another server has committed, too.
    pub(super) unlock: Option<Box<str>>,
}

/// The greatest that a transaction has done on one server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// Nothing that names an object.
    #[default]
    Neutral,
    /// Read.
    Reads,
    /// Added jobs that could be relayed.
    Adds,
    /// Anything else.
    Writes,
}

/// The part of a transaction, or of a session, that concerns two servers.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Across {
    /// The statements that open the transaction on another server.
    pub(super) opening: Vec<Box<[u8]>>,
    /// The transaction was begun or gone on with in a way that cannot be said on another server.
    pub(super) is_local: bool,
    /// A savepoint is among them.
    pub(super) has_savepoint: bool,
    /// The backend that requests do not go to.
    pub(super) beside: Option<Box<Leased>>,
    /// A statement about savepoints, or a definition, that the backend beside is to get, too, once it has succeeded.
    pub(super) echo: Option<Box<[u8]>>,
    /// Something was defined on both in the transaction.
    pub(super) defines: bool,
    /// The request under way is the transaction's COMMIT, and nothing was lost of it.
    pub(super) commits: bool,
    /// The request under way has failed.
    pub(super) failed: bool,
}

impl Across {
    /// The part of a transaction that these statements have opened.
    pub(super) fn of(deferred: &Deferred) -> Self {
        let has_savepoint = deferred.texts.iter().any(|text| prologue::tag(text) == Some("SAVEPOINT"));
        Self { opening: deferred.texts.clone(), has_savepoint, ..Self::default() }
    }

    /// Whether there is a second backend.
    pub(super) const fn is_both(&self) -> bool {
        self.beside.is_some()
    }

    /// Whether the transaction is open on the second backend.
    pub(super) fn is_open_beside(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.protocol.status() != TxStatus::Idle)
    }

    /// The statements that open the transaction on another server; empty if it cannot be opened there.
    pub(super) fn opening(&self) -> &[Box<[u8]>] {
        if self.is_local { &[] } else { &self.opening }
    }

    /// Adds another statement to those that open it.
    pub(super) fn push(&mut self, text: &[u8]) {
        let bytes: usize = self.opening.iter().map(|text| text.len()).sum();
        if self.opening.len() < OPENING_TEXTS && bytes + text.len() <= OPENING_BYTES {
            self.opening.push(text.into());
        } else {
            self.is_local = true;
        }
    }
}

impl Hold {
    /// The backend that the session holds: for what is asked of it as of one that may be there.
    pub(super) fn backend(&self) -> Option<&Leased> {
        self.leased.as_deref()
    }

    /// Whether the session holds a backend.
    pub(super) fn has_backend(&self) -> bool {
        self.leased.is_some()
    }

    /// Whether the session holds a backend of both servers.
    pub(super) fn is_both(&self) -> bool {
        self.across.as_ref().is_some_and(|across| across.is_both())
    }

    /// The transaction status that the client is told: of a transaction that no server knows, as long as there is one.
    pub(super) fn status(&self) -> TxStatus {
        let backend = self.leased.as_ref().map_or(TxStatus::Idle, |leased| leased.protocol.status());
        self.transaction.status_with(backend)
    }

    /// Whether the client's Sync is still to come for what was sent last.
    pub(super) fn is_amid_pipeline(&self) -> bool {
        self.leased.as_ref().is_some_and(|leased| leased.protocol.is_open())
    }

    /// Whether the session holds a backend that owes nothing.
    pub(super) fn is_quiescent(&self) -> bool {
        self.leased.as_ref().is_some_and(|leased| leased.protocol.quiescent().is_some())
    }

    /// The backends that the session is pinned to.
    pub(super) fn pinned(&self) -> impl Iterator<Item = &Leased> {
        let beside = self.across.as_ref().and_then(|across| across.beside.as_deref());
        self.leased.as_deref().into_iter().chain(beside).filter(|leased| leased.is_pinned())
    }

    /// Whether the session has its backend for longer than a transaction.
    pub(super) fn is_pinned(&self) -> bool {
        self.leased.as_deref().is_some_and(Leased::is_pinned)
    }

    /// Whether statements may have left one of these on the backend.
    pub(super) fn may_have_left(&self, effects: Effects) -> bool {
        self.leased.as_ref().is_some_and(|leased| leased.left.effects.has(effects))
    }
}

impl Leased {
    /// A backend that was just checked out, with a place among the pins of its pool if there is to be a pin.
    pub(super) fn new(mut lease: Lease, pool: PoolId, is_kept: bool, place: Option<PinPlace>) -> Self {
        if let Some(place) = place {
            lease.take_place(place);
        }
        let (left, work) = (Left::default(), Work::default());
        let (reads, pin, unlock) = (None, None, None);
        let there = There::default();
        Self { lease, pool, reads, is_kept, pin, left, work, adds_jobs: false, there, unlock }
    }

    /// Whether the session keeps it for longer than a transaction.
    pub(super) fn is_pinned(&self) -> bool {
        self.pin.is_some()
    }

    /// Whether it is kept for this reason.
    pub(super) fn is_pinned_by(&self, reason: PinReason) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.reason == reason)
    }

    /// Whether it is kept for the sake of state that cannot be asked for.
    pub(super) fn has_lasting_pin(&self) -> bool {
        self.pin.as_ref().is_some_and(|pin| pin.reason.is_lasting())
    }

    /// Whether there may be statements on it that the session has prepared by SQL.
    pub(super) fn may_have_sql_names(&self) -> bool {
        self.is_pinned() || self.left.effects.has(Effects::PREPARES)
    }

    /// The pin by state that the server cannot be asked for.
    pub(super) fn lasting_pin(&self) -> Option<PinReason> {
        kinds::lasting_pin(self.left.effects, self.pin.as_ref().map(|pin| pin.reason))
    }

    /// The facts by which it is decided whether the backend is kept, asked or given back.
    #[expect(
        clippy::inline_always,
        reason = "most of them are compared and never written where it is called for each answer"
    )]
    #[inline(always)]
    pub(super) fn facts(&self, own: &Own, is_streaming: bool, is_outdated: bool, was_asked: bool) -> Facts {
        Facts {
            is_quiescent: self.lease.protocol.quiescent().is_some(),
            effects: self.left.effects,
            pin: self.pin.as_ref().map(|pin| pin.reason),
            is_kept: self.is_kept,
            has_long_statement: self.has_long_statement(),
            is_outdated,
            has_new_objects: self.left.has_new_objects(),
            was_asked,
            lacks_statement: self.left.statements_unknown,
            has_aliases: own.has_aliases(),
            keeps_locks: self.unlock.is_some(),
            listens_there: self.lease.protocol.holds_ready() || own.listens_there(),
            was_hit: self.lease.cancel.was_hit(),
            is_streaming,
            has_unsent: !self.lease.unsent.is_empty(),
        }
    }

    /// Whether it has an unnamed statement that is too long to be kept here.
    pub(super) fn has_long_statement(&self) -> bool {
        self.lease.statements.unnamed == UnnamedText::Streamed
    }

    /// [`Backend::ask`], with a bound on how long the session waits.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Answer, Broken> {
        self.ask_within(ASK_TIMEOUT, sql).await
    }

    /// [`Backend::ask`], with this bound.
    pub(super) async fn ask_within(&mut self, limit: Duration, sql: &str) -> Result<Answer, Broken> {
        let server = Arc::clone(&self.lease.server);
        in_time(limit, &server, self.lease.ask(sql)).await
    }

    /// [`Backend::ask_unhindered`], with the same bound.
    pub(super) async fn ask_unhindered(&mut self, sql: &str) -> Result<Answer, Broken> {
        let server = Arc::clone(&self.lease.server);
        in_time(ASK_TIMEOUT, &server, self.lease.ask_unhindered(sql)).await.map(|(answer, _)| answer)
    }

    /// [`Backend::probe`], with the same bound.
    pub(super) async fn probe(&mut self, asked: Option<Asked<'_>>) -> Result<Residue, Broken> {
        let server = Arc::clone(&self.lease.server);
        in_time(ASK_TIMEOUT, &server, self.lease.probe(asked)).await
    }

    /// [`Backend::reset`], with the same bound.
    pub(super) async fn reset(&mut self) -> Result<(), NotReady> {
        let server = Arc::clone(&self.lease.server);
        in_time(ASK_TIMEOUT, &server, self.lease.reset()).await
    }

    /// The backend itself, to borrow parts of it side by side.
    pub(super) fn backend(&mut self) -> &mut Backend {
        &mut self.lease
    }

    /// Notes how long its transaction of several requests took, which has ended.
    pub(super) fn note_transaction(&mut self, snapshot: &Snapshot) {
        let Some((began, class)) = self.lease.usage.transaction.take() else { return };
        // A reload may have taken the pool away.
        if let Some(requests) = snapshot.requests.get(usize::from(self.pool.0)) {
            requests.note_transaction(class, clock::since(began));
        }
    }

    /// The lease itself, without what was true of it.
    #[inline]
    pub(super) fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Deref for Leased {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }
}
