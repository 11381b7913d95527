//! The tables of one side that jobs are moved between, as its catalog has them, and whether both sides' fit together.

use super::{
    calls::{self, Noting},
    former::{self, Former},
    link::{Failure, Link, Reply},
    text::{array, literal, name, pattern},
};
use crate::sql::{Outgoing, Relayed};

/// The columns of all tables of some names, with the place of each in the primary key and the sequence of its default.
const COLUMNS: &str = "SELECT n.nspname, c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
    a.attgenerated <> '', a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', \
    pg_catalog.array_position(i.indkey::pg_catalog.int2[], a.attnum), q.seqrelid::pg_catalog.regclass, q.seqincrement, \
    CASE WHEN p.partrelid IS NULL THEN '' WHEN p.partdefid = 0 THEN 'open' ELSE 'default' END, \
    EXISTS (SELECT FROM pg_catalog.pg_index AS u WHERE u.indrelid = c.oid AND u.indisunique AND u.indisvalid \
        AND u.indpred IS NULL AND u.indnkeyatts = 1 AND u.indkey[0] = a.attnum), \
    EXISTS (SELECT FROM pg_catalog.pg_trigger AS g WHERE g.tgrelid = c.oid AND g.tgname = 'bulkhead_refuse' \
        AND g.tgenabled IN ('O', 'A')), \
    (SELECT pg_catalog.format('%I.%I', m.nspname, t.typname) FROM pg_catalog.pg_type AS t \
        JOIN pg_catalog.pg_namespace AS m ON m.oid = t.typnamespace WHERE t.oid = a.atttypid) \
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
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname LIKE ANY ({names}) ORDER BY 1, 2, a.attnum";

/// Whether the outbox is installed.
pub(super) const INSTALLED: &str = "SELECT pg_catalog.to_regclass('bulkhead.outbox') IS NOT NULL";

/// Whether the ledger is there.
const HAS_LEDGER: &str = "SELECT pg_catalog.to_regclass('bulkhead.relayed') IS NOT NULL";

/// Functions of some names that take one text, or can.
const MAKERS: &str = "SELECT DISTINCT n.nspname || '.' || p.proname FROM pg_catalog.pg_proc AS p \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace \
    WHERE p.proname = ANY ({names}) AND p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1 \
    AND p.proargtypes[0] = 'pg_catalog.text'::pg_catalog.regtype";

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
    /// The preset's word on it; `None` for one whose rows are not moved.
    pub relayed: Option<&'static Relayed>,
    /// Whether a trigger refuses the rows that are not to be moved.
    pub is_guarded: bool,
    /// For each of the functions that are to note calls, the one in its place; empty if there are none, or in another version
    /// of the library.
    pub noting: Vec<Noting>,
    /// The call that each row stands for, in SQL over the row `c`; `None` where rows are jobs.
    pub call: Option<String>,
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
    /// The type with its schema in any case, and without what it is narrowed to: so it is found whatever the search path is.
    pub cast: String,
    /// Whether it is computed from others (`GENERATED ALWAYS AS (..) STORED`).
    pub is_generated: bool,
    /// Whether a row without it is refused.
    pub is_required: bool,
    /// Whether no two rows have the same in it.
    pub is_unique: bool,
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
    /// The highest number that it has given, or that its table has; as [`read`] finds it.
    pub highest: i64,
}

/// One side: its tables, and what `bulkhead jobs init` has noted there.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// Tables that are moved between, in the order of their names.
    pub tables: Vec<Table>,
    /// Tables that the primary has a copy of.
    pub mirrored: Vec<Table>,
    /// Tables whose rows are named by rows that are moved.
    pub parents: Vec<Table>,
    /// Functions that are there of those that make a table for a queue, as `schema.function`.
    pub functions: Vec<String>,
    /// Whether the schema `bulkhead` has what belongs there.
    pub has_schema: bool,
    /// The tables that were installed, as `schema.table`.
    pub installed: Vec<String>,
    /// Objects of the schema that another version has made.
    pub former: Vec<Former>,
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
            side.tables.iter().chain(&side.mirrored).chain(&side.parents).map(of).collect()
        };
        self.installed == other.installed && shape(self) == shape(other)
    }
}

