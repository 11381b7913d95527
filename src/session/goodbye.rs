//! The end of a session: what its client is told, who it was, for the log, and what becomes of its backend. What still runs
//! when the client goes is `orphan.rs`'s, a backend that is handed back, `pins.rs`'s.

use std::{future::poll_fn, time::Duration};

use super::{
    Ended, PinnedIdle, Session,
    reply::{self, Reply},
};

/// A client that is slow to take what is left for it, such as why it is disconnected, has this long.
const LINGER: Duration = Duration::from_secs(5);

impl Session {
    /// The session is over: its client is told why, and what it held is given back or closed.
    pub(super) async fn end(&mut self, ended: Ended) {
        self.say_goodbye(&ended);
        drop(self.part_beside());
        match ended {
            Ended::ByClient => self.hand_back().await,
            // Nobody is there to be told; the backend is closed with the session.
            Ended::ClientIo(_) => {}
            _ => self.linger().await,
        }
    }

    /// Tells the client why, as far as there is something to tell.
    fn say_goodbye(&mut self, ended: &Ended) {
        let reply = match ended {
            Ended::ByClient | Ended::ClientIo(_) | Ended::Amid(_) => None,
            Ended::Shutdown => Some(reply::shutting_down()),
            Ended::SlowListener(limit_bytes) => Some(reply::slow_listener(*limit_bytes)),
            Ended::NoRoom(limit_bytes) => Some(reply::no_room(*limit_bytes)),
            Ended::ListenerLost => Some(reply::listener_lost()),
            Ended::PinnedIdle(pinned) => {
                let PinnedIdle { pool, reason, idle, is_over_bound } = &**pinned;
                Some(reply::pinned_idle(pool, reason, *idle, *is_over_bound))
            }
            Ended::Orphaned(limit) => Some(reply::orphaned(*limit)),
            Ended::Protocol(what) => Some(reply::protocol_violation(what)),
            Ended::AmidCopy(tag) => {
                reply::unexpected_in_copy(*tag).error(&mut self.client.outbox);
                Some(reply::lost_synchronization())
            }
            Ended::Backend(broken) => Some(reply::lost(broken)),
            Ended::ByServer(fields) => Some(Reply::from_server(fields)),
        };
        self.log_end(ended);
        let amid = self.hold.backend().is_some_and(|leased| leased.protocol.is_amid_message());
        if let Some(reply) = reply.filter(|_| !amid) {
            reply.fatal(&mut self.client.outbox);
            let _ = self.flush_now();
        }
    }

    /// Names a client that was disconnected because of what it did, or did not do. Once, since its session is over.
    pub(super) fn log_end(&self, ended: &Ended) {
        let why = match ended {
            Ended::SlowListener(_) => "it does not take its notifications",
            Ended::NoRoom(_) => "the unfinished requests of all clients take limits.request_buffer_total",
            _ => {
                self.log_work(ended);
                return;
            }
        };
        self.log_disconnected(why);
    }

    /// Names a client that is given up.
    pub(super) fn log_disconnected(&self, why: &str) {
        let Some(left_out) = self.view.snapshot.disconnect_log.admits() else { return };
        let application = self.own.settings.get("application_name").unwrap_or_default();
        let (user, database) = (&self.who.identity.user, &self.who.identity.database);
        tracing::warn!(
            peer = self.client.socket.peer(),
            user,
            database,
            application,
            why,
            left_out,
            "a client is disconnected"
        );
    }

    /// Gives the client some time to take what is left for it. Its backend is given up before that.
    pub(super) async fn linger(&mut self) {
        drop(self.part());
        self.own.listening = None;
        if self.client.outbox.is_empty() {
            return;
        }
        // A client that does not take it is closed all the same.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| self.poll_flush(cx))).await;
    }
}
