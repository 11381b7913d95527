//! Where long texts are judged: on threads that serve no session, and only so many at the same time. Whoever finds them
//! all busy has no verdict: the text goes to the primary, and nothing is proven of it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

/// Of a request's texts that are not judged yet, so many bytes are judged on the session's own thread.
pub(crate) const SHORT_TEXTS_BYTES: usize = 8 * 1024;

/// How long a text waits to be judged. A few of the longest are judged in this time.
const WAIT: Duration = Duration::from_millis(100);

/// The right to judge texts elsewhere.
#[derive(Debug)]
pub struct Judges {
    places: Arc<Semaphore>,
}

impl Default for Judges {
    /// Half of the machine at most.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((cores / 2).max(1))
    }
}

impl Judges {
    /// For so many texts at the same time.
    pub fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)) }
    }

    /// Does a piece of work elsewhere; `None` if there is no place for it. Begun, it goes on if it is not waited for
    /// any more, and keeps its place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let place = timeout(WAIT, Arc::clone(&self.places).acquire_owned()).await.ok()?.ok()?;
        let work = move || {
            let done = work();
            drop(place);
            done
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_run_than_there_are_places() {
        let judges = Judges::new(1);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let first = judges.run(move || ended.recv().is_ok());
        tokio::pin!(first);
        tokio::select! {
            biased;
            _ = &mut first => panic!("it is not to end yet"),
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(judges.run(|| 2).await, None);
        end.send(()).expect("it runs");
        assert_eq!(first.await, Some(true));
        assert_eq!(judges.run(|| 3).await, Some(3));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_keeps_its_place() {
        let judges = Judges::new(1);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        {
            let left = judges.run(move || ended.recv().is_ok());
            tokio::pin!(left);
            tokio::select! {
                biased;
                _ = &mut left => panic!("it is not to end yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(judges.places.available_permits(), 0);
        end.send(()).expect("it runs");
        assert_eq!(judges.run(|| 3).await, Some(3));
    }

    #[tokio::test]
    async fn a_panic_gives_its_place_back() {
        let judges = Judges::new(1);
        assert_eq!(judges.run(|| panic!("of a text")).await, None::<()>);
        assert_eq!(judges.run(|| 3).await, Some(3));
    }
}
