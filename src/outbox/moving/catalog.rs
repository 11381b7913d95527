//! The tables of job libraries as a server's catalog has them, and why some cannot be moved while they are used.

use std::collections::BTreeMap;

use super::super::{
    link::{Failure, Link, Reply},
    text::{literal, name},
};
use crate::sql::Rules;

/// The schema of everything that a move adds at the servers.
pub(super) const SCHEMA: &str = "bulkhead_move";

const COLUMNS: &str = "SELECT n.nspname, c.relname, c.relkind = 'p' OR c.relispartition OR c.relhassubclass, a.attname, \
    pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '', \
    pg_catalog.array_position(i.indkey::pg_catalog.int2[], a.attnum) \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisprimary \
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'bulkhead', 'bulkhead_move') \
    AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1, 2, a.attnum";

/// Sequences that belong to columns, by table.
const SEQUENCES: &str = "SELECT n.nspname, c.relname, a.attname, s.seqrelid::pg_catalog.regclass, s.seqincrement \
    FROM pg_catalog.pg_depend AS d JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = d.objid \
    JOIN pg_catalog.pg_class AS c ON c.oid = d.refobjid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid \
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') ORDER BY 1, 2, 3";

/// References between tables.
pub(super) const REFERENCES: &str = "SELECT n.nspname, c.relname, fn.nspname, f.relname, o.conname, \
    pg_catalog.pg_get_constraintdef(o.oid) FROM pg_catalog.pg_constraint AS o \
    JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_class AS f ON f.oid = o.confrelid JOIN pg_catalog.pg_namespace AS fn ON fn.oid = f.relnamespace \
    WHERE o.contype = 'f' AND o.conparentid = 0 ORDER BY 1, 2, 5";

/// A table that is moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The place among all of them, by which what belongs to it is called.
    pub(super) at: usize,
    pub(super) schema: String,
    pub(super) name: String,
    /// The columns that a row has by itself, in their order.
    pub(super) columns: Vec<Column>,
    /// The primary key, in its order.
    pub(super) key: Vec<Column>,
    /// Whether the rows of the outbox name rows of it: what the primary has in it waits for nothing.
    pub(super) is_parent: bool,
    has_parts: bool,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) type_name: String,
}

impl Moved {
    /// `schema.table`, as it is told to people.
    pub(super) fn source(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The name in SQL.
    pub(super) fn relation(&self) -> String {
        format!("{}.{}", name(&self.schema), name(&self.name))
    }
}

/// The job tables of a server, in the order of their names.
pub(super) async fn read(link: &mut Link, rules: &Rules) -> Result<Vec<Moved>, Failure> {
    Ok(tables(&link.ask(COLUMNS).await?, rules))
}

fn tables(reply: &Reply, rules: &Rules) -> Vec<Moved> {
    let mut tables: Vec<Moved> = Vec::new();
    let mut keys: Vec<BTreeMap<i64, Column>> = Vec::new();
    for row in 0..reply.rows.len() {
        let value = |column: usize| reply.value(row, column);
        let (schema, name) = (value(0), value(1));
        if !rules.is_job_table(schema, name) {
            continue;
        }
        if tables.last().is_none_or(|last| (last.schema.as_str(), last.name.as_str()) != (schema, name)) {
            let is_parent = rules.is_parent(schema, name);
            let (at, schema, name) = (tables.len(), schema.to_owned(), name.to_owned());
            let (columns, key) = (Vec::new(), Vec::new());
            tables.push(Moved { at, schema, name, columns, key, is_parent, has_parts: value(2) == "t" });
            keys.push(BTreeMap::new());
        }
        let (Some(table), Some(key)) = (tables.last_mut(), keys.last_mut()) else { continue };
        let column = Column { name: value(3).to_owned(), type_name: value(4).to_owned() };
        if let Ok(place) = value(6).parse() {
            key.insert(place, column.clone());
        }
        if value(5) != "t" {
            table.columns.push(column);
        }
    }
    for (table, key) in tables.iter_mut().zip(keys) {
        table.key = key.into_values().collect();
    }
    tables
}

/// Why these tables cannot be moved; empty if they can.
pub(super) async fn obstacles(link: &mut Link, tables: &[Moved]) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    if tables.is_empty() {
        found.push("the primary has no job table: name the library in jobs.presets".to_owned());
    }
    for table in tables {
        let source = table.source();
        if table.key.is_empty() {
            found.push(format!(
                "{source} has no primary key, by which its changes could be followed: add one (ALTER TABLE {} ADD PRIMARY \
                 KEY ..)",
                table.relation()
            ));
        }
        if table.has_parts {
            found
                .push(format!("{source} has partitions or children, which cannot be moved while it is used"));
        }
    }
    let is_moved = |schema: &str, name: &str| {
        tables.iter().any(|table| (table.schema.as_str(), table.name.as_str()) == (schema, name))
    };
    let references = link.ask(REFERENCES).await?;
    for row in 0..references.rows.len() {
        let value = |column: usize| references.value(row, column);
        let from = is_moved(value(0), value(1));
        if from != is_moved(value(2), value(3)) {
            found.push(format!(
                "{}.{} refers to {}.{} ({}), and only one of them is a job table: they cannot be on different servers",
                value(0),
                value(1),
                value(2),
                value(3),
                value(4)
            ));
        }
    }
    Ok(found)
}

