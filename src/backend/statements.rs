//! Protocol-level prepared statements: one text that means the same has one name on every backend, whoever prepared it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::DefaultHashBuilder;

use crate::{metrics::Evictions, sql::Verdict, wire::message::Name};

/// The start of the names that statements have on servers. Clients may not use it.
pub const NAME_PREFIX: &[u8] = b"bulkhead_";

/// The text last given to a backend's unnamed statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnnamedText {
    /// No shape, or none that is known.
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
    /// The number that tells it from all others.
    pub id: StatementId,
    /// The SQL text.
    pub text: Box<[u8]>,
    /// The rest of the Parse message: the count of parameter types and their OIDs.
    pub types: Box<[u8]>,
    /// The verdict on the text.
    pub verdict: Verdict,
    /// By which rules and which catalog snapshot it says so.
    pub epochs: (u64, u64),
}

/// What a server tells of a statement's parameters and columns, as far as it may not change under a client that was
/// told: the types of the parameters, the names and types of the columns. Numbers that differ, as good as surely, for
/// different ones; 0 is for what was not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The types of the parameters.
    pub parameters: u64,
    /// The columns.
    pub columns: u64,
}

impl Shape {
    /// Whether anything was told.
    pub const fn is_told(self) -> bool {
        self.columns != 0
    }

    /// Whether a client that was told `self` may be served by a statement of this shape.
    pub const fn fits(self, there: Self) -> bool {
        let parameters = self.parameters == there.parameters || self.parameters == 0 || there.parameters == 0;
        self.columns == there.columns && parameters
    }

    /// `self`, and what was told since.
    #[must_use]
    pub const fn and(self, newer: Self) -> Self {
        let parameters = if newer.parameters == 0 { self.parameters } else { newer.parameters };
        let columns = if newer.columns == 0 { self.columns } else { newer.columns };
        Self { parameters, columns }
    }
}

/// A session's own prepared statement: the shared one, and what binds us to this client.
#[derive(Clone, Debug)]
pub struct OwnStatement {
    /// Text and identity.
    pub statement: Arc<Statement>,
    /// The shape that the client was told.
    pub told: Shape,
    /// The client has used it since it parsed it: from then on a changed definition is the client's to deal with.
    pub is_used: bool,
}

impl OwnStatement {
    /// One that was just parsed.
    pub const fn new(statement: Arc<Statement>) -> Self {
        Self { statement, told: Shape { parameters: 0, columns: 0 }, is_used: false }
    }
}

impl std::ops::Deref for OwnStatement {
    type Target = Arc<Statement>;

    fn deref(&self) -> &Arc<Statement> {
        &self.statement
    }
}

/// Generation and settings, text, parameter types.
type Key = ((u64, u64), Box<[u8]>, Box<[u8]>);

/// All statements in use, so that equal ones share an identity. Bounded in number and bytes; a statement that has been
/// dropped from here lives on in its sessions and only loses the sharing.
#[derive(Debug)]
pub struct Statements {
    known: quick_cache::sync::Cache<Key, Arc<Statement>, ByWeight, DefaultHashBuilder, Evictions>,
    next: AtomicU64,
    evictions: Evictions,
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
        let (evictions, hashes) = (Evictions::default(), DefaultHashBuilder::default());
        Self {
            known: quick_cache::sync::Cache::with(count, bytes, weighter, hashes, evictions.clone()),
            next: AtomicU64::new(1),
            evictions,
        }
    }

    /// Statements that have made room for others, or were too long to be kept.
    pub const fn evictions(&self) -> &Evictions {
        &self.evictions
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
    used: HashMap<StatementId, There, foldhash::fast::RandomState>,
    clock: u64,
    /// Grows when definitions turn out to have changed: plans that were made before may be stale.
    epoch: u64,
    /// To be closed: they were parsed in a transaction that had changed what texts mean, or are too many.
    doomed: Vec<StatementId>,
    /// The unnamed statement.
    pub unnamed: UnnamedText,
}

/// A statement that exists on a backend.
#[derive(Clone, Copy, Debug)]
struct There {
    last_used: u64,
    epoch: u64,
    shape: Shape,
    /// Its meaning is that of a transaction.
    is_local: bool,
}

/// Whether a backend has a statement, and with which shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The backend lacks it.
    Missing,
    /// The backend has it, with this shape as far as the server has told it.
    There(Shape),
}

