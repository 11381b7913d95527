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
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::mailbox::{ListenStats, Mail, Mailbox, Notification};
use crate::{
    backend::{Home, Identity, Settings},
    pool::{Lease, Refusal, ServerPool, Spawner, Wants},
    wire::{
        frame::split_message,
        message,
        read::{Body, ErrorFields, Malformed},
    },
};

/// Databases that are listened to at once, over all servers. Each costs a connection.
const LISTENERS_MAX: usize = 100;

/// A connection that nobody needs is closed after this.
///
/// Less than the time for which DROP DATABASE waits for other connections to go.
const LINGER: Duration = Duration::from_secs(2);

/// A server that does not answer a LISTEN within this is taken for lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that has said nothing for this long is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Channels that one round trip adds or removes: so many names fit into a socket's buffer.
const BATCH_CHANNELS: usize = 500;

/// The pauses between attempts to replace a lost connection grow from the first to the second of these.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The server sends no message on this connection that is longer.
const MESSAGE_BYTES: usize = 1 << 20;

/// What becomes of listening sessions when notifications may have been missed.
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
    /// What becomes of sessions that may have missed something.
    pub on_gap: OnGap,
}

/// Why a session cannot listen.
#[derive(Clone, Debug)]
pub enum ListenFailure {
    /// There is no connection for it.
    Refused(Refusal),
    /// The server refused the LISTEN.
    Server(ErrorFields),
    /// The connection was lost, or did not answer in time.
    Lost,
    /// The connection is being closed, because nobody needed it: ask for another.
    Closed,
}

/// The shared connections of all databases.
#[derive(Debug)]
pub struct Listeners {
    known: Mutex<Vec<Arc<Listener>>>,
    spawner: Spawner,
    limits: Arc<Mutex<ListenLimits>>,
    stats: Arc<ListenStats>,
    stop: CancellationToken,
}

/// The shared connection of one database.
#[derive(Debug)]
pub struct Listener {
    pool: Arc<ServerPool>,
    identity: Arc<Identity>,
    /// At the server.
    database: String,
    limits: Arc<Mutex<ListenLimits>>,
    stats: Arc<ListenStats>,
    mailboxes: AtomicU64,
    state: Mutex<State>,
    /// Tells the task that there is something to do.
    work: Notify,
}

type Subscribers = HashMap<u64, Arc<Mailbox>, foldhash::fast::RandomState>;
type Waiter = oneshot::Sender<Result<u64, ListenFailure>>;

#[derive(Debug, Default)]
struct State {
    /// Who wants what.
    channels: HashMap<Box<str>, Subscribers, foldhash::fast::RandomState>,
    /// What the connection listens to.
    confirmed: HashSet<Box<str>>,
    /// Channels of which these two may differ.
    changed: Vec<Box<str>>,
    /// Who waits for the next round trip.
    waiters: Vec<Waiter>,
    /// Notifications heard so far.
    position: u64,
    /// Whether the connection speaks UTF-8.
    is_utf8: bool,
    /// A connection was lost and sessions have not been told yet.
    has_gap: bool,
    /// No connection will be made any more.
    closed: bool,
}

/// How the use of one connection ended.
enum Over {
    Unused,
    Stopped,
    Lost(String),
}

/// A round trip under way.
struct Batch {
    listen: Vec<Box<str>>,
    unlisten: Vec<Box<str>>,
    waiters: Vec<Waiter>,
    error: Option<ErrorFields>,
    deadline: Instant,
}

