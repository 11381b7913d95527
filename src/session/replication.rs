//! Replication connections (`replication=true` or `database`): a backend of their own, opened with what the client
//! asked for, and bytes passed both ways until either side ends. Nothing is classified.
//!
//! The backend takes a place in the pool (the primary's, or the one that the database's name binds to) and one among
//! the pool's pins. Who may replicate is for the server to say.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::reply::{self, Reply};
use crate::{
    backend::{Broken, Identity, probe::PinReason},
    pool::{Lease, Wants},
    route::PoolId,
    shared::{Snapshot, cancels::CancelKey, counters::SessionPin},
    socket::{Scratch, Socket},
    threads::Home,
    wire::frame::{BadFrame, Header},
};

/// Whether the value of the startup parameter `replication` asks for it, read as PostgreSQL does.
pub(crate) fn is_asked(value: Option<&str>) -> bool {
    value.is_some_and(|value| {
        let value = value.to_ascii_lowercase();
        !["false", "off", "no", "0", "f", "n", "of"].contains(&value.as_str())
    })
}

/// A backend opened for replication.
#[derive(Debug)]
pub(crate) struct Dedicated {
    lease: Lease,
    _pin: SessionPin,
}

/// Opens a backend with the client's own startup parameters. Its place is waited for as any other.
pub(crate) async fn open(
    snapshot: &Arc<Snapshot>,
    identity: Identity,
    pool: PoolId,
    home: Home,
) -> Result<Dedicated, Reply> {
    let pool = snapshot.pool(pool);
    let refused = |refusal| reply::refused(&pool.name, &refusal);
    let identity = Arc::new(identity);
    let wants = Wants { identity: &identity, last: None, settings: 0, home };
    let mut lease = pool.members[0].lease(&wants).await.map_err(refused)?;
    // What it does is never known to be answered: whenever it is closed, it is cancelled too.
    lease.protocol.sent_ours();
    lease.try_pin().map_err(|full| {
        reply::pins_full(&pool.name, full.max_pinned, PinReason::Replication.label(), None)
    })?;
    let pin = SessionPin::new(&snapshot.metrics, lease.pool(), PinReason::Replication);
    Ok(Dedicated { lease, _pin: pin })
}

impl Dedicated {
    /// The client.
    pub(crate) fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.lease.identity)
    }

    /// The parameters that the server reported at its start.
    pub(crate) fn parameters(&self) -> &[(String, String)] {
        self.lease.protocol.parameters()
    }
}

/// Where one side stands in the stream of messages to the client.
#[derive(Debug, Default)]
struct Boundary {
    body_left: usize,
    head: Vec<u8>,
}

