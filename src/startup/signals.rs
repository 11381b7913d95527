//! What signals ask for: SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads, SIGUSR1 changes what is logged.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::shared::Process;

/// The signals that the program listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: Signal,
}

/// The wish that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To go down.
    End,
    /// To read the configuration again.
    Reload,
    /// To log more, or less again.
    Turn,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            // Cancel safe: signals that were not received are merged into the next one.
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
            _ = self.user.recv() => Wish::Turn,
        }
    }

    async fn end_while_draining(&mut self) {
        loop {
            match self.next().await {
                Wish::End => return,
                Wish::Reload => {
                    tracing::warn!("SIGHUP while going down: the configuration is not read again");
                }
                Wish::Turn => tracing::info!("SIGUSR1 while going down: the log stays as it is"),
            }
        }
    }

    /// Waits for one that asks for the end; others are kept for later.
    pub async fn end(&mut self) {
        tokio::select! {
            // Cancel safe: as above.
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// How often it is looked at whether clients have left.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until all clients have left, or a signal asks for the end.
pub async fn left(process: &Process, signals: &mut Signals) {
    while process.clients() > 0 {
        tokio::select! {
            // Cancel safe.
            () = tokio::time::sleep(LOOK) => {}
            // Cancel safe: signals that were not received are merged into the next one.
            () = signals.end_while_draining() => return,
        }
    }
}

/// Waits until every task has ended, `grace` is over, or another signal comes. Returns whether all have ended.
pub async fn drained(tasks: &TaskTracker, grace: Duration, signals: &mut Signals) -> bool {
    tokio::select! {
        () = tasks.wait() => true,
        () = tokio::time::sleep(grace) => false,
        () = signals.end_while_draining() => false,
    }
}
