//! Calls that are noted on the primary, and made in the job database: those of graphile-worker's `add_job` with a `job_key`.
//!
//! The effect of such a call depends on the jobs that are there, and a row would not tell what was asked for. So the primary has
//! functions in the places of the library's, which write the call into a table, `bulkhead.calls_of_` and the library's
//! schema. The relay moves its rows as it moves others, by their keys and with the same ledger; but where it would insert a
//! row in the job database it makes the call, in the order of the numbers, and in the same transaction. The job database's
//! table of that name has no rows: it has the columns.

use super::text::{carry_out, literal, name};
use crate::sql::{Calls, Function, Outgoing, Relayed};

/// The schema of the table of calls, and what its name begins with.
pub(super) const SCHEMA: &str = "bulkhead";
pub(super) const PREFIX: &str = "calls_of_";

/// The names of the library's functions that were put aside begin so; and the name of the one that notes calls.
const ASIDE: &str = "bulkhead_";
const NOTE: &str = "bulkhead_note_call";

/// Whether a function of this name is one of those.
pub(super) fn is_aside(function: &str) -> bool {
    function.starts_with(ASIDE)
}

/// The function in a place where one is to be that notes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noting {
    /// The library's, or none.
    Absent,
    /// Made by another version of Bulkhead.
    Former,
    /// Made by this version.
    Present,
}

/// Whether a function of this definition is in the place of the library's.
pub(super) fn notes(definition: &str) -> bool {
    definition.contains(NOTE)
}

/// The marks around a function's body, in its definition.
pub(super) const DELIMITER: &str = "$bulkhead$";

/// Longer names of schemas would not fit into the table's name.
const SCHEMA_BYTES_MAX: usize = 54;

/// The word on the rows of the table of calls.
pub(super) const CALLED: Relayed = Relayed {
    table: "calls_of_*",
    enqueued_at: Some("noted_at"),
    notify: None,
    parents: &[],
    absent: None,
    made_by: None,
    calls: None,
};

/// The call that the rows `c` of a table of this name are, if it is a table of calls of one of these libraries.
pub(super) fn call_of(schema: &str, table: &str, outgoing: &[Outgoing]) -> Option<String> {
    let of = table.strip_prefix(PREFIX).filter(|_| schema == SCHEMA)?;
    let mut libraries = outgoing.iter().filter(|library| library.is_in(of));
    let calls = libraries.find_map(|library| library.relayed.iter().find_map(|one| one.calls.as_ref()))?;
    Some(calls.call.replace("{schema}", &name(of)))
}

/// The library's calls that are noted, where it is in this schema.
pub(super) fn calls(schema: &str, relayed: Option<&'static Relayed>) -> Option<&'static Calls> {
    relayed?.calls.as_ref().filter(|_| schema.len() <= SCHEMA_BYTES_MAX)
}

/// The question what is in the place of each of the library's functions, without a row for one that is missing, and of the one
/// that they call.
pub(super) fn noting(schema: &str, calls: &Calls) -> String {
    let state = |function: &Function| {
        let body = literal(&fill(function.definition.split(DELIMITER).nth(1).unwrap_or_default(), schema));
        format!(
            "CASE WHEN p.prosrc = {body} THEN 'present' WHEN p.proname = '{NOTE}' OR pg_catalog.strpos(p.prosrc, '{NOTE}') <> 0 THEN 'former' END"
        )
    };
    let of = |function: &Function| {
        format!(
            "FROM pg_catalog.pg_proc AS p WHERE p.oid = pg_catalog.to_regprocedure({})",
            literal(&signature(schema, function.name, function))
        )
    };
    let places =
        calls.functions.iter().map(|function| format!("SELECT {} {}", state(function), of(function)));
    let note = format!("SELECT (SELECT {} {})", state(&calls.note), of(&calls.note));
    places.chain([note]).collect::<Vec<_>>().join(" UNION ALL ")
}

/// The answer to it; nothing where one of the library's is missing: it is another version of the library.
pub(super) fn noted(rows: &[Vec<Option<String>>], calls: &Calls) -> Vec<Noting> {
    if rows.len() != calls.all().count() {
        return Vec::new();
    }
    let states = rows.iter().map(|row| match row.first().and_then(Option::as_deref) {
        Some("present") => Noting::Present,
        Some("former") => Noting::Former,
        _ => Noting::Absent,
    });
    states.collect()
}

/// `schema.table` of the calls of a library in this schema.
pub(super) fn source(schema: &str) -> String {
    format!("{SCHEMA}.{PREFIX}{schema}")
}

/// The table's name in SQL.
pub(super) fn relation(schema: &str) -> String {
    format!("{SCHEMA}.{}", name(&format!("{PREFIX}{schema}")))
}

fn signature(schema: &str, called: &str, function: &Function) -> String {
    let schema = name(schema);
    format!("{schema}.{}({})", name(called), function.arguments.replace("{schema}", &schema))
}

/// The statement that makes it. Its body is written as a literal: a name in it may hold any delimiter.
fn definition(schema: &str, function: &Function) -> String {
    let parts: Vec<&str> = function.definition.split(DELIMITER).collect();
    match parts.as_slice() {
        [head, body, tail] => {
            format!("{}{}{}", fill(head, schema), literal(&fill(body, schema)), fill(tail, schema))
        }
        _ => fill(function.definition, schema),
    }
}

/// Puts names in their places, each once: a name may look like such a place.
fn fill(text: &str, schema: &str) -> String {
    let places = [("{schema}", name(schema)), ("{name}", literal(schema)), ("{calls}", relation(schema))];
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        filled.push_str(before);
        let place = places.iter().find_map(|(place, with)| Some((from.strip_prefix(place)?, with.as_str())));
        let (behind, with) = place.unwrap_or((&from[1..], "{"));
        filled.push_str(with);
        rest = behind;
    }
    filled + rest
}