impl Held {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }

    /// Whether the statement is there; counts as a use.
    pub fn touch(&mut self, id: StatementId) -> Known {
        self.clock += 1;
        match self.used.get_mut(&id) {
            Some(there) => {
                there.last_used = self.clock;
                Known::There(there.shape)
            }
            None => Known::Missing,
        }
    }

    /// Whether the statement exists.
    pub fn has(&self, id: StatementId) -> bool {
        self.used.contains_key(&id)
    }

    /// Whether the statement exists and was parsed before definitions turned out to have changed.
    pub fn is_suspect(&self, id: StatementId) -> bool {
        self.used.get(&id).is_some_and(|there| there.epoch != self.epoch)
    }

    /// Plans of the statements may be stale: who parses one of the texts gets a new one.
    pub fn suspect_all(&mut self) {
        self.epoch += 1;
    }

    /// A statement is being made.
    pub fn insert(&mut self, id: StatementId) {
        self.put(id, false);
    }

    /// A statement is being made that means what it does in this transaction only.
    pub fn insert_local(&mut self, id: StatementId) {
        self.put(id, true);
    }

    /// A statement was to be closed, and is still there. Why it was to be closed is not known any more: who parses its text gets
    /// a new one.
    pub fn put_back(&mut self, id: StatementId) {
        self.put(id, false);
        if let Some(there) = self.used.get_mut(&id) {
            there.epoch = self.epoch.wrapping_sub(1);
        }
    }

    fn put(&mut self, id: StatementId, is_local: bool) {
        self.clock += 1;
        let there = There { last_used: self.clock, epoch: self.epoch, shape: Shape::default(), is_local };
        self.used.insert(id, there);
    }

    /// The server has told the statement's shape.
    pub fn describe(&mut self, id: StatementId, shape: Shape) {
        if let Some(there) = self.used.get_mut(&id) {
            there.shape = there.shape.and(shape);
        }
    }

    /// A statement is gone, or was never made.
    pub fn remove(&mut self, id: StatementId) {
        self.used.remove(&id);
    }

    /// Everything is gone (DISCARD ALL, DEALLOCATE ALL).
    pub fn clear(&mut self) {
        self.used.clear();
        self.doomed.clear();
        self.unnamed = UnnamedText::None;
    }

    /// The transaction is over: what was parsed in it, while texts meant something else, is used no more.
    pub fn end_transaction(&mut self) {
        let local = self.used.extract_if(|_, there| there.is_local).map(|(id, _)| id);
        self.doomed.extend(local);
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

    /// Whether [`Self::evict`] would take out any.
    pub fn has_surplus(&self, capacity: usize) -> bool {
        !self.doomed.is_empty() || self.used.len() > capacity
    }

    /// Takes out what must be closed to stay within `capacity`, the longest unused first. An eighth goes at
    /// once, so that the search for the oldest is rare. Those are counted.
    pub fn evict(&mut self, capacity: usize, evictions: &Evictions) -> Vec<StatementId> {
        let mut evicted = std::mem::take(&mut self.doomed);
        if self.used.len() > capacity {
            let mut by_age: Vec<(u64, StatementId)> =
                self.used.iter().map(|(id, there)| (there.last_used, *id)).collect();
            by_age.sort_unstable();
            let surplus = (self.used.len() - capacity + capacity / 8).min(by_age.len());
            evictions.add(surplus);
            evicted.extend(by_age.into_iter().take(surplus).map(|(_, id)| id));
            for id in &evicted {
                self.used.remove(id);
            }
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
    fn a_statement_that_was_not_closed_is_as_suspect_as_it_may_have_been() {
        let mut held = Held::default();
        let id = StatementId(7);
        held.insert(id);
        assert!(!held.is_suspect(id));
        held.remove(id);
        held.put_back(id);
        assert_eq!((held.has(id), held.is_suspect(id)), (true, true));
        held.insert(id);
        assert!(!held.is_suspect(id));
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
        assert_eq!(statements.known.len() as u64 + statements.evictions().read(), 1_000);
        let statements = Statements::new(10_000, 16_000_000);
        fill(&statements, 50_000);
        assert!(statements.known.weight() <= 16_000_000, "{}", statements.known.weight());
        assert_eq!(statements.known.len() as u64 + statements.evictions().read(), 1_000);
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
        let evictions = Evictions::default();
        (0..10).for_each(|id| held.insert(StatementId(id)));
        assert_eq!(held.touch(StatementId(0)), Known::There(Shape::default()));
        assert_eq!(held.evict(9, &evictions), [StatementId(1), StatementId(2)]);
        assert!(held.has(StatementId(0)) && !held.has(StatementId(1)));
        assert_eq!(held.evict(9, &evictions), []);
        assert_eq!(evictions.read(), 2);
    }

    #[test]
    fn what_was_told_binds_as_far_as_it_was_told() {
        let shape = |parameters, columns| Shape { parameters, columns };
        let told = shape(0, 7);
        assert!(told.fits(shape(3, 7)) && shape(3, 7).fits(told) && !told.fits(shape(0, 8)));
        assert!(!shape(3, 7).fits(shape(4, 7)));
        assert_eq!(told.and(shape(3, 7)), shape(3, 7));
        assert_eq!(shape(3, 7).and(shape(0, 9)), shape(3, 9));
    }

    #[test]
    fn local_statements_go_with_their_transaction() {
        let (mut held, evictions) = (Held::default(), Evictions::default());
        held.insert(StatementId(1));
        held.insert_local(StatementId(2));
        held.suspect_all();
        held.insert(StatementId(3));
        assert!(held.is_suspect(StatementId(1)) && !held.is_suspect(StatementId(3)));
        assert_eq!(held.evict(9, &evictions), []);
        held.end_transaction();
        assert!(!held.has(StatementId(2)));
        assert_eq!(held.evict(9, &evictions), [StatementId(2)]);
        assert_eq!(held.evict(9, &evictions), []);
        assert_eq!(evictions.read(), 0, "it had to go anyway");
    }
}
