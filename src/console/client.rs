//! A console's client: its socket, what is kept for it, and what a command that waits looks at meanwhile.

use std::{collections::HashMap, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use super::{
    Rights,
    command::Command,
    reply,
    table::{Columns, Format, Rows},
};
use crate::{
    session::reply::{self as session_reply, Reply},
    shared::{Current, Snapshot, cancels::CancelKey},
    socket::Socket,
    version::PgBouncer,
    wire::{
        TxStatus,
        frame::{BadFrame, HEADER_BYTES, Header},
        read::Malformed,
    },
};

/// Bytes of a message of the client's.
const MESSAGE_BYTES: usize = 32 * 1024;

/// A client that takes nothing for so long is given up.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that was let in to the console.
pub(crate) struct Entry {
    pub(crate) socket: Socket,
    /// Bytes that it has sent already.
    pub(crate) unread: Vec<u8>,
    /// The messages that it is told first.
    pub(crate) greeting: Vec<u8>,
    pub(crate) key: CancelKey,
    pub(crate) user: String,
    pub(crate) rights: Rights,
    pub(crate) like: PgBouncer,
    pub(crate) current: Arc<Current>,
}

/// How a command, or the console, ends before its time.
pub(super) enum Stopped {
    /// With an error; the console goes on.
    Refused(Reply),
    /// The client has cancelled it; the console goes on.
    Cancelled,
    /// With an error that is the last message.
    Fatal(Reply),
    /// Without a word: nobody is there.
    Gone,
}

impl From<Reply> for Stopped {
    fn from(reply: Reply) -> Self {
        Self::Refused(reply)
    }
}

impl From<Malformed> for Stopped {
    fn from(error: Malformed) -> Self {
        Self::Fatal(session_reply::protocol_violation(&error.to_string()))
    }
}

impl From<std::io::Error> for Stopped {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// A portal: a command, and its rows once it runs.
pub(super) struct Portal {
    pub(super) command: Option<Command>,
    pub(super) formats: Vec<Format>,
    pub(super) running: Option<(Columns, Rows)>,
    pub(super) is_over: bool,
}

/// A console.
pub(super) struct Console {
    pub(super) socket: Socket,
    pub(super) inbox: Vec<u8>,
    pub(super) out: Vec<u8>,
    pub(super) key: CancelKey,
    pub(super) user: String,
    pub(super) rights: Rights,
    /// The version whose columns its client is told, as long as it stays.
    pub(super) like: PgBouncer,
    pub(super) current: Arc<Current>,
    pub(super) status: TxStatus,
    /// A message of the extended protocol has failed: everything up to its Sync is dropped.
    pub(super) skips: bool,
    /// By their names; an empty text is no command.
    pub(super) statements: HashMap<Vec<u8>, Option<Command>>,
    pub(super) portals: HashMap<Vec<u8>, Portal>,
}

impl Console {
    /// The console of a client that was let in.
    pub(super) fn of(entry: Entry) -> Self {
        let Entry { socket, unread, greeting, key, user, rights, like, current } = entry;
        Self {
            socket,
            inbox: unread,
            out: greeting,
            key,
            user,
            rights,
            like,
            current,
            status: TxStatus::Idle,
            skips: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
        }
    }

    /// The snapshot in force.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load()
    }

    pub(super) fn is_admin(&self) -> bool {
        self.rights == Rights::Admin
    }

    /// The user, and where from.
    pub(super) fn who(&self) -> (&str, String) {
        (&self.user, self.socket.peer())
    }

    /// The next message: its tag and body. What is to be sent is sent before it is waited for.
    pub(super) async fn next_message(&mut self) -> Result<(u8, Vec<u8>), Stopped> {
        loop {
            let bad = |error: BadFrame| Stopped::Fatal(session_reply::protocol_violation(&error.to_string()));
            if let Some(header) = Header::peek_client(&self.inbox).map_err(bad)? {
                if header.len > MESSAGE_BYTES {
                    return Err(Stopped::Fatal(reply::too_long(MESSAGE_BYTES)));
                }
                if self.inbox.len() >= header.len {
                    let rest = self.inbox.split_off(header.len);
                    let whole = std::mem::replace(&mut self.inbox, rest);
                    return Ok((header.tag, whole[HEADER_BYTES..].to_vec()));
                }
            }
            self.flush().await?;
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), Stopped> {
        let Self { socket, inbox, key, current, .. } = self;
        let snapshot = current.load();
        let killed = poll_fn(|cx| {
            key.set_waker(cx.waker());
            if key.is_killed() { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            // Cancel safe: what was read is in the inbox.
            more = socket.read_more(inbox) => if more? { Ok(()) } else { Err(Stopped::Gone) },
            () = killed => Err(Stopped::Fatal(session_reply::shutting_down())),
            () = snapshot.draining.cancelled() => Err(Stopped::Fatal(session_reply::shutting_down())),
        }
    }

    /// Sends what is to be sent.
    pub(super) async fn flush(&mut self) -> Result<(), Stopped> {
        if self.out.is_empty() {
            return Ok(());
        }
        let out = std::mem::take(&mut self.out);
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send_all(&out)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Stopped::Gone),
        }
    }

    /// A command waits for something: a cancel of the client's ends that.
    pub(super) fn begin_wait(&self) {
        self.key.waits();
    }

    pub(super) fn end_wait(&self) {
        self.key.holds_none();
    }

    /// Whether a command that waits is to go on waiting.
    pub(super) fn look_while_waiting(&mut self) -> Result<(), Stopped> {
        if self.key.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        if self.key.is_killed() || self.current.load().is_draining() {
            return Err(Stopped::Fatal(session_reply::shutting_down()));
        }
        let mut buffer = [0; 512];
        while self.inbox.len() < MESSAGE_BYTES {
            match self.socket.read_now(&mut buffer) {
                None => break,
                Some(Ok(len @ 1..)) => self.inbox.extend_from_slice(&buffer[..len]),
                Some(_) => return Err(Stopped::Gone),
            }
        }
        Ok(())
    }
}
