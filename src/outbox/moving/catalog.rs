//! The tables of job libraries as a server's catalog has them, and why some cannot be moved while they are used.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    calls,
    link::{Failure, Link, Reply},
    text::{literal, name},
};
use crate::sql::{Calls, Rules};

/// The schema of everything that a move adds at the servers.
pub(super) const SCHEMA: &str = "bulkhead_move";

/// The columns of all tables. A partition goes by its whole table's name, too; the outbox's own one is none of the library.
const COLUMNS: &str = "SELECT n.nspname, c.relname, c.oid::pg_catalog.regclass, c.relkind = 'p', \
    rn.nspname, r.relname, \
    CASE WHEN c.relkind = 'f' THEN 'is a foreign table' \
    WHEN EXISTS (SELECT FROM pg_catalog.pg_inherits AS h JOIN pg_catalog.pg_class AS child ON child.oid = h.inhrelid \
    WHERE c.oid IN (h.inhparent, h.inhrelid) AND NOT child.relispartition) THEN 'has children or parents (INHERITS)' \
    WHEN c.relhasrules AND EXISTS (SELECT FROM pg_catalog.pg_rewrite AS w WHERE w.ev_class = c.oid) THEN 'has a rule (CREATE RULE)' \
    WHEN c.relforcerowsecurity THEN 'forces row security' ELSE '' END, c.relpersistence = 'u', a.attname, \
    CASE t.typtype WHEN 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) \
    ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END, \
    CASE WHEN l.oid <> t.typcollation THEN ' COLLATE ' || pg_catalog.quote_ident(ln.nspname) || '.' || \
    pg_catalog.quote_ident(l.collname) ELSE '' END, a.attgenerated <> '', \
    pg_catalog.array_position((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1], a.attnum) \
    FROM pg_catalog.pg_class AS c \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_class AS r ON r.oid = COALESCE(pg_catalog.pg_partition_root(c.oid), c.oid) \
    JOIN pg_catalog.pg_namespace AS rn ON rn.oid = r.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid \
    LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation \
    LEFT JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace \
    LEFT JOIN pg_catalog.pg_index AS i ON i.indexrelid = (SELECT u.indexrelid FROM pg_catalog.pg_index AS u \
    JOIN pg_catalog.pg_class AS x ON x.oid = u.indexrelid WHERE u.indrelid = c.oid AND (u.indisprimary OR u.indisunique \
    AND u.indisvalid AND u.indimmediate AND u.indpred IS NULL AND u.indexprs IS NULL AND NOT EXISTS (\
    SELECT FROM pg_catalog.pg_attribute AS k WHERE k.attrelid = c.oid AND NOT k.attnotnull \
    AND k.attnum = ANY ((u.indkey::pg_catalog.int2[])[0:u.indnkeyatts - 1]))) \
    ORDER BY NOT u.indisprimary, u.indnkeyatts, x.relname LIMIT 1) \
    WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname NOT IN ('information_schema', 'bulkhead', 'bulkhead_move') \
    AND n.nspname NOT LIKE 'pg\\_%' \
    AND NOT (c.relispartition AND c.relname = ('bulkhead_' || r.relname)::pg_catalog.name) ORDER BY 1, 2, a.attnum";

/// Sequences that belong to columns or that these are numbered by, by table; and those by themselves, without one.
const SEQUENCES: &str = "SELECT c.oid::pg_catalog.regclass::pg_catalog.text, a.attname, s.seqrelid::pg_catalog.regclass, \
    s.seqincrement FROM (SELECT d.objid AS seq, d.refobjid AS tab, d.refobjsubid AS col FROM pg_catalog.pg_depend AS d \
    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') \
    UNION SELECT d.refobjid, e.adrelid, e.adnum FROM pg_catalog.pg_depend AS d \
    JOIN pg_catalog.pg_attrdef AS e ON e.oid = d.objid WHERE d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) AS u \
    JOIN pg_catalog.pg_sequence AS s ON s.seqrelid = u.seq JOIN pg_catalog.pg_class AS c ON c.oid = u.tab \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = u.col \
    UNION ALL SELECT NULL, NULL, s.seqrelid::pg_catalog.regclass, s.seqincrement FROM pg_catalog.pg_sequence AS s \
    JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid WHERE c.relnamespace IN ({schemas}) ORDER BY 1, 2, 3";

