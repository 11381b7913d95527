//! What bounded memories throw out to make room.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::Lifecycle;

/// Counter of what one bounded memory has thrown out. Copies count together, so that a memory which a reload makes anew
/// goes on counting.
#[derive(Clone, Debug, Default)]
pub struct Evictions(Arc<AtomicU64>);

impl Evictions {
    /// Counts so many.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The count since the start.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<K, V> Lifecycle<K, V> for Evictions {
    /// The last one to go, freed when the lock is not held any more.
    type RequestState = Option<(K, V)>;

    // Unlike `on_evict`, not called for a value in whose place another one comes.
    fn before_evict(&self, _: &mut Self::RequestState, _: &K, _: &mut V) {
        self.add(1);
    }

    fn on_evict(&self, state: &mut Self::RequestState, key: K, value: V) {
        *state = Some((key, value));
    }
}

#[cfg(test)]
mod tests {
    use quick_cache::{DefaultHashBuilder, UnitWeighter, sync::Cache};

    use super::*;

    #[test]
    fn what_goes_is_counted_and_what_is_replaced_is_not() {
        let evictions = Evictions::default();
        let cache: Cache<u32, u32, _, _, _> =
            Cache::with(10, 10, UnitWeighter, DefaultHashBuilder::default(), evictions.clone());
        for round in 0..3 {
            cache.insert(1, round);
        }
        assert_eq!((cache.len(), evictions.read()), (1, 0));
        (2..1_000).for_each(|key| cache.insert(key, 0));
        assert_eq!(cache.len() as u64 + evictions.read(), 999);
        evictions.add(2);
        assert_eq!(cache.len() as u64 + evictions.read(), 1_001);
    }
}
