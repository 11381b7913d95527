//! One connection that listens for all sessions of a database: LISTEN costs a session no backend.
//!
//! A [`Listener`] belongs to a (server, database). It logs in as the first session that listened (any role may
//! listen to any channel), takes one place of that session's pool, is opened by the first LISTEN, and is closed when
//! nobody has listened for a while.
//!
//! # No gap, no duplicate
//!
//! PostgreSQL writes notifications to one queue in the order of their commits, and every listening process reads them
//! in this order. A process is signalled by the one that commits before that one answers its client, and a process
//! that has been signalled tells what is in the queue before its next ReadyForQuery. So a round trip on the shared
//! connection is a *fence*: whatever was committed and acknowledged before the round trip began has been heard when it
//! is over, and has a position at or below the one that [`Listener::subscribe`] and [`Listener::fence`] give.
//!
//! * A session subscribes *before* its LISTEN reaches its own backend. What commits after that is in its mailbox;
//!   what was committed before has a position that the session skips. So nothing is missing from the commit of the
//!   LISTEN on, and nothing is told that had been acknowledged before the LISTEN was sent.
//! * A session that has sent notifications itself waits for a fence before its client gets ReadyForQuery: then its
//!   mailbox has them.
//! * All notifications of one server come by one connection only, so none comes twice, and all in the same order.
//!
//! When the connection is lost, what is committed until another one listens is not heard, and nobody can tell whether
//! anything was. [`OnGap`] says what becomes of the sessions: never is it passed over in silence.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, oneshot};

use super::mailbox::{ListenStats, Mailbox};
use crate::{
    backend::Identity,
    pool::{Refusal, ServerPool},
    sql::quote_name,
    wire::read::ErrorFields,
};

/// The treatment of listening sessions when notifications may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// Their clients are disconnected, as if it had been their own connection.
    Disconnect,
    /// Their clients get a WARNING once the server is listened to again.
    Warn,
}

/// Bounds of listening.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// Bytes of notifications that may wait for one session.
    pub bytes_per_session: usize,
    /// The treatment of sessions that may have missed something.
    pub on_gap: OnGap,
}

/// Why a session cannot listen.
#[derive(Clone, Debug)]
pub enum ListenFailure {
    /// The pool gave no connection.
    Refused(Refusal),
    /// The server refused the LISTEN.
    Server(ErrorFields),
    /// The connection was lost, or did not answer in time.
    Lost,
    /// The connection is being closed, because nobody needed it: ask for another.
    Closed,
}

/// The shared connection of one database.
#[derive(Debug)]
pub struct Listener {
    pub(super) pool: Arc<ServerPool>,
    pub(super) identity: Arc<Identity>,
    /// At the server.
    pub(super) database: String,
    limits: Arc<Mutex<ListenLimits>>,
    pub(super) stats: Arc<ListenStats>,
    mailboxes: AtomicU64,
    state: Mutex<State>,
    /// Tells the task that there is something to do.
    pub(super) work: Notify,
}

pub(super) type Subscribers = HashMap<u64, Arc<Mailbox>, foldhash::fast::RandomState>;
pub(super) type Waiter = oneshot::Sender<Result<u64, ListenFailure>>;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Sessions that listen, by channel.
    pub(super) channels: HashMap<Box<str>, Subscribers, foldhash::fast::RandomState>,
    /// The channels that the connection listens to.
    pub(super) confirmed: HashSet<Box<str>>,
    /// Channels of which these two may differ.
    pub(super) changed: Vec<Box<str>>,
    /// Sessions that wait for the next round trip.
    pub(super) waiters: Vec<Waiter>,
    /// Notifications heard so far.
    pub(super) position: u64,
    /// Whether the connection speaks UTF-8.
    pub(super) is_utf8: bool,
    /// A connection was lost and sessions have not been told yet.
    pub(super) has_gap: bool,
    /// No connection will be made any more.
    pub(super) closed: bool,
}

impl Listener {
    /// One that nobody uses yet; [`Listener::run`] is its task.
    pub(super) fn new(
        pool: &Arc<ServerPool>,
        identity: &Arc<Identity>,
        database: String,
        limits: &Arc<Mutex<ListenLimits>>,
        stats: &Arc<ListenStats>,
    ) -> Self {
        Self {
            pool: Arc::clone(pool),
            identity: Arc::clone(identity),
            database,
            limits: Arc::clone(limits),
            stats: Arc::clone(stats),
            mailboxes: AtomicU64::new(0),
            state: Mutex::default(),
            work: Notify::new(),
        }
    }

    /// Whether it listens to the pool's server.
    pub fn is_on_server_of(&self, pool: &ServerPool) -> bool {
        self.pool.is_on_server_of(pool)
    }

    /// Whether payloads come in UTF-8; known once a subscription has succeeded.
    pub fn is_utf8(&self) -> bool {
        self.lock().is_utf8
    }

    /// A mailbox for one session.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        let id = self.mailboxes.fetch_add(1, Ordering::Relaxed);
        Arc::new(Mailbox::new(id, self.limits().bytes_per_session, Arc::clone(&self.stats)))
    }

    /// Puts notifications of these channels into the mailbox, and returns once the server is listened to: the position
    /// up to which notifications were committed before that.
    ///
    /// Dropped or failed, the subscription stays until [`Listener::unsubscribe`].
    pub async fn subscribe(
        &self,
        channels: &[Box<str>],
        mailbox: &Arc<Mailbox>,
    ) -> Result<u64, ListenFailure> {
        self.round_trip(|state| {
            for channel in channels {
                let subscribers = state.channels.entry(channel.clone()).or_default();
                subscribers.insert(mailbox.id, Arc::clone(mailbox));
                // Also if it is listened to now: it may be given up at this very moment.
                state.changed.push(channel.clone());
            }
        })
        .await
    }

    /// The position up to which there are at least all notifications whose commit had been acknowledged when this was
    /// called.
    pub async fn fence(&self) -> Result<u64, ListenFailure> {
        self.round_trip(|_| {}).await
    }

    /// Ends subscriptions.
    pub fn unsubscribe<'c>(&self, channels: impl IntoIterator<Item = &'c str>, mailbox: &Mailbox) {
        let mut state = self.lock();
        for channel in channels {
            let Some(subscribers) = state.channels.get_mut(channel) else { continue };
            subscribers.remove(&mailbox.id);
            if subscribers.is_empty() {
                state.channels.remove(channel);
                state.changed.push(channel.into());
            }
        }
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn limits(&self) -> ListenLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn round_trip(&self, change: impl FnOnce(&mut State)) -> Result<u64, ListenFailure> {
        let done = {
            let mut state = self.lock();
            if state.closed {
                return Err(ListenFailure::Closed);
            }
            change(&mut state);
            let (waiter, done) = oneshot::channel();
            state.waiters.push(waiter);
            done
        };
        self.work.notify_one();
        // The task answers within its own bounds: the pool's for a connection, and those of this file.
        done.await.unwrap_or(Err(ListenFailure::Lost))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everybody's mailbox, once.
    pub(super) fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        let all: HashMap<u64, &Mailbox> =
            self.channels.values().flatten().map(|(id, mailbox)| (*id, &**mailbox)).collect();
        all.into_values()
    }
}

/// `LISTEN` or `UNLISTEN` of each channel.
pub fn listen_sql<'c>(verb: &str, channels: impl IntoIterator<Item = &'c str>) -> String {
    let mut sql = String::new();
    for channel in channels {
        let _ = write!(sql, "{verb} {};", quote_name(channel));
    }
    sql
}
