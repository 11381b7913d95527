//! The tables of one side that jobs are moved between, as its catalog has them, and whether both sides' fit together.

use super::{
    link::{Failure, Link, Reply},
    text::{array, literal, name},
};
use crate::sql::{Outgoing, Relayed};

/// The columns of all tables of some names, with the place of each in the primary key and the sequence of its default.
const COLUMNS: &str = "SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
    a.attgenerated <> '', a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', \
    pg_catalog.array_position(i.indkey::pg_catalog.int2[], a.attnum), q.seqrelid::pg_catalog.regclass, q.seqincrement, \
    CASE WHEN p.partrelid IS NULL THEN '' WHEN p.partdefid = 0 THEN 'open' ELSE 'default' END \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisprimary \
    LEFT JOIN pg_catalog.pg_partitioned_table AS p ON p.partrelid = c.oid \
    LEFT JOIN LATERAL (\
        SELECT d.objid AS seq FROM pg_catalog.pg_depend AS d \
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        AND d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.deptype = 'i' \
        UNION ALL SELECT d.refobjid FROM pg_catalog.pg_attrdef AS f \
        JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid \
        AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        JOIN pg_catalog.pg_class AS s ON s.oid = d.refobjid AND s.relkind = 'S' \
        WHERE f.adrelid = c.oid AND f.adnum = a.attnum LIMIT 1\
    ) AS used ON true \
    LEFT JOIN pg_catalog.pg_sequence AS q ON q.seqrelid = used.seq \
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname = ANY ({names}) ORDER BY 1, 2, a.attnum";

/// Whether the outbox is installed.
pub(super) const INSTALLED: &str = "SELECT pg_catalog.to_regclass('bulkhead.outbox') IS NOT NULL";

/// A table that jobs are moved between.
#[derive(Clone, Debug)]
pub struct Table {
    /// The schema that it is in.
    pub schema: String,
    /// The name.
    pub name: String,
    /// The columns, in their order.
    pub columns: Vec<Column>,
    /// The primary key's columns, in the key's order.
    pub key: Vec<String>,
    /// The sequence that numbers its rows, if any does.
    pub sequence: Option<Sequence>,
    /// Whether it has partitions.
    pub partitions: Partitions,
    /// The preset's word on it; `None` for one that is only mirrored.
    pub relayed: Option<&'static Relayed>,
}

/// Whether a table has partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// None.
    Without,
    /// Some, and a row that none is made for is refused.
    Open,
    /// Some, one of which is for all other rows.
    Default,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type with its schema, unless it is PostgreSQL's own.
    pub type_name: String,
    /// Whether it is computed from others (`GENERATED ALWAYS AS (..) STORED`).
    pub is_generated: bool,
    /// Whether a row without it is refused.
    pub is_required: bool,
}

/// The sequence that a key is taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The name in SQL.
    pub name: String,
    /// The column that it numbers.
    pub column: String,
    /// The increment.
    pub increment: i64,
    /// The last number that it has given.
    pub last: i64,
    /// The highest number that it has given, or that its table has.
    pub highest: i64,
}

/// One side: its tables, and what `bulkhead jobs init` has noted there.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Tables that are moved between, in the order of their names.
    pub tables: Vec<Table>,
    /// Tables that the primary has a copy of.
    pub mirrored: Vec<Table>,
    /// Whether the schema `bulkhead` has what belongs there.
    pub has_schema: bool,
    /// The tables that were installed, as `schema.table`.
    pub installed: Vec<String>,
}

impl Table {
    /// `schema.table`, as it is told to people and stands in the ledger.
    pub fn source(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns that a row is moved with.
    pub(super) fn moved(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.is_generated)
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Side {
    /// Whether rows are moved in the same way: sequences go on, and that changes nothing.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let shape = |side: &Self| -> Vec<_> {
            let of = |table: &Table| (table.source(), table.columns.clone(), table.key.clone());
            side.tables.iter().chain(&side.mirrored).map(of).collect()
        };
        self.installed == other.installed && shape(self) == shape(other)
    }
}

/// Asks one side for its tables of these libraries.
pub async fn read(link: &mut Link, outgoing: &[Outgoing]) -> Result<Side, Failure> {
    let relayed = outgoing.iter().flat_map(|of| of.relayed).map(|relayed| relayed.table);
    let names: Vec<&str> = relayed.chain(outgoing.iter().flat_map(|of| of.mirrored).copied()).collect();
    let reply = link.ask(&COLUMNS.replace("{names}", &array(&names))).await?;
    let (mut tables, mirrored): (Vec<Table>, Vec<Table>) =
        tables(&reply, outgoing).into_iter().partition(|table| table.relayed.is_some());
    for table in &mut tables {
        let relation = format!("{}.{}", name(&table.schema), name(&table.name));
        let Some(sequence) = &mut table.sequence else { continue };
        let numbers = format!(
            "SELECT s.last_value, GREATEST(s.last_value, (SELECT pg_catalog.max({}) FROM {relation})) FROM {} AS s",
            name(&sequence.column),
            sequence.name
        );
        let numbers = link.ask(&numbers).await?;
        sequence.last = numbers.value(0, 0).parse().unwrap_or(0);
        sequence.highest = numbers.value(0, 1).parse().unwrap_or(sequence.last);
    }
    let has_schema = link.ask(INSTALLED).await?.value(0, 0) == "t";
    let mut installed = Vec::new();
    if has_schema {
        let reply = link.ask("SELECT source_table FROM bulkhead.outbox ORDER BY 1").await?;
        installed.extend(reply.rows.into_iter().flatten().flatten());
    }
    Ok(Side { tables, mirrored, has_schema, installed })
}

