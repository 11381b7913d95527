//! Asking a server again and again how it is, and what follows when it does not answer.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep_until, timeout};

use super::{
    check::{self, Check, Outcome, Status},
    monitor::{Known, Role, ServerHealth},
};
use crate::{
    backend::{Identity, connect_error::ConnectError, dial, search::look_around},
    pool::{Refusal, ServerPool, Wants},
    threads::Home,
};

/// How often each server is asked: a load balancer hears of a change about as often.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// How soon a server is asked again that could not be asked at all yet: the program is not ready before.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// A server that takes longer to say whether it is in recovery is not well. As long as the default `connect_timeout`.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A question that has not been answered for so long is given up, if others are answered.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// How often the hosts that are not in use are looked at.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(4);

/// Such a host is there within this, or not at all.
const LOOK_AROUND_TIMEOUT: Duration = Duration::from_secs(1);

impl ServerHealth {
    pub(super) async fn watch(&self, identity: &Arc<Identity>) {
        loop {
            let began = Instant::now();
            let is_overdue = self.check(identity).await;
            let gate = self.members[0].gate();
            // At the start the places may be taken by whoever came first.
            let is_new = self.known() == Known::Unchecked && gate.full_for().is_none();
            let pause = if is_new { FIRST_RETRY } else { CHECK_EVERY };
            let next = began + pause;
            // The same question is overdue at once then: until it is looked at again the server must have had time to be heard.
            let next = if is_overdue { next.max(Instant::now() + CHECK_TIMEOUT / 2) } else { next };
            tokio::select! {
                // Cancel safe, both. Pools that want a place more urgently get it now.
                () = sleep_until(next) => {}
                () = gate.filled() => {}
            }
        }
    }

    /// Asks once. True if the question on the connection of its own is not answered in time, and may be still.
    async fn check(&self, identity: &Arc<Identity>) -> bool {
        let mut own = self.own.lock().await;
        let halfway = Instant::now() + CHECK_TIMEOUT / 2;
        let outcome = {
            let others_wait = self.members.iter().any(|member| member.figures().waiting > 0);
            let stamps = &self.causal.stamps;
            let mut asked = Box::pin(own.ask(&self.members[0], identity, others_wait, stamps, CHECK_TIMEOUT));
            tokio::select! {
                // Cancel safe, as it says; it is not dropped in between.
                outcome = &mut asked => outcome,
                () = sleep_until(halfway) => {
                    // What is received from now on was sent when the question had been asked for a while.
                    self.note_received();
                    asked.await
                }
            }
        };
        let is_overdue = matches!(outcome, Outcome::Overdue(_));
        match outcome {
            Outcome::Answered(status) => self.note_reached(status),
            Outcome::Failed(error) => self.note(Known::Down { error }),
            Outcome::NoPlace => self.check_in_pool(identity).await,
            Outcome::Unreachable(error) => self.note_unreachable(&error, identity).await,
            Outcome::Overdue(since) => self.check_others(&mut own, since, identity).await,
        }
        self.has_own.store(own.is_open(), Ordering::Relaxed);
        drop(own);
        if self.is_time_to_look_around() && !self.members[0].gate().is_down() {
            look_around(&self.members[0].server(), identity, LOOK_AROUND_TIMEOUT).await;
        }
        self.note_received();
        is_overdue
    }

    /// No connection of its own could be made.
    async fn note_unreachable(&self, error: &ConnectError, identity: &Arc<Identity>) {
        let gate = self.members[0].gate();
        let message = error.to_string();
        if error.is_full() {
            // That is an answer. The pools' connections are there to ask on, or tell by what they receive.
            gate.is_full(&message);
            self.check_in_pool(identity).await;
        } else {
            if !error.is_final() && gate.failed(&message) {
                tracing::warn!(server = %self.name, %message, "the server cannot be reached");
            }
            self.note(Known::Down { error: message });
        }
    }

