//! A job library's tables, made where they are missing, as the other side's catalog has them: with the types, sequences,
//! functions, indexes, constraints, triggers, views and comments that belong to them.
//!
//! The server itself writes the definitions (`pg_get_constraintdef` and its like); what is put together here is the lists
//! of columns and options. `pg_dump` is not used: with `--table` it leaves out types and functions, its version must be the
//! server's or newer, and a small container has none. What this cannot make is named before anything is made.
//!
//! Nothing that is there is changed. What belongs to a table that is there (an index, a default) is not made either: where it
//! is missing, somebody is to look at why. All is made in one transaction, with notes of how to take it away again.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    calls,
    link::{Failure, Link},
    text::{carry_out, literal},
};
use super::catalog::{Moved, SCHEMA};
use crate::sql::Rules;

const NAMES: &str = include_str!("schema/names.sql");
const NEED: &str = include_str!("schema/need.sql");
const NODES: &str = include_str!("schema/nodes.sql");
const EDGES: &str = include_str!("schema/edges.sql");

/// Every object that is not PostgreSQL's own, by its kind and name.
const THERE: &str = "SELECT i.type OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) i.identity FROM (\
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, oid FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I') \
    UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid FROM pg_catalog.pg_proc \
    UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid FROM pg_catalog.pg_type \
    UNION ALL SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, oid FROM pg_catalog.pg_namespace \
    UNION ALL SELECT 'pg_catalog.pg_extension'::pg_catalog.regclass, oid FROM pg_catalog.pg_extension\
    ) AS o (classid, oid) CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.oid, 0) AS i WHERE o.oid >= 16384";

/// An object of a catalog: the catalog's oid and its own, as texts.
type Address = [String; 2];

/// An object, and how it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Object {
    address: Address,
    kind: String,
    /// The oid of the table that it belongs to; "0" if it is one by itself.
    table: String,
    /// The kind and the name, by which both sides have it.
    key: String,
    /// Makes it; `None` if that cannot be done from here.
    sql: Option<String>,
    /// Said behind that: owner, rights, comments.
    more: String,
    undo: String,
    /// The schema that rules know it by; a partition goes by its whole table's.
    schema: String,
    name: String,
}

/// Objects of a side.
#[derive(Debug, Default)]
struct Objects {
    /// In an order that is right but for what refers to each other.
    all: Vec<Object>,
    /// Objects that must be there before each.
    before: BTreeMap<Address, Vec<Address>>,
}

/// Objects that a side lacks, and how they are made.
#[derive(Debug, Default)]
pub(super) struct Making {
    made: Vec<Object>,
    /// Why it cannot be made.
    pub(super) problems: Vec<String>,
    /// Where the two sides differ in what both have.
    pub(super) differences: Vec<String>,
}

/// Finds out what the tables of these rules need, and `to` does not have.
pub(super) async fn missing(
    from: &mut Link,
    to: &mut Link,
    rules: &Rules,
    names: [&str; 2],
) -> Result<Making, Failure> {
    let wanted = objects(from, rules).await?;
    let known = objects(to, rules).await?;
    let there = to.ask(THERE).await?.rows.into_iter().flatten().flatten().collect();
    Ok(compare(&wanted, &known, &there, rules, names))
}

async fn objects(link: &mut Link, rules: &Rules) -> Result<Objects, Failure> {
    let mut chosen: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let candidates = link.ask(NAMES).await?;
    for row in 0..candidates.rows.len() {
        let (schema, name) = (candidates.value(row, 2), candidates.value(row, 3));
        let (kind, is_chosen) = match candidates.value(row, 0) {
            "relation" => ("{relations}", rules.is_job_table(schema, name)),
            "function" => ("{functions}", rules.is_job_function(schema, name) && !calls::is_aside(name)),
            _ => ("{types}", rules.is_job_type(schema, name)),
        };
        if is_chosen {
            chosen.entry(kind).or_default().push(candidates.value(row, 1).to_owned());
        }
    }
    let mut need = NEED.to_owned();
    for kind in ["{relations}", "{functions}", "{types}"] {
        let oids = chosen.get(kind).map(|oids| oids.join(", ")).unwrap_or_default();
        need = need.replace(kind, &format!("ARRAY[{oids}]::pg_catalog.oid[]"));
    }
    let mut found = Objects::default();
    for row in link.ask(&format!("{need}{NODES}")).await?.rows {
        let mut row = row.into_iter();
        let mut next = || row.next().flatten();
        let mut text = || next().unwrap_or_default();
        let (address, kind, table, key) = ([text(), text()], text(), text(), text());
        let sql = next();
        let mut text = || next().unwrap_or_default();
        let (more, undo, schema, name) = (text(), text(), text(), text());
        found.all.push(Object { address, kind, table, key, sql, more, undo, schema, name });
    }
    for row in link.ask(&format!("{need}{EDGES}")).await?.rows {
        let Ok([class, oid, of_class, of_oid]) = <[Option<String>; 4]>::try_from(row) else { continue };
        let [class, oid, of_class, of_oid] = [class, oid, of_class, of_oid].map(Option::unwrap_or_default);
        found.before.entry([class, oid]).or_default().push([of_class, of_oid]);
    }
    Ok(found)
}