fn tables(reply: &Reply, outgoing: &[Outgoing]) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut keys: Vec<Vec<(i64, String)>> = Vec::new();
    for at in 0..reply.rows.len() {
        let value = |column: usize| reply.value(at, column);
        let (schema, name) = (value(0), value(1));
        let mut of_schema = outgoing.iter().filter(|of| of.is_in(schema));
        let relayed =
            of_schema.clone().find_map(|of| of.relayed.iter().find(|relayed| relayed.table == name));
        if relayed.is_none() && !of_schema.any(|of| of.mirrored.contains(&name)) {
            continue;
        }
        if tables.last().is_none_or(|last| (last.schema.as_str(), last.name.as_str()) != (schema, name)) {
            let (schema, name) = (schema.to_owned(), name.to_owned());
            let partitions = match value(9) {
                "open" => Partitions::Open,
                "default" => Partitions::Default,
                _ => Partitions::Without,
            };
            let (columns, key) = (Vec::new(), Vec::new());
            tables.push(Table { schema, name, columns, key, sequence: None, partitions, relayed });
            keys.push(Vec::new());
        }
        let (Some(table), Some(key)) = (tables.last_mut(), keys.last_mut()) else { continue };
        let column = value(2).to_owned();
        if let Ok(place) = value(6).parse() {
            key.push((place, column.clone()));
            if let Ok(increment) = value(8).parse() {
                let name = value(7).to_owned();
                table.sequence =
                    Some(Sequence { name, column: column.clone(), increment, last: 0, highest: 0 });
            }
        }
        table.columns.push(Column {
            name: column,
            type_name: value(3).to_owned(),
            is_generated: value(4) == "t",
            is_required: value(5) == "t",
        });
    }
    for (table, mut key) in tables.iter_mut().zip(keys) {
        key.sort_unstable();
        table.key = key.into_iter().map(|(_, column)| column).collect();
    }
    tables
}

/// The question whether a table has rows.
pub fn has_rows(table: &Table) -> String {
    format!("SELECT EXISTS (SELECT FROM {}.{})", name(&table.schema), name(&table.name))
}

/// Why rows cannot be moved from one table to the other; empty if they can.
pub(super) fn misfits(from: &Table, to: &Table) -> Vec<String> {
    let source = from.source();
    let mut found = Vec::new();
    if from.key.is_empty() {
        found.push(format!("{source} has no primary key"));
    }
    if from.key != to.key {
        found.push(format!(
            "{source} has the primary key ({}) on the primary and ({}) in the job database",
            from.key.join(", "),
            to.key.join(", ")
        ));
    }
    for column in from.moved() {
        match to.column(&column.name) {
            None => found.push(format!("{source}.{} is missing in the job database", column.name)),
            Some(other) if other.is_generated => {
                found.push(format!("{source}.{} is generated in the job database only", column.name));
            }
            Some(other) if other.type_name != column.type_name => found.push(format!(
                "{source}.{} is {} on the primary and {} in the job database",
                column.name, column.type_name, other.type_name
            )),
            Some(_) => {}
        }
    }
    for column in to.columns.iter().filter(|column| column.is_required) {
        if from.moved().all(|other| other.name != column.name) {
            found.push(format!(
                "{source}.{} is missing on the primary, and has no default in the job database",
                column.name
            ));
        }
    }
    found
}

/// Tables of the primary that rows may be written to, and that were not installed.
pub(super) fn missing(primary: &Side) -> Vec<String> {
    let sources = primary.tables.iter().map(Table::source);
    sources.filter(|source| !primary.installed.contains(source)).collect()
}

/// Why both sides cannot be worked with as they are; empty if they can.
pub fn problems(primary: &Side, jobs: &Side) -> Vec<String> {
    let mut found = Vec::new();
    for source in &primary.installed {
        let of = |side: &Side| side.tables.iter().find(|table| table.source() == *source).cloned();
        match (of(primary), of(jobs)) {
            (Some(from), Some(to)) => {
                found.extend(misfits(&from, &to));
                found.extend(unstrided(&from, true));
                found.extend(unstrided(&to, false));
            }
            (None, _) => found.push(format!("{source} is missing on the primary")),
            (_, None) => found.push(format!("{source} is missing in the job database")),
        }
        if !jobs.installed.contains(source) {
            found.push(format!("{source} was not installed in the job database"));
        }
    }
    found
}

/// Both sides must never give the same number: the primary gives odd ones.
fn unstrided(table: &Table, is_primary: bool) -> Option<String> {
    let sequence = table.sequence.as_ref()?;
    let fits = is_strided(sequence, is_primary);
    let (side, kind) = if is_primary { ("primary", "odd") } else { ("job database", "even") };
    (!fits).then(|| format!("{} of the {side} does not give {kind} numbers only", sequence.name))
}

/// Whether the sequence gives only odd numbers, or only even ones.
pub(super) fn is_strided(sequence: &Sequence, odd: bool) -> bool {
    sequence.increment == 2 && (sequence.last.rem_euclid(2) == 1) == odd
}

/// `schema.table` as a literal.
pub(super) fn source_literal(table: &Table) -> String {
    literal(&table.source())
}
