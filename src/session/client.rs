//! The client's side of a session: its socket, and the bytes from and for it.

use std::{
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{inbox::Inbox, kept::Kept};
use crate::{
    shared::Snapshot,
    socket::{Scratch, Socket, silence::Silence},
    wire::message,
};

/// The client's side: its socket, and what came from it or is to go to it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) socket: Socket,
    /// The task is woken by the next event of the socket ([`Socket::poll_read_watched`]).
    is_watched: bool,
    /// Bytes from the client that have not been sent on. Empty when idle.
    pub(super) inbox: Inbox,
    /// The inbox's part of the bytes that all sessions may keep.
    pub(super) kept: Kept,
    /// Bytes for the client that its socket has not taken. Empty when idle.
    pub(super) outbox: Vec<u8>,
    /// Bytes of the client's current message still to be sent on.
    pub(super) streaming: usize,
    /// A refused extended request: everything up to its Sync is dropped.
    pub(super) skipping: bool,
    /// Whether the client is still there.
    pub(super) presence: Presence,
    /// When its requests end at the latest, once it has left.
    pub(super) until: Option<Box<Instant>>,
    /// Whether the client still acknowledges what it is sent.
    pub(super) silence: Silence,
}

/// Where the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Presence {
    /// The client may send, and is sent to.
    #[default]
    Here,
    /// The client has closed its sending side, and perhaps more than that.
    Closed,
    /// The client's connection has failed: nothing is sent to it any more.
    Gone,
}

impl Presence {
    pub(super) const fn is_here(self) -> bool {
        matches!(self, Self::Here)
    }

    pub(super) const fn is_gone(self) -> bool {
        matches!(self, Self::Gone)
    }
}

impl Client {
    /// A client that was let in on this socket, has sent this already, and is greeted so.
    pub(crate) fn new(socket: Socket, unread: Vec<u8>, greeting: Vec<u8>, snapshot: &Snapshot) -> Self {
        Self {
            socket,
            is_watched: false,
            inbox: Inbox::of(unread),
            kept: Kept::of(&snapshot.kept),
            outbox: greeting,
            streaming: 0,
            skipping: false,
            presence: Presence::Here,
            until: None,
            silence: Silence::default(),
        }
    }

    /// Reads once from the socket: nobody else does, as long as there is a session.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_read_watched(cx, scratch, &mut self.is_watched)
    }

    /// Takes a request's bytes, so many, out of the inbox.
    pub(super) fn take_request(&mut self, len: usize) -> Vec<u8> {
        let taken = self.inbox.take(len);
        self.kept.shrink_to(self.inbox.kept());
        taken
    }

    /// Tells the client of parameters that are others than it was told, as a server does (ParameterStatus).
    pub(super) fn tell_changed(&mut self, told: &[(String, String)], parameters: &[(String, String)]) {
        for (name, value) in parameters.iter().filter(|parameter| !told.contains(parameter)) {
            if name != "in_hot_standby" {
                message::parameter_status(&mut self.outbox, name, value);
            }
        }
    }

    /// The client leaves, one way or the other: from the first time on its requests have so long.
    pub(super) fn leaves(&mut self, presence: Presence, limit: Duration) {
        self.presence = presence;
        self.until.get_or_insert_with(|| (Instant::now() + limit).into());
    }

    /// The time that is left for its requests.
    pub(super) fn time_left(&self) -> Duration {
        let left = |until: &Instant| until.saturating_duration_since(Instant::now());
        self.until.as_deref().map_or(Duration::MAX, left)
    }
}