/// References between tables.
pub(super) const REFERENCES: &str = "SELECT c.oid::pg_catalog.regclass, f.oid::pg_catalog.regclass, o.conname, \
    pg_catalog.pg_get_constraintdef(o.oid), pg_catalog.obj_description(o.oid, 'pg_constraint') FROM pg_catalog.pg_constraint AS o \
    JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid JOIN pg_catalog.pg_class AS f ON f.oid = o.confrelid \
    WHERE o.contype = 'f' AND o.conparentid = 0 ORDER BY 1, 3";

/// A table that is moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts, not states of one thing")]
pub(super) struct Moved {
    /// The place among all of them, by which what belongs to it is called.
    pub(super) at: usize,
    pub(super) schema: String,
    pub(super) name: String,
    /// `schema.table`, in quotes where PostgreSQL would have it in quotes.
    pub(super) source: String,
    /// The columns that a row has by itself, in their order.
    pub(super) columns: Vec<Column>,
    /// The primary key, in its order; without one, the columns of a unique index that are NOT NULL.
    pub(super) key: Vec<Column>,
    /// A crash empties it.
    pub(super) is_unlogged: bool,
    /// The primary has a copy while the job database has the jobs.
    pub(super) is_mirrored: bool,
    /// Rows that the outbox moves name rows of it: those that the primary has wait for nothing.
    pub(super) is_parent: bool,
    /// Functions that add jobs look for a row of it that they update.
    pub(super) is_searched: bool,
    /// Calls of the library that the outbox notes on the primary.
    pub(super) calls: Option<&'static Calls>,
    /// Why it cannot be moved; empty if it can.
    unfit: String,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// The type; of a domain, its base: where changes are noted there may be no key.
    pub(super) type_name: String,
    /// ` COLLATE ..`, if it is not the type's own.
    pub(super) collation: String,
}

/// The job tables of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// Tables that have rows: partitions, and not the whole of them.
    pub(super) rows: Vec<Moved>,
    /// Tables that have partitions, which are written by their names.
    pub(super) wholes: Vec<Moved>,
    /// Schemas of theirs in which everything is the library's.
    schemas: BTreeSet<String>,
}

impl Moved {
    /// `schema.table`, as it is told to people and noted.
    pub(super) fn source(&self) -> String {
        self.source.clone()
    }

    /// The name in SQL.
    pub(super) fn relation(&self) -> String {
        format!("{}.{}", name(&self.schema), name(&self.name))
    }

    /// Statements that have the primary's functions be the library's own again. Who notes a call there at this moment gets an
    /// error.
    pub(super) fn make_calls_again(&self) -> Vec<String> {
        let Some(calls) = self.calls else { return Vec::new() };
        [calls::forget(&self.schema, calls), calls::take_away(&self.schema)].concat()
    }

    /// The columns whatever their order, which both sides may have in their own way.
    fn shape(&self) -> (&str, &[Column], BTreeMap<&str, &Column>) {
        let columns = self.columns.iter().map(|column| (column.name.as_str(), column));
        (&self.source, &self.key, columns.collect())
    }
}

impl Tables {
    pub(super) fn all(&self) -> impl Iterator<Item = &Moved> {
        self.rows.iter().chain(&self.wholes)
    }

    /// The names of all, as they are told.
    pub(super) fn sources(&self) -> Vec<String> {
        self.all().map(Moved::source).collect()
    }

