//! Moving bytes: between requests from the client to the inbox, during a request both ways at once.
//!
//! Nothing is read from one side while the other side has not taken what was read before. Both sides are
//! watched all the time: a client that goes away during a long query is noticed at once.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use super::{
    Ended, Session,
    classify::search_in,
    held::Held,
    hold::{Hold, Leased},
    mail::poll_mail,
    request::{End, Request, first_request},
};
use crate::{
    backend::{Broken, outgoing::Outgoing, protocol::Transient},
    socket::Scratch,
    wire::{TxStatus, frame::Header},
};

/// Bytes that wait for the client, from which on nothing more is read from it.
const OUTBOX_BYTES: usize = 64 * 1024;

/// The event that a turn of moving bytes waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// A whole request in the inbox.
    Request,
    /// All replies, or a request that may be sent before them; or that the client leaves.
    Answered,
    /// The same for a client that has left.
    AnsweredAlone,
}

/// The event that a turn of moving bytes has come to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moved {
    /// The request at the start of the inbox.
    Request(Request),
    /// The request under way has its replies, or the next one need not wait for them.
    Answered,
    /// The client has left.
    Alone,
}

impl Session {
    /// Lets this task be woken when Bulkhead goes down.
    pub(crate) async fn wake_on_shutdown(&self) {
        poll_fn(|cx| {
            self.who.key.set_waker(cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Waits for the next request. What the backend says meanwhile (a held lease: notifications, its end) goes to
    /// the client.
    pub(crate) async fn next_request(&mut self) -> Result<Request, Ended> {
        if self.client.outbox.len() >= OUTBOX_BYTES {
            // A client that asks without reading is heard again when it has read.
            poll_fn(|cx| {
                self.attend()?;
                self.watch_mail(cx.waker())?;
                self.poll_flush(cx)
            })
            .await?;
        }
        if !self.client.presence.is_here() {
            Box::pin(self.farewell()).await?;
        }
        self.take_up_snapshot();
        if self.own.listening.is_some() {
            self.deliver(OUTBOX_BYTES)?;
        }
        if let Some(request) = self.buffered_request()? {
            return Ok(request);
        }
        let moved = match (self.idle_timeout(), self.pinned_idle_timeout()) {
            (Some(limit), _) => Box::pin(self.wait_idle(limit)).await?,
            (None, Some(limit)) => Box::pin(self.wait_pinned(limit)).await?,
            (None, None) => poll_fn(|cx| self.poll_wait(cx)).await?,
        };
        match moved {
            Moved::Request(request) => Ok(request),
            Moved::Answered | Moved::Alone => {
                Err(Box::pin(self.farewell()).await.err().unwrap_or(Ended::ByClient))
            }
        }
    }

    /// Moves bytes until there is a request; ends when Bulkhead goes down.
    pub(crate) fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<Moved, Ended>> {
        self.take_up_snapshot();
        if self.may_drain() {
            return Poll::Ready(Err(Ended::Shutdown));
        }
        if self.is_at_rest() {
            if self.poll_client(cx)?.is_ready() {
                if let Some(request) = self.buffered_request()? {
                    return Poll::Ready(Ok(Moved::Request(request)));
                }
            } else if self.attend()? {
                // It has had nothing to do for a while.
                self.under_way.rest();
            } else {
                return Poll::Pending;
            }
        }
        self.poll_move(cx, Until::Request)
    }

    /// Whether nothing but the client can move anything.
    fn is_at_rest(&self) -> bool {
        !self.hold.has_backend()
            && self.own.listening.is_none()
            && self.client.inbox.is_empty()
            && self.client.outbox.is_empty()
            && self.client.streaming == 0
            && self.client.presence.is_here()
    }

    /// Whether the session is to end because Bulkhead is going down: not within a transaction.
    fn may_drain(&self) -> bool {
        self.view.snapshot.is_draining()
            && self.client.inbox.is_empty()
            && self.client.outbox.is_empty()
            && self.client.streaming == 0
            && self.status() == TxStatus::Idle
    }

    /// Passes the replies to the client until all are there. On the way the lease may be given back.
    pub(crate) async fn relay(&mut self) -> Result<(), Ended> {
        match poll_fn(|cx| self.poll_move(cx, Until::Answered)).await? {
            Moved::Alone => Box::pin(self.relay_alone()).await?,
            Moved::Answered | Moved::Request(_) => {}
        }
        if !self.own.is_stepping() {
            self.under_way.forget_sent(&mut self.client.kept);
        }
        Ok(())
    }

    /// Waits in a pool's queue, while watching that the client is still there and has not cancelled: then nothing.
    pub(crate) async fn wait<T>(
        &mut self,
        mut waiting: impl Future<Output = T> + Unpin,
    ) -> Result<Option<T>, Ended> {
        self.who.key.waits();
        let outcome = poll_fn(|cx| {
            // First: what it waited for may have come in the same moment, and be one of many.
            if self.who.key.is_cancelled() {
                return Poll::Ready(Ok(None));
            }
            if let Poll::Ready(outcome) = std::pin::Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(Ok(Some(outcome)));
            }
            self.attend()?;
            while self.client.presence.is_here() && self.inbox_has_room() {
                if self.poll_client(cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
            if self.may_leave_queue() { Poll::Ready(Err(Ended::ByClient)) } else { Poll::Pending }
        })
        .await;
        match self.hold.backend() {
            Some(leased) => self.who.key.holds(&leased.cancel),
            None => self.who.key.holds_none(),
        }
        outcome
    }

    /// Drops the rest of a message that is streamed to nobody.
    pub(crate) async fn drop_streaming(&mut self) -> Result<(), Ended> {
        while self.client.streaming > 0 {
            poll_fn(|cx| {
                self.attend()?;
                let mut scratch = Scratch::default();
                let len = ready!(self.client.poll_read(cx, &mut scratch)).map_err(Ended::ClientIo)?;
                if len == 0 {
                    return Poll::Ready(Err(Ended::ByClient));
                }
                let bytes = scratch.filled(len);
                let dropped = len.min(self.client.streaming);
                self.client.streaming -= dropped;
                self.client.inbox.extend(&bytes[dropped..]);
                Poll::Ready(Ok(()))
            })
            .await?;
        }
        Ok(())
    }

    /// The request at the start of the inbox.
    fn buffered_request(&self) -> Result<Option<Request>, Ended> {
        if self.client.inbox.is_empty() || self.client.streaming > 0 {
            return Ok(None);
        }
        Ok(first_request(&self.client.inbox, self.view.snapshot.limits.request_buffer)?)
    }

    /// Sends the outbox as far as the client takes it now.
    pub(crate) fn flush_now(&mut self) -> Result<(), Ended> {
        if self.client.presence.is_gone() {
            self.client.outbox = Vec::new();
            return Ok(());
        }
        let sent = match self.client.socket.send_now(&self.client.outbox) {
            Ok(sent) => sent,
            Err(error) => return self.lose_client(error),
        };
        self.count_sent(sent);
        if sent == self.client.outbox.len() {
            self.client.outbox = Vec::new();
        } else {
            self.client.outbox.drain(..sent);
        }
        Ok(())
    }

    pub(super) fn poll_move(&mut self, cx: &mut Context<'_>, until: Until) -> Poll<Result<Moved, Ended>> {
        loop {
            if until == Until::Request && self.own.listening.is_some() {
                poll_mail(self, cx)?;
            }
            let flushed = self.poll_flush(cx)?.is_ready();
            if !flushed {
                self.watch_mail(cx.waker())?;
            }
            let sent = self.hold.poll_unsent(cx).is_ready();
            let from_backend = if flushed { self.poll_backend(cx)? } else { Poll::Pending };
            if let Some(moved) = self.moved(until)? {
                // A reply that the client has not taken yet is flushed with the next move.
                return Poll::Ready(Ok(moved));
            }
            match until {
                _ if self.client.presence.is_here() => {}
                Until::Request | Until::Answered => return Poll::Ready(Ok(Moved::Alone)),
                Until::AnsweredAlone if self.is_unattended() => return Poll::Ready(Err(Ended::ByClient)),
                Until::AnsweredAlone if self.goes_on_alone() => {}
                Until::AnsweredAlone if flushed => return Poll::Ready(Err(Ended::ByClient)),
                Until::AnsweredAlone => {}
            }
            let from_client = if sent
                && self.client.presence.is_here()
                && self.inbox_has_room()
                && self.client.outbox.len() < OUTBOX_BYTES
            {
                self.poll_client(cx)?
            } else {
                Poll::Pending
            };
            if from_backend.is_pending() && from_client.is_pending() && !self.attend()? {
                return Poll::Pending;
            }
            if let Some(moved) = self.moved(until)? {
                return Poll::Ready(Ok(moved));
            }
        }
    }

    /// The event that moving bytes has come to, if that is what was waited for.
    fn moved(&self, until: Until) -> Result<Option<Moved>, Ended> {
        let is_over = match (self.hold.backend(), until) {
            (None, Until::Answered | Until::AnsweredAlone) => true,
            (Some(leased), _) if self.client.streaming > 0 || leased.protocol.copying_in() => false,
            (_, Until::Request) => return Ok(self.buffered_request()?.map(Moved::Request)),
            (Some(leased), _) if leased.protocol.is_answered() => leased.unsent.is_empty(),
            (Some(leased), _) if self.own.is_stepping() && leased.protocol.awaits_replies() => false,
            (Some(leased), _) => {
                // COPY data that came early is not stray as long as the server may still ask for it.
                let may_go = |next: Request| next.end != End::StrayCopy || !leased.protocol.awaits_replies();
                leased.protocol.is_open() && self.buffered_request()?.is_some_and(may_go)
            }
        };
        Ok(is_over.then_some(Moved::Answered))
    }

    fn inbox_has_room(&self) -> bool {
        self.client.inbox.len() < self.view.snapshot.limits.request_buffer
    }

    #[inline]
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.client.outbox.is_empty() { Poll::Ready(Ok(())) } else { self.poll_outbox(cx) }
    }

    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if self.client.presence.is_gone() {
            self.client.outbox = Vec::new();
            return Poll::Ready(Ok(()));
        }
        let before = self.client.outbox.len();
        let flushed = self.client.socket.poll_flush(cx, &mut self.client.outbox);
        let taken = before - self.client.outbox.len();
        self.count_sent(taken);
        if let Some(Held { leased, .. }) = self.held_if_any() {
            let doing = &leased.cancel.doing;
            if flushed.is_pending() { doing.stalls(taken > 0) } else { doing.flows() }
        }
        let flushed = ready!(flushed);
        self.client.outbox = Vec::new();
        Poll::Ready(flushed.or_else(|error| self.lose_client(error)))
    }

    /// Reads from the backend once, if the session holds one. Ready if something was read.
    fn poll_backend(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let Some(Held { leased, .. }) = self.held_if_any() else { return Poll::Pending };
        if leased.types.is_some() {
            return self.poll_filtered(cx);
        }
        let mut scratch = Scratch::default();
        Poll::Ready(match ready!(leased.poll_read(cx, &mut scratch)) {
            Ok(len) => self.on_backend_bytes(scratch.filled(len)),
            Err(broken) => self.on_broken(broken),
        })
    }

    pub(super) fn on_backend_bytes(&mut self, chunk: &[u8]) -> Result<(), Ended> {
        let mut out = Outgoing::default();
        let mut held = self.held();
        let transient = match held.take_in(chunk, &mut out) {
            Ok(transient) => transient,
            Err(broken) => return self.on_broken(broken),
        };
        // The next session can have the backend before this one's client has its bytes.
        if held.is_clean() {
            self.give_back();
        }
        if let Some(reason) = transient {
            self.repeat(reason);
        }
        let bytes = out.bytes(chunk);
        if !self.client.presence.is_gone() {
            let sent = if self.client.outbox.is_empty() { self.client.socket.send_now(bytes) } else { Ok(0) };
            match sent {
                Ok(sent) => {
                    self.count_sent(sent);
                    self.client.outbox.extend_from_slice(&bytes[sent..]);
                }
                Err(error) => self.lose_client(error)?,
            }
        }
        self.pass_copy_data()
    }

    /// Reads from the client once. Ready if something was read, or the client has closed.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let mut scratch = Scratch::default();
        let len = match ready!(self.client.poll_read(cx, &mut scratch)) {
            Ok(0) => {
                self.client_has_closed();
                return Poll::Ready(Ok(()));
            }
            Ok(len) => len,
            Err(error) => return Poll::Ready(self.lose_client(error)),
        };
        self.count_received(len);
        Poll::Ready(self.on_client_bytes(scratch.filled(len)))
    }

    fn on_client_bytes(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        if self.client.streaming > 0 {
            let (now, rest) = bytes.split_at(self.client.streaming.min(bytes.len()));
            self.client.streaming -= now.len();
            if let Some(Held { client, view, leased, .. }) = self.held_if_any() {
                search_in(view, leased, now, client.streaming == 0);
                // A failed write shows as the end of the backend's replies.
                let _ = leased.send(now);
            }
            bytes = rest;
        }
        let limit = self.view.snapshot.limits.request_buffer_total;
        if !self.client.kept.grow_to(self.client.inbox.kept() + bytes.len(), limit) {
            return Err(Ended::NoRoom(limit));
        }
        self.client.inbox.extend(bytes);
        self.pass_copy_data()
    }

    /// Passes on what the inbox has of COPY data, if the server takes it; it may have begun to when some is there already.
    #[inline]
    fn pass_copy_data(&mut self) -> Result<(), Ended> {
        let is_there = !self.client.inbox.is_empty() && self.client.streaming == 0;
        if is_there { self.pass_if_copying() } else { Ok(()) }
    }

    fn pass_if_copying(&mut self) -> Result<(), Ended> {
        match self.held_if_any() {
            Some(mut held) if held.leased.protocol.copying_in() => held.pass_copy_data(),
            _ => Ok(()),
        }
    }
}

impl Hold {
    /// Sends what the backend has not taken yet. Ready if nothing is left.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.leased.as_mut().map_or(Poll::Ready(()), |leased| leased.poll_unsent(cx))
    }
}

impl Leased {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent.is_empty() {
            return Poll::Ready(());
        }
        let backend = self.backend();
        if ready!(backend.socket.poll_flush(cx, &mut backend.unsent)).is_err() {
            // What it still had to say is read, and then its end.
            backend.unsent.clear();
        }
        Poll::Ready(())
    }

