//! Which number of the job database stands for which of the primary, and which values contain numbers.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    FIRST_USER_NUMBER,
    known::{Kind, Known},
};

/// `record`.
const RECORD: u32 = 2249;

/// `record[]`, and `anyarray`, which `pg_stats` has columns of.
const ARRAYS_OF_ANYTHING: [u32; 2] = [2287, 2277];

/// Domains over domains, ranges of arrays of ranges: further than that nobody looks.
const NESTED_MAX: usize = 16;

/// How a value in binary format is made, as far as there are numbers of types in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// No numbers are in it.
    Plain,
    /// An array, which says what it is of.
    Array,
    /// A record, which says what its fields are.
    Record,
    /// A range of what contains numbers, by the number of its subtype.
    Range(u32),
    /// The multirange of such a range.
    Multirange(u32),
}

/// A type as the other server has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// By this number.
    Number(u32),
    /// The other server has no such type. Whether its number stands for another type there.
    Lacks {
        /// The number is another type's there.
        is_taken: bool,
    },
    /// The number is of no type that is known.
    Unknown,
}

/// A type of one server.
#[derive(Clone, Debug)]
struct Entry {
    /// The number of the same type on the other one.
    other: Option<u32>,
    layout: Layout,
    name: Box<str>,
}

/// The types of one server, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Side(HashMap<u32, Entry, RandomState>);

/// Which number of the job database stands for which of the primary, and the other way round. By default nothing is
/// known but what comes with PostgreSQL.
#[derive(Clone, Debug, Default)]
pub struct TypeMap {
    jobs: Side,
    primary: Side,
    /// Tables of the job database that have the same columns on the primary, with their numbers there.
    tables: HashMap<u32, u32, RandomState>,
}

/// One of the two ways that numbers are translated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'m> {
    from: &'m Side,
    to: &'m Side,
}

/// The reason why a type cannot be told by its number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// Only one of the servers has it.
    #[error("type {name} exists on the {only} only, and its number stands for another type on the {other}")]
    Lacking {
        /// The type.
        name: String,
        /// The server that has it.
        only: &'static str,
        /// The server that lacks it.
        other: &'static str,
    },
    /// Nobody knows which type it is.
    #[error("the type with number {number} of the job database is not known: {reason}")]
    Unknown {
        /// The number.
        number: u32,
        /// The reason, in words.
        reason: String,
    },
}

impl TypeMap {
    /// Puts the types of two servers together.
    pub fn of(jobs: &Known, primary: &Known) -> Self {
        let keys = |known: &Known| -> HashMap<String, u32, RandomState> {
            known.types.keys().filter_map(|number| Some((known.key(*number)?, *number))).collect()
        };
        let (of_jobs, of_primary) = (keys(jobs), keys(primary));
        let mut tables = HashMap::default();
        for (key, number) in &of_jobs {
            let Some(same) = of_primary.get(key) else { continue };
            let (one, two) = (&jobs.types[number], &primary.types[same]);
            if one.relation != 0 && one.kind == two.kind && one.detail == two.detail {
                tables.insert(one.relation, two.relation);
            }
        }
        Self { jobs: Side::of(jobs, &of_primary), primary: Side::of(primary, &of_jobs), tables }
    }

    /// Whether every number that the job database may tell stands for the same type on the primary, or for none.
    pub fn is_identity(&self) -> bool {
        self.jobs.0.iter().all(|(number, entry)| match entry.other {
            Some(same) => same == *number,
            None => !self.primary.0.contains_key(number),
        })
    }

    /// From the job database's numbers to the primary's.
    pub(super) const fn to_primary(&self) -> Way<'_> {
        Way { from: &self.jobs, to: &self.primary }
    }

    /// The other way.
    pub(super) const fn to_jobs(&self) -> Way<'_> {
        Way { from: &self.primary, to: &self.jobs }
    }

    /// The primary's number of a table of the job database; 0 if it has none with the same columns.
    pub(super) fn table(&self, number: u32) -> u32 {
        if number < FIRST_USER_NUMBER { number } else { self.tables.get(&number).copied().unwrap_or(0) }
    }

    /// The layout of values of a type, by its number on the primary.
    pub(super) fn layout_on_primary(&self, number: u32) -> Layout {
        self.primary.layout(number)
    }

    /// The reason why the job database's type of this number cannot be told. `reason` is for one that is not known.
    pub(super) fn untold(&self, number: u32, reason: &str) -> Untold {
        match self.jobs.0.get(&number) {
            Some(entry) => {
                Untold::Lacking { name: entry.name.to_string(), only: "job database", other: "primary" }
            }
            None => Untold::Unknown { number, reason: reason.to_owned() },
        }
    }

    /// The reason why the primary's type of this number cannot be said to the job database.
    pub(super) fn unsaid(&self, number: u32) -> Untold {
        let name = self.primary.0.get(&number).map(|entry| entry.name.to_string()).unwrap_or_default();
        Untold::Lacking { name, only: "primary", other: "job database" }
    }
}