/// The statement that marks the table of calls as installed.
pub(super) fn mark(source: &str) -> String {
    format!("INSERT INTO bulkhead.outbox (source_table) VALUES ({})", literal(source))
}

/// The statement that makes it. The numbers are odd, or even.
pub(super) fn make(relation: &str, first: u8) -> String {
    format!(
        "CREATE TABLE {relation} (id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY (START WITH {first} INCREMENT BY 2) \
         PRIMARY KEY, arguments pg_catalog.json NOT NULL, \
         noted_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now())"
    )
}

/// Whoever owns the table of jobs, or may add rows to it, may note calls.
pub(super) fn let_write(jobs: &str, relation: &str) -> String {
    let jobs = literal(jobs);
    let grant = literal(&format!("GRANT INSERT ON {relation} TO "));
    carry_out(&format!(
        "DECLARE who pg_catalog.text; BEGIN \
         FOR who IN SELECT DISTINCT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' \
         ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END \
         FROM pg_catalog.pg_class AS c, \
         pg_catalog.aclexplode(COALESCE(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a \
         WHERE c.oid OPERATOR(pg_catalog.=) {jobs}::pg_catalog.regclass AND a.privilege_type OPERATOR(pg_catalog.=) 'INSERT' LOOP \
         EXECUTE 'GRANT USAGE ON SCHEMA {SCHEMA} TO ' || who; \
         EXECUTE {grant} || who; END LOOP; END"
    ))
}

