//! The end of a session that did not end by its client's wish: who it was, for the log, and the time to be told.

use std::{future::poll_fn, time::Duration};

use super::{Ended, Session};

/// A client that is slow to take what is left for it, such as why it is disconnected, has this long.
const LINGER: Duration = Duration::from_secs(5);

impl Session {
    /// Names a client that was disconnected because of what it did, or did not do. Once, since its session is over.
    pub(super) fn log_end(&self, ended: &Ended) {
        let why = match ended {
            Ended::SlowListener(_) => "it does not take its notifications",
            Ended::NoRoom(_) => "the unfinished requests of all clients take limits.request_buffer_total",
            _ => {
                tracing::debug!(user = self.identity.user, %ended, "a session ended");
                return;
            }
        };
        self.log_disconnected(why);
    }

    /// Names a client that is given up.
    pub(super) fn log_disconnected(&self, why: &str) {
        let application = self.settings.get("application_name").unwrap_or_default();
        let (user, database) = (&self.identity.user, &self.identity.database);
        tracing::warn!(
            peer = self.socket.peer(),
            user,
            database,
            application,
            why,
            "a client is disconnected"
        );
    }

    /// Gives the client some time to take what is left for it. Its backend is given up before that.
    pub(super) async fn linger(&mut self) {
        drop(self.part());
        self.listening = None;
        if self.outbox.is_empty() {
            return;
        }
        // A client that does not take it is closed all the same.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| self.poll_flush(cx))).await;
    }
}
