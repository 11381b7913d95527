//! What servers have last said to an identity's login.
//!
//! A client proves itself to us by what we know of its user, and the server may know better: a role that may no
//! longer log in, a password that has changed or is no longer valid, a right to connect that is gone. Only a
//! connection that has just logged in proves that none of this is so.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::wire::read::ErrorFields;

/// A server's answer to a login that was to be proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The login succeeded.
    Proven,
    /// The server refused it.
    Refused(ErrorFields),
    /// The server could not be asked: it cannot be reached, does not answer, or takes no more connections.
    Unknown,
    /// No place was free for a connection.
    NoPlace,
}

/// The last logins of one identity, by server.
#[derive(Debug)]
pub struct Proofs {
    last: Mutex<Vec<Last>>,
    turn: Semaphore,
}

#[derive(Debug)]
struct Last {
    server: String,
    /// When the last login that succeeded began.
    proven: Option<Instant>,
    /// The last outcome, and when it was found.
    found: (Instant, Outcome),
}

impl Default for Proofs {
    fn default() -> Self {
        Self { last: Mutex::default(), turn: Semaphore::new(1) }
    }
}

impl Proofs {
    /// Whether a login at this server has begun less than `within` before `now`, and has succeeded.
    pub fn is_proven(&self, server: &str, within: Duration, now: Instant) -> bool {
        let proven = self.lock().iter().find(|last| last.server == server).and_then(|last| last.proven);
        proven.is_some_and(|at| now.saturating_duration_since(at) < within)
    }

    /// The outcome that was found at `since` or later.
    pub fn found_since(&self, server: &str, since: Instant) -> Option<Outcome> {
        let last = self.lock();
        let (at, outcome) = &last.iter().find(|last| last.server == server)?.found;
        (*at >= since).then(|| outcome.clone())
    }

    /// A login that began at `began` has ended so.
    pub fn note(&self, server: &str, began: Instant, outcome: Outcome) {
        let mut all = self.lock();
        let proven = (outcome == Outcome::Proven).then_some(began);
        let found = (Instant::now(), outcome);
        match all.iter_mut().find(|last| last.server == server) {
            Some(last) => {
                last.proven = last.proven.max(proven);
                last.found = found;
            }
            None => all.push(Last { server: server.to_owned(), proven, found }),
        }
    }

    /// Nothing is proven any more.
    pub fn forget(&self) {
        for last in self.lock().iter_mut() {
            last.proven = None;
        }
    }

    /// The right to ask a server: one login at a time, whose outcome all others that wait for it share.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turn.acquire().await.expect("the semaphore is never closed")
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_counts_from_the_login_s_beginning_and_at_its_server_only() {
        let (proofs, second) = (Proofs::default(), Duration::from_secs(1));
        let began = Instant::now();
        proofs.note("a", began, Outcome::Proven);
        assert!(proofs.is_proven("a", second, began + second / 2));
        assert!(!proofs.is_proven("a", second, began + second));
        assert!(!proofs.is_proven("a", Duration::ZERO, began), "none is young enough");
        assert!(!proofs.is_proven("b", second, began));
        assert_eq!(proofs.found_since("a", began), Some(Outcome::Proven));
        // What could not be asked takes nothing back; what is forgotten was not found again.
        proofs.note("a", began + second, Outcome::Unknown);
        assert!(proofs.is_proven("a", second, began));
        assert_eq!(proofs.found_since("a", began), Some(Outcome::Unknown));
        proofs.forget();
        assert!(!proofs.is_proven("a", second, began));
    }
}