/// Has the library's functions note calls, as far as they do not yet, as `noting` tells.
pub(super) fn note(schema: &str, calls: &Calls, noting: &[Noting]) -> Vec<String> {
    let mut statements = Vec::new();
    for (function, noting) in calls.functions.iter().zip(noting) {
        let aside = format!("{ASIDE}{}", function.name);
        let (own, kept) = (signature(schema, function.name, function), signature(schema, &aside, function));
        match noting {
            Noting::Present => continue,
            Noting::Former => statements.push(renew(schema, function)),
            Noting::Absent => {
                statements.push(format!("DROP FUNCTION IF EXISTS {kept}"));
                statements.push(format!("ALTER FUNCTION {own} RENAME TO {}", name(&aside)));
                statements.push(definition(schema, function));
            }
        }
        statements.push(liken(&own, &kept));
    }
    if noting.iter().any(|noting| *noting != Noting::Present) {
        let note = &calls.note;
        let is_former = noting.last() == Some(&Noting::Former);
        if is_former {
            // Whoever has noted calls by that one has waited for others that did: not for those that do by this one.
            statements.insert(0, format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", relation(schema)));
        }
        statements.insert(
            usize::from(is_former),
            if is_former { renew(schema, note) } else { definition(schema, note) },
        );
        let (note, like) = (signature(schema, note.name, note), &calls.functions[0]);
        statements.push(liken(&note, &signature(schema, &format!("{ASIDE}{}", like.name), like)));
    }
    statements
}

/// Makes a function anew that another version has made: under its number if it takes and gives the same, else beside that.
fn renew(schema: &str, function: &Function) -> String {
    let definition = literal(&definition(schema, function));
    let own = signature(schema, function.name, function);
    carry_out(&format!(
        "BEGIN EXECUTE {definition}; EXCEPTION WHEN invalid_function_definition THEN DROP FUNCTION {own}; \
         EXECUTE {definition}; END"
    ))
}

/// Gives a function the owner of another one, and has the same users run it.
fn liken(function: &str, like: &str) -> String {
    let of = literal(like);
    carry_out(&format!(
        "DECLARE f pg_catalog.pg_proc; who pg_catalog.text; BEGIN \
         SELECT * INTO STRICT f FROM pg_catalog.pg_proc WHERE oid OPERATOR(pg_catalog.=) {of}::pg_catalog.regprocedure; \
         EXECUTE {revoke}; \
         FOR who IN SELECT CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC' \
         ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END \
         FROM pg_catalog.aclexplode(COALESCE(f.proacl, pg_catalog.acldefault('f', f.proowner))) AS a LOOP \
         EXECUTE {grant} || who; END LOOP; \
         EXECUTE {own} || f.proowner::pg_catalog.regrole::pg_catalog.text; END",
        revoke = literal(&format!("REVOKE ALL ON FUNCTION {function} FROM PUBLIC")),
        grant = literal(&format!("GRANT EXECUTE ON FUNCTION {function} TO ")),
        own = literal(&format!("ALTER FUNCTION {function} OWNER TO ")),
    ))
}

/// Puts the library's functions back into their places, if they were put aside. One that the library has made anew since
/// stays.
pub(super) fn forget(schema: &str, calls: &Calls) -> Vec<String> {
    let mut statements = Vec::new();
    for function in calls.functions {
        let aside = format!("{ASIDE}{}", function.name);
        let (own, kept) = (signature(schema, function.name, function), signature(schema, &aside, function));
        statements.push(carry_out(&format!(
            "BEGIN IF pg_catalog.to_regprocedure({kept_name}) IS NULL THEN RETURN; END IF; \
             IF EXISTS (SELECT FROM pg_catalog.pg_proc AS p \
             WHERE p.oid OPERATOR(pg_catalog.=) pg_catalog.to_regprocedure({own_name}) \
             AND pg_catalog.strpos(p.prosrc, '{NOTE}') OPERATOR(pg_catalog.=) 0) THEN DROP FUNCTION {kept}; \
             ELSE DROP FUNCTION IF EXISTS {own}; ALTER FUNCTION {kept} RENAME TO {of}; END IF; END",
            kept_name = literal(&kept),
            own_name = literal(&own),
            of = name(function.name),
        )));
    }
    // Its arguments are of a type that may be gone.
    let note = signature(schema, calls.note.name, &calls.note);
    statements.push(carry_out(&format!(
        "BEGIN IF pg_catalog.to_regprocedure({}) IS NOT NULL THEN DROP FUNCTION {note}; END IF; END",
        literal(&note)
    )));
    statements
}

/// Takes the table of calls away, and the mark that it is installed.
pub(super) fn take_away(schema: &str) -> Vec<String> {
    vec![carry_out(&format!(
        "BEGIN IF pg_catalog.to_regclass({relation}) IS NOT NULL THEN DROP TABLE {table}; \
             DELETE FROM bulkhead.outbox WHERE source_table OPERATOR(pg_catalog.=) {source}; END IF; END",
        relation = literal(&relation(schema)),
        table = relation(schema),
        source = literal(&source(schema)),
    ))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_their_places_once_and_in_quotes() {
        let function = Function {
            name: "f",
            arguments: "",
            definition: "CREATE FUNCTION {schema}.f() AS $bulkhead$ {} {calls} $bulkhead$",
        };
        let sql = definition("a'{calls} $bulkhead$", &function);
        let name = "\"a'{calls} $bulkhead$\"";
        let body = literal(" {} bulkhead.\"calls_of_a'{calls} $bulkhead$\" ");
        assert_eq!(sql, format!("CREATE FUNCTION {name}.f() AS {body}"));
    }
}