fn compare(
    wanted: &Objects,
    known: &Objects,
    there: &BTreeSet<String>,
    rules: &Rules,
    names: [&str; 2],
) -> Making {
    let [here, yonder] = names;
    let known: BTreeMap<&str, &Object> =
        known.all.iter().map(|object| (object.key.as_str(), object)).collect();
    let is_there = |object: &Object| known.contains_key(object.key.as_str()) || there.contains(&object.key);
    // Tables that are to be made, by their oids.
    let tables: BTreeSet<&str> = wanted
        .all
        .iter()
        .filter(|object| object.table == "0" && !is_there(object))
        .map(|object| object.address[1].as_str())
        .collect();
    let mut making = Making::default();
    for object in wanted.ordered() {
        if let Some(other) = known.get(object.key.as_str()) {
            let is_compared = matches!(
                object.kind.as_str(),
                "type" | "function" | "view" | "trigger" | "policy" | "partition"
            );
            let notes = |object: &Object| object.sql.as_deref().is_some_and(calls::notes);
            if is_compared && object.sql != other.sql && !notes(object) && !notes(other) {
                making.differences.push(format!("{}: it is not the same {here} and {yonder}", object.key));
            }
            continue;
        }
        if is_there(object) {
            continue;
        }
        if object.table != "0" && !tables.contains(object.table.as_str()) {
            // Of other things that a table lacks the comparison of tables tells.
            if matches!(object.kind.as_str(), "trigger" | "policy") {
                making.differences.push(format!("{}: {here} only", object.key));
            }
            continue;
        }
        making.problems.extend(object.obstacle(wanted, rules, names));
        making.made.push(object.clone());
    }
    making
}

impl Objects {
    /// All of them, each behind what it needs.
    fn ordered(&self) -> Vec<&Object> {
        let by_address: BTreeMap<&Address, &Object> =
            self.all.iter().map(|object| (&object.address, object)).collect();
        let mut ordered = Vec::new();
        let mut seen = BTreeSet::new();
        for object in &self.all {
            // Each with whether what it needs was looked at.
            let mut open = vec![(&object.address, false)];
            while let Some((address, is_ready)) = open.pop() {
                if is_ready {
                    ordered.extend(by_address.get(address).copied());
                } else if seen.insert(address) {
                    open.push((address, true));
                    let before = self.before.get(address).map(Vec::as_slice).unwrap_or_default();
                    open.extend(before.iter().rev().map(|address| (address, false)));
                }
            }
        }
        ordered
    }
}

impl Object {
    /// Why it may not be made.
    fn obstacle(&self, all: &Objects, rules: &Rules, [here, yonder]: [&str; 2]) -> Option<String> {
        let key = &self.key;
        if self.sql.is_none() {
            return Some(format!(
                "{key} is missing {yonder}, and is of a kind that this does not make: make it there first"
            ));
        }
        let is_other = |of: &str| self.kind == of;
        let is_table = is_other("table") || is_other("partition") || is_other("view");
        if is_table && !rules.is_job_table(&self.schema, &self.name) {
            return Some(format!("the job tables need {key}, which is no job table: make it {yonder} first"));
        }
        let runs = |object: &&Object| {
            matches!(object.kind.as_str(), "trigger" | "policy")
                && all.before.get(&object.address).is_some_and(|before| before.contains(&self.address))
        };
        if is_other("function") && !rules.is_job_function(&self.schema, &self.name) {
            let who = all.all.iter().find(runs)?;
            return Some(format!(
                "{} runs {key}, which is not the library's, and may use what is {here} only: make it {yonder} first, or drop \
                 the {}",
                who.key, who.kind
            ));
        }
        None
    }
}

impl Making {
    /// Whether nothing is missing.
    pub(super) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Whether a table is to be made.
    pub(super) fn has(&self, table: &Moved) -> bool {
        let key = format!("table {}", table.source());
        self.made.iter().any(|object| object.key == key)
    }

    /// How many tables, and how many other things.
    pub(super) fn counts(&self) -> [usize; 2] {
        let is_table = |object: &&Object| matches!(object.kind.as_str(), "table" | "partition");
        let tables = self.made.iter().filter(is_table).count();
        [tables, self.made.len() - tables]
    }

    /// The statements that make it all, and note how it is taken away.
    pub(super) fn statements(&self) -> Vec<String> {
        if self.made.is_empty() {
            return Vec::new();
        }
        let mut statements = vec![
            // They may name what comes behind them.
            "SET LOCAL check_function_bodies = off".to_owned(),
            format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}"),
            format!(
                "CREATE TABLE IF NOT EXISTS {SCHEMA}.made (id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                 undo pg_catalog.text NOT NULL)"
            ),
        ];
        for object in &self.made {
            statements.extend(object.sql.clone());
            statements.extend(Some(object.more.clone()).filter(|more| !more.is_empty()));
        }
        for object in &self.made {
            let undo = match object.kind.as_str() {
                "table" | "partition" => format!("{}; {}", refuse_rows(&object.undo), object.undo),
                _ => object.undo.clone(),
            };
            statements.push(format!("INSERT INTO {SCHEMA}.made (undo) VALUES ({})", literal(&undo)));
        }
        statements
    }
}

