//! Cancelling what a backend does, without ever hitting what it does for somebody else afterwards.
//!
//! A cancel names a process, not a statement. So whoever sends one registers with the backend first, and a
//! backend with a cancel under way is not given to anybody else before the server has dealt with it: the server
//! closes the cancel's connection once it has signalled the process (`processCancelRequest`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{Server, connect};
use crate::wire::message;

/// How to reach the server process behind a backend.
#[derive(Debug)]
pub struct Target {
    /// The server.
    pub server: Arc<Server>,
    /// The key that the server gave.
    pub process_id: i32,
    /// Its secret half.
    pub secret: Box<[u8]>,
    under_way: AtomicUsize,
    sent: AtomicUsize,
    ended: Notify,
}

/// A registered cancel. Dropping it says that the server has dealt with it, or never will.
#[derive(Debug)]
pub struct UnderWay(Arc<Target>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.ended.notify_waiters();
    }
}

impl Target {
    /// For a backend with this key.
    pub fn new(server: Arc<Server>, process_id: i32, secret: Box<[u8]>) -> Self {
        Self {
            server,
            process_id,
            secret,
            under_way: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// Registers a cancel. Must happen while the session that is to be cancelled holds the backend.
    pub fn register(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.sent.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(self))
    }

    /// Whether a cancel was registered since the last [`Target::settled`].
    pub fn was_hit(&self) -> bool {
        self.sent.load(Ordering::Acquire) > 0
    }

    /// Waits until no cancel is under way, and forgets them.
    pub async fn settled(&self) {
        loop {
            let ended = self.ended.notified();
            if self.under_way.load(Ordering::Acquire) == 0 {
                break;
            }
            ended.await;
        }
        self.sent.store(0, Ordering::Release);
    }
}

impl UnderWay {
    /// Sends the cancel and waits until the server has dealt with it, at most for `timeout`.
    pub async fn send(self, timeout: Duration) {
        let target = &self.0;
        let exchange = async {
            let mut socket = connect::open_socket(&target.server).await?;
            let mut request = Vec::new();
            message::cancel_request(&mut request, target.process_id, &target.secret);
            socket.send_all(&request).await?;
            let mut nothing = Vec::new();
            while socket.read_more(&mut nothing).await? {
                nothing.clear();
            }
            std::io::Result::Ok(())
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(server = %target.server.name, %error, "a cancel could not be sent");
            }
            Err(_) => tracing::warn!(server = %target.server.name, "a cancel was not answered in time"),
        }
    }
}