    /// Reads once; an error if that was the connection's end.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<Result<usize, Broken>> {
        Poll::Ready(match ready!(self.socket.poll_read(cx, scratch)) {
            Ok(0) => Err(self.closed()),
            Ok(len) => {
                self.server.traffic.count_received(len);
                self.usage.received_bytes += len as u64;
                Ok(len)
            }
            Err(error) => Err(self.broken(error)),
        })
    }
}

impl Held<'_> {
    /// Takes in what the backend has said; what of it is the client's goes to `out`. If the request is to be run once more,
    /// why.
    #[inline]
    fn take_in(&mut self, chunk: &[u8], out: &mut Outgoing) -> Result<Option<Transient>, Broken> {
        let protocol = &mut self.leased.protocol;
        if let Err(bad) = protocol.receive(chunk, out) {
            return Err(self.leased.nonsense(&bad));
        }
        let rows = protocol.take_rows();
        if rows > 0 {
            self.under_way.tally().rows += rows;
        }
        let transient = if protocol.has_heard() { self.on_news() } else { None };
        if out.names_statements() {
            self.own.rename_statements(out);
        }
        self.stamp_changes();
        Ok(transient)
    }

    /// Passes CopyData on as it comes, and the message that ends it.
    fn pass_copy_data(&mut self) -> Result<(), Ended> {
        let Self { client, leased, .. } = self;
        let mut at = 0;
        while let Some(header) = Header::peek_client(&client.inbox[at..])? {
            let here = header.len.min(client.inbox.len() - at);
            let ends = matches!(header.tag, b'c' | b'f');
            let whole = here == header.len;
            if !matches!(header.tag, b'd' | b'c' | b'f' | b'S' | b'H') {
                return Err(Ended::AmidCopy(header.tag));
            }
            if ends && !whole {
                break;
            }
            // Flush and Sync mean nothing to a server that copies.
            if !matches!(header.tag, b'S' | b'H') {
                let _ = leased.send(&client.inbox[at..at + here]);
            }
            at += here;
            if ends {
                leased.protocol.sent_copy_end();
                break;
            }
            client.streaming = header.len - here;
            if client.streaming > 0 {
                break;
            }
        }
        client.inbox.skip(at);
        client.kept.shrink_to(client.inbox.kept());
        Ok(())
    }
}
