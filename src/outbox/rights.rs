//! Whether both sides fit together, and the relay's user may do there what it has to: which right it lacks, by name, before
//! a round fails.

use super::{
    link::{Failure, Link},
    tables::{self, Side, Table, problems},
    text::{literal, name},
};
use crate::sql::Outgoing;

/// Relations, and the rights on each that some statement of the relay's needs.
type Needed = Vec<(String, &'static [&'static str])>;

/// Reads both sides. Returns the primary's, and why rows cannot be moved; nothing if they can.
pub(super) async fn compare(
    primary: &mut Link,
    jobs: &mut Link,
    outgoing: &[Outgoing],
) -> Result<(Side, Vec<String>), Failure> {
    let here = tables::read_shape(primary, outgoing).await?;
    let there = tables::read_shape(jobs, outgoing).await?;
    let mut found = problems(&here, &there);
    if found.is_empty() && !here.installed.is_empty() {
        found.extend(lacking(primary, &on_primary(&here), !here.mirrored.is_empty()).await?);
        found.extend(lacking(jobs, &in_jobs(&there), true).await?);
    }
    Ok((here, found))
}

/// Rows are locked, and taken away; those that are refused are set aside.
fn on_primary(side: &Side) -> Needed {
    let mut needed: Needed = vec![
        ("bulkhead.outbox".to_owned(), &["SELECT", "UPDATE"]),
        ("bulkhead.refused".to_owned(), &["INSERT"]),
    ];
    for table in installed(side) {
        needed.push((relation(table), &["SELECT", "UPDATE", "DELETE"]));
    }
    for table in &side.mirrored {
        needed.push((relation(table), &["SELECT", "INSERT", "UPDATE"]));
    }
    needed.extend(side.parents.iter().map(|table| (relation(table), &["SELECT"][..])));
    needed
}

/// Rows are put in, noted, and forgotten later.
fn in_jobs(side: &Side) -> Needed {
    let mut needed: Needed = vec![
        ("bulkhead.outbox".to_owned(), &["SELECT", "UPDATE"]),
        ("bulkhead.relayed".to_owned(), &["SELECT", "INSERT", "DELETE"]),
    ];
    for table in installed(side) {
        needed.push((relation(table), &["SELECT", "INSERT"]));
    }
    for table in &side.mirrored {
        needed.push((relation(table), &["SELECT"]));
    }
    needed.extend(side.parents.iter().map(|table| (relation(table), &["SELECT", "INSERT"][..])));
    needed
}

fn installed(side: &Side) -> impl Iterator<Item = &Table> {
    side.tables.iter().filter(|table| side.installed.contains(&table.source()))
}

fn relation(table: &Table) -> String {
    format!("{}.{}", name(&table.schema), name(&table.name))
}

/// Asks which of these the user does not have, and whether it may make temporary tables if it has to. A right on some
/// column is taken for one on all that matter.
async fn lacking(link: &mut Link, needed: &Needed, temporary: bool) -> Result<Option<String>, Failure> {
    let mut questions = vec![format!(
        "SELECT 'TEMPORARY', 'DATABASE ' || pg_catalog.quote_ident(pg_catalog.current_database()), \
         pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') OR {}, \
         pg_catalog.quote_ident(current_user)",
        !temporary
    )];
    for (relation, rights) in needed {
        let of = literal(relation);
        for right in *rights {
            let of_columns = match *right {
                "DELETE" => String::new(),
                _ => format!(" OR pg_catalog.has_any_column_privilege({of}, '{right}')"),
            };
            questions.push(format!(
                "SELECT '{right}', {of}::pg_catalog.regclass::pg_catalog.text, pg_catalog.has_table_privilege({of}, '{right}'){of_columns}, NULL"
            ));
        }
    }
    let reply = link.ask(&questions.join(" UNION ALL ")).await?;
    let user = reply.value(0, 3);
    let denied = (0..reply.rows.len()).filter(|at| reply.value(*at, 2) != "t");
    let grants: Vec<String> = denied
        .map(|at| format!("GRANT {} ON {} TO {user}", reply.value(at, 0), reply.value(at, 1)))
        .collect();
    let server = link.server();
    Ok((!grants.is_empty())
        .then(|| format!("the user {user} lacks rights at server \"{server}\": {}", grants.join("; "))))
}
