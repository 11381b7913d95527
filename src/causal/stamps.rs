//! When which table was last written, as far as clients may know.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::sql::Tables;

/// A commit whose connection was lost may still come about for so long.
const DOUBT_LASTS: Duration = Duration::from_secs(60);

/// So many such commits are remembered one by one; more are taken for one of all tables.
const DOUBTS_MAX: usize = 1000;

/// Tables of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Which tables.
    pub tables: Tables,
    /// Stands for the database.
    pub database: u16,
}

impl Scope {
    /// Every table of every database.
    pub const ALL: Self = Self { tables: Tables::ALL, database: 0 };
}

/// One slot: when its tables were written, and how many commits of them are under way.
#[derive(Debug, Default)]
struct Slot {
    stamp: AtomicU64,
    /// Commits that may have come about, whose clients have not been told.
    committing: AtomicU32,
}

impl Slot {
    /// The tables of the slot are written at this time, or were later. Many are written at the same time by this clock, which
    /// moves seldom: to see that it has been noted costs less than to note it again. Whoever comes to know of the write sees
    /// the same or a later stamp, as if it had been noted anew: stamps never go back, and whoever looks later sees no less.
    fn stamp_at(&self, time: u64) {
        if self.stamp.load(SeqCst) < time {
            self.stamp.fetch_max(time, SeqCst);
        }
    }
}

/// A commit that may still come about.
#[derive(Debug)]
struct Doubt {
    scope: Scope,
    until: Instant,
}

/// The time of the last write of each table. Times are those of a clock that [`Stamps::tick`] moves.
#[derive(Debug)]
pub struct Stamps {
    clock: AtomicU64,
    slots: Box<[Slot]>,
    /// Writes of all tables at once.
    all: Slot,
    /// Writes of whichever table.
    any: Slot,
    /// When what was sampled before came to mean nothing.
    voided: AtomicU64,
    doubts: Mutex<Vec<Doubt>>,
}

impl Default for Stamps {
    fn default() -> Self {
        let stamps = Self {
            clock: AtomicU64::new(1),
            slots: (0..Tables::SLOTS).map(|_| Slot::default()).collect(),
            all: Slot::default(),
            any: Slot::default(),
            voided: AtomicU64::new(0),
            doubts: Mutex::default(),
        };
        stamps.void();
        stamps
    }
}

impl Stamps {
    /// The time.
    pub fn now(&self) -> u64 {
        self.clock.load(SeqCst)
    }

