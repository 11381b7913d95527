//! The client's side of a session: its socket, and the bytes from and for it.

use std::{
    io,
    task::{Context, Poll},
    time::Instant,
};

use super::{kept::Kept, orphan::Presence};
use crate::{
    shared::Snapshot,
    socket::{Scratch, Socket, silence::Silence},
    sql::HiddenSearch,
};

/// The client's side: its socket, and what came from it or is to go to it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) socket: Socket,
    /// The task is woken by the next event of the socket ([`Socket::poll_read_watched`]).
    is_watched: bool,
    /// Bytes from the client that have not been sent on. Empty when idle.
    pub(super) inbox: Vec<u8>,
    /// What the inbox counts of what all sessions may keep.
    pub(super) kept: Kept,
    /// Bytes for the client that its socket has not taken. Empty when idle.
    pub(super) outbox: Vec<u8>,
    /// Bytes of the client's current message still to be sent on.
    pub(super) streaming: usize,
    /// What is looked for in it, if it is a text.
    pub(super) search: Option<Box<HiddenSearch>>,
    /// A refused extended request: everything up to its Sync is dropped.
    pub(super) skipping: bool,
    /// Whether the client is still there.
    pub(super) presence: Presence,
    /// When its requests end at the latest, once it has left.
    pub(super) until: Option<Box<Instant>>,
    /// Whether the client still acknowledges what it is sent.
    pub(super) silence: Silence,
}

impl Client {
    /// A client that was let in on this socket, has sent this already, and is greeted so.
    pub(crate) fn new(socket: Socket, unread: Vec<u8>, greeting: Vec<u8>, shared: &Snapshot) -> Self {
        Self {
            socket,
            is_watched: false,
            // An empty buffer still owns its memory.
            inbox: if unread.is_empty() { Vec::new() } else { unread },
            kept: Kept::of(&shared.kept),
            outbox: greeting,
            streaming: 0,
            search: None,
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
}
