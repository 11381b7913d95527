//! Protocol-level prepared statements: one text has one name on every backend, whoever prepared it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{sql::Verdict, wire::message::Name};

/// The start of the names that statements have on servers. Clients may not use it.
pub const NAME_PREFIX: &[u8] = b"bulkhead_";

/// The text last given to a backend's unnamed statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnnamedText {
    /// There is none, or nobody knows it.
    #[default]
    None,
    /// The one with this hash.
    Kept(u64),
    /// One that was too long to be kept.
    Streamed,
}

/// Identifies a statement's text and parameter types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

/// The name that the statement has on servers.
impl Name for StatementId {
    fn write(&self, out: &mut Vec<u8>) {
        const DIGITS: [u8; 16] = *b"0123456789abcdef";
        out.extend_from_slice(NAME_PREFIX);
        let mut digits = [0; 16];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = DIGITS[(rest % 16) as usize];
            rest /= 16;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }
}

/// A prepared statement as a client sent it.
#[derive(Debug)]
pub struct Statement {
    /// Its identity.
    pub id: StatementId,
    /// The SQL text.
    pub text: Box<[u8]>,
    /// The rest of the Parse message: the count of parameter types and their OIDs.
    pub types: Box<[u8]>,
    /// What classification says of the text.
    pub verdict: Verdict,
    /// By which rules and which catalog snapshot it says so.
    pub epochs: (u64, u64),
}

/// Generation and settings, text, parameter types.
type Key = ((u64, u64), Box<[u8]>, Box<[u8]>);

/// All statements in use, so that equal ones share an identity. Bounded in number and bytes; a statement that has been
/// dropped from here lives on in its sessions and only loses the sharing.
#[derive(Debug)]
pub struct Statements {
    known: quick_cache::sync::Cache<Key, Arc<Statement>, ByWeight>,
    next: AtomicU64,
}

/// Weighs a statement by its bytes, and by the least that one of `count` may weigh, so that there are no more.
#[derive(Clone, Debug)]
struct ByWeight {
    least: u64,
}

impl quick_cache::Weighter<Key, Arc<Statement>> for ByWeight {
    fn weight(&self, (_, text, types): &Key, _: &Arc<Statement>) -> u64 {
        // Both the key and the statement have a copy.
        (2 * (text.len() + types.len()) as u64).max(self.least)
    }
}

impl Statements {
    /// Keeps up to `count` statements, which take up to so many bytes.
    pub fn new(count: usize, bytes: usize) -> Self {
        let (count, bytes) = (count.max(1), bytes.max(1) as u64);
        let weighter = ByWeight { least: (bytes / count as u64).max(1) };
        Self {
            known: quick_cache::sync::Cache::with_weighter(count, bytes, weighter),
            next: AtomicU64::new(1),
        }
    }

    /// A statement that is shared with nobody.
    pub fn unshared(
        &self,
        text: &[u8],
        types: &[u8],
        (verdict, epochs): (Verdict, (u64, u64)),
    ) -> Arc<Statement> {
        let id = StatementId(self.next.fetch_add(1, Ordering::Relaxed));
        Arc::new(Statement { id, text: text.into(), types: types.into(), verdict, epochs })
    }

    /// The statement for a Parse message. `world` is what else decides what it means: the generation of definitions,
    /// and the settings that a text is parsed by. A new generation (after DDL) makes a new statement, so that a plan
    /// whose result type has changed is never met by somebody who has just prepared the text.
    pub fn intern(
        &self,
        world: (u64, u64),
        text: &[u8],
        types: &[u8],
        (verdict, epochs): (Verdict, (u64, u64)),
    ) -> Arc<Statement> {
        let key = (world, Box::from(text), Box::from(types));
        let with_id =
            |id| Arc::new(Statement { id, text: text.into(), types: types.into(), verdict, epochs });
        match self.known.get(&key) {
            Some(found) if found.verdict == verdict && found.epochs == epochs => found,
            known => {
                // Classified anew since: the name stays valid, the verdict must be the new one.
                let id = known
                    .map_or_else(|| StatementId(self.next.fetch_add(1, Ordering::Relaxed)), |found| found.id);
                let statement = with_id(id);
                self.known.insert(key, Arc::clone(&statement));
                statement
            }
        }
    }
}

