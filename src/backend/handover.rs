//! Handing a backend from one session to the next. It goes in one of three ways:
//!
//! 1. *Proven clean*: every text since its last known state is proven to leave nothing but what `applied` and
//!    `statements` tell. The next session's settings are applied, and confirmed, before anything of its own is sent.
//! 2. *Reset and confirmed*: something that is not proven ran on it ([`Backend::is_suspect`]). DISCARD ALL comes first.
//! 3. *Closed*: where either of these fails, or takes too long, or where the database has functions whose state DISCARD ALL
//!    does not end (other languages, libraries that are not known).
//!
//! Whatever is ours is answered before the client's request is written, so no fault of ours, or of a client's value, can
//! let that request run under another session's settings. No cancel can reach the backend meanwhile: the session holds
//! it only afterwards.

use std::sync::Arc;

use super::{Backend, Broken, Prepared, Settings};
use crate::wire::read::ErrorFields;

/// Why a backend cannot be handed over.
#[derive(Debug)]
pub enum NotReady {
    /// The connection was lost.
    Broken(Broken),
    /// The reset failed: what another session has left cannot be ended.
    Unclean,
    /// The server does not take what was sent, and has undone it: `applied` still holds.
    Refused(ErrorFields),
}

impl NotReady {
    /// Closes instead of refusing, where no transaction undoes what was sent: whether it was done is not known.
    fn closes(self) -> Self {
        match self {
            Self::Refused(_) => Self::Unclean,
            other => other,
        }
    }
}

impl From<Broken> for NotReady {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// Everything that a session needs of a backend before its request is sent.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent needs")]
pub struct Needs<'a> {
    /// The session's settings.
    pub settings: &'a Arc<Settings>,
    /// Nobody else has used the backend since this session did: what is on it is its own.
    pub is_own: bool,
    /// `currval` and `lastval` must not give what another session has left.
    pub forgets_sequences: bool,
    /// `pg_prepared_statements` must not show what other sessions have prepared: what is to run is not proven not to read
    /// it.
    pub forgets_statements: bool,
    /// What another session has left may outlive DISCARD ALL: the backend is closed rather than reset.
    pub closes: bool,
}

impl Backend {
    /// Whether the session's request may be sent at once.
    pub fn is_ready(&self, needs: Needs<'_>) -> bool {
        (needs.is_own || !self.is_suspect)
            && !needs.forgets_sequences
            && !self.must_forget(needs)
            && (Arc::ptr_eq(&self.applied, needs.settings) || self.applied == *needs.settings)
    }

    /// Makes it so. Dropped halfway, or failed, the backend is of no use.
    pub async fn make_ready(&mut self, needs: Needs<'_>) -> Result<(), NotReady> {
        if self.is_suspect && !needs.is_own {
            if needs.closes {
                return Err(NotReady::Unclean);
            }
            // It is nobody's own from here on: what is refused has perhaps been done in part.
            self.uses = self.uses.wrapping_add(1);
            self.reset().await?;
        }
        if self.must_forget(needs) {
            // No transaction undoes it: by itself, before anything that may fail.
            self.confirm("DEALLOCATE ALL").await.map_err(NotReady::closes)?;
            self.statements.clear();
            self.prepared = Prepared::Nothing;
        }
        if self.applied.get("statement_timeout").is_some() && self.applied != *needs.settings {
            // The former session's own must not end what follows.
            self.confirm("RESET statement_timeout").await?;
            self.applied = Arc::new(self.applied.without(&["statement_timeout"]));
        }
        let mut sql = self.applied.change_to(needs.settings).unwrap_or_default();
        if needs.forgets_sequences {
            sql.insert_str(0, "DISCARD SEQUENCES;");
        }
        if !sql.is_empty() {
            self.confirm(&sql).await?;
        }
        self.applied = Arc::clone(needs.settings);
        Ok(())
    }

    /// Brings it to the state in which it was connected, as far as DISCARD ALL does, with a seed that nobody knows.
    pub async fn reset(&mut self) -> Result<(), NotReady> {
        self.confirm("DISCARD ALL").await?;
        let mut random = [0; 4];
        // Without it what a session has set for `random()` would be known to it still.
        getrandom::fill(&mut random).map_err(|_| NotReady::Unclean)?;
        let seed = f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX);
        self.confirm(&format!("SELECT pg_catalog.setseed({seed:.9}::pg_catalog.float8)")).await?;
        self.statements.clear();
        self.prepared = Prepared::Nothing;
        self.applied = Arc::default();
        self.is_suspect = false;
        Ok(())
    }

    fn must_forget(&self, needs: Needs<'_>) -> bool {
        needs.forgets_statements && self.prepared.taken(needs.is_own) == Prepared::Others
    }

    async fn confirm(&mut self, sql: &str) -> Result<(), NotReady> {
        let answer = self.ask(sql).await?;
        match answer.error {
            // What it has said were its last words, perhaps behind the answer: it is lost, and has refused nothing.
            Some(error) if error.ends_connection() || !self.protocol.is_answered() => {
                Err(self.closed().into())
            }
            Some(error) => Err(NotReady::Refused(error)),
            None => Ok(()),
        }
    }
}
