//! Going down: SIGTERM and SIGINT drain, a second signal ends at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

/// The signals that end the program.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                // Cancel safe: signals that were not received are merged into the next one.
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // By default it would end the process, and those who send it ask for the opposite.
                _ = self.hangup.recv() => tracing::warn!("SIGHUP: reloading is not supported yet; nothing was changed"),
            }
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
