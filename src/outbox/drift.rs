//! Comparing what a job library has on both sides: the relay needs the tables to fit, and a library that is migrated in one
//! place only will fail in the other one sooner or later.

use std::collections::{BTreeMap, BTreeSet};

use super::link::{Failure, Link};
use crate::sql::Rules;

/// The things that there are, in words: the schema and table that it belongs to, what it is, and what it is like.
const FACTS: &str = "\
    SELECT n.nspname, c.relname, 'column ' || a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) \
    || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END \
    || CASE WHEN a.attgenerated <> '' THEN ' generated' WHEN a.attidentity <> '' THEN ' identity' \
    WHEN a.atthasdef THEN ' default ' || pg_catalog.pg_get_expr(f.adbin, f.adrelid) ELSE '' END \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    LEFT JOIN pg_catalog.pg_attrdef AS f ON f.adrelid = c.oid AND f.adnum = a.attnum \
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    UNION ALL \
    SELECT n.nspname, c.relname, 'index ' || x.relname, pg_catalog.pg_get_indexdef(i.indexrelid) \
    FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS x ON x.oid = i.indexrelid \
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    UNION ALL \
    SELECT n.nspname, c.relname, 'constraint ' || o.conname, pg_catalog.pg_get_constraintdef(o.oid) \
    FROM pg_catalog.pg_constraint AS o JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE o.contype IN ('c', 'f', 'u', 'x') AND NOT c.relispartition \
    UNION ALL \
    SELECT DISTINCT n.nspname, c.relname, 'labels of ' || pg_catalog.format_type(e.enumtypid, NULL), \
    (SELECT pg_catalog.string_agg(l.enumlabel, ', ' ORDER BY l.enumsortorder) FROM pg_catalog.pg_enum AS l \
    WHERE l.enumtypid = e.enumtypid) \
    FROM pg_catalog.pg_enum AS e JOIN pg_catalog.pg_attribute AS a ON a.atttypid = e.enumtypid AND NOT a.attisdropped \
    JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND NOT c.relispartition \
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    UNION ALL \
    SELECT n.nspname, c.relname, 'comment', pg_catalog.obj_description(c.oid, 'pg_class') \
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND pg_catalog.obj_description(c.oid, 'pg_class') IS NOT NULL";

/// By schema, table and what it is.
type Facts = BTreeMap<[String; 3], String>;

/// A comparison of what both sides have of the library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// How many things were compared.
    pub compared: usize,
    /// A line for each difference.
    pub lines: Vec<String>,
}

/// Compares all job tables of both sides.
pub async fn drift(primary: &mut Link, jobs: &mut Link, rules: &Rules) -> Result<Drift, Failure> {
    drift_of(primary, jobs, &|schema, table| rules.is_job_table(schema, table)).await
}

/// Compares these tables of both sides, by schema and name.
pub(super) async fn drift_of(
    primary: &mut Link,
    jobs: &mut Link,
    is_compared: &dyn Fn(&str, &str) -> bool,
) -> Result<Drift, Failure> {
    Ok(compare(&facts(primary, is_compared).await?, &facts(jobs, is_compared).await?))
}

/// All that these tables have on one side, a line each, sorted.
pub(super) async fn lines_of(
    link: &mut Link,
    is_compared: &dyn Fn(&str, &str) -> bool,
) -> Result<Vec<String>, Failure> {
    let facts = facts(link, is_compared).await?.into_iter();
    let told =
        |([schema, table, what], like): ([String; 3], String)| format!("{schema}.{table}: {what}: {like}");
    let mut lines: Vec<String> = facts.map(told).collect();
    lines.sort_unstable();
    Ok(lines)
}

async fn facts(link: &mut Link, is_compared: &dyn Fn(&str, &str) -> bool) -> Result<Facts, Failure> {
    let reply = link.ask(FACTS).await?;
    let facts = reply.rows.into_iter().filter_map(|row| {
        let [schema, table, what, like] = <[Option<String>; 4]>::try_from(row).ok()?;
        Some(([schema?, table?, what?], like.unwrap_or_default()))
    });
    Ok(facts.filter(|([schema, table, _], _)| is_compared(schema, table)).collect())
}

fn compare(primary: &Facts, jobs: &Facts) -> Drift {
    let mut lines = Vec::new();
    let all: BTreeSet<&[String; 3]> = primary.keys().chain(jobs.keys()).collect();
    for key in &all {
        let [schema, table, what] = key;
        let name = format!("{schema}.{table}: {what}");
        match (primary.get(*key), jobs.get(*key)) {
            (Some(one), Some(other)) if one != other => {
                lines.push(format!("{name}: {one} on the primary, {other} in the job database"));
            }
            (Some(one), None) => lines.push(format!("{name}: {one} on the primary only")),
            (None, Some(other)) => lines.push(format!("{name}: {other} in the job database only")),
            _ => {}
        }
    }
    Drift { compared: all.len(), lines }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_differs() {
        let facts = |facts: &[(&str, &str)]| -> Facts {
            let key = |what: &str| ["public", "t", what].map(str::to_owned);
            facts.iter().map(|(what, like)| (key(what), (*like).to_owned())).collect()
        };
        let one = facts(&[("column a", "integer"), ("column b", "text"), ("comment", "12")]);
        let other = facts(&[("column a", "integer"), ("column c", "text"), ("comment", "11")]);
        assert_eq!(compare(&one, &one), Drift { compared: 3, lines: Vec::new() });
        assert_eq!(
            compare(&one, &other).lines,
            [
                "public.t: column b: text on the primary only",
                "public.t: column c: text in the job database only",
                "public.t: comment: 12 on the primary, 11 in the job database",
            ]
        );
    }
}
