//! The connection of its own on which a server is asked how it is.
//!
//! It is kept open, so that it hangs when open connections hang, though new ones could be made; and a question that is
//! not answered in time stays asked, so that its answer tells when the server goes on. It takes a place at the server
//! beside those of the pools, if the server's bound has one more than its pools may take.
//!
//! One question serves all who want to know something of a server: whether it lives, what it is, and where its WAL is.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::{
    backend::{
        Backend, Identity, Server,
        connect_error::ConnectError,
        search::{connect, read_timeline},
    },
    causal::{
        samples::{end_of_record, read_position},
        stamps::Stamps,
    },
    pool::{CheckPlace, ServerPool},
    threads::Home,
    wire::{message, read::ErrorFields},
};

/// Whether the server is in recovery; where its WAL is: as far as it has been written, or replayed; the timeline, in
/// hexadecimal for a primary; the sizes of pages and segments; and of which cluster it is. A role that may see it is told which timeline a
/// replica receives; any other one, which it has come to with its last restartpoint.
const QUESTION: &str = "SELECT r, \
     CASE WHEN r THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END, \
     CASE WHEN r THEN GREATEST((SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver LIMIT 1), \
     (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
     (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))::pg_catalog.text \
     ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END, \
     pg_catalog.current_setting('wal_block_size'), \
     pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')), \
     (SELECT system_identifier FROM pg_catalog.pg_control_system()) \
     FROM (SELECT pg_catalog.pg_is_in_recovery()) AS f (r)";

/// What any server can answer.
const PLAIN_QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// The name of the connection in `pg_stat_activity`.
const APPLICATION_NAME: &str = "bulkhead health check";

/// A server that has had no place for so long is tried again, if nobody waits for one.
const YIELDS_FOR: Duration = Duration::from_secs(60);

/// The outcome of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server has no place for a connection beside those of the pools.
    NoPlace,
    /// The server has answered.
    Answered(Status),
    /// The server has answered with an error, or not as it should.
    Failed(String),
    /// No connection could be made.
    Unreachable(ConnectError),
    /// It has not answered yet, and was asked then.
    Overdue(Instant),
}

/// What a server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Whether it is in recovery.
    pub(super) in_recovery: bool,
    /// The timeline that it writes to, or follows; `None` if it does not tell.
    pub(super) timeline: Option<u32>,
    /// The end of the last record that it has written, or replayed.
    pub(super) position: Option<u64>,
    /// The cluster that it is of: a primary, its replicas, and nobody else (`system_identifier`).
    pub(super) cluster: Option<u64>,
    /// The time by the clock of samples when it was asked.
    pub(super) time: u64,
    /// Which connection it was asked on.
    pub(super) connection: u64,
}

/// The connection of one server.
#[derive(Debug, Default)]
pub(super) struct Check {
    open: Option<Open>,
}

/// An open connection.
struct Open {
    /// How the server is reached; in another way, it is another connection.
    server: Arc<Server>,
    /// The identity that it has logged in as.
    identity: Arc<Identity>,
    /// The turn of the host that it is connected to.
    turn: u32,
    /// What it is called differs from what sessions' connections are called.
    own: Arc<Identity>,
    talk: Talk,
    /// It cannot answer all that is asked.
    is_plain: Arc<AtomicBool>,
    _place: CheckPlace,
}

enum Talk {
    Idle(Box<Backend>),
    Asked { since: Instant, question: Question },
}

/// A question under way; with its answer the connection comes back, if it is still of use.
type Question = Pin<Box<dyn Future<Output = (Option<Box<Backend>>, Result<Status, String>)> + Send>>;

impl Check {
    /// Asks the server, or goes on waiting for its answer. Returns after `limit` at the latest, counted from the
    /// question; connecting takes as long at most. `others_wait` for a connection.
    ///
    /// Cancel safe: a question stays asked.
    pub(super) async fn ask(
        &mut self,
        member: &ServerPool,
        identity: &Arc<Identity>,
        others_wait: bool,
        stamps: &Stamps,
        limit: Duration,
    ) -> Outcome {
        let server = member.server();
        let yields = member.gate().full_for().is_some_and(|(ago, _)| others_wait || ago < YIELDS_FOR);
        let is_asked = self.open.as_ref().is_some_and(|open| matches!(open.talk, Talk::Asked { .. }));
        if !member.has_check_place() || (yields && !is_asked) {
            self.close();
            return Outcome::NoPlace;
        }
        if self.open.as_ref().is_some_and(|open| !open.is_of_use(&server, identity)) {
            self.close();
        }
        let was_open = self.open.is_some();
        match self.ask_once(member, &server, identity, stamps, limit).await {
            // It may have been closed long ago, and for no fault of the server's as it is now.
            Outcome::Failed(_) if was_open && self.open.is_none() => {
                self.ask_once(member, &server, identity, stamps, limit).await
            }
            outcome => outcome,
        }
    }