    /// The question on the connection of its own has not been answered in time.
    async fn check_others(&self, own: &mut Check, since: Instant, identity: &Arc<Identity>) {
        let is_long_ago = since.elapsed() > GIVE_UP_AFTER;
        if self.was_heard() {
            if is_long_ago {
                own.close();
            }
            return self.note_alive();
        }
        let in_use: usize = self.members.iter().map(|member| member.figures().leased).sum();
        self.note(Known::Down {
            error: format!(
                "no answer within {CHECK_TIMEOUT:?}; {in_use} connections in use have had nothing since"
            ),
        });
        let asked = timeout(CHECK_TIMEOUT, self.ask_in_pool(identity)).await;
        if let Ok(Some(Ok(status))) = asked
            && (in_use == 0 || is_long_ago)
        {
            // It is that one connection that hangs.
            own.close();
            self.note_reached(status);
        }
    }

    /// Asks where the pools have a place, and looks for signs of life where they have none.
    async fn check_in_pool(&self, identity: &Arc<Identity>) {
        if self.members[0].gate().is_down() {
            // `known` has the pools' own error.
            return;
        }
        match timeout(CHECK_TIMEOUT, self.ask_in_pool(identity)).await {
            Ok(Some(Ok(status))) => self.note_reached(status),
            Ok(Some(Err(error))) => self.note(Known::Down { error }),
            // No place for a question: others have taken them, and wait for their answers, too.
            Ok(None) => self.look_for_life().await,
            Err(_) => self.note(Known::Down { error: format!("no answer within {CHECK_TIMEOUT:?}") }),
        }
    }

    /// Asks on a connection that a pool has a place for. `None` without one.
    pub(super) async fn ask_in_pool(&self, identity: &Arc<Identity>) -> Option<Result<Status, String>> {
        let has_place = |member: &&Arc<ServerPool>| {
            let figures = member.figures();
            let is_full = member.gate().full_for().is_some();
            figures.waiting == 0
                && (figures.idle > 0 || (figures.taken() < figures.max_connections && !is_full))
        };
        let member = self.members.iter().find(has_place)?;
        let wants = Wants { identity, last: None, settings: 0, home: Home(0) };
        match member.lease(&wants).await {
            Ok(mut lease) => {
                let answer = check::ask(&mut lease, self.causal.stamps.tick(), &self.is_plain).await;
                if let Some(proof) = lease.protocol.quiescent() {
                    lease.release(proof);
                }
                Some(answer)
            }
            Err(refusal @ Refusal::Unreachable(_)) => Some(Err(refusal.to_string())),
            // Others were quicker. A server that lets nobody in makes connecting fail, and is down by that.
            Err(_) => None,
        }
    }

    /// Without a place for a question: what the server sends to clients is a sign of life. If it sends nothing, it must
    /// at least answer the door.
    async fn look_for_life(&self) {
        let server = self.members[0].server();
        let was_heard = self.was_heard();
        self.note_received();
        let host = server.in_use.host().and_then(|at| server.hosts.get(at)).or(server.hosts.first());
        let knocked = match host {
            Some(host) if !was_heard => timeout(CHECK_TIMEOUT, dial::knock(&server, host)).await,
            _ => Ok(Ok(())),
        };
        let error = match knocked {
            Ok(Ok(())) => return self.note_alive(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CHECK_TIMEOUT:?}"),
        };
        let busy: usize = self.members.iter().map(|member| member.figures().leased).sum();
        self.note(Known::Down {
            error: format!("{error}; {busy} connections in use have had nothing since"),
        });
    }

    /// Whether it has sent anything since the last check.
    fn was_heard(&self) -> bool {
        self.traffic().received.load(Ordering::Relaxed) != self.received.load(Ordering::Relaxed)
    }

    fn note_received(&self) {
        self.received.store(self.traffic().received.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// It lives; whether it is in recovery is not known anew.
    fn note_alive(&self) {
        let known = match self.lock().known.clone() {
            Known::Unchecked => return,
            up @ Known::Up { .. } => up,
            // Which of both it is shows as soon as there is a place.
            Known::Down { .. } => Known::Up { in_recovery: self.role == Role::Replica },
        };
        self.note(known);
    }

    fn is_time_to_look_around(&self) -> bool {
        let now = Instant::now();
        let mut due = self.looks_around_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = due.is_none_or(|due| due <= now);
        if is_due {
            *due = Some(now + LOOK_AROUND_EVERY);
        }
        is_due
    }
}