/// A sequence of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    /// `schema.table.column`.
    pub(super) of: String,
    /// The name in SQL.
    pub(super) name: String,
    pub(super) increment: String,
    /// The last number, and whether it was given.
    pub(super) last: i64,
    pub(super) is_called: bool,
}

/// The sequences of these tables.
pub(super) async fn numbers(link: &mut Link, tables: &[Moved]) -> Result<Vec<Numbers>, Failure> {
    let reply = link.ask(SEQUENCES).await?;
    let mut found = Vec::new();
    for row in 0..reply.rows.len() {
        let value = |column: usize| reply.value(row, column).to_owned();
        let source = format!("{}.{}", value(0), value(1));
        if tables.iter().all(|table| table.source() != source) {
            continue;
        }
        let last = link.ask(&format!("SELECT last_value, is_called FROM {}", value(3))).await?;
        found.push(Numbers {
            of: format!("{source}.{}", value(2)),
            name: value(3),
            increment: value(4),
            last: last.value(0, 0).parse().unwrap_or(0),
            is_called: last.value(0, 1) == "t",
        });
    }
    Ok(found)
}

/// Has a sequence go on behind another one's last number.
pub(super) fn go_on(from: &Numbers, to: &Numbers) -> Option<String> {
    // With an outbox both give different numbers by themselves.
    if from.increment == "2" && to.increment == "2"
        || !from.is_called
        || (to.is_called && to.last >= from.last)
    {
        return None;
    }
    Some(format!("SELECT pg_catalog.setval({}, {}, true)", literal(&to.name), from.last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Custom;

    #[test]
    fn keys_are_in_their_own_order_and_generated_columns_are_left_out() {
        let rules = Rules::new(&["oban".to_owned()], &[], &Custom::default(), Vec::new()).expect("a preset");
        let row = |fields: [&str; 7]| -> Vec<Option<String>> {
            fields.iter().map(|field| Some((*field).to_owned()).filter(|text| !text.is_empty())).collect()
        };
        let rows = vec![
            row(["public", "oban_jobs", "f", "a", "text", "f", "1"]),
            row(["public", "oban_jobs", "f", "b", "bigint", "f", "0"]),
            row(["public", "oban_jobs", "f", "c", "bigint", "t", ""]),
            row(["public", "orders", "f", "id", "bigint", "f", "0"]),
        ];
        let found = tables(&Reply { rows, ..Reply::default() }, &rules);
        assert_eq!(found.len(), 1);
        let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found[0].key), ["b", "a"]);
        assert_eq!(names(&found[0].columns), ["a", "b"]);
    }

    #[test]
    fn numbers_go_on_and_never_back() {
        let of = |last: i64, increment: &str| Numbers {
            of: String::new(),
            name: "s".to_owned(),
            increment: increment.to_owned(),
            last,
            is_called: true,
        };
        assert!(go_on(&of(9, "1"), &of(3, "1")).is_some_and(|sql| sql.ends_with("'s', 9, true)")));
        assert_eq!(go_on(&of(3, "1"), &of(9, "1")), None);
        assert_eq!(go_on(&of(9, "2"), &of(4, "2")), None);
        assert_eq!(go_on(&Numbers { is_called: false, ..of(1, "1") }, &of(1, "1")), None);
    }
}