/// Asks one side for its tables of these libraries, and for the highest number in each.
pub async fn read(link: &mut Link, outgoing: &[Outgoing]) -> Result<Side, Failure> {
    let mut side = read_shape(link, outgoing).await?;
    let has_ledger = side.has_schema && link.ask(HAS_LEDGER).await?.value(0, 0) == "t";
    for table in &mut side.tables {
        let (relation, source) = (format!("{}.{}", name(&table.schema), name(&table.name)), table.source());
        let Some(sequence) = &mut table.sequence else { continue };
        // A table that was made anew under the name of one that is gone gives its numbers again.
        let relayed = if has_ledger && sequence.increment != 2 {
            format!(
                "(SELECT pg_catalog.max(key::pg_catalog.int8) FROM bulkhead.relayed WHERE source_table = {} \
                 AND key ~ '^[0-9]{{1,18}}$')",
                literal(&source)
            )
        } else {
            "NULL".to_owned()
        };
        let highest = format!(
            "SELECT GREATEST({}, (SELECT pg_catalog.max({}) FROM {relation}), {relayed})",
            sequence.last,
            name(&sequence.column),
        );
        sequence.highest = link.ask(&highest).await?.value(0, 0).parse().unwrap_or(sequence.last);
    }
    Ok(side)
}

/// Asks one side for its tables of these libraries, and reads none of these: somebody may have one locked.
pub(super) async fn read_shape(link: &mut Link, outgoing: &[Outgoing]) -> Result<Side, Failure> {
    let mut names: Vec<String> = outgoing.iter().flat_map(Outgoing::tables).map(pattern).collect();
    names.push(pattern(calls::CALLED.table));
    let reply = link.ask(&COLUMNS.replace("{names}", &array(&names))).await?;
    let (mut tables, others): (Vec<Table>, Vec<Table>) =
        tables(&reply, outgoing).into_iter().partition(|table| table.relayed.is_some());
    let is_parent =
        |table: &Table| outgoing.iter().any(|of| of.is_in(&table.schema) && of.is_parent(&table.name));
    let (parents, mirrored) = others.into_iter().partition(is_parent);
    let has_schema = link.ask(INSTALLED).await?.value(0, 0) == "t";
    for table in &mut tables {
        if let Some(calls) = calls::calls(&table.schema, table.relayed) {
            table.noting = calls::noted(&link.ask(&calls::noting(&table.schema, calls)).await?.rows, calls);
        }
        let Some(sequence) = &mut table.sequence else { continue };
        let last = link.ask(&format!("SELECT last_value FROM {}", sequence.name)).await?;
        sequence.last = last.value(0, 0).parse().unwrap_or(0);
        sequence.highest = sequence.last;
    }
    let makers = outgoing.iter().flat_map(|of| of.relayed).filter_map(|one| one.made_by.as_ref());
    let makers: Vec<&str> = makers.map(|maker| maker.function).collect();
    let mut functions = Vec::new();
    if !makers.is_empty() {
        let reply = link.ask(&MAKERS.replace("{names}", &array(&makers))).await?;
        functions.extend(reply.rows.into_iter().flatten().flatten());
    }
    let (mut installed, mut former) = (Vec::new(), Vec::new());
    if has_schema {
        former = former::read(link).await?;
        let reply = link.ask("SELECT source_table FROM bulkhead.outbox ORDER BY 1").await?;
        installed.extend(reply.rows.into_iter().flatten().flatten());
    }
    Ok(Side { tables, mirrored, parents, functions, has_schema, installed, former })
}

