-- The objects that were chosen, what belongs to them, and what these refer to. Those of PostgreSQL itself have lower oids.
WITH RECURSIVE need (classid, objid) AS (
    SELECT r.classid, r.objid FROM (
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid, pg_catalog.unnest({relations})
        UNION SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid, pg_catalog.unnest({functions})
        UNION SELECT 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid, pg_catalog.unnest({types})
    ) AS r (classid, objid)
    UNION
    SELECT x.classid, x.objid FROM need AS n CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend AS d
        WHERE d.refclassid = n.classid AND d.refobjid = n.objid AND d.deptype IN ('a', 'i', 'P', 'S')
        AND n.classid <> 'pg_catalog.pg_namespace'::pg_catalog.regclass
        UNION ALL
        SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend AS d
        WHERE d.classid = n.classid AND d.objid = n.objid
    ) AS x
    WHERE x.objid >= 16384
    -- A move's own, and the outbox's partition for rows that no other is made for.
    AND NOT (x.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND EXISTS (
        SELECT FROM pg_catalog.pg_trigger AS t WHERE t.oid = x.objid AND t.tgname LIKE 'bulkhead\_move\_%'))
    AND NOT (x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (
        SELECT FROM pg_catalog.pg_inherits AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
        JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
        WHERE i.inhrelid = x.objid AND c.relispartition
        AND c.relname = ('bulkhead_' OPERATOR(pg_catalog.||) p.relname)::pg_catalog.name))
), own AS (
    SELECT n.classid, n.objid FROM need AS n WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend AS e
        WHERE e.classid = n.classid AND e.objid = n.objid AND e.deptype = 'e')
)
