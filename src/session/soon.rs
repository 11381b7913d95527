//! What is mostly done at once, and sometimes has to wait: a future that is made only then.
//!
//! The future of an idle session is as large as that of its longest way: it has this in the place of all that may have to
//! wait.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// An outcome, or what has to wait for it.
pub(super) enum Soon<'s, O> {
    /// The outcome, which is taken out once.
    Now(Option<O>),
    /// The wait for it.
    Later(Pin<Box<dyn Future<Output = O> + Send + 's>>),
}

impl<'s, O> Soon<'s, O> {
    /// An outcome that is there already.
    pub(super) const fn now(outcome: O) -> Self {
        Self::Now(Some(outcome))
    }

    /// The outcome has to be waited for.
    pub(super) fn later(waits: impl Future<Output = O> + Send + 's) -> Self {
        Self::Later(Box::pin(waits))
    }
}

/// The outcome is not looked at in place.
impl<O> Unpin for Soon<'_, O> {}

impl<O> Future for Soon<'_, O> {
    type Output = O;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        match &mut *self {
            Self::Now(outcome) => {
                Poll::Ready(outcome.take().expect("a future that was ready is not polled again"))
            }
            Self::Later(waits) => waits.as_mut().poll(cx),
        }
    }
}
