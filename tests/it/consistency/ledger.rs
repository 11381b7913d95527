//! What has been acknowledged, and what a session has seen: from both follows what a read must find at least.
//!
//! Versions are numbers of their writer, one after the other over all its keys. So whoever has seen one of them has seen
//! everything that this writer was told before to be done, in whichever form.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

/// A form by its number among all, and a key, which is its writer's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cell {
    pub(super) form: usize,
    pub(super) writer: usize,
}

/// Acknowledged versions of each cell, in their order.
#[derive(Default)]
pub(super) struct Ledger {
    acknowledged: Mutex<HashMap<Cell, Vec<u64>>>,
}

/// What one session has seen and written.
#[derive(Default)]
pub(super) struct Seen {
    /// Of each cell the newest version.
    cells: HashMap<Cell, u64>,
    /// Of each writer the newest version, in whichever cell.
    writers: HashMap<usize, u64>,
}

impl Ledger {
    /// A write is acknowledged: whoever asks from now on gets at least this.
    pub(super) fn acknowledge(&self, cell: Cell, version: u64) {
        self.lock().entry(cell).or_default().push(version);
    }

    /// The newest version that is acknowledged.
    pub(super) fn bound(&self, cell: Cell) -> u64 {
        self.up_to(cell, u64::MAX)
    }

    /// The newest one that is not above `version`.
    fn up_to(&self, cell: Cell, version: u64) -> u64 {
        let cells = self.lock();
        let Some(versions) = cells.get(&cell) else { return 0 };
        let count = versions.partition_point(|known| *known <= version);
        count.checked_sub(1).map_or(0, |last| versions[last])
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Cell, Vec<u64>>> {
        self.acknowledged.lock().expect("no panic while held")
    }
}

impl Seen {
    /// What a read of this session must find at least, if the session never goes back.
    pub(super) fn bound(&self, ledger: &Ledger, cell: Cell) -> u64 {
        let own = self.cells.get(&cell).copied().unwrap_or(0);
        let of_writer = self.writers.get(&cell.writer).copied().unwrap_or(0);
        own.max(ledger.up_to(cell, of_writer))
    }

    /// It has seen or written this.
    pub(super) fn note(&mut self, cell: Cell, version: u64) {
        for newest in [self.cells.entry(cell).or_default(), self.writers.entry(cell.writer).or_default()] {
            *newest = version.max(*newest);
        }
    }
}

#[test]
fn a_session_that_has_seen_a_write_has_seen_what_came_before() {
    let ledger = Ledger::default();
    let [one, two, other] = [(0, 0), (1, 0), (0, 1)].map(|(form, writer)| Cell { form, writer });
    ledger.acknowledge(one, 1);
    ledger.acknowledge(two, 2);
    ledger.acknowledge(one, 4);
    assert_eq!([one, two, other].map(|cell| ledger.bound(cell)), [4, 2, 0]);

    let mut seen = Seen::default();
    assert_eq!([one, two, other].map(|cell| seen.bound(&ledger, cell)), [0, 0, 0]);
    seen.note(two, 2);
    assert_eq!([one, two, other].map(|cell| seen.bound(&ledger, cell)), [1, 2, 0]);
    // One that was never acknowledged.
    seen.note(two, 3);
    seen.note(two, 2);
    assert_eq!([one, two, other].map(|cell| seen.bound(&ledger, cell)), [1, 3, 0]);
    seen.note(one, 4);
    assert_eq!([one, two, other].map(|cell| seen.bound(&ledger, cell)), [4, 3, 0]);
}
