//! The question for a database's catalog, so asked that nobody's objects or settings decide its answer.
//!
//! It is one transaction of three messages, each of which is confirmed before the next one is sent:
//!
//! 1. [`BEGIN`] opens it, read only, and puts out of the way what settings of the database, the role or another
//!    session could change: names mean those of `pg_catalog`, strings are read as they are written, no plan runs in
//!    parallel or is compiled. They are commands, which look up no operator, function or cast. `SET LOCAL` leaves no
//!    trace behind the transaction.
//! 2. The questions: what the catalog looks like from afar ([`Fingerprint`]), and what it says, if that has changed.
//! 3. `COMMIT`.
//!
//! If any of it fails, whoever asks drops the connection with all that is on it.

use std::fmt::Write as _;

use crate::{
    backend::{Backend, query::Answer},
    sql::Catalog,
    types::{self, Known},
};

/// An answer that takes more is refused.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Ends with the transaction.
const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;\
 SET LOCAL search_path = pg_catalog, pg_temp;\
 SET LOCAL standard_conforming_strings = on;\
 SET LOCAL client_encoding = 'UTF8';\
 SET LOCAL client_min_messages = error;\
 SET LOCAL quote_all_identifiers = off;\
 SET LOCAL transform_null_equals = off;\
 SET LOCAL array_nulls = on;\
 SET LOCAL row_security = on;\
 SET LOCAL statement_timeout = '30s';\
 SET LOCAL lock_timeout = '10s';\
 SET LOCAL jit = off;\
 SET LOCAL max_parallel_workers_per_gather = 0";

/// A superuser asks as somebody who may read and nothing else.
const LEAST_RIGHTS: &str = ";SET LOCAL ROLE pg_read_all_settings";

/// Each catalog that a verdict may depend on: what tells its rows apart, and which of them count. A row that was
/// made, changed or taken away has another `xmin`, or is another one.
const WATCHED: &[(&str, &str, &str)] = &[
    ("pg_aggregate", "aggfnoid::pg_catalog.oid", ""),
    ("pg_amop", "oid", ""),
    ("pg_amproc", "oid", ""),
    ("pg_attrdef", "oid", ""),
    ("pg_cast", "oid", ""),
    // Not those of indexes, TOAST tables and composite types.
    ("pg_class", "oid", "relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,f,p,S}'::pg_catalog.\"char\"[])"),
    ("pg_constraint", "oid", ""),
    ("pg_conversion", "oid", ""),
    // What belongs to extensions. The rest comes and goes with what it is of.
    ("pg_depend", "objid", "deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\""),
    ("pg_event_trigger", "oid", ""),
    ("pg_extension", "oid", ""),
    ("pg_foreign_table", "ftrelid", ""),
    ("pg_index", "indexrelid", ""),
    ("pg_inherits", "inhrelid", ""),
    ("pg_language", "oid", ""),
    ("pg_namespace", "oid", ""),
    ("pg_opclass", "oid", ""),
    ("pg_operator", "oid", ""),
    ("pg_partitioned_table", "partrelid", ""),
    ("pg_policy", "oid", ""),
    ("pg_proc", "oid", ""),
    ("pg_range", "rngtypid", ""),
    ("pg_rewrite", "oid", ""),
    ("pg_statistic_ext", "oid", ""),
    ("pg_trigger", "oid", ""),
    // Not the types of tables' rows, nor arrays: they come and go with what they are of.
    (
        "pg_type",
        "oid",
        "typtype OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\" AND typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid",
    ),
];

/// What a catalog looks like from afar: two that are equal are of the same catalog. Sums of hashes with a secret seed,
/// so that nobody can make a change that does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// The server's start and its snapshot: as long as it is the same, nobody has committed anything.
    moment: String,
    sums: String,
}

/// The answer to the catalog's question.
#[derive(Debug)]
pub(super) enum Found {
    /// The same as with the fingerprint that was given.
    Same(Fingerprint),
    /// Something else.
    Rows(Fingerprint, Answer),
}

/// Asks on a backend that is in no transaction. After an error the backend is of no use to anybody.
pub(super) async fn ask(
    backend: &mut Backend,
    seed: u32,
    known: Option<&Fingerprint>,
) -> Result<Found, String> {
    begin(backend).await?;
    let fingerprint = fingerprint(backend, seed, known).await?;
    let found = if known.is_some_and(|known| known.sums == fingerprint.sums) {
        Found::Same(fingerprint)
    } else {
        Found::Rows(fingerprint, confirmed(backend, Catalog::QUERY).await?)
    };
    confirmed(backend, "COMMIT").await?;
    Ok(found)
}

async fn begin(backend: &mut Backend) -> Result<(), String> {
    let is_superuser = is_superuser(backend);
    let mut sql = String::from(BEGIN);
    if is_superuser {
        sql.push_str(LEAST_RIGHTS);
    }
    confirmed(backend, &sql).await.map(drop)
}

