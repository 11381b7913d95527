//! What a database's catalog says that the text does not: volatile functions, and relations, operators and
//! types that reach them.
//!
//! A snapshot, built from the rows of one query; somebody else runs it and decides when it is stale.
//! Names are kept without their schema, with the worst of all objects of that name.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

/// A snapshot of one database.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    epoch: u64,
    loaded: bool,
    functions: HashMap<Box<str>, Function, RandomState>,
    relations: Names,
    operators: Names,
    types: Names,
}

type Names = HashSet<Box<str>, RandomState>;

/// What is known of all functions of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Function(u8);

impl Function {
    const VOLATILE: u8 = 1;
    const USER: u8 = 2;
    const SETS: u8 = 4;
    const KEEPS: u8 = 8;

    /// One of them may write or answer differently each time.
    pub(super) fn is_volatile(self) -> bool {
        self.0 & Self::VOLATILE != 0
    }

    /// One of the volatile ones does not come with PostgreSQL: it may do anything.
    pub(super) fn is_opaque(self) -> bool {
        self.0 & (Self::VOLATILE | Self::USER) == Self::VOLATILE | Self::USER
    }

    /// The source of one of them changes settings.
    pub(super) fn sets(self) -> bool {
        self.0 & Self::SETS != 0
    }

    /// One of them may keep state in its library, which nobody can ask for.
    pub(super) fn keeps(self) -> bool {
        self.0 & Self::KEEPS != 0
    }
}

impl Catalog {
    /// One row (`kind text`, `name text`) for each name; see [`Catalog::from_rows`]. Needs no rights beyond
    /// CONNECT. Written for PostgreSQL 12 and later.
    pub const QUERY: &str = include_str!("catalog.sql");

    /// Nothing is known yet: whatever names a function or a relation is taken for a write.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A snapshot from the rows of [`Catalog::QUERY`]. Verdicts are cached by `epoch`: give each snapshot,
    /// of whichever database, its own. Zero belongs to [`Catalog::empty`].
    pub fn from_rows<K, N>(epoch: u64, rows: impl IntoIterator<Item = (K, N)>) -> Self
    where
        K: AsRef<str>,
        N: AsRef<str>,
    {
        let mut catalog = Self { epoch, loaded: true, ..Self::default() };
        for (kind, name) in rows {
            catalog.add(kind.as_ref(), name.as_ref());
        }
        catalog
    }

    /// The version of this snapshot.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether two snapshots differ in nothing but their epoch.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.loaded == other.loaded
            && self.functions == other.functions
            && self.relations == other.relations
            && self.operators == other.operators
            && self.types == other.types
    }

    /// Whether nothing has been loaded.
    pub fn is_empty(&self) -> bool {
        !self.loaded
    }

    fn add(&mut self, kind: &str, name: &str) {
        let mut words = kind.split(' ');
        match words.next() {
            Some("function") => {
                let flags = words.fold(0, |flags, word| {
                    flags
                        | match word {
                            "volatile" => Function::VOLATILE,
                            "user" => Function::USER,
                            "sets" => Function::SETS,
                            "keeps" => Function::KEEPS,
                            _ => 0,
                        }
                });
                self.functions.entry(name.into()).or_default().0 |= flags;
            }
            Some("relation") => drop(self.relations.insert(name.into())),
            Some("operator") => drop(self.operators.insert(name.into())),
            Some("type") => drop(self.types.insert(name.into())),
            _ => {}
        }
    }

    /// `None`: there is no function of this name.
    pub(super) fn function(&self, name: &str) -> Option<Function> {
        self.functions.get(name).copied()
    }

    /// Whether a standby cannot answer for a relation of this name.
    pub(super) fn is_unsafe_relation(&self, name: &str) -> bool {
        self.relations.contains(name)
    }

    /// Whether an operator of this name reaches a volatile function.
    pub(super) fn is_unsafe_operator(&self, name: &str) -> bool {
        self.operators.contains(name)
    }

    /// Whether making a value of a type of this name reaches a volatile function.
    pub(super) fn is_unsafe_type(&self, name: &str) -> bool {
        self.types.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_a_name_counts() {
        let rows = [
            ("function", "f"),
            ("function volatile user sets keeps", "f"),
            ("function user", "g"),
            ("relation", "v"),
        ];
        let catalog = Catalog::from_rows(7, rows);
        assert_eq!(catalog.epoch(), 7);
        let f = catalog.function("f").expect("it was given");
        assert!(f.is_volatile() && f.is_opaque() && f.sets() && f.keeps());
        let g = catalog.function("g").expect("it was given");
        assert!(!g.is_volatile() && !g.is_opaque() && !g.keeps());
        assert!(catalog.function("h").is_none());
        assert!(catalog.is_unsafe_relation("v"));
        assert!(Catalog::empty().is_empty());
    }
}
