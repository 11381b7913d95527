//! Cancelling what a backend does, without ever hitting what it does for somebody else afterwards.
//!
//! A cancel names a process, not a statement. So whoever sends one registers with the backend first, and a
//! backend with a cancel under way is not given to anybody else before the server has dealt with it: the server
//! closes the cancel's connection once it has signalled the process (`processCancelRequest`).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    Server,
    connect_error::ConnectError,
    dial::{self, Route},
    doing::Doing,
};
use crate::wire::message;

/// How to reach the server process behind a backend.
#[derive(Debug)]
pub struct Target {
    /// The server.
    pub server: Arc<Server>,
    /// How the backend was reached.
    route: Route,
    /// The key that the server gave.
    pub process_id: i32,
    /// The secret half of the key.
    pub secret: Box<[u8]>,
    under_way: AtomicUsize,
    sent: AtomicUsize,
    /// A cancel left for the server that never said it has dealt with it: it may still strike.
    lost: AtomicBool,
    ended: Notify,
    /// Notes of whoever holds the backend on what it does with it.
    pub doing: Doing,
}

/// A registered cancel. Dropping it says that the server has dealt with it, or never will; or that it is lost, if it
/// was given up on its way.
#[derive(Debug)]
pub struct UnderWay {
    target: Arc<Target>,
    on_its_way: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.on_its_way {
            self.target.lost.store(true, Ordering::Release);
        }
        self.target.under_way.fetch_sub(1, Ordering::AcqRel);
        self.target.ended.notify_waiters();
    }
}

impl Target {
    /// For a backend with this key.
    pub fn new(server: Arc<Server>, route: Route, process_id: i32, secret: Box<[u8]>) -> Self {
        Self {
            server,
            route,
            process_id,
            secret,
            under_way: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            ended: Notify::new(),
            doing: Doing::default(),
        }
    }

    /// The address of its end of the connection; `None` of a Unix socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.route.address
    }

    /// Cancels that are under way.
    pub fn cancels_under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Registers a cancel. Must happen while the session that is to be cancelled holds the backend.
    pub fn register(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.sent.fetch_add(1, Ordering::AcqRel);
        UnderWay { target: Arc::clone(self), on_its_way: false }
    }

    /// Whether a cancel was registered since the last [`Target::settled`].
    pub fn was_hit(&self) -> bool {
        self.sent.load(Ordering::Acquire) > 0
    }

    /// Waits until no cancel is under way, and forgets them. False if one was lost: the backend is of no use to
    /// anybody else then.
    pub async fn settled(&self) -> bool {
        loop {
            let ended = self.ended.notified();
            if self.under_way.load(Ordering::Acquire) == 0 {
                break;
            }
            ended.await;
        }
        self.sent.store(0, Ordering::Release);
        !self.lost.load(Ordering::Acquire)
    }
}

impl UnderWay {
    /// Sends the cancel and waits until the server has dealt with it, at most for `timeout`.
    ///
    /// Cancel safe: dropped on the way, it is counted as lost.
    pub async fn send(mut self, timeout: Duration) {
        let target = Arc::clone(&self.target);
        let on_its_way = &mut self.on_its_way;
        let exchange = async {
            let Route { host, address, encryption } = &target.route;
            let mut socket = dial::open(&target.server, host, *encryption, *address).await?.socket;
            let mut request = Vec::new();
            message::cancel_request(&mut request, target.process_id, &target.secret);
            *on_its_way = true;
            socket.send_all(&request).await?;
            let mut nothing = Vec::new();
            while socket.read_more(&mut nothing).await? {
                nothing.clear();
            }
            // The server closed in good order: it has signalled the process.
            *on_its_way = false;
            Ok::<(), ConnectError>(())
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
