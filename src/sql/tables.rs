//! The tables that a statement reaches, as a small set that is copied: each stands for a slot, by its name.

use std::hash::BuildHasher;

/// A set of more is the set of all tables.
const MOST: u32 = 10;

/// Stands in the place of the count for all tables.
const ALL: u32 = 15;

/// The bits of a slot, of which there are five in each word, and of the count, above those of the second word.
const SLOT_BITS: u32 = 12;
const IN_WORD: u32 = MOST / 2;
const COUNT_AT: u32 = SLOT_BITS * IN_WORD;

/// Tables of one database. Two names may share a slot: then each stands for both, which is never wrong, only less exact.
///
/// Every request carries some: it is as small as it can be.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Tables([u64; 2]);

impl Tables {
    /// No table.
    pub const NONE: Self = Self([0, 0]);
    /// Every table, also those that nobody knows of.
    pub const ALL: Self = Self([0, (ALL as u64) << COUNT_AT]);
    /// So many slots there are.
    pub const SLOTS: usize = 1 << SLOT_BITS;

    /// The table of this name, in whatever schema.
    pub fn named(name: &str) -> Self {
        // The same in every snapshot of the catalog.
        let hash = foldhash::fast::FixedState::default().hash_one(name);
        let mut one = Self::NONE;
        one.add((hash >> 16) as u16 % Self::SLOTS as u16);
        one
    }

    fn count(self) -> u32 {
        (self.0[1] >> COUNT_AT) as u32
    }

    /// True for the set of every table.
    pub fn is_all(self) -> bool {
        self.count() == ALL
    }

    /// True for the set of none.
    pub fn is_empty(self) -> bool {
        self.count() == 0
    }

    /// The slots of them; of all tables none.
    pub fn slots(self) -> impl Iterator<Item = u16> {
        let count = if self.is_all() { 0 } else { self.count() };
        (0..count).map(move |at| {
            let word = self.0[(at / IN_WORD) as usize];
            (word >> (at % IN_WORD * SLOT_BITS)) as u16 % Self::SLOTS as u16
        })
    }

    fn add(&mut self, slot: u16) {
        let at = self.count();
        if self.is_all() || self.slots().any(|known| known == slot) {
            return;
        }
        if at == MOST {
            *self = Self::ALL;
            return;
        }
        self.0[(at / IN_WORD) as usize] |= u64::from(slot) << (at % IN_WORD * SLOT_BITS);
        self.0[1] += 1 << COUNT_AT;
    }

    /// Both sets.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        if self.is_empty() || other.is_all() {
            return other;
        }
        other.slots().for_each(|slot| self.add(slot));
        self
    }
}

impl std::ops::BitOrAssign for Tables {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.with(other);
    }
}

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_all() { f.write_str("all tables") } else { f.debug_set().entries(self.slots()).finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_to_all() {
        let mut some = Tables::NONE;
        assert!(some.is_empty() && some.slots().next().is_none());
        for at in 0..MOST {
            some |= Tables::named(&format!("t{at}"));
            some |= Tables::named("t0");
            assert_eq!(some.slots().count(), at as usize + 1);
        }
        assert!(!some.is_all());
        assert!(some.with(Tables::named("one more")).is_all());
        assert!(Tables::NONE.with(Tables::ALL).is_all() && Tables::ALL.with(some).is_all());
        assert_eq!(Tables::NONE.with(some), some);
        assert!(Tables::ALL.slots().next().is_none() && !Tables::ALL.is_empty());
        assert_eq!(size_of::<Tables>(), 16);
    }
}
