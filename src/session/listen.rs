//! LISTEN without a backend: what a session listens to is heard by its server's shared [`Listener`].
//!
//! The session's own backend still runs every LISTEN and UNLISTEN, so that all of their rules are the server's own:
//! they take effect at COMMIT, are undone by ROLLBACK and ROLLBACK TO, fail where they fail. Before a transaction that
//! may hold one, the backend is told what the session listens to (the *preload*), and has confirmed it; after it, the
//! backend is asked what is listened to now, and is made to listen to nothing. In between the backend's own
//! notifications for these channels are dropped: the shared connection has them too.
//!
//! What comes before what:
//!
//! * A session subscribes to a channel before its LISTEN is sent, and waits until the server is listened to. See
//!   [`crate::listen::connection`] for why there is no gap. Until the transaction has committed the channel is *pending*:
//!   notifications wait in the mailbox and are told or dropped afterwards. Before a request that may end the
//!   transaction there is another fence, so that what was committed before it is not told.
//! * Notifications are told only in no transaction and between two requests; or before the ReadyForQuery that ends a
//!   transaction in which the session may have notified somebody, which waits for a fence and so for the session's own.
//! * The session's own notifications bear the process id that its client knows. They are known by their backend's
//!   process id and a position between two fences, within which no other session had that backend. Those of
//!   others bear the server's process ids, which are never a client's.
//!
//! Channels that are listened to by other ways (a function that executes LISTEN), from a pool of one connection, or in
//! another encoding than the shared connection's stay on the backend, and the session with them.

