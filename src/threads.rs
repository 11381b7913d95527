//! The runtime's threads: which one a socket belongs to, and starting tasks there.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The runtime thread that a socket is registered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home(pub u16);

/// Starts tasks on the threads of the program, all under one tracker.
#[derive(Clone, Debug)]
pub struct Spawner {
    /// Ends when every task has.
    pub tracker: TaskTracker,
    /// One for each thread.
    pub threads: Arc<[Handle]>,
}

impl Spawner {
    /// Starts a task on a thread.
    pub fn spawn(&self, home: Home, task: impl Future<Output = ()> + Send + 'static) {
        let at = usize::from(home.0) % self.threads.len();
        self.tracker.spawn_on(task, &self.threads[at]);
    }

    /// Whether every thread runs a trivial task within this time.
    pub async fn is_well(&self, within: Duration) -> bool {
        let signs = Self { tracker: TaskTracker::new(), threads: Arc::clone(&self.threads) };
        for thread in 0..signs.threads.len() {
            signs.spawn(Home(thread as u16), async {});
        }
        signs.tracker.close();
        tokio::time::timeout(within, signs.tracker.wait()).await.is_ok()
    }
}
