//! What is mostly done at once, and sometimes has to wait: a future that is made only then.
//!
//! The future of an idle session is as large as that of its longest way: it has this in the place of all that may have to
//! wait.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// It is done, or has to wait.
pub(super) enum Soon<'s, E> {
    /// With this outcome, which is taken out once.
    Now(Option<Result<(), E>>),
    /// As long as this does.
    Later(Pin<Box<dyn Future<Output = Result<(), E>> + Send + 's>>),
}

impl<'s, E> Soon<'s, E> {
    /// It is done.
    pub(super) const fn now(outcome: Result<(), E>) -> Self {
        Self::Now(Some(outcome))
    }

    /// It has to wait.
    pub(super) fn later(waits: impl Future<Output = Result<(), E>> + Send + 's) -> Self {
        Self::Later(Box::pin(waits))
    }
}

/// The outcome is not looked at in place.
impl<E> Unpin for Soon<'_, E> {}

impl<E> Future for Soon<'_, E> {
    type Output = Result<(), E>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Now(outcome) => {
                Poll::Ready(outcome.take().expect("a future that was ready is not polled again"))
            }
            Self::Later(waits) => waits.as_mut().poll(cx),
        }
    }
}
