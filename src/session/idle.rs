//! The timeouts of an idle session, while it holds no backend: a server would end its connection, and cannot.

use std::{future::poll_fn, time::Duration};

use super::{Ended, Session, relay::Moved};
use crate::wire::{TxStatus, read::ErrorFields};

impl Session {
    /// How long the session may idle as it stands, by its own settings: what it has set, in milliseconds, as the server
    /// lists it.
    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        if self.hold.has_backend() || !self.own.settings.ends_idle() {
            return None;
        }
        let milliseconds = self.own.settings.get(self.idle_setting())?.parse().ok()?;
        (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
    }

    fn idle_setting(&self) -> &'static str {
        if self.status() == TxStatus::Idle {
            "idle_session_timeout"
        } else {
            "idle_in_transaction_session_timeout"
        }
    }

    /// Waits for a request until then; the session ends as a server ends it (`ProcessInterrupts` in postgres.c).
    pub(super) async fn wait_idle(&mut self, limit: Duration) -> Result<Moved, Ended> {
        // Cancel safe: what was moved is in the session.
        let waited = tokio::time::timeout(limit, poll_fn(|cx| self.poll_wait(cx))).await;
        if let Ok(moved) = waited {
            return moved;
        }
        let (code, what) = if self.status() == TxStatus::Idle {
            ("57P05", "idle-session")
        } else {
            ("25P03", "idle-in-transaction")
        };
        Err(Ended::ByServer(Box::new(ErrorFields {
            severity: "FATAL".to_owned(),
            code: code.to_owned(),
            message: format!("terminating connection due to {what} timeout"),
            ..ErrorFields::default()
        })))
    }
}
