-- What a proof needs to know: that a text leaves nothing on its backend. Names stand for all objects of that name, in
-- whatever schema. Two columns, as in catalog.sql:
--
--   known relation|type|operator  there is one of this name
--   known pg_                     a relation of users whose name begins as those of the server do
--   oid <oid>                     the name of a type of users
--   reach <from><to>              two names, each as quote_ident writes it: whoever uses the first may run the second.
--                                 Letters: f function, r relation read, w relation written, t type, o operator,
--                                 c operator class
--   heir                          two names: a parent, and its heir or partition
--   refers <actions>              two names: a relation with a foreign key, and the one that it refers to; what the key
--                                 does on DELETE and UPDATE, as pg_constraint has it
--   doubt <letter>                whoever uses it may run a built-in function that is not audited, or code of others
--   doubt ddl                     there is an event trigger
--   body <language> [long]        a function's name and source: "tree" for a body in standard SQL, whose parts are
--                                 among "reach", "of <extension>" for code in C of an extension
SELECT 'known relation', c.relname::pg_catalog.text FROM pg_catalog.pg_class c
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,p,f,S,c}'::pg_catalog."char"[])
    AND c.relpersistence OPERATOR(pg_catalog.<>) 't'::pg_catalog."char"
UNION ALL
SELECT DISTINCT 'known pg_', c.relname::pg_catalog.text FROM pg_catalog.pg_class c
WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,v,m,p,f}'::pg_catalog."char"[])
    AND pg_catalog."left"(c.relname::pg_catalog.text, 3) OPERATOR(pg_catalog.=) 'pg_'
UNION ALL
SELECT 'known type', t.typname::pg_catalog.text FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem
WHERE t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
    AND (e.oid IS NULL OR e.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid)
UNION ALL
SELECT pg_catalog.concat('oid ', t.oid), t.typname::pg_catalog.text FROM pg_catalog.pg_type t
    LEFT JOIN pg_catalog.pg_type e ON e.oid OPERATOR(pg_catalog.=) t.typelem
WHERE t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
    AND t.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
    AND (e.oid IS NULL OR e.typrelid OPERATOR(pg_catalog.=) 0::pg_catalog.oid)
UNION ALL
SELECT DISTINCT 'known operator', o.oprname::pg_catalog.text FROM pg_catalog.pg_operator o
UNION ALL
SELECT 'doubt ddl', '' WHERE EXISTS (
    SELECT FROM pg_catalog.pg_event_trigger e
    WHERE e.evtenabled OPERATOR(pg_catalog.<>) 'D'::pg_catalog."char")
UNION ALL
SELECT 'doubt r', c.relname::pg_catalog.text FROM pg_catalog.pg_class c
WHERE c.relkind OPERATOR(pg_catalog.=) 'f'::pg_catalog."char"
UNION ALL
SELECT pg_catalog.concat_ws(' ', 'body',
           CASE WHEN p.prokind OPERATOR(pg_catalog.=) 'a'::pg_catalog."char" THEN 'tree'
                WHEN pg_catalog.array_to_string(p.proconfig, ' ')
                    OPERATOR(pg_catalog.~*) 'standard_conforming|backslash|client_encoding|exit_on' THEN 'other'
                WHEN l.lanname OPERATOR(pg_catalog.=) 'c' OR l.lanname OPERATOR(pg_catalog.=) 'internal'
                    THEN COALESCE((SELECT pg_catalog.concat('of ', x.extname) FROM pg_catalog.pg_depend d
                                   JOIN pg_catalog.pg_extension x ON x.oid OPERATOR(pg_catalog.=) d.refobjid
                                   WHERE d.classid OPERATOR(pg_catalog.=)
                                           'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
                                       AND d.objid OPERATOR(pg_catalog.=) p.oid
                                       AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char" LIMIT 1), 'other')
                WHEN l.lanname OPERATOR(pg_catalog.=) 'sql' AND pg_catalog.length(
                        pg_catalog.jsonb_extract_path_text(pg_catalog.to_jsonb(p), 'prosqlbody'))
                    OPERATOR(pg_catalog.>) 0 THEN 'tree'
                WHEN l.lanname OPERATOR(pg_catalog.=) 'sql' OR l.lanname OPERATOR(pg_catalog.=) 'plpgsql'
                    THEN l.lanname::pg_catalog.text
                ELSE 'other' END,
           CASE WHEN pg_catalog.length(p.prosrc) OPERATOR(pg_catalog.>) 20000 THEN 'long' END),
       pg_catalog.concat(pg_catalog.quote_ident(p.proname::pg_catalog.text), ' ',
           CASE WHEN l.lanname OPERATOR(pg_catalog.=) 'sql' OR l.lanname OPERATOR(pg_catalog.=) 'plpgsql'
               THEN pg_catalog."left"(p.prosrc, 20000) END)
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid OPERATOR(pg_catalog.=) p.prolang
WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
UNION ALL
(WITH risky AS (
    SELECT p.oid FROM pg_catalog.pg_proc p
    WHERE p.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid AND (p.proname OPERATOR(pg_catalog.=) ANY (ARRAY[
