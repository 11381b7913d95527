//! State that cannot be moved to another backend: how it is made, why it pins, how it is looked at, and what ends it.

/// State that pins: how it is made, why it pins, how it is looked at, and the ways it ends.
pub(super) const PINNING: &[(&str, &str, &str, &[&str])] = &[
    (
        "CREATE TEMP TABLE kept AS SELECT 1 AS id",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP TABLE kept", "DISCARD TEMP", "DISCARD ALL"],
    ),
    ("SELECT 1 AS id INTO TEMP kept", "temp_objects", "SELECT count(*) FROM kept", &["DROP TABLE kept"]),
    (
        "CREATE TEMP VIEW kept AS SELECT 1 AS id",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP VIEW kept"],
    ),
    (
        "CREATE FUNCTION pg_temp.kept() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "temp_objects",
        "SELECT pg_temp.kept()",
        &["DROP FUNCTION pg_temp.kept()"],
    ),
    (
        "SELECT pg_advisory_lock(7)",
        "advisory_locks",
        "SELECT 1",
        &["SELECT pg_advisory_unlock(7)", "SELECT pg_advisory_unlock_all()", "DISCARD ALL"],
    ),
    (
        "SELECT pg_try_advisory_lock(('x' || substr(md5('k'), 1, 16))::bit(64)::bigint)",
        "advisory_locks",
        "SELECT 1",
        &["SELECT pg_advisory_unlock(('x' || left(md5('k'), 16))::bit(64)::bigint)"],
    ),
    (
        "DO 'BEGIN EXECUTE ''LISTEN news''; END'",
        "listen",
        "SELECT count(*) FROM pg_listening_channels()",
        &["UNLISTEN news", "UNLISTEN *", "DISCARD ALL"],
    ),
    (
        "PREPARE kept AS SELECT 1",
        "prepared_statements",
        "EXECUTE kept",
        &["DEALLOCATE kept", "DEALLOCATE ALL", "DISCARD ALL"],
    ),
    (
        "DECLARE kept CURSOR WITH HOLD FOR SELECT 1 FROM generate_series(1, 9)",
        "held_cursors",
        "FETCH 1 FROM kept",
        &["CLOSE kept", "CLOSE ALL", "DISCARD ALL"],
    ),
    (
        "BEGIN; DECLARE kept CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "held_cursors",
        "FETCH 1 FROM kept",
        &["CLOSE kept"],
    ),
    (
        "DO 'BEGIN CREATE TEMP TABLE kept AS SELECT 1; END'",
        "temp_objects",
        "SELECT count(*) FROM kept",
        &["DROP TABLE kept"],
    ),
];