    /// Moves the clock on, and returns the new time: it is later than that of every stamp that is there now.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, SeqCst) + 1
    }

    /// These tables are written, as clients may know from now on. Returns the time.
    pub fn stamp(&self, scope: &Scope) -> u64 {
        let now = self.now();
        self.each(scope, |slot| slot.stamp_at(now));
        now
    }

    /// A request is sent that may commit changes of these tables. To be ended once by [`Stamps::end_commit`] or
    /// [`Stamps::doubt`].
    pub fn begin_commit(&self, scope: &Scope) {
        self.each(scope, |slot| {
            slot.committing.fetch_add(1, SeqCst);
        });
    }

    /// The client can know what has become of it. The tables have been stamped before.
    pub fn end_commit(&self, scope: &Scope) {
        self.each(scope, |slot| {
            slot.committing.fetch_sub(1, SeqCst);
        });
    }

    /// Nobody will ever know what has become of it; it may still come about for a while.
    pub fn doubt(&self, mut scope: Scope) {
        self.stamp(&scope);
        let mut doubts = self.doubts();
        if doubts.len() >= DOUBTS_MAX && !scope.tables.is_all() {
            self.begin_commit(&Scope::ALL);
            self.end_commit(&scope);
            scope = Scope::ALL;
        }
        let until = Instant::now() + DOUBT_LASTS;
        match doubts.iter_mut().find(|doubt| doubt.scope == scope) {
            Some(known) => {
                known.until = until;
                self.end_commit(&scope);
            }
            None => doubts.push(Doubt { scope, until }),
        }
    }

    /// Ends doubts that have lasted long enough: what has come about by now is stamped.
    pub fn end_doubts(&self, now: Instant) {
        self.doubts().retain(|doubt| {
            let lasts = doubt.until > now;
            if !lasts {
                self.stamp(&doubt.scope);
                self.end_commit(&doubt.scope);
            }
            lasts
        });
    }

    /// When any of these tables was last written.
    pub fn last(&self, scope: &Scope) -> u64 {
        if scope.tables.is_all() {
            return self.last_of_any();
        }
        let of_all = self.all.stamp.load(SeqCst);
        self.of(scope).fold(of_all, |last, slot| last.max(slot.stamp.load(SeqCst)))
    }

    /// When any table was last written.
    pub fn last_of_any(&self) -> u64 {
        self.any.stamp.load(SeqCst)
    }

    /// Somebody was shown these tables, of which some may show more than has been stamped: these are stamped. Whether any
    /// table may, because it is not known what a commit under way has changed; then nothing is stamped for it.
    pub fn note_shown(&self, scope: &Scope) -> bool {
        if scope.tables.is_all() {
            return self.is_committing(scope);
        }
        let now = self.now();
        for slot in self.of(scope).filter(|slot| slot.committing.load(SeqCst) > 0) {
            slot.stamp_at(now);
            self.any.stamp_at(now);
        }
        self.all.committing.load(SeqCst) > 0
    }

    /// Whether these tables may show more than has been stamped.
    fn is_committing(&self, scope: &Scope) -> bool {
        let is_busy = |slot: &Slot| slot.committing.load(SeqCst) > 0;
        if scope.tables.is_all() {
            return is_busy(&self.any);
        }
        is_busy(&self.all) || self.of(scope).any(is_busy)
    }

    /// Samples until now mean nothing: all tables are taken for just written.
    pub fn void(&self) {
        let now = self.stamp(&Scope::ALL);
        self.voided.fetch_max(now, SeqCst);
    }

    /// When what was sampled before came to mean nothing.
    pub fn voided(&self) -> u64 {
        self.voided.load(SeqCst)
    }

    fn of(&self, scope: &Scope) -> impl Iterator<Item = &Slot> {
        let scope = *scope;
        scope.tables.slots().map(move |slot| &self.slots[usize::from(slot ^ scope.database) % Tables::SLOTS])
    }

    /// The slots in which a write of these tables is noted.
    fn each(&self, scope: &Scope, note: impl Fn(&Slot)) {
        if scope.tables.is_empty() {
            return;
        }
        note(&self.any);
        if scope.tables.is_all() {
            note(&self.all);
        }
        self.of(scope).for_each(note);
    }

    fn doubts(&self) -> MutexGuard<'_, Vec<Doubt>> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(name: &str) -> Scope {
        Scope { tables: Tables::named(name), database: 7 }
    }

    #[test]
    fn a_sample_counts_for_what_was_stamped_before_it_was_asked_for() {
        let stamps = Stamps::default();
        // Nothing is known at the start.
        assert!(stamps.tick() > stamps.last(&scope("a")));
        let stamped = stamps.stamp(&scope("a"));
        let asked = stamps.tick();
        assert!(asked > stamps.last(&scope("a")));
        stamps.stamp(&scope("a"));
        assert!(asked <= stamps.last(&scope("a")), "stamped after the question");
        assert!(stamps.last(&scope("b")) < stamped);
        assert_eq!(stamps.last(&Scope { database: 8, ..scope("a") }), stamps.last(&scope("b")));
        assert_eq!(stamps.last(&Scope::ALL), asked);
        stamps.tick();
        stamps.stamp(&Scope { tables: Tables::NONE, database: 7 });
        assert_eq!(stamps.last(&Scope::ALL), asked, "nothing was written");
        stamps.void();
        assert_eq!(stamps.last(&scope("b")), stamps.now());
        assert_eq!(stamps.voided(), stamps.now());
    }

    #[test]
    fn commits_under_way_show() {
        let stamps = Stamps::default();
        assert!(!stamps.is_committing(&Scope::ALL));
        stamps.begin_commit(&scope("a"));
        assert!(stamps.is_committing(&scope("a")) && stamps.is_committing(&Scope::ALL));
        assert!(!stamps.is_committing(&scope("b")));
        stamps.end_commit(&scope("a"));
        assert!(!stamps.is_committing(&scope("a")) && !stamps.is_committing(&Scope::ALL));
        stamps.begin_commit(&scope("a"));
        let asked = stamps.tick();
        assert!(!stamps.note_shown(&scope("b")) && stamps.last(&scope("b")) < asked);
        assert!(!stamps.note_shown(&scope("a")) && stamps.last(&scope("a")) == asked);
        assert!(stamps.note_shown(&Scope::ALL));
        stamps.end_commit(&scope("a"));
        stamps.begin_commit(&Scope::ALL);
        assert!(stamps.is_committing(&scope("b")) && stamps.note_shown(&scope("b")));
        assert!(stamps.last(&scope("b")) < asked, "that would be a stamp of all tables for each read");
        stamps.end_commit(&Scope::ALL);
        assert!(!stamps.is_committing(&scope("b")));
    }

    #[test]
    fn doubts_end_with_a_stamp() {
        let stamps = Stamps::default();
        for _ in 0..2 {
            stamps.begin_commit(&scope("a"));
            stamps.doubt(scope("a"));
        }
        let asked = stamps.tick();
        assert!(stamps.is_committing(&scope("a")) && stamps.last(&scope("a")) < asked);
        stamps.end_doubts(Instant::now());
        assert!(stamps.is_committing(&scope("a")));
        stamps.end_doubts(Instant::now() + DOUBT_LASTS);
        assert!(!stamps.is_committing(&scope("a")) && stamps.last(&scope("a")) == asked);
    }

    #[test]
    fn many_doubts_are_one_of_all_tables() {
        let stamps = Stamps::default();
        for at in 0..DOUBTS_MAX + 500 {
            let scope = scope(&format!("t{at}"));
            stamps.begin_commit(&scope);
            stamps.doubt(scope);
        }
        assert!(stamps.is_committing(&scope("none of them")));
        assert!(stamps.doubts().len() <= DOUBTS_MAX + 1);
        stamps.end_doubts(Instant::now() + DOUBT_LASTS);
        assert!(!stamps.is_committing(&Scope::ALL) && !stamps.is_committing(&scope("t1")));
    }
}