/// Whether the backend's user may do anything, as the server reports.
pub(super) fn is_superuser(backend: &Backend) -> bool {
    let reported = backend.protocol.parameters().iter().find(|(name, _)| name == "is_superuser");
    reported.is_none_or(|(_, value)| value != "off")
}

async fn fingerprint(
    backend: &mut Backend,
    seed: u32,
    known: Option<&Fingerprint>,
) -> Result<Fingerprint, String> {
    let moment = known.map_or("", |known| known.moment.as_str());
    let mut answer = confirmed(backend, &fingerprint_sql(seed, moment)).await?;
    let mut columns = answer.rows.pop().unwrap_or_default().into_iter();
    match (columns.next().flatten(), columns.next().flatten(), known) {
        (Some(moment), Some(sums), _) => Ok(Fingerprint { moment, sums }),
        // Nothing has been committed since.
        (Some(_), None, Some(known)) => Ok(known.clone()),
        _ => Err("the server does not tell whether its catalog has changed".to_owned()),
    }
}

/// The moment, and the sums of all catalogs unless the moment is the known one.
fn fingerprint_sql(seed: u32, moment: &str) -> String {
    // Made of digits and colons.
    let moment: String = moment.chars().filter(|c| matches!(c, '0'..='9' | ':' | '.' | ' ')).collect();
    let mut sql = format!(
        "SELECT now.moment, CASE WHEN now.moment OPERATOR(pg_catalog.<>) '{moment}'::pg_catalog.text \
         THEN pg_catalog.concat_ws(' '"
    );
    for (table, key, condition) in WATCHED {
        let filter = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
        let _ = write!(
            sql,
            ",(SELECT pg_catalog.concat(pg_catalog.count(*), ':', pg_catalog.sum(\
             pg_catalog.hash_array_extended(ARRAY[xmin], {key}::pg_catalog.int8 OPERATOR(pg_catalog.#) {seed}))) \
             FROM pg_catalog.{table}{filter})"
        );
    }
    sql.push_str(
        ") END FROM (SELECT pg_catalog.concat(pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()),\
         ' ', pg_catalog.txid_current_snapshot()) AS moment) AS now",
    );
    sql
}

async fn confirmed(backend: &mut Backend, sql: &str) -> Result<Answer, String> {
    let answer = backend.ask_within(sql, ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
    match answer.error {
        Some(error) => Err(error.to_string()),
        None => Ok(answer),
    }
}

/// The snapshot that an answer makes. Takes its time: not to be called where sessions are served.
pub(super) fn catalog(epoch: u64, answer: Answer) -> Catalog {
    let rows = answer.rows.into_iter().filter_map(|row| {
        let mut columns = row.into_iter().flatten();
        Some((columns.next()?, columns.next()?))
    });
    Catalog::from_rows(epoch, rows)
}

/// Reads the catalog of a backend's database.
pub async fn read_catalog(backend: &mut Backend, epoch: u64) -> Result<Catalog, String> {
    begin(backend).await?;
    let answer = confirmed(backend, Catalog::QUERY).await?;
    confirmed(backend, "COMMIT").await?;
    Ok(catalog(epoch, answer))
}

/// Reads the types of a backend's database.
pub async fn read_types(backend: &mut Backend) -> Result<Known, String> {
    begin(backend).await?;
    let answer = confirmed(backend, types::QUERY).await?;
    confirmed(backend, "COMMIT").await?;
    Ok(Known::from_rows(answer.rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of catalogs in a text, which are not those of functions.
    fn catalogs_of(sql: &str) -> Vec<&str> {
        let names = sql.match_indices("pg_catalog.pg_").map(|(at, _)| &sql[at + "pg_catalog.".len()..]);
        let names = names.map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            rest.split_at(end)
        });
        names.filter(|(_, after)| !after.starts_with('(')).map(|(name, _)| name).collect()
    }

    #[test]
    fn a_change_of_what_is_read_is_seen() {
        // `pg_attribute` says which columns are generated, which changes with `pg_attrdef`; the view is named, not read.
        let known = ["pg_attribute", "pg_prepared_statements"];
        let read = catalogs_of(Catalog::QUERY).into_iter().filter(|name| !known.contains(name));
        let unwatched: Vec<&str> =
            read.filter(|name| !WATCHED.iter().any(|(watched, ..)| watched == name)).collect();
        assert!(unwatched.is_empty(), "not in WATCHED: {unwatched:?}");
    }

    #[test]
    fn nothing_of_it_depends_on_the_path() {
        let sql = fingerprint_sql(7, "1.5 10:12:11'; DROP");
        assert!(sql.contains("'1.5 10:12:11 '"), "{sql}");
        for bare in [" = ", " <> ", "::int8", "::text", "::oid", " sum(", " count("] {
            assert!(!sql.contains(bare), "{bare} in {sql}");
        }
    }
}