    async fn ask_once(
        &mut self,
        member: &ServerPool,
        server: &Arc<Server>,
        identity: &Arc<Identity>,
        stamps: &Stamps,
        limit: Duration,
    ) -> Outcome {
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let Some(place) = member.take_check_place() else { return Outcome::NoPlace };
                match Open::connect(server, identity, place, limit).await {
                    Ok(open) => {
                        if member.gate().succeeded() {
                            tracing::info!(server = %server.name, "the server can be reached again");
                        }
                        none.insert(open)
                    }
                    Err(error) => return Outcome::Unreachable(error),
                }
            }
        };
        if let Talk::Idle(_) = open.talk {
            open.begin(stamps.tick());
        }
        let Talk::Asked { since, question } = &mut open.talk else { unreachable!("it has just been asked") };
        let since = *since;
        let Ok((backend, answer)) = timeout_at(since + limit, question).await else {
            return Outcome::Overdue(since);
        };
        match backend {
            Some(backend) => open.talk = Talk::Idle(backend),
            None => self.open = None,
        }
        answer.map_or_else(Outcome::Failed, Outcome::Answered)
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Closes the connection, and gives its place up.
    pub(super) fn close(&mut self) {
        self.open = None;
    }
}

impl Open {
    async fn connect(
        server: &Arc<Server>,
        identity: &Arc<Identity>,
        place: CheckPlace,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let own = Identity::new(
            identity.database.clone(),
            identity.user.clone(),
            (*identity.credentials()).clone(),
        );
        let name = ("application_name".to_owned(), APPLICATION_NAME.to_owned());
        let own = Arc::new(own.with_startup(vec![name]));
        let connecting = connect(server, &own, Home(0), limit);
        let backend = timeout(limit, connecting).await.unwrap_or(Err(ConnectError::TimedOut(limit)))?;
        Ok(Self {
            server: Arc::clone(server),
            identity: Arc::clone(identity),
            turn: backend.place.turn,
            own,
            talk: Talk::Idle(backend),
            is_plain: Arc::default(),
            _place: place,
        })
    }

    /// Whether it is what would be connected today.
    fn is_of_use(&self, server: &Arc<Server>, identity: &Arc<Identity>) -> bool {
        let fits = Arc::ptr_eq(&self.server, server)
            && Arc::ptr_eq(&self.identity, identity)
            && identity.credentials().secret.as_ref().map(Arc::as_ptr)
                == self.own.credentials().secret.as_ref().map(Arc::as_ptr)
            && self.turn == server.in_use.turn();
        fits && match &self.talk {
            Talk::Idle(backend) => !backend.has_changed_sides(),
            Talk::Asked { .. } => true,
        }
    }

    fn begin(&mut self, time: u64) {
        // The place of the moment in between is never looked at.
        let waits = Box::pin(std::future::pending());
        let before =
            std::mem::replace(&mut self.talk, Talk::Asked { since: Instant::now(), question: waits });
        if let Talk::Idle(mut backend) = before {
            let is_plain = Arc::clone(&self.is_plain);
            let question = Box::pin(async move {
                let answer = ask(&mut backend, time, &is_plain).await;
                (backend.protocol.quiescent().is_some().then_some(backend), answer)
            });
            self.talk = Talk::Asked { since: Instant::now(), question };
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Talk::Idle(backend) = &mut self.talk {
            // It is closed all the same.
            let _ = backend.socket.send_now(&message::TERMINATE);
        }
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("server", &self.server.name).finish_non_exhaustive()
    }
}

/// Asks the server how it is, at `time` by the clock of samples.
/// Once it has turned out that it cannot answer all, `is_plain`, it is asked what any server can answer.
pub(super) async fn ask(backend: &mut Backend, time: u64, is_plain: &AtomicBool) -> Result<Status, String> {
    let question = if is_plain.load(Ordering::Relaxed) { PLAIN_QUESTION } else { QUESTION };
    let mut answer = backend.ask(question).await.map_err(|broken| broken.to_string())?;
    // Not every server has all of these functions, and not every role may call them.
    let lacks_rights = |error: &ErrorFields| error.code.starts_with("42") || error.code.starts_with("0A");
    if let Some(error) = answer.error.take_if(|error| lacks_rights(error)) {
        is_plain.store(true, Ordering::Relaxed);
        tracing::warn!(server = %backend.server.name, %error, "the server does not tell where its WAL is");
        answer = backend.ask(PLAIN_QUESTION).await.map_err(|broken| broken.to_string())?;
    }
    if let Some(error) = answer.error {
        return Err(error.to_string());
    }
    let row = answer.rows.first().map(Vec::as_slice).unwrap_or_default();
    let column = |at: usize| row.get(at).and_then(|value| value.as_deref());
    let in_recovery = match column(0) {
        Some("t") => true,
        Some("f") => false,
        other => return Err(format!("it answered {other:?} to {PLAIN_QUESTION}")),
    };
    let timeline = if in_recovery {
        column(2).and_then(|timeline| timeline.parse().ok())
    } else {
        read_timeline(column(2))
    };
    if !in_recovery {
        backend.server.in_use.note_timeline(backend.place, timeline);
    }
    let size = |at: usize| column(at).and_then(|size| size.parse::<u64>().ok()).filter(|size| *size > 0);
    let position = column(1).and_then(read_position);
    let position = match (position, size(3), size(4)) {
        (Some(position), Some(block), Some(segment)) if !in_recovery => {
            Some(end_of_record(position, block, segment))
        }
        (position, ..) => position,
    };
    let cluster = size(5);
    Ok(Status { in_recovery, timeline, position, cluster, time, connection: backend.id.get() })
}
