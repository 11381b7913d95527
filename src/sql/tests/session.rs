//! Effects on the session and control of transactions.

use super::verdict;
use crate::sql::{
    AccessMode::{Default, ReadOnly, ReadWrite},
    Control, Effects as E,
};

#[test]
fn control() {
    let begin = |access, serializable| Control::Begin { access, serializable };
    for (text, control) in [
        ("BEGIN", begin(Default, false)),
        ("begin transaction", begin(Default, false)),
        ("START TRANSACTION READ ONLY", begin(ReadOnly, false)),
        ("BEGIN READ WRITE", begin(ReadWrite, false)),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", begin(ReadOnly, true)),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", begin(ReadOnly, false)),
        ("BEGIN NOT DEFERRABLE", begin(Default, false)),
        ("COMMIT", Control::Commit),
        ("END", Control::Commit),
        ("COMMIT AND CHAIN", Control::Other),
        ("ROLLBACK", Control::Rollback),
        ("ABORT", Control::Rollback),
        ("ROLLBACK AND CHAIN", Control::Other),
        ("SAVEPOINT a", Control::Prologue),
        ("RELEASE a", Control::Other),
        ("ROLLBACK TO a", Control::Other),
        ("SET LOCAL a = 1", Control::Prologue),
        ("SET TRANSACTION READ ONLY", Control::Prologue),
        ("SET CONSTRAINTS ALL DEFERRED", Control::Prologue),
        ("PREPARE TRANSACTION 'a'", Control::Other),
        ("COMMIT PREPARED 'a'", Control::Other),
        ("SET a = 1", Control::None),
        ("SELECT 1", Control::None),
        ("BEGIN; SELECT 1", Control::Other),
        ("SELECT 1; COMMIT", Control::Other),
        ("SET LOCAL a = 1; SET LOCAL b = 2", Control::Prologue),
        ("BEGIN; SET LOCAL a = 1; SELECT pg_advisory_xact_lock(1); COMMIT", Control::Other),
    ] {
        assert_eq!(verdict(text).control, control, "{text}");
    }
}

#[test]
fn effects() {
    for (text, effects) in EFFECTS {
        // What is proven has tests of its own.
        let jobs = E::JOB_SIDE.with(E::JOB_WRITES).with(E::JOB_DDL);
        let others = E::APP_OBJECTS.with(E::UNPROVEN).with(E::bound_setting(0)).with(jobs);
        assert_eq!(verdict(text).effects.without(others), *effects, "{text}");
    }
}

