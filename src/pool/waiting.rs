//! A session's wait for a backend.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{sync::oneshot, time::Instant};

use super::{lease::Lease, queue::Outcome, refusal::Refusal, server_pool::ServerPool};

/// A place in a queue. Dropped, it is given up; a backend that was handed over just then goes back.
#[derive(Debug)]
pub struct Waiting {
    pub(super) pool: Arc<ServerPool>,
    pub(super) ticket: u64,
    pub(super) since: Instant,
    pub(super) from: oneshot::Receiver<Outcome>,
    /// The outcome has been taken: no place in the queue is left to give up.
    pub(super) is_over: bool,
}

impl Future for Waiting {
    type Output = Result<Lease, Refusal>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(outcome) = Pin::new(&mut self.from).poll(cx) else { return Poll::Pending };
        self.is_over = true;
        Poll::Ready(match outcome {
            Ok(Ok(backend)) => {
                self.pool.stats().wait.observe(self.since.elapsed());
                Ok(Lease::new(backend, Arc::clone(&self.pool)))
            }
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Err(Refusal::Closing),
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.pool.leave_queue(self.ticket);
        self.from.close();
        if let Ok(Ok(backend)) = self.from.try_recv() {
            self.pool.give_back(backend);
        }
    }
}
