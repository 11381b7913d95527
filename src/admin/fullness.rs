//! Pools for which clients wait: a line in the log, and so an event, when that begins to last, and when it is over.
//!
//! Looks once a second at figures that the pools have anyway. What lasts less than [`FULL_AFTER`] is how a pool works.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::shared::{Current, Snapshot};

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row at which clients wait, before it is told.
const FULL_AFTER: u32 = 3;
/// Looks in a row at which none does, before that is told.
const ROOM_AFTER: u32 = 10;

/// A change that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Full,
    Room,
}

/// The last looks at a pool.
#[derive(Debug, Default)]
struct Looks {
    /// How many in a row were other than what was told last.
    others: u32,
    full_since: Option<Instant>,
}

impl Looks {
    /// Notes whether clients wait.
    fn note(&mut self, waits: bool) -> Option<Change> {
        let is_full = self.full_since.is_some();
        self.others = if waits == is_full { 0 } else { self.others + 1 };
        let (after, change) = if is_full { (ROOM_AFTER, Change::Room) } else { (FULL_AFTER, Change::Full) };
        (self.others >= after).then(|| {
            self.others = 0;
            change
        })
    }
}

/// Looks for as long as it is polled.
pub(super) async fn watch(current: &Current) {
    let mut pools: HashMap<String, Looks> = HashMap::new();
    loop {
        look(&current.load(), &mut pools);
        tokio::time::sleep(EVERY).await;
    }
}

fn look(snapshot: &Snapshot, pools: &mut HashMap<String, Looks>) {
    pools.retain(|name, _| snapshot.pool_named(name).is_some());
    for pool in &snapshot.pools {
        let figures: Vec<_> = pool.members.iter().map(|member| member.figures()).collect();
        let waiting: usize = figures.iter().map(|figures| figures.waiting).sum();
        let looks = pools.entry(pool.name.clone()).or_default();
        match looks.note(waiting > 0) {
            None => {}
            Some(Change::Full) => {
                looks.full_since = Some(Instant::now());
                let active: usize = figures.iter().map(|figures| figures.leased).sum();
                let max_connections: usize = figures.iter().map(|figures| figures.max_connections).sum();
                tracing::warn!(
                    pool = pool.name,
                    waiting,
                    active,
                    max_connections,
                    "clients wait for the pool"
                );
            }
            Some(Change::Room) => {
                let since = looks.full_since.take();
                let lasted = since.map_or(0, |since| since.elapsed().as_secs());
                tracing::info!(
                    pool = pool.name,
                    lasted_seconds = lasted,
                    "nobody waits for the pool any more"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_is_told() {
        let mut looks = Looks::default();
        for waits in [true, true, false, true, true] {
            assert_eq!(looks.note(waits), None);
        }
        assert_eq!(looks.note(true), Some(Change::Full));
        looks.full_since = Some(Instant::now());
        for _ in 0..3 {
            for _ in 1..ROOM_AFTER {
                assert_eq!(looks.note(false), None);
            }
            assert_eq!(looks.note(true), None, "it is still told of as full");
        }
        for _ in 1..ROOM_AFTER {
            assert_eq!(looks.note(false), None);
        }
        assert_eq!(looks.note(false), Some(Change::Room));
    }
}