const EFFECTS: &[(&str, E)] = &[
    ("SELECT 1", E::NONE),
    ("SET a = 1", E::SETS),
    ("SET SESSION a TO 'b'", E::SETS),
    ("SET TIME ZONE 'UTC'", E::SETS),
    ("SET LOCAL a = 1", E::LOCAL),
    ("SET app.tenant = 1", E::SETS.with(E::SETS_UNLISTED)),
    ("SET ROLE x", E::SETS.with(E::SETS_UNLISTED)),
    ("SET LOCAL ROLE x", E::LOCAL),
    ("SET SESSION AUTHORIZATION x", E::SETS.with(E::SETS_UNLISTED)),
    ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", E::SETS),
    ("SET TRANSACTION READ ONLY", E::NONE),
    ("SET a TO DEFAULT", E::RESETS),
    ("RESET a", E::RESETS),
    ("RESET ALL", E::RESETS.with(E::SETS_UNLISTED)),
    ("RESET ROLE", E::RESETS.with(E::SETS_UNLISTED)),
    ("SELECT set_config('a', 'b', true)", E::LOCAL),
    ("SELECT set_config('a', 'b', false)", E::SETS),
    ("SELECT set_config('a', 'b', $1)", E::SETS),
    ("SELECT pg_catalog.set_config('search_path', '', false)", E::SETS),
    ("SELECT set_config('a.b', 'c', false)", E::SETS.with(E::SETS_UNLISTED)),
    ("SELECT set_config($1, 'c', false)", E::SETS.with(E::SETS_UNLISTED)),
    ("SELECT set_config('role', 'c', false)", E::SETS.with(E::SETS_UNLISTED)),
    (
        "SELECT set_config(name, 'view', false) FROM pg_settings WHERE name = 'x'",
        E::SETS.with(E::SETS_UNLISTED),
    ),
    ("SELECT set_config('app.' || $1, 'c', false)", E::SETS.with(E::SETS_UNLISTED).with(E::OPAQUE_SETTINGS)),
    ("CREATE TEMP TABLE t (a int)", E::TEMP),
    ("CREATE TEMPORARY TABLE t AS SELECT 1", E::TEMP),
    ("CREATE TABLE pg_temp.t (a int)", E::TEMP),
    ("CREATE TEMP TABLE t (a int) ON COMMIT DROP", E::LOCAL),
    ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", E::LOCAL),
    ("CREATE TEMP TABLE t (a int) ON COMMIT DELETE ROWS", E::TEMP),
    ("SELECT 1 INTO TEMP t", E::TEMP),
    ("CREATE TEMP VIEW v AS SELECT 1", E::TEMP),
    ("CREATE TEMP SEQUENCE s", E::TEMP),
    ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", E::TEMP.with(E::DDL)),
    ("CREATE TABLE t (a int)", E::DDL),
    ("DROP DATABASE d", E::WANTS_DATABASE),
    ("CREATE DATABASE d TEMPLATE e", E::WANTS_DATABASE),
    ("ALTER DATABASE d RENAME TO e", E::WANTS_DATABASE),
    ("ALTER TABLE d RENAME TO e", E::DDL),
    ("ALTER ROLE r SET work_mem = '1MB'", E::CHANGES_DEFAULTS),
    ("ALTER ROLE ALL IN DATABASE d RESET ALL", E::CHANGES_DEFAULTS),
    ("ALTER DATABASE d SET work_mem = '1MB'", E::CHANGES_DEFAULTS),
    ("ALTER ROLE r PASSWORD 'x'", E::NONE),
    ("CREATE ROLE r", E::NONE),
    ("DROP ROLE r", E::NONE),
    ("SELECT pg_advisory_lock(1)", E::LOCKS.with(E::ADVISORY)),
    ("SELECT pg_try_advisory_lock_shared(1, 2)", E::LOCKS.with(E::ADVISORY)),
    ("SELECT pg_advisory_xact_lock(1)", E::ADVISORY),
    ("SELECT pg_advisory_unlock(1)", E::ENDS_STATE.with(E::ADVISORY)),
    ("LISTEN a", E::LISTENS),
    ("UNLISTEN a", E::ENDS_STATE.with(E::UNLISTENS)),
    ("NOTIFY a", E::NOTIFIES),
    ("SELECT pg_notify('a', 'b')", E::NOTIFIES),
    ("PREPARE p AS SELECT 1", E::PREPARES.with(E::NAMES_STATEMENT)),
    ("EXECUTE p(1)", E::OPAQUE.with(E::NAMES_STATEMENT)),
    ("EXPLAIN EXECUTE p(1)", E::OPAQUE.with(E::NAMES_STATEMENT)),
    ("CREATE TABLE t AS EXECUTE p(1)", E::DDL.with(E::OPAQUE).with(E::NAMES_STATEMENT)),
    ("DEALLOCATE p", E::ENDS_STATE.with(E::DEALLOCATES).with(E::NAMES_STATEMENT)),
    ("DEALLOCATE ALL", E::ENDS_STATE.with(E::DEALLOCATES).with(E::DISCARDS)),
    ("DEALLOCATE a; DEALLOCATE b", E::ENDS_STATE.with(E::NAMES_STATEMENT)),
    (
        "DISCARD ALL",
        E::ENDS_STATE
            .with(E::DISCARDS)
            .with(E::RESETS)
            .with(E::SETS_UNLISTED)
            .with(E::DISCARDS_SEQUENCES)
            .with(E::UNLISTENS),
    ),
    ("DISCARD PLANS", E::ENDS_STATE),
    ("DISCARD TEMP", E::ENDS_STATE),
    ("DISCARD SEQUENCES", E::ENDS_STATE.with(E::DISCARDS_SEQUENCES)),
    ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", E::HOLDS_CURSOR),
    ("DECLARE c CURSOR FOR SELECT 1", E::NONE),
    ("CLOSE c", E::ENDS_STATE),
    ("LOAD 'x'", E::LOADS),
    ("SELECT dblink_connect('name', 'dbname=x')", E::LOADS),
    ("DO 'BEGIN UPDATE t SET a = 1; END'", E::OPAQUE),
    ("DO $$BEGIN PERFORM set_config('a', 'b', false); END$$", E::OPAQUE),
    ("DO $$BEGIN PERFORM set_config('a.b', 'b', false); END$$", E::OPAQUE.with(E::SETS_UNLISTED)),
    ("DO $$BEGIN PERFORM set_config(x, 'b', false); END$$", E::OPAQUE.with(E::OPAQUE_SETTINGS)),
    ("DO $$BEGIN SET a = 1; END$$", E::OPAQUE),
    ("DO $$BEGIN EXECUTE 'SET a.b = 1'; END$$", E::OPAQUE.with(E::SETS_UNLISTED)),
    ("DO $$BEGIN x := 1; -- then\n EXECUTE 'SET ' || x; END$$", E::OPAQUE.with(E::OPAQUE_SETTINGS)),
    ("CALL p()", E::OPAQUE.with(E::UNSURE)),
    ("CALL my_volatile()", E::OPAQUE),
    ("CALL my_setter()", E::OPAQUE.with(E::OPAQUE_SETTINGS)),
    ("CALL my_named_setter(1, 'a')", E::OPAQUE),
    ("CALL my_volatile(unknown_function())", E::OPAQUE.with(E::UNSURE)),
    ("SELECT my_volatile()", E::OPAQUE),
    ("SELECT my_setter()", E::OPAQUE.with(E::OPAQUE_SETTINGS)),
    ("SELECT my_named_setter()", E::OPAQUE),
    ("SELECT unknown_function()", E::OPAQUE.with(E::UNSURE)),
    ("SELECT nextval('s')", E::NONE),
    ("DROP TABLE t", E::DROPS.with(E::ENDS_STATE)),
    ("ALTER TABLE t ADD a int", E::DDL),
    ("TRUNCATE t", E::NONE),
    ("COPY t FROM STDIN", E::COPY_IN),
    ("COPY t TO STDOUT", E::NONE),
    ("SELECT pg_listening_channels()", E::ASKS_CHANNELS),
    ("SELECT lastval()", E::ASKS_SEQUENCES),
    ("SELECT pg_backend_pid()", E::ASKS_BACKEND),
    ("SELECT setseed(0.5)", E::SEEDS),
    ("SET seed = 0.5", E::SETS.with(E::SEEDS)),
    (
        "SET a = 1; LISTEN b; SELECT pg_advisory_lock(1)",
        E::SETS.with(E::LISTENS).with(E::LOCKS).with(E::ADVISORY),
    ),
];
