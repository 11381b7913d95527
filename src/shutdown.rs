//! Going down: SIGTERM and SIGINT drain, a second signal ends at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

/// The signals that end the program.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        tokio::select! {
            // Cancel safe: signals that were not received are merged into the next one.
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits until every task has ended, `grace` is over, or another signal comes. Returns whether all have ended.
pub async fn drained(tasks: &TaskTracker, grace: Duration, signals: &mut Signals) -> bool {
    tokio::select! {
        () = tasks.wait() => true,
        () = tokio::time::sleep(grace) => false,
        () = signals.next() => false,
    }
}
