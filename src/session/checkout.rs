//! Getting a backend: admission, waiting, a check of those that have been idle for long, and making it ready: nothing of
//! the session's is sent before what is another's is gone and its own settings are confirmed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{Session, Stop, hold::Leased, pins::keeps, reply, request::Request, soon::Soon};
use crate::{
    backend::handover::{Needs, NotReady},
    pool::{Checkout, ConnectFailure, Lease, PinPlace, Pool, Refusal, Wants},
    route::{Demand, PoolId},
    sql::Effects,
};

/// Backends in a row that may fail to be made ready. What fails on each of them is the session's own.
const ATTEMPTS: usize = 3;

/// SQLSTATE `query_canceled`: a timeout, or a cancel by another user of the server.
const INTERRUPTED: &str = "57014";

impl Session {
    /// Takes a lease from the pool for a request, or says why there is none. Definitions had changed `judged_at` times when
    /// the request was judged.
    pub(super) fn checkout<'s>(
        &'s mut self,
        request: Request,
        demand: &'s Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Soon<'s, Result<(), Stop>> {
        self.under_way.tally().pool = Some(pool);
        if self.who.bound.is_some() && self.outlives_pool(pool) {
            return Soon::now(Err(reply::pool_is_gone(&self.view.snapshot.pool(pool).name).into()));
        }
        if Self::listens_in(demand) || self.foreseen_pin(&demand.verdict, pool).is_some() {
            return Soon::later(self.checkout_for_long(request, demand, judged_at, pool));
        }
        self.checkout_with(None, request, demand, judged_at, pool)
    }

