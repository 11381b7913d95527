//! Where the primary's WAL is and what each replica has replayed, as often as reads need to know: not at all while nobody
//! reads on replicas, and not more often than the configuration allows while somebody does.
//!
//! The primary is asked when a table was stamped, or a read waits, since it was asked last. A replica is asked until it has
//! replayed the newest sample, and otherwise now and then, so that one that hangs is noticed. The questions are those of
//! the health check, on its connections.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until, timeout};

use super::{
    check::Outcome,
    monitor::{Health, Role, ServerHealth, all},
};
use crate::backend::Identity;

/// A replica that is read from is asked at least so often.
const HEARTBEAT: Duration = Duration::from_millis(300);

/// A replica that does not answer within this is not read from until it does.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

impl Health {
    /// Follows the positions of the primary and its replicas, asking each at most once in `interval`.
    pub(super) async fn follow_positions(&self, identity: &Arc<Identity>, interval: Duration) {
        if !self.servers.iter().any(|server| server.role == Role::Replica) {
            return;
        }
        let followed = self.servers.iter().filter(|server| server.role != Role::Other);
        all(followed.map(|server| Box::pin(server.follow(identity, interval))).collect()).await;
    }
}

impl ServerHealth {
    async fn follow(&self, identity: &Arc<Identity>, interval: Duration) {
        let mut asked_at = Instant::now();
        loop {
            self.wait_until_wanted(asked_at, interval).await;
            asked_at = Instant::now();
            self.ask_position(identity).await;
            if self.role == Role::Primary {
                self.causal.stamps.end_doubts(std::time::Instant::now());
            }
        }
    }

    /// Waits until there is something to ask, and the last question is long enough ago.
    async fn wait_until_wanted(&self, asked_at: Instant, interval: Duration) {
        sleep_until(asked_at + interval).await;
        loop {
            if self.reads().is_in_doubt() {
                return;
            }
            let woken = self.causal.woken();
            if self.causal.is_read() {
                let beats = self.role == Role::Replica && asked_at.elapsed() >= HEARTBEAT;
                if beats || self.is_wanted() {
                    return;
                }
                // Stamps wake nobody: that would cost those who write.
                let _ = timeout(interval, woken).await;
            } else {
                woken.await;
            }
        }
    }

    fn is_wanted(&self) -> bool {
        match self.role {
            Role::Primary => self.causal.needs_sample(),
            _ => self.reads().replayed() < self.causal.newest() || self.reads().is_to_be_asked(),
        }
    }

    async fn ask_position(&self, identity: &Arc<Identity>) {
        let asked = timeout(ANSWER_TIMEOUT, async {
            let mut own = self.own.lock().await;
            if own.is_open() {
                own.ask(&self.members[0], identity, false, &self.causal.stamps, ANSWER_TIMEOUT).await
            } else {
                Outcome::NoPlace
            }
        });
        match asked.await {
            Ok(Outcome::Answered(status)) => return self.note_reached(status),
            Ok(Outcome::NoPlace) => {
                // The health check has no connection of its own, or is about to make one.
                if let Ok(Some(Ok(status))) = timeout(ANSWER_TIMEOUT, self.ask_in_pool(identity)).await {
                    return self.note_reached(status);
                }
            }
            Ok(Outcome::Overdue(_)) | Err(_) => return self.note_silent(),
            // What this says of the server is the health check's to find out.
            Ok(Outcome::Failed(_) | Outcome::Unreachable(_)) => {}
        }
        if self.reads().is_in_doubt() {
            // It was silent before it was gone: nobody waits for it any more, nor asks again and again.
            self.note_silent();
        }
    }
}
