-- What Bulkhead wants to know of a database's catalog. Two columns: kind, name.
--
--   function [volatile] [user] [keeps]  every function; "user" if a volatile one is not built in, "keeps" if such a
--                                       one is in C, and no extension's: it may keep what it likes
--   relation                            a standby cannot answer for it: unlogged, foreign, or it reaches a
--                                       volatile function, a catalog or another such relation through a view,
--                                       a row security policy or a partition
--   operator, type                      it reaches a volatile function
--   program, trigger                    see programs.sql, which is added to this query
WITH RECURSIVE routine AS (
    SELECT p.oid, p.proname::text AS name, p.oid >= 16384 AS of_user,
           p.provolatile = 'v'
               -- An aggregate is declared immutable whatever its parts are.
               OR EXISTS (SELECT FROM pg_catalog.pg_aggregate a
                          JOIN pg_catalog.pg_proc part ON part.oid IN (a.aggtransfn::oid, a.aggfinalfn::oid)
                          WHERE a.aggfnoid::oid = p.oid AND part.oid >= 16384 AND part.provolatile = 'v') AS is_volatile,
           -- 13 is C.
           p.oid >= 16384 AND p.prolang = 13 AND p.provolatile = 'v'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                               WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                                   AND d.deptype = 'e') AS keeps
    FROM pg_catalog.pg_proc p
), unsafe_routine AS (
    SELECT oid FROM routine
    WHERE is_volatile AND name <> ALL (ARRAY[
              'random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'gen_random_bytes',
              'uuidv4', 'uuidv7', 'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4',
              'pg_sleep', 'pg_sleep_for', 'pg_sleep_until'])
       OR name ~ '^(inet_(client|server)_|txid_|pg_current_xact|pg_current_snapshot|pg_stat_get|pg_listening|pg_my_temp|pg_backend_pid$)'
), tree AS (
    SELECT r.ev_class AS relation, r.ev_action::text AS tree
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
    WHERE c.relkind = 'v' AND c.oid >= 16384
    UNION ALL
    SELECT p.polrelid, p.polqual::text
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    WHERE c.relrowsecurity AND p.polqual IS NOT NULL
), uses AS (
    SELECT DISTINCT relation, m[1] AS kind, m[2]::oid AS used
    FROM tree, pg_catalog.regexp_matches(tree, ':(funcid|opfuncid|aggfnoid|winfnoid|opno|relid) (\d+)', 'g') AS m
), unsafe_relation AS (
    SELECT oid FROM pg_catalog.pg_class
    WHERE oid >= 16384 AND (relkind = 'f' OR relpersistence = 'u' AND relkind IN ('r', 'p', 'm', 'S'))
    UNION
    SELECT u.relation FROM uses u WHERE u.kind IN ('funcid', 'opfuncid', 'aggfnoid', 'winfnoid')
        AND u.used IN (SELECT oid FROM unsafe_routine)
    UNION
    SELECT u.relation FROM uses u JOIN pg_catalog.pg_operator o ON o.oid = u.used
    WHERE u.kind = 'opno' AND o.oprcode::oid IN (SELECT oid FROM unsafe_routine)
    UNION
    SELECT u.relation FROM uses u WHERE u.kind = 'relid' AND u.used BETWEEN 1 AND 16383
), reached AS (
    SELECT oid FROM unsafe_relation
    UNION
    SELECT up.oid
    FROM reached JOIN (
        SELECT relation AS oid, used FROM uses WHERE kind = 'relid'
        UNION ALL
        SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
    ) up ON up.used = reached.oid
)
SELECT pg_catalog.concat_ws(' ', 'function',
           CASE WHEN pg_catalog.bool_or(is_volatile) THEN 'volatile' END,
           CASE WHEN pg_catalog.bool_or(is_volatile AND of_user) THEN 'user' END,
           CASE WHEN pg_catalog.bool_or(keeps) THEN 'keeps' END) AS kind, name
FROM routine GROUP BY name
UNION ALL
SELECT 'relation', c.relname::text FROM reached JOIN pg_catalog.pg_class c ON c.oid = reached.oid
UNION ALL
SELECT DISTINCT 'operator', o.oprname::text FROM pg_catalog.pg_operator o
WHERE o.oid >= 16384 AND o.oprcode::oid IN (SELECT oid FROM unsafe_routine)
UNION ALL
SELECT DISTINCT 'type', t.typname::text FROM pg_catalog.pg_type t
WHERE t.oid IN (SELECT casttarget FROM pg_catalog.pg_cast WHERE oid >= 16384 AND castfunc IN (SELECT oid FROM unsafe_routine))
   OR t.oid >= 16384 AND t.typtype = 'b' AND t.typelem = 0 AND t.typinput::oid IN (SELECT oid FROM unsafe_routine)
   OR t.oid IN (SELECT k.contypid FROM pg_catalog.pg_constraint k,
                    pg_catalog.regexp_matches(k.conbin::text, ':(funcid|opfuncid) (\d+)', 'g') AS m
                WHERE k.contypid <> 0 AND k.oid >= 16384 AND m[2]::oid IN (SELECT oid FROM unsafe_routine))
