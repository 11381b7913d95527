//! Objects on the primary that another version of Bulkhead has made otherwise: they are told of, and `bulkhead jobs init`
//! makes them anew. They are known by their text, so nothing has to be noted, and nothing else stops for them.

use super::{
    calls::DELIMITER,
    link::{Failure, Link},
    text::literal,
};

/// An object of the schema `bulkhead` that is as another version has made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Former {
    /// The name.
    pub(super) name: &'static str,
    /// The statement that makes it as it is to be.
    pub(super) renew: &'static str,
}

/// Rows were kept as `jsonb`, which cannot hold all that `json` can.
const REFUSED: Former = Former {
    name: "bulkhead.refused",
    renew: "ALTER TABLE bulkhead.refused ALTER COLUMN row TYPE pg_catalog.json USING row::pg_catalog.json",
};

/// The statement that makes the function of the triggers which refuse rows that are not to be moved.
pub(super) const MAKE_GUARD: &str = "CREATE OR REPLACE FUNCTION bulkhead.refuse() RETURNS trigger LANGUAGE plpgsql \
    SET search_path = '' AS $bulkhead$ BEGIN RAISE EXCEPTION USING ERRCODE = '0A000', \
    MESSAGE = format('a job with a %s cannot be added to %I.%I on the primary: the job that it may change is in the job \
    database', TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME), \
    HINT = 'Call the library''s function in a transaction that has used the application''s tables before: the call is noted \
    there, and made in the job database. Or outside of transactions. If it was called so, run bulkhead jobs init again: the \
    function is not as it was.'; \
    END $bulkhead$";

const GUARD: Former = Former { name: "bulkhead.refuse()", renew: MAKE_GUARD };

/// Asks for those that are in the schema.
pub(super) async fn read(link: &mut Link) -> Result<Vec<Former>, Failure> {
    let is_former = format!(
        "SELECT (SELECT a.atttypid <> 'pg_catalog.json'::pg_catalog.regtype FROM pg_catalog.pg_attribute AS a \
         WHERE a.attrelid = pg_catalog.to_regclass('bulkhead.refused') AND a.attname = 'row' AND NOT a.attisdropped), \
         (SELECT p.prosrc <> {} FROM pg_catalog.pg_proc AS p \
         WHERE p.oid = pg_catalog.to_regprocedure('bulkhead.refuse()'))",
        literal(MAKE_GUARD.split(DELIMITER).nth(1).unwrap_or_default())
    );
    let is_former = link.ask(&is_former).await?;
    let all = [REFUSED, GUARD].into_iter().enumerate();
    Ok(all.filter(|(at, _)| is_former.value(0, *at) == "t").map(|(_, former)| former).collect())
}
