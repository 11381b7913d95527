//! Whether a replica is fresh enough for a read, and what must be remembered so that it can be told: see
//! [`causal`](crate::causal).

use std::{
    num::NonZeroU8,
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    sync::futures::Notified,
    time::{Instant, timeout_at},
};

use super::{
    Own, Session, Stop, UnderWay, View, held::Held, hold::Leased, reply, soon::Soon,
    transaction::LocalTransaction,
};
use crate::{
    causal::stamps::Scope,
    clock,
    pool::{Lease, Refusal, ServerPool},
    route::{Demand, PoolId},
    shared::counters::ReadOn,
    sql::{Class, Consistency, Control, Tables},
    wire::TxStatus,
};

/// A strong read waits for a sample and for replicas to say that they have replayed it: so many rounds of questions.
const STRONG_ROUNDS: u32 = 10;

/// A new connection to a replica waits for an answer of that: so many rounds of questions.
const KNOWN_ROUNDS: u32 = 5;

/// Stands for no bound on the numbers of backends.
const ANY_BACKEND: u32 = u32::MAX;

impl Session {
    /// The pool for a request that may use this one: the primary's in place of the replicas' if none of these is fresh
    /// enough.
    pub(super) fn fresh_pool<'s>(
        &'s mut self,
        demand: &'s Demand,
        pool: PoolId,
    ) -> Soon<'s, Result<PoolId, Stop>> {
        if !self.may_go_on_to_primary(pool) {
            return Soon::now(Ok(pool));
        }
        let consistency = self.consistency(demand);
        self.view.snapshot.causal.note_read(clock::last_tick());
        let need = self.need(consistency, demand);
        if self.has_fresh(pool, need) {
            self.under_way.count_read(ReadOn::Replica, &self.view);
            return Soon::now(Ok(pool));
        }
        // Those that come later find a sample that is new enough.
        self.view.snapshot.causal.want(need);
        let replicas = &self.view.snapshot.replicas;
        let limit = match consistency {
            Consistency::Strong => replicas.causal_wait + replicas.sample_interval * STRONG_ROUNDS,
            _ => replicas.causal_wait,
        };
        if limit.is_zero() || !self.has_replica() {
            return Soon::now(Ok(self.not_on_replica(consistency, demand)));
        }
        let until = (Instant::now() + replicas.causal_wait, Instant::now() + limit);
        Soon::later(async move {
            if self.wait_for_replica(pool, need, until).await? {
                self.under_way.count_read(ReadOn::ReplicaLater, &self.view);
                return Ok(pool);
            }
            Ok(self.not_on_replica(consistency, demand))
        })
    }

    /// Holds a read until a replica is fresh enough; false if none is by then, or, after the first of both moments, all have
    /// said that they are not.
    async fn wait_for_replica(
        &mut self,
        pool: PoolId,
        need: u64,
        (patient_until, deadline): (Instant, Instant),
    ) -> Result<bool, Stop> {
        let causal = Arc::clone(&self.view.snapshot.causal);
        loop {
            let progressed = causal.progressed();
            if self.has_fresh(pool, need) {
                return Ok(true);
            }
            let is_settled = || causal.newest() > need && self.have_answered_since(causal.newest());
            if !self.has_replica() || Instant::now() >= patient_until && is_settled() {
                return Ok(false);
            }
            if !self.wait_until(deadline, progressed, pool).await? {
                return Ok(false);
            }
        }
    }

    /// Waits for that, while watching the client; false if it has not come by then.
    async fn wait_until(
        &mut self,
        deadline: Instant,
        progressed: Notified<'_>,
        pool: PoolId,
    ) -> Result<bool, Stop> {
        if let Some(outcome) = self.wait(Box::pin(timeout_at(deadline, progressed))).await? {
            return Ok(outcome.is_ok());
        }
        let pool = &self.view.snapshot.pool(pool).name;
        Err(reply::refused(pool, &Refusal::Cancelled).into())
    }

    /// Waits until it is known what the replica has that a new backend is at; false if that takes too long, or is not enough.
    pub(super) async fn get_to_know(
        &mut self,
        lease: &Lease,
        demand: &Demand,
        pool: PoolId,
    ) -> Result<bool, Stop> {
        let causal = Arc::clone(&self.view.snapshot.causal);
        let deadline = Instant::now() + self.view.snapshot.replicas.sample_interval * KNOWN_ROUNDS;
        let consistency = self.consistency(demand);
        loop {
            let progressed = causal.progressed();
            let need = self.need(consistency, demand);
            if !self.has_fresh(pool, need) {
                return Ok(false);
            }
            if self.is_at_replica(lease, pool) {
                return Ok(true);
            }
            if !self.wait_until(deadline, progressed, pool).await? {
                return Ok(false);
            }
        }
    }

    /// Whether all replicas that serve reads have answered since then.
    fn have_answered_since(&self, time: u64) -> bool {
        let mut progress = self.view.snapshot.replicas.progress.iter();
        progress.all(|replica| !replica.is_in() || replica.has_answered_since(time))
    }

    /// Looks which replicas are fresh enough for a read; whether any is that can be reached.
    fn has_fresh(&mut self, pool: PoolId, need: u64) -> bool {
        let progress = &self.view.snapshot.replicas.progress;
        // What it has seen on one replica, another one may not have.
        let is_other = |at: usize| {
            let is_same = |kept: NonZeroU8| {
                usize::from(kept.get()) == at + 1 && progress[at].life() == self.own.replica_life
            };
            self.own.replica.is_some_and(|kept| !is_same(kept))
        };
        let (mut fresh, mut known) = (0, ANY_BACKEND);
        for (at, replica) in progress.iter().enumerate() {
            let backends = replica.backends() as u32;
            if need == 0 && replica.is_in() {
                fresh |= 1 << at;
            } else if need > 0 && !is_other(at) && replica.covers(need) {
                fresh |= 1 << at;
                known = if known == ANY_BACKEND { backends } else { earlier(known, backends) };
            }
        }
        (self.under_way.fresh, self.under_way.known) = (fresh, known);
        self.member(pool).is_some()
    }

    /// The primary's pool, for a read that no replica can serve.
    fn not_on_replica(&mut self, consistency: Consistency, demand: &Demand) -> PoolId {
        let last = || self.view.snapshot.causal.stamps.last(&self.read_scope(demand));
        let why = match consistency {
            _ if !self.has_replica() => ReadOn::NoReplica,
            Consistency::Strong => ReadOn::Behind,
            Consistency::Session => ReadOn::Floor,
            _ if self.own.floor > last() => ReadOn::Floor,
            _ => ReadOn::FreshWrite,
        };
        self.under_way.count_read(why, &self.view);
        self.leave_replica();
        self.view.snapshot.routes.primary
    }

    /// The member of a pool to use next; of the replicas' one that is fresh enough for the request under way.
    pub(super) fn member(&self, pool: PoolId) -> Option<&Arc<ServerPool>> {
        let members = self.view.snapshot.pool(pool);
        if !self.may_go_on_to_primary(pool) {
            return members.choose();
        }
        let (progress, fresh) = (&self.view.snapshot.replicas.progress, self.under_way.fresh);
        let weights = &self.view.snapshot.replicas.weights;
        members.choose_by(|at| {
            let fits = fresh & (1 << at) != 0 && progress[at].is_in();
            if fits { weights.get(at).map_or(1, |weight| weight * progress[at].eighths()) } else { 0 }
        })
    }

    /// Whether a backend is at the replica of which it is known what it has, if it matters.
    pub(super) fn is_at_replica(&self, lease: &Lease, pool: PoolId) -> bool {
        let known = self.under_way.known;
        let id = lease.id.get() as u32;
        if !self.may_go_on_to_primary(pool) || known == ANY_BACKEND || earlier(id, known) == id {
            return true;
        }
        self.view.snapshot.replicas.progress.iter().for_each(|replica| replica.ask_anew());
        false
    }

    /// The request has got a backend of this one.
    pub(super) fn note_member(&mut self, pool: PoolId, member: &Arc<ServerPool>) {
        if self.may_go_on_to_primary(pool) {
            let members = &self.view.snapshot.pool(pool).members;
            let at = members.iter().position(|known| Arc::ptr_eq(known, member));
            self.under_way.fresh = at.map_or(0, |at| 1 << at);
            let progress = at.and_then(|at| self.view.snapshot.replicas.progress.get(at));
            self.own.replica_life = progress.map_or(0, |replica| replica.life());
        }
    }

    /// Whether any replica serves reads at all.
    fn has_replica(&self) -> bool {
        let snapshot = &self.view.snapshot;
        let is_in = |at: usize| snapshot.replicas.progress.get(at).is_some_and(|replica| replica.is_in());
        let weight = |at| usize::from(is_in(at));
        snapshot.routes.replicas.is_some_and(|pool| snapshot.pool(pool).choose_by(weight).is_some())
    }

    /// How fresh a replica must be for a request.
    fn consistency(&self, demand: &Demand) -> Consistency {
        let of_session = self.own.consistency.unwrap_or(self.view.snapshot.replicas.consistency);
        match demand.verdict.consistency {
            // What the session has seen was not noted.
            Some(Consistency::Session) if of_session != Consistency::Session => Consistency::Tables,
            asked => asked.unwrap_or(of_session),
        }
    }

    /// The time by the clock of samples after which a replica must be; zero if any replica will do.
    fn need(&self, consistency: Consistency, demand: &Demand) -> u64 {
        let stamps = &self.view.snapshot.causal.stamps;
        match consistency {
            Consistency::Tables => stamps.last(&self.read_scope(demand)).max(self.own.floor),
            Consistency::Session => stamps.voided().max(self.own.floor),
            Consistency::Strong => stamps.now(),
            Consistency::Eventual => 0,
        }
    }

    /// Whether the request is one of a transaction, which reads on.
    fn is_in_transaction(&self, demand: &Demand) -> bool {
        demand.begins != Control::None || matches!(self.hold.transaction, LocalTransaction::Deferred(_))
    }

    /// The tables that a read may come to read on the backend that it gets.
    fn read_scope(&self, demand: &Demand) -> Scope {
        let tables = if self.is_in_transaction(demand) { Tables::ALL } else { demand.verdict.reads() };
        Scope { tables, database: self.who.identity.database_hash }
    }

    /// Remembers what a read that was answered may have shown, alone or beside a write in one request: later ones on replicas must
    /// not fall behind it.
    pub(crate) fn saw(&mut self, demand: &Demand) {
        let only_reads = demand.verdict.class == Class::Read;
        if !(only_reads || demand.statements > 1) || self.view.snapshot.replicas.progress.is_empty() {
            return;
        }
        let stamps = &self.view.snapshot.causal.stamps;
        let tables = if only_reads { demand.verdict.reads() } else { Tables::ALL };
        let scope = Scope { tables, database: self.who.identity.database_hash };
        let of_session = self.consistency(demand) == Consistency::Session;
        let may_show_anything = stamps.note_shown(&scope);
        match self.replica_used() {
            // What it may have seen there only is on no other replica yet.
            Some(replica) if of_session || may_show_anything => {
                self.own.replica = NonZeroU8::new(replica as u8 + 1);
            }
            None if may_show_anything => self.own.floor = self.own.floor.max(stamps.now()),
            None if of_session => self.own.floor = self.own.floor.max(stamps.last(&scope)),
            _ => {}
        }
    }

    /// The client was told of commits: what it reads next shows them, also those whose own clients have not been told yet.
    pub(super) fn note_told(&mut self) {
        let snapshot = &self.view.snapshot;
        let is_of_session =
            self.own.consistency.unwrap_or(snapshot.replicas.consistency) == Consistency::Session;
        let stamps = &snapshot.causal.stamps;
        if is_of_session || stamps.note_shown(&Scope::ALL) {
            self.own.floor = stamps.now();
            self.own.replica = None;
        }
    }

    /// The replica on which the request has run, by its place in the pool.
    fn replica_used(&self) -> Option<usize> {
        let (pool, ..) = self.own.last?;
        if !self.may_go_on_to_primary(pool) {
            return None;
        }
        Some(self.under_way.fresh.trailing_zeros() as usize)
    }

    /// Whether the answer of a replica is waited for that does not answer others, and the read can be run once more.
    pub(super) fn waits_in_vain(&self) -> bool {
        let progress = &self.view.snapshot.replicas.progress;
        let is_stuck = |at: usize| progress.get(at).is_some_and(|replica| replica.is_stuck());
        self.has_told_nothing() && self.replica_used().is_some_and(is_stuck)
    }

    /// The session does not keep to its replica any more: whatever it has seen there must be where it reads next.
    pub(super) fn leave_replica(&mut self) {
        if self.own.replica.take().is_some() {
            self.own.floor = self.view.snapshot.causal.stamps.now();
        }
    }
}

