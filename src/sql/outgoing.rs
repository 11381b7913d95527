//! The tables of a library whose rows are moved from the primary to the job database, and the functions that write them.

use super::{glob::Glob, presets::Relayed};

/// Tables that are written on the primary, and moved to the job database from there.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Schemas that its objects live in.
    pub(super) schemas: Vec<Glob>,
    /// A name that is not qualified may be an object of it: the library's names are its own.
    pub(super) by_name: bool,
    /// Tables whose rows are moved.
    pub relayed: &'static [Relayed],
    /// Functions that insert into them.
    pub enqueues: &'static [&'static str],
    /// Functions that make or take away tables.
    pub defines: &'static [&'static str],
    /// Tables that an insert reads: the primary has a copy of the job database's rows.
    pub mirrored: &'static [&'static str],
}

impl Outgoing {
    /// Whether its objects live in this schema.
    pub fn is_in(&self, schema: &str) -> bool {
        self.schemas.iter().any(|glob| glob.matches(schema))
    }

    /// The preset's word on a table whose rows are moved, by its name.
    pub fn relayed(&self, table: &str) -> Option<&'static Relayed> {
        self.relayed.iter().find(|one| one.is(table))
    }

    /// Whether rows that are moved name rows of this table.
    pub fn is_parent(&self, table: &str) -> bool {
        self.relayed.iter().flat_map(|one| one.parents).any(|parent| parent.table == table)
    }

    /// The names, or globs, of all tables that it speaks of.
    pub fn tables(&self) -> impl Iterator<Item = &'static str> {
        let relayed = self.relayed.iter();
        let named = relayed.flat_map(|one| one.parents.iter().map(|parent| parent.table).chain([one.table]));
        named.chain(self.mirrored.iter().copied())
    }

    pub(super) fn may_be_in(&self, schema: Option<&str>) -> bool {
        schema.map_or(self.by_name, |schema| self.is_in(schema))
    }
}