    /// The same for a request that keeps its lease, or listens.
    async fn checkout_for_long(
        &mut self,
        request: Request,
        demand: &Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Result<(), Stop> {
        // The channels of a LISTEN are waited for while no backend is held.
        if Self::listens_in(demand) {
            let member = Arc::clone(&self.view.snapshot.pool(pool).members[0]);
            self.subscribe(request, member).await?;
        }
        // So is a place among the pins.
        let place = match self.foreseen_pin(&demand.verdict, pool) {
            Some(reason) => self.reserve_pin(reason, pool).await?,
            None => None,
        };
        self.checkout_with(place, request, demand, judged_at, pool).await
    }

    fn checkout_with<'s>(
        &'s mut self,
        place: Option<PinPlace>,
        request: Request,
        demand: &'s Demand,
        judged_at: u64,
        pool: PoolId,
    ) -> Soon<'s, Result<(), Stop>> {
        let at_once = self.member(pool).map(|member| member.checkout(&self.wants(pool)));
        let effects = if Self::may_see_statements(request, demand) {
            demand.verdict.effects.with(Effects::UNPROVEN)
        } else {
            demand.verdict.effects
        };
        match at_once {
            Some(Checkout::Lease(lease))
                if !self.under_way.is_repeated
                    && self.is_at_replica(&lease, pool)
                    && lease.is_ready(self.needs(&lease, pool, effects)) =>
            {
                self.hold(lease, pool, place, judged_at);
                Soon::now(Ok(()))
            }
            first => {
                Soon::later(self.checkout_slowly(pool, first, place, request, (demand, effects), judged_at))
            }
        }
    }

    /// The session's needs of this backend.
    fn needs(&self, lease: &Lease, pool: PoolId, effects: Effects) -> Needs<'_> {
        let is_own = self.own.last == Some((pool, lease.id, lease.uses));
        // What `currval` and `lastval` would give is another session's.
        let asks_sequences = || {
            effects.has(Effects::ASKS_SEQUENCES) || self.who.identity.asks_sequences.load(Ordering::Relaxed)
        };
        let forgets_sequences =
            (!is_own || self.own.is_new_backend) && (asks_sequences() || effects.has(Effects::UNPROVEN));
        let closes = lease.is_suspect && self.view.catalog.load().outlives_discard();
        let forgets_statements = effects.has(Effects::UNPROVEN);
        Needs { settings: &self.own.settings, is_own, forgets_sequences, forgets_statements, closes }
    }

    /// Checks a backend out where that may take time: waiting, checking it, going on to the primary, making it ready.
    async fn checkout_slowly(
        &mut self,
        mut pool: PoolId,
        mut first: Option<Checkout>,
        place: Option<PinPlace>,
        request: Request,
        (demand, effects): (&Demand, Effects),
        judged_at: u64,
    ) -> Result<(), Stop> {
        let mut attempt = 1;
        let began = Instant::now();
        let mut settings = Arc::clone(&self.own.settings);
        loop {
            let (mut lease, target) = self.any_lease(pool, first.take()).await?;
            if !self.is_at_replica(&lease, target) && !self.get_to_know(&lease, demand, target).await? {
                // As it came.
                if let Some(proof) = lease.protocol.quiescent() {
                    lease.release(proof);
                }
                pool = self.view.snapshot.routes.primary;
                continue;
            }
            let needs = Needs { settings: &settings, ..self.needs(&lease, target, effects) };
            // A cancel finds a session that waits.
            self.who.key.waits();
            let made = if lease.is_ready(needs) { Ok(()) } else { lease.make_ready(needs).await };
            let is_cancelled = self.who.key.is_cancelled();
            self.who.key.holds_none();
            let failure = match made {
                Ok(()) if is_cancelled => {
                    give_back(lease);
                    return Err(
                        reply::refused(&self.view.snapshot.pool(target).name, &Refusal::Cancelled).into()
                    );
                }
                Ok(()) => {
                    self.under_way.tally().waited += began.elapsed();
                    self.hold(lease, target, place, judged_at);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            // Nothing of the request was sent, so another backend may be tried.
            let may_try = attempt < ATTEMPTS;
            attempt += 1;
            match failure {
                // It is closed with its lease. There are only so many of them.
                NotReady::Unclean => attempt -= 1,
                NotReady::Broken(_) if may_try => {
                    // Those of a replica that is going down are lost one by one.
                    if self.may_go_on_to_primary(target) {
                        pool = self.view.snapshot.routes.primary;
                    }
                }
                NotReady::Broken(broken) => return Err(reply::not_sent(&broken).into()),
                NotReady::Refused(fields) if fields.code == INTERRUPTED && may_try => give_back(lease),
                NotReady::Refused(fields) => {
                    give_back(lease);
                    // Its role may be gone: what leaves the role runs as it would with the role.
                    if !may_try || !self.only_leaves_role(request) {
                        return Err(reply::settings_failed(&fields).into());
                    }
                    settings = Arc::new(self.own.settings.without(&["role", "session_authorization"]));
                }
            }
        }
    }

    /// Whether a request is one statement that does nothing but return to the user that the session began as.
    fn only_leaves_role(&self, request: Request) -> bool {
        let texts = self.judge().texts(request);
        let [text] = texts.as_slice() else { return false };
        let text = text.to_ascii_lowercase();
        let one = text.trim_ascii().strip_suffix(b";").unwrap_or(text.trim_ascii());
        let mut words = one.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let words: [Option<&[u8]>; 5] = std::array::from_fn(|_| words.next());
        let all = |expected: &[&str]| {
            words.iter().flatten().copied().eq(expected.iter().map(|word| word.as_bytes()))
        };
        all(&["reset", "role"])
            || all(&["set", "role", "none"])
            || all(&["reset", "session", "authorization"])
            || all(&["set", "session", "authorization", "default"])
            || all(&["discard", "all"])
    }

    /// A lease of the pool or, for reads whose replicas cannot be reached, of the primary's.
    async fn any_lease(
        &mut self,
        pool: PoolId,
        mut first: Option<Checkout>,
    ) -> Result<(Lease, PoolId), Stop> {
        let mut snapshot = Arc::clone(&self.view.snapshot);
        let mut target = pool;
        loop {
            let choose = || self.member(target).map(|member| member.checkout(&self.wants(target)));
            let refusal = match first.take().or_else(choose) {
                Some(Checkout::Lease(lease)) if !self.under_way.is_repeated => return Ok((lease, target)),
                // A connection was just lost: others may be about to be.
                Some(Checkout::Lease(mut lease) | Checkout::Stale(mut lease)) => {
                    if lease.check().await.is_ok() {
                        return Ok((lease, target));
                    }
                    // It is closed with its lease, and the next one is tried.
                    continue;
                }
                Some(Checkout::Wait(waiting)) => {
                    match self.wait(waiting).await?.unwrap_or(Err(Refusal::Cancelled)) {
                        Ok(lease) => return Ok((lease, target)),
                        Err(refusal) => Some(refusal),
                    }
                }
                Some(Checkout::Refused(refusal)) => Some(refusal),
                // None of the pool's servers can be reached.
                None if self.who.bound.is_some() => Some(unreachable(snapshot.pool(target))),
                None => None,
            };
            if let Some(Refusal::Moved) = refusal
                && let Some(pool) = self.follow(target)
            {
                snapshot = Arc::clone(&self.view.snapshot);
                target = pool;
                continue;
            }
            if let Some(refusal) = refusal {
                // A replica that cannot be reached is no reason to fail a read.
                let may_go_on = self.may_go_on_to_primary(target);
                if !(may_go_on && matches!(refusal, Refusal::Unreachable(_) | Refusal::Disabled)) {
                    return Err(reply::refused(&snapshot.pool(target).name, &refusal).into());
                }
            }
            target = snapshot.routes.primary;
        }
    }

    /// Whether what the replicas' pool cannot serve is the primary's to serve.
    pub(super) fn may_go_on_to_primary(&self, pool: PoolId) -> bool {
        let routes = &self.view.snapshot.routes;
        Some(pool) == routes.replicas && pool != routes.primary && self.who.bound.is_none()
    }

    fn wants(&self, pool: PoolId) -> Wants<'_> {
        let last = self.own.last.filter(|(of, ..)| *of == pool).map(|(_, backend, _)| backend);
        Wants { identity: &self.who.identity, last, settings: self.own.settings.hash(), home: self.who.home }
    }

    fn hold(&mut self, mut lease: Lease, pool: PoolId, place: Option<PinPlace>, judged_at: u64) {
        lease.cancel.doing.begins();
        self.who.key.holds(&lease.cancel);
        self.note_member(pool, lease.pool());
        lease.protocol.watch_commands(false);
        self.set_types(&mut lease, pool);
        // It stays new until something has been sent to it.
        let is_own = self.own.last == Some((pool, lease.id, lease.uses));
        self.own.is_new_backend |= !is_own;
        lease.prepared = lease.prepared.taken(is_own);
        lease.uses = lease.uses.wrapping_add(1);
        self.own.last = Some((pool, lease.id, lease.uses));
        let mut leased =
            Box::new(Leased::new(lease, pool, keeps(pool, &self.own, &self.view, &self.who), place));
        leased.left.judged_at = judged_at;
        if let Some(told) = self.own.take_told() {
            self.client.tell_changed(&told, leased.protocol.parameters());
        }
        if leased.protocol.reading() != self.own.reading {
            // The request was judged as another server reads it.
            leased.left.effects |= Effects::UNPROVEN;
        }
        self.hold.leased = Some(leased);
        if let Some(statements) = &mut self.own.statements {
            // They were another backend's.
            statements.aliases.clear();
            statements.has_sql_names = false;
        }
        self.begin_listening_lease();
    }
}

/// The refusal of a pool of which no server can be reached.
fn unreachable(pool: &Pool) -> Refusal {
    let failure =
        ConnectFailure::unreachable(&pool.members[0].server_name, "the last attempt failed".to_owned());
    Refusal::Unreachable(Arc::new(failure))
}

/// Gives back a backend to which nothing of the session's was sent. One that still has another session's settings is
/// closed: they may be what is in the way.
fn give_back(mut lease: Lease) {
    if !lease.applied.is_empty() {
        return;
    }
    lease.protocol.take_error();
    if let Some(proof) = lease.protocol.quiescent() {
        lease.release(proof);
    }
}