    /// The names in SQL, as a list.
    pub(super) fn relations(&self) -> String {
        self.all().map(Moved::relation).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn find(&self, source: &str) -> Option<&Moved> {
        self.all().find(|table| table.source == source)
    }

    /// The first table that is not as these have it, and why.
    pub(super) fn change(&self, now: &Self) -> Option<String> {
        let changed = self.all().find_map(|table| match now.find(&table.source) {
            None => Some(format!("{} is gone", table.source)),
            Some(other) if other.shape() != table.shape() => {
                Some(format!("{} has other columns", table.source))
            }
            Some(_) => None,
        });
        let is_new = |table: &&Moved| self.find(&table.source).is_none();
        changed.or_else(|| Some(format!("{} is new", now.all().find(is_new)?.source)))
    }
}

/// The job tables of a server, in the order of their names. With an outbox, the primary has copies of some.
pub(super) async fn read(link: &mut Link, rules: &Rules, has_outbox: bool) -> Result<Tables, Failure> {
    Ok(tables(&link.ask(COLUMNS).await?, rules, has_outbox))
}

fn tables(reply: &Reply, rules: &Rules, has_outbox: bool) -> Tables {
    let mut tables = Tables::default();
    let mut keys: BTreeMap<String, BTreeMap<i64, Column>> = BTreeMap::new();
    for row in 0..reply.rows.len() {
        let value = |column: usize| reply.value(row, column);
        let (schema, name, source) = (value(0), value(1), value(2));
        let is_whole = rules.is_job_table(value(4), value(5));
        if !is_whole && !rules.is_job_table(schema, name) {
            continue;
        }
        if rules.is_job_schema(schema) {
            tables.schemas.insert(schema.to_owned());
        }
        let of_kind = if value(3) == "t" { &mut tables.wholes } else { &mut tables.rows };
        if of_kind.last().is_none_or(|last| last.source != source) {
            let relayed = rules.relayed(Some(schema), name);
            of_kind.push(Moved {
                at: of_kind.len(),
                schema: schema.to_owned(),
                name: name.to_owned(),
                source: source.to_owned(),
                is_unlogged: value(7) == "t",
                is_mirrored: has_outbox && rules.is_mirrored(Some(schema), name),
                is_parent: has_outbox && rules.is_parent(schema, name),
                is_searched: relayed.is_some_and(|of| of.absent.is_some()),
                calls: relayed.and_then(|of| of.calls.as_ref()),
                unfit: if is_whole {
                    value(6).to_owned()
                } else {
                    format!("is a partition of {}.{}, which is no job table", value(4), value(5))
                },
                ..Moved::default()
            });
        }
        let Some(table) = of_kind.last_mut() else { continue };
        let [column, type_name, collation] = [8, 9, 10].map(|at| value(at).to_owned());
        let column = Column { name: column, type_name, collation };
        if let Ok(place) = value(12).parse() {
            keys.entry(source.to_owned()).or_default().insert(place, column.clone());
        }
        if value(11) != "t" {
            table.columns.push(column);
        }
    }
    for table in &mut tables.rows {
        table.key = keys.remove(&table.source).map(|key| key.into_values().collect()).unwrap_or_default();
    }
    tables
}

/// Why these tables cannot be moved; empty if they can.
pub(super) async fn obstacles(link: &mut Link, tables: &Tables) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    if tables.rows.is_empty() {
        found.push("there is no job table that has rows: name the library in jobs.presets".to_owned());
    }
    for table in &tables.rows {
        if table.key.is_empty() {
            found.push(format!(
                "{} has no primary key, nor a unique index of columns that are NOT NULL, by which its changes could be followed: \
                 add one (ALTER TABLE {} ADD PRIMARY KEY ..)",
                table.source,
                table.relation()
            ));
        }
    }
    let is_computed = |table: &&Moved| table.key.iter().any(|key| !table.columns.contains(key));
    for table in tables.rows.iter().filter(is_computed) {
        found.push(format!(
            "{} has a generated column in its key, which cannot be carried over",
            table.source
        ));
    }
    for table in tables.all().filter(|table| !table.unfit.is_empty()) {
        found.push(format!("{} {}, and cannot be moved while it is used", table.source, table.unfit));
    }
    let references = link.ask(REFERENCES).await?;
    for row in 0..references.rows.len() {
        let value = |column: usize| references.value(row, column);
        let (from, to) = (tables.find(value(0)), tables.find(value(1)));
        if from.is_some() != to.is_some() {
            found.push(format!(
                "{} refers to {} ({}), and only one of them is a job table: they cannot be on different servers",
                value(0),
                value(1),
                value(2)
            ));
        }
        if tables.wholes.iter().any(|whole| whole.source == value(0)) {
            found.push(format!(
                "{} has partitions and refers to {} ({}), which cannot be set aside while rows come: let each partition \
                 refer to it by itself",
                value(0),
                value(1),
                value(2)
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

/// The sequences of these tables, and those of the library's schemas that are nobody's.
pub(super) async fn numbers(link: &mut Link, tables: &Tables) -> Result<Vec<Numbers>, Failure> {
    let schema = |schema: &String| format!("{}::pg_catalog.regnamespace", literal(&name(schema)));
    let schemas: Vec<String> = tables.schemas.iter().map(schema).collect();
    let schemas = if schemas.is_empty() { "NULL".to_owned() } else { schemas.join(", ") };
    let reply = link.ask(&SEQUENCES.replace("{schemas}", &schemas)).await?;
    let mut found: Vec<Numbers> = Vec::new();
    for row in 0..reply.rows.len() {
        let [table, column, sequence, increment] = [0, 1, 2, 3].map(|at| reply.value(row, at).to_owned());
        // One that several columns are numbered by, or that has a table which is no job table, is not looked at again.
        let is_known = found.iter().any(|numbers| numbers.name == sequence);
        let is_others = table.is_empty() && (0..row).any(|other| reply.value(other, 2) == sequence);
        if is_known || is_others || (!table.is_empty() && tables.find(&table).is_none()) {
            continue;
        }
        let last = link.ask(&format!("SELECT last_value, is_called FROM {sequence}")).await?;
        found.push(Numbers {
            of: if table.is_empty() { sequence.clone() } else { format!("{table}.{column}") },
            name: sequence,
            increment,
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

    fn read_rows(rows: &[[&str; 13]]) -> Tables {
        let rules = Rules::new(&["oban".to_owned()], &[], &Custom::default(), Vec::new()).expect("a preset");
        let text = |text: &&str| Some((*text).to_owned()).filter(|text| !text.is_empty());
        let rows = rows.iter().map(|row| row.iter().map(text).collect()).collect();
        tables(&Reply { rows, ..Reply::default() }, &rules, false)
    }

    #[test]
    fn keys_are_in_their_own_order_and_generated_columns_are_left_out() {
        let row = |table: [&'static str; 4], column: [&'static str; 4]| {
            let ([schema, name, source, whole], [column, kind, is_generated, place]) = (table, column);
            [schema, name, source, whole, schema, "oban_jobs", "", "f", column, kind, "", is_generated, place]
        };
        let jobs = ["public", "oban_jobs", "public.oban_jobs", "t"];
        let part = ["public", "part", "public.part", "f"];
        let found = read_rows(&[
            row(jobs, ["a", "text", "f", "1"]),
            row(part, ["a", "text", "f", "1"]),
            row(part, ["b", "bigint", "f", "0"]),
            row(part, ["c", "bigint", "t", ""]),
            [
                "public",
                "orders",
                "public.orders",
                "f",
                "public",
                "orders",
                "",
                "f",
                "id",
                "bigint",
                "",
                "f",
                "0",
            ],
        ]);
        let names = |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>();
        assert_eq!(found.sources(), ["public.part", "public.oban_jobs"]);
        assert_eq!(names(&found.rows[0].key), ["b", "a"]);
        assert_eq!(names(&found.rows[0].columns), ["a", "b"]);
    }

    #[test]
    fn a_change_of_the_tables_is_noticed() {
        let row = |source: &'static str, column: &'static str, kind: &'static str| {
            ["public", "oban_jobs", source, "f", "public", "oban_jobs", "", "f", column, kind, "", "f", ""]
        };
        let one = read_rows(&[row("a", "x", "text"), row("a", "y", "int")]);
        let change = |rows: &[[&str; 13]]| one.change(&read_rows(rows));
        assert_eq!(change(&[row("a", "y", "int"), row("a", "x", "text")]), None);
        assert_eq!(change(&[row("a", "x", "text")]).as_deref(), Some("a has other columns"));
        assert_eq!(
            change(&[row("a", "x", "text"), row("a", "y", "text")]).as_deref(),
            Some("a has other columns")
        );
        assert_eq!(change(&[]).as_deref(), Some("a is gone"));
        let more = [row("a", "x", "text"), row("a", "y", "int"), row("b", "x", "text")];
        assert_eq!(change(&more).as_deref(), Some("b is new"));
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
