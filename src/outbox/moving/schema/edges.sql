-- What must be there before what: both as they are named among the objects. Expressions that are written with their table,
-- type or view count as this.
SELECT DISTINCT f.classid, f.objid, d.refclassid, d.refobjid
FROM need AS n
JOIN pg_catalog.pg_depend AS d ON d.classid = n.classid AND d.objid = n.objid AND d.refobjid >= 16384
LEFT JOIN pg_catalog.pg_rewrite AS w
    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid
LEFT JOIN pg_catalog.pg_constraint AS o
    ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND o.oid = d.objid AND o.contypid <> 0
LEFT JOIN pg_catalog.pg_attrdef AS e
    ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.oid = d.objid
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = e.adrelid AND a.attnum = e.adnum AND a.attgenerated <> ''
LEFT JOIN pg_catalog.pg_class AS k
    ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND k.oid = d.objid AND k.relkind = 'c'
CROSS JOIN LATERAL (SELECT
    CASE WHEN w.oid IS NOT NULL OR a.attnum IS NOT NULL THEN 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
        WHEN o.oid IS NOT NULL OR k.oid IS NOT NULL THEN 'pg_catalog.pg_type'::pg_catalog.regclass::pg_catalog.oid ELSE d.classid END,
    COALESCE(w.ev_class, a.attrelid, o.contypid, k.reltype, d.objid)
) AS f (classid, objid)
WHERE (f.classid, f.objid) IS DISTINCT FROM (d.refclassid, d.refobjid)
ORDER BY 1, 2, 3, 4
