//! The snapshot in force, and the word that another one is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::snapshot::Snapshot;

/// The snapshot in force.
#[derive(Debug)]
pub struct Current {
    snapshot: ArcSwap<Snapshot>,
    /// The snapshot's number, to be asked before every request.
    epoch: AtomicU64,
    /// Tells of a new one.
    replaced: Notify,
}

impl Current {
    /// Begins with this snapshot.
    pub fn new(shared: Arc<Snapshot>) -> Self {
        let epoch = AtomicU64::new(shared.epoch);
        Self { snapshot: ArcSwap::new(shared), epoch, replaced: Notify::new() }
    }

    /// The snapshot in force.
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts a snapshot in force, and wakes every session so that idle ones do not keep the old one alive.
    pub fn replace(&self, shared: &Arc<Snapshot>) {
        let epoch = shared.epoch;
        self.snapshot.store(Arc::clone(shared));
        // After the snapshot, so that who sees the number sees the snapshot.
        self.epoch.store(epoch, Ordering::Release);
        shared.cancels.wake_all();
        self.replaced.notify_waiters();
    }

    /// Waits until another snapshot is in force.
    ///
    /// Cancel safe.
    pub async fn replaced(&self, shared: &Snapshot) {
        loop {
            // Hears of what happens from here on.
            let replaced = self.replaced.notified();
            if !self.is_current(shared) {
                return;
            }
            replaced.await;
        }
    }

    /// Whether a newer snapshot is in force, without a pool of this name.
    pub(crate) fn lacks_pool(&self, shared: &Snapshot, name: &str) -> bool {
        !self.is_current(shared) && self.load().pool_named(name).is_none()
    }

    pub(crate) fn is_current(&self, shared: &Snapshot) -> bool {
        self.epoch.load(Ordering::Acquire) == shared.epoch
    }
}
