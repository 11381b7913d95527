//! One connection over HTTP, as the server and what it serves see it.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// One connection.
#[derive(Debug)]
pub(super) struct Guest {
    /// Which one it is.
    pub(super) number: u64,
    /// Whether it comes to an address that only this machine has.
    pub(super) is_local: bool,
    /// Ends it.
    pub(super) leave: CancellationToken,
    since: Instant,
    /// When it last asked for something, in microseconds after `since`; zero before the first time.
    asked: AtomicU64,
}

impl Guest {
    /// A connection that has come to this address.
    pub(super) fn new(number: u64, to: Option<IpAddr>) -> Self {
        Self {
            number,
            is_local: to.is_some_and(|to| to.to_canonical().is_loopback()),
            leave: CancellationToken::new(),
            since: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }

    /// Notes that it asks for something, or takes some of what it has asked for.
    pub(super) fn asks(&self) {
        self.asked.store(self.since.elapsed().as_micros() as u64 + 1, Ordering::Relaxed);
    }

    /// Whether it has ever asked for anything.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    /// When it was last heard of; who has never asked for anything comes first.
    pub(super) fn heard(&self) -> (bool, Instant) {
        let asked = self.asked.load(Ordering::Relaxed);
        (asked > 0, self.since + Duration::from_micros(asked))
    }
}
