//! The tables that a statement reaches, as a small set that is copied: each stands for a slot, by its name.

use std::hash::{BuildHasher, Hasher};

/// A set of more is the set of all tables.
const MOST: usize = 11;

/// Stands in the place of the count for all tables.
const ALL: u16 = u16::MAX;

/// Tables of one database. Two names may share a slot: then each stands for both, which is never wrong, only less exact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    count: u16,
    slots: [u16; MOST],
}

impl Tables {
    /// No table.
    pub const NONE: Self = Self { count: 0, slots: [0; MOST] };
    /// Every table, also those that nobody knows of.
    pub const ALL: Self = Self { count: ALL, slots: [0; MOST] };

    /// The table of this name, in whatever schema.
    pub fn named(name: &str) -> Self {
        // The same in every snapshot of the catalog.
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        hasher.write(name.as_bytes());
        let mut slots = [0; MOST];
        slots[0] = (hasher.finish() >> 16) as u16;
        Self { count: 1, slots }
    }

    /// Whether it is every table.
    pub const fn is_all(self) -> bool {
        self.count == ALL
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The slots of them; of all tables none.
    pub fn slots(&self) -> &[u16] {
        if self.is_all() { &[] } else { &self.slots[..usize::from(self.count)] }
    }

    /// Both sets.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        if self.is_empty() || other.is_all() {
            return other;
        }
        if self.is_all() {
            return self;
        }
        for slot in other.slots() {
            if self.slots().contains(slot) {
                continue;
            }
            if usize::from(self.count) == MOST {
                return Self::ALL;
            }
            self.slots[usize::from(self.count)] = *slot;
            self.count += 1;
        }
        self
    }
}

impl Default for Tables {
    fn default() -> Self {
        Self::NONE
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
        assert!(some.is_empty() && some.slots().is_empty());
        for at in 0..MOST {
            some |= Tables::named(&format!("t{at}"));
            some |= Tables::named("t0");
            assert_eq!(some.slots().len(), at + 1);
        }
        assert!(!some.is_all());
        assert!(some.with(Tables::named("one more")).is_all());
        assert!(Tables::NONE.with(Tables::ALL).is_all() && Tables::ALL.with(some).is_all());
        assert_eq!(Tables::NONE.with(some), some);
        assert!(Tables::ALL.slots().is_empty() && !Tables::ALL.is_empty());
    }
}