use std::{
    collections::HashSet,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::{
    Ended, Session, Stop,
    held::Held,
    mail::{self, Failed, PassesMail, Rest},
    reply::{self, Reply},
    request::{End, Request},
    transaction::LocalTransaction,
};
use crate::{
    backend::{Broken, query::Answer},
    listen::{Fate, ListenFailure, Listener, Mail, Mailbox, listen_sql},
    pool::ServerPool,
    route::Demand,
    sql::{Class, Control, Effects, listened_channels},
    wire::{TxStatus, message},
};

/// Channels of one session; each is known to the shared connection.
const CHANNELS_MAX: usize = 1000;

/// A closing connection is replaced at once; more often than this something else is wrong.
const ATTEMPTS: usize = 3;

/// Bytes that wait for the client, from which on its notifications stay in the mailbox, which is bounded.
const OUTBOX_BYTES: usize = 64 * 1024;

/// Effects before which the backend must have the session's channels.
const CONCERNS_CHANNELS: Effects =
    Effects::LISTENS.with(Effects::UNLISTENS).with(Effects::ASKS_CHANNELS).with(Effects::OPAQUE);

/// The channels that a session listens to, by server.
#[derive(Debug, Default)]
pub(super) struct Listening {
    subscriptions: Vec<Subscription>,
    /// The leased backend may listen to something.
    pub(super) on_backend: bool,
    /// The session's own notifications: those of this process after this position.
    own: Option<(i32, u64)>,
}

#[derive(Debug)]
struct Subscription {
    listener: Arc<Listener>,
    mailbox: Arc<Mailbox>,
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    name: Box<str>,
    /// Notifications up to this position were committed before.
    since: u64,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// LISTEN has been sent, or will be, in the transaction under way.
    Pending,
    Committed,
}

impl Subscription {
    fn committed(&self) -> impl Iterator<Item = &str> {
        let committed = self.channels.iter().filter(|channel| channel.standing == Standing::Committed);
        committed.map(|channel| &*channel.name)
    }

    fn is_on(&self, pool: &ServerPool) -> bool {
        self.listener.is_on_server_of(pool)
    }

    fn has(&self, name: &str) -> bool {
        self.channels.iter().any(|channel| &*channel.name == name)
    }

    /// Forgets the channels for which `stays` does not hold.
    fn retain(&mut self, stays: impl Fn(&Channel) -> bool) {
        let (stay, go) = std::mem::take(&mut self.channels).into_iter().partition(stays);
        self.channels = stay;
        let go: Vec<Channel> = go;
        self.listener.unsubscribe(go.iter().map(|channel| &*channel.name), &self.mailbox);
    }

    /// Whether the session is to hear of a notification.
    fn wants(&self, channel: &str, position: u64) -> bool {
        self.channels.iter().any(|known| {
            &*known.name == channel && known.standing == Standing::Committed && position > known.since
        })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

impl Listening {
    /// Whether a LISTEN was sent, or was to be, of which it is not known whether it was committed.
    pub(super) fn has_pending(&self) -> bool {
        let mut channels = self.subscriptions.iter().flat_map(|subscription| &subscription.channels);
        channels.any(|channel| channel.standing == Standing::Pending)
    }

    fn on(&mut self, pool: &ServerPool) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.is_on(pool))
    }
}

// === before a request ===

impl Session {
    /// Whether a request may make the session listen to something.
    pub(crate) const fn listens_in(demand: &Demand) -> bool {
        demand.verdict.effects.has(Effects::LISTENS)
    }

    /// Whether listening concerns a request at all.
    pub(crate) fn listens(&self, demand: &Demand) -> bool {
        self.own.listening.is_some() || Self::listens_in(demand)
    }

    /// Subscribes to what the request's LISTEN statements name, before they are sent to this server.
    pub(crate) async fn subscribe(&mut self, request: Request, member: Arc<ServerPool>) -> Result<(), Reply> {
        if !self.hold.has_backend() {
            // What an earlier transaction has left.
            self.forget_pending();
        }
        // With one place only there is none for another connection.
        if self.status() == TxStatus::Failed || member.limits().max_connections < 2 {
            return Ok(());
        }
        let texts = self.judge().texts(request);
        let mut names: Vec<Box<str>> =
            texts.iter().flat_map(|text| listened_channels(text)).map(Into::into).collect();
        names.sort_unstable();
        names.dedup();
        for _ in 0..ATTEMPTS {
            let failure = match self.subscribe_to(&names, &member).await? {
                Ok(()) => return Ok(()),
                Err(ListenFailure::Closed) => continue,
                Err(failure) => failure,
            };
            return Err(reply::cannot_listen(&member.name, &failure));
        }
        Err(reply::cannot_listen(&member.name, &ListenFailure::Closed))
    }

    async fn subscribe_to(
        &mut self,
        names: &[Box<str>],
        member: &Arc<ServerPool>,
    ) -> Result<Result<(), ListenFailure>, Reply> {
        let encoding = self.own.settings.get("client_encoding").map(is_utf8);
        if encoding == Some(false) {
            return Ok(Ok(()));
        }
        let listening = self.own.listening.get_or_insert_default();
        if listening.on(member).is_none() {
            // Without one the session keeps its backend.
            let Some(listener) = self.view.snapshot.listeners.of(member, &self.who.identity) else {
                return Ok(Ok(()));
            };
            let mailbox = listener.mailbox();
            listening.subscriptions.push(Subscription { listener, mailbox, channels: Vec::new() });
        }
        let Some(subscription) = listening.on(member) else { return Ok(Ok(())) };
        let new: Vec<Box<str>> = names.iter().filter(|name| !subscription.has(name)).cloned().collect();
        if subscription.channels.len() + new.len() > CHANNELS_MAX {
            return Err(reply::too_many_channels(CHANNELS_MAX));
        }
        if new.is_empty() {
            return Ok(Ok(()));
        }
        // Noted first: should this session end while it waits, they are given up with it.
        let pending = |name: &str| Channel { name: name.into(), since: 0, standing: Standing::Pending };
        subscription.channels.extend(new.iter().map(|name| pending(name)));
        match subscription.listener.subscribe(&new, &subscription.mailbox).await {
            Ok(_) if encoding == Some(true) && !subscription.listener.is_utf8() => {
                subscription.retain(|channel| !new.contains(&channel.name));
            }
            Ok(position) => {
                let added = subscription.channels.iter_mut().filter(|known| new.contains(&known.name));
                added.for_each(|channel| channel.since = position);
            }
            Err(failure) => {
                subscription.retain(|channel| !new.contains(&channel.name));
                let closed = matches!(failure, ListenFailure::Closed);
                if closed && subscription.channels.is_empty() {
                    listening.subscriptions.retain(|subscription| !subscription.is_on(member));
                }
                return Ok(Err(failure));
            }
        }
        Ok(Ok(()))
    }

    /// Prepares the leased backend and the session for a request: channels, fences, the order of what the client is
    /// told.
    pub(crate) async fn prepare_listening(&mut self, request: Request, demand: &Demand) -> Result<(), Stop> {
        if Self::listens_in(demand) {
            let member = Arc::clone(self.held().leased.pool());
            self.subscribe(request, member).await?;
        }
        let prepares = request.only_prepares();
        let Held { leased, own, transaction, .. } = self.held();
        if leased.protocol.is_open() {
            return Ok(());
        }
        let Some(listening) = own.listening.as_deref_mut() else { return Ok(()) };
        let member = Arc::clone(leased.pool());
        let Some(at) = listening.subscriptions.iter().position(|known| known.is_on(&member)) else {
            return Ok(());
        };
        let subscription = &mut listening.subscriptions[at];
        let verdict = demand.verdict;
        let controls = verdict.control != Control::None;
        let in_transaction = leased.protocol.status() != TxStatus::Idle;
        let opens = controls
            || matches!(transaction, LocalTransaction::Deferred(_))
            || verdict.effects.has(CONCERNS_CHANNELS)
            || (request.end == End::Open && !prepares);
        let channels = if !in_transaction && opens {
            listen_sql("LISTEN", subscription.committed())
        } else {
            String::new()
        };
        listening.on_backend |= !channels.is_empty() || verdict.effects.has(Effects::LISTENS);
        if listening.on_backend {
            let names: HashSet<Box<str>> =
                subscription.channels.iter().map(|channel| channel.name.clone()).collect();
            leased.protocol.set_heard_elsewhere(Some(Arc::new(names)));
        }
        let notifies = verdict.class >= Class::Write || verdict.effects.has(Effects::NOTIFIES);
        let begins = listening.own.is_none() && (in_transaction || opens || notifies);
        if !channels.is_empty() {
            self.preload(&channels).await?;
        }
        let Held { leased, own, .. } = self.held();
        let Some(listening) = own.listening.as_deref_mut() else { return Ok(()) };
        let subscription = &mut listening.subscriptions[at];
        let is_pending = |channel: &Channel| channel.standing == Standing::Pending;
        let may_commit = in_transaction && controls && subscription.channels.iter().any(is_pending);
        if !begins && !may_commit {
            return Ok(());
        }
        leased.protocol.hold_ready();
        let fenced = subscription.listener.fence().await;
        if fenced.is_err() {
            // The connection that listens is lost, which shows in the mailbox: nothing is sent that the session does not
            // survive. Its task has another waker as soon as it waits.
            self.watch_mail(Waker::noop())?;
        } else if let Ok(position) = fenced {
            if begins {
                listening.own = Some((leased.cancel.process_id, position));
            }
            if may_commit {
                let pending = subscription.channels.iter_mut().filter(|channel| is_pending(channel));
                pending.for_each(|channel| channel.since = position);
            }
        }
        Ok(())
    }

    /// Makes the backend listen to what the session does, before anything of the request's is sent.
    async fn preload(&mut self, channels: &str) -> Result<(), Stop> {
        let Held { client, leased, .. } = self.held();
        let (reply, broken) = match leased.ask(channels).await {
            Ok(Answer { error: None, for_client, .. }) => {
                client.outbox.extend_from_slice(&for_client);
                return Ok(());
            }
            Ok(Answer { error: Some(fields), .. }) => {
                (Reply::from_server(&fields), leased.given_up("it refuses to listen"))
            }
            Err(broken) => (reply::not_sent(&broken), broken),
        };
        self.end_lease(broken)?;
        Err(reply.into())
    }

    /// The session has another backend, which knows nothing.
    pub(crate) fn begin_listening_lease(&mut self) {
        if let Some(listening) = self.own.listening.as_deref_mut() {
            (listening.on_backend, listening.own) = (false, None);
        }
    }
}

// === after a request ===

impl Session {
    /// After a transaction: takes over from the backend what it listens to, and tells the client that it is ready, if
    /// that was kept back, after all that it had to hear before.
    pub(crate) async fn settle_listening(&mut self) -> Result<(), Ended> {
        let mut held = self.held();
        let is_owed_ready = held.leased.protocol.take_held_ready();
        let taken = match held.take_over_channels().await {
            Ok(()) => {
                if is_owed_ready {
                    held.hear_so_far().await;
                }
                Ok(())
            }
            // Without an answer it is not known what the session listens to, so it ends.
            Err(broken) => self.end_lease(broken),
        };
        if taken.is_ok() {
            self.forget_pending();
            // All that is to be heard before ReadyForQuery: the mailboxes bound it.
            self.deliver(usize::MAX)?;
        }
        if is_owed_ready {
            message::ready(&mut self.client.outbox, TxStatus::Idle);
            self.flush_now()?;
        }
        if let Some(listening) = self.own.listening.as_deref_mut() {
            listening.own = None;
            if listening.subscriptions.iter().all(|subscription| subscription.channels.is_empty()) {
                self.own.listening = None;
            }
        }
        taken
    }

    /// Forgets the channels whose LISTEN was not committed: it never will be.
    fn forget_pending(&mut self) {
        for subscription in self.own.listening.iter_mut().flat_map(|listening| &mut listening.subscriptions) {
            if subscription.channels.iter().any(|channel| channel.standing == Standing::Pending) {
                subscription.retain(|channel| channel.standing == Standing::Committed);
            }
        }
    }

    /// Moves notifications to the outbox, if it is their time, as long as that has fewer than `room` bytes.
    pub(crate) fn deliver(&mut self, room: usize) -> Result<Rest, Ended> {
        let is_quiet = self.status() == TxStatus::Idle
            && self.client.streaming == 0
            && !self.client.skipping
            && (self.hold.is_quiescent() || !self.hold.has_backend());
        let Some(listening) = self.own.listening.as_deref().filter(|_| is_quiet) else {
            return Ok(Rest::Nothing);
        };
        let boxes = listening.subscriptions.iter().map(|subscription| {
            let is_here = self.hold.backend().is_some_and(|leased| subscription.is_on(leased.pool()));
            (&*subscription.mailbox, (subscription, listening.own.filter(|_| is_here)))
        });
        let client_process = self.who.key.process_id();
        let before = self.client.outbox.len();
        let rest =
            mail::empty_into(boxes, &mut self.client.outbox, room, |(subscription, own), mail, outbox| {
                match mail {
                    Mail::Gap => reply::notifications_missed(outbox),
                    Mail::Heard(position, heard) if subscription.wants(&heard.channel, position) => {
                        let is_own = own
                            .is_some_and(|(process, since)| heard.process_id == process && position > since);
                        let process = if is_own { client_process } else { heard.process_id };
                        message::notification(outbox, process, heard.channel.as_bytes(), &heard.payload);
                    }
                    Mail::Heard(..) => {}
                }
            });
        let rest = rest.map_err(ended)?;
        if self.client.outbox.len() > before {
            self.note_told();
        }
        Ok(rest)
    }

    /// Has `waker` woken by the next notification; ends the session if too many wait or some were lost.
    pub(crate) fn watch_mail(&self, waker: &Waker) -> Result<(), Ended> {
        let subscriptions = self.own.listening.iter().flat_map(|listening| &listening.subscriptions);
        mail::watch(subscriptions.map(|subscription| &*subscription.mailbox), waker).map_err(ended)
    }
}

impl Held<'_> {
    /// Waits until all that the server has said so far to the connection that listens is in the mailbox.
    async fn hear_so_far(&mut self) {
        if let Some(listening) = self.own.listening.as_deref_mut()
            && let Some(subscription) = listening.on(self.leased.pool())
        {
            // A connection that was lost shows in the mailbox.
            let _ = subscription.listener.fence().await;
        }
    }

    async fn take_over_channels(&mut self) -> Result<(), Broken> {
        let Self { client, own, leased, .. } = self;
        let Some(listening) = own.listening.as_deref_mut().filter(|listening| listening.on_backend) else {
            return Ok(());
        };
        leased.left.effects |= Effects::LISTENS;
        if leased.cancel.was_hit() {
            leased.outlive_cancel().await?;
        }
        let member = Arc::clone(leased.pool());
        listening.on_backend = false;
        let Some(subscription) = listening.on(&member) else { return Ok(()) };
        let names = subscription.channels.iter().map(|channel| &*channel.name);
        let sql = format!("SELECT pg_catalog.pg_listening_channels();{}", listen_sql("UNLISTEN", names));
        let failed_before = leased.protocol.take_error().is_some();
        let answer = match leased.ask(&sql).await {
            Ok(answer) if answer.error.is_none() && !failed_before => answer,
            Ok(_) => return Err(leased.given_up("it does not tell what the session listens to")),
            Err(broken) => return Err(broken),
        };
        leased.protocol.set_heard_elsewhere(None);
        let on_backend: Vec<String> = answer.rows.into_iter().flatten().flatten().collect();
        let is_in = |name: &str| on_backend.iter().any(|other| other == name);
        // Pending => (Committed | gone), Committed => (Committed | gone)
        subscription.retain(|channel| is_in(&channel.name));
        for channel in &mut subscription.channels {
            channel.standing = Standing::Committed;
        }
        let is_rest = |name: &String| !subscription.has(name);
        if !on_backend.iter().any(is_rest) {
            leased.left.effects = leased.left.effects.without(Effects::LISTENS);
        }
        client.outbox.extend_from_slice(&answer.for_client);
        Ok(())
    }
}

impl PassesMail for Session {
    type Error = Ended;

    fn take_mail(&mut self, waker: &Waker) -> Result<Rest, Ended> {
        self.watch_mail(waker)?;
        self.deliver(OUTBOX_BYTES)
    }

    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.poll_flush(cx)
    }
}

fn ended(failed: Failed) -> Ended {
    match failed.fate {
        Fate::Overflowed => Ended::SlowListener(failed.limit_bytes),
        Fate::Lost | Fate::Sound => Ended::ListenerLost,
    }
}

/// Whether this is one of PostgreSQL's names for UTF-8.
fn is_utf8(encoding: &str) -> bool {
    let letters =
        encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    matches!(letters.as_str(), "utf8" | "unicode")
}