/// The statements that exist on one backend, least recently used first out.
#[derive(Debug, Default)]
pub struct Held {
    used: HashMap<StatementId, u64, foldhash::fast::RandomState>,
    clock: u64,
    /// The unnamed statement.
    pub unnamed: UnnamedText,
}

impl Held {
    /// Whether the statement exists; counts as a use.
    pub fn touch(&mut self, id: StatementId) -> bool {
        self.clock += 1;
        match self.used.get_mut(&id) {
            Some(last) => {
                *last = self.clock;
                true
            }
            None => false,
        }
    }

    /// Whether the statement exists.
    pub fn has(&self, id: StatementId) -> bool {
        self.used.contains_key(&id)
    }

    /// A statement is being made.
    pub fn insert(&mut self, id: StatementId) {
        self.clock += 1;
        self.used.insert(id, self.clock);
    }

    /// A statement is gone, or was never made.
    pub fn remove(&mut self, id: StatementId) {
        self.used.remove(&id);
    }

    /// Everything is gone (DISCARD ALL, DEALLOCATE ALL).
    pub fn clear(&mut self) {
        self.used.clear();
        self.unnamed = UnnamedText::None;
    }

    /// Of the statements only those with these names exist; whether there were some, and none is left.
    pub fn keep(&mut self, names: &[String]) -> bool {
        let had_some = !self.used.is_empty();
        self.used.retain(|id, _| {
            let mut name = Vec::new();
            id.write(&mut name);
            names.iter().any(|known| known.as_bytes() == name)
        });
        self.unnamed = UnnamedText::None;
        had_some && self.used.is_empty()
    }

    /// Takes out what must be closed to stay within `capacity`, the longest unused first. An eighth goes at
    /// once, so that the search for the oldest is rare.
    pub fn evict(&mut self, capacity: usize) -> Vec<StatementId> {
        if self.used.len() <= capacity {
            return Vec::new();
        }
        let mut by_age: Vec<(u64, StatementId)> = self.used.iter().map(|(id, last)| (*last, *id)).collect();
        by_age.sort_unstable();
        let surplus = self.used.len() - capacity + capacity / 8;
        let evicted: Vec<StatementId> = by_age.into_iter().take(surplus).map(|(_, id)| id).collect();
        for id in &evicted {
            self.used.remove(id);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_all_different() {
        let name = |id| {
            let mut name = Vec::new();
            StatementId(id).write(&mut name);
            String::from_utf8(name).expect("it is text")
        };
        let names = [0, 1, 15, 16, 255, u64::MAX].map(name);
        let expected =
            ["0", "1", "f", "10", "ff", "ffffffffffffffff"].map(|digits| format!("bulkhead_{digits}"));
        assert_eq!(names, expected);
    }

    #[test]
    fn shared_statements_are_bounded_in_number_and_bytes() {
        use crate::sql::{Class, Reason};
        let judged = (Verdict::new(Class::Read, Reason::ReadOnly), (0, 0));
        let fill = |statements: &Statements, bytes: usize| {
            for number in 0..1000 {
                let text = format!("SELECT {number} /* {} */", "x".repeat(bytes));
                statements.intern((0, 0), text.as_bytes(), b"", judged);
            }
        };
        let statements = Statements::new(100, 1_000_000);
        fill(&statements, 10);
        assert!((50..=100).contains(&statements.known.len()), "{}", statements.known.len());
        let statements = Statements::new(10_000, 16_000_000);
        fill(&statements, 50_000);
        assert!(statements.known.weight() <= 16_000_000, "{}", statements.known.weight());
        assert!((40..=160).contains(&statements.known.len()), "{}", statements.known.len());
        // One that is too long to be kept can be used all the same.
        let long = "x".repeat(10_000_000);
        let one = statements.intern((0, 0), long.as_bytes(), b"", judged);
        let other = statements.intern((0, 0), long.as_bytes(), b"", judged);
        assert_ne!(one.id, other.id);
    }

    #[test]
    fn the_longest_unused_statements_go_first() {
        let mut held = Held::default();
        (0..10).for_each(|id| held.insert(StatementId(id)));
        assert!(held.touch(StatementId(0)));
        assert_eq!(held.evict(9), [StatementId(1), StatementId(2)]);
        assert!(held.has(StatementId(0)) && !held.has(StatementId(1)));
        assert_eq!(held.evict(9), []);
    }
}
