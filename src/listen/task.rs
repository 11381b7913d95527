//! The task of one shared connection: it opens it, listens to what is wanted, tells everybody what comes, and replaces
//! it when it is lost.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    connection::{ListenFailure, Listener, OnGap, Waiter, listen_sql},
    mailbox::{Mail, Mailbox, Notification},
};
use crate::{
    pool::{Lease, Refusal, Wants},
    threads::Home,
    wire::{
        frame::split_message,
        message,
        read::{Body, ErrorFields, Malformed},
    },
};

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

impl Listener {
    pub(super) async fn run(&self, stop: &CancellationToken) {
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
        lease.stands();
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
            if !lease.is_at_server() {
                return Over::Lost(lease.left_behind().to_string());
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
                read = lease.read_more(&mut unread) => {
                    heard = Instant::now();
                    if let Err(broken) = read {
                        return Over::Lost(broken.to_string());
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