impl Boundary {
    fn pass(&mut self, mut bytes: &[u8]) -> Result<(), BadFrame> {
        loop {
            let skipped = bytes.len().min(self.body_left);
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            let Some((&next, rest)) = bytes.split_first() else { return Ok(()) };
            self.head.push(next);
            bytes = rest;
            if let Some(header) = Header::peek(&self.head)? {
                self.body_left = header.len - self.head.len();
                self.head.clear();
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.body_left == 0 && self.head.is_empty()
    }
}

/// How it ended.
enum End {
    ByClient,
    ByServer(Broken),
    Shutdown,
}

/// A replication connection under way.
struct Replication {
    socket: Socket,
    outbox: Vec<u8>,
    lease: Lease,
    boundary: Boundary,
    /// The server has said its last: the rest goes to the client, and then it is over.
    over: Option<Broken>,
}

/// Passes bytes until either side ends or Bulkhead goes down. `greeting` is what the client is told first, `unread`
/// what it has sent already. `key` cancels what the backend does.
pub(crate) async fn run(
    socket: Socket,
    greeting: Vec<u8>,
    unread: &[u8],
    dedicated: Dedicated,
    key: &CancelKey,
    snapshot: &Snapshot,
) {
    let Dedicated { lease, _pin } = dedicated;
    lease.cancel.doing.begins();
    key.holds(&lease.cancel);
    let user = lease.identity.user.clone();
    let mut replication =
        Replication { socket, outbox: greeting, lease, boundary: Boundary::default(), over: None };
    let _ = replication.lease.send(unread);
    let mut draining = pin!(snapshot.draining.cancelled());
    poll_fn(|cx| {
        key.set_waker(cx.waker());
        Poll::Ready(())
    })
    .await;
    let ended = poll_fn(|cx| {
        let drains = draining.as_mut().poll(cx).is_ready() || key.is_killed();
        if drains && replication.boundary.is_between_messages() && replication.outbox.is_empty() {
            return Poll::Ready(End::Shutdown);
        }
        replication.poll_relay(cx)
    })
    .await;
    key.holds_none();
    let told = match &ended {
        End::Shutdown => Some(reply::shutting_down()),
        // As a rule the server has said why; if not, the client is told.
        End::ByServer(Broken::Closed { .. }) | End::ByClient => None,
        End::ByServer(broken) if replication.boundary.is_between_messages() => {
            Some(reply::broken(broken, None))
        }
        End::ByServer(_) => None,
    };
    tracing::debug!(user, "a replication connection ended");
    if let Some(reply) = told {
        let mut out = Vec::new();
        reply.fatal(&mut out);
        let _ = replication.socket.send_now(&out);
    }
}

impl Replication {
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if !self.outbox.is_empty() && self.poll_to_client(cx).is_pending() {
                // Nothing more is read from the server; the client is listened to all the same.
                ready!(self.poll_client(cx));
                return Poll::Ready(End::ByClient);
            }
            if let Some(broken) = self.over.take() {
                return Poll::Ready(End::ByServer(broken));
            }
            let from_server = self.poll_server(cx);
            let from_client = self.poll_client(cx);
            if from_client.is_ready() {
                return Poll::Ready(End::ByClient);
            }
            if from_server.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Ready when the outbox is empty.
    fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let flushed = ready!(self.socket.poll_flush(cx, &mut self.outbox));
        self.outbox = Vec::new();
        if flushed.is_err() {
            self.over = Some(self.lease.closed());
        }
        Poll::Ready(())
    }

    /// Reads from the server once. Ready if there was something to read.
    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = Scratch::default();
        match ready!(self.lease.socket.poll_read(cx, &mut scratch)) {
            Ok(0) => self.over = Some(self.lease.closed()),
            Ok(len) => {
                let bytes = scratch.filled(len);
                if let Err(bad) = self.boundary.pass(bytes) {
                    self.over = Some(self.lease.nonsense(&bad));
                }
                let sent = self.socket.send_now(bytes).unwrap_or(bytes.len());
                self.outbox.extend_from_slice(&bytes[sent..]);
            }
            Err(error) => self.over = Some(self.lease.broken(error)),
        }
        Poll::Ready(())
    }

    /// Passes on what the client sends for as long as the server takes it. Ready when the client has gone.
    fn poll_client(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let backend = &mut *self.lease;
            if !backend.unsent.is_empty()
                && ready!(backend.socket.poll_flush(cx, &mut backend.unsent)).is_err()
            {
                // What the server still had to say is read, and then its end.
                backend.unsent.clear();
            }
            let mut scratch = Scratch::default();
            let Ok(len @ 1..) = ready!(self.socket.poll_read(cx, &mut scratch)) else {
                return Poll::Ready(());
            };
            let _ = self.lease.send(scratch.filled(len));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_the_server_reads_them() {
        for (value, asked) in [
            (None, false),
            (Some("off"), false),
            (Some("0"), false),
            (Some("true"), true),
            (Some("database"), true),
        ] {
            assert_eq!(is_asked(value), asked, "{value:?}");
        }
    }

    #[test]
    fn a_boundary_is_found_wherever_the_bytes_are_cut() {
        let stream = b"Z\0\0\0\x05IC\0\0\0\x06AB";
        for cut in 0..=stream.len() {
            let mut boundary = Boundary::default();
            boundary.pass(&stream[..cut]).expect("valid");
            assert_eq!(boundary.is_between_messages(), [0, 6, stream.len()].contains(&cut), "{cut}");
            boundary.pass(&stream[cut..]).expect("valid");
            assert!(boundary.is_between_messages());
        }
    }
}
