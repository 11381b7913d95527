-- What Bulkhead wants to know of a database's catalog. Two columns: kind, name. It means the same under any
-- search_path: functions, types, relations and operators are all qualified.
--
--   function [volatile] [user] [keeps] [built] [own]
--                            every function; "user" if a volatile one is not built in, "keeps" if such a one is in C,
--                            and no extension's: it may keep what it likes; "built" if a volatile one is built in, "own"
--                            if one is neither built in nor an extension's
--   relation                 a standby cannot answer for it: unlogged, foreign, a sequence (whose value a standby has
--                            only roughly), or it reaches a volatile function, a
--                            catalog or another such relation through a view, a row security policy or a partition
--   operator, type           it reaches a volatile function
--   program, trigger         see programs.sql, which is added to this query
--   known, oid, reach, heir, refers, doubt, body
--                            see proof.sql, which is added to this query
WITH RECURSIVE routine AS (
    SELECT p.oid, p.proname::pg_catalog.text AS name,
           p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AS of_user,
           p.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
               -- An aggregate is declared immutable whatever its parts are.
               OR EXISTS (SELECT FROM pg_catalog.pg_aggregate a
                          JOIN pg_catalog.pg_proc part
                              ON part.oid OPERATOR(pg_catalog.=) a.aggtransfn::pg_catalog.oid
                                  OR part.oid OPERATOR(pg_catalog.=) a.aggfinalfn::pg_catalog.oid
                          WHERE a.aggfnoid::pg_catalog.oid OPERATOR(pg_catalog.=) p.oid
                              AND part.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
                              AND part.provolatile OPERATOR(pg_catalog.=) 'v'::pg_catalog."char") AS is_volatile,
           -- 13 is C.
           p.prolang OPERATOR(pg_catalog.=) 13::pg_catalog.oid AS in_c,
           EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
                       AND d.objid OPERATOR(pg_catalog.=) p.oid
                       AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char") AS of_extension
    FROM pg_catalog.pg_proc p
), unsafe_routine AS (
    SELECT oid FROM routine
    WHERE is_volatile AND NOT name OPERATOR(pg_catalog.=) ANY (ARRAY[
              'random', 'random_normal', 'clock_timestamp', 'timeofday', 'gen_random_uuid', 'gen_random_bytes',
              'uuidv4', 'uuidv7', 'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4',
              'pg_sleep', 'pg_sleep_for', 'pg_sleep_until']::pg_catalog.text[])
       OR name OPERATOR(pg_catalog.~) '^(inet_(client|server)_|txid_|pg_current_xact|pg_current_snapshot|pg_stat_get|pg_listening|pg_my_temp|pg_backend_pid$)'
), tree AS (
    SELECT r.ev_class AS relation, r.ev_action::pg_catalog.text AS tree
    FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class
    WHERE c.relkind OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
        AND c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT p.polrelid, p.polqual::pg_catalog.text
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.polrelid
    WHERE c.relrowsecurity AND p.polqual IS NOT NULL
), uses AS (
    SELECT DISTINCT relation, m[1] AS kind, m[2]::pg_catalog.oid AS used
    FROM tree, pg_catalog.regexp_matches(tree, ':(funcid|opfuncid|aggfnoid|winfnoid|opno|relid) (\d+)', 'g') AS m
), unsafe_relation AS (
    SELECT oid FROM pg_catalog.pg_class
    WHERE oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        AND (relkind OPERATOR(pg_catalog.=) ANY ('{f,S}'::pg_catalog."char"[])
             OR relpersistence OPERATOR(pg_catalog.=) 'u'::pg_catalog."char"
                 AND relkind OPERATOR(pg_catalog.=) ANY ('{r,p,m,S}'::pg_catalog."char"[]))
    UNION
    SELECT u.relation FROM uses u JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) u.used
    WHERE u.kind OPERATOR(pg_catalog.=) ANY ('{funcid,opfuncid,aggfnoid,winfnoid}'::pg_catalog.text[])
    UNION
    SELECT u.relation FROM uses u JOIN pg_catalog.pg_operator o ON o.oid OPERATOR(pg_catalog.=) u.used
    JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
    WHERE u.kind OPERATOR(pg_catalog.=) 'opno'
    UNION
    SELECT u.relation FROM uses u
    WHERE u.kind OPERATOR(pg_catalog.=) 'relid'
        AND u.used OPERATOR(pg_catalog.>=) 1::pg_catalog.oid
        AND u.used OPERATOR(pg_catalog.<) 16384::pg_catalog.oid
), reached AS (
    SELECT oid FROM unsafe_relation
    UNION
    SELECT up.oid
    FROM reached JOIN (
        SELECT relation AS oid, used FROM uses WHERE kind OPERATOR(pg_catalog.=) 'relid'
        UNION ALL
        SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
    ) up ON up.used OPERATOR(pg_catalog.=) reached.oid
)
SELECT pg_catalog.concat_ws(' ', 'function',
           CASE WHEN pg_catalog.bool_or(is_volatile) THEN 'volatile' END,
           CASE WHEN pg_catalog.bool_or(is_volatile AND of_user) THEN 'user' END,
           CASE WHEN pg_catalog.bool_or(is_volatile AND of_user AND in_c AND NOT of_extension) THEN 'keeps' END,
           CASE WHEN pg_catalog.bool_or(is_volatile AND NOT of_user) THEN 'built' END,
           CASE WHEN pg_catalog.bool_or(of_user AND NOT of_extension) THEN 'own' END) AS kind, name
FROM routine GROUP BY name
UNION ALL
-- Whatever it is declared to be, its body in standard SQL calls what may change something.
SELECT DISTINCT 'function volatile user own', p.proname::pg_catalog.text
FROM pg_catalog.pg_proc p
    CROSS JOIN pg_catalog.regexp_matches(pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(p), 'prosqlbody'),
                                         ':(funcid|opfuncid|aggfnoid|winfnoid) (\d+)', 'g') AS m
    JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) m[2]::pg_catalog.oid
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
UNION ALL
SELECT 'relation', c.relname::pg_catalog.text
FROM reached JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) reached.oid
UNION ALL
SELECT DISTINCT 'operator', o.oprname::pg_catalog.text
FROM pg_catalog.pg_operator o JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) o.oprcode::pg_catalog.oid
WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
UNION ALL
SELECT DISTINCT 'type', t.typname::pg_catalog.text
FROM (
    SELECT k.casttarget AS oid
    FROM pg_catalog.pg_cast k JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) k.castfunc
    WHERE k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    UNION ALL
    SELECT t.oid
    FROM pg_catalog.pg_type t JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) t.typinput::pg_catalog.oid
    WHERE t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
        AND t.typtype OPERATOR(pg_catalog.=) 'b'::pg_catalog."char"
        AND t.typelem OPERATOR(pg_catalog.=) 0::pg_catalog.oid
    UNION ALL
    SELECT k.contypid
    FROM pg_catalog.pg_constraint k
        CROSS JOIN pg_catalog.regexp_matches(k.conbin::pg_catalog.text, ':(funcid|opfuncid) (\d+)', 'g') AS m
        JOIN unsafe_routine f ON f.oid OPERATOR(pg_catalog.=) m[2]::pg_catalog.oid
    WHERE k.contypid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid
        AND k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
) u JOIN pg_catalog.pg_type t ON t.oid OPERATOR(pg_catalog.=) u.oid
