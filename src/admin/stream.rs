//! `/api/v1/stream`: the state once a second, as Server-Sent Events, made once for all who watch, and not at all while
//! nobody does.
//!
//! Who takes nothing for [`PATIENCE`] events is sent away; that is how long a listener's few unsent events are kept.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{StatusCode, body::Bytes, header::HeaderValue};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{
    answer::{self, Answer, Body},
    guest::Guest,
};

/// Listeners at once.
pub(super) const LISTENERS_MAX: usize = 16;
/// From one event to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Events that may wait for a listener.
const WAITING_MAX: usize = 2;
/// Events that a listener may miss, one after the other.
const PATIENCE: u32 = 10;

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Everybody who watches.
#[derive(Debug)]
pub(super) struct Hub {
    every: Duration,
    state: Mutex<State>,
    /// Somebody has come.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    listeners: Vec<Listener>,
    /// The last event, and when it was made.
    last: Option<(Instant, Bytes)>,
}

#[derive(Debug)]
struct Listener {
    to: mpsc::Sender<Bytes>,
    guest: Arc<Guest>,
    missed: u32,
}

impl Default for Hub {
    fn default() -> Self {
        Self::every(EVERY)
    }
}

impl Hub {
    /// For an event so often.
    pub(super) fn every(every: Duration) -> Self {
        Self { every, state: Mutex::default(), arrived: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets somebody watch, unless too many do.
    pub(super) fn watch(&self, guest: &Arc<Guest>) -> Answer {
        let mut state = self.lock();
        state.listeners.retain(|listener| !listener.to.is_closed());
        if state.listeners.len() >= LISTENERS_MAX {
            let message = format!("{LISTENERS_MAX} others watch already");
            let hint = "Close a page, or ask /api/v1/health and the others as often as needed.";
            return answer::error(StatusCode::SERVICE_UNAVAILABLE, &message, hint);
        }
        let (to, from) = mpsc::channel(WAITING_MAX);
        // Whoever comes between two events need not wait for the next one.
        if let Some((at, event)) = &state.last
            && at.elapsed() < self.every
        {
            let _ = to.try_send(event.clone());
        }
        state.listeners.push(Listener { to, guest: Arc::clone(guest), missed: 0 });
        drop(state);
        self.arrived.notify_one();
        answer::of_type(StatusCode::OK, EVENTS, Body::Pieces(from))
    }

    /// How many watch now.
    #[cfg(test)]
    pub(super) fn listeners(&self) -> usize {
        self.lock().listeners.len()
    }

    /// Makes an event out of what `state` tells, again and again, as long as somebody watches.
    pub(super) async fn serve(&self, state: impl Fn() -> String) {
        loop {
            if !self.is_watched() {
                self.arrived.notified().await;
                continue;
            }
            let rest = self
                .lock()
                .last
                .as_ref()
                .map_or(Duration::ZERO, |(at, _)| self.every.saturating_sub(at.elapsed()));
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
                continue;
            }
            self.send(&state());
        }
    }

    /// Whether anybody watches; who has gone is forgotten.
    fn is_watched(&self) -> bool {
        let mut state = self.lock();
        state.listeners.retain(|listener| !listener.to.is_closed());
        !state.listeners.is_empty()
    }

    /// Sends a state to all; who takes none of what was sent before is let go.
    fn send(&self, told: &str) {
        // JSON in one line, as an event wants it.
        let event = Bytes::from(format!("data: {told}\n\n"));
        let mut state = self.lock();
        state.last = Some((Instant::now(), event.clone()));
        state.listeners.retain_mut(|listener| match listener.to.try_send(event.clone()) {
            Ok(()) => {
                listener.missed = 0;
                listener.guest.asks();
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                listener.missed += 1;
                let is_gone = listener.missed > PATIENCE;
                if is_gone {
                    tracing::debug!("a listener of the stream takes nothing and is sent away");
                    listener.guest.leave.cancel();
                }
                !is_gone
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use hyper::body::Body as _;

    use super::*;

    fn guest(number: u64) -> Arc<Guest> {
        Arc::new(Guest::new(number, None))
    }

    async fn next(answer: &mut Answer) -> Option<String> {
        let frame = std::future::poll_fn(|cx| Pin::new(answer.body_mut()).poll_frame(cx)).await?;
        let bytes = frame.expect("it cannot fail").into_data().expect("data");
        Some(String::from_utf8(bytes.to_vec()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_made_while_nobody_watches_and_once_for_all_who_do() {
        let (hub, made) = (Hub::default(), AtomicUsize::new(0));
        let mut serve = pin!(hub.serve(|| made.fetch_add(1, Ordering::Relaxed).to_string()));
        let wait = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let count = || made.load(Ordering::Relaxed);
        tokio::select! { () = &mut serve => unreachable!(), () = wait(10) => {} }
        assert_eq!(count(), 0);
        let mut all: Vec<Answer> = (0..3).map(|number| hub.watch(&guest(number))).collect();
        let read = async {
            for expected in ["data: 0\n\n", "data: 1\n\n"] {
                for answer in &mut all {
                    assert_eq!(next(answer).await.as_deref(), Some(expected));
                }
            }
            // Whoever comes now gets the last one at once.
            let mut late = hub.watch(&guest(9));
            assert_eq!(next(&mut late).await.as_deref(), Some("data: 1\n\n"));
        };
        tokio::select! { () = &mut serve => unreachable!(), () = read => {} }
        assert_eq!(count(), 2);
        drop(all);
        tokio::select! { () = &mut serve => unreachable!(), () = wait(10) => {} }
        assert_eq!((count(), hub.listeners()), (2, 0), "all have gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_sent_away_and_keeps_nobody_waiting() {
        let hub = Hub::default();
        let (slow, quick) = (guest(1), guest(2));
        let (_kept, mut read) = (hub.watch(&slow), hub.watch(&quick));
        let mut serve = pin!(hub.serve(|| "x".to_owned()));
        let events = async {
            for _ in 0..=(WAITING_MAX as u32 + PATIENCE) {
                assert!(!slow.leave.is_cancelled());
                assert!(next(&mut read).await.is_some());
            }
        };
        tokio::select! { () = &mut serve => unreachable!(), () = events => {} }
        assert!(slow.leave.is_cancelled() && !quick.leave.is_cancelled());
        assert_eq!(hub.listeners(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn listeners_are_bounded() {
        let hub = Hub::default();
        let mut all: Vec<Answer> =
            (0..LISTENERS_MAX as u64).map(|number| hub.watch(&guest(number))).collect();
        assert!(all.iter().all(|answer| answer.status() == StatusCode::OK));
        assert_eq!(hub.watch(&guest(99)).status(), StatusCode::SERVICE_UNAVAILABLE);
        all.pop();
        assert_eq!(hub.watch(&guest(99)).status(), StatusCode::OK);
    }
}