impl Way<'_> {
    /// The same type on the other server.
    pub(super) fn other(self, number: u32) -> Other {
        if number < FIRST_USER_NUMBER {
            return Other::Number(number);
        }
        let is_taken = || self.to.0.contains_key(&number);
        match self.from.0.get(&number) {
            Some(Entry { other: Some(other), .. }) => Other::Number(*other),
            Some(_) => Other::Lacks { is_taken: is_taken() },
            None => Other::Unknown,
        }
    }

    /// The number that is told of a type of which nothing better will be known: its own, if that stands for nothing else.
    pub(super) fn own(self, number: u32) -> Option<u32> {
        (!self.to.0.contains_key(&number)).then_some(number)
    }

    /// The layout of values of a type, by its number on the server that they come from.
    pub(super) fn layout(self, number: u32) -> Layout {
        self.from.layout(number)
    }
}

impl Side {
    fn of(known: &Known, others: &HashMap<String, u32, RandomState>) -> Self {
        let entry = |number: u32| Entry {
            other: known.key(number).and_then(|key| others.get(&key).copied()),
            layout: layout(known, number, NESTED_MAX),
            name: known.name(number).into(),
        };
        Self(known.types.keys().map(|number| (*number, entry(*number))).collect())
    }

    fn layout(&self, number: u32) -> Layout {
        if number < FIRST_USER_NUMBER {
            return built_in(number);
        }
        self.0.get(&number).map_or(Layout::Plain, |entry| entry.layout)
    }
}

fn built_in(number: u32) -> Layout {
    match number {
        RECORD => Layout::Record,
        _ if ARRAYS_OF_ANYTHING.contains(&number) => Layout::Array,
        _ => Layout::Plain,
    }
}

fn layout(known: &Known, number: u32, nested: usize) -> Layout {
    let Some(found) = known.types.get(&number).filter(|_| nested > 0) else { return built_in(number) };
    match found.kind {
        Kind::Base | Kind::Enum => Layout::Plain,
        Kind::Domain(base) => layout(known, base, nested - 1),
        Kind::Composite | Kind::Row => Layout::Record,
        Kind::Array(_) => Layout::Array,
        Kind::Range(of) if layout(known, of, nested - 1) == Layout::Plain => Layout::Plain,
        Kind::Range(of) => Layout::Range(of),
        Kind::Multirange(range) => match layout(known, range, nested - 1) {
            Layout::Range(of) => Layout::Multirange(of),
            _ => Layout::Plain,
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::types::known::tests::{known, row};

    /// The job database's types begin at 20,000, the primary's at 30,000.
    pub(in crate::types) fn map() -> TypeMap {
        TypeMap::of(&known(20_000), &known(30_000))
    }

    #[test]
    fn numbers_are_translated_both_ways() {
        let map = map();
        for offset in [0, 1, 2, 4, 5, 6, 7, 8, 10] {
            let (there, here) = (20_000 + offset, 30_000 + offset);
            assert_eq!(map.to_primary().other(there), Other::Number(here));
            assert_eq!(map.to_jobs().other(here), Other::Number(there));
        }
        assert_eq!(map.to_primary().other(23), Other::Number(23));
        assert_eq!(map.to_primary().other(25_000), Other::Unknown);
        assert_eq!((map.table(20_009), map.table(1259), map.table(20_001)), (30_009, 1259, 0));
        assert!(!map.is_identity() && TypeMap::of(&known(20_000), &known(20_000)).is_identity());
    }

    #[test]
    fn layouts_say_where_numbers_are() {
        let way = map();
        let layouts = [0, 1, 2, 4, 5, 6, 7, 8, 10].map(|offset| way.to_primary().layout(20_000 + offset));
        let (plain, array, record) = (Layout::Plain, Layout::Array, Layout::Record);
        let (range, multirange) = (Layout::Range(20_002), Layout::Multirange(20_002));
        assert_eq!(layouts, [plain, array, record, array, array, range, multirange, record, plain]);
        assert_eq!(
            [23, 1009, 2249, 2287].map(|number| way.to_primary().layout(number)),
            [plain, plain, record, array]
        );
    }

    #[test]
    fn a_number_of_one_server_alone_is_told_if_it_is_free() {
        let none = "";
        let mut there = known(20_000);
        there.types.extend(
            Known::from_rows(vec![
                row(["30001", "public", "taken", "e", none, "0", none, none, "0", none, "'x'"]),
                row(["40000", "public", "free", "e", none, "0", none, none, "0", none, "'x'"]),
            ])
            .types,
        );
        let map = TypeMap::of(&there, &known(30_000));
        assert_eq!(map.to_primary().other(30_001), Other::Lacks { is_taken: true });
        assert_eq!(map.to_primary().other(40_000), Other::Lacks { is_taken: false });
        assert_eq!((map.to_primary().own(30_001), map.to_primary().own(40_000)), (None, Some(40_000)));
        let untold = map.untold(30_001, "").to_string();
        assert!(untold.starts_with("type public.taken exists on the job database only"), "{untold}");
        // Of another kind, it is another type.
        let enums = vec![row(["17000", "public", "t", "e", none, "0", none, none, "0", none, "'x'"])];
        let domains = vec![row(["18000", "public", "t", "d", none, "25", none, none, "0", none, none])];
        let map = TypeMap::of(&Known::from_rows(enums), &Known::from_rows(domains));
        assert_eq!(map.to_primary().other(17_000), Other::Lacks { is_taken: false });
    }
}
