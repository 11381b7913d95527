//! The snapshot of a catalog that may be gone by, and beside it the epoch of most texts, which is looked at for each request.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};

use super::reading::Reading;
use crate::sql::Catalog;

/// The latest snapshot; an empty one while definitions are changing.
#[derive(Debug, Default)]
pub(super) struct Latest {
    catalog: ArcSwap<Catalog>,
    /// The epoch of all texts, if it is one and there is one; else 0.
    epoch: AtomicU64,
}

impl Latest {
    pub(super) fn load(&self) -> Guard<Arc<Catalog>> {
        self.catalog.load()
    }

    /// Puts this one in the place of the last. Only who holds the lock of the reading does, one at a time.
    pub(super) fn store(&self, catalog: Arc<Catalog>, _: &mut Reading) {
        // Who still sees the old epoch has come before the new snapshot.
        self.epoch.store(0, Ordering::SeqCst);
        let epoch = catalog.common_epoch().unwrap_or_default();
        self.catalog.store(catalog);
        self.epoch.store(epoch, Ordering::SeqCst);
    }

    /// The epoch by which the verdict of this text is cached.
    #[inline]
    pub(super) fn epoch_of(&self, text: &[u8]) -> u64 {
        match self.epoch.load(Ordering::SeqCst) {
            0 => self.load().epoch_of(text),
            epoch => epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_of_a_text_is_that_of_the_latest_snapshot() {
        let latest = Latest::default();
        let mut reading = Reading::new();
        let plain = Catalog::from_rows(7, [("", ""); 0]);
        let added = plain.with_additions(8, [Box::from("items")]);
        let later = Catalog::from_rows(9, [("", ""); 0]);
        for (catalog, of_items, of_others) in
            [(Catalog::empty(), 0, 0), (plain, 7, 7), (added, 8, 7), (later, 9, 9), (Catalog::empty(), 0, 0)]
        {
            latest.store(Arc::new(catalog), &mut reading);
            assert_eq!(latest.epoch_of(b"SELECT * FROM items"), of_items);
            assert_eq!(latest.epoch_of(b"SELECT 1"), of_others);
        }
    }
}