fn tables(reply: &Reply, outgoing: &[Outgoing]) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut keys: Vec<Vec<(i64, String)>> = Vec::new();
    for at in 0..reply.rows.len() {
        let value = |column: usize| reply.value(at, column);
        let (schema, name) = (value(0), value(1));
        let mut of_schema = outgoing.iter().filter(|of| of.is_in(schema));
        let call = calls::call_of(schema, name, outgoing);
        let relayed = of_schema.clone().find_map(|of| of.relayed(name));
        let relayed = if call.is_some() { Some(&calls::CALLED) } else { relayed };
        if relayed.is_none() && !of_schema.any(|of| of.mirrored.contains(&name) || of.is_parent(name)) {
            continue;
        }
        if tables.last().is_none_or(|last| (last.schema.as_str(), last.name.as_str()) != (schema, name)) {
            let (schema, name) = (schema.to_owned(), name.to_owned());
            let partitions = match value(9) {
                "open" => Partitions::Open,
                "default" => Partitions::Default,
                _ => Partitions::Without,
            };
            let (columns, key, is_guarded) = (Vec::new(), Vec::new(), value(11) == "t");
            tables.push(Table {
                schema,
                name,
                columns,
                key,
                sequence: None,
                partitions,
                relayed,
                is_guarded,
                noting: Vec::new(),
                call,
            });
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
            cast: value(12).to_owned(),
            is_generated: value(4) == "t",
            is_required: value(5) == "t",
            is_unique: value(10) == "t",
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
    for column in from.columns.iter().filter(|column| column.is_generated) {
        if to.column(&column.name).is_some_and(|other| !other.is_generated) {
            found.push(format!("{source}.{} is generated on the primary only", column.name));
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

/// Why rows that the rows of a table name cannot be found on the other side; empty if they can.
pub(super) fn unfit_parents(from: &Table, primary: &Side, jobs: &Side) -> Vec<String> {
    let Some(relayed) = from.relayed else { return Vec::new() };
    let source = from.source();
    let mut found = Vec::new();
    let columns = relayed.parents.iter().map(|parent| parent.column).chain(relayed.absent);
    for column in columns.filter(|column| from.column(column).is_none()) {
        found.push(format!("{source} has no column {column}: it is another version of the library"));
    }
    for parent in relayed.parents {
        let mut types = Vec::new();
        for (side, place) in [(primary, "on the primary"), (jobs, "in the job database")] {
            let of = format!("{}.{}", from.schema, parent.table);
            let Some(table) = side.parents.iter().find(|table| table.source() == of) else {
                found.push(format!("{of} is missing {place}"));
                continue;
            };
            let is_unique = |name: &str| table.column(name).is_some_and(|column| column.is_unique);
            let not_unique = [parent.id, parent.name].into_iter().filter(|name| !is_unique(name));
            found.extend(not_unique.map(|name| format!("{of}.{name} is not unique {place}")));
            types.extend(table.column(parent.name).map(|column| column.type_name.clone()));
            let is_given = |column: &Column| [parent.id, parent.name].contains(&column.name.as_str());
            let required = table.columns.iter().filter(|column| column.is_required && !is_given(column));
            found.extend(required.map(|column| format!("{of}.{} has no default {place}", column.name)));
        }
        if let [here, there] = types.as_slice()
            && here != there
        {
            let of = format!("{}.{}.{}", from.schema, parent.table, parent.name);
            found.push(format!("{of} is {here} on the primary and {there} in the job database"));
        }
    }
    found
}

/// Whether rows that are not to be moved are not refused.
pub(super) fn is_unguarded(table: &Table) -> bool {
    table.relayed.is_some_and(|relayed| relayed.absent.is_some()) && !table.is_guarded
}

/// Tables of the primary that rows may be written to, and that were not installed.
pub(super) fn missing(primary: &Side) -> Vec<String> {
    let sources = primary.tables.iter().map(Table::source);
    sources.filter(|source| !primary.installed.contains(source)).collect()
}

/// Tells of objects on the primary that another version has made; nothing if there are none.
pub fn former(primary: &Side) -> Option<String> {
    let has_calls = |table: &&Table| primary.installed.contains(&calls::source(&table.schema));
    let functions = primary.tables.iter().filter(has_calls).flat_map(|table| {
        let calls = calls::calls(&table.schema, table.relayed);
        let names = calls.into_iter().flat_map(|calls| calls.all().map(|function| function.name));
        let former = names.zip(&table.noting).filter(|(_, noting)| **noting == Noting::Former);
        former.map(|(name, _)| format!("{}.{name}()", table.schema))
    });
    let names: Vec<String> =
        primary.former.iter().map(|former| former.name.to_owned()).chain(functions).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{} on the primary is as another version of Bulkhead has made it: run `bulkhead jobs init`",
            names.join(", ")
        )
    })
}

/// Why both sides cannot be worked with as they are; empty if they can.
pub fn problems(primary: &Side, jobs: &Side) -> Vec<String> {
    let mut found = Vec::new();
    for source in &primary.installed {
        let of = |side: &Side| side.tables.iter().find(|table| table.source() == *source).cloned();
        match (of(primary), of(jobs)) {
            (Some(from), Some(to)) => {
                found.extend(misfits(&from, &to));
                found.extend(unfit_parents(&from, primary, jobs));
                found.extend(unstrided(&from, true));
                found.extend(unstrided(&to, false));
                if from.call.is_some() && !notes_on_both(&from, primary, jobs) {
                    found.push(format!(
                        "the functions whose calls are in {source} are not the same in the job database: both sides need the \
                         same version of the library"
                    ));
                }
                if is_unguarded(&from) {
                    found.push(format!(
                        "{source} of the primary has no trigger bulkhead_refuse: run `bulkhead jobs init`"
                    ));
                }
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

/// Whether the job database has the functions whose calls are in this table. The primary's may be those of another version
/// for a while: then nothing is noted there.
fn notes_on_both(calls: &Table, primary: &Side, jobs: &Side) -> bool {
    let is_of = |table: &&Table| calls.name.strip_prefix(calls::PREFIX) == Some(table.schema.as_str());
    let has = |side: &Side| side.tables.iter().filter(is_of).any(|table| !table.noting.is_empty());
    has(jobs) || !has(primary)
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