/// The earlier of two numbers that may have gone round.
const fn earlier(one: u32, other: u32) -> u32 {
    if other.wrapping_sub(one).cast_signed() >= 0 { one } else { other }
}

impl Held<'_> {
    /// The request has got its backend: if it is to open a transaction that a standby can run, reads are counted there.
    pub(super) fn note_reading(&mut self, demand: &Demand) {
        let fits_standby = match self.transaction {
            LocalTransaction::Deferred(deferred) => deferred.fits_standby,
            _ => demand.begins.begins_on_standby(self.own.settings.is_read_only()),
        };
        if let Some(replicas) = self.view.snapshot.routes.replicas.filter(|_| fits_standby) {
            let is_there = self.leased.pool == replicas;
            self.leased.reads = Some(if is_there { ReadOn::ReplicaOpen } else { ReadOn::PrimaryOpen });
        }
    }

    /// Counts a read that runs where its transaction was opened.
    pub(super) fn count_held_read(&mut self, demand: &Demand) {
        if self.status() == TxStatus::Idle && !self.is_amid_pipeline() {
            self.leased.reads = None;
        }
        if let Some(on) = self.leased.reads
            && demand.verdict.class == Class::Read
        {
            self.under_way.count_read(on, self.view);
        }
    }

    /// A request is sent that may change tables, or commit what was changed before.
    pub(super) fn note_changes(&mut self, demand: &Demand) {
        let leased = &mut *self.leased;
        let changes = demand.verdict.changes();
        let before = leased.changes;
        if before.scope.tables.is_empty() && changes.is_empty() {
            return;
        }
        let database = self.who.identity.database_hash;
        let scope = Scope { tables: before.scope.tables.with(changes), database };
        leased.changes.scope = scope;
        // Inside a transaction only what ends it commits.
        let may_commit = !self.under_way.was_in_transaction
            || demand.verdict.control != Control::None
            || demand.verdict.is_unread()
            || demand.unread > 0;
        let stamps = &self.view.snapshot.causal.stamps;
        if may_commit || before.is_committing {
            leased.changes.is_committing = true;
            stamps.begin_commit(&scope);
        }
        if before.is_committing {
            stamps.end_commit(&before.scope);
        }
    }

    /// An answer is there that the client has not been given: what it may be told of is stamped before.
    pub(super) fn stamp_changes(&mut self) {
        let leased = &mut *self.leased;
        if leased.changes.scope.tables.is_empty() {
            return;
        }
        let defined = self.view.catalog.changes();
        let stamps = &self.view.snapshot.causal.stamps;
        let changes = leased.changes;
        if changes.is_committing {
            // By other definitions, it may have changed other tables.
            let is_known = leased.left.judged_at == defined;
            let time = stamps.stamp(if is_known { &changes.scope } else { &Scope::ALL });
            if self.own.consistency.unwrap_or(self.view.snapshot.replicas.consistency) == Consistency::Session
            {
                self.own.floor = self.own.floor.max(time);
            }
        }
        if leased.protocol.is_answered() {
            if changes.is_committing {
                stamps.end_commit(&changes.scope);
            }
            leased.changes.is_committing = false;
        }
        if leased.protocol.quiescent().is_some() {
            leased.changes.scope = Scope::default();
        }
    }
}

impl UnderWay {
    /// Counts a read by where it runs.
    fn count_read(&mut self, on: ReadOn, view: &View) {
        self.tally().read_on = Some(on);
        view.snapshot.metrics.reads.0[on as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Own {
    /// The session asks for this consistency from now on.
    pub(super) fn set_consistency(&mut self, name: Option<&str>, view: &View) {
        let asked = name.and_then(Consistency::named);
        if asked != self.consistency {
            self.consistency = asked;
            // What it has seen until now was perhaps not noted.
            self.floor = view.snapshot.causal.stamps.now();
        }
    }
}

/// The session parts with a backend. What was under way on it may still come about.
pub(super) fn leave_changes(snapshot: &crate::shared::Snapshot, leased: &mut Leased) {
    let changes = std::mem::take(&mut leased.changes);
    if changes.is_committing {
        snapshot.causal.stamps.doubt(changes.scope);
    }
}
