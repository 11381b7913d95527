//! Rows that name rows of other tables by numbers which each database gives out for itself: graphile-worker's jobs name
//! their task and their queue.
//!
//! They come with the names of what they name, which is unique on both sides. What the job database does not have of that
//! name is added there; then each row gets the number that it has there. A row whose number stands for nothing on the
//! primary is refused: it would come to be another job.

use super::{
    statements::{EQUALS, Statements},
    tables::source_literal,
    text::{literal, name},
};
use crate::sql::Parent;

impl Statements {
    /// Tables that the rows of this one name rows of, each with its place.
    fn parents(&self) -> impl Iterator<Item = (usize, &'static Parent)> {
        self.table.relayed.map_or(&[][..], |relayed| relayed.parents).iter().enumerate()
    }

    fn relation_of(&self, parent: &Parent) -> String {
        format!("{}.{}", name(&self.table.schema), name(parent.table))
    }

    /// The names of what the row `j` names, as further columns.
    pub(super) fn names(&self) -> String {
        let name_of = |(at, parent): (usize, &Parent)| {
            format!(
                ", (SELECT p.{} FROM {} AS p WHERE p.{} {EQUALS} j.{}) AS bulkhead_name_{at}",
                name(parent.name),
                self.relation_of(parent),
                name(parent.id),
                name(parent.column),
            )
        };
        self.parents().map(name_of).collect()
    }

    /// The numbers that they have in the job database, as further columns of a row `j` that has the names.
    pub(super) fn numbers(&self) -> String {
        let number_of = |(at, parent): (usize, &Parent)| {
            format!(
                ", (SELECT p.{} FROM {} AS p WHERE p.{} {EQUALS} j.bulkhead_name_{at}) AS bulkhead_number_{at}",
                name(parent.id),
                self.relation_of(parent),
                name(parent.name),
            )
        };
        self.parents().map(number_of).collect()
    }

    /// The moved columns of a row `g` that has these numbers.
    pub(super) fn numbered(&self) -> String {
        let columns = self.table.moved().map(|column| {
            let number = self.parents().find(|(_, parent)| parent.column == column.name);
            number.map_or(format!("g.{}", name(&column.name)), |(at, _)| format!("g.bulkhead_number_{at}"))
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Whether something that the row `i` names was taken away from the job database while the row came in.
    pub(super) fn is_lost(&self) -> String {
        let lost = self.parents().map(|(at, _)| {
            format!(" OR i.bulkhead_name_{at} IS NOT NULL AND i.bulkhead_number_{at} IS NULL")
        });
        format!("(false{})", lost.collect::<String>())
    }

    /// Why the row `i` is not to be moved; NULL if it is.
    pub(super) fn why_unfit(&self) -> String {
        let orphans = self.parents().map(|(at, parent)| {
            let Parent { column, table, .. } = parent;
            let why = format!("its {column} names no row of {}.{table} on the primary", self.table.schema);
            let column = name(column);
            format!(" WHEN i.{column} IS NOT NULL AND i.bulkhead_name_{at} IS NULL THEN {}", literal(&why))
        });
        let keyed = self.table.relayed.and_then(|relayed| relayed.absent).map(|column| {
            let why = format!("it has a {column}, and may change a job that is in the job database already");
            format!(" WHEN i.{} IS NOT NULL THEN {}", name(column), literal(&why))
        });
        let reasons: Vec<String> = orphans.chain(keyed).collect();
        if reasons.is_empty() {
            return "NULL::pg_catalog.text".to_owned();
        }
        format!("CASE{} END", reasons.concat())
    }

    /// In the job database, once a connection: adds what rows that have come in name, and what is not there. The ledger's
    /// rows are there, or were.
    pub(super) fn prepare_parents(&self) -> String {
        let add = |(at, parent): (usize, &Parent)| {
            let (relation, column) = (self.relation_of(parent), name(parent.name));
            format!(
                "PREPARE bulkhead_name_{table}_{at} AS INSERT INTO {relation} ({column}) \
                 SELECT DISTINCT j.bulkhead_name_{at} FROM {stage} AS j WHERE j.bulkhead_name_{at} IS NOT NULL \
                 AND NOT EXISTS (SELECT FROM {relation} AS p WHERE p.{column} {EQUALS} j.bulkhead_name_{at}) \
                 AND NOT EXISTS (SELECT FROM bulkhead.relayed AS r WHERE r.source_table {EQUALS} {source} \
                 AND r.key {EQUALS} j.bulkhead_key) ORDER BY 1 ON CONFLICT DO NOTHING; ",
                table = self.at,
                stage = self.stage(),
                source = source_literal(&self.table),
            )
        };
        self.parents().map(add).collect()
    }

    /// In the job database, behind the rows and before they are put.
    pub(super) fn put_parents(&self) -> String {
        let put = |(at, _)| format!("EXECUTE bulkhead_name_{}_{at}; ", self.at);
        self.parents().map(put).collect()
    }
}
