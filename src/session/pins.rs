//! What ties a session to its backend, and what becomes of both: the place among the pool's pins (of which
//! `pool/pins.rs` says who waits for one and when), session mode, the
//! end of pinned sessions that idle while others wait, and the reset of a backend that was one session's own.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Ended, Own, PinnedIdle, Session, Stop, View, hold::Leased, kinds, relay::Moved, reply, start::Who,
    transaction::LocalTransaction,
};
use crate::{
    backend::probe::PinReason,
    pool::{PinCheckout, PinPlace, PinsFull, Refusal},
    route::PoolId,
    shared::counters::{Metrics, SessionPin},
    sql::Verdict,
    wire::TxStatus,
};

/// A session whose pin is above the bound makes room for those who wait when it has idled for so long.
const OVER_BOUND_IDLE: Duration = Duration::from_secs(5);

/// How often a pinned session that idles looks whether others wait.
const STARVED_ROUND: Duration = Duration::from_secs(1);

/// Whether a lease of this pool is the session's own until it disconnects. Replicas are kept only by who asked for them: a
/// session that began by reading may want to write.
pub(super) fn keeps(pool: PoolId, own: &Own, view: &View, who: &Who) -> bool {
    let asked = own.in_session_mode || view.snapshot.pool(pool).keeps_sessions;
    asked && (Some(pool) != view.snapshot.routes.replicas || who.bound == Some(pool))
}

impl Leased {
    /// Pins the session, pins it by another reason, or unpins it.
    pub(super) fn set_pin(&mut self, metrics: &Arc<Metrics>, reason: Option<PinReason>) {
        let reason = reason.or(self.is_kept.then_some(PinReason::SessionMode));
        self.cancel.doing.keeps(reason);
        match reason {
            Some(reason) if self.is_pinned_by(reason) => {}
            Some(reason) => {
                self.pin_anyway();
                self.pin = Some(Box::new(SessionPin::new(metrics, self.pool(), reason)));
            }
            None => {
                self.pin = None;
                self.unpin();
            }
        }
    }
}

impl Session {
    /// Why a request that begins a lease will keep it beyond its transaction, as far as that is seen. Within a
    /// transaction it is not: what it creates it may drop again.
    pub(crate) fn foreseen_pin(&self, verdict: &Verdict, pool: PoolId) -> Option<PinReason> {
        if keeps(pool, &self.own, &self.view, &self.who) {
            return Some(PinReason::SessionMode);
        }
        let effects = verdict.effects;
        if !matches!(self.hold.transaction, LocalTransaction::No) || verdict.is_unread() {
            return None;
        }
        kinds::foreseen_pin(effects)
            .or_else(|| self.own.calls_sequences(verdict).then_some(PinReason::Sequences))
    }

    /// Takes a place among the pool's pins for the lease that comes next, and waits for one as long as for a connection,
    /// while it holds nothing that another one could wait for. Without one the request is refused before it runs.
    pub(crate) async fn reserve_pin(
        &mut self,
        reason: PinReason,
        pool: PoolId,
    ) -> Result<Option<PinPlace>, Stop> {
        let snapshot = Arc::clone(&self.view.snapshot);
        let pool = snapshot.pool(pool);
        // Of a pool of which no server can be reached the checkout tells.
        let Some(member) = pool.choose() else { return Ok(None) };
        let full =
            |full: PinsFull, waited| reply::pins_full(&pool.name, full.max_pinned, reason.label(), waited);
        let waiting = match member.reserve_pin() {
            PinCheckout::Place(place) => return Ok(Some(place)),
            PinCheckout::Full(none) => return Err(full(none, None).into()),
            PinCheckout::Wait(waiting) => waiting,
        };
        let limit = member.limits().wait_timeout;
        match self.wait(std::pin::pin!(tokio::time::timeout(limit, waiting))).await? {
            None => Err(reply::refused(&pool.name, &Refusal::Cancelled).into()),
            Some(Err(_)) => Err(full(member.refuse_pin(), Some(limit)).into()),
            Some(Ok(place)) => Ok(Some(place)),
        }
    }

    /// `pools.*.pinned_idle_timeout`, where it concerns the session as it stands.
    pub(crate) fn pinned_idle_timeout(&self) -> Option<Duration> {
        let limit = self.hold.pinned().map(idle_limit).min()?;
        (limit < Duration::MAX && self.idles()).then_some(limit)
    }

    fn idles(&self) -> bool {
        self.hold.is_quiescent()
            && self.status() == TxStatus::Idle
            && self.client.inbox.is_empty()
            && self.client.streaming == 0
    }

    /// Waits for a request of a pinned session. One that idles beyond the limit is ended, but only if every
    /// connection of its pool is taken and others wait: as soon as one has ended, the next one is left alone.
    pub(crate) async fn wait_pinned(&mut self, limit: Duration) -> Result<Moved, Ended> {
        let began = Instant::now();
        let mut pause = limit;
        loop {
            tokio::select! {
                biased;
                // Cancel safe: what was moved is in the session, and a move that is dropped has moved nothing more.
                moved = poll_fn(|cx| self.poll_wait(cx)) => return moved,
                () = tokio::time::sleep(pause) => {}
            }
            pause = STARVED_ROUND.min(limit);
            if !self.idles() {
                continue;
            }
            for leased in self.hold.pinned().filter(|leased| began.elapsed() >= idle_limit(leased)) {
                let Some(pin) = &leased.pin else { continue };
                let is_over_bound = leased.is_pinned_over_bound();
                // One that is above the bound would give its place to nobody.
                let is_wanted = leased.pool().is_starved() || (!is_over_bound && leased.pool().wants_pins());
                if !is_wanted {
                    continue;
                }
                let limit = idle_limit(leased);
                let (pool, reason) = (leased.pool().name.clone(), pin.reason.label());
                if let Some(left_out) = self.view.snapshot.disconnect_log.admits() {
                    tracing::warn!(
                        pool,
                        reason,
                        ?limit,
                        is_over_bound,
                        left_out,
                        "a pinned session is ended: it idles while others wait"
                    );
                }
                return Err(Ended::PinnedIdle(
                    PinnedIdle { pool, reason, idle: limit, is_over_bound }.into(),
                ));
            }
        }
    }

    /// A backend that was the session's own is cleaned, as PgBouncer's `server_reset_query` does, for the next one.
    /// Where that is not possible, or not enough, it is closed with its lease.
    pub(crate) async fn hand_back(&mut self) {
        let outlives = self.view.catalog.load().outlives_discard();
        let Some(mut leased) = self.part() else { return };
        let pinned = leased.pin.as_ref().map(|pin| pin.reason);
        let lasting = kinds::outlives_reset(leased.left.effects, pinned) || (outlives && leased.is_suspect);
        let clean =
            leased.protocol.quiescent().is_some() && leased.unsent.is_empty() && !leased.cancel.was_hit();
        if !leased.is_kept || lasting || self.client.streaming > 0 || !clean {
            return;
        }
        if leased.reset().await.is_ok()
            && let Some(proof) = leased.protocol.quiescent()
        {
            leased.into_lease().release(proof);
        }
    }
}

/// How long a pinned backend may idle while others wait; [`Duration::MAX`] for as long as it likes.
fn idle_limit(leased: &Leased) -> Duration {
    let limit = leased.pool().limits().pinned_idle_timeout;
    let limit = if limit.is_zero() { Duration::MAX } else { limit };
    if leased.is_pinned_over_bound() { limit.min(OVER_BOUND_IDLE) } else { limit }
}