impl Listeners {
    /// None yet. Their tasks run on `spawner` until [`Listeners::stop`].
    pub fn new(spawner: Spawner, limits: ListenLimits) -> Self {
        let limits = Arc::new(Mutex::new(limits));
        Self {
            known: Mutex::default(),
            spawner,
            limits,
            stats: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The one for the identity's database on the pool's server; opened when somebody subscribes. `None` if there are
    /// too many.
    pub fn of(&self, pool: &Arc<ServerPool>, identity: &Arc<Identity>) -> Option<Arc<Listener>> {
        let database = pool.server().login(identity, &identity.credentials()).database.to_owned();
        let mut known = self.lock();
        known.retain(|listener| !listener.lock().closed);
        let is_it = |known: &&Arc<Listener>| known.is_on_server_of(pool) && known.database == database;
        if let Some(listener) = known.iter().find(is_it) {
            return Some(Arc::clone(listener));
        }
        if known.len() >= LISTENERS_MAX {
            return None;
        }
        let listener = Arc::new(Listener {
            pool: Arc::clone(pool),
            identity: Arc::clone(identity),
            database,
            limits: Arc::clone(&self.limits),
            stats: Arc::clone(&self.stats),
            mailboxes: AtomicU64::new(0),
            state: Mutex::default(),
            work: Notify::new(),
        });
        known.push(Arc::clone(&listener));
        let (task, stop) = (Arc::clone(&listener), self.stop.clone());
        self.spawner.spawn(Home(0), async move { task.run(&stop).await });
        Some(listener)
    }

    /// From now on these hold, for sessions that begin to listen and connections that are lost.
    pub fn set_limits(&self, limits: ListenLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Gives up the connections of pools that are no longer part of the configuration, and their sessions.
    pub fn leave_drained(&self) {
        self.lock().iter().for_each(|listener| listener.work.notify_one());
    }

    /// Ends all of them: the program is stopping.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Counters.
    pub fn stats(&self) -> &ListenStats {
        &self.stats
    }

    /// Channels listened to now.
    pub fn channels(&self) -> usize {
        self.lock().iter().map(|listener| listener.lock().confirmed.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Listener>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === for sessions ===

impl Listener {
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

    fn limits(&self) -> ListenLimits {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === the task ===

impl Listener {
    async fn run(&self, stop: &CancellationToken) {
        let mut pause = RETRY[0];
        loop {
            let opened = tokio::select! {
                // Cancel safe: dropped, it leaves the pool's queue.
                opened = self.open() => opened,
                () = stop.cancelled() => return self.close(&ListenFailure::Lost),
            };
            let (why, failure) = match opened {
                Ok(mut lease) => match self.listen_on(&mut lease, stop, &mut pause).await {
                    Over::Unused => return,
                    Over::Stopped => return self.close(&ListenFailure::Lost),
                    Over::Lost(why) => (why, ListenFailure::Lost),
                },
                Err(refusal) => (refusal.to_string(), ListenFailure::Refused(refusal)),
            };
            if !self.outlives(&why, &failure) {
                return;
            }
            tokio::select! {
                // Cancel safe.
                () = sleep(pause) => pause = (pause * 2).min(RETRY[1]),
                () = stop.cancelled() => return self.close(&ListenFailure::Lost),
            }
        }
    }

    async fn open(&self) -> Result<Lease, Refusal> {
        let wants = Wants { identity: &self.identity, last: None, settings: 0, home: Home(0) };
        let mut lease = self.pool.lease(&wants).await?;
        // Another session's timeouts, role or encoding are not for this connection.
        if let Some(sql) = lease.applied.change_to(&Settings::default()) {
            // A failed connection shows at the first round trip.
            let _ = tokio::time::timeout(ANSWER_TIMEOUT, lease.ask(&sql)).await;
        }
        let encoding = lease.protocol.parameters().iter().find(|(name, _)| name == "client_encoding");
        self.lock().is_utf8 = encoding.is_some_and(|(_, value)| value == "UTF8");
        Ok(lease)
    }

    /// Listens until the connection is lost, nobody needs it any more, or `stop`.
    async fn listen_on(&self, lease: &mut Lease, stop: &CancellationToken, pause: &mut Duration) -> Over {
        let mut unread = Vec::new();
        let mut batch: Option<Batch> = None;
        let mut heard = Instant::now();
        let mut unused: Option<Instant> = None;
        loop {
            if self.pool.is_drained() {
                return Over::Lost("the pool is no longer part of the configuration".to_owned());
            }
            if batch.is_none() {
                batch = self.next_batch();
                if let Some(batch) = &batch
                    && let Err(error) = lease.socket.send_all(&batch.query()).await
                {
                    return Over::Lost(error.to_string());
                }
            }
            unused = if self.lock().channels.is_empty() { unused.or(Some(Instant::now())) } else { None };
            let until = match (&batch, unused) {
                (Some(batch), _) => batch.deadline,
                (None, Some(since)) => since + LINGER,
                (None, None) => heard + HEARTBEAT,
            };
            tokio::select! {
                // Cancel safe: what was read is in `unread`.
                read = lease.socket.read_more(&mut unread) => {
                    heard = Instant::now();
                    match read {
                        Ok(true) => {}
                        Ok(false) => return Over::Lost("the server closed the connection".to_owned()),
                        Err(error) => return Over::Lost(error.to_string()),
                    }
                    match self.take(&mut unread, &mut batch) {
                        Ok(false) => {}
                        Ok(true) => *pause = RETRY[0],
                        Err(why) => return Over::Lost(why),
                    }
                }
                // Cancel safe: a notification that is not consumed stays with the Notify.
                () = self.work.notified(), if batch.is_none() => {}
                () = sleep_until(until) => match (&batch, unused) {
                    (Some(_), _) => return Over::Lost("no answer in time".to_owned()),
                    (None, Some(_)) => {
                        if self.close_unused() {
                            return Over::Unused;
                        }
                    }
                    (None, None) => {
                        heard = Instant::now();
                        let heartbeat = Batch::new(Vec::new(), Vec::new(), Vec::new());
                        if let Err(error) = lease.socket.send_all(&heartbeat.query()).await {
                            return Over::Lost(error.to_string());
                        }
                        batch = Some(heartbeat);
                    }
                },
                () = stop.cancelled() => return Over::Stopped,
            }
        }
    }

    /// What must be said to the server, if anything.
    fn next_batch(&self) -> Option<Batch> {
        let mut state = self.lock();
        if state.changed.is_empty() && state.waiters.is_empty() {
            return None;
        }
        let count = state.changed.len().min(BATCH_CHANNELS);
        let mut changed: Vec<Box<str>> = state.changed.drain(..count).collect();
        changed.sort_unstable();
        changed.dedup();
        let (wanted, unwanted): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|channel| state.channels.contains_key(channel));
        let listen = wanted.into_iter().filter(|channel| !state.confirmed.contains(channel)).collect();
        let unlisten = unwanted.into_iter().filter(|channel| state.confirmed.contains(channel)).collect();
        // Who waits for a channel that is left for the next round waits for that round.
        let waiters = if state.changed.is_empty() { std::mem::take(&mut state.waiters) } else { Vec::new() };
        Some(Batch::new(listen, unlisten, waiters))
    }

    /// Takes whole messages; whether a round trip has ended well.
    fn take(&self, unread: &mut Vec<u8>, batch: &mut Option<Batch>) -> Result<bool, String> {
        let mut rest = unread.as_slice();
        let mut succeeded = false;
        while let Some((tag, body, after)) = split_message(rest).map_err(|error| error.to_string())? {
            rest = after;
            match tag {
                b'A' => self.hear(body).map_err(|error| error.to_string())?,
                b'E' => {
                    let fields = ErrorFields::parse(body);
                    match batch {
                        Some(batch) if fields.severity == "ERROR" => batch.error = Some(fields),
                        _ => return Err(fields.to_string()),
                    }
                }
                b'Z' => {
                    if let Some(batch) = batch.take() {
                        succeeded |= batch.error.is_none();
                        self.end_batch(batch);
                    }
                }
                _ => {}
            }
        }
        let taken = unread.len() - rest.len();
        unread.drain(..taken);
        if unread.is_empty() {
            *unread = Vec::new();
        }
        if unread.len() > MESSAGE_BYTES { Err("a message without end".to_owned()) } else { Ok(succeeded) }
    }

    fn hear(&self, body: &[u8]) -> Result<(), Malformed> {
        let mut body = Body::new(body, "NotificationResponse");
        let process_id = body.int32()?;
        let channel = String::from_utf8_lossy(body.cstring()?).into();
        let notification = Arc::new(Notification { process_id, channel, payload: body.cstring()?.into() });
        let mut state = self.lock();
        state.position += 1;
        let position = state.position;
        for mailbox in state.channels.get(&notification.channel).into_iter().flat_map(HashMap::values) {
            mailbox.put(Mail::Heard(position, Arc::clone(&notification)));
        }
        Ok(())
    }

    fn end_batch(&self, mut batch: Batch) {
        let mut state = self.lock();
        if batch.error.is_some() && !state.changed.is_empty() {
            // Some of these wait for channels that were in this round trip.
            batch.waiters.append(&mut state.waiters);
        }
        let outcome = if let Some(error) = batch.error {
            let server = self.pool.server().name.clone();
            tracing::debug!(server, %error, "LISTEN failed on the shared connection");
            Err(ListenFailure::Server(error))
        } else {
            state.confirmed.extend(batch.listen);
            for channel in &batch.unlisten {
                state.confirmed.remove(channel);
            }
            Ok(state.position)
        };
        if outcome.is_ok() && state.changed.is_empty() && std::mem::take(&mut state.has_gap) {
            self.stats.reconnects.fetch_add(1, Ordering::Relaxed);
            tracing::info!(
                server = self.pool.server().name,
                channels = state.confirmed.len(),
                "listening again; notifications may have been missed"
            );
            state.mailboxes().for_each(|mailbox| mailbox.put(Mail::Gap));
        }
        drop(state);
        for waiter in batch.waiters {
            // Whoever has left needs no answer.
            let _ = waiter.send(outcome.clone());
        }
    }

    /// After a failure: whether another connection is to be made.
    fn outlives(&self, why: &str, failure: &ListenFailure) -> bool {
        let mut state = self.lock();
        let listened = !state.confirmed.is_empty();
        if listened {
            self.stats.losses.fetch_add(1, Ordering::Relaxed);
            let (server, channels) = (self.pool.server().name.clone(), state.confirmed.len());
            let database = &self.database;
            tracing::warn!(
                server,
                database,
                channels,
                why,
                "the connection that listens for clients was lost"
            );
        }
        let can_go_on = self.limits().on_gap == OnGap::Warn && !self.pool.is_drained();
        let goes_on = can_go_on && (listened || state.has_gap);
        if goes_on && !state.channels.is_empty() {
            state.has_gap = true;
            state.confirmed.clear();
            state.changed = state.channels.keys().cloned().collect();
        } else {
            if listened {
                state.mailboxes().for_each(Mailbox::lose);
            }
            state.closed = true;
            state.confirmed.clear();
        }
        let goes_on = !state.closed;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            let _ = waiter.send(Err(failure.clone()));
        }
        goes_on
    }

    fn close_unused(&self) -> bool {
        let mut state = self.lock();
        state.closed = state.channels.is_empty() && state.waiters.is_empty();
        if state.closed {
            state.confirmed.clear();
        }
        state.closed
    }

    fn close(&self, failure: &ListenFailure) {
        let mut state = self.lock();
        state.closed = true;
        for waiter in std::mem::take(&mut state.waiters) {
            let _ = waiter.send(Err(failure.clone()));
        }
    }
}

impl State {
    /// Everybody's mailbox, once.
    fn mailboxes(&self) -> impl Iterator<Item = &Mailbox> {
        let all: HashMap<u64, &Mailbox> =
            self.channels.values().flatten().map(|(id, mailbox)| (*id, &**mailbox)).collect();
        all.into_values()
    }
}

impl Batch {
    fn new(listen: Vec<Box<str>>, unlisten: Vec<Box<str>>, waiters: Vec<Waiter>) -> Self {
        Self { listen, unlisten, waiters, error: None, deadline: Instant::now() + ANSWER_TIMEOUT }
    }

    fn query(&self) -> Vec<u8> {
        let mut sql = listen_sql("LISTEN", self.listen.iter().map(AsRef::as_ref));
        sql.push_str(&listen_sql("UNLISTEN", self.unlisten.iter().map(AsRef::as_ref)));
        sql.push(';');
        let mut query = Vec::new();
        message::query(&mut query, sql.as_bytes());
        query
    }
}

/// `LISTEN` or `UNLISTEN` of each channel.
pub fn listen_sql<'c>(verb: &str, channels: impl IntoIterator<Item = &'c str>) -> String {
    let mut sql = String::new();
    for channel in channels {
        let _ = write!(sql, "{verb} \"{}\";", channel.replace('"', "\"\""));
    }
    sql
}