/// Fails if the table that a `DROP TABLE` names has rows.
fn refuse_rows(drop: &str) -> String {
    let relation = drop.trim_start_matches("DROP TABLE ");
    carry_out(&format!(
        "BEGIN IF EXISTS (SELECT FROM {relation}) THEN RAISE EXCEPTION USING ERRCODE = '2BP01', \
         MESSAGE = {} || ' has rows'; END IF; END",
        literal(relation)
    ))
}

/// Statements that take away what an earlier run has made; none if it has made nothing.
pub(super) async fn undoing(link: &mut Link) -> Result<Vec<String>, Failure> {
    let exists = format!("SELECT pg_catalog.to_regclass('{SCHEMA}.made') IS NOT NULL");
    if link.ask(&exists).await?.value(0, 0) != "t" {
        return Ok(Vec::new());
    }
    let undo = link.ask(&format!("SELECT undo FROM {SCHEMA}.made ORDER BY id DESC")).await?;
    Ok(undo.rows.into_iter().flatten().flatten().collect())
}

/// A statement that forgets how it is taken away.
pub(super) fn forget() -> String {
    format!("DROP TABLE IF EXISTS {SCHEMA}.made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Custom;

    fn object(oid: &str, kind: &str, key: &str, table: &str) -> Object {
        Object {
            address: ["1".to_owned(), oid.to_owned()],
            kind: kind.to_owned(),
            table: table.to_owned(),
            key: key.to_owned(),
            sql: Some(format!("CREATE {key}")),
            undo: format!("DROP {key}"),
            schema: "public".to_owned(),
            name: key.rsplit('.').next().unwrap_or_default().to_owned(),
            ..Object::default()
        }
    }

    fn made(wanted: &Objects, known: Vec<Object>, there: &[&str]) -> Making {
        let rules = Rules::new(&["oban".to_owned()], &[], &Custom::default(), Vec::new()).expect("a preset");
        let there = there.iter().map(|key| (*key).to_owned()).collect();
        let known = Objects { all: known, ..Objects::default() };
        compare(wanted, &known, &there, &rules, ["on the primary", "in the job database"])
    }

    #[test]
    fn what_is_missing_is_made_behind_what_it_needs() {
        let table = object("2", "table", "table public.oban_jobs", "0");
        let (index, kind) =
            (object("3", "index", "index public.x", "2"), object("4", "type", "type public.t", "0"));
        let mut wanted = Objects { all: vec![index.clone(), table.clone(), kind], ..Objects::default() };
        wanted.before.insert(index.address.clone(), vec![table.address.clone()]);
        // By way of something that is not made by itself, and in a circle.
        let row = |oid: &str| ["1".to_owned(), oid.to_owned()];
        wanted.before.insert(table.address.clone(), vec![row("9")]);
        wanted.before.insert(row("9"), vec![row("4"), row("2")]);
        let keys = |making: &Making| making.made.iter().map(|object| object.key.clone()).collect::<Vec<_>>();
        let all = made(&wanted, Vec::new(), &[]);
        assert_eq!(keys(&all), ["type public.t", "table public.oban_jobs", "index public.x"]);
        assert_eq!((all.problems.len(), all.counts()), (0, [1, 2]));
        // A type of this name may be used by others, too.
        assert_eq!(
            keys(&made(&wanted, Vec::new(), &["type public.t"])),
            ["table public.oban_jobs", "index public.x"]
        );
        // What a table lacks that is there is not made.
        assert_eq!(keys(&made(&wanted, vec![table], &["type public.t"])), [""; 0]);
    }

    #[test]
    fn what_differs_or_cannot_be_made_is_named() {
        let wanted = Objects {
            all: vec![
                object("2", "function", "function public.f", "0"),
                object("3", "table", "table public.orders", "0"),
                Object { sql: None, ..object("4", "policy", "policy p on public.oban_jobs", "0") },
                object("5", "trigger", "trigger t on public.oban_jobs", "0"),
            ],
            before: BTreeMap::from([(
                ["1".to_owned(), "5".to_owned()],
                vec![["1".to_owned(), "2".to_owned()]],
            )]),
        };
        let problems = made(&wanted, Vec::new(), &[]).problems;
        assert!(
            problems[0].starts_with("trigger t on public.oban_jobs runs function public.f"),
            "{problems:?}"
        );
        assert!(problems[1].contains("need table public.orders, which is no job table"), "{problems:?}");
        assert!(
            problems[2].starts_with("policy p on public.oban_jobs is missing in the job"),
            "{problems:?}"
        );
        assert_eq!(problems.len(), 3);
        let mut other = object("7", "function", "function public.f", "0");
        other.sql = Some("CREATE another".to_owned());
        let differences =
            made(&wanted, vec![other], &["table public.orders", "policy p on public.oban_jobs"]).differences;
        assert_eq!(
            differences,
            ["function public.f: it is not the same on the primary and in the job database"]
        );
    }
}
