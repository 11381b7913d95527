-- Objects that rules may call a job library's: what each is, its oid, schema and name. Partitions come with the whole.
SELECT 'relation', c.oid, n.nspname, c.relname
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT c.relispartition
AND n.nspname NOT IN ('bulkhead', 'bulkhead_move', 'information_schema')
AND n.nspname NOT LIKE 'pg\_%'
UNION ALL
SELECT 'function', p.oid, n.nspname, p.proname
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname NOT IN ('bulkhead', 'bulkhead_move', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
UNION ALL
SELECT 'type', t.oid, n.nspname, t.typname
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
WHERE (t.typtype IN ('e', 'd', 'r') OR c.relkind = 'c')
AND n.nspname NOT IN ('bulkhead', 'bulkhead_move', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'
