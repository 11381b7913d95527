//! The connection of its own on which a server is asked how it is.
//!
//! It is kept open, so that it hangs when open connections hang, though new ones could be made; and a question that is
//! not answered in time stays asked, so that its answer tells when the server goes on. It takes a place at the server
//! beside those of the pools, if the server's bound has one more than its pools may take.

use std::{fmt, pin::Pin, sync::Arc};

use tokio::time::{Duration, Instant, timeout, timeout_at};

use crate::{
    backend::{
        Backend, Identity, Server,
        connect_error::ConnectError,
        search::{TIMELINE, connect, read_timeline},
    },
    pool::{CheckPlace, ServerPool},
    threads::Home,
    wire::message,
};

const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery()";

/// The name of the connection in `pg_stat_activity`.
const APPLICATION_NAME: &str = "bulkhead health check";

/// A server that has had no place for so long is tried again, if nobody waits for one.
const YIELDS_FOR: Duration = Duration::from_secs(60);

/// The outcome of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The server has no place for a connection beside those of the pools.
    NoPlace,
    /// The server has answered whether it is in recovery.
    Answered(bool),
    /// The server has answered with an error, or not as it should.
    Failed(String),
    /// No connection could be made.
    Unreachable(ConnectError),
    /// It has not answered yet, and was asked then.
    Overdue(Instant),
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
    _place: CheckPlace,
}

enum Talk {
    Idle(Box<Backend>),
    Asked { since: Instant, question: Question },
}

/// A question under way; with its answer the connection comes back, if it is still of use.
type Question = Pin<Box<dyn Future<Output = (Option<Box<Backend>>, Result<bool, String>)> + Send>>;

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
        match self.ask_once(member, &server, identity, limit).await {
            // It may have been closed long ago, and for no fault of the server's as it is now.
            Outcome::Failed(_) if was_open && self.open.is_none() => {
                self.ask_once(member, &server, identity, limit).await
            }
            outcome => outcome,
        }
    }

    async fn ask_once(
        &mut self,
        member: &ServerPool,
        server: &Arc<Server>,
        identity: &Arc<Identity>,
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
            open.begin();
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

    fn begin(&mut self) {
        // The place of the moment in between is never looked at.
        let waits = Box::pin(std::future::pending());
        let before =
            std::mem::replace(&mut self.talk, Talk::Asked { since: Instant::now(), question: waits });
        if let Talk::Idle(mut backend) = before {
            let question = Box::pin(async move {
                let answer = ask(&mut backend).await;
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

/// Whether the server is in recovery.
pub(super) async fn ask(backend: &mut Backend) -> Result<bool, String> {
    let has_several = backend.server.hosts.len() > 1;
    let question = if has_several { format!("{QUESTION}, {TIMELINE}") } else { QUESTION.to_owned() };
    let answer = backend.ask(&question).await.map_err(|broken| broken.to_string())?;
    if let Some([_, timeline]) = answer.rows.first().map(Vec::as_slice) {
        backend.server.in_use.note_timeline(backend.place, read_timeline(timeline.as_deref()));
    }
    if let Some(error) = answer.error {
        return Err(error.to_string());
    }
    match answer.rows.first().and_then(|row| row.first()?.as_deref()) {
        Some("t") => Ok(true),
        Some("f") => Ok(false),
        other => Err(format!("it answered {other:?} to {QUESTION}")),
    }
}
