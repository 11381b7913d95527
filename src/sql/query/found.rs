//! What a statement was found to contain, and the conclusions from it.

use crate::sql::{
    tables::Tables,
    verdict::{Effects, Reason},
};

/// What a statement was found to contain.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each set once")]
pub(in crate::sql) struct Found {
    /// Why it is not a read; the first reason found.
    pub(in crate::sql) write: Option<Reason>,
    /// Why it is a job statement; the first reason found.
    pub(in crate::sql) job: Option<Reason>,
    /// Whether anything in it is not proven to only read, wherever it runs.
    pub(super) is_no_read: bool,
    /// Adds rows to a job table, or calls what does, that are relayed.
    pub(in crate::sql) adds: bool,
    /// Calls what may write anything.
    pub(in crate::sql) may_write: bool,
    /// Makes, changes or takes away objects, of whatever kind.
    pub(in crate::sql) defines: bool,
    /// Uses job objects for something else than to add jobs that are relayed.
    pub(in crate::sql) belongs_to_jobs: bool,
    pub(in crate::sql) effects: Effects,
    /// The tables that it reaches, as far as it is proven.
    pub(in crate::sql) tables: Tables,
    /// What it gives may depend on which relations and schemas there are.
    pub(in crate::sql) asks_definitions: bool,
    /// Calls only functions that name no object, and some.
    pub(in crate::sql) neutral_call: bool,
    /// Names a relation, of whatever kind.
    pub(in crate::sql) relation: bool,
    /// Names a relation that is neither a job object nor in a system schema.
    pub(in crate::sql) application: bool,
    /// Reads system catalogs.
    pub(super) catalog: bool,
    /// Reads `pg_type`, and whether it reads catalogs of anything but types.
    pub(super) asks_types: bool,
    pub(super) asks_more: bool,
    /// Has a `$n`.
    pub(super) parameter: bool,
    /// A `$n` may be the name of a channel or object.
    pub(super) parameter_decides: bool,
    /// A string names a job object; it counts if catalogs are read.
    pub(super) literal_names_job: bool,
    /// A setting's name is taken from a column `name`; and a relation is named that is not `pg_settings`.
    pub(super) name_of_column: bool,
    pub(super) other_relation: bool,
}

impl Found {
    pub(in crate::sql) fn writes(&mut self, reason: Reason) {
        self.write.get_or_insert(reason);
        self.is_no_read |= !matches!(reason, Reason::JobObject | Reason::Catalog);
    }

    /// An object that is named plainly is a better reason than a channel or a literal.
    pub(in crate::sql) fn is_job(&mut self, reason: Reason) {
        match self.job {
            Some(_) if reason != Reason::JobObject => {}
            _ => self.job = Some(reason),
        }
    }

    /// Draws the conclusions that need the whole statement.
    pub(in crate::sql) fn conclude(&mut self) {
        if self.learns_types() {
            self.job = None;
        } else {
            if self.catalog && self.literal_names_job {
                self.is_job(Reason::JobLiteral);
                self.belongs_to_jobs = true;
            }
            if self.parameter && (self.parameter_decides || self.catalog) {
                self.effects |= Effects::BIND_DECIDES;
            }
        }
        if self.job.is_some() {
            let flags = [
                (self.application, Effects::MIXED),
                (self.adds, Effects::JOB_ADDS),
                (self.belongs_to_jobs || self.may_write, Effects::JOB_SIDE),
                (self.is_no_read, Effects::JOB_WRITES),
                (self.defines, Effects::JOB_DDL),
            ];
            self.effects =
                flags.iter().filter(|(is_so, _)| *is_so).fold(self.effects, |all, (_, one)| all.with(*one));
        }
        // Of those that the server lists the server is asked (`pg_dump` sets one so).
        if self.name_of_column && (self.other_relation || !self.relation) {
            self.effects |= Effects::OPAQUE_SETTINGS;
        }
    }
}
